//! Predictions gathered in parts say what the whole list says.

use proptest::prelude::*;
use scoring::{
    Prediction, Predictions, micro_average_precision, precision_recall, recall_at_precision, threshold_at_precision,
};

fn list() -> impl Strategy<Value = Vec<Prediction>> {
    // Few different scores: ties are the hard part.
    prop::collection::vec(
        (
            prop_oneof![
                Just(0.0),
                Just(-0.0),
                Just(f64::INFINITY),
                Just(f64::NEG_INFINITY),
                -3.0f64..3.0,
                (-3i8..3).prop_map(f64::from)
            ],
            any::<bool>(),
        )
            .prop_map(|(score, correct)| Prediction { score, correct }),
        0..60,
    )
}

proptest! {
    #[test]
    fn parts_in_any_order_give_the_metrics_of_the_whole(list in list(), cut in 0usize..60, more in 1usize..5) {
        let positives = list.iter().filter(|p| p.correct).count() + more;
        let (first, second) = list.split_at(cut.min(list.len()));
        let gather = |part: &[Prediction]| {
            let mut gathered = Predictions::new();
            part.iter().for_each(|p| gathered.push(*p).unwrap());
            Predictions::from_bytes(&gathered.to_bytes()).unwrap()
        };
        let mut whole = gather(second);
        whole.extend(&gather(first));
        prop_assert_eq!(whole.micro_average_precision(positives), micro_average_precision(&list, positives));
        prop_assert_eq!(whole.precision_recall(positives), precision_recall(&list, positives));
        for precision in [0.5, 0.9, 1.0] {
            let best = whole.at_precision(positives, precision).unwrap();
            prop_assert_eq!(best.map_or(0.0, |b| b.recall), recall_at_precision(&list, positives, precision).unwrap());
            prop_assert_eq!(best.map(|b| b.threshold), threshold_at_precision(&list, positives, precision).unwrap());
        }
    }

    #[test]
    fn foreign_bytes_are_refused_or_read_never_worse(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(mut read) = Predictions::from_bytes(&bytes) {
            let positives = read.len() + 1;
            prop_assert!((0.0..=1.0).contains(&read.micro_average_precision(positives).unwrap()));
        }
    }
}
