//! `copy_match` and its relatives.

use pgrx::IntoDatum;
use pgrx::prelude::*;

use super::remembered::remember_sets;
use super::search::{Match, background_similarity, match_set, unit};
use super::sets::ReferenceSet;
use super::views::Views;
use crate::embed::catalogue::Model;
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
        search(&sets(reference_set, &home)?, &home, &page, |model| {
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
        let mut wanted = sets(reference_set, &home)?;
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
        let calibration = match sets(Some(reference_set), &Home::of(fcinfo)?)?.as_slice() {
            [only] => only.calibration.clone(),
            _ => ReferenceSet::typed(reference_set)?.calibration,
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

fn sets(reference_set: Option<&str>, home: &Home) -> Result<Vec<ReferenceSet>, Failure> {
    remember_sets(
        |last| &mut last.sets,
        reference_set,
        || match reference_set {
            Some(name) => ReferenceSet::named(name),
            None => ReferenceSet::readable(home.vector),
        },
    )
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
        found.append(&mut match_set(set, home, page.rows(set) + page.skip, &mut embed)?);
    }
    Ok(ranked(found, page.skip, rows))
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
