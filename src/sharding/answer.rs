//! The shard's side: what the final function of `copymatch.shard_answer` does, with the rights of the role that the
//! coordinator's user mapping names.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;
use shards::{Near, Pictured, Place, Question, Wanted};

use super::ask::{garbled, hex, this_session};
use crate::failure::{Failure, boundary};
use crate::ivf::within::Within;
use crate::json::Json;
use crate::matching::remember_agreement;
use crate::matching::{filter, gate};
use crate::own_schema::OwnSchema;
use crate::statements::{Parameter, select, select_qualified};
use crate::types::Vector;

/// Most references that one question asks for.
const MOST: usize = 1_000_000;

/// The answer; NULL where the question comes from this session: it was not shipped.
#[pg_extern(sql = false)]
fn shard_answer_final(_state: Option<bool>, question: Option<Json>, payload: Option<&[u8]>) -> Option<Vec<u8>> {
    boundary(|| {
        let Some(Json(question)) = question else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "the question to a shard is NULL",
            ));
        };
        let question: Question = serde_json::from_value(question).map_err(|error| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("the question to a shard is not valid: {error}"),
            )
            .hint(
                "Coordinators ask by copy_match; copy_shard_check tells whether all servers have one version of \
                 copymatch.",
            )
        })?;
        if question.from == this_session() {
            return Ok(None);
        }
        if question.wanted == Wanted::Report {
            return report(&question.relation, &question.descriptor).map(|text| Some(text.into_bytes()));
        }
        check_version(&question)?;
        let table = relation(&question)?;
        agree(&question, table.oid)?;
        let payload = payload.unwrap_or_default();
        match &question.wanted {
            Wanted::Report | Wanted::Agreement => Ok(Some(Vec::new())),
            Wanted::Nearest {
                key,
                filter,
                limit,
                recall,
            } => {
                let within = recall.map(|recall| Within {
                    tables: table.tables.clone(),
                    recall: recall.clamp(0.5, 1.0),
                });
                let near = nearest(&question, within, &table, key, filter.as_deref(), *limit, payload)?;
                Ok(Some(shards::near_to(question.part, &near)))
            }
            Wanted::Pictured { sketch } => {
                let found = pictured(&question, &table.name, sketch, payload)?;
                Ok(Some(shards::pictured_to(question.part, &found)))
            }
        }
    })
}

fn name(question: &Question) -> String {
    format!("shard \"{}\" of reference set \"{}\"", question.server, question.set)
}

fn check(question: &Question) -> String {
    format!("SELECT * FROM copy_shard_check('{}')", question.set.replace('\'', "''"))
}

/// An error where the extension is older than the coordinator's.
fn check_version(question: &Question) -> Result<(), Failure> {
    crate::own_schema::check_version()?;
    let own = env!("CARGO_PKG_VERSION");
    if shards::is_older(own, &question.version) {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "{} has copymatch {own}, older than the coordinator's {}",
                name(question),
                question.version
            ),
        )
        .hint(format!(
            "Install that version there, then ALTER EXTENSION copymatch UPDATE. {} says more.",
            check(question)
        )));
    }
    Ok(())
}

/// An error where the descriptors are of another model than the set's: they must not be mixed with what lies elsewhere.
fn agree(question: &Question, relation: pg_sys::Oid) -> Result<(), Failure> {
    let key = format!("{}\n{}", u32::from(relation), question.descriptor);
    let Some((model, sha256)) = remember_agreement(&key, || models(question, relation))? else {
        // No set here says of which model the descriptors are.
        return Ok(());
    };
    let same = match &sha256 {
        Some(sha256) => *sha256 == question.sha256,
        // Who may not see the model goes by its name.
        None => model == question.model,
    };
    if same {
        return Ok(());
    }
    let what = match model == question.model {
        true => format!("other weights of model \"{model}\""),
        false => format!("model \"{model}\""),
    };
    Err(Failure::new(
        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        format!(
            "{}: column \"{}\" of {} has descriptors of {what}, the set's are of model \"{}\"",
            name(question),
            question.descriptor,
            question.relation,
            question.model
        ),
    )
    .hint(format!(
        "Descriptors of two models cannot be compared. Re-embed one of the two with copy_reembed. {} says more.",
        check(question)
    )))
}

/// Name and hash of the model of the set, or sets, that keep this column here.
fn models(question: &Question, relation: pg_sys::Oid) -> Result<Option<(String, Option<String>)>, Failure> {
    let found = select_qualified(
        "SELECT s.model, m.sha256 FROM copymatch.reference_set s \
         LEFT JOIN copymatch.model m ON m.name OPERATOR(pg_catalog.=) s.model \
         WHERE s.descriptor_column OPERATOR(pg_catalog.=) $2::pg_catalog.name \
           AND (s.relation OPERATOR(pg_catalog.=) $1 \
                OR s.relation OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT a.relid \
                FROM pg_catalog.pg_partition_ancestors($1) a))) \
         LIMIT 1",
        &[
            Parameter::typed(relation, pg_sys::REGCLASSOID),
            Parameter::of(question.descriptor.as_str()),
        ],
        |row| {
            Ok((
                row.required::<String>(1)?,
                row.get::<Vec<u8>>(2)?.map(|bytes| hex(&bytes)),
            ))
        },
    )?;
    Ok(found.into_iter().next())
}

/// A relation as coordinators call it.
#[derive(Clone)]
struct Named {
    oid: pg_sys::Oid,
    /// Schema and name as the catalogue has them: what the question says is not pasted into a statement.
    name: String,
    /// Itself, and the leaves below it.
    tables: Rc<[pg_sys::Oid]>,
}

thread_local! {
    /// What relations are called by coordinators, with what was known of changes when they were looked up.
    static RELATIONS: RefCell<HashMap<String, (u64, Named)>> = RefCell::default();
}

/// Relations that are kept at a time.
const MOST_RELATIONS: usize = 256;

/// The relation, locked.
fn relation(question: &Question) -> Result<Named, Failure> {
    let known = RELATIONS.with_borrow(|known| known.get(&question.relation).cloned());
    if let Some((changes, named)) = known
        && gate::locked(named.oid).is_some()
        && gate::changes() == changes
    {
        return Ok(named);
    }
    let found = select(
        "SELECT named.oid, ARRAY(SELECT t.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree(named.oid) t \
                                WHERE t.isleaf) \
         FROM (SELECT pg_catalog.to_regclass($1)::pg_catalog.oid) AS named(oid) WHERE named.oid IS NOT NULL",
        &[Parameter::of(question.relation.as_str())],
        |row| {
            let leaves: Vec<Option<pg_sys::Oid>> = row.get(2)?.unwrap_or_default();
            Ok((row.required::<pg_sys::Oid>(1)?, leaves))
        },
    )?;
    let changes = gate::changes();
    let named = found
        .into_iter()
        .next()
        .and_then(|(oid, leaves)| {
            let tables = leaves.into_iter().flatten().chain([oid]).collect();
            gate::locked(oid).map(|found| Named {
                oid,
                name: found.name,
                tables,
            })
        })
        .ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("{}: relation {} does not exist", name(question), question.relation),
            )
        })?;
    RELATIONS.with_borrow_mut(|known| {
        if known.len() >= MOST_RELATIONS {
            known.clear();
        }
        known.insert(question.relation.clone(), (changes, named.clone()));
    });
    Ok(named)
}

fn nearest(
    question: &Question,
    within: Option<Within>,
    table: &Named,
    key: &[String],
    filter: Option<&str>,
    limit: usize,
    payload: &[u8],
) -> Result<Vec<Near>, Failure> {
    if key.is_empty() || !(1..=MOST).contains(&limit) {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!(
                "{}: the question has no key, or asks for {limit} references",
                name(question)
            ),
        ));
    }
    let own_schema = OwnSchema::of_type()?;
    let elements = shards::elements_from(payload).map_err(garbled)?;
    // A filter is data here as on the coordinator: one condition that can do nothing but look at the row.
    let condition = match filter {
        Some(text) => format!("WHERE ({})", filter::settle(table.oid, text, false)?.text),
        None => String::new(),
    };
    let key = match key {
        [only] => format!("r.{}", quote_identifier(only)),
        several => {
            let columns: Vec<String> = several
                .iter()
                .map(|one| format!("r.{}", quote_identifier(one)))
                .collect();
            format!("ROW({})", columns.join(", "))
        }
    };
    let distance = format!(
        "r.{} OPERATOR({}.<=>) $1",
        quote_identifier(&question.descriptor),
        own_schema.schema
    );
    let sql = format!(
        "SELECT copymatch.key_text({key}), ({distance})::pg_catalog.float8, r.tableoid, r.ctid::pg_catalog.text \
         FROM {} AS r /* {} */ {condition} ORDER BY {distance} LIMIT {limit}",
        table.name,
        u32::from(table.oid)
    );
    let _searching = within.map(Within::begin);
    let query = Parameter::typed(Vector::from_elements(&elements), own_schema.vector);
    let rows = select_qualified(&sql, &[query], |row| {
        // A reference without a descriptor, or with one that has no direction, resembles nothing.
        let Some(distance) = row.get::<f64>(2)?.filter(|distance| !distance.is_nan()) else {
            return Ok(None);
        };
        Ok(Some(Near {
            distance,
            key: row.get::<String>(1)?.unwrap_or_default(),
            place: place(row.required(3)?, &row.required::<String>(4)?),
        }))
    })?;
    Ok(rows.into_iter().flatten().collect())
}

fn place(table: pg_sys::Oid, ctid: &str) -> Place {
    let mut numbers = ctid.trim_matches(['(', ')']).split(',').map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    let block = next();
    Place {
        table: u32::from(table),
        block,
        offset: u16::try_from(next()).unwrap_or(0),
    }
}

/// The rows are found again where they lay: postgres_fdw's transaction has one snapshot for all that it asks.
fn pictured(question: &Question, table: &str, sketch: &str, payload: &[u8]) -> Result<Vec<Pictured>, Failure> {
    let wanted = shards::places_from(payload).map_err(garbled)?;
    let order: HashMap<Place, usize> = wanted.iter().copied().zip(0..).collect();
    let places: Vec<String> = wanted
        .iter()
        .map(|place| format!("({},{})", place.block, place.offset))
        .collect();
    let own_schema = OwnSchema::of_type()?;
    let sql = format!(
        "SELECT r.tableoid, r.ctid::pg_catalog.text, r.{}::{}.vector, r.{} FROM {table} AS r \
         WHERE r.ctid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]::pg_catalog.tid[])",
        quote_identifier(&question.descriptor),
        own_schema.schema,
        quote_identifier(sketch)
    );
    let rows = select_qualified(&sql, &[Parameter::of(places)], |row| {
        let place = place(row.required(1)?, &row.required::<String>(2)?);
        if !order.contains_key(&place) {
            return Ok(None);
        }
        Ok(Some(Pictured {
            place,
            descriptor: row
                .get::<Vector>(3)?
                .map(|vector| vector.elements().to_vec())
                .unwrap_or_default(),
            sketch: row.get::<Vec<u8>>(4)?,
        }))
    })?;
    Ok(rows.into_iter().flatten().collect())
}

/// What there is to say of a relation with descriptors here, in JSON; catalogues alone are read.
pub fn report(relation: &str, column: &str) -> Result<String, Failure> {
    let found = select(REPORT, &[Parameter::of(relation), Parameter::of(column)], |row| {
        row.required::<String>(1)
    })?;
    found.into_iter().next().ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            "extension copymatch is not installed in this database",
        )
    })
}

const REPORT: &str = "\
    WITH named AS (SELECT pg_catalog.to_regclass($1)::pg_catalog.oid AS oid), \
         column_of AS (SELECT a.* FROM named \
                      JOIN pg_catalog.pg_attribute a ON a.attrelid = named.oid AND a.attname = $2 \
                       AND a.attnum > 0 AND NOT a.attisdropped), \
         served AS (SELECT i.indexrelid::pg_catalog.regclass::pg_catalog.text AS name, i.indisvalid AS valid \
                    FROM column_of a JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND i.indkey[0] = a.attnum \
                         JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0] AND o.opcname LIKE '%cosine%' \
                         JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod WHERE i.indpred IS NULL), \
         kept AS (SELECT s.name, s.model, m.sha256 FROM named \
                  JOIN copymatch.reference_set s ON s.descriptor_column = $2 \
                       AND (s.relation = named.oid OR s.relation IN (SELECT p.relid \
                       FROM pg_catalog.pg_partition_ancestors(named.oid) p)) \
                  LEFT JOIN copymatch.model m ON m.name = s.model ORDER BY s.created, s.name LIMIT 1), \
         counted AS (SELECT CASE WHEN pg_catalog.bool_or(c.reltuples >= 0) \
                                 THEN pg_catalog.sum(greatest(c.reltuples, 0))::pg_catalog.int8 END AS rows \
                     FROM named JOIN pg_catalog.pg_class c ON c.relkind <> 'p' \
                          AND (c.oid = named.oid \
                          OR c.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(named.oid) t WHERE t.isleaf))) \
    SELECT pg_catalog.json_build_object( \
        'version', e.extversion, 'schema', pg_catalog.quote_ident(n.nspname), \
        'kind', (SELECT c.relkind::pg_catalog.text FROM pg_catalog.pg_class c WHERE c.oid = named.oid), \
        'dimensions', (SELECT CASE WHEN a.atttypmod > 0 THEN a.atttypmod END FROM column_of a), \
        'type', (SELECT pg_catalog.format_type(a.atttypid, NULL) FROM column_of a), \
        'columns', (SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_attribute a \
                    WHERE a.attrelid = named.oid AND a.attnum > 0 AND NOT a.attisdropped), \
        'class', copymatch.cosine_class(named.oid, $2::pg_catalog.name), \
        'set', (SELECT k.name FROM kept k), 'model', (SELECT k.model FROM kept k), \
        'sha256', (SELECT pg_catalog.encode(k.sha256, 'hex') FROM kept k), \
        'valid', (SELECT pg_catalog.string_agg(s.name, ', ') FROM served s WHERE s.valid), \
        'broken', (SELECT pg_catalog.string_agg(s.name, ', ') FROM served s WHERE NOT s.valid), \
        'rows', counted.rows, \
        'missing', (SELECT pg_catalog.round(s.null_frac * counted.rows) FROM pg_catalog.pg_stats s, \
        pg_catalog.pg_class c \
                    JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace \
                    WHERE c.oid = named.oid AND s.schemaname = cn.nspname AND s.tablename = c.relname \
                    AND s.attname = $2 \
                    ORDER BY s.inherited DESC LIMIT 1))::pg_catalog.text \
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace CROSS JOIN named \
    CROSS JOIN counted \
    WHERE e.extname = 'copymatch'";
