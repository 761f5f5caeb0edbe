//! Partitions on other servers. PostgreSQL pushes ORDER BY to a foreign partition, but never a LIMIT that stands above its parent, and
//! reads partitions one after the other where their rows are merged. So a set over such a parent is asked part by part, each for its own
//! nearest references: every one a statement of its own to the planner, ordered and limited on the server where its rows lie, and all
//! at once where the servers are `async_capable`.

use std::rc::Rc;

use pgrx::prelude::*;

use super::remembered::remember;
use super::sets::ReferenceSet;
use crate::failure::Failure;
use crate::select::{Parameter, select};

/// A leaf of the partition tree, foreign or not.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Schema and name, quoted.
    name: String,
    oid: u32,
}

const LEAVES: &str = "\
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.oid, c.relkind = 'f', \
           pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
               AND NOT pg_catalog.row_security_active(c.oid) \
               AND pg_catalog.has_table_privilege($1, 'SELECT') AND NOT pg_catalog.row_security_active($1) \
    FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) t JOIN pg_catalog.pg_class c ON c.oid = t.relid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE t.isleaf ORDER BY c.oid";

/// The parts of a set's relation that are to be asked one by one. None where it is asked as a whole: it has no foreign partition, or
/// the current user may read it only through the parent, whose privileges and policies hold for it alone.
pub fn shards(set: &ReferenceSet) -> Result<Option<Rc<Vec<Shard>>>, Failure> {
    // SAFETY: a look-up in PostgreSQL's caches.
    let kind = unsafe { pg_sys::get_rel_relkind(set.oid) };
    if kind as u8 != pg_sys::RELKIND_PARTITIONED_TABLE {
        return Ok(None);
    }
    remember(
        |last| &mut last.shards,
        Some(&set.name),
        || {
            let leaves = select(LEAVES, &[Parameter::of(set.oid)], |row| {
                let shard = Shard {
                    name: row.required(1)?,
                    oid: u32::from(row.required::<pg_sys::Oid>(2)?),
                };
                Ok((shard, row.required::<bool>(3)?, row.required::<bool>(4)?))
            })?;
            let apart =
                leaves.iter().any(|&(_, foreign, _)| foreign) && leaves.iter().all(|&(_, _, readable)| readable);
            Ok(apart.then(|| Rc::new(leaves.into_iter().map(|(shard, ..)| shard).collect())))
        },
    )
}

/// What stands for the set's relation in a search of its `limit` nearest references: each part's own nearest, with these columns.
pub fn each_nearest(shards: &[Shard], columns: &str, condition: &str, order: &str, limit: usize) -> String {
    shards
        .iter()
        .map(|Shard { name, oid }| {
            format!("(SELECT {columns} FROM {name} AS r /* {oid} */ {condition} ORDER BY {order} LIMIT {limit})")
        })
        .collect::<Vec<_>>()
        .join(" UNION ALL ")
}
