//! `copy_match` and its relatives.

use keypoints::Evidence;
use pgrx::prelude::*;
use pgrx::{IntoDatum, JsonB};
use scoring::Verdict;
use serde_json::json;

use super::search::{Match, background_similarity, best_first, match_set};
use super::set_cache::remember_sets;
use super::sets::ReferenceSet;
use super::sought::{Sought, unit};
use super::verify::Verify;
use super::views::Views;
use crate::embed::catalogue::Model;
use crate::failure::{Failure, boundary};
use crate::own_schema::OwnSchema;
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

/// One row of `copy_match_descriptor`.
type Found = (String, String, i32, f64, f64, f64, f64, &'static str, Option<String>);

/// One row of `copy_match`: what verification found stands behind.
type Verified = (
    String,
    String,
    i32,
    f64,
    f64,
    f64,
    f64,
    &'static str,
    Option<String>,
    Option<bool>,
    Option<i32>,
    Option<f64>,
    Option<JsonB>,
);

/// Which of the matches, best first, are wanted.
pub(super) struct Page {
    /// Rows; where the call names no number, each set's own.
    k: Option<usize>,
    skip: usize,
    /// Those below are left out.
    least: Verdict,
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, clippy::too_many_arguments)]
fn copy_match_image(
    image: Option<&[u8]>,
    reference_set: Option<&str>,
    k: Option<i32>,
    skip: Option<i32>,
    views: Option<&str>,
    verify: Option<&str>,
    min_verdict: Option<&str>,
    partial: Option<bool>,
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
        name!(verified, Option<bool>),
        name!(inliers, Option<i32>),
        name!(agreement, Option<f64>),
        name!(region, Option<JsonB>),
    ),
> {
    boundary(|| {
        let page = Page::of(k, skip)?.at_least(min_verdict)?;
        let views = Views::named(views)?;
        let verify = Verify::named(verify)?;
        let Some(image) = image else {
            return Ok(TableIterator::empty());
        };
        let own_schema = OwnSchema::of(fcinfo)?;
        let mut sought = Sought::picture(image, views);
        sought.partial = partial.unwrap_or(false);
        let found = search(
            &sets(reference_set, &own_schema)?,
            &own_schema,
            &page,
            verify,
            &mut sought,
        )?;
        Ok(TableIterator::new(found.into_iter().map(with_evidence)))
    })
}

/// As `copy_match`, for a descriptor that is there already and the picture that it was made from.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, clippy::too_many_arguments)]
fn match_described(
    descriptor: Option<Vector>,
    image: Option<&[u8]>,
    reference_set: Option<&str>,
    k: Option<i32>,
    verify: Option<&str>,
    min_verdict: Option<&str>,
    model: Option<&str>,
    without: Option<Vec<Option<String>>>,
    partial: Option<bool>,
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
        name!(verified, Option<bool>),
        name!(inliers, Option<i32>),
        name!(agreement, Option<f64>),
        name!(region, Option<JsonB>),
    ),
> {
    boundary(|| {
        let page = Page::of(k, Some(0))?.at_least(min_verdict)?;
        let verify = Verify::named(verify)?;
        let Some(descriptor) = descriptor else {
            return Ok(TableIterator::empty());
        };
        let own_schema = OwnSchema::of_type()?;
        let wanted = of_model(sets(reference_set, &own_schema)?, model, reference_set)?;
        let models = wanted.iter().map(|set| set.model.clone()).collect();
        let without = without.unwrap_or_default().into_iter().flatten().collect();
        let mut sought = Sought::descriptor(descriptor.elements(), models, image).without(without);
        sought.partial = partial.unwrap_or(false);
        let found = search(&wanted, &own_schema, &page, verify, &mut sought)?;
        Ok(TableIterator::new(found.into_iter().map(with_evidence)))
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
    partial: Option<bool>,
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
        let own_schema = OwnSchema::of(fcinfo)?;
        let wanted = of_model(sets(reference_set, &own_schema)?, model, reference_set)?;
        let models = wanted.iter().map(|set| set.model.clone()).collect();
        let mut sought = Sought::descriptor(descriptor.elements(), models, None);
        sought.partial = partial.unwrap_or(false);
        let found = search(&wanted, &own_schema, &page, Some(Verify::Off), &mut sought)?;
        Ok(TableIterator::new(found.into_iter().map(without_evidence)))
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
        let calibration = match sets(Some(reference_set), &OwnSchema::of(fcinfo)?)?.as_slice() {
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
    pub fn of(k: Option<i32>, skip: Option<i32>) -> Result<Page, Failure> {
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
                "k is the number of references to return, 1 to {MOST_NEIGHBOURS}; NULL: the set's own, or \
                 {DEFAULT_NEIGHBOURS}."
            );
            return Err(out_of_range("k", k, &meaning));
        }
        match skip {
            Some(skip) if (0..=MOST_SKIPPED).contains(&skip) => Ok(Page {
                k: k.map(|k| usize::try_from(k).unwrap_or(1)),
                skip: usize::try_from(skip).unwrap_or(0),
                least: Verdict::Different,
            }),
            _ => Err(out_of_range(
                "skip",
                skip,
                &format!("skip is the number of references to leave out, best first, 0 to {MOST_SKIPPED}."),
            )),
        }
    }

    /// The page without what has a lesser verdict.
    pub fn at_least(mut self, min_verdict: Option<&str>) -> Result<Page, Failure> {
        self.least = match min_verdict {
            None | Some("different") => Verdict::Different,
            Some("review") => Verdict::Review,
            Some("copy") => Verdict::Copy,
            Some(other) => {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("min_verdict is \"{other}\""),
                )
                .hint("Choose copy, review, or different (NULL): all."));
            }
        };
        Ok(self)
    }

    /// Rows wanted from one set, those to be skipped left out.
    pub fn rows(&self, set: &ReferenceSet) -> usize {
        self.k
            .or_else(|| set.k.and_then(|k| usize::try_from(k).ok()))
            .unwrap_or(DEFAULT_NEIGHBOURS)
    }
}

/// The sets that are meant: the one of this name, or a group's members; or all that the caller may read.
pub(super) fn sets(reference_set: Option<&str>, own_schema: &OwnSchema) -> Result<Vec<ReferenceSet>, Failure> {
    remember_sets(
        |last| &mut last.sets,
        reference_set,
        || match reference_set {
            Some(name) => ReferenceSet::named(name),
            None => ReferenceSet::readable(own_schema),
        },
    )
}

/// The sets whose descriptors are of the model that made the query's, where one is named.
fn of_model(
    mut wanted: Vec<ReferenceSet>,
    model: Option<&str>,
    reference_set: Option<&str>,
) -> Result<Vec<ReferenceSet>, Failure> {
    let Some(made_by) = model.map(|name| Model::find(Some(name))).transpose()? else {
        return Ok(wanted);
    };
    // Without a named set, those of other models are not meant.
    if reference_set.is_some()
        && let Some(other) = wanted.iter().find(|set| set.model != made_by.name)
    {
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
    Ok(wanted)
}

/// The wanted page of the matches in all of `sets`, best first, with their ranks.
pub(super) fn search(
    sets: &[ReferenceSet],
    own_schema: &OwnSchema,
    page: &Page,
    verify: Option<Verify>,
    sought: &mut Sought,
) -> Result<Vec<(Match, i32)>, Failure> {
    let rows = sets.iter().map(|set| page.rows(set)).max().unwrap_or(0);
    let mut found = Vec::new();
    for set in sets {
        found.append(&mut match_set(
            set,
            own_schema,
            page.rows(set) + page.skip,
            verify,
            sought,
        )?);
    }
    Ok(ranked(found, page, rows))
}

/// Best first over all sets.
fn ranked(mut found: Vec<Match>, page: &Page, rows: usize) -> Vec<(Match, i32)> {
    // Scores of sets that were verified and of others are of two kinds; their probabilities are not.
    let verified = |m: &Match| m.evidence.is_some();
    if found.iter().any(verified) && found.windows(2).any(|two| two[0].set != two[1].set) {
        found.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(best_first(a, b)));
    } else {
        found.sort_by(best_first);
    }
    found
        .into_iter()
        .zip(1..)
        .skip(page.skip)
        .take(rows)
        .filter(|(m, _)| m.verdict >= page.least)
        .collect()
}

fn without_evidence((m, rank): (Match, i32)) -> Found {
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
}

fn with_evidence((m, rank): (Match, i32)) -> Verified {
    let evidence = m.evidence;
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
        evidence.map(|_| m.shown),
        evidence.and_then(|found| i32::try_from(found.inliers).ok()),
        evidence.map(|found| found.agreement()),
        evidence.and_then(|found| region(&found)),
    )
}

/// The boxes that show the same, as [left, top, width, height] in parts of each picture.
pub(super) fn region(found: &Evidence) -> Option<JsonB> {
    let rounded = |parts: [f64; 4]| parts.map(|part| (part * 1e4).round() / 1e4);
    let (image, reference) = (found.query_box?, found.reference_box?);
    Some(JsonB(json!({
        "image": rounded(image),
        "reference": rounded(reference),
        "mirrored": found.mirrored,
    })))
}
