//! A whole search in one set: background, nearest references, stretching, verification, verdicts, negative sets.

use std::cmp::Ordering;
use std::collections::HashSet;

use keypoints::Evidence;
use pgrx::prelude::*;
use scoring::Verdict;

use super::neighbours::nearest;
use super::set_cache::{remember, remember_sets};
use super::sets::ReferenceSet;
use super::sought::Sought;
use super::verification::{judge, plan};
use super::verify::Verify;
use crate::embed::catalogue::Model;
use crate::embed::with_background;
use crate::failure::Failure;
use crate::own_schema::OwnSchema;

/// A reference that a query resembles, and how much.
#[derive(Clone, Debug)]
pub struct Match {
    /// Name of its set.
    pub set: String,
    /// Its key, as text.
    pub reference: String,
    /// Cosine similarity, −1 to 1.
    pub similarity: f64,
    /// Mean similarity of the query to the background.
    pub background: f64,
    /// Comparable across queries: the stretched similarity, or, where the set was verified, the probability's log-odds.
    pub score: f64,
    /// Probability of being a copy.
    pub probability: f64,
    /// What that means under the set's thresholds.
    pub verdict: Verdict,
    /// Why a match is not raised: the negative reference that explains it.
    pub explanation: Option<String>,
    /// What the two pictures have in common; None: not compared.
    pub evidence: Option<Evidence>,
    /// Whether that by itself shows the reference.
    pub shown: bool,
}

/// Best first. Within one set and view this is the order of the cosine where nothing was compared.
pub(super) fn best_first(a: &Match, b: &Match) -> Ordering {
    b.score.total_cmp(&a.score)
}

/// The `k` best references of `set` for a descriptor by the set's model and the picture that it was made from (None:
/// for the descriptor alone), best first, with the current user's rights on the references. What `copy_match` returns
/// for the set, without the way through SQL.
pub fn search(
    own_schema: &OwnSchema,
    descriptor: &[f32],
    picture: Option<&[u8]>,
    set: &ReferenceSet,
    k: usize,
) -> Result<Vec<Match>, Failure> {
    let mut sought = Sought::descriptor(descriptor, vec![set.model.clone()], picture);
    match_set(set, own_schema, k, None, &mut sought)
}

/// The matches in one set, best first, explained by its negative sets.
pub(super) fn match_set(
    set: &ReferenceSet,
    own_schema: &OwnSchema,
    k: usize,
    verify: Option<Verify>,
    sought: &mut Sought,
) -> Result<Vec<Match>, Failure> {
    let model = model_of(set)?;
    let Some(views) = sought.descriptors(&model)? else {
        return Ok(Vec::new());
    };
    let mut matches = best_of_views(set, &model, own_schema, &views, k, verify, sought)?;
    if matches.iter().any(|m| m.verdict != Verdict::Different) {
        explain(set, own_schema, &mut matches, verify, sought)?;
    }
    Ok(matches)
}

pub(super) fn model_of(set: &ReferenceSet) -> Result<Model, Failure> {
    remember(|last| &mut last.models, Some(&set.name), || set.model())
}

pub(super) fn background_similarity(model: &Model, descriptor: &[f32], neighbours: usize) -> Result<f64, Failure> {
    with_background(model, |background| {
        background
            .mean_top_k(descriptor, neighbours)
            .map(f64::from)
            .map_err(|error| {
                Failure::new(
                    PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                    format!("background descriptors of model \"{}\": {error}", model.name),
                )
            })
    })
}

/// The best matches of all views, `k` of each, each reference with its best one.
fn best_of_views(
    set: &ReferenceSet,
    model: &Model,
    own_schema: &OwnSchema,
    views: &[Vec<f32>],
    k: usize,
    verify: Option<Verify>,
    sought: &mut Sought,
) -> Result<Vec<Match>, Failure> {
    let mut found = Vec::new();
    for view in views {
        let mut of_view = match_in(set, model, own_schema, view, k, verify, sought)?;
        of_view.sort_by(best_first);
        of_view.truncate(k);
        found.append(&mut of_view);
    }
    if views.len() > 1 {
        found.sort_by(best_first);
        let mut seen = HashSet::new();
        found.retain(|m| seen.insert(m.reference.clone()));
    }
    Ok(found)
}

/// A match that is no likelier a copy than the query is one of a negative reference is explained by
/// that one, and not raised.
fn explain(
    set: &ReferenceSet,
    own_schema: &OwnSchema,
    matches: &mut [Match],
    verify: Option<Verify>,
    sought: &mut Sought,
) -> Result<(), Failure> {
    let negatives = remember_sets(
        |last| &mut last.negatives,
        Some(&set.name),
        || set.negatives(own_schema),
    )?;
    for negative in negatives {
        let model = model_of(&negative)?;
        let Some(views) = sought.descriptors(&model)? else {
            continue;
        };
        let nearest = best_of_views(&negative, &model, own_schema, &views, 1, verify, sought)?;
        let Some(nearest) = nearest.first().filter(|m| m.verdict == Verdict::Copy) else {
            continue;
        };
        for m in matches.iter_mut() {
            if m.verdict != Verdict::Different && nearest.probability >= m.probability {
                m.verdict = Verdict::Different;
                m.explanation = Some(format!(
                    "copy of reference {} of negative set \"{}\" (probability {:.3})",
                    nearest.reference, nearest.set, nearest.probability
                ));
            }
        }
    }
    Ok(())
}

/// The nearest references of one view, judged.
fn match_in(
    set: &ReferenceSet,
    model: &Model,
    own_schema: &OwnSchema,
    descriptor: &[f32],
    k: usize,
    verify: Option<Verify>,
    sought: &mut Sought,
) -> Result<Vec<Match>, Failure> {
    let neighbours = set.calibration.neighbours();
    let background = match sought.background(model, neighbours) {
        Some(known) => known,
        None => background_similarity(model, descriptor, neighbours)?,
    };
    let plan = plan(set, verify, sought.has_picture(), k);
    let neighbours = nearest(set, model, own_schema, descriptor, &plan, sought)?;
    let query = match plan.compared > 0 && neighbours.iter().any(|one| one.sketch.is_some()) {
        true => sought.features(model)?,
        false => None,
    };
    let judged = judge(set, &plan, background, &neighbours, query)?;
    Ok(neighbours
        .into_iter()
        .zip(judged)
        .map(|(neighbour, judged)| Match {
            set: set.name.clone(),
            reference: neighbour.reference,
            similarity: neighbour.similarity,
            background,
            score: judged.score,
            probability: judged.probability,
            verdict: judged.verdict,
            explanation: None,
            evidence: judged.evidence,
            shown: judged.shown,
        })
        .collect())
}
