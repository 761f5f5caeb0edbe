//! `copy_match` and its relatives.

use pgrx::IntoDatum;
use pgrx::prelude::*;

use super::neighbours::nearest;
use super::sets::ReferenceSet;
use crate::embed::catalogue::Model;
use crate::embed::{embed_one, with_background};
use crate::failure::{Failure, boundary};
use crate::home::Home;
use crate::record::Record;
use crate::types::Vector;

/// Background neighbours that `copy_background` averages: the paper's five.
const PAPER_NEIGHBOURS: usize = 5;

/// Most neighbours that one call returns.
const MOST_NEIGHBOURS: i32 = 10_000;

/// One row of `copy_match`.
type Found = (String, String, i32, f64, f64, f64, f64, &'static str);

struct Match {
    set: String,
    reference: String,
    similarity: f64,
    background: f64,
    score: f64,
    probability: f64,
    verdict: &'static str,
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn copy_match(
    image: Option<&[u8]>,
    reference_set: Option<&str>,
    k: Option<i32>,
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
    ),
> {
    boundary(|| {
        let Some(image) = image else {
            return Ok(TableIterator::empty());
        };
        let k = neighbours_wanted(k)?;
        let home = Home::of(fcinfo)?;
        let mut embedded: Vec<(Model, Vec<f32>)> = Vec::new();
        let mut found = Vec::new();
        for set in sets(reference_set)? {
            let model = set.model()?;
            let at = match embedded.iter().position(|(known, _)| known.name == model.name) {
                Some(at) => at,
                None => {
                    let descriptor = embed_one(image, &model)?;
                    embedded.push((model, descriptor));
                    embedded.len() - 1
                }
            };
            let (model, descriptor) = &embedded[at];
            match_in(&set, model, &home, descriptor, k, &mut found)?;
        }
        Ok(ranked(found, k))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn copy_match_descriptor(
    descriptor: Option<Vector>,
    reference_set: Option<&str>,
    k: Option<i32>,
    model: Option<&str>,
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
    ),
> {
    boundary(|| {
        let Some(descriptor) = descriptor else {
            return Ok(TableIterator::empty());
        };
        let k = neighbours_wanted(k)?;
        let home = Home::of(fcinfo)?;
        let mut found = Vec::new();
        let made_by = model.map(|name| Model::find(Some(name))).transpose()?;
        for set in sets(reference_set)? {
            if let Some(made_by) = &made_by
                && made_by.name != set.model
            {
                // Without a named set, those of other models are not meant.
                if reference_set.is_none() {
                    continue;
                }
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    format!(
                        "the descriptor is from model \"{}\", those of reference set \"{}\" are from \"{}\"",
                        made_by.name, set.name, set.model
                    ),
                )
                .hint(format!("Embed the image again: copy_embed(image, '{}').", set.model)));
            }
            let model = set.model()?;
            let unit = unit(descriptor.elements(), &model)?;
            match_in(&set, &model, &home, &unit, k, &mut found)?;
        }
        Ok(ranked(found, k))
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
        let calibration = ReferenceSet::find(reference_set)?.calibration;
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

fn neighbours_wanted(k: Option<i32>) -> Result<usize, Failure> {
    match k {
        Some(k) if (1..=MOST_NEIGHBOURS).contains(&k) => Ok(usize::try_from(k).unwrap_or(1)),
        _ => Err(Failure::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("k is {}", k.map_or("NULL".to_owned(), |k| k.to_string())),
        )
        .hint(format!(
            "k is the number of references to return, 1 to {MOST_NEIGHBOURS}."
        ))),
    }
}

fn sets(reference_set: Option<&str>) -> Result<Vec<ReferenceSet>, Failure> {
    match reference_set {
        Some(name) => Ok(vec![ReferenceSet::find(name)?]),
        None => ReferenceSet::readable(),
    }
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
            verdict: set.calibration.verdict(probability).name(),
        });
    }
    Ok(())
}

/// Best first over all sets; within one set this is the order of the cosine.
fn ranked(mut found: Vec<Match>, k: usize) -> TableIterator<'static, Found> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(k);
    TableIterator::new(found.into_iter().zip(1..).map(|(m, rank)| {
        (
            m.set,
            m.reference,
            rank,
            m.similarity,
            m.background,
            m.score,
            m.probability,
            m.verdict,
        )
    }))
}
