//! Pictures of any shape, the thinnest too.

use imaging::Image;
use keypoints::{Sketch, draw, explain};
use proptest::prelude::*;

fn picture(width: u32, height: u32, seed: u64) -> Image {
    let pixels = (0..u64::from(width) * u64::from(height) * 3)
        .map(|at| ((at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    Image::new(width, height, pixels).unwrap()
}

/// Sides from one pixel on, of shapes that no camera makes.
fn side() -> impl Strategy<Value = u32> {
    prop_oneof![1..8u32, 1..64u32, 200..600u32, 2000..20_000u32]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_pictures_of_any_shape_are_compared_and_drawn(
        (w, h) in (side(), side()).prop_filter("memory", |(w, h)| w * h < 3_000_000),
        (v, g) in (side(), side()).prop_filter("memory", |(w, h)| w * h < 3_000_000),
        seed in any::<u64>(),
    ) {
        let (query, reference) = (picture(w, h, seed), picture(v, g, seed.rotate_left(7)));
        let explained = explain(&query, &reference, &|| false).unwrap();
        draw(&explained).unwrap();
        let sketch = Sketch::of(&reference, &|| false).unwrap();
        prop_assert!(Sketch::parse(&sketch.to_bytes()).is_ok());
    }
}
