//! The nearest references of a descriptor: plain SQL with the caller's rights, so that privileges, row-level security,
//! views, partitions, foreign tables and whatever index the planner chooses all hold.

use pgrx::spi::quote_identifier;

use super::sets::ReferenceSet;
use super::sought::Sought;
use super::status::{Searching, in_use};
use super::verify::Plan;
use crate::embed::catalogue::Model;
use crate::failure::Failure;
use crate::ivf::announced::Asking;
use crate::own_schema::OwnSchema;
use crate::sharding;
use crate::sharding::citus;
use crate::sharding::parts::{Part, parts};
use crate::statements::{Parameter, select_qualified};
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

/// As many references of `set` as the plan says, nearest to the unit vector `descriptor`, nearest first, without those
/// that its filter or their status leaves out, and without those of the keys that it is searched without. What
/// verification compares comes with the same statement, or from the same snapshot: with the same rights.
pub fn nearest(
    set: &ReferenceSet,
    model: &Model,
    own_schema: &OwnSchema,
    descriptor: &[f32],
    plan: &Plan,
    sought: &Sought,
) -> Result<Vec<Neighbour>, Failure> {
    let ReferenceSet {
        oid,
        relation,
        condition,
        ..
    } = set;
    let (left_out, partial) = (sought.left_out(), sought.partial);
    let Some(parts) = parts(*oid)? else {
        if set.watched && citus::spreads(*oid)? {
            return spread(set, own_schema, descriptor, plan, left_out);
        }
        return run(
            set,
            own_schema,
            descriptor,
            plan,
            left_out,
            &format!("{relation} AS r /* {} */ {condition}", u32::from(*oid)),
        );
    };
    if let Some(found) = sharding::nearest(set, &parts, model, own_schema, descriptor, plan, left_out, partial)? {
        return Ok(found);
    }
    sharding::as_planned(set, &parts, own_schema, descriptor, plan, left_out, partial)
}

/// As [`nearest`], of some parts of the set's relation, by one statement: each is planned for its own nearest.
pub fn nearest_here(
    set: &ReferenceSet,
    own_schema: &OwnSchema,
    descriptor: &[f32],
    plan: &Plan,
    left_out: &[String],
    parts: &[&Part],
) -> Result<Vec<Neighbour>, Failure> {
    // Plain columns, from which the key and the distance are made above.
    let sketch = set.sketch.as_ref().filter(|_| plan.compared > 0);
    let columns = set
        .columns
        .iter()
        .map(|column| format!("r.{}", quote_identifier(column)));
    let columns = columns
        .chain(sketch.map(|sketch| format!("r.{sketch}")))
        .collect::<Vec<_>>()
        .join(", ");
    let (condition, limit) = (&set.condition, plan.neighbours + left_out.len());
    let distance = distance(set, own_schema);
    let each = parts
        .iter()
        .map(|Part { name, oid, .. }| {
            let oid = u32::from(*oid);
            format!("(SELECT {columns} FROM {name} AS r /* {oid} */ {condition} ORDER BY {distance} LIMIT {limit})")
        })
        .collect::<Vec<_>>()
        .join(" UNION ALL ");
    run(
        set,
        own_schema,
        descriptor,
        plan,
        left_out,
        &format!("({each}) AS r /* {} */", u32::from(set.oid)),
    )
}

/// Where Citus spreads the rows: its workers do not know which references are out of use. They are left out here, and
/// more are asked for where that leaves too few.
fn spread(
    set: &ReferenceSet,
    own_schema: &OwnSchema,
    descriptor: &[f32],
    plan: &Plan,
    left_out: &[String],
) -> Result<Vec<Neighbour>, Failure> {
    let condition = set
        .filter
        .as_ref()
        .map_or(String::new(), |filter| format!("WHERE ({filter})"));
    let source = format!("{} AS r /* {} */ {condition}", set.relation, u32::from(set.oid));
    let mut wider = *plan;
    loop {
        let all = run(set, own_schema, descriptor, &wider, left_out, &source)?;
        let exhausted = all.len() < wider.neighbours;
        let mut found = Vec::new();
        for neighbour in all {
            if in_use(set.id, &neighbour.reference)? {
                found.push(neighbour);
            }
        }
        if exhausted || found.len() >= plan.neighbours {
            found.truncate(plan.neighbours);
            return Ok(found);
        }
        wider.neighbours *= 4;
    }
}

fn distance(set: &ReferenceSet, own_schema: &OwnSchema) -> String {
    format!("r.{} OPERATOR({}.<=>) $1", set.descriptor, own_schema.schema)
}

/// Reads neighbours from `source`, which goes by the alias `r`.
fn run(
    set: &ReferenceSet,
    own_schema: &OwnSchema,
    descriptor: &[f32],
    plan: &Plan,
    left_out: &[String],
    source: &str,
) -> Result<Vec<Neighbour>, Failure> {
    let ReferenceSet {
        id,
        key,
        descriptor: column,
        ..
    } = set;
    let schema = &own_schema.schema;
    let sketch = set.sketch.as_ref().filter(|_| plan.compared > 0);
    let more = sketch.map_or(String::new(), |sketch| {
        format!(", r.{column}::{schema}.vector, r.{sketch}")
    });
    // The number of rows stands in the text: the planner then knows how few are wanted. The relation's OID does so that
    // a kept plan is never one of another relation that had the name.
    let limit = plan.neighbours + left_out.len();
    let distance = distance(set, own_schema);
    let sql =
        format!("SELECT {key}, ({distance})::pg_catalog.float8{more} FROM {source} ORDER BY {distance} LIMIT {limit}");
    let _searching = Searching::begin(*id);
    let _asking = Asking::begin(*id);
    let mut taken = 0;
    let rows = select_qualified(
        &sql,
        &[Parameter::typed(Vector::from_elements(descriptor), own_schema.vector)],
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
