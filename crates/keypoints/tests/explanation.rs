//! What agrees and what does not, on pictures that the edits of crate `imaging` make.

use edits::{Edit, apply_within};
use imaging::{DecodeOptions, Image, ImageError, Limits, decode};
use keypoints::{Explanation, draw, explain};

/// Boxes of random colour on smooth ground: a picture of its own for every seed.
fn scene(seed: u64, width: u32, height: u32) -> Image {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut chance = move |below: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as u32 % below
    };
    let mut pixels = vec![0; (width * height * 3) as usize];
    for y in 0..height {
        for x in 0..width {
            let at = ((y * width + x) * 3) as usize;
            pixels[at] = (60 + x * 60 / width) as u8;
            pixels[at + 1] = (80 + y * 60 / height) as u8;
            pixels[at + 2] = 110;
        }
    }
    for _ in 0..60 {
        let (left, top) = (chance(width), chance(height));
        let (w, h) = (8 + chance(width / 6), 8 + chance(height / 6));
        let colour = [chance(256) as u8, chance(256) as u8, chance(256) as u8];
        for y in top..(top + h).min(height) {
            for x in left..(left + w).min(width) {
                let at = ((y * width + x) * 3) as usize;
                pixels[at..at + 3].copy_from_slice(&colour);
            }
        }
    }
    Image::new(width, height, pixels).unwrap()
}

fn edited(image: &Image, edit: Edit, strength: f32) -> Image {
    let bytes = apply_within(image, edit, strength, 7, &Limits::default(), &|| false).unwrap();
    decode(&bytes, &DecodeOptions::default()).unwrap()
}

fn compared(query: &Image, reference: &Image) -> Explanation {
    explain(query, reference, &|| false).unwrap()
}

#[test]
fn a_picture_agrees_with_itself_everywhere() {
    let picture = scene(1, 400, 300);
    let explanation = compared(&picture, &picture);
    let transform = explanation.evidence.transform.unwrap();
    assert!(!explanation.evidence.mirrored);
    assert!((transform.a - 1.0).abs() < 0.01 && (transform.e - 1.0).abs() < 0.01 && transform.c.abs() < 0.01);
    let [_, _, width, height] = explanation.regions[0].query;
    assert!(width > 0.9 && height > 0.9, "{:?}", explanation.regions);
}

#[test]
fn edited_copies_agree_with_their_original() {
    for (edit, strength) in [
        (Edit::Crop, 0.5),
        (Edit::Rotate, 0.4),
        (Edit::Turn, 0.5),
        (Edit::Resize, 0.3),
        (Edit::Pad, 0.5),
        (Edit::Jitter, 0.4),
        (Edit::Grey, 1.0),
        (Edit::Jpeg, 0.6),
        (Edit::Emoji, 0.5),
        (Edit::Text, 0.5),
        (Edit::Screenshot, 0.3),
        (Edit::Perspective, 0.2),
    ] {
        let found = (1..=4)
            .filter(|&seed| {
                let picture = scene(seed, 480, 360);
                let explanation = compared(&edited(&picture, edit, strength), &picture);
                explanation.evidence.is_shown() && !explanation.evidence.mirrored && !explanation.regions.is_empty()
            })
            .count();
        assert!(found >= 3, "{edit:?} at {strength}: {found} of 4");
    }
}

#[test]
fn a_mirrored_copy_agrees_and_is_said_to_be_mirrored() {
    let picture = scene(3, 400, 300);
    let explanation = compared(&edited(&picture, Edit::Flip, 0.5), &picture);
    assert!(explanation.evidence.mirrored);
    let transform = explanation.evidence.transform.unwrap();
    assert!(
        (transform.a + 1.0).abs() < 0.02 && (transform.c - 1.0).abs() < 0.02,
        "{transform:?}"
    );
}

#[test]
fn strangers_do_not_agree() {
    for seed in 10..20 {
        let explanation = compared(&scene(seed, 400, 300), &scene(seed + 100, 400, 300));
        assert!(
            !explanation.evidence.is_shown(),
            "seed {seed}: {:?}",
            explanation.evidence
        );
    }
}

#[test]
fn a_region_says_where_the_copy_lies_in_both() {
    // The left half of the reference, on ground of one colour at the right of the query.
    let reference = scene(5, 400, 300);
    let mut pixels = vec![90; 400 * 300 * 3];
    for y in 0..300 {
        for x in 0..200 {
            let (from, to) = ((y * 400 + x) * 3, (y * 400 + x + 200) * 3);
            pixels[to..to + 3].copy_from_slice(&reference.pixels()[from..from + 3]);
        }
    }
    let explanation = compared(&Image::new(400, 300, pixels).unwrap(), &reference);
    let region = explanation.regions[0];
    assert!(region.query[0] > 0.45 && region.query[2] > 0.4, "{region:?}");
    assert!(
        region.reference[0] < 0.05 && region.reference[0] + region.reference[2] < 0.55,
        "{region:?}"
    );
}

#[test]
fn the_same_pictures_give_the_same_answer() {
    let (query, reference) = (edited(&scene(6, 300, 300), Edit::Rotate, 0.3), scene(6, 300, 300));
    let (one, other) = (compared(&query, &reference), compared(&query, &reference));
    assert_eq!(one.evidence, other.evidence);
    assert_eq!(draw(&one).unwrap(), draw(&other).unwrap());
}

#[test]
fn pictures_of_any_size_and_without_structure_are_drawn() {
    for (width, height) in [(1, 1), (5, 700), (40, 40), (3000, 2)] {
        let blank = Image::new(width, height, vec![200; (width * height * 3) as usize]).unwrap();
        let explanation = compared(&blank, &scene(2, 100, 100));
        assert!(!explanation.evidence.is_shown() && explanation.regions.is_empty());
        let drawn = draw(&explanation).unwrap();
        assert!(drawn.width() <= 2 * 512 + 32 && drawn.height() <= 512 + 48);
    }
}

#[test]
fn comparing_stops_when_asked() {
    let picture = scene(1, 400, 300);
    assert!(matches!(
        explain(&picture, &picture, &|| true),
        Err(ImageError::Cancelled)
    ));
}
