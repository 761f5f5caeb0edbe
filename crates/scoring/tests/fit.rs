//! The logistic fit, the intervals and the thresholds against what is known of them.

use proptest::prelude::*;
use scoring::{
    Example, FitError, Judged, choose, expected_calibration_error, fit, lower_bound, needed_without_error,
    proportion_interval,
};

/// A deterministic stand-in for chance: the golden ratio's multiples, evenly spread over 0..1.
fn even(n: usize) -> f64 {
    (n as f64 * 0.618_033_988_749_895).fract()
}

/// Examples drawn from a known curve.
fn drawn(count: usize, intercept: f64, similarity_weight: f64, background_weight: f64) -> Vec<Example> {
    (0..count)
        .map(|n| {
            let (similarity, background) = (even(n), 0.2 + 0.4 * even(7 * n + 3));
            let logit = intercept + similarity_weight * similarity + background_weight * background;
            let is_copy = even(13 * n * n + 5 * n + 1) < 1.0 / (1.0 + (-logit).exp());
            Example {
                similarity,
                background,
                is_copy,
            }
        })
        .collect()
}

#[test]
fn a_known_curve_is_found_again() {
    let found = fit(&drawn(50_000, -4.0, 9.0, -3.0)).unwrap();
    assert!((found.intercept + 4.0).abs() < 0.3, "{found:?}");
    assert!((found.similarity_weight - 9.0).abs() < 0.5, "{found:?}");
    assert!((found.background_weight + 3.0).abs() < 0.5, "{found:?}");
    assert!(!found.reversed);
}

#[test]
fn at_the_fitted_curve_the_mean_probability_is_the_share_of_copies() {
    // The first-order condition of the intercept, which the ridge leaves alone.
    let examples = drawn(1_000, -2.0, 5.0, -1.0);
    let found = fit(&examples).unwrap();
    let mean: f64 = examples
        .iter()
        .map(|e| {
            1.0 / (1.0
                + (-(found.intercept
                    + found.similarity_weight * e.similarity
                    + found.background_weight * e.background))
                    .exp())
        })
        .sum::<f64>()
        / 1_000.0;
    let share = examples.iter().filter(|e| e.is_copy).count() as f64 / 1_000.0;
    assert!((mean - share).abs() < 1e-6, "{mean} {share}");
}

#[test]
fn separable_classes_give_a_finite_curve_that_separates_them() {
    let examples: Vec<Example> = (0..200)
        .map(|n| Example {
            similarity: if n < 100 {
                0.8 + 0.1 * even(n)
            } else {
                0.2 + 0.1 * even(n)
            },
            background: 0.3,
            is_copy: n < 100,
        })
        .collect();
    let found = fit(&examples).unwrap();
    let logit =
        |similarity: f64| found.intercept + found.similarity_weight * similarity + found.background_weight * 0.3;
    assert!(logit(0.8) > 2.0 && logit(0.3) < -2.0, "{found:?}");
    assert_eq!(found.background_weight, 0.0, "a column that does not vary says nothing");
}

#[test]
fn a_curve_never_falls_with_the_similarity() {
    let reversed: Vec<Example> = drawn(500, -2.0, 5.0, 0.0)
        .into_iter()
        .map(|e| Example {
            is_copy: !e.is_copy,
            ..e
        })
        .collect();
    let found = fit(&reversed).unwrap();
    assert!(found.reversed);
    assert_eq!(found.similarity_weight, 0.0);
}

#[test]
fn too_few_one_class_and_no_numbers_are_refused_by_name() {
    let one_class: Vec<Example> = drawn(100, 50.0, 0.0, 0.0);
    assert_eq!(fit(&one_class), Err(FitError::TooFew { copies: 100, others: 0 }));
    let mut examples = drawn(100, -2.0, 4.0, 0.0);
    examples[42].background = f64::NAN;
    let Err(FitError::Value {
        index: 42,
        field: "background",
        value,
    }) = fit(&examples)
    else {
        panic!("NaN was taken");
    };
    assert!(value.is_nan());
}

#[test]
fn the_interval_is_clopper_and_pearsons() {
    // From exact sums of the binomial distribution (Python's integers).
    for (correct, total, low, high) in [
        (9, 10, 0.554_983_9, 0.997_471_4),
        (50, 50, 0.928_878_3, 1.0),
        (0, 20, 0.0, 0.168_433_5),
        (297, 300, 0.971_055_5, 0.997_933_0),
    ] {
        let (a, b) = proportion_interval(correct, total, 0.95);
        assert!(
            (a - low).abs() < 1e-7 && (b - high).abs() < 1e-7,
            "{correct}/{total}: {a} {b}"
        );
    }
    assert_eq!(proportion_interval(0, 0, 0.95), (0.0, 1.0));
}

#[test]
fn the_number_needed_is_where_the_bound_first_reaches_the_precision() {
    for precision in [0.9, 0.95, 0.99] {
        let needed = needed_without_error(precision, 0.95);
        assert!(lower_bound(needed, needed, 0.95) >= precision);
        assert!(lower_bound(needed - 1, needed - 1, 0.95) < precision);
    }
    assert_eq!(needed_without_error(0.99, 0.95), 299);
}

fn judged(list: &[(f64, bool, usize)]) -> Vec<Judged> {
    list.iter()
        .flat_map(|&(probability, is_copy, count)| vec![Judged { probability, is_copy }; count])
        .collect()
}

#[test]
fn the_threshold_is_the_lowest_that_holds_the_precision_with_confidence() {
    let list = judged(&[
        (0.95, true, 200),
        (0.8, true, 200),
        (0.7, false, 30),
        (0.6, true, 100),
        (0.1, false, 500),
    ]);
    let chosen = choose(&list, 0.99, 0.95);
    assert!(chosen.held);
    assert_eq!((chosen.probability, chosen.accepted, chosen.correct), (0.8, 400, 400));
    let chosen = choose(&list, 0.90, 0.95);
    assert_eq!(
        (chosen.probability, chosen.accepted),
        (0.6, 530),
        "30 wrong of 430, then of 530: {chosen:?}"
    );
}

#[test]
fn too_few_cases_promise_nothing_and_say_so() {
    let chosen = choose(&judged(&[(0.9, true, 50), (0.5, false, 50)]), 0.99, 0.95);
    assert!(!chosen.held);
    assert_eq!((chosen.probability, chosen.accepted), (0.9, 50));
    let chosen = choose(&judged(&[(0.9, false, 5), (0.5, true, 5)]), 0.99, 0.95);
    assert!(!chosen.held);
    assert_eq!(
        chosen.probability, 1.0,
        "no threshold reaches the precision: nothing is accepted"
    );
}

#[test]
fn calibration_error_is_zero_where_shares_are_the_probabilities() {
    assert_eq!(expected_calibration_error(&[]), None);
    let held = expected_calibration_error(&judged(&[(0.25, true, 25), (0.25, false, 75)])).unwrap();
    assert!(held < 1e-12);
    let off = expected_calibration_error(&judged(&[(0.95, true, 50), (0.95, false, 50)])).unwrap();
    assert!((off - 0.45).abs() < 1e-12);
}

proptest! {
    #[test]
    fn any_labels_of_both_classes_are_fitted(
        seed in any::<u16>(), count in 40usize..400, share in 0.1f64..0.9, apart in -0.5f64..0.5,
        spread in 1e-6f64..1.0,
    ) {
        let examples: Vec<Example> = (0..count)
            .map(|n| {
                let place = n + usize::from(seed);
                let is_copy = n < 10 || (n >= 20 && even(place) < share);
                let side = if is_copy { apart } else { -apart };
                Example {
                    similarity: (side + spread * (even(3 * place + 1) - 0.5)).clamp(-1.0, 1.0),
                    background: spread * even(place * place % 9973),
                    is_copy,
                }
            })
            .collect();
        let found = fit(&examples).unwrap();
        prop_assert!(found.similarity_weight >= 0.0 && found.steps < 100, "{:?}", found);
        // The intercept's first-order condition, which the ridge leaves alone.
        let mean: f64 = examples
            .iter()
            .map(|e| found.similarity_weight * e.similarity + found.background_weight * e.background)
            .map(|sum| 1.0 / (1.0 + (-(found.intercept + sum)).exp()))
            .sum::<f64>() / count as f64;
        let copies = examples.iter().filter(|e| e.is_copy).count() as f64 / count as f64;
        prop_assert!((mean - copies).abs() < 1e-4, "{} {}", mean, copies);
    }

    #[test]
    fn the_bound_covers_what_it_says(total in 1usize..400, share in 0.0f64..=1.0, confidence in 0.5f64..0.999) {
        let correct = (share * total as f64) as usize;
        let bound = lower_bound(correct, total, confidence);
        prop_assert!((0.0..=1.0).contains(&bound));
        prop_assert!(bound <= correct as f64 / total as f64 + 1e-9);
        // P(X >= correct) at the bound is 1 − confidence: summed from the binomial itself.
        if correct > 0 {
            let mut log_term = total as f64 * (-bound).ln_1p();
            let mut below = log_term.exp();
            for k in 1..correct {
                log_term += ((total - k + 1) as f64 / k as f64).ln() + bound.ln() - (-bound).ln_1p();
                below += log_term.exp();
            }
            prop_assert!((1.0 - below - (1.0 - confidence)).abs() < 1e-6, "{} {}", below, confidence);
        }
    }

    #[test]
    fn a_threshold_that_is_held_keeps_its_precision(list in prop::collection::vec((0u8..20, any::<bool>()), 0..400)) {
        let list: Vec<Judged> = list
            .iter()
            .map(|&(p, is_copy)| Judged { probability: f64::from(p) / 20.0, is_copy: is_copy || p > 10 })
            .collect();
        let chosen = choose(&list, 0.9, 0.95);
        let accepted: Vec<&Judged> = list.iter().filter(|j| j.probability >= chosen.probability).collect();
        prop_assert_eq!(accepted.len(), chosen.accepted);
        if chosen.held {
            prop_assert!(lower_bound(chosen.correct, chosen.accepted, 0.95) >= 0.9);
        }
    }
}
