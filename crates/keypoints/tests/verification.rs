//! What verification promises: a picture is found in its edits, not in others, whatever the sketch's bytes are.

use imaging::{Filter, Image, resize};
use keypoints::{Evidence, MOST_SKETCH_BYTES, Query, Sketch, SketchError};
use proptest::prelude::*;

fn random(seed: u64) -> impl FnMut(u32) -> u32 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as u32 % below
    }
}

/// Boxes and discs of random colour on smooth ground: a picture of its own for every seed.
fn scene(seed: u64, width: u32, height: u32) -> Image {
    let mut chance = random(seed);
    let mut pixels = vec![0; (width * height * 3) as usize];
    for y in 0..height {
        for x in 0..width {
            let at = ((y * width + x) * 3) as usize;
            pixels[at] = (60 + x * 60 / width) as u8;
            pixels[at + 1] = (80 + y * 60 / height) as u8;
            pixels[at + 2] = 110;
        }
    }
    for number in 0..70 {
        let (left, top) = (chance(width), chance(height));
        let (w, h) = (8 + chance(width / 5), 8 + chance(height / 5));
        let colour = [chance(256) as u8, chance(256) as u8, chance(256) as u8];
        for y in top..(top + h).min(height) {
            for x in left..(left + w).min(width) {
                let (u, v) = (
                    2.0 * f64::from(x - left) / f64::from(w) - 1.0,
                    2.0 * f64::from(y - top) / f64::from(h) - 1.0,
                );
                if number % 2 == 0 || u * u + v * v < 1.0 {
                    let at = ((y * width + x) * 3) as usize;
                    pixels[at..at + 3].copy_from_slice(&colour);
                }
            }
        }
    }
    Image::new(width, height, pixels).unwrap()
}

fn noise(seed: u64, width: u32, height: u32) -> Image {
    let mut chance = random(seed);
    let pixels = (0..width * height * 3).map(|_| chance(256) as u8).collect();
    Image::new(width, height, pixels).unwrap()
}

/// A part of a picture, in pixels.
fn cut(image: &Image, left: u32, top: u32, width: u32, height: u32) -> Image {
    let mut pixels = Vec::new();
    for y in top..top + height {
        let at = ((y * image.width() + left) * 3) as usize;
        pixels.extend_from_slice(&image.pixels()[at..at + (width * 3) as usize]);
    }
    Image::new(width, height, pixels).unwrap()
}

fn evidence(query: &Image, reference: &Image) -> Evidence {
    let stored = Sketch::of(reference, &|| false).unwrap().to_bytes();
    assert!(stored.len() <= MOST_SKETCH_BYTES, "{} bytes", stored.len());
    let sketch = Sketch::parse(&stored).unwrap();
    Query::of(query, &|| false).unwrap().compare(&sketch).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_picture_is_found_in_its_crops_turns_mirrorings_and_scales(
        seed in 0u64..1000, orientation in 1u8..=8, part in 0.5f64..1.0,
        x in 0.0f64..1.0, y in 0.0f64..1.0, scale in 0.5f64..1.6,
    ) {
        let picture = scene(seed, 360, 280);
        let side = |length: u32| ((f64::from(length) * part) as u32).max(1);
        let (width, height) = (side(360), side(280));
        let (left, top) = ((f64::from(360 - width) * x) as u32, (f64::from(280 - height) * y) as u32);
        let turned = imaging::oriented(&cut(&picture, left, top, width, height), orientation).unwrap();
        let size = |length: u32| ((f64::from(length) * scale) as u32).max(32);
        let query = resize(&turned, size(turned.width()), size(turned.height()), Filter::Bilinear).unwrap();
        let found = evidence(&query, &picture);
        prop_assert!(found.is_shown(), "{found:?}");
        prop_assert_eq!(found.mirrored, [2, 4, 5, 7].contains(&orientation), "{:?}", found);
        // The box of the reference is about what was cut out.
        let [a, b, c, d] = found.reference_box.unwrap();
        let expected = [left, top, width, height];
        let expected = [0, 1, 2, 3].map(|at| f64::from(expected[at]) / [360.0, 280.0][at % 2]);
        for (one, other) in [a, b, c, d].iter().zip(expected) {
            prop_assert!((one - other).abs() < 0.2, "{found:?} for {expected:?}");
        }
    }

    #[test]
    fn other_pictures_and_noise_are_not_found(seed in 0u64..1000) {
        let (one, other) = (scene(seed, 320, 240), scene(seed + 5000, 320, 240));
        prop_assert!(!evidence(&one, &other).is_shown());
        prop_assert!(!evidence(&noise(seed, 320, 240), &one).is_shown());
        prop_assert!(!evidence(&noise(seed, 320, 240), &noise(seed + 1, 320, 240)).is_shown());
    }

    #[test]
    fn evidence_is_symmetric_where_both_show_all(seed in 0u64..1000, scale in 0.6f64..1.0) {
        let picture = scene(seed, 360, 280);
        let smaller = resize(&picture, (360.0 * scale) as u32, (280.0 * scale) as u32, Filter::Bilinear).unwrap();
        let (forth, back) = (evidence(&smaller, &picture), evidence(&picture, &smaller));
        prop_assert!(forth.is_shown() && back.is_shown(), "{forth:?} {back:?}");
        prop_assert!((forth.agreement() - back.agreement()).abs() < 0.1, "{forth:?} {back:?}");
    }

    #[test]
    fn tiny_and_featureless_pictures_have_sketches_and_show_nothing(
        width in 1u32..24, height in 1u32..24, level in 0u8..=255,
    ) {
        let blank = Image::new(width, height, vec![level; (width * height * 3) as usize]).unwrap();
        let picture = scene(1, 200, 150);
        prop_assert!(!evidence(&blank, &picture).is_shown());
        prop_assert!(!evidence(&picture, &blank).is_shown());
        prop_assert!(!evidence(&blank, &blank).is_shown());
        let speck = noise(u64::from(width), width, height);
        evidence(&speck, &picture);
        evidence(&picture, &speck);
    }

    #[test]
    fn any_bytes_are_a_sketch_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Sketch::parse(&bytes).is_err());
    }

    #[test]
    fn damage_is_an_error(at in 0usize..8192, bit in 0u8..8, length in 0usize..8192) {
        let bytes = Sketch::of(&scene(3, 200, 150), &|| false).unwrap().to_bytes();
        let mut damaged = bytes.clone();
        damaged[at % bytes.len()] ^= 1 << bit;
        prop_assert!(Sketch::parse(&damaged).is_err());
        prop_assert!(Sketch::parse(&bytes[..length % bytes.len()]).is_err());
    }

    #[test]
    fn whatever_a_sketch_says_comparing_it_ends(
        seed in any::<u64>(), width in 1u16..=384, height in 1u16..=384, count in 0usize..=200, pictures in 0usize..4,
    ) {
        let mut chance = random(seed);
        let picture: Vec<u8> = match pictures {
            0 => Vec::new(),
            1 => (0..500).map(|_| chance(256) as u8).collect(),
            2 => imaging::encode_jpeg(&scene(seed, 40, 40), 50).unwrap(),
            _ => imaging::encode_png(&Image::new(1, 300, vec![90; 900]).unwrap()).unwrap(),
        };
        let mut bytes = b"CMSK\x01\0\0\0".to_vec();
        for number in [width, height, count as u16, picture.len() as u16] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for _ in 0..count {
            let place = chance(u32::from(width) * 8) | chance(u32::from(height) * 8) << 12;
            bytes.extend_from_slice(&place.to_le_bytes()[..3]);
            // Codes from a few, so that much matches.
            let kind = chance(5);
            bytes.extend([chance(256) as u8, chance(256) as u8]);
            bytes.extend([kind as u8 * 37; 16]);
        }
        bytes.extend((0..256).map(|_| chance(256) as u8));
        bytes.extend_from_slice(&picture);
        let sum = crc32(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        let sketch = Sketch::parse(&bytes).unwrap();
        match Query::of(&scene(seed, 120, 90), &|| false).unwrap().compare(&sketch) {
            Ok(found) => prop_assert!((0.0..=1.0).contains(&found.agreement()) && (0.0..=1.0).contains(&found.area())),
            Err(error) => prop_assert!(matches!(error, SketchError::Damaged(_))),
        }
    }
}

/// Bit by bit, as its definition says.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = !0u32;
    for &byte in bytes {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
        }
    }
    !sum
}

#[test]
fn a_sketch_reads_back_as_it_was_written() {
    let bytes = Sketch::of(&scene(9, 300, 220), &|| false).unwrap().to_bytes();
    let sketch = Sketch::parse(&bytes).unwrap();
    assert_eq!(sketch.to_bytes(), bytes);
    assert!(sketch.features() > 60, "{}", sketch.features());
}

#[test]
fn another_format_is_named() {
    let mut bytes = Sketch::of(&scene(9, 100, 100), &|| false).unwrap().to_bytes();
    bytes[4] = 9;
    let error = Sketch::parse(&bytes).unwrap_err();
    assert_eq!(error, SketchError::Format(9));
    assert_eq!(
        error.to_string(),
        "the sketch has format 9; this library reads format 1"
    );
}

#[test]
fn a_cancelled_sketch_ends_at_once() {
    let error = Sketch::of(&scene(9, 300, 220), &|| true).unwrap_err();
    assert_eq!(error, imaging::ImageError::Cancelled);
    assert!(Query::of(&scene(9, 300, 220), &|| true).is_err());
}

/// Rows of small signs, five dots by three each, as dense as a page of text.
fn small_print(seed: u64, width: u32, height: u32) -> Image {
    let mut chance = random(seed);
    let mut pixels = vec![250; (width * height * 3) as usize];
    for top in (40..height - 40).step_by(22) {
        for left in (40..width - 40).step_by(9) {
            if chance(6) == 0 {
                continue;
            }
            for dot in 0..15 {
                if chance(2) == 0 {
                    continue;
                }
                let (x, y) = (left + dot % 3 * 2, top + dot / 3 * 2);
                for (x, y) in [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)] {
                    pixels[((y * width + x) * 3) as usize..][..3].fill(30);
                }
            }
        }
    }
    Image::new(width, height, pixels).unwrap()
}

#[test]
fn small_print_is_found_in_a_page_of_which_it_covers_less_than_half() {
    let (width, height) = (620, 860);
    let print = small_print(1, width, height);
    let (wide, high) = (width * 3 / 2, height * 7 / 5);
    let mut page = vec![40; (wide * high * 3) as usize];
    for y in 0..height {
        let (from, to) = ((y * width * 3) as usize, (((y + 150) * wide + 90) * 3) as usize);
        page[to..to + (width * 3) as usize].copy_from_slice(&print.pixels()[from..from + (width * 3) as usize]);
    }
    let page = Image::new(wide, high, page).unwrap();
    let page = resize(&page, wide * 2 / 3, high * 2 / 3, Filter::Lanczos).unwrap();
    let found = evidence(&page, &print);
    assert!(found.inliers >= 30 && found.is_shown(), "{found:?}");
    let other = evidence(&page, &small_print(2, width, height));
    assert!(!other.is_shown(), "{other:?}");
}

#[test]
fn a_banner_hides_one_block_and_what_it_leaves_agrees() {
    let picture = scene(7, 360, 280);
    let mut pixels = picture.pixels().to_vec();
    pixels[360 * 110 * 3..360 * 150 * 3].fill(200);
    let found = evidence(&Image::new(360, 280, pixels).unwrap(), &picture);
    assert!(found.agreement() < 0.9 && found.uncovered() > 0.97, "{found:?}");
    // As much, but here and there: no one thing covers that.
    let mut pixels = picture.pixels().to_vec();
    for at in 0..24 {
        let (left, top) = (at % 6 * 60 + 8, at / 6 * 70 + 12);
        for y in top..top + 30 {
            pixels[(y * 360 + left) * 3..(y * 360 + left + 30) * 3].fill(200);
        }
    }
    let found = evidence(&Image::new(360, 280, pixels).unwrap(), &picture);
    assert!(found.uncovered() < found.agreement() + 0.1, "{found:?}");
}

#[test]
fn two_halves_of_one_picture_are_not_the_same() {
    let picture = scene(21, 400, 240);
    let (left, right) = (cut(&picture, 0, 0, 200, 240), cut(&picture, 200, 0, 200, 240));
    assert!(!evidence(&left, &right).is_shown());
}

#[test]
fn a_picture_registered_again_is_the_same_and_another_is_not() {
    let sketch = |image: &Image| Sketch::of(image, &|| false).unwrap();
    let picture = scene(31, 360, 280);
    let smaller = resize(&picture, 300, 233, Filter::Bilinear).unwrap();
    assert!(sketch(&picture).is_same_picture(&sketch(&smaller)).unwrap());
    assert!(!sketch(&picture).is_same_picture(&sketch(&scene(32, 360, 280))).unwrap());
    assert!(
        sketch(&picture)
            .is_same_picture(&sketch(&cut(&picture, 0, 0, 300, 280)))
            .unwrap(),
        "cut is registered again"
    );
    assert!(
        !sketch(&picture)
            .is_same_picture(&sketch(&imaging::oriented(&picture, 2).unwrap()))
            .unwrap()
    );
}
