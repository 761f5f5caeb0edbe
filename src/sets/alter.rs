//! `copy_alter_set` and `copy_default_set`.

use pgrx::prelude::*;

use super::arguments::{invalid, null};
use super::create::try_search;
use super::owned::{OwnedSet, has_rights_of, is_superuser};
use crate::failure::{Failure, boundary};
use crate::matching::{Verify, filter, gate};
use crate::rights::as_extension_owner;
use crate::statements::{Parameter, change};

const RESETTABLE: [&str; 5] = ["filter", "k", "copy_probability", "review_probability", "negatives"];

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn copy_alter_set(
    name: Option<&str>,
    filter: Option<&str>,
    k: Option<i32>,
    copy_probability: Option<f64>,
    review_probability: Option<f64>,
    negative: Option<bool>,
    negatives: Option<Vec<Option<String>>>,
    on_bad_image: Option<&str>,
    reset: Option<Vec<Option<String>>>,
    trusted: Option<bool>,
    verify: Option<&str>,
) {
    boundary(|| {
        Verify::named(verify)?;
        let set = OwnedSet::of(name, pg_sys::AccessShareLock)?;
        let reset: Vec<String> = reset.unwrap_or_default().into_iter().flatten().collect();
        let unknown: Vec<&str> = reset
            .iter()
            .map(String::as_str)
            .filter(|name| !RESETTABLE.contains(name))
            .collect();
        if !unknown.is_empty() {
            return Err(invalid(format!("reset names {}", unknown.join(", ")))
                .hint("filter, k, copy_probability, review_probability and negatives have a default to go back to."));
        }
        let negatives = negatives
            .map(|names| {
                names
                    .into_iter()
                    .map(|name| name.ok_or_else(|| null("a name in negatives")))
                    .collect::<Result<Vec<String>, Failure>>()
            })
            .transpose()?;
        let ids = negatives.as_ref().map(|names| negative_sets(names)).transpose()?;
        let filter = filter
            .map(|text| {
                set.table()?;
                filter::check(set.relation, text)
            })
            .transpose()?;
        let again = |what: &str| reset.iter().any(|name| name == what);
        as_extension_owner(|| {
            change(
                "UPDATE copymatch.reference_set s SET \
                     filter = CASE WHEN $2 THEN NULL ELSE coalesce($3, s.filter) END, \
                     filter_beyond = CASE WHEN $2 THEN false WHEN $3 IS NULL THEN s.filter_beyond ELSE $4 END, \
                     k = CASE WHEN $5 THEN NULL ELSE coalesce($6, s.k) END, \
                     copy_probability = CASE WHEN $7 THEN NULL ELSE coalesce($8, s.copy_probability) END, \
                     review_probability = CASE WHEN $9 THEN NULL ELSE coalesce($10, s.review_probability) END, \
                     negative = coalesce($11, s.negative), \
                     negatives = CASE WHEN $12 THEN NULL ELSE coalesce($13, s.negatives) END, \
                     negative_ids = CASE WHEN $12 THEN NULL ELSE coalesce($14, s.negative_ids) END, \
                     on_bad_image = coalesce($15, s.on_bad_image), \
                     verify = coalesce($16, s.verify) \
                 WHERE s.id = $1",
                &[
                    Parameter::of(set.id),
                    Parameter::of(again("filter")),
                    Parameter::of(filter.as_ref().map(|filter| filter.text.as_str())),
                    Parameter::of(filter.as_ref().is_some_and(|filter| filter.beyond)),
                    Parameter::of(again("k")),
                    Parameter::of(k),
                    Parameter::of(again("copy_probability")),
                    Parameter::of(copy_probability),
                    Parameter::of(again("review_probability")),
                    Parameter::of(review_probability),
                    Parameter::of(negative),
                    Parameter::of(again("negatives")),
                    Parameter::of(negatives),
                    Parameter::of(ids),
                    Parameter::of(on_bad_image),
                    Parameter::of(verify),
                ],
                |_| Ok(()),
            )
        })?;
        if let Some(trusted) = trusted {
            trust(&set, trusted)?;
        }
        match &set.table {
            Some(table) => try_search(set.owner, table, set.id),
            None => Ok(()),
        }
    })
}

/// Whether searches of others, superusers too, may come to the set without naming it.
fn trust(set: &OwnedSet, trusted: bool) -> Result<(), Failure> {
    if !is_superuser() {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("only a superuser may declare reference set \"{}\" trusted", set.name),
        )
        .hint(
            "Whoever searches all sets, a group or an unnamed set would run code of the owner of the set's relation.",
        ));
    }
    set.table()?;
    as_extension_owner(|| {
        change(
            "UPDATE copymatch.reference_set s SET trusted_relation = CASE WHEN $2 THEN s.relation END, \
                 trusted_owner = CASE WHEN $2 THEN $3::pg_catalog.regrole END WHERE s.id = $1",
            &[Parameter::of(set.id), Parameter::of(trusted), Parameter::of(set.owner)],
            |_| Ok(()),
        )
    })?;
    Ok(())
}

/// The numbers of negative sets.
fn negative_sets(names: &[String]) -> Result<Vec<i64>, Failure> {
    names
        .iter()
        .map(|name| {
            change(
                "SELECT s.id FROM copymatch.reference_set s WHERE s.name = $1 AND s.negative",
                &[Parameter::of(name.as_str())],
                |row| row.required::<i64>(1),
            )?
            .into_iter()
            .next()
            .ok_or_else(|| {
                Failure::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                    format!("there is no negative reference set {name}"),
                )
                .hint("Make one with copy_create_set(…, negative => true).")
            })
        })
        .collect()
}

#[pg_extern(sql = false)]
fn copy_default_set(name: Option<&str>) {
    boundary(|| {
        let set = OwnedSet::any(name, pg_sys::AccessShareLock)?;
        let present = change(
            "SELECT s.relation::pg_catalog.oid FROM copymatch.reference_set s WHERE s.is_default AND s.id <> $1",
            &[Parameter::of(set.id)],
            |row| row.required::<pg_sys::Oid>(1),
        )?;
        // A default whose relation is gone is nobody's.
        let may_replace = present
            .into_iter()
            .all(|relation| gate::locked(relation).is_none_or(|relation| has_rights_of(relation.owner)));
        if set.table.is_none() || !has_rights_of(set.owner) || !may_replace {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!(
                    "must own the relations of the present default set and of \"{}\"",
                    set.name
                ),
            ));
        }
        as_extension_owner(|| {
            change(
                "UPDATE copymatch.reference_set s SET is_default = false WHERE s.is_default AND s.id <> $1",
                &[Parameter::of(set.id)],
                |_| Ok(()),
            )?;
            change(
                "UPDATE copymatch.reference_set s SET is_default = true WHERE s.id = $1 AND NOT s.is_default",
                &[Parameter::of(set.id)],
                |_| Ok(()),
            )
        })?;
        Ok(())
    })
}
