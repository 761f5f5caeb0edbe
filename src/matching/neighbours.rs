//! The nearest references of a descriptor: plain SQL with the caller's rights, so that privileges, row-level security, views,
//! partitions, foreign tables and whatever index the planner chooses all hold.

use super::sets::ReferenceSet;
use super::status::Searching;
use crate::failure::Failure;
use crate::home::Home;
use crate::select::{Parameter, select_qualified};
use crate::types::Vector;

/// A reference and its cosine similarity to the query, −1 to 1.
pub struct Neighbour {
    /// The key, as text.
    pub reference: String,
    /// Cosine similarity.
    pub similarity: f64,
}

/// The `k` references of `set` nearest to the unit vector `descriptor`, nearest first, without those that its filter or their
/// status leaves out.
pub fn nearest(set: &ReferenceSet, home: &Home, descriptor: &[f32], k: usize) -> Result<Vec<Neighbour>, Failure> {
    let ReferenceSet {
        id,
        oid,
        relation,
        key,
        descriptor: column,
        condition,
        ..
    } = set;
    let schema = &home.schema;
    let oid = u32::from(*oid);
    // `k` stands in the text: the planner then knows how few rows are wanted. The relation's OID does so that a kept plan is never
    // one of another relation that had the name.
    let sql = format!(
        "SELECT {key}, (r.{column} OPERATOR({schema}.<=>) $1)::pg_catalog.float8 \
         FROM {relation} AS r /* {oid} */ {condition} ORDER BY r.{column} OPERATOR({schema}.<=>) $1 LIMIT {k}"
    );
    let _searching = Searching::begin(*id);
    let rows = select_qualified(
        &sql,
        &[Parameter::typed(Vector::from_elements(descriptor), home.vector)],
        |row| {
            // A reference without a descriptor, or with one that has no direction, resembles nothing.
            let Some(distance) = row.get::<f64>(2)?.filter(|distance| !distance.is_nan()) else {
                return Ok(None);
            };
            Ok(Some(Neighbour {
                reference: row.get::<String>(1)?.unwrap_or_default(),
                similarity: 1.0 - distance,
            }))
        },
    )?;
    Ok(rows.into_iter().flatten().collect())
}
