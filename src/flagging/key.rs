//! An upload's key as text: written one way whatever the session's settings are, and found again by it.

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use crate::failure::Failure;
use crate::statements::{Parameter, select};
use crate::tuple::{Tuple, type_of};

/// What output and input of values depend on, pinned until it is dropped or its (sub)transaction ends.
pub struct Canonical(i32);

impl Canonical {
    pub fn settings() -> Canonical {
        // SAFETY: a level of settings that ends with this value, or, where PostgreSQL raises,
        // with the (sub)transaction.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in [
                (c"datestyle", c"ISO, MDY"),
                (c"intervalstyle", c"postgres"),
                (c"timezone", c"UTC"),
                (c"extra_float_digits", c"3"),
                (c"bytea_output", c"hex"),
                (c"lc_monetary", c"C"),
                // Names of tables, types and functions are written with their schema then.
                (c"search_path", c"pg_catalog, pg_temp"),
            ] {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            Canonical(level)
        }
    }
}

impl Drop for Canonical {
    fn drop(&mut self) {
        // SAFETY: the level that was begun above. While an ERROR unwinds, the transaction's abort ends it.
        if !std::thread::panicking() {
            unsafe { pg_sys::AtEOXact_GUC(true, self.0) };
        }
    }
}

/// Types that no setting matters to.
const PLAIN: [pg_sys::Oid; 6] = [
    pg_sys::INT8OID,
    pg_sys::INT4OID,
    pg_sys::INT2OID,
    pg_sys::TEXTOID,
    pg_sys::VARCHAROID,
    pg_sys::UUIDOID,
];

/// The texts of a row's columns: what the trigger, the queue and `copy_flag_existing` name an upload by.
pub fn key_text(row: &Tuple, descriptor: pg_sys::TupleDesc, columns: &[i32]) -> Vec<Option<String>> {
    let plain = columns
        .iter()
        .all(|&number| PLAIN.contains(&type_of(descriptor, number)));
    let _canonical = (!plain).then(Canonical::settings);
    columns.iter().map(|&number| row.text(number)).collect()
}

/// A key's texts as findings name the upload.
pub fn upload_text(key: &[String]) -> String {
    match key {
        [only] => only.clone(),
        several => flagging::record_text(&several.iter().map(String::as_str).collect::<Vec<_>>()),
    }
}

/// The type's own equality, wherever that lives, so that an index can serve it; domains by what they are made of. Types
/// are named without a modifier: `character` alone would be `character(1)`.
const CONDITIONS: &str = "\
    SELECT pg_catalog.format('%I.%I OPERATOR(%I.%s) $1[%s]::%I.%I', $3, u.col, n.nspname, o.oprname, u.number, \
    tn.nspname, t.typname) \
    FROM pg_catalog.unnest($2) WITH ORDINALITY AS u(col, number) \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = $1 AND a.attname = u.col AND a.attnum > 0 AND NOT a.attisdropped \
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace \
    JOIN LATERAL ( \
        WITH RECURSIVE base AS ( \
            SELECT t.oid, t.typtype, t.typbasetype, t.typcategory, t.typname \
            UNION ALL \
            SELECT b.oid, b.typtype, b.typbasetype, b.typcategory, b.typname \
            FROM base JOIN pg_catalog.pg_type b ON b.oid = base.typbasetype WHERE base.typtype = 'd') \
        SELECT CASE WHEN base.typtype = 'e' THEN 'pg_catalog.anyenum'::regtype \
                    WHEN base.typtype = 'c' THEN 'pg_catalog.record'::regtype \
                    WHEN base.typtype = 'r' THEN 'pg_catalog.anyrange'::regtype \
                    WHEN base.typtype = 'm' THEN 'pg_catalog.anymultirange'::regtype \
                    WHEN base.typcategory = 'A' THEN 'pg_catalog.anyarray'::regtype \
                    WHEN base.oid = 'pg_catalog.varchar'::regtype THEN 'pg_catalog.text'::regtype \
                    WHEN base.oid = 'pg_catalog.cidr'::regtype THEN 'pg_catalog.inet'::regtype \
                    WHEN base.typname LIKE 'reg%' AND base.oid < 16384 THEN 'pg_catalog.oid'::regtype \
                    ELSE base.oid END AS intype \
        FROM base WHERE base.typtype <> 'd') compared ON true \
    JOIN LATERAL ( \
        SELECT am.amopopr FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod \
        AND m.amname = 'btree' \
            JOIN pg_catalog.pg_amop am ON am.amopfamily = c.opcfamily AND am.amoplefttype = c.opcintype \
                 AND am.amoprighttype = c.opcintype AND am.amopstrategy = 3 \
        WHERE c.opcdefault AND c.opcintype = compared.intype LIMIT 1) eq ON true \
    JOIN pg_catalog.pg_operator o ON o.oid = eq.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace \
    ORDER BY u.number";

/// The condition under which a row, named by its alias, has the key whose texts are the elements of `$1`.
pub fn condition(alias: &str, relation: pg_sys::Oid, name: &str, key: &[String]) -> Result<String, Failure> {
    let parts = select(
        CONDITIONS,
        &[
            Parameter::of(relation),
            Parameter::of(key.to_vec()),
            Parameter::of(alias),
        ],
        |row| row.required::<String>(1),
    )?;
    if parts.len() != key.len() {
        let columns: Vec<String> = key.iter().map(quote_identifier).collect();
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
            format!(
                "the key ({}) of relation {name} has a type without equality",
                columns.join(", ")
            ),
        )
        .hint("Use a key of a type that a btree index can hold."));
    }
    Ok(parts.join(" AND "))
}
