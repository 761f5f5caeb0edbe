//! A whole search in one set: background, nearest references, stretching, verdicts, negative sets.

use std::collections::HashSet;

use pgrx::prelude::*;
use scoring::Verdict;

use super::neighbours::nearest;
use super::remembered::{remember, remember_sets};
use super::sets::ReferenceSet;
use crate::embed::catalogue::Model;
use crate::embed::with_background;
use crate::failure::Failure;
use crate::home::Home;

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
    /// Stretched similarity, comparable across queries.
    pub score: f64,
    /// Probability of being a copy.
    pub probability: f64,
    /// What that means under the set's thresholds.
    pub verdict: Verdict,
    /// Why a match is not raised: the negative reference that explains it.
    pub explanation: Option<String>,
}

/// The `k` references of `set` nearest to a descriptor by the set's model, best first, with the current user's rights on the
/// references. What `copy_match_descriptor` returns for the set, without the way through SQL.
pub fn search(home: &Home, descriptor: &[f32], set: &ReferenceSet, k: usize) -> Result<Vec<Match>, Failure> {
    let mut found = match_set(set, home, k, &mut |model| {
        // A negative set of another model cannot be asked: its descriptors are not this one's kind.
        if model.name != set.model {
            return Ok(None);
        }
        Ok(Some(vec![unit(descriptor, &model)?]))
    })?;
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(found)
}

/// The matches in one set, explained by its negative sets. `embed` gives the query's descriptors under a model, one for each view.
pub(super) fn match_set(
    set: &ReferenceSet,
    home: &Home,
    k: usize,
    embed: &mut impl FnMut(Model) -> Result<Option<Vec<Vec<f32>>>, Failure>,
) -> Result<Vec<Match>, Failure> {
    let model = model_of(set)?;
    let Some(views) = embed(model.clone())? else {
        return Ok(Vec::new());
    };
    let mut matches = best_of_views(set, &model, home, &views, k)?;
    if matches.iter().any(|m| m.verdict != Verdict::Different) {
        explain(set, home, &mut matches, embed)?;
    }
    Ok(matches)
}

fn model_of(set: &ReferenceSet) -> Result<Model, Failure> {
    remember(|last| &mut last.models, Some(&set.name), || set.model())
}

/// The descriptor scaled to unit length, after a check that it can be one of this model's.
pub(super) fn unit(elements: &[f32], model: &Model) -> Result<Vec<f32>, Failure> {
    if elements.len() != model.dimensions {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
            format!("expected {} dimensions, not {}", model.dimensions, elements.len()),
        )
        .hint(format!(
            "Descriptors of model \"{}\" have {} dimensions.",
            model.name, model.dimensions
        )));
    }
    let norm = elements
        .iter()
        .map(|x| f64::from(*x) * f64::from(*x))
        .sum::<f64>()
        .sqrt();
    if norm == 0.0 {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
            "the zero vector is no descriptor: it has no direction to compare",
        ));
    }
    Ok(elements.iter().map(|x| (f64::from(*x) / norm) as f32).collect())
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

/// The matches of every view, each reference with its best one.
fn best_of_views(
    set: &ReferenceSet,
    model: &Model,
    home: &Home,
    views: &[Vec<f32>],
    k: usize,
) -> Result<Vec<Match>, Failure> {
    let mut found = Vec::new();
    for view in views {
        match_in(set, model, home, view, k, &mut found)?;
    }
    if views.len() > 1 {
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut seen = HashSet::new();
        found.retain(|m| seen.insert(m.reference.clone()));
    }
    Ok(found)
}

/// A match that is no likelier a copy than the query is one of a negative reference is explained by that one, and not raised.
fn explain(
    set: &ReferenceSet,
    home: &Home,
    matches: &mut [Match],
    embed: &mut impl FnMut(Model) -> Result<Option<Vec<Vec<f32>>>, Failure>,
) -> Result<(), Failure> {
    let negatives = remember_sets(
        |last| &mut last.negatives,
        Some(&set.name),
        || set.negatives(home.vector),
    )?;
    for negative in negatives {
        let model = model_of(&negative)?;
        let Some(views) = embed(model.clone())? else { continue };
        let nearest = best_of_views(&negative, &model, home, &views, 1)?;
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

fn match_in(
    set: &ReferenceSet,
    model: &Model,
    home: &Home,
    descriptor: &[f32],
    k: usize,
    found: &mut Vec<Match>,
) -> Result<(), Failure> {
    let background = background_similarity(model, descriptor, set.calibration.neighbours())?;
    for neighbour in nearest(set, home, descriptor, k)? {
        let probability = set.calibration.probability(neighbour.similarity, background);
        found.push(Match {
            set: set.name.clone(),
            reference: neighbour.reference,
            similarity: neighbour.similarity,
            background,
            score: set.calibration.stretch(neighbour.similarity, background),
            probability,
            verdict: set.calibration.verdict(probability),
            explanation: None,
        });
    }
    Ok(())
}
