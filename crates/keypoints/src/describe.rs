//! Oriented binary descriptors over a pyramid.

use imaging::ImageError;

use crate::detect::{Corner, MARGIN, corners};
use crate::grey::Grey;

/// A described corner; coordinates are those of the whole picture.
#[derive(Clone)]
pub(crate) struct Keypoint {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// How many pixels of the picture one of its level is.
    pub(crate) scale: f64,
    /// Radians.
    pub(crate) angle: f64,
    pub(crate) bits: [u64; 4],
}

/// Corners of a picture, over all levels.
pub(crate) const MOST_KEYPOINTS: usize = 1500;

const LEVELS: i32 = 8;
const STEP: f64 = 1.2;
/// Radius of the patch that gives the orientation.
const RADIUS: isize = 15;

/// Keypoints of a picture.
pub(crate) fn keypoints(picture: &Grey, should_stop: &dyn Fn() -> bool) -> Result<Vec<Keypoint>, ImageError> {
    let pattern = pattern();
    let mut result = Vec::new();
    let mut level = picture.clone();
    // The quota goes down with the area.
    let share = 1.0 / (STEP * STEP);
    let first = MOST_KEYPOINTS as f64 * (1.0 - share) / (1.0 - libm::pow(share, f64::from(LEVELS)));
    for number in 0..LEVELS {
        if should_stop() {
            return Err(ImageError::Cancelled);
        }
        if level.width <= 2 * MARGIN || level.height <= 2 * MARGIN {
            break;
        }
        let quota = (first * libm::pow(share, f64::from(number))).round() as usize;
        let smooth = level.smoothed();
        let scale = (picture.width as f64 / level.width as f64 + picture.height as f64 / level.height as f64) / 2.0;
        for corner in corners(&level, quota) {
            let angle = orientation(&level, corner);
            result.push(Keypoint {
                x: (corner.x as f64 + 0.5) * scale - 0.5,
                y: (corner.y as f64 + 0.5) * scale - 0.5,
                scale,
                angle,
                bits: describe(&smooth, corner, angle, &pattern),
            });
        }
        level = level.smaller(STEP);
    }
    Ok(result)
}

/// The direction from the corner to the centroid of the intensities around it.
fn orientation(level: &Grey, corner: Corner) -> f64 {
    let (mut across, mut down) = (0_i64, 0_i64);
    for dy in -RADIUS..=RADIUS {
        for dx in -RADIUS..=RADIUS {
            if dx * dx + dy * dy <= RADIUS * RADIUS {
                let value = level.at(corner.x.wrapping_add_signed(dx), corner.y.wrapping_add_signed(dy)) as i64;
                across += dx as i64 * value;
                down += dy as i64 * value;
            }
        }
    }
    libm::atan2(down as f64, across as f64)
}

type Pair = [(f64, f64); 2];

fn describe(smooth: &Grey, corner: Corner, angle: f64, pattern: &[Pair]) -> [u64; 4] {
    let (sin, cos) = (libm::sin(angle), libm::cos(angle));
    let value = |(x, y): (f64, f64)| {
        let dx = (cos * x - sin * y).round() as isize;
        let dy = (sin * x + cos * y).round() as isize;
        smooth.at(corner.x.wrapping_add_signed(dx), corner.y.wrapping_add_signed(dy))
    };
    let mut bits = [0; 4];
    for (at, pair) in pattern.iter().enumerate() {
        bits[at / 64] |= u64::from(value(pair[0]) < value(pair[1])) << (at % 64);
    }
    bits
}

/// 256 pairs of places around a corner, normally distributed; the same for ever.
fn pattern() -> Vec<Pair> {
    let mut chance = Chance(0x5EED);
    let mut place = || {
        loop {
            // Box and Muller; standard deviation a fifth of the patch, as in BRIEF.
            let radius = 6.2 * libm::sqrt(-2.0 * libm::log(1.0 - chance.unit()));
            let turn = 2.0 * std::f64::consts::PI * chance.unit();
            let (x, y) = (radius * libm::cos(turn), radius * libm::sin(turn));
            // Rotated, it must stay within the margin.
            if x * x + y * y < 17.5 * 17.5 {
                return (x, y);
            }
        }
    };
    (0..256).map(|_| [place(), place()]).collect()
}

/// SplitMix64: chance that is the same on every machine.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// In 0..1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `count`, which is not 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.unit() * count as f64) as usize % count
    }
}
