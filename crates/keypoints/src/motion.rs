//! How a reference must have been moved to lie in the query: every match of two features is a hypothesis.
//!
//! A feature has place, size and angle, so a single match gives a whole similarity transform; what all other matches
//! say of it decides. Nothing is drawn at random. The best few are refined by least squares to affine transforms.

use vectors::hamming::{Code, HammingKernel};

use crate::features::Feature;
use crate::transform::{Affine, least_squares};

/// A query's feature and the reference's that is most like it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Match {
    pub(crate) query: (f64, f64),
    pub(crate) reference: (f64, f64),
    /// Size of the query's feature over the reference's.
    scale: f64,
    /// Angle of the query's feature less the reference's.
    turn: f64,
}

/// Of 128 bits, 64 differ between strangers on average.
const MOST_DIFFERENT: u8 = 38;
/// The best must be nearer than the second by this.
const RATIO: f32 = 0.9;
/// Hypotheses that are refined.
const REFINED: usize = 3;
/// Pixels of the query that a place may lie off its hypothesis, and how many more for each pixel from its seed: sizes
/// and angles of single features are rough.
const ROUGH: f64 = 4.0;
const ROUGH_PART: f64 = 0.1;
const ROUGH_MOST: f64 = 24.0;
/// Radians that two matches of one motion may be turned apart.
const MOST_TURN: f64 = 0.45;
/// Pixels that a place may lie off the refined transforms.
const ROUNDS: [f64; 4] = [12.0, 8.0, 5.0, 4.0];
/// A place within this is the same place.
const SAME: f64 = 3.0;

/// A motion and the matches that bear it out.
#[derive(Clone, Debug)]
pub(crate) struct Motion {
    pub(crate) transform: Affine,
    pub(crate) inliers: Vec<Match>,
}

/// For each feature of the query the most alike of the reference, if it is the only one like it; each of the
/// reference's once. `codes` are those of `reference`.
pub(crate) fn matches(
    kernel: &HammingKernel,
    query: &[Feature],
    reference: &[Feature],
    codes: &[Code],
    row: &mut Vec<u8>,
) -> Vec<Match> {
    if reference.len() < 2 {
        return Vec::new();
    }
    row.resize(codes.len(), 0);
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || matched(kernel, query, reference, codes, row),
    )
}

#[inline(always)]
fn matched(
    kernel: &HammingKernel,
    query: &[Feature],
    reference: &[Feature],
    codes: &[Code],
    row: &mut [u8],
) -> Vec<Match> {
    // For each distance that the best may have, from which on another is no rival.
    let no_rival: [u8; MOST_DIFFERENT as usize + 1] = std::array::from_fn(|least| {
        (0..=u8::MAX)
            .find(|&other| least as f32 <= RATIO * f32::from(other))
            .unwrap_or(u8::MAX)
    });
    // For each of the reference's: distance and which of the query's.
    let mut best_of: Vec<(u8, u32)> = vec![(u8::MAX, 0); reference.len()];
    for (number, feature) in query.iter().enumerate() {
        kernel.distances(&feature.code, codes, row);
        let least = row.iter().copied().fold(u8::MAX, u8::min);
        if least > MOST_DIFFERENT {
            continue;
        }
        let Some(at) = memchr::memchr(least, row) else {
            continue;
        };
        if least >= best_of[at].0 {
            continue;
        }
        let place = &reference[at];
        // Few are nearly as near; a second angle of the same place is no rival.
        let rivals = no_rival[usize::from(least)];
        let near: usize = row
            .chunks(usize::from(u8::MAX))
            .map(|part| usize::from(part.iter().map(|&distance| u8::from(distance < rivals)).sum::<u8>()))
            .sum();
        let unique = near <= 1
            || row
                .iter()
                .zip(reference)
                .filter(|(distance, _)| **distance < rivals)
                .all(|(_, other)| (other.x - place.x).abs() <= 2.0 && (other.y - place.y).abs() <= 2.0);
        if unique {
            best_of[at] = (least, number as u32);
        }
    }
    best_of
        .iter()
        .zip(reference)
        .filter(|((distance, _), _)| *distance != u8::MAX)
        .map(|(&(_, number), other)| {
            let feature = &query[number as usize];
            Match {
                query: (f64::from(feature.x), f64::from(feature.y)),
                reference: (f64::from(other.x), f64::from(other.y)),
                scale: f64::from(feature.size / other.size),
                turn: f64::from(feature.angle - other.angle),
            }
        })
        .collect()
}

/// The motion that most matches bear out; `None` where not even three agree on a sensible one.
pub(crate) fn motion(matches: &[Match]) -> Option<Motion> {
    let mut ranked: Vec<(usize, usize)> = borne_out(matches)
        .into_iter()
        .enumerate()
        .map(|(at, count)| (count, at))
        .filter(|(count, _)| *count >= 3)
        .collect();
    ranked.sort_by_key(|&(count, at)| (std::cmp::Reverse(count), at));
    let mut best: Option<Motion> = None;
    let mut seeds: Vec<Seed> = Vec::new();
    for (_, at) in ranked {
        // What an earlier hypothesis holds already leads to the same.
        if seeds.iter().any(|seed| seed.agrees(&matches[at])) {
            continue;
        }
        let seed = Seed::of(&matches[at]);
        let near: Vec<&Match> = matches.iter().filter(|other| seed.agrees(other)).collect();
        if let Some(found) = refined(matches, &matches[at], &near)
            && best
                .as_ref()
                .is_none_or(|best| found.inliers.len() > best.inliers.len())
        {
            best = Some(found);
        }
        seeds.push(seed);
        if seeds.len() == REFINED {
            break;
        }
    }
    best.filter(|best| best.inliers.len() >= 3)
}

/// For each match how many bear it out, itself among them. Only those that are turned alike are looked at.
fn borne_out(matches: &[Match]) -> Vec<usize> {
    let whole = 2.0 * std::f64::consts::PI;
    let mut by_turn: Vec<(f64, usize)> = matches
        .iter()
        .enumerate()
        .map(|(at, one)| (one.turn.rem_euclid(whole), at))
        .collect();
    by_turn.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Once around and as far beyond each end as turns may differ, and by what the last digits lose.
    let reach = MOST_TURN + 1e-6;
    let below = by_turn
        .iter()
        .filter(|one| one.0 >= whole - reach)
        .map(|one| (one.0 - whole, one.1));
    let beyond = by_turn
        .iter()
        .filter(|one| one.0 <= reach)
        .map(|one| (one.0 + whole, one.1));
    let around: Vec<(f64, usize)> = below.chain(by_turn.iter().copied()).chain(beyond).collect();
    let (mut first, mut end) = (0, 0);
    let mut counts = vec![0; matches.len()];
    for &(turn, at) in &by_turn {
        while around[first].0 < turn - reach {
            first += 1;
        }
        while end < around.len() && around[end].0 <= turn + reach {
            end += 1;
        }
        let seed = Seed::of(&matches[at]);
        counts[at] = around[first..end]
            .iter()
            .filter(|(_, other)| seed.agrees(&matches[*other]))
            .count();
    }
    counts
}

/// The similarity transform of one match.
fn similarity(seed: &Match) -> Affine {
    let (a, d) = (seed.scale * libm::cos(seed.turn), seed.scale * libm::sin(seed.turn));
    Affine {
        a,
        b: -d,
        c: seed.query.0 - (a * seed.reference.0 - d * seed.reference.1),
        d,
        e: a,
        f: seed.query.1 - (d * seed.reference.0 + a * seed.reference.1),
    }
}

/// A match that says where others must lie.
struct Seed<'a> {
    one: &'a Match,
    cos: f64,
    sin: f64,
}

impl<'a> Seed<'a> {
    fn of(one: &'a Match) -> Self {
        Self {
            one,
            cos: libm::cos(one.turn) * one.scale,
            sin: libm::sin(one.turn) * one.scale,
        }
    }

    /// Whether a match lies where this one says, turned and scaled as it is.
    fn agrees(&self, other: &Match) -> bool {
        let Self { one, cos, sin } = *self;
        let ratio = other.scale / one.scale;
        if !(0.6..1.67).contains(&ratio) {
            return false;
        }
        let whole = 2.0 * std::f64::consts::PI;
        let mut turn = (other.turn - one.turn).abs();
        if turn >= whole {
            turn %= whole;
        }
        if turn.min(whole - turn) > MOST_TURN {
            return false;
        }
        let (dx, dy) = (other.reference.0 - one.reference.0, other.reference.1 - one.reference.1);
        let (x, y) = (one.query.0 + cos * dx - sin * dy, one.query.1 + sin * dx + cos * dy);
        let (u, v) = (x - other.query.0, y - other.query.1);
        let far = (dx * dx + dy * dy).sqrt() * one.scale;
        let allowed = (ROUGH + ROUGH_PART * far).min(ROUGH_MOST);
        u * u + v * v <= allowed * allowed
    }
}

/// From the matches of a hypothesis to an affine transform, and to all matches that lie on it.
fn refined(matches: &[Match], seed: &Match, near: &[&Match]) -> Option<Motion> {
    let mut transform = fitted(near, seed)?;
    for allowed in ROUNDS {
        let held: Vec<&Match> = matches.iter().filter(|one| on(&transform, one, allowed)).collect();
        match fitted(&held, seed) {
            Some(better) => transform = better,
            None => break,
        }
    }
    let last = ROUNDS[ROUNDS.len() - 1];
    let inliers = distinct(matches.iter().filter(|one| on(&transform, one, last)));
    Some(Motion { transform, inliers })
}

fn on(transform: &Affine, one: &Match, allowed: f64) -> bool {
    let (x, y) = transform.apply(one.reference);
    let (dx, dy) = (x - one.query.0, y - one.query.1);
    dx * dx + dy * dy <= allowed * allowed
}

fn fitted(near: &[&Match], seed: &Match) -> Option<Affine> {
    let affine = least_squares(near.iter().map(|one| (one.reference, one.query)));
    let transform = match affine {
        Some(affine) if affine.is_sensible() => affine,
        // Too few for six unknowns, or on one line.
        _ => fitted_similarity(near).unwrap_or_else(|| similarity(seed)),
    };
    transform.is_sensible().then_some(transform)
}

/// The similarity of least squared distance.
fn fitted_similarity(near: &[&Match]) -> Option<Affine> {
    if near.len() < 2 {
        return None;
    }
    let count = near.len() as f64;
    let mean = |value: fn(&Match) -> f64| near.iter().map(|one| value(one)).sum::<f64>() / count;
    let (mx, my) = (mean(|m| m.reference.0), mean(|m| m.reference.1));
    let (nx, ny) = (mean(|m| m.query.0), mean(|m| m.query.1));
    let (mut along, mut across, mut squares) = (0.0, 0.0, 0.0);
    for one in near {
        let (x, y) = (one.reference.0 - mx, one.reference.1 - my);
        let (u, v) = (one.query.0 - nx, one.query.1 - ny);
        along += x * u + y * v;
        across += x * v - y * u;
        squares += x * x + y * y;
    }
    // Places on one spot give no scale.
    if squares < 100.0 {
        return None;
    }
    let (a, d) = (along / squares, across / squares);
    Some(Affine {
        a,
        b: -d,
        c: nx - (a * mx - d * my),
        d,
        e: a,
        f: ny - (d * mx + a * my),
    })
}

/// A place that several scales or angles found counts once.
fn distinct<'a>(held: impl Iterator<Item = &'a Match>) -> Vec<Match> {
    let mut kept: Vec<Match> = Vec::new();
    let near = |(x, y): (f64, f64), (u, v): (f64, f64)| (x - u).abs() < SAME && (y - v).abs() < SAME;
    for one in held {
        if !kept
            .iter()
            .any(|other| near(other.query, one.query) || near(other.reference, one.reference))
        {
            kept.push(*one);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn those_turned_alike_are_all_that_bear_a_match_out(
            drawn in prop::collection::vec(
                ((0.0..400.0, 0.0..400.0), (0.0..400.0, 0.0..400.0), 0.3f64..3.0, -7.0f64..7.0),
                0..80,
            ),
            moved in prop::collection::vec((0.0..400.0, 0.0..400.0, -0.6f64..0.6), 0..40),
        ) {
            let mut all: Vec<Match> = drawn
                .into_iter()
                .map(|(query, reference, scale, turn)| Match { query, reference, scale, turn })
                .collect();
            // Some under one motion, turned by half a circle, where angles wrap.
            all.extend(moved.into_iter().map(|(x, y, off)| Match {
                query: (400.0 - x, 400.0 - y),
                reference: (x, y),
                scale: 1.0,
                turn: std::f64::consts::PI + off,
            }));
            let each: Vec<usize> = all
                .iter()
                .map(|seed| {
                    let seed = Seed::of(seed);
                    all.iter().filter(|other| seed.agrees(other)).count()
                })
                .collect();
            prop_assert_eq!(borne_out(&all), each);
        }
    }
}
