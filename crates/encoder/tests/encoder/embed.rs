//! From pixels to descriptors: what the network sees, and what becomes of its answer.

use std::cell::Cell;

use encoder::{Encoder, EncoderError, waves_v1};
use imaging::{Filter, Image, resize};
use serde_json::json;

use crate::onnx_builder::{bytes_identity, colour_sum, identity, log_of_mean_colour, mean_colour, shape_of_bytes};
use crate::setup::{assert_close, load, load_batching, manifest, manifest_json, noise, read, solid, unit};

const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

/// What the network must be given, written the plain way: planes of rows, (x / 255 - mean) / std.
fn tensor(image: &Image, order: [usize; 3]) -> Vec<f64> {
    let mut values = Vec::new();
    for channel in order {
        for pixel in image.pixels().chunks(3) {
            values.push((f64::from(pixel[channel]) / 255.0 - MEAN[channel]) / STD[channel]);
        }
    }
    values
}

fn never() -> bool {
    false
}

fn identity_encoder() -> Encoder {
    let weights = identity(16).model();
    load(&weights, manifest(&weights, 768, &[16])).expect("loads")
}

#[test]
fn the_network_sees_planes_of_normalised_rows_in_rgb_order() {
    let image = noise(16, 16, 1);
    let descriptor = identity_encoder()
        .embed(std::slice::from_ref(&image), &never)
        .expect("embeds")
        .concat();
    assert_close(&descriptor, &unit(&tensor(&image, [0, 1, 2])), 1e-6);
}

#[test]
fn the_network_sees_planes_in_bgr_order_where_the_manifest_says_so() {
    let weights = identity(16).model();
    let mut json = manifest_json(&weights, 768, &[16]);
    json["input"]["colour"] = json!("BGR");
    let image = noise(16, 16, 2);
    let mut encoder = load(&weights, read(&json)).expect("loads");
    let descriptor = encoder
        .embed(std::slice::from_ref(&image), &never)
        .expect("embeds")
        .concat();
    assert_close(&descriptor, &unit(&tensor(&image, [2, 1, 0])), 1e-6);
}

/// A manifest for bytes: no mean, no deviation.
fn bytes_manifest(weights: &[u8], dimensions: usize, sizes: &[u32], layout: &str) -> serde_json::Value {
    let mut json = manifest_json(weights, dimensions, sizes);
    json["input"]["layout"] = json!(layout);
    json["input"]["type"] = json!("uint8");
    for field in ["mean", "std"] {
        json["input"].as_object_mut().expect("an object").remove(field);
    }
    json
}

#[test]
fn the_network_sees_bytes_as_they_are_in_either_layout() {
    let image = noise(16, 16, 4);
    let bytes: Vec<f64> = image.pixels().iter().copied().map(f64::from).collect();
    let planes: Vec<f64> = (0..3).flat_map(|c| bytes.iter().skip(c).step_by(3).copied()).collect();
    for (layout, dims, expected) in [("NHWC", [16, 16, 3], &bytes), ("NCHW", [3, 16, 16], &planes)] {
        let weights = bytes_identity(dims).model();
        let mut encoder = load(&weights, read(&bytes_manifest(&weights, 768, &[16], layout))).expect("loads");
        let descriptor = encoder
            .embed(std::slice::from_ref(&image), &never)
            .expect("embeds")
            .concat();
        assert_close(&descriptor, &unit(expected), 1e-6);
    }
}

#[test]
fn the_short_side_is_resized_and_the_long_one_follows_to_a_bound() {
    let weights = shape_of_bytes().model();
    let mut json = bytes_manifest(&weights, 3, &[32], "NHWC");
    json["input"]["fit"] = json!("short");
    let mut encoder = load_batching(&weights, read(&json)).expect("loads");
    let shapes = [
        ((64, 64), (32, 32)),
        ((64, 96), (32, 48)),
        ((96, 64), (48, 32)),
        ((96, 64), (48, 32)),
        // Enlarged, rounded to the nearest, and no more than four times as long as wide.
        ((10, 17), (32, 54)),
        ((10, 900), (32, 128)),
        ((900, 1), (128, 32)),
    ];
    let images: Vec<Image> = shapes.iter().map(|((w, h), _)| noise(*w, *h, 5)).collect();
    // Images of several shapes in one call: each keeps its own, and its place.
    for (descriptor, (_, (width, height))) in encoder.embed(&images, &never).expect("embeds").iter().zip(shapes) {
        assert_close(descriptor, &unit(&[f64::from(height), f64::from(width), 3.0]), 1e-6);
    }
}

#[test]
fn an_image_is_resized_to_the_square_by_the_filter_of_the_manifest() {
    let weights = identity(16).model();
    let image = noise(61, 37, 3);
    let filters = [
        ("bilinear", Filter::Bilinear),
        ("bicubic", Filter::Bicubic),
        ("lanczos", Filter::Lanczos),
    ];
    for (name, filter) in filters {
        let mut json = manifest_json(&weights, 768, &[16]);
        json["input"]["resize"] = json!(name);
        let mut encoder = load(&weights, read(&json)).expect("loads");
        let descriptor = encoder
            .embed(std::slice::from_ref(&image), &never)
            .expect("embeds")
            .concat();
        let square = resize(&image, 16, 16, filter).expect("resizes");
        assert_close(&descriptor, &unit(&tensor(&square, [0, 1, 2])), 1e-6);
    }
}

#[test]
fn images_keep_their_order_over_several_batches_and_do_not_depend_on_their_neighbours() {
    let images: Vec<Image> = (0..19).map(|seed| noise(16 + seed % 3, 16, seed)).collect();
    let weights = identity(16).model();
    let mut encoder = load_batching(&weights, manifest(&weights, 768, &[16])).expect("loads");
    let together = encoder.embed(&images, &never).expect("embeds");
    assert_eq!(
        together,
        identity_encoder().embed(&images, &never).expect("embeds"),
        "as one by one"
    );
    assert_eq!(together.len(), images.len());
    for (image, descriptor) in images.iter().zip(&together) {
        let alone = encoder
            .embed(std::slice::from_ref(image), &never)
            .expect("embeds")
            .concat();
        assert_eq!(&alone, descriptor);
        let norm = descriptor.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        assert!((norm - 1.0).abs() < 1e-6, "length {norm}");
    }
}

#[test]
fn no_images_give_no_descriptors() {
    assert!(identity_encoder().embed(&[], &never).expect("embeds").is_empty());
}

#[test]
fn several_sizes_are_averaged_after_normalisation_and_normalised_again() {
    // Sum of the colours beside a constant: the direction depends on the number of pixels.
    let weights = colour_sum(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], &[900.0, 0.0, 0.0]).model();
    let colour = [250_u8, 10, 90];
    let at = |size: f64| {
        let sums: Vec<f64> = (0..3)
            .map(|c| size * size * ((f64::from(colour[c]) / 255.0 - MEAN[c]) / STD[c]).abs())
            .collect();
        unit(&[sums[0] + 900.0, sums[1], sums[2]])
    };
    let (small, large) = (at(16.0), at(64.0));
    let mean: Vec<f64> = small.iter().zip(&large).map(|(a, b)| a + b).collect();
    let mut encoder = load(&weights, manifest(&weights, 3, &[16, 64])).expect("loads");
    let descriptor = encoder
        .embed(&[solid(40, 30, colour)], &never)
        .expect("embeds")
        .concat();
    // The library sums 4,096 numbers in single precision.
    assert_close(&descriptor, &unit(&mean), 1e-3);
    let distance: f64 = small.iter().zip(&large).map(|(a, b)| (a - b).abs()).sum();
    assert!(
        distance > 0.3,
        "the test proves nothing unless the sizes differ: {distance}"
    );
}

#[test]
fn a_descriptor_that_is_not_finite_is_an_error_that_names_the_image() {
    let weights = log_of_mean_colour().model();
    let mut json = manifest_json(&weights, 3, &[32]);
    json["input"]["mean"] = json!([0, 0, 0]);
    json["input"]["std"] = json!([1, 1, 1]);
    let mut encoder = load_batching(&weights, read(&json)).expect("loads");
    let mut images = vec![solid(32, 32, [80, 90, 100]); 12];
    assert_eq!(encoder.embed(&images, &never).expect("embeds").len(), 12);
    images[9] = solid(32, 32, [0, 0, 0]);
    match encoder.embed(&images, &never) {
        Err(EncoderError::NonFiniteDescriptor { image: 9, size: 32 }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_nan_is_an_error_already_when_the_parity_of_a_model_is_checked() {
    let weights = mean_colour(&[1.0; 9], &[f32::NAN, 0.0, 0.0]).model();
    let mut json = manifest_json(&weights, 3, &[16]);
    json["parity"] = json!([{"pattern": "waves-v1", "descriptor": [1.0, 0.0, 0.0], "tolerance": 0.01}]);
    let error = load(&weights, read(&json)).expect_err("not a number");
    assert!(
        matches!(error, EncoderError::NonFiniteDescriptor { image: 0, size: 16 }),
        "{error}"
    );
}

#[test]
fn a_descriptor_of_length_zero_is_an_error() {
    let weights = mean_colour(&[0.0; 9], &[0.0; 3]).model();
    let mut encoder = load(&weights, manifest(&weights, 3, &[16])).expect("loads");
    let error = encoder.embed(&[noise(20, 20, 1)], &never).expect_err("no direction");
    assert!(matches!(error, EncoderError::ZeroDescriptor { image: 0 }), "{error}");
}

#[test]
fn embedding_stops_when_asked_before_every_image() {
    let mut encoder = identity_encoder();
    let images: Vec<Image> = (0..20).map(|seed| noise(20, 20, seed)).collect();
    let polls = Cell::new(0);
    let mut embed = |limit: usize| {
        polls.set(0);
        encoder.embed(&images, &|| {
            polls.set(polls.get() + 1);
            polls.get() > limit
        })
    };
    embed(usize::MAX).expect("embeds");
    let all = polls.get();
    assert!(all > images.len(), "polled {all} times for {} images", images.len());
    for limit in [0, 1, 10, all - 1] {
        let result = embed(limit);
        assert!(matches!(result, Err(EncoderError::Cancelled)), "{result:?}");
        assert_eq!(polls.get(), limit + 1, "nothing is done after the request to stop");
    }
    // The encoder is as good as before.
    assert_eq!(encoder.embed(&images, &never).expect("embeds").len(), 20);
}

#[test]
fn the_parity_picture_is_the_one_of_its_formula() {
    let (width, height, pixels) = waves_v1();
    assert_eq!((width, height, pixels.len()), (320, 240, 320 * 240 * 3));
    let at = |x: usize, y: usize, c: usize| pixels[(y * 320 + x) * 3 + c];
    // Worked by hand: (x, y, c) -> x(c+2) + y(4-c) + (xy >> 6), mod 512, folded at 256.
    assert_eq!(at(0, 0, 0), 0);
    assert_eq!(at(10, 0, 0), 20);
    assert_eq!(at(0, 10, 0), 40);
    assert_eq!(at(10, 10, 1), 61); // 30 + 30 + 1
    assert_eq!(at(319, 239, 2), 126); // 1276 + 478 + 1191 = 2945 = 385 mod 512 -> 511 - 385 = 126
}

#[test]
fn a_recorded_descriptor_that_is_reproduced_lets_the_model_load_and_another_does_not() {
    let weights = mean_colour(&[1.0, 0.5, -0.25, 2.0, -1.0, 0.75, 0.1, 0.2, 0.3], &[0.3, 0.2, 0.1]).model();
    let mut json = manifest_json(&weights, 3, &[48]);
    let (width, height, pixels) = waves_v1();
    let picture = Image::new(width, height, pixels).expect("an image");
    let mut encoder = load(&weights, read(&json)).expect("loads");
    let recorded = encoder.embed(&[picture], &never).expect("embeds").concat();

    json["parity"] = json!([{"pattern": "waves-v1", "descriptor": recorded, "tolerance": 1e-5}]);
    load(&weights, read(&json)).expect("reproduces its descriptor");

    // The same weights behind another mean are another model.
    json["input"]["mean"][0] = json!(0.6);
    let error = load(&weights, read(&json)).expect_err("another preprocessing");
    match &error {
        EncoderError::ParityFailed {
            pattern,
            difference,
            tolerance,
        } => {
            assert_eq!(*pattern, "waves-v1");
            assert!(difference > tolerance);
        }
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains("waves-v1"));
}
