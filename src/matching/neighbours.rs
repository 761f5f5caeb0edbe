//! The nearest references of a descriptor: plain SQL with the caller's rights, so that privileges, row-level security, views,
//! partitions, foreign tables and whatever index the planner chooses all hold.

use super::sets::ReferenceSet;
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
    /// Its descriptor, where it was asked for.
    pub descriptor: Option<Vec<f32>>,
    /// Its sketch, where it was asked for and there is one.
    pub sketch: Option<Vec<u8>>,
}

/// As many references of `set` as the plan says, nearest to the unit vector `descriptor`, nearest first, without those that its filter or their
/// status leaves out.
pub fn nearest(set: &ReferenceSet, home: &Home, descriptor: &[f32], plan: &Plan) -> Result<Vec<Neighbour>, Failure> {
    let ReferenceSet {
        relation,
        key,
        descriptor: column,
        condition,
        sketch,
        ..
    } = set;
    let schema = &home.schema;
    // The number stands in the text: the planner then knows how few rows are wanted.
    let limit = plan.neighbours;
    let more = [
        plan.descriptors.then(|| format!(", r.{column}")),
        sketch
            .as_ref()
            .filter(|_| plan.sketches)
            .map(|sketch| format!(", r.{sketch}")),
    ]
    .map(Option::unwrap_or_default)
    .concat();
    let sql = format!(
        "SELECT {key}, (r.{column} OPERATOR({schema}.<=>) $1)::pg_catalog.float8{more} \
         FROM {relation} AS r {condition} ORDER BY r.{column} OPERATOR({schema}.<=>) $1 LIMIT {limit}"
    );
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
                descriptor: match plan.descriptors {
                    // Copied while the row is there.
                    true => row.get::<Vector>(3)?.map(|vector| vector.elements().to_vec()),
                    false => None,
                },
                sketch: match plan.sketches {
                    true => row.get::<Vec<u8>>(3 + i32::from(plan.descriptors))?,
                    false => None,
                },
            }))
        },
    )?;
    let mut found: Vec<Neighbour> = rows.into_iter().flatten().collect();
    // An index scan in relaxed order brings some late.
    found.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
    Ok(found)
}
