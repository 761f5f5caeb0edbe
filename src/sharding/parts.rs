//! The parts of a set: the leaves of its relation's partition tree, and where they lie.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::prelude::*;

use crate::failure::Failure;
use crate::matching::gate;
use crate::statements::{Parameter, Row, select};

/// A leaf of the partition tree, foreign or not.
#[derive(Clone, Debug)]
pub struct Part {
    /// Schema and name, quoted.
    pub name: String,
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// Where it lies, if not here.
    pub foreign: Option<Foreign>,
}

/// What a foreign table stands for.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Name of the server.
    pub server: String,
    /// Its OID.
    pub server_oid: pg_sys::Oid,
    /// Name of the foreign data wrapper.
    pub wrapper: String,
    /// Schema and name of the relation there, quoted.
    pub relation: String,
    /// Columns that are called otherwise there.
    pub renamed: Vec<(String, String)>,
    /// Options of the server and the foreign table, the table's last.
    pub options: Vec<(String, String)>,
}

impl Foreign {
    /// The value of an option; the table's goes before the server's.
    pub fn option(&self, name: &str) -> Option<&str> {
        let found = self.options.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the wrapper is postgres_fdw.
    pub fn is_postgres(&self) -> bool {
        self.wrapper == "postgres_fdw"
    }

    /// Whether postgres_fdw ships what belongs to this extension.
    pub fn ships(&self, extension: &str) -> bool {
        let list = self.option("extensions").unwrap_or_default();
        self.is_postgres()
            && list
                .split(',')
                .any(|one| one.trim().trim_matches('"').eq_ignore_ascii_case(extension))
    }

    /// A column's name there.
    pub fn column(&self, name: &str) -> String {
        let renamed = self.renamed.iter().find(|(here, _)| here == name);
        renamed.map_or(name, |(_, there)| there).to_owned()
    }
}

const LEAVES: &str = "\
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.oid, \
           pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
               AND NOT pg_catalog.row_security_active(c.oid) \
               AND pg_catalog.has_table_privilege($1, 'SELECT') AND NOT pg_catalog.row_security_active($1), \
           v.srvname::pg_catalog.text, w.fdwname::pg_catalog.text, \
           pg_catalog.format('%I.%I', \
           coalesce((SELECT o.option_value FROM pg_catalog.pg_options_to_table(f.ftoptions) o \
                                                WHERE o.option_name = 'schema_name'), n.nspname), \
                             coalesce((SELECT o.option_value FROM pg_catalog.pg_options_to_table(f.ftoptions) o \
                                       WHERE o.option_name = 'table_name'), c.relname)), \
           ARRAY(SELECT u.pair FROM pg_catalog.pg_attribute a \
           CROSS JOIN pg_catalog.pg_options_to_table(a.attfdwoptions) o \
                     CROSS JOIN LATERAL (VALUES (1, a.attname::pg_catalog.text), (2, o.option_value)) AS u(place, \
                     pair) \
                 WHERE a.attrelid = f.ftrelid AND a.attnum > 0 AND NOT a.attisdropped \
                 AND o.option_name = 'column_name' \
                 ORDER BY a.attnum, u.place), \
           ARRAY(SELECT u.pair FROM (SELECT 1, o.* FROM pg_catalog.pg_options_to_table(v.srvoptions) o \
                                     UNION ALL SELECT 2, o.* FROM pg_catalog.pg_options_to_table(f.ftoptions) o) \
                                     AS o(whose, name, value) \
                     CROSS JOIN LATERAL (VALUES (1, o.name), (2, o.value)) AS u(place, pair) \
                 ORDER BY o.whose, o.name, u.place), \
           v.oid \
    FROM (SELECT t.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) t WHERE t.isleaf \
          UNION SELECT $1) AS leaf(oid) \
         JOIN pg_catalog.pg_class c ON c.oid = leaf.oid AND c.relkind <> 'p' \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = c.oid \
         LEFT JOIN pg_catalog.pg_foreign_server v ON v.oid = f.ftserver \
         LEFT JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = v.srvfdw \
    ORDER BY c.oid";

thread_local! {
    /// By relation and role: what was known of changes, and the parts.
    static KNOWN: RefCell<HashMap<(pg_sys::Oid, pg_sys::Oid), (u64, Known)>> = RefCell::default();
}

/// Parts, where they are to be asked one by one.
type Known = Option<Rc<Vec<Part>>>;

/// How often parts are looked up anew for one search before what was found last is taken: somebody changes definitions
/// without end.
const MOST_LOOKS: usize = 4;

/// Relations whose parts are kept at a time.
const MOST_KEPT: usize = 256;

/// The parts of a relation that are to be asked one by one. None where it is asked as a whole: none of it is foreign,
/// or the current user may read it only through the parent, whose privileges and policies hold for it alone. The
/// relation is locked, and so are the parts from here on.
pub fn parts(relation: pg_sys::Oid) -> Result<Known, Failure> {
    // SAFETY: a look-up in PostgreSQL's caches.
    let kind = unsafe { pg_sys::get_rel_relkind(relation) } as u8;
    if kind != pg_sys::RELKIND_PARTITIONED_TABLE && kind != pg_sys::RELKIND_FOREIGN_TABLE {
        return Ok(None);
    }
    let key = (relation, gate::current_user());
    // What changes while the parts are being locked is looked at again, under the locks.
    for _ in 0..MOST_LOOKS {
        let changes = gate::changes();
        let known = KNOWN.with_borrow(|known| known.get(&key).filter(|(then, _)| *then == changes).cloned());
        let parts = match known {
            Some((_, parts)) => parts,
            None => look_up(key, changes)?,
        };
        for part in parts.iter().flat_map(|parts| parts.iter()) {
            gate::locked(part.oid);
        }
        if gate::changes() == changes {
            return Ok(parts);
        }
    }
    look_up(key, gate::changes())
}

/// Looks parts up and keeps them.
fn look_up(key: (pg_sys::Oid, pg_sys::Oid), changes: u64) -> Result<Known, Failure> {
    let leaves = leaves(key.0)?;
    let apart = leaves.iter().any(|(part, _)| part.foreign.is_some()) && leaves.iter().all(|(_, readable)| *readable);
    let parts = apart.then(|| Rc::new(leaves.into_iter().map(|(part, _)| part).collect::<Vec<_>>()));
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= MOST_KEPT {
            known.clear();
        }
        known.insert(key, (changes, parts.clone()));
    });
    Ok(parts)
}

/// All parts of a relation, and whether the current user may read each by itself.
pub fn leaves(relation: pg_sys::Oid) -> Result<Vec<(Part, bool)>, Failure> {
    select(LEAVES, &[Parameter::of(relation)], |row| {
        let pairs = |row: &Row, number| -> Result<Vec<(String, String)>, Failure> {
            let list: Vec<Option<String>> = row.get(number)?.unwrap_or_default();
            let mut list = list.into_iter().map(Option::unwrap_or_default);
            Ok(std::iter::from_fn(|| list.next().zip(list.next())).collect())
        };
        let foreign = match row.get::<String>(4)? {
            None => None,
            Some(server) => Some(Foreign {
                server,
                server_oid: row.required(9)?,
                wrapper: row.get(5)?.unwrap_or_default(),
                relation: row.required(6)?,
                renamed: pairs(row, 7)?,
                options: pairs(row, 8)?,
            }),
        };
        let part = Part {
            name: row.required(1)?,
            oid: row.required(2)?,
            foreign,
        };
        Ok((part, row.required::<bool>(3)?))
    })
}
