//! `copy_match` and its relatives.

use std::collections::HashSet;

use pgrx::IntoDatum;
use pgrx::prelude::*;
use scoring::Verdict;

use super::neighbours::nearest;
use super::remembered::remember;
use super::sets::ReferenceSet;
use super::views::Views;
use crate::embed::catalogue::Model;
use crate::embed::with_background;
use crate::failure::{Failure, boundary};
use crate::home::Home;
use crate::record::Record;
use crate::types::Vector;

/// Background neighbours that `copy_background` averages: the paper's five.
const PAPER_NEIGHBOURS: usize = 5;

/// Most neighbours that one call returns.
const MOST_NEIGHBOURS: i32 = 10_000;

/// Most neighbours that one call skips.
const MOST_SKIPPED: i32 = 100_000;

/// Neighbours where neither the call nor the set says how many.
const DEFAULT_NEIGHBOURS: usize = 10;

/// One row of `copy_match`.
type Found = (String, String, i32, f64, f64, f64, f64, &'static str, Option<String>);

struct Match {
    set: String,
    reference: String,
    similarity: f64,
    background: f64,
    score: f64,
    probability: f64,
    verdict: Verdict,
    explanation: Option<String>,
}

/// Which of the matches, best first, are wanted.
struct Page {
    /// Rows; where the call names no number, each set's own.
    k: Option<usize>,
    skip: usize,
}

/// A model, and the query's descriptors under it: one for each view.
struct Embedded {
    model: Model,
    views: Vec<Vec<f32>>,
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn copy_match(
    image: Option<&[u8]>,
    reference_set: Option<&str>,
    k: Option<i32>,
    skip: Option<i32>,
    views: Option<&str>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> TableIterator<
    'static,
    (
        name!(reference_set, String),
        name!(reference, String),
        name!(rank, i32),
        name!(similarity, f64),
        name!(background, f64),
        name!(score, f64),
        name!(probability, f64),
        name!(verdict, &'static str),
        name!(explanation, Option<String>),
    ),
> {
    boundary(|| {
        let page = Page::of(k, skip)?;
        let views = Views::named(views)?;
        let Some(image) = image else {
            return Ok(TableIterator::empty());
        };
        let home = Home::of(fcinfo)?;
        let mut embedded: Vec<Embedded> = Vec::new();
        search(&sets(reference_set)?, &home, &page, |model| {
            let at = match embedded.iter().position(|known| known.model.name == model.name) {
                Some(at) => at,
                None => {
                    let views = views.embed(image, &model)?;
                    embedded.push(Embedded { model, views });
                    embedded.len() - 1
                }
            };
            Ok(Some(embedded[at].views.clone()))
        })
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn copy_match_descriptor(
    descriptor: Option<Vector>,
    reference_set: Option<&str>,
    k: Option<i32>,
    model: Option<&str>,
    skip: Option<i32>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> TableIterator<
    'static,
    (
        name!(reference_set, String),
        name!(reference, String),
        name!(rank, i32),
        name!(similarity, f64),
        name!(background, f64),
        name!(score, f64),
        name!(probability, f64),
        name!(verdict, &'static str),
        name!(explanation, Option<String>),
    ),
> {
    boundary(|| {
        let page = Page::of(k, skip)?;
        let Some(descriptor) = descriptor else {
            return Ok(TableIterator::empty());
        };
        let home = Home::of(fcinfo)?;
        let made_by = model.map(|name| Model::find(Some(name))).transpose()?;
        let mut wanted = sets(reference_set)?;
        if let Some(made_by) = &made_by
            && let Some(other) = wanted.iter().find(|set| set.model != made_by.name)
        {
            // Without a named set, those of other models are not meant.
            if reference_set.is_some() {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    format!(
                        "the descriptor is from model \"{}\", those of reference set \"{}\" are from \"{}\"",
                        made_by.name, other.name, other.model
                    ),
                )
                .hint(format!("Embed the image again: copy_embed(image, '{}').", other.model)));
            }
            wanted.retain(|set| set.model == made_by.name);
        }
        let searched: Vec<String> = wanted.iter().map(|set| set.model.clone()).collect();
        search(&wanted, &home, &page, |model| {
            // A negative set of another model cannot be asked: its descriptors are not this one's kind.
            if !searched.contains(&model.name) {
                return Ok(None);
            }
            Ok(Some(vec![unit(descriptor.elements(), &model)?]))
        })
    })
}

#[pg_extern(sql = false)]
fn copy_background(descriptor: Option<Vector>, model: Option<&str>) -> Option<f64> {
    boundary(|| {
        let Some(descriptor) = descriptor else { return Ok(None) };
        let model = Model::find(model)?;
        let unit = unit(descriptor.elements(), &model)?;
        background_similarity(&model, &unit, PAPER_NEIGHBOURS).map(Some)
    })
}

#[pg_extern(sql = false)]
fn copy_stretch(similarity: f64, background: f64, reference_set: &str, fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        let calibration = match sets(Some(reference_set))?.as_slice() {
            [only] => only.calibration.clone(),
            _ => ReferenceSet::find(reference_set)?.calibration,
        };
        if !(-1.0..=1.0).contains(&similarity) || !(-1.0..=1.0).contains(&background) {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
                format!("similarity {similarity} and background {background} must lie between -1 and 1"),
            ));
        }
        let probability = calibration.probability(similarity, background);
        Record::form(
            fcinfo,
            vec![
                calibration.stretch(similarity, background).into_datum(),
                probability.into_datum(),
                calibration.verdict(probability).name().into_datum(),
            ],
        )
    })
}

impl Page {
    fn of(k: Option<i32>, skip: Option<i32>) -> Result<Page, Failure> {
        let out_of_range = |what: &str, found: Option<i32>, meaning: &str| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!(
                    "{what} is {}",
                    found.map_or("NULL".to_owned(), |number| number.to_string())
                ),
            )
            .hint(meaning)
        };
        if k.is_some_and(|k| !(1..=MOST_NEIGHBOURS).contains(&k)) {
            let meaning = format!(
                "k is the number of references to return, 1 to {MOST_NEIGHBOURS}; NULL: the set's own, or {DEFAULT_NEIGHBOURS}."
            );
            return Err(out_of_range("k", k, &meaning));
        }
        match skip {
            Some(skip) if (0..=MOST_SKIPPED).contains(&skip) => Ok(Page {
                k: k.map(|k| usize::try_from(k).unwrap_or(1)),
                skip: usize::try_from(skip).unwrap_or(0),
            }),
            _ => Err(out_of_range(
                "skip",
                skip,
                &format!("skip is the number of references to leave out, best first, 0 to {MOST_SKIPPED}."),
            )),
        }
    }

    /// Rows wanted from one set, those to be skipped left out.
    fn rows(&self, set: &ReferenceSet) -> usize {
        self.k
            .or_else(|| set.k.and_then(|k| usize::try_from(k).ok()))
            .unwrap_or(DEFAULT_NEIGHBOURS)
    }
}

fn sets(reference_set: Option<&str>) -> Result<Vec<ReferenceSet>, Failure> {
    remember(
        |last| &mut last.sets,
        reference_set,
        || match reference_set {
            Some(name) => ReferenceSet::named(name),
            None => ReferenceSet::readable(),
        },
    )
}

fn model_of(set: &ReferenceSet) -> Result<Model, Failure> {
    remember(|last| &mut last.models, Some(&set.name), || set.model())
}

/// The descriptor scaled to unit length, after a check that it can be one of this model's.
fn unit(elements: &[f32], model: &Model) -> Result<Vec<f32>, Failure> {
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

fn background_similarity(model: &Model, descriptor: &[f32], neighbours: usize) -> Result<f64, Failure> {
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

/// The wanted page of the matches in all of `sets`. `embed` gives the query's descriptors under a model, one for each view.
fn search(
    sets: &[ReferenceSet],
    home: &Home,
    page: &Page,
    mut embed: impl FnMut(Model) -> Result<Option<Vec<Vec<f32>>>, Failure>,
) -> Result<TableIterator<'static, Found>, Failure> {
    let rows = sets.iter().map(|set| page.rows(set)).max().unwrap_or(0);
    let mut found = Vec::new();
    for set in sets {
        let k = page.rows(set) + page.skip;
        let model = model_of(set)?;
        let Some(views) = embed(model.clone())? else { continue };
        let mut matches = best_of_views(set, &model, home, &views, k)?;
        if matches.iter().any(|m| m.verdict != Verdict::Different) {
            explain(set, home, &mut matches, &mut embed)?;
        }
        found.append(&mut matches);
    }
    Ok(ranked(found, page.skip, rows))
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
    let negatives = remember(|last| &mut last.negatives, Some(&set.name), || set.negatives())?;
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

/// Best first over all sets; within one set and view this is the order of the cosine.
fn ranked(mut found: Vec<Match>, skip: usize, rows: usize) -> TableIterator<'static, Found> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let page = found.into_iter().zip(1..).skip(skip).take(rows);
    TableIterator::new(page.map(|(m, rank)| {
        (
            m.set,
            m.reference,
            rank,
            m.similarity,
            m.background,
            m.score,
            m.probability,
            m.verdict.name(),
            m.explanation,
        )
    }))
}
