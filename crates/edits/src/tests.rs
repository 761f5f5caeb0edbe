//! What the edits promise, on every edit and on awkward sizes.

use std::cell::Cell;

use proptest::prelude::*;

use imaging::resize;

use super::*;

const LIMITS: Limits = Limits {
    max_bytes: 64 << 20,
    max_pixels: 100_000_000,
    max_memory: 512 << 20,
};

/// A picture with edges, gradients, colour and texture at several scales.
fn picture(width: u32, height: u32) -> Image {
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let wave = (x * 7 + y * 3) % 256;
            let square = if (x / 9 + y / 11) % 2 == 0 { 60 } else { 0 };
            let slope = 255 * x / width.max(1);
            pixels.extend([
                (wave / 2 + square) as u8,
                (slope / 2 + 40) as u8,
                ((x ^ y) % 90 + slope / 3) as u8,
            ]);
        }
    }
    Image::new(width, height, pixels).expect("the buffer fits")
}

fn edited(image: &Image, edit: Edit, strength: f32, seed: u64) -> Image {
    apply_pixels(image, edit, strength, seed, &LIMITS).unwrap_or_else(|error| panic!("{edit}: {error}"))
}

/// Mean absolute difference in grey levels, after bringing both pictures to one size.
fn difference(one: &Image, other: &Image) -> f64 {
    let other = resize(other, one.width(), one.height(), Filter::Bilinear).expect("sizes are valid");
    let sum: u64 = one
        .pixels()
        .iter()
        .zip(other.pixels())
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum as f64 / one.pixels().len() as f64
}

/// A canvas that nobody stops work on.
fn filled(width: usize, height: usize, colour: [u8; 3]) -> Canvas<'static> {
    let poll = Box::leak(Box::new(Poll::new(&|| false)));
    Canvas::filled(width, height, colour, poll).unwrap()
}

#[test]
fn names_round_trip_in_any_case_and_are_unique() {
    for edit in Edit::ALL {
        assert_eq!(edit.to_string().parse::<Edit>(), Ok(edit));
        assert_eq!(edit.name().to_uppercase().parse::<Edit>(), Ok(edit));
        assert_eq!(Edit::ALL.iter().filter(|other| other.name() == edit.name()).count(), 1);
    }
    assert_eq!("gray".parse::<Edit>(), Ok(Edit::Grey));
    assert_eq!(" Pixelize ".parse::<Edit>(), Ok(Edit::Pixelise));
}

#[test]
fn an_unknown_edit_is_refused_with_the_list_of_edits() {
    let error = "sepia".parse::<Edit>().expect_err("there is no such edit");
    assert_eq!(error.to_string(), "unknown edit \"sepia\"");
    for edit in Edit::ALL {
        assert!(
            error.hint().contains(edit.name()),
            "{edit} is missing in: {}",
            error.hint()
        );
    }
    let endless = "x".repeat(1 << 20).parse::<Edit>().expect_err("there is no such edit");
    assert!(endless.to_string().len() < 100);
}

#[test]
fn the_manual_describes_every_edit_as_the_code_does() {
    let manual = include_str!("../EDITS.md");
    for edit in Edit::ALL {
        let seeded = if edit.is_seeded() { "yes" } else { "no" };
        let row = format!(
            "| `{edit}` | {} | {} | {seeded} |",
            edit.description(),
            edit.strength_means()
        );
        assert!(manual.contains(&row), "EDITS.md lacks the row: {row}");
    }
}

#[test]
fn a_strength_out_of_range_is_refused_with_its_value() {
    let image = picture(32, 32);
    for strength in [-0.001, 1.001, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for edit in Edit::ALL {
            let error = apply(&image, edit, strength, 1).expect_err("the strength is not valid");
            assert!(error.to_string().ends_with(&format!("not {strength}")), "{error}");
        }
        assert!(apply_onto(&image, &image, strength, 1, &LIMITS).is_err());
    }
}

#[test]
fn every_edit_survives_awkward_sizes_within_its_bounds() {
    for (width, height) in [(1, 1), (1, 500), (500, 1), (37, 91), (24, 24), (23, 25), (24, 9_000)] {
        let image = picture(width, height);
        let largest = (u64::from(width) * u64::from(height) * 4).max(1 << 20);
        for edit in Edit::ALL {
            for strength in [0.0, 0.5, 1.0] {
                let result = edited(&image, edit, strength, 11);
                for side in [result.width(), result.height()] {
                    assert!(
                        (MIN_SIDE..=MAX_SIDE).contains(&side),
                        "{edit} {strength}: {width}x{height} → {result:?}"
                    );
                }
                assert!(
                    u64::from(result.width()) * u64::from(result.height()) <= largest,
                    "{edit}: {result:?}"
                );
            }
        }
    }
}

#[test]
fn a_side_longer_than_a_jpeg_can_hold_is_shortened() {
    let image = picture(70_000, 1);
    for edit in Edit::ALL {
        let bytes = apply(&image, edit, 0.4, 3).unwrap_or_else(|error| panic!("{edit}: {error}"));
        assert!(imaging::inspect(&bytes, &LIMITS).is_ok(), "{edit}");
    }
}

#[test]
fn results_stay_within_the_callers_limits() {
    let image = picture(300, 200);
    let few_pixels = Limits {
        max_pixels: 20_000,
        ..LIMITS
    };
    let little_memory = Limits {
        max_memory: 320_000,
        ..LIMITS
    };
    for edit in Edit::ALL {
        for limits in [few_pixels, little_memory] {
            let result = apply_pixels(&image, edit, 0.9, 5, &limits).unwrap_or_else(|error| panic!("{edit}: {error}"));
            assert!(result.width() * result.height() <= 20_000, "{edit}: {result:?}");
            let bytes = apply_within(&image, edit, 0.9, 5, &limits, &|| false)
                .unwrap_or_else(|error| panic!("{edit}: {error}"));
            let info = imaging::inspect(&bytes, &limits).unwrap_or_else(|error| panic!("{edit}: {error}"));
            assert_eq!((info.width, info.height), (result.width(), result.height()), "{edit}");
        }
    }
}

#[test]
fn another_seed_gives_another_result_where_the_edit_is_seeded() {
    let image = picture(96, 64);
    for edit in Edit::ALL {
        let results: Vec<Image> = (0..6).map(|seed| edited(&image, edit, 0.6, seed)).collect();
        let differ = results.iter().any(|result| *result != results[0]);
        assert_eq!(differ, edit.is_seeded(), "{edit}");
    }
}

#[test]
fn strength_zero_is_nearly_the_original() {
    let image = picture(200, 150);
    for edit in Edit::ALL {
        let result = difference(&image, &edited(&image, edit, 0.0, 4));
        let allowed = match edit {
            // No strength: these always happen.
            Edit::Turn | Edit::Flip | Edit::FlipVertical => continue,
            // Some words, emoji, frame or band is always there, and moves what is beside it.
            Edit::Text | Edit::Emoji => 8.0,
            Edit::Paste | Edit::Screenshot | Edit::Meme => 30.0,
            Edit::Jpeg => 8.0,
            _ => 0.01,
        };
        assert!(result <= allowed, "{edit}: {result}");
    }
}

#[test]
fn the_effect_grows_with_the_strength() {
    let image = picture(240, 180);
    // Where a mean over seeds of the pixel difference measures the effect; moved pixels saturate that measure early.
    let graded = [
        Edit::Crop,
        Edit::Resize,
        Edit::Perspective,
        Edit::Pad,
        Edit::Blur,
        Edit::Noise,
        Edit::Jitter,
        Edit::Grey,
        Edit::Jpeg,
        Edit::Pixelise,
        Edit::Text,
        Edit::Emoji,
        Edit::Paste,
    ];
    for edit in graded {
        let effects = [0.1, 0.4, 1.0].map(|strength| {
            (0..8)
                .map(|seed| difference(&image, &edited(&image, edit, strength, seed)))
                .sum::<f64>()
                / 8.0
        });
        assert!(
            effects[0] < effects[1] && effects[1] < effects[2],
            "{edit}: {effects:?}"
        );
    }
}

#[test]
fn sizes_follow_the_documented_units() {
    let image = picture(400, 200);
    let size = |edit, strength| {
        let result = edited(&image, edit, strength, 9);
        (f64::from(result.width()), f64::from(result.height()))
    };
    let (w, h) = size(Edit::Crop, 1.0);
    assert!(
        (w * h / 80_000.0 - 0.1).abs() < 0.01,
        "crop keeps 10 % of the area: {w}x{h}"
    );
    let (w, h) = size(Edit::Resize, 0.5);
    assert_eq!((w, h), (119.0, 59.0), "resize scales by 2^-1.75");
    let (w, h) = size(Edit::Aspect, 1.0);
    assert!((w * h / 80_000.0 - 1.0).abs() < 0.02, "aspect keeps the area: {w}x{h}");
    let change = (w / h / 2.0).max(2.0 * h / w);
    assert!((2.25..=2.85).contains(&change), "aspect changes the ratio by {change}");
    let (w, h) = size(Edit::Screenshot, 1.0);
    assert!(
        (80_000.0 / (w * h) - 0.28).abs() < 0.02,
        "the picture is 28 % of the screen: {w}x{h}"
    );
    let (w, h) = size(Edit::Meme, 1.0);
    assert_eq!((w, h), (400.0, 320.0), "bands of 60 %");
    assert_eq!(size(Edit::Grey, 0.3), (400.0, 200.0));
}

#[test]
fn grey_at_full_strength_has_no_colour() {
    let result = edited(&picture(50, 40), Edit::Grey, 1.0, 0);
    for pixel in result.pixels().chunks_exact(3) {
        assert!(
            pixel[0].abs_diff(pixel[1]) <= 1 && pixel[1].abs_diff(pixel[2]) <= 1,
            "{pixel:?}"
        );
    }
}

#[test]
fn flips_undo_themselves_and_four_quarter_turns_too() {
    let image = picture(61, 47);
    for edit in [Edit::Flip, Edit::FlipVertical] {
        assert_eq!(edited(&edited(&image, edit, 0.5, 0), edit, 0.5, 0), image);
    }
    for seed in 0..6 {
        let turned = (0..4).fold(image.clone(), |turned, _| edited(&turned, Edit::Turn, 0.5, seed));
        assert_eq!(turned, image);
    }
}

#[test]
fn blur_has_the_stated_standard_deviation_and_keeps_flat_areas() {
    // A white line in black spreads to a Gaussian profile; its second moment is the variance.
    for sigma in [0.6, 1.7, 5.0, 12.3] {
        let mut canvas = filled(241, 60, [0; 3]);
        for y in 0..60 {
            canvas.pixels[3 * (y * 241 + 120)..3 * (y * 241 + 121)].fill(255);
        }
        for value in &mut canvas.pixels {
            *value = if *value == 255 { 250 } else { 0 };
        }
        blur::gaussian(&mut canvas, sigma).unwrap();
        let profile: Vec<f64> = canvas
            .row(30)
            .chunks_exact(3)
            .map(|pixel| f64::from(pixel[0]))
            .collect();
        let mass: f64 = profile.iter().sum();
        let moment: f64 = profile
            .iter()
            .enumerate()
            .map(|(x, v)| v * (x as f64 - 120.0).powi(2))
            .sum::<f64>()
            / mass;
        // 8-bit rounding cuts the far tails off, the more the wider the profile.
        assert!(
            (moment.sqrt() / sigma - 1.0).abs() < 0.08,
            "sigma {sigma}: measured {}",
            moment.sqrt()
        );
    }
    let mut flat = filled(70, 50, [255, 128, 3]);
    blur::gaussian(&mut flat, 9.0).unwrap();
    assert!(flat.pixels.chunks_exact(3).all(|pixel| pixel == [255, 128, 3]));
}

#[test]
fn a_filled_path_covers_its_area() {
    let mut canvas = filled(100, 100, [0; 3]);
    path::Path::ellipse([50.3, 49.6], 30.0, 20.0).fill_flat(&mut canvas, [255; 3]);
    let covered = canvas
        .pixels
        .chunks_exact(3)
        .map(|pixel| f64::from(pixel[0]))
        .sum::<f64>()
        / 255.0;
    let expected = std::f64::consts::PI * 600.0;
    assert!(
        (covered / expected - 1.0).abs() < 0.01,
        "{covered} instead of {expected}"
    );
}

#[test]
fn shapes_beyond_the_edges_are_cut_off_there() {
    let mut canvas = filled(40, 30, [0; 3]);
    path::Path::rectangle(-1e6, 10.0, 2e6, 5.0, 0.0).fill_flat(&mut canvas, [200; 3]);
    for y in 0..30 {
        let expected = if (10..15).contains(&y) { 200 } else { 0 };
        assert!(canvas.row(y).iter().all(|&value| value == expected), "row {y}");
    }
}

#[test]
fn pasting_onto_a_given_picture_keeps_its_size_and_shows_both() {
    let image = Image::new(80, 60, vec![250; 80 * 60 * 3]).expect("the buffer fits");
    let other = Image::new(120, 200, vec![5; 120 * 200 * 3]).expect("the buffer fits");
    for seed in 0..8 {
        let result = apply_onto(&image, &other, 0.5, seed, &LIMITS).expect("the strength is valid");
        assert_eq!((result.width(), result.height()), (120, 200));
        let light = result.pixels().iter().filter(|&&value| value > 200).count() as f64 / 72_000.0;
        // The picture fills the width at scale 1.5; at strength ½ its sides are 62.5 % of that.
        assert!(
            (0.10..=0.18).contains(&light),
            "seed {seed}: the picture covers {light}"
        );
    }
}

#[test]
fn the_jpeg_edit_shrinks_the_file_itself() {
    let image = picture(300, 200);
    let light = apply(&image, Edit::Jpeg, 0.0, 0).expect("the strength is valid");
    let heavy = apply(&image, Edit::Jpeg, 1.0, 0).expect("the strength is valid");
    assert!(
        heavy.len() * 3 < light.len(),
        "{} bytes at quality 5, {} at 90",
        heavy.len(),
        light.len()
    );
}

/// FNV-1a, 64 bits.
fn checksum(image: &Image) -> u64 {
    let size = [image.width().to_le_bytes(), image.height().to_le_bytes()].concat();
    size.iter()
        .chain(image.pixels())
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[test]
fn pixels_are_the_same_on_every_machine() {
    let image = picture(96, 64);
    let expected: [(Edit, u64); 20] = [
        (Edit::Crop, 0xb36f_fff7_6d87_b433),
        (Edit::Rotate, 0xde08_f9d0_5700_aa4a),
        (Edit::Turn, 0xa729_46d7_d2ad_c95d),
        (Edit::Flip, 0xb86d_e56c_48b1_cb49),
        (Edit::FlipVertical, 0x25d3_4c97_7fb4_2851),
        (Edit::Resize, 0x45c6_1c9f_d5e8_0912),
        (Edit::Aspect, 0x6bb7_c253_2de2_7539),
        (Edit::Perspective, 0x435e_6cbf_8410_4661),
        (Edit::Pad, 0xe7cb_5f29_c119_eaa7),
        (Edit::Blur, 0xec0d_e27a_8f20_60cf),
        (Edit::Noise, 0xcd9a_b189_89f6_e4e7),
        (Edit::Jitter, 0xf2ed_83c6_8a4b_c000),
        (Edit::Grey, 0xda36_a199_40c8_ecdb),
        (Edit::Jpeg, 0xce2a_b549_c353_a572),
        (Edit::Pixelise, 0xf543_fae2_330e_114e),
        (Edit::Text, 0xe607_2155_167f_1a5c),
        (Edit::Emoji, 0x9a45_4f94_0403_fe9a),
        (Edit::Paste, 0x43c7_b9a6_04fa_2b12),
        (Edit::Screenshot, 0xfd9a_abbc_c63b_808e),
        (Edit::Meme, 0xc544_373c_3a98_ad6a),
    ];
    let listing = |rows: [(Edit, u64); 20]| rows.map(|(edit, sum)| format!("{edit}: {sum:#018x}")).join("\n");
    let found = Edit::ALL.map(|edit| (edit, checksum(&edited(&image, edit, 0.5, 7))));
    assert_eq!(listing(found), listing(expected), "found:\n{}", listing(found));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_they_decode(
        width in 1_u32..90,
        height in 1_u32..90,
        which in 0_usize..Edit::ALL.len(),
        strength in 0.0_f32..=1.0,
        seed in any::<u64>(),
    ) {
        let image = picture(width, height);
        let edit = Edit::ALL[which];
        let bytes = apply(&image, edit, strength, seed).expect("the strength is valid");
        prop_assert_eq!(&bytes, &apply(&image, edit, strength, seed).expect("the strength is valid"));
        let decoded = decode(&bytes, &DecodeOptions::default()).expect("a JPEG written here");
        prop_assert!(decoded.width() >= MIN_SIDE && decoded.height() >= MIN_SIDE);
        let onto = apply_onto(&image, &picture(height, 50), strength, seed, &LIMITS).expect("the strength is valid");
        prop_assert!(onto.width() >= MIN_SIDE && onto.height() == 50);
    }

    #[test]
    fn edits_chain(
        edits in proptest::collection::vec((0_usize..Edit::ALL.len(), 0.0_f32..=1.0), 1..4),
        seed in any::<u64>(),
    ) {
        let mut image = picture(60, 45);
        for (which, strength) in edits {
            image = edited(&image, Edit::ALL[which], strength, seed);
        }
        prop_assert!(image.width() >= MIN_SIDE && image.height() >= MIN_SIDE);
    }
}

#[test]
fn every_edit_ends_soon_after_it_is_told_to() {
    let image = picture(1600, 1200);
    for edit in Edit::ALL {
        let work = |at: usize| {
            let polls = Cell::new(0);
            let should_stop = || {
                polls.set(polls.get() + 1);
                polls.get() >= at
            };
            let limits = imaging::Limits::default();
            let result = apply_within(&image, edit, 0.6, 3, &limits, &should_stop);
            (result, polls.get())
        };
        let (whole, polls) = work(usize::MAX);
        assert!(whole.is_ok());
        // At least every quarter of a million pixels, in the edit and in the encoder.
        assert!(polls >= 8, "{edit} is polled only {polls} times");
        for at in [1, polls / 3, polls / 2, polls - 1] {
            let (result, after) = work(at.max(1));
            assert_eq!(result, Err(EditError::Image(ImageError::Cancelled)), "{edit}");
            assert!(after - at.max(1) <= 1, "{edit} goes on for {} polls", after - at.max(1));
        }
    }
}
