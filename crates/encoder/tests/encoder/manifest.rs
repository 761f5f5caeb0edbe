//! A manifest is read whole and right, or refused with the path of the field that is wrong.

use encoder::{Colour, Element, Fit, Layout, MAX_MANIFEST_BYTES, Manifest, ManifestError, Resize};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::setup::manifest_json;

fn valid() -> Value {
    let mut json = manifest_json(b"weights", 4, &[224, 160]);
    json["parity"] = json!([{"pattern": "waves-v1", "descriptor": [0.5, -0.5, 0.5, -0.5], "tolerance": 0.005}]);
    json
}

fn error(json: &Value) -> ManifestError {
    Manifest::from_json(&json.to_string()).expect_err("the manifest must be refused")
}

#[test]
fn every_field_reads_back_as_it_was_written() {
    let manifest = Manifest::from_json(&valid().to_string()).expect("valid");
    assert_eq!(manifest.name(), "test-model");
    assert_eq!(manifest.version(), "1");
    assert_eq!(manifest.dimensions(), 4);
    assert_eq!(manifest.input_name(), "image");
    assert_eq!(manifest.input_sizes(), [224, 160]);
    assert_eq!(manifest.colour(), Colour::Rgb);
    assert_eq!(manifest.resize(), Resize::Bilinear);
    assert_eq!(manifest.mean(), [0.485, 0.456, 0.406]);
    assert_eq!(manifest.std(), [0.229, 0.224, 0.225]);
    assert_eq!(manifest.layout(), Layout::Nchw);
    assert_eq!(manifest.element(), Element::Float32);
    assert_eq!(manifest.fit(), Fit::Square);
    assert_eq!(manifest.output_name(), "descriptor");
    assert_eq!(manifest.weights_sha256().len(), 64);
    assert_eq!(manifest.licence(), "Apache-2.0");
    assert_eq!(manifest.source(), "written by the test");
    assert_eq!(manifest.parity()[0].pattern().name(), "waves-v1");
    assert_eq!(manifest.parity()[0].descriptor(), [0.5, -0.5, 0.5, -0.5]);
    assert_eq!(manifest.parity()[0].tolerance(), 0.005);
    assert_eq!(Manifest::from_json(&manifest.to_json()), Ok(manifest));
}

#[test]
fn bytes_pixel_by_pixel_with_the_aspect_ratio_kept_read_back_too() {
    let mut json = valid();
    json["input"] = json!({
        "name": "image", "sizes": [288], "layout": "NHWC", "colour": "BGR", "resize": "bicubic", "type": "uint8",
        "fit": "short"
    });
    let manifest = Manifest::from_json(&json.to_string()).expect("valid");
    assert_eq!(manifest.layout(), Layout::Nhwc);
    assert_eq!(manifest.element(), Element::Uint8);
    assert_eq!(manifest.fit(), Fit::Short);
    assert_eq!((manifest.mean(), manifest.std()), ([0.0; 3], [1.0; 3]));
    assert_eq!(Manifest::from_json(&manifest.to_json()), Ok(manifest));
}

#[test]
fn what_a_manifest_leaves_out_its_json_leaves_out_too() {
    let written: Value =
        serde_json::from_str(&Manifest::from_json(&valid().to_string()).expect("valid").to_json()).expect("JSON");
    for field in ["type", "fit"] {
        assert!(written["input"].get(field).is_none(), "{field}");
    }
}

#[test]
fn mean_and_std_belong_to_floats_alone_and_a_free_size_is_bounded() {
    for field in ["mean", "std"] {
        let mut without = valid();
        without["input"].as_object_mut().expect("an object").remove(field);
        assert_eq!(error(&without).field(), Some(format!("input.{field}").as_str()));
        let mut bytes = valid();
        bytes["input"]["type"] = json!("uint8");
        let other = if field == "mean" { "std" } else { "mean" };
        bytes["input"].as_object_mut().expect("an object").remove(other);
        assert_eq!(error(&bytes).field(), Some(format!("input.{field}").as_str()));
    }
    let mut json = valid();
    json["input"]["fit"] = json!("short");
    json["input"]["sizes"] = json!([224, 513]);
    assert_eq!(error(&json).field(), Some("input.sizes[1]"));
    assert!(error(&json).to_string().contains("512"));
}

#[test]
fn a_value_out_of_range_is_refused_by_the_path_of_its_field() {
    let cases = [
        ("/name", json!(""), "name"),
        ("/name", json!("Upper"), "name"),
        ("/name", json!("a".repeat(64)), "name"),
        ("/version", json!("1 beta"), "version"),
        ("/dimensions", json!(0), "dimensions"),
        ("/dimensions", json!(16_001), "dimensions"),
        ("/input/name", json!(""), "input.name"),
        ("/input/name", json!("a\u{0}b"), "input.name"),
        ("/input/sizes", json!([]), "input.sizes"),
        (
            "/input/sizes",
            json!([16, 17, 18, 19, 20, 21, 22, 23, 24]),
            "input.sizes",
        ),
        ("/input/sizes/1", json!(15), "input.sizes[1]"),
        ("/input/sizes/0", json!(1025), "input.sizes[0]"),
        ("/input/sizes/1", json!(224), "input.sizes[1]"),
        ("/input/mean/2", json!(1e30), "input.mean[2]"),
        ("/input/mean/2", json!(1e300), "input.mean[2]"),
        ("/input/std/0", json!(0), "input.std[0]"),
        ("/input/std/1", json!(-0.2), "input.std[1]"),
        ("/input/std/2", json!(1e300), "input.std[2]"),
        ("/output/name", json!(""), "output.name"),
        ("/weights_sha256", json!("abc"), "weights_sha256"),
        ("/weights_sha256", json!("G".repeat(64)), "weights_sha256"),
        ("/licence", json!("  "), "licence"),
        ("/source", json!("x".repeat(2001)), "source"),
        ("/parity/0/descriptor", json!([1.0]), "parity[0].descriptor"),
        (
            "/parity/0/descriptor",
            json!([0.1, 0.1, 0.1, 0.1]),
            "parity[0].descriptor",
        ),
        ("/parity/0/descriptor/3", json!(1e300), "parity[0].descriptor[3]"),
        ("/parity/0/tolerance", json!(0), "parity[0].tolerance"),
        ("/parity/0/tolerance", json!(1e300), "parity[0].tolerance"),
    ];
    for (pointer, value, field) in cases {
        let mut json = valid();
        *json.pointer_mut(pointer).expect(pointer) = value.clone();
        let error = error(&json);
        assert!(
            matches!(error, ManifestError::Value { .. }),
            "{pointer} = {value}: {error}"
        );
        assert_eq!(error.field(), Some(field), "{pointer} = {value}: {error}");
        assert!(error.to_string().contains(field), "{error}");
        assert!(!error.hint().is_empty());
    }
}

#[test]
fn a_value_of_the_wrong_type_is_refused_by_the_path_of_its_field() {
    let cases = [
        ("/dimensions", json!(-1), "dimensions"),
        ("/dimensions", json!(2.5), "dimensions"),
        ("/dimensions", json!("256"), "dimensions"),
        ("/input/sizes/1", json!(null), "input.sizes[1]"),
        ("/input/layout", json!("HWC"), "input.layout"),
        ("/input/colour", json!("YUV"), "input.colour"),
        ("/input/resize", json!("nearest"), "input.resize"),
        ("/input/mean", json!([0.5, 0.5]), "input.mean"),
        ("/parity/0/pattern", json!("waves-v2"), "parity[0].pattern"),
        ("/parity/0/descriptor/2", json!("x"), "parity[0].descriptor[2]"),
    ];
    for (pointer, value, field) in cases {
        let mut json = valid();
        *json.pointer_mut(pointer).expect(pointer) = value.clone();
        let error = error(&json);
        assert!(
            matches!(error, ManifestError::Syntax { .. }),
            "{pointer} = {value}: {error}"
        );
        assert!(
            error.field().is_some_and(|found| found.starts_with(field)),
            "{pointer} = {value}: {error}"
        );
    }
}

#[test]
fn a_type_or_a_fit_that_is_unknown_is_refused_by_the_path_of_its_field() {
    for (field, value) in [("type", "float16"), ("fit", "crop")] {
        let mut json = valid();
        json["input"][field] = json!(value);
        let error = error(&json);
        assert!(matches!(error, ManifestError::Syntax { .. }), "{field}: {error}");
        assert_eq!(error.field(), Some(format!("input.{field}").as_str()), "{error}");
    }
}

#[test]
fn a_missing_or_unknown_field_is_refused_by_its_name() {
    for field in [
        "name",
        "version",
        "dimensions",
        "input",
        "output",
        "weights_sha256",
        "licence",
        "source",
    ] {
        let mut json = valid();
        json.as_object_mut().expect("an object").remove(field);
        assert!(error(&json).to_string().contains(&format!("`{field}`")), "{field}");
    }
    for pointer in ["", "/input", "/output", "/parity/0"] {
        let mut json = valid();
        json.pointer_mut(pointer).expect(pointer)["misspelt"] = json!(1);
        assert!(error(&json).to_string().contains("misspelt"), "{pointer}");
    }
}

#[test]
fn a_message_does_not_repeat_megabytes_of_the_manifest() {
    let long = "\u{e9}".repeat(1_000_000);
    for pointer in ["/name", "/input/resize", "/licence"] {
        let mut json = valid();
        *json.pointer_mut(pointer).expect(pointer) = json!(long);
        assert!(error(&json).to_string().len() < 2000, "{pointer}");
    }
    let mut json = valid();
    json[&long] = json!(1);
    json["input"][&long] = json!(1);
    assert!(error(&json).to_string().len() < 2000);
}

#[test]
fn a_pattern_recorded_twice_is_refused() {
    let mut json = valid();
    json["parity"] = json!([json["parity"][0], json["parity"][0]]);
    assert_eq!(error(&json).field(), Some("parity[1].pattern"));
}

#[test]
fn parity_may_be_left_out() {
    let mut json = valid();
    json.as_object_mut().expect("an object").remove("parity");
    assert!(
        Manifest::from_json(&json.to_string())
            .expect("valid")
            .parity()
            .is_empty()
    );
}

#[test]
fn a_later_version_is_named_before_its_unknown_fields_are() {
    let json = json!({"manifest_version": 2, "something_new": true});
    assert_eq!(error(&json), ManifestError::Version { found: 2 });
    assert!(error(&json).to_string().contains("manifest_version: 2"));
}

#[test]
fn text_that_is_no_json_object_is_refused() {
    let deep = "[".repeat(100_000);
    for text in ["", "null", "[]", "{", "\u{0}", "{\"manifest_version\": 1}", &deep] {
        assert!(Manifest::from_json(text).is_err(), "{}", &text[..text.len().min(40)]);
    }
    let twice = valid().to_string() + "{}";
    assert!(
        Manifest::from_json(&twice)
            .expect_err("two documents")
            .to_string()
            .contains("trailing")
    );
    let long = " ".repeat(MAX_MANIFEST_BYTES + 1);
    assert_eq!(
        Manifest::from_json(&long),
        Err(ManifestError::TooLarge {
            bytes: MAX_MANIFEST_BYTES + 1
        })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn numbers_survive_being_written_and_read(
        mean in prop::array::uniform3(-1000.0_f32..1000.0),
        std in prop::array::uniform3(1e-6_f32..1000.0),
        direction in prop::collection::vec(-1.0_f32..1.0, 3),
        tolerance in 1e-6_f32..1.0,
    ) {
        let norm = direction.iter().map(|v| v * v).sum::<f32>().sqrt();
        prop_assume!(norm > 0.1);
        let mut json = valid();
        json["dimensions"] = json!(3);
        json["input"]["mean"] = json!(mean);
        json["input"]["std"] = json!(std);
        json["parity"][0]["descriptor"] = json!(direction.iter().map(|v| v / norm).collect::<Vec<_>>());
        json["parity"][0]["tolerance"] = json!(tolerance);
        let manifest = Manifest::from_json(&json.to_string()).expect("valid");
        prop_assert_eq!(manifest.mean(), mean);
        prop_assert_eq!(manifest.std(), std);
        prop_assert_eq!(Manifest::from_json(&manifest.to_json()), Ok(manifest));
    }

    #[test]
    fn a_manifest_cut_anywhere_is_refused(cut in 0_usize..600) {
        let text = valid().to_string();
        prop_assume!(cut < text.len() && text.is_char_boundary(cut));
        prop_assert!(Manifest::from_json(&text[..cut]).is_err());
    }
}
