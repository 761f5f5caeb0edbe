//! From judged matches to the thresholds of the verdicts, and to how well the probabilities hold.

use crate::interval::{lower_bound, needed_without_error};

/// A match that somebody, or a seeded edit, has judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// The probability that the calibration gave it.
    pub probability: f64,
    /// Whether it is a copy.
    pub is_copy: bool,
}

/// A threshold of probability, and what it was chosen on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Matches from here upwards are accepted.
    pub probability: f64,
    /// Judged matches from here upwards.
    pub accepted: usize,
    /// Copies among them.
    pub correct: usize,
    /// What their precision is at least, at the confidence asked for.
    pub lower_bound: f64,
    /// Whether `lower_bound` reaches the precision asked for.
    pub held: bool,
}

/// The lowest threshold from which upwards the precision is at least `precision` with `confidence`, and stays so at
/// every higher threshold down to the first that had cases enough.
///
/// Where the cases do not suffice for that, the threshold whose lower bound is greatest among those whose own precision
/// reaches `precision`; where none does, 1. `held` is then false. Both arguments are in (0, 1);
/// probabilities are not NaN.
pub fn choose(judged: &[Judged], precision: f64, confidence: f64) -> Threshold {
    let mut sorted = judged.to_vec();
    sorted.sort_unstable_by(|a, b| b.probability.total_cmp(&a.probability));
    let nothing = Threshold {
        probability: 1.0,
        accepted: 0,
        correct: 0,
        lower_bound: 0.0,
        held: false,
    };
    let (mut accepted, mut correct) = (0, 0);
    let mut best = nothing;
    // Below so many cases no bound can reach the precision: do not compute it.
    let enough = needed_without_error(precision, confidence);
    for tied in sorted.chunk_by(|a, b| a.probability == b.probability) {
        accepted += tied.len();
        correct += tied.iter().filter(|judged| judged.is_copy).count();
        let reaches = correct as f64 >= precision * accepted as f64;
        if best.held && (!reaches || accepted < enough) {
            break;
        }
        if !reaches {
            continue;
        }
        let bound = lower_bound(correct, accepted, confidence);
        let held = accepted >= enough && bound >= precision;
        if best.held && !held {
            break;
        }
        if held || bound > best.lower_bound {
            best = Threshold {
                probability: tied[0].probability,
                accepted,
                correct,
                lower_bound: bound,
                held,
            };
        }
    }
    best
}

/// One tenth of the probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bin {
    /// Judged matches whose probability lies in it.
    pub matches: usize,
    /// Copies among them.
    pub copies: usize,
    /// Sum of their probabilities.
    pub probability: f64,
}

/// The reliability diagram: ten equal parts of 0..=1, 1 being in the last.
pub fn reliability(judged: &[Judged]) -> [Bin; 10] {
    let mut bins = [Bin::default(); 10];
    for one in judged {
        let bin = &mut bins[((one.probability * 10.0) as usize).min(9)];
        bin.matches += 1;
        bin.copies += usize::from(one.is_copy);
        bin.probability += one.probability;
    }
    bins
}

/// Expected calibration error: the mean, over all matches, of how far the mean probability of their bin of
/// [`reliability`] lies from the share of copies in it. `None` of no matches.
pub fn expected_calibration_error(judged: &[Judged]) -> Option<f64> {
    let error: f64 = reliability(judged)
        .iter()
        .map(|bin| (bin.probability - bin.copies as f64).abs())
        .sum();
    (!judged.is_empty()).then(|| error / judged.len() as f64)
}
