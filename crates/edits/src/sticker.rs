//! Emoji-like overlays, drawn here as vector shapes: faces, hearts, stars, speech bubbles, suns.

use crate::canvas::Canvas;
use crate::path::Path;
use crate::random::Random;

const YELLOW: [u8; 3] = [255, 205, 60];
const AMBER: [u8; 3] = [240, 160, 30];
const BROWN: [u8; 3] = [92, 58, 30];
const RED: [u8; 3] = [226, 42, 60];
const WHITE: [u8; 3] = [255; 3];
const BLUE: [u8; 3] = [84, 166, 240];
const INK: [u8; 3] = [35, 35, 45];

#[derive(Clone, Copy)]
enum Sticker {
    Smile,
    Laugh,
    Wink,
    Sad,
    InLove,
    Sunglasses,
    Heart,
    Star,
    Sun,
    Bubble,
}

const STICKERS: [Sticker; 10] = [
    Sticker::Smile,
    Sticker::Laugh,
    Sticker::Wink,
    Sticker::Sad,
    Sticker::InLove,
    Sticker::Sunglasses,
    Sticker::Heart,
    Sticker::Star,
    Sticker::Sun,
    Sticker::Bubble,
];

/// Sticks 1 to 6 emoji on the picture, each 8 % to 50 % of its shorter side, turned by up to ±25°.
pub(super) fn emoji(canvas: &mut Canvas, strength: f64, random: &mut Random) {
    let short = canvas.short_side() as f64;
    for _ in 0..1 + (5.0 * strength).round() as usize {
        let sticker = random.pick(&STICKERS);
        let diameter = (short * (0.08 + 0.42 * strength * random.between(0.5, 1.0))).max(4.0);
        let centre = [
            canvas.width as f64 * random.between(0.08, 0.92),
            canvas.height as f64 * random.between(0.08, 0.92),
        ];
        let angle = random.between(-0.44, 0.44);
        for (shape, colour) in sticker.layers() {
            shape.placed(centre, diameter / 2.0, angle).fill_flat(canvas, colour);
        }
    }
}

impl Sticker {
    /// Shapes and their colours, back to front, within the circle of radius 1 about the origin.
    fn layers(self) -> Vec<(Path, [u8; 3])> {
        let eye = |x: f64| (Path::ellipse([x, -0.22], 0.11, 0.17), BROWN);
        match self {
            Self::Smile => face([eye(-0.32), eye(0.32), (smile(0.18, 0.52), BROWN)]),
            Self::Laugh => face([
                eye(-0.32),
                eye(0.32),
                (half_disc([0.0, 0.12], 0.56), BROWN),
                (half_disc([0.0, 0.36], 0.3), [235, 90, 90]),
                (Path::rectangle(-0.46, 0.12, 0.92, 0.13, 0.05), WHITE),
            ]),
            Self::Wink => face([
                eye(-0.32),
                (Path::rectangle(0.16, -0.25, 0.36, 0.09, 0.04), BROWN),
                (smile(0.2, 0.46), BROWN),
            ]),
            Self::Sad => face([
                eye(-0.32),
                eye(0.32),
                (smile(0.0, 0.42).placed([0.0, 0.6], 1.0, core::f64::consts::PI), BROWN),
                (drop_shape().placed([0.42, 0.12], 0.3, 0.0), BLUE),
            ]),
            Self::InLove => face([
                (heart().placed([-0.36, -0.2], 0.34, 0.0), RED),
                (heart().placed([0.36, -0.2], 0.34, 0.0), RED),
                (half_disc([0.0, 0.2], 0.46), BROWN),
            ]),
            Self::Sunglasses => face([
                (Path::rectangle(-0.68, -0.4, 0.6, 0.42, 0.16), INK),
                (Path::rectangle(0.08, -0.4, 0.6, 0.42, 0.16), INK),
                (Path::rectangle(-0.86, -0.4, 1.72, 0.1, 0.04), INK),
                (smile(0.18, 0.46), BROWN),
            ]),
            Self::Heart => vec![(heart(), [176, 22, 44]), (heart().placed([0.0, 0.0], 0.9, 0.0), RED)],
            Self::Star => vec![
                (star(5, 0.45), AMBER),
                (star(5, 0.45).placed([0.0, 0.0], 0.86, 0.0), YELLOW),
            ],
            Self::Sun => vec![(star(12, 0.68), AMBER), (Path::ellipse([0.0, 0.0], 0.6, 0.6), YELLOW)],
            Self::Bubble => {
                let tail = Path::polygon(&[[-0.5, 0.3], [-0.1, 0.4], [-0.62, 0.92]]);
                let dot = |x: f64| (Path::ellipse([x, -0.12], 0.1, 0.1), INK);
                vec![
                    (tail, WHITE),
                    (Path::rectangle(-0.95, -0.7, 1.9, 1.16, 0.5), WHITE),
                    dot(-0.4),
                    dot(0.0),
                    dot(0.4),
                ]
            }
        }
    }
}

fn face<const FEATURES: usize>(features: [(Path, [u8; 3]); FEATURES]) -> Vec<(Path, [u8; 3])> {
    let head = [
        (Path::ellipse([0.0, 0.0], 1.0, 1.0), AMBER),
        (Path::ellipse([0.0, -0.02], 0.94, 0.94), YELLOW),
        (Path::ellipse([-0.3, -0.6], 0.3, 0.16), [255, 228, 140]),
    ];
    head.into_iter().chain(features).collect()
}

/// A crescent mouth whose corners are at height `y`, `half_width` to each side.
fn smile(y: f64, half_width: f64) -> Path {
    let mut path = Path::default();
    path.move_to(-half_width, y);
    path.quad_to([0.0, y + half_width * 1.5], [half_width, y]);
    path.quad_to([0.0, y + half_width * 0.95], [-half_width, y]);
    path.close();
    path
}

fn half_disc([x, y]: [f64; 2], radius: f64) -> Path {
    let bend = radius * 1.33;
    let mut path = Path::default();
    path.move_to(x - radius, y);
    path.cubic_to([x - radius, y + bend], [x + radius, y + bend], [x + radius, y]);
    path.close();
    path
}

fn drop_shape() -> Path {
    let mut path = Path::default();
    path.move_to(0.0, -1.0);
    path.cubic_to([0.3, -0.4], [0.65, 0.1], [0.55, 0.5]);
    path.cubic_to([0.45, 1.05], [-0.45, 1.05], [-0.55, 0.5]);
    path.cubic_to([-0.65, 0.1], [-0.3, -0.4], [0.0, -1.0]);
    path.close();
    path
}

fn heart() -> Path {
    let mut path = Path::default();
    path.move_to(0.0, 0.92);
    path.cubic_to([-0.35, 0.6], [-0.98, 0.15], [-0.98, -0.35]);
    path.cubic_to([-0.98, -0.9], [-0.25, -1.05], [0.0, -0.45]);
    path.cubic_to([0.25, -1.05], [0.98, -0.9], [0.98, -0.35]);
    path.cubic_to([0.98, 0.15], [0.35, 0.6], [0.0, 0.92]);
    path.close();
    path
}

/// A star with `points` points on the unit circle; its inner corners are at `inner`.
fn star(points: usize, inner: f64) -> Path {
    let corners: Vec<[f64; 2]> = (0..2 * points)
        .map(|index| {
            let angle = core::f64::consts::PI * index as f64 / points as f64;
            let radius = if index % 2 == 0 { 1.0 } else { inner };
            [radius * libm::sin(angle), -radius * libm::cos(angle)]
        })
        .collect();
    Path::polygon(&corners)
}
