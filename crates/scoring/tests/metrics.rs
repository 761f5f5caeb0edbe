//! The metrics against their definitions, written the slow way, and against values worked by hand.

use proptest::prelude::*;
use scoring::{
    MetricError, Prediction, micro_average_precision, precision_recall, recall_at_precision, threshold_at_precision,
};

fn predictions(list: &[(f64, bool)]) -> Vec<Prediction> {
    list.iter()
        .map(|&(score, correct)| Prediction { score, correct })
        .collect()
}

/// Place of prediction `i` in a list where, among equal scores, the wrong ones come first: quadratic, without sorting.
/// Returns how many predictions stand at or before it, and how many of those are correct.
fn place(list: &[Prediction], i: usize) -> (usize, usize) {
    let before = |j: usize| {
        let (a, b) = (list[j], list[i]);
        a.score > b.score || (a.score == b.score && ((!a.correct && b.correct) || (a.correct == b.correct && j <= i)))
    };
    let standing: Vec<usize> = (0..list.len()).filter(|&j| before(j)).collect();
    (standing.len(), standing.iter().filter(|&&j| list[j].correct).count())
}

fn naive_average_precision(list: &[Prediction], positives: usize) -> f64 {
    let at = |i: usize| {
        let (place, correct) = place(list, i);
        correct as f64 / place as f64
    };
    (0..list.len()).filter(|&i| list[i].correct).map(at).sum::<f64>() / positives as f64
}

/// As detscore.py has it: of all places with enough precision, the largest recall and the first score that has it.
fn naive_best(list: &[Prediction], positives: usize, precision: f64) -> (f64, Option<f64>) {
    let mut best: Option<(f64, usize, f64)> = None;
    for i in 0..list.len() {
        let (place, correct) = place(list, i);
        let recall = correct as f64 / positives as f64;
        let better = best.is_none_or(|(most, at, _)| recall > most || (recall == most && place < at));
        if correct as f64 / place as f64 >= precision && better {
            best = Some((recall, place, list[i].score));
        }
    }
    (best.map_or(0.0, |best| best.0), best.map(|best| best.2))
}

#[test]
fn worked_examples_hold() {
    // Right, wrong, right of three true pairs: (1/1 + 2/3) / 3.
    let list = predictions(&[(0.9, true), (0.8, false), (0.7, true)]);
    assert_eq!(micro_average_precision(&list, 3), Ok((1.0 + 2.0 / 3.0) / 3.0));
    assert_eq!(recall_at_precision(&list, 3, 0.9), Ok(1.0 / 3.0));
    assert_eq!(threshold_at_precision(&list, 3, 0.9), Ok(Some(0.9)));
    assert_eq!(recall_at_precision(&list, 3, 0.6), Ok(2.0 / 3.0));
    assert_eq!(threshold_at_precision(&list, 3, 0.6), Ok(Some(0.7)));
}

#[test]
fn a_tie_never_helps() {
    // All scores equal: the three wrong ones come first, whatever the order of the list.
    let tied = [(0.5, true), (0.5, false), (0.5, false), (0.5, true), (0.5, false)];
    let expected = (1.0 / 4.0 + 2.0 / 5.0) / 2.0;
    let mut list = predictions(&tied);
    assert_eq!(micro_average_precision(&list, 2), Ok(expected));
    list.reverse();
    assert_eq!(micro_average_precision(&list, 2), Ok(expected));
    assert_eq!(recall_at_precision(&list, 2, 0.5), Ok(0.0));
    assert_eq!(threshold_at_precision(&list, 2, 0.5), Ok(None));
    assert_eq!(recall_at_precision(&list, 2, 0.4), Ok(1.0));
}

#[test]
fn zeros_of_either_sign_are_one_score() {
    let list = predictions(&[(0.0, true), (-0.0, false)]);
    assert_eq!(micro_average_precision(&list, 1), Ok(0.5));
    assert_eq!(precision_recall(&list, 1).expect("a curve").len(), 1);
}

#[test]
fn no_predictions_find_nothing() {
    assert_eq!(micro_average_precision(&[], 4), Ok(0.0));
    assert_eq!(recall_at_precision(&[], 4, 0.9), Ok(0.0));
    assert_eq!(threshold_at_precision(&[], 4, 0.9), Ok(None));
    assert_eq!(precision_recall(&[], 4), Ok(vec![]));
}

#[test]
fn input_without_a_meaning_is_refused() {
    let list = predictions(&[(0.9, true), (f64::NAN, false)]);
    assert_eq!(
        micro_average_precision(&list, 1),
        Err(MetricError::NotANumber { index: 1 })
    );
    let list = predictions(&[(0.9, true), (0.8, true)]);
    assert_eq!(precision_recall(&list, 0), Err(MetricError::NoPositives));
    assert_eq!(
        precision_recall(&list, 1),
        Err(MetricError::TooManyCorrect {
            correct: 2,
            positives: 1
        })
    );
    for precision in [0.0, -1.0, 1.01] {
        assert_eq!(
            recall_at_precision(&list, 2, precision),
            Err(MetricError::Precision { precision })
        );
    }
    assert!(matches!(
        threshold_at_precision(&list, 2, f64::NAN),
        Err(MetricError::Precision { .. })
    ));
}

#[test]
fn infinite_scores_have_their_place() {
    let list = predictions(&[(f64::NEG_INFINITY, false), (f64::INFINITY, true), (0.0, true)]);
    assert_eq!(micro_average_precision(&list, 2), Ok(1.0));
    assert_eq!(threshold_at_precision(&list, 2, 1.0), Ok(Some(0.0)));
}

/// Few different scores, so that most lists are full of ties.
fn tied_predictions() -> impl Strategy<Value = Vec<Prediction>> {
    let scores = prop::sample::select(vec![-2.0, -0.5, -0.0, 0.0, 0.5, 0.75, 1.0]);
    prop::collection::vec(
        (scores, any::<bool>()).prop_map(|(score, correct)| Prediction { score, correct }),
        0..60,
    )
}

proptest! {
    #[test]
    fn the_metrics_are_their_definitions(
        list in tied_predictions(), missed in 0_usize..5, precision in 0.05_f64..=1.0,
    ) {
        let positives = list.iter().filter(|prediction| prediction.correct).count() + missed;
        prop_assume!(positives > 0);
        let average = micro_average_precision(&list, positives).expect("valid");
        prop_assert!((average - naive_average_precision(&list, positives)).abs() < 1e-12);
        let (recall, threshold) = naive_best(&list, positives, precision);
        prop_assert_eq!(recall_at_precision(&list, positives, precision), Ok(recall));
        prop_assert_eq!(threshold_at_precision(&list, positives, precision), Ok(threshold));
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(list in tied_predictions(), rotation in 0_usize..60) {
        let positives = list.len().max(1);
        let mut other = list.clone();
        other.rotate_left(rotation % list.len().max(1));
        other.reverse();
        prop_assert_eq!(micro_average_precision(&list, positives), micro_average_precision(&other, positives));
        prop_assert_eq!(precision_recall(&list, positives), precision_recall(&other, positives));
    }

    #[test]
    fn every_point_of_the_curve_is_what_its_threshold_accepts(list in tied_predictions(), missed in 1_usize..5) {
        let positives = list.iter().filter(|prediction| prediction.correct).count() + missed;
        let curve = precision_recall(&list, positives).expect("valid");
        prop_assert!(curve.is_sorted_by(|a, b| a.threshold > b.threshold && a.recall <= b.recall));
        for point in curve {
            let accepted = list.iter().filter(|prediction| prediction.score >= point.threshold);
            let correct = accepted.clone().filter(|prediction| prediction.correct).count() as f64;
            prop_assert_eq!(point.precision, correct / accepted.count() as f64);
            prop_assert_eq!(point.recall, correct / positives as f64);
        }
    }

    #[test]
    fn the_threshold_reaches_what_it_promises(list in tied_predictions(), precision in 0.05_f64..=1.0) {
        let positives = list.len().max(1);
        if let Some(threshold) = threshold_at_precision(&list, positives, precision).expect("valid") {
            let accepted = list.iter().filter(|prediction| prediction.score >= threshold);
            let correct = accepted.clone().filter(|prediction| prediction.correct).count() as f64;
            prop_assert!(correct / accepted.count() as f64 >= precision);
            prop_assert_eq!(Ok(correct / positives as f64), recall_at_precision(&list, positives, precision));
        }
    }
}
