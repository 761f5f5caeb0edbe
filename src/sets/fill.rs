//! `copy_fill_set`: embeds in committed batches.

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use super::owned::{OwnedSet, count_by_owner, do_by_owner, invalid};
use crate::failure::{Failure, boundary};
use crate::select::{Parameter, change};

/// The UPDATE that embeds the images that have no descriptor, where `condition` (` AND …`, over the alias r) holds.
pub fn statement(
    table: &str,
    column: &str,
    image: &str,
    model: &str,
    key: &str,
    total: i64,
    condition: &str,
) -> String {
    format!(
        "UPDATE {table} AS r SET {column} = copymatch.embed_reference(r.{image}, {}, {key}, {total}::pg_catalog.int8) \
         WHERE r.{column} IS NULL AND r.{image} IS NOT NULL{condition}",
        quote_literal(model)
    )
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
        let set = OwnedSet::of(set, pg_sys::AccessShareLock)?;
        let (table, image) = (set.table()?, set.image()?);
        let column = quote_identifier(&set.descriptor);
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
                    &format!("SELECT pg_catalog.count(*) FROM {table} WHERE {image} IS NOT NULL AND {column} IS NULL"),
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
        do_by_owner(
            set.owner,
            &statement(part, &column, &image, &set.model, &set.key, place.waiting, &condition),
        )?;
        place.page = until;
        Ok(Some(place.text()))
    })
}
