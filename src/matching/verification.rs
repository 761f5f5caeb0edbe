//! The second stage: the query compared with the sketches of its nearest references, and one probability from all that is known.

use imaging::Image;
use keypoints::{Evidence, Query, Sketch, SketchError};
use pgrx::prelude::*;
use scoring::{Calibration, Found, SAME_PICTURE, STANDING_NEIGHBOURS, Standing};

use super::neighbours::Neighbour;
use super::sets::ReferenceSet;
use crate::failure::{Failure, should_stop};
use crate::settings;

/// Inliers, agreement and cells from which nothing more needs to be compared.
const PLAIN_INLIERS: usize = 40;
const PLAIN_AGREEMENT: f64 = 0.85;
const PLAIN_CELLS: usize = 48;

/// `verify` of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Where the set has sketches and a calibration that weighs what is found; no more references than the answer needs once one is plainly shown.
    Auto,
    /// Descriptor and stretching alone.
    Off,
    /// Every one of the nearest references, whether the calibration weighs it or not.
    All,
}

impl Verify {
    /// The parameter's value; NULL: each set's own.
    pub fn named(name: Option<&str>) -> Result<Option<Verify>, Failure> {
        match name {
            None => Ok(None),
            Some("auto") => Ok(Some(Verify::Auto)),
            Some("off") => Ok(Some(Verify::Off)),
            Some("all") => Ok(Some(Verify::All)),
            Some(other) => Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("verify is \"{other}\""),
            )
            .hint("Choose auto (compare the pictures where the set has sketches), all (every one of the nearest), off, or NULL: the set's own.")),
        }
    }
}

/// A query's picture for the second stage; its features are computed when the first set needs them.
pub struct Picture<'a> {
    image: &'a Image,
    query: Option<Query>,
}

impl<'a> Picture<'a> {
    /// Of a decoded image.
    pub fn of(image: &'a Image) -> Self {
        Picture { image, query: None }
    }

    fn query(&mut self) -> Result<&Query, Failure> {
        if self.query.is_none() {
            self.query = Some(Query::of(self.image, &should_stop)?);
        }
        self.query
            .as_ref()
            .ok_or_else(|| Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "the query has no features"))
    }
}

/// What a search in a set looks at.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Neighbours that are fetched.
    pub neighbours: usize,
    /// Whether their descriptors are, too.
    pub descriptors: bool,
    /// Whether their sketches are, too.
    pub sketches: bool,
    /// Of those, how many are compared at most.
    most: usize,
    /// And how many at least.
    least: usize,
}

/// What to fetch for `k` answers from a set. `pictured`: whether there is a query picture to compare.
pub fn plan(set: &ReferenceSet, verify: Option<Verify>, pictured: bool, k: usize) -> Plan {
    let verify = verify.unwrap_or(set.verify);
    let sketches = pictured
        && set.sketch.is_some()
        && match verify {
            Verify::Off => false,
            Verify::Auto => set.calibration.weighs_evidence(),
            Verify::All => true,
        };
    let descriptors = set.calibration.weighs_standing();
    let most = if sketches { settings::verify_nearest().max(k) } else { 0 };
    let standing = if descriptors { STANDING_NEIGHBOURS } else { 0 };
    Plan {
        neighbours: k.max(standing).max(most),
        descriptors,
        sketches,
        most,
        least: if verify == Verify::All { most } else { k },
    }
}

/// What a neighbour is judged to be.
pub struct Judgement {
    /// Of being a copy.
    pub probability: f64,
    /// Comparable between queries: stretched where the pictures were not compared in this set, else the probability's log-odds.
    pub score: f64,
    /// What the pictures have in common; `None`: not compared.
    pub evidence: Option<Evidence>,
}

/// Judges the neighbours of a query, nearest first.
pub fn judge(
    set: &ReferenceSet,
    plan: &Plan,
    background: f64,
    neighbours: &[Neighbour],
    picture: Option<&mut Picture>,
) -> Result<Vec<Judgement>, Failure> {
    let compared = match picture {
        Some(picture) if plan.sketches => compare_all(set, plan, neighbours, picture.query()?)?,
        _ => neighbours.iter().map(|_| None).collect(),
    };
    let calibration = &set.calibration;
    let similarities: Vec<f64> = neighbours.iter().map(|one| one.similarity).collect();
    let weighs = plan.sketches && calibration.weighs_evidence();
    let mut judged = Vec::with_capacity(neighbours.len());
    for (at, neighbour) in neighbours.iter().enumerate() {
        // Registered more than once, a picture is no rival of itself.
        let same: Vec<bool> = (0..neighbours.len())
            .map(|other| other != at && is_same(neighbours, &compared, at, other))
            .collect();
        let standing = calibration
            .weighs_standing()
            .then(|| Standing::of(&similarities, at, |other| same[other]));
        let found = compared[at].as_ref().filter(|_| weighs).map(|one| {
            let others = || {
                let all = compared.iter().enumerate();
                all.filter(|&(other, _)| other != at && !same[other])
                    .filter_map(|(_, other)| other.as_ref().map(|other| weighed(&other.evidence)))
            };
            let (inliers, content) = weighed(&one.evidence);
            Found {
                inliers,
                content,
                other_inliers: others().map(|one| one.0).fold(0.0, f64::max),
                other_content: others().map(|one| one.1).fold(0.0, f64::max),
            }
        });
        let probability = calibration.probability_with(neighbour.similarity, background, standing, found);
        judged.push(Judgement {
            probability,
            score: if weighs {
                Calibration::evidence_score(probability)
            } else {
                calibration.stretch(neighbour.similarity, background)
            },
            evidence: compared[at].as_ref().map(|one| one.evidence),
        });
    }
    Ok(judged)
}

/// Whether two neighbours are one picture: by their sketches where the query was compared with both, else by their descriptors, which
/// must then be all but equal, since those of two receipts are nearly so.
fn is_same(neighbours: &[Neighbour], compared: &[Option<Compared>], one: usize, other: usize) -> bool {
    match (&compared[one], &compared[other]) {
        (Some(a), Some(b)) => {
            a.evidence.is_shown() && b.evidence.is_shown() && a.sketch.is_same_picture(&b.sketch).unwrap_or(false)
        }
        _ => likeness(&neighbours[one], &neighbours[other]) >= SAME_PICTURE as f32,
    }
}

/// The evidence as the calibration takes it.
fn weighed(evidence: &Evidence) -> (f64, f64) {
    let logarithm = |count: usize| (1.0 + count as f64).ln();
    (
        logarithm(evidence.inliers),
        evidence.agreement() * logarithm(evidence.agreed),
    )
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

/// A neighbour's sketch, and what the query has in common with it.
struct Compared {
    sketch: Sketch,
    evidence: Evidence,
}

fn compare_all(
    set: &ReferenceSet,
    plan: &Plan,
    neighbours: &[Neighbour],
    query: &Query,
) -> Result<Vec<Option<Compared>>, Failure> {
    let mut compared: Vec<Option<Compared>> = neighbours.iter().map(|_| None).collect();
    let mut plain = false;
    for (at, neighbour) in neighbours.iter().enumerate().take(plan.most) {
        if plain && at >= plan.least {
            break;
        }
        pgrx::check_for_interrupts!();
        let Some(bytes) = &neighbour.sketch else { continue };
        let damaged = |error: SketchError| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                format!("reference {} of set \"{}\": {error}", neighbour.reference, set.name),
            )
            .hint("Set its sketch to NULL and CALL copy_fill_set, or search with verify => 'off'.")
        };
        let sketch = match Sketch::parse(bytes) {
            Ok(sketch) => sketch,
            // Of another version of the library: not verified, rather than wrongly.
            Err(SketchError::Format(_)) => continue,
            Err(error) => return Err(damaged(error)),
        };
        let found = query.compare(&sketch).map_err(damaged)?;
        plain |= found.inliers >= PLAIN_INLIERS && found.agreement() >= PLAIN_AGREEMENT && found.agreed >= PLAIN_CELLS;
        compared[at] = Some(Compared {
            sketch,
            evidence: found,
        });
    }
    Ok(compared)
}
