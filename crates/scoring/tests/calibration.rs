//! The calibration record: read right or refused by its field; the formulas are those of the paper.

use proptest::prelude::*;
use scoring::{Calibration, CalibrationError, MAX_CALIBRATION_BYTES, Verdict};
use serde_json::{Value, json};

fn valid() -> Value {
    json!({
        "neighbours": 5, "factor": 2.5, "clamp": [0.1, 0.4], "intercept": -8.0, "similarity_weight": 14.0,
        "background_weight": -3.0, "copy_probability": 0.9, "review_probability": 0.5
    })
}

fn read(json: &Value) -> Calibration {
    Calibration::from_json(&json.to_string()).expect("a valid calibration")
}

#[test]
fn every_field_reads_back_as_it_was_written() {
    let calibration = read(&valid());
    assert_eq!(calibration.neighbours(), 5);
    assert_eq!(calibration.factor(), 2.5);
    assert_eq!(calibration.clamp(), [0.1, 0.4]);
    assert_eq!(calibration.copy_probability(), 0.9);
    assert_eq!(calibration.review_probability(), 0.5);
    assert_eq!(
        serde_json::from_str::<Value>(&calibration.to_json()).expect("JSON"),
        valid()
    );
    assert_eq!(Calibration::from_json(&calibration.to_json()), Ok(calibration));
}

#[test]
fn neighbours_and_factor_default_to_the_papers() {
    let mut json = valid();
    let fields = json.as_object_mut().expect("an object");
    fields.remove("neighbours");
    fields.remove("factor");
    assert_eq!(read(&json), read(&valid()));
}

#[test]
fn a_value_out_of_range_is_refused_by_its_field() {
    let cases = [
        ("/neighbours", json!(0), "neighbours"),
        ("/neighbours", json!(1001), "neighbours"),
        ("/factor", json!(0), "factor"),
        ("/factor", json!(-2.5), "factor"),
        ("/factor", json!(0.009), "factor"),
        ("/factor", json!(101), "factor"),
        ("/clamp/0", json!(0), "clamp[0]"),
        ("/clamp/0", json!(-0.1), "clamp[0]"),
        ("/clamp/0", json!(1e-9), "clamp[0]"),
        ("/clamp/0", json!(1.5), "clamp[0]"),
        ("/clamp/1", json!(0.05), "clamp[1]"),
        ("/clamp/1", json!(1.01), "clamp[1]"),
        ("/intercept", json!(1e7), "intercept"),
        ("/similarity_weight", json!(-1), "similarity_weight"),
        ("/background_weight", json!(-1e300), "background_weight"),
        ("/copy_probability", json!(1.1), "copy_probability"),
        ("/copy_probability", json!(0.4), "review_probability"),
        ("/review_probability", json!(-0.1), "review_probability"),
        ("/review_probability", json!(0.95), "review_probability"),
    ];
    for (pointer, value, field) in cases {
        let mut json = valid();
        *json.pointer_mut(pointer).expect(pointer) = value.clone();
        let error = Calibration::from_json(&json.to_string()).expect_err(pointer);
        assert!(
            matches!(error, CalibrationError::Value { .. }),
            "{pointer} = {value}: {error}"
        );
        assert_eq!(error.field(), Some(field), "{pointer} = {value}: {error}");
        assert!(error.to_string().contains(field) && !error.hint().is_empty());
    }
}

#[test]
fn a_missing_unknown_or_mistyped_field_is_refused_by_its_name() {
    let required = [
        "clamp",
        "intercept",
        "similarity_weight",
        "background_weight",
        "copy_probability",
        "review_probability",
    ];
    for field in required {
        let mut json = valid();
        json.as_object_mut().expect("an object").remove(field);
        let error = Calibration::from_json(&json.to_string()).expect_err(field);
        assert!(error.to_string().contains(&format!("`{field}`")), "{error}");
    }
    for (pointer, value) in [
        ("/clamp", json!([0.1])),
        ("/neighbours", json!(2.5)),
        ("/intercept", json!("x")),
    ] {
        let mut json = valid();
        *json.pointer_mut(pointer).expect(pointer) = value;
        let error = Calibration::from_json(&json.to_string()).expect_err(pointer);
        assert!(
            error.field().is_some_and(|field| pointer[1..].starts_with(field)),
            "{error}"
        );
    }
    let mut json = valid();
    json["facter"] = json!(2.0);
    assert!(
        Calibration::from_json(&json.to_string())
            .expect_err("misspelt")
            .to_string()
            .contains("facter")
    );
    for text in ["", "null", "[1]", "{}{}", "{\"factor\": NaN}"] {
        assert!(Calibration::from_json(text).is_err(), "{text}");
    }
    let two = format!("{} {{}}", valid());
    assert!(
        Calibration::from_json(&two)
            .expect_err("two documents")
            .to_string()
            .contains("trailing")
    );
    let bytes = MAX_CALIBRATION_BYTES + 1;
    assert_eq!(
        Calibration::from_json(&" ".repeat(bytes)),
        Err(CalibrationError::TooLarge { bytes })
    );
}

#[test]
fn the_worked_examples_of_the_method_hold() {
    // method.md: cos 0.9 at m = 0.1 scores -0.61; cos 0.7 at m = 0.36 scores -0.55.
    let calibration = read(&valid());
    assert!((calibration.stretch(0.9, 0.1) - -0.6125).abs() < 1e-12);
    assert!((calibration.stretch(0.7, 0.36) - -0.55).abs() < 1e-12);
}

#[test]
fn a_background_beyond_the_clamp_counts_as_the_clamp() {
    let calibration = read(&valid());
    for similarity in [-1.0, 0.0, 0.3, 1.0] {
        assert_eq!(
            calibration.stretch(similarity, -0.2),
            calibration.stretch(similarity, 0.1)
        );
        assert_eq!(
            calibration.stretch(similarity, 0.9),
            calibration.stretch(similarity, 0.4)
        );
    }
}

#[test]
fn both_thresholds_belong_to_the_upper_verdict() {
    let calibration = read(&valid());
    let cases = [
        (1.0, Verdict::Copy),
        (0.9, Verdict::Copy),
        (0.899_999, Verdict::Review),
        (0.5, Verdict::Review),
        (0.499_999, Verdict::Different),
        (0.0, Verdict::Different),
        (f64::NAN, Verdict::Different),
    ];
    for (probability, verdict) in cases {
        assert_eq!(calibration.verdict(probability), verdict, "{probability}");
    }
    let names = [Verdict::Copy, Verdict::Review, Verdict::Different].map(|verdict| verdict.to_string());
    assert_eq!(names, ["copy", "review", "different"]);
}

#[test]
fn no_logit_is_too_large_for_a_probability() {
    let mut json = valid();
    json["intercept"] = json!(1e6);
    assert_eq!(read(&json).probability(0.0, 0.0), 1.0);
    json["intercept"] = json!(-1e6);
    assert_eq!(read(&json).probability(0.0, 0.0), 0.0);
    assert!(read(&valid()).probability(f64::NAN, 0.0).is_nan());
    assert!(read(&valid()).stretch(0.5, f64::NAN).is_nan());
}

fn unit_vector() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(-1.0_f64..1.0, 8).prop_filter_map("too short to normalise", |vector| {
        let norm = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
        (norm > 0.1).then(|| vector.iter().map(|v| v / norm).collect())
    })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

proptest! {
    #[test]
    fn the_stretched_score_is_minus_the_squared_distance_of_the_stretched_query(
        query in unit_vector(), reference in unit_vector(), background in -1.0_f64..1.0
    ) {
        let calibration = read(&valid());
        let s = 2.5 * background.clamp(0.1, 0.4);
        let distance: f64 = query.iter().zip(&reference).map(|(q, r)| (s * q - r).powi(2)).sum();
        let score = calibration.stretch(dot(&query, &reference), background);
        prop_assert!((score + distance).abs() < 1e-12, "{score} instead of -{distance}");
    }

    #[test]
    fn within_one_query_the_order_is_that_of_the_cosine(
        query in unit_vector(), references in prop::collection::vec(unit_vector(), 2..20), background in -1.0_f64..1.0
    ) {
        let calibration = read(&valid());
        let mut by_cosine: Vec<f64> = references.iter().map(|reference| dot(&query, reference)).collect();
        by_cosine.sort_by(f64::total_cmp);
        let scores: Vec<f64> = by_cosine.iter().map(|&cosine| calibration.stretch(cosine, background)).collect();
        prop_assert!(scores.is_sorted(), "{scores:?}");
    }

    #[test]
    fn a_probability_is_the_logistic_function_and_grows_with_similarity(
        similarity in -1.0_f64..1.0, more in 0.0_f64..1.0, background in -1.0_f64..1.0
    ) {
        let calibration = read(&valid());
        let probability = calibration.probability(similarity, background);
        let odds = (-8.0 + 14.0 * similarity - 3.0 * background).exp();
        prop_assert!((probability - odds / (1.0 + odds)).abs() < 1e-12);
        prop_assert!(calibration.probability(similarity + more, background) >= probability);
        prop_assert!(calibration.verdict(calibration.probability(similarity + more, background))
            >= calibration.verdict(probability));
    }
}

fn weighing() -> Value {
    let mut json = valid();
    let lead = json!({"intercept": -3.0, "similarity": 0.0, "background": 2.0, "best": 15.0, "fifth": 13.0});
    let mut verified = lead.clone();
    for (field, value) in [
        ("inliers", 0.3),
        ("inliers_lead", 1.4),
        ("agreement", 0.2),
        ("outstanding", 7.0),
        ("copy_probability", 0.97),
        ("review_probability", 0.4),
    ] {
        verified[field] = value.into();
    }
    json["lead"] = lead;
    json["verified"] = verified;
    json
}

#[test]
fn probabilities_that_rest_on_evidence_have_thresholds_of_their_own() {
    let calibration = read(&weighing());
    assert_eq!(calibration.verdict(0.92), Verdict::Copy);
    assert_eq!(calibration.verified_verdict(0.92), Verdict::Review);
    assert_eq!(calibration.verdict(0.45), Verdict::Different);
    assert_eq!(calibration.verified_verdict(0.45), Verdict::Review);
    // A set's own thresholds are meant for both.
    let own = calibration.clone().with_thresholds(Some(0.6), None);
    assert_eq!(
        (own.verdict(0.6), own.verified_verdict(0.6)),
        (Verdict::Copy, Verdict::Copy)
    );
    let own = calibration.with_thresholds(None, Some(0.95));
    assert_eq!(
        (own.verdict(0.94), own.verified_verdict(0.94)),
        (Verdict::Copy, Verdict::Different)
    );
    // Without thresholds of its own the record's hold.
    let mut json = weighing();
    for field in ["copy_probability", "review_probability"] {
        json["verified"].as_object_mut().expect("an object").remove(field);
    }
    assert_eq!(read(&json).verified_verdict(0.92), Verdict::Copy);
    json["verified"]["review_probability"] = json!(0.95);
    assert!(Calibration::from_json(&json.to_string()).is_err());
}
