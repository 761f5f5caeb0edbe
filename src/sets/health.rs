//! What `copy_doctor` looks at in a set: whether it can be searched, and whether its rows have descriptors.

use pgrx::IntoDatum;
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::owned::{OwnedSet, by_owner};
use crate::failure::{Failure, boundary};
use crate::matching::ReferenceSet;
use crate::matching::gate::current_user;
use crate::record::Record;
use crate::rights::as_role;
use crate::statements::{Parameter, select};

/// Rows that are looked at.
const SAMPLE: f64 = 10_000.0;

/// Rows that PostgreSQL believes a table and its partitions to have; where it was never counted, a guess by its size.
const ROWS: &str = "\
    SELECT coalesce(pg_catalog.sum(CASE WHEN c.reltuples >= 0 THEN c.reltuples \
                                   ELSE pg_catalog.pg_relation_size(c.oid) / 1000.0 END), 0)::pg_catalog.float8 \
    FROM pg_catalog.pg_class c \
    WHERE c.oid = $1 AND c.relkind <> 'p' \
          OR c.oid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) p WHERE p.isleaf)";

#[pg_extern(sql = false)]
fn set_health(name: &str, fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        let set = OwnedSet::any(Some(name), pg_sys::AccessShareLock)?;
        // Without a relation there is nobody's code to run.
        let owner = if set.table.is_some() { set.owner } else { current_user() };
        let trouble = as_role(owner, || ReferenceSet::typed(name)?.model())
            .err()
            .map(|failure| failure.line());
        let looked = match &trouble {
            None => sample(&set)?,
            Some(_) => None,
        };
        Record::form(
            fcinfo,
            vec![
                looked.map(|(rows, _)| rows).into_datum(),
                looked.map(|(_, missing)| missing).into_datum(),
                trouble.into_datum(),
            ],
        )
    })
}

/// Rows of a sample, and those among them that have an image and no descriptor; None where there is no table to sample.
fn sample(set: &OwnedSet) -> Result<Option<(i64, i64)>, Failure> {
    let (Some(image), Some(table)) = (&set.image, &set.table) else {
        return Ok(None);
    };
    if !matches!(set.kind.as_str(), "r" | "p" | "m") {
        return Ok(None);
    }
    let rows = select(ROWS, &[Parameter::of(set.relation)], |row| row.required::<f64>(1))?;
    let percent = (100.0 * SAMPLE / rows.first().copied().unwrap_or(0.0).max(1.0)).min(100.0);
    let (image, descriptor) = (quote_identifier(image), quote_identifier(&set.descriptor));
    let statement = format!(
        "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE r.{image} IS NOT NULL \
         AND r.{descriptor} IS NULL) \
         FROM {table} AS r TABLESAMPLE pg_catalog.system ({percent})"
    );
    let counts = by_owner(set.owner, &statement, &[], |row| {
        Ok((row.required::<i64>(1)?, row.required::<i64>(2)?))
    })?;
    Ok(counts.into_iter().next())
}
