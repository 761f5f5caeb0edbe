//! Resizing: what must hold for any picture. That it agrees with Pillow, tests/test_imaging_parity.py
//! of the repository proves.

mod pictures;

use imaging::{Filter, Image, ImageError, resize};
use proptest::prelude::*;

const FILTERS: [Filter; 4] = [Filter::Nearest, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos];

fn any_filter() -> impl Strategy<Value = Filter> {
    (0..4usize).prop_map(|index| FILTERS[index])
}

fn mirrored(image: &Image) -> Image {
    let rows = image.pixels().chunks_exact(image.width() as usize * 3);
    let pixels = rows
        .flat_map(|row| row.chunks_exact(3).rev().flatten().copied().collect::<Vec<u8>>())
        .collect();
    Image::new(image.width(), image.height(), pixels).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn a_single_colour_stays_that_colour_at_any_size(
        (w, h) in (1u32..70, 1u32..70), (to_w, to_h) in (1u32..140, 1u32..140),
        colour in any::<[u8; 3]>(), filter in any_filter(),
    ) {
        let image = Image::new(w, h, colour.repeat((w * h) as usize)).unwrap();
        let resized = resize(&image, to_w, to_h, filter).unwrap();
        prop_assert_eq!((resized.width(), resized.height()), (to_w, to_h));
        prop_assert_eq!(resized.into_pixels(), colour.repeat((to_w * to_h) as usize));
    }

    #[test]
    fn the_same_size_is_the_same_picture((w, h) in (1u32..60, 1u32..60), seed in any::<u64>(), filter in any_filter()) {
        let image = pictures::scene(w, h, seed);
        prop_assert_eq!(resize(&image, w, h, filter).unwrap(), image);
    }

    #[test]
    fn both_passes_at_once_give_what_one_after_the_other_gives(
        (w, h) in (1u32..90, 1u32..90), (to_w, to_h) in (1u32..120, 1u32..120), seed in any::<u64>(),
        filter in any_filter(),
    ) {
        let image = pictures::scene(w, h, seed);
        let narrowed = resize(&image, to_w, h, filter).unwrap();
        prop_assert_eq!(
            resize(&image, to_w, to_h, filter).unwrap(),
            resize(&narrowed, to_w, to_h, filter).unwrap()
        );
    }

    #[test]
    fn mirroring_before_or_after_is_the_same_within_a_level(
        (w, h) in (2u32..60, 2u32..60), (to_w, to_h) in (1u32..90, 1u32..90), seed in any::<u64>(), filter in 1..4usize,
    ) {
        let image = pictures::scene(w, h, seed);
        let before = resize(&mirrored(&image), to_w, to_h, FILTERS[filter]).unwrap();
        let after = mirrored(&resize(&image, to_w, to_h, FILTERS[filter]).unwrap());
        prop_assert!(pictures::difference(&before, &after).0 <= 1);
    }
}

#[test]
fn shrinking_counts_every_pixel() {
    // One bright column in 64: plain interpolation at 8 columns would miss it or take it whole.
    let mut pixels = vec![0u8; 64 * 64 * 3];
    for y in 0..64 {
        pixels[(y * 64 + 29) * 3..(y * 64 + 30) * 3].fill(255);
    }
    let image = Image::new(64, 64, pixels).unwrap();
    let sum = |filter| {
        let resized = resize(&image, 8, 8, filter).unwrap();
        resized
            .pixels()
            .chunks_exact(24)
            .next()
            .unwrap()
            .iter()
            .step_by(3)
            .map(|&v| u32::from(v))
            .sum::<u32>()
    };
    // 255 over a 64th of the width is 255 / 8 over the 8 columns.
    assert!((30..=34).contains(&sum(Filter::Bilinear)), "{}", sum(Filter::Bilinear));
}

#[test]
fn a_size_without_pixels_or_beyond_memory_is_an_error() {
    let image = Image::new(1, 1, vec![1, 2, 3]).unwrap();
    for (width, height) in [(0, 5), (5, 0), (u32::MAX, u32::MAX), (1 << 20, 1 << 20)] {
        assert_eq!(
            resize(&image, width, height, Filter::Bilinear),
            Err(ImageError::InvalidSize { width, height })
        );
    }
    assert!(Image::new(0, 3, vec![]).is_err());
    assert_eq!(
        Image::new(2, 2, vec![0; 11]),
        Err(ImageError::WrongLength {
            width: 2,
            height: 2,
            expected: 12,
            found: 11
        })
    );
}
