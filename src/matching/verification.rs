//! The second stage: the query compared with the sketches of its nearest references, and one
//! probability from all that is known.

use keypoints::{Evidence, Query, Sketch, SketchError};
use pgrx::prelude::*;
use scoring::{Calibration, Found, SAME_PICTURE, STANDING_NEIGHBOURS, Standing, Verdict};

use super::neighbours::Neighbour;
use super::sets::ReferenceSet;
use super::verify::{Plan, Verify};
use crate::failure::Failure;
use crate::{interrupts, settings};

/// Inliers, agreement and cells from which nothing more needs to be compared.
const PLAIN_INLIERS: usize = 40;
const PLAIN_AGREEMENT: f64 = 0.85;
const PLAIN_CELLS: usize = 48;

/// Different pictures, those that agree best with the query, of which it is looked up where else they are registered:
/// they are the rivals that count.
const MOST_SHOWN: usize = 2;

/// Agreement beyond that with any other reference from which a reference is said to be shown.
const OUTSTANDING: f64 = 0.3;

/// What to fetch for `k` answers from a set. `pictured`: whether there is a picture to compare.
pub fn plan(set: &ReferenceSet, verify: Option<Verify>, pictured: bool, k: usize) -> Plan {
    let verify = verify.unwrap_or(set.verify);
    let verified = pictured
        && set.sketch.is_some()
        && match verify {
            Verify::Off => false,
            Verify::Auto => set.calibration.weighs_evidence(),
            Verify::All => true,
        };
    if !verified {
        return Plan {
            neighbours: k,
            compared: 0,
            least: 0,
        };
    }
    let compared = settings::verify_nearest();
    Plan {
        neighbours: k.max(compared).max(STANDING_NEIGHBOURS),
        compared,
        least: if verify == Verify::All { compared } else { k },
    }
}

/// What a neighbour is judged to be.
pub struct Judgement {
    /// Of being a copy.
    pub probability: f64,
    /// What that means under the set's thresholds.
    pub verdict: Verdict,
    /// Comparable between queries: stretched where nothing was weighed but the descriptors, else
    /// the probability's log-odds.
    pub score: f64,
    /// What the pictures have in common; `None`: not compared.
    pub evidence: Option<Evidence>,
    /// Whether that by itself shows the reference, and this one rather than others of its kind.
    pub shown: bool,
}

/// Judges the neighbours of a query, nearest first. `query`: its features, where there is anything to compare.
pub fn judge(
    set: &ReferenceSet,
    plan: &Plan,
    background: f64,
    neighbours: &[Neighbour],
    query: Option<&Query>,
) -> Result<Vec<Judgement>, Failure> {
    let calibration = &set.calibration;
    let compared = match query {
        Some(query) => compare(set, plan, neighbours, query)?,
        None => neighbours.iter().map(|_| None).collect(),
    };
    if plan.compared == 0 {
        return Ok(neighbours
            .iter()
            .map(|neighbour| by_descriptor(calibration, neighbour, background))
            .collect());
    }
    let pictures = pictures(&compared).map_err(|(at, error)| damaged(set, &neighbours[at], error))?;
    let similarities: Vec<f64> = neighbours.iter().map(|one| one.similarity).collect();
    let evidence: Vec<Option<Evidence>> = compared
        .iter()
        .map(|one| one.as_ref().map(|one| one.evidence))
        .collect();
    let inliers = |one: &Option<Evidence>| one.map(|one| (1.0 + one.inliers as f64).ln());
    let agreement = |one: &Option<Evidence>| one.map(|one| one.agreement());
    let rivals = [
        Rivals::of(&pictures, evidence.iter().map(inliers)),
        Rivals::of(&pictures, evidence.iter().map(agreement)),
    ];
    neighbours
        .iter()
        .enumerate()
        .map(|(at, neighbour)| {
            let found = evidence[at].map(|one| Found {
                inliers: inliers(&Some(one)).unwrap_or(0.0),
                other_inliers: rivals[0].against(pictures[at]),
                agreement: one.agreement(),
                other_agreement: rivals[1].against(pictures[at]),
                uncovered: one.uncovered(),
                compared: one.compared as f64,
                features: compared[at].as_ref().map_or(0.0, |one| one.sketch.features() as f64),
                ground: 0.0,
            });
            let shown = evidence[at].is_some_and(|one| one.is_shown())
                && found.is_some_and(|found| found.outstanding() >= OUTSTANDING);
            if !calibration.weighs_evidence() {
                return Ok(Judgement {
                    evidence: evidence[at],
                    shown,
                    ..by_descriptor(calibration, neighbour, background)
                });
            }
            // Registered more than once, a picture is no rival of itself.
            let same = |other: usize| match (&compared[at], &compared[other]) {
                (Some(_), Some(_)) => pictures[at] == pictures[other],
                _ => likeness(neighbour, &neighbours[other]) >= SAME_PICTURE as f32,
            };
            let standing = Standing::of(&similarities, at, same);
            let judged = |found| calibration.probability_with(neighbour.similarity, background, Some(standing), found);
            let mut probability = judged(found);
            // Whether the reference is drawn is looked at only where it may matter.
            if probability > 0.5
                && let (Some(found), Some(one)) = (found, &compared[at])
            {
                let ground = one.sketch.ground().map_err(|error| damaged(set, neighbour, error))?;
                probability = judged(Some(Found { ground, ..found }));
            }
            Ok(Judgement {
                probability,
                verdict: match found {
                    Some(_) => calibration.verified_verdict(probability),
                    None => calibration.verdict(probability),
                },
                score: Calibration::evidence_score(probability),
                evidence: evidence[at],
                shown,
            })
        })
        .collect()
}

/// As the paper does it.
fn by_descriptor(calibration: &Calibration, neighbour: &Neighbour, background: f64) -> Judgement {
    let probability = calibration.probability(neighbour.similarity, background);
    Judgement {
        probability,
        verdict: calibration.verdict(probability),
        score: calibration.stretch(neighbour.similarity, background),
        evidence: None,
        shown: false,
    }
}

/// Cosine of two references' descriptors; −1 where one is not known.
fn likeness(one: &Neighbour, other: &Neighbour) -> f32 {
    let (Some(a), Some(b)) = (&one.descriptor, &other.descriptor) else {
        return -1.0;
    };
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { -1.0 }
}

/// The most of any picture, and the most of any other than that.
struct Rivals {
    most: f64,
    picture: usize,
    second: f64,
}

impl Rivals {
    fn of(pictures: &[usize], values: impl Iterator<Item = Option<f64>>) -> Rivals {
        let mut rivals = Rivals {
            most: 0.0,
            picture: usize::MAX,
            second: 0.0,
        };
        for (&picture, value) in pictures.iter().zip(values) {
            let Some(value) = value else { continue };
            if picture == rivals.picture {
                rivals.most = rivals.most.max(value);
            } else if value > rivals.most {
                (rivals.second, rivals.most, rivals.picture) = (rivals.most, value, picture);
            } else {
                rivals.second = rivals.second.max(value);
            }
        }
        rivals
    }

    /// The most of any picture but this one.
    fn against(&self, picture: usize) -> f64 {
        if picture == self.picture {
            self.second
        } else {
            self.most
        }
    }
}

/// A neighbour's sketch, and what the query has in common with it.
struct Compared {
    sketch: Sketch,
    evidence: Evidence,
}

/// Which picture each neighbour is: references that are shown and the same picture registered again have one number.
fn pictures(compared: &[Option<Compared>]) -> Result<Vec<usize>, (usize, SketchError)> {
    let mut numbers: Vec<usize> = (0..compared.len()).collect();
    let mut shown: Vec<(usize, &Compared)> = compared
        .iter()
        .enumerate()
        .filter_map(|(at, one)| Some((at, one.as_ref().filter(|one| one.evidence.is_shown())?)))
        .collect();
    shown.sort_by(|(_, a), (_, b)| b.evidence.agreement().total_cmp(&a.evidence.agreement()));
    let mut known: Vec<(usize, &Compared)> = Vec::new();
    for (at, one) in shown {
        let mut found = None;
        for (first, other) in &known {
            interrupts::process();
            if one.sketch.is_same_picture(&other.sketch).map_err(|error| (at, error))? {
                found = Some(*first);
                break;
            }
        }
        match found {
            Some(first) => numbers[at] = first,
            None if known.len() < MOST_SHOWN => known.push((at, one)),
            None => {}
        }
    }
    Ok(numbers)
}

fn damaged(set: &ReferenceSet, neighbour: &Neighbour, error: SketchError) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        format!("reference {} of set \"{}\": {error}", neighbour.reference, set.name),
    )
    .hint("Set its sketch to NULL and CALL copy_fill_set, or search with verify => 'off'.")
}

fn compare(
    set: &ReferenceSet,
    plan: &Plan,
    neighbours: &[Neighbour],
    query: &Query,
) -> Result<Vec<Option<Compared>>, Failure> {
    let mut compared: Vec<Option<Compared>> = neighbours.iter().map(|_| None).collect();
    let mut plain = false;
    for (at, neighbour) in neighbours.iter().enumerate().take(plan.compared) {
        if plain && at >= plan.least {
            break;
        }
        interrupts::process();
        let Some(bytes) = &neighbour.sketch else { continue };
        let sketch = match Sketch::parse(bytes) {
            Ok(sketch) => sketch,
            // Of another version of the library: not verified, rather than wrongly.
            Err(SketchError::Format(_)) => continue,
            Err(error) => return Err(damaged(set, neighbour, error)),
        };
        let evidence = query.compare(&sketch).map_err(|error| damaged(set, neighbour, error))?;
        plain |= evidence.inliers >= PLAIN_INLIERS
            && evidence.agreement() >= PLAIN_AGREEMENT
            && evidence.agreed >= PLAIN_CELLS;
        compared[at] = Some(Compared { sketch, evidence });
    }
    Ok(compared)
}
