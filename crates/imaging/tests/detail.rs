//! Featurelessness: what is refused, with which words, and what is not.

mod pictures;

use imaging::{Detail, Image, decode, detail, encode_jpeg, refusal};
use pictures::Sequence;

fn picture(width: u32, height: u32, level: impl Fn(u32, u32) -> f32) -> Image {
    let pixels = (0..height)
        .flat_map(|y| (0..width).map(move |x| (x, y)))
        .flat_map(|(x, y)| [level(x, y).clamp(0.0, 255.0) as u8; 3])
        .collect();
    Image::new(width, height, pixels).unwrap()
}

fn assert_refused(name: &str, image: &Image, words: &str) {
    let measured = detail(image).unwrap();
    let reason = refusal(&measured).unwrap_or_else(|| panic!("{name} is not refused: {measured:?}"));
    assert!(reason.contains(words), "{name}: {reason}");
    assert!(reason.contains(&format!("{:.2} of 100", measured.score)), "{reason}");
}

fn assert_accepted(name: &str, image: &Image) -> Detail {
    let measured = detail(image).unwrap();
    assert_eq!(refusal(&measured), None, "{name}: {measured:?}");
    measured
}

#[test]
fn single_colours_are_refused_at_any_size() {
    for (width, height) in [(1, 1), (3, 500), (64, 64), (900, 700)] {
        for level in [0.0, 127.0, 255.0] {
            assert_refused("single colour", &picture(width, height, |_, _| level), "single colour");
        }
    }
}

#[test]
fn smooth_gradients_are_refused() {
    assert_refused(
        "ramp",
        &picture(640, 480, |x, _| x as f32 * 255.0 / 639.0),
        "smooth gradient",
    );
    assert_refused(
        "diagonal",
        &picture(480, 480, |x, y| (x + y) as f32 * 255.0 / 958.0),
        "smooth gradient",
    );
    let vignette = |x: u32, y: u32| 230.0 - ((x as f32 - 320.0).powi(2) + (y as f32 - 240.0).powi(2)) / 1200.0;
    assert_refused("vignette", &picture(640, 480, vignette), "smooth gradient");
    let compressed = encode_jpeg(&picture(640, 480, |x, _| x as f32 * 0.4), 60).unwrap();
    assert_refused(
        "compressed ramp",
        &decode(&compressed, &Default::default()).unwrap(),
        "smooth gradient",
    );
}

#[test]
fn noise_on_a_blank_page_is_refused() {
    for amplitude in [1.0, 3.0, 8.0] {
        let mut random = Sequence::new(4);
        let pixels = (0..640 * 480 * 3)
            .map(|_| (230.0 + (random.unit() - 0.5) * 2.0 * amplitude) as u8)
            .collect();
        assert_refused("noise", &Image::new(640, 480, pixels).unwrap(), "single colour");
    }
}

#[test]
fn photographs_drawings_text_and_night_scenes_are_accepted() {
    for seed in 0..20 {
        assert_accepted("scene", &pictures::scene(400, 300, seed));
    }
    // A circle and a cross in thin strokes on white.
    let drawing = |x: u32, y: u32| {
        let (dx, dy) = (x as f32 - 200.0, y as f32 - 200.0);
        let on_circle = ((dx * dx + dy * dy).sqrt() - 150.0).abs() < 2.0;
        if on_circle || (dx - dy).abs() < 2.0 || (dx + dy).abs() < 2.0 {
            0.0
        } else {
            255.0
        }
    };
    assert_accepted("drawing", &picture(400, 400, drawing));
    // Lines of words: dark marks of varying length with gaps.
    let text = |x: u32, y: u32| {
        let (line, word) = (y / 24, x / 7);
        let ink = y % 24 < 12 && (word * 7 + line * 13) % 11 > 2 && x % 7 < 5 && !(x * 3 + y * 5).is_multiple_of(4);
        if ink && (40..560).contains(&x) { 20.0 } else { 250.0 }
    };
    assert_accepted("text", &picture(600, 800, text));
    // A night: almost black, some forty lamps and their reflections.
    let mut random = Sequence::new(2);
    let lamps: Vec<(f32, f32)> = (0..40)
        .map(|_| (random.unit() * 640.0, 200.0 + random.unit() * 200.0))
        .collect();
    let night = |x: u32, y: u32| {
        let glow: f32 = lamps
            .iter()
            .map(|(lx, ly)| 160.0 * (-((x as f32 - lx).powi(2) + (y as f32 - ly).powi(2)) / 40.0).exp())
            .sum();
        6.0 + glow
    };
    assert_accepted("night", &picture(640, 480, night));
}

#[test]
fn the_score_lies_between_0_and_100_and_grows_with_structure() {
    let flat = detail(&picture(100, 100, |_, _| 9.0)).unwrap();
    assert_eq!((flat.score, flat.contrast, flat.entropy), (0.0, 0.0, 0.0));
    let scores: Vec<f32> = [128u32, 64, 16]
        .map(|cell| {
            detail(&picture(512, 512, |x, y| {
                if (x / cell + y / cell) % 2 == 0 { 20.0 } else { 235.0 }
            }))
            .unwrap()
            .score
        })
        .to_vec();
    assert!(scores.windows(2).all(|pair| pair[0] < pair[1]), "{scores:?}");
    assert!(scores.iter().all(|score| (0.0..=100.0).contains(score)), "{scores:?}");
}
