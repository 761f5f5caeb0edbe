//! `copy_fill_set`: embeds in committed batches.

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use super::columns;
use super::owned::{OwnedSet, count_by_owner, do_by_owner, invalid};
use crate::failure::{Failure, boundary};
use crate::rights::as_extension_owner;
use crate::select::{Parameter, change};

/// The columns that are kept beside an image, quoted, and how.
pub struct Kept<'a> {
    pub image: String,
    pub descriptor: String,
    pub sketch: Option<String>,
    pub model: &'a str,
    /// The key as text, over the alias r.
    pub key: &'a str,
}

impl Kept<'_> {
    /// Which rows, over the alias r, have an image but not all that is kept of it.
    pub fn missing(&self) -> String {
        let Kept {
            image,
            descriptor,
            sketch,
            ..
        } = self;
        match sketch {
            None => format!("r.{image} IS NOT NULL AND r.{descriptor} IS NULL"),
            Some(sketch) => {
                format!("r.{image} IS NOT NULL AND (r.{descriptor} IS NULL OR r.{sketch} IS NULL)")
            }
        }
    }

    /// The UPDATE that makes what is missing, where `condition` (` AND …`, over the alias r) holds.
    pub fn statement(&self, table: &str, total: i64, condition: &str) -> String {
        let Kept {
            image, descriptor, key, ..
        } = self;
        let (model, missing) = (quote_literal(self.model), self.missing());
        match &self.sketch {
            None => format!(
                "UPDATE {table} AS r SET {descriptor} = \
                 copymatch.embed_reference(r.{image}, {model}, {key}, {total}::pg_catalog.int8) WHERE {missing}{condition}"
            ),
            Some(sketch) => format!(
                "UPDATE {table} AS r SET ({descriptor}, {sketch}) = \
                 (SELECT coalesce(r.{descriptor}, d.descriptor), coalesce(r.{sketch}, d.sketch) FROM copymatch.describe_reference(\
                  r.{image}, {model}, {key}, {total}::pg_catalog.int8, r.{descriptor} IS NULL, r.{sketch} IS NULL) AS d) \
                 WHERE {missing}{condition}"
            ),
        }
    }
}

/// Gives a set that is to be verified and has no sketches yet a column for them.
fn begin_sketches(set: &mut OwnedSet) -> Result<(), Failure> {
    if set.verify == "off" || set.sketch.is_some() || !set.is_table() {
        return Ok(());
    }
    let table = set.table()?.to_owned();
    let column = columns::sketch(
        set.owner,
        set.relation,
        &table,
        set.image.as_deref(),
        &set.descriptor,
        true,
    )?;
    as_extension_owner(|| {
        change(
            "UPDATE copymatch.reference_set s SET sketch_column = $2 WHERE s.id = $1 AND s.sketch_column IS NULL",
            &[Parameter::of(set.id), Parameter::of(column.as_deref())],
            |_| Ok(()),
        )
    })?;
    set.sketch = column;
    Ok(())
}

/// How far a fill is.
struct Place {
    part: u32,
    page: i64,
    /// Rows that the fill rewrites move behind this end; they have their descriptor already.
    end: i64,
    waiting: i64,
}

impl Place {
    fn parse(text: &str) -> Result<Place, Failure> {
        let numbers: Option<Vec<i64>> = text.split(' ').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[part, page, end, waiting]) if page >= 0 && end <= i64::from(u32::MAX) => Ok(Place {
                part: u32::try_from(part).map_err(|_| invalid("place is none"))?,
                page,
                end,
                waiting,
            }),
            _ => Err(invalid(format!(
                "\"{text}\" is no place that copymatch.fill_batch gave"
            ))),
        }
    }

    fn text(&self) -> String {
        format!("{} {} {} {}", self.part, self.page, self.end, self.waiting)
    }
}

#[pg_extern(sql = false)]
fn fill_batch(set: Option<&str>, place: Option<&str>, pages: Option<i32>) -> Option<String> {
    boundary(|| {
        let pages = pages.filter(|&pages| pages >= 1).ok_or_else(|| {
            invalid(format!(
                "batch_pages is {}",
                pages.map_or("NULL".to_owned(), |pages| pages.to_string())
            ))
            .hint("At least 1.")
        })?;
        let mut set = OwnedSet::of(set, pg_sys::AccessShareLock)?;
        if place.is_none() {
            set.image()?;
            begin_sketches(&mut set)?;
        }
        let (table, image) = (set.table()?, set.image()?);
        let kept = Kept {
            image,
            descriptor: quote_identifier(&set.descriptor),
            sketch: set.sketch.as_ref().map(quote_identifier),
            model: &set.model,
            key: &set.key,
        };
        // A table that is no partition tree is its own only leaf.
        let leaves = change(
            "SELECT u.leaf, u.name, pg_catalog.pg_relation_size(u.leaf::pg_catalog.regclass) / pg_catalog.current_setting('block_size')::pg_catalog.int8 \
             FROM (SELECT c.oid AS leaf, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name \
                   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE c.relkind = 'r' AND (c.oid = $1 OR c.oid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) p WHERE p.isleaf))) AS u \
             ORDER BY u.leaf",
            &[Parameter::of(set.relation)],
            |row| {
                Ok((
                    u32::from(row.required::<pg_sys::Oid>(1)?),
                    row.required::<String>(2)?,
                    row.required::<i64>(3)?,
                ))
            },
        )?;
        let mut place = match place {
            Some(text) => Place::parse(text)?,
            None => Place {
                part: 0,
                page: 0,
                end: 0,
                waiting: count_by_owner(
                    set.owner,
                    &format!("SELECT pg_catalog.count(*) FROM {table} AS r WHERE {}", kept.missing()),
                    &[],
                )?,
            },
        };
        if place.page >= place.end || !leaves.iter().any(|(leaf, ..)| *leaf == place.part) {
            let Some((leaf, _, end)) = leaves.iter().find(|(leaf, _, end)| *leaf > place.part && *end > 0) else {
                return Ok(None);
            };
            (place.part, place.page, place.end) = (*leaf, 0, *end);
        }
        let Some((_, part, _)) = leaves.iter().find(|(leaf, ..)| *leaf == place.part) else {
            return Ok(None);
        };
        let until = place.page + i64::from(pages);
        let condition = format!(
            " AND r.ctid OPERATOR(pg_catalog.>=) '({},0)'::pg_catalog.tid AND r.ctid OPERATOR(pg_catalog.<) '({},0)'::pg_catalog.tid",
            place.page,
            until.min(i64::from(u32::MAX) - 1)
        );
        do_by_owner(set.owner, &kept.statement(part, place.waiting, &condition))?;
        place.page = until;
        Ok(Some(place.text()))
    })
}
