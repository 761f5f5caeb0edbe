//! Which keypoints of two pictures look alike.

use imaging::ImageError;

use crate::describe::Keypoint;

/// Two keypoints that are each other's best.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Pair {
    /// Place in the query.
    pub(crate) query: (f64, f64),
    /// Place in the reference.
    pub(crate) reference: (f64, f64),
    /// Scale of the query's keypoint over the reference's.
    pub(crate) scale: f64,
    /// Angle of the query's keypoint less the reference's.
    pub(crate) turn: f64,
}

/// Of 256 bits, 128 differ between strangers on average.
const MOST_DIFFERENT: u32 = 70;
/// The best must be nearer than the second by this.
const RATIO: f64 = 0.92;

/// Mutual best matches.
pub(crate) fn pairs(
    query: &[Keypoint],
    reference: &[Keypoint],
    should_stop: &dyn Fn() -> bool,
) -> Result<Vec<Pair>, ImageError> {
    let mut back: Vec<(u32, usize)> = vec![(u32::MAX, 0); reference.len()];
    let mut forth = Vec::with_capacity(query.len());
    for (number, one) in query.iter().enumerate() {
        if number % 64 == 0 && should_stop() {
            return Err(ImageError::Cancelled);
        }
        let (mut best, mut second, mut whose) = (u32::MAX, u32::MAX, 0);
        for (at, other) in reference.iter().enumerate() {
            let difference: u32 = one
                .bits
                .iter()
                .zip(&other.bits)
                .map(|(a, b)| (a ^ b).count_ones())
                .sum();
            if difference < best {
                (second, best, whose) = (best, difference, at);
            } else if difference < second {
                second = difference;
            }
            if difference < back[at].0 {
                back[at] = (difference, number);
            }
        }
        forth.push((best, second, whose));
    }
    Ok(forth
        .iter()
        .enumerate()
        .filter(|&(number, &(best, second, whose))| {
            best <= MOST_DIFFERENT && f64::from(best) <= RATIO * f64::from(second) && back[whose].1 == number
        })
        .map(|(number, &(_, _, whose))| {
            let (a, b) = (&query[number], &reference[whose]);
            Pair {
                query: (a.x, a.y),
                reference: (b.x, b.y),
                scale: a.scale / b.scale,
                turn: a.angle - b.angle,
            }
        })
        .collect())
}
