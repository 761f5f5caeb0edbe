//! The nearest references of a descriptor: plain SQL with the caller's rights, so that privileges, row-level security, views,
//! partitions, foreign tables and whatever index the planner chooses all hold.

use pgrx::spi::quote_identifier;

use super::sets::ReferenceSet;
use super::shards::{each_nearest, shards};
use super::status::Searching;
use super::verification::Plan;
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
    /// Its descriptor, where the plan compares it.
    pub descriptor: Option<Vec<f32>>,
    /// Its sketch, where the plan compares it and there is one.
    pub sketch: Option<Vec<u8>>,
}

/// As many references of `set` as the plan says, nearest to the unit vector `descriptor`, nearest first, without those that its
/// filter or their status leaves out, and without those of the keys `left_out`. What verification compares comes with the same statement: the same snapshot, the same rights.
pub fn nearest(
    set: &ReferenceSet,
    home: &Home,
    descriptor: &[f32],
    plan: &Plan,
    left_out: &[String],
) -> Result<Vec<Neighbour>, Failure> {
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
    let sketch = set.sketch.as_ref().filter(|_| plan.compared > 0);
    let more = sketch.map_or(String::new(), |sketch| {
        format!(", r.{column}::{schema}.vector, r.{sketch}")
    });
    // The number of rows stands in the text: the planner then knows how few are wanted. The relation's OID does so that a kept plan is
    // never one of another relation that had the name.
    let limit = plan.neighbours + left_out.len();
    let distance = format!("r.{column} OPERATOR({schema}.<=>) $1");
    let source = match shards(set)? {
        None => format!("{relation} AS r /* {oid} */ {condition}"),
        Some(parts) => {
            // Plain columns, from which the key and the distance are made here: a part that computes more is not read asynchronously.
            let columns = set
                .columns
                .iter()
                .map(|column| format!("r.{}", quote_identifier(column)));
            let columns = columns
                .chain(sketch.map(|sketch| format!("r.{sketch}")))
                .collect::<Vec<_>>()
                .join(", ");
            let parts = each_nearest(&parts, &columns, condition, &distance, limit);
            format!("({parts}) AS r /* {oid} */")
        }
    };
    let sql =
        format!("SELECT {key}, ({distance})::pg_catalog.float8{more} FROM {source} ORDER BY {distance} LIMIT {limit}");
    let _searching = Searching::begin(*id);
    let mut taken = 0;
    let rows = select_qualified(
        &sql,
        &[Parameter::typed(Vector::from_elements(descriptor), home.vector)],
        |row| {
            // A reference without a descriptor, or with one that has no direction, resembles nothing.
            let Some(distance) = row.get::<f64>(2)?.filter(|distance| !distance.is_nan()) else {
                return Ok(None);
            };
            let reference = row.get::<String>(1)?.unwrap_or_default();
            if left_out.contains(&reference) {
                return Ok(None);
            }
            // Of the others the sketch is not even fetched from where it is stored.
            let compared = sketch.is_some() && taken < plan.compared;
            taken += 1;
            Ok(Some(Neighbour {
                reference,
                similarity: 1.0 - distance,
                descriptor: match compared {
                    // Copied: the row's memory is SPI's.
                    true => row.get::<Vector>(3)?.map(|vector| vector.elements().to_vec()),
                    false => None,
                },
                sketch: match compared {
                    true => row.get::<Vec<u8>>(4)?,
                    false => None,
                },
            }))
        },
    )?;
    Ok(rows.into_iter().flatten().take(plan.neighbours).collect())
}
