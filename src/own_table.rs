//! Rows of the extension's tables by one column, without a statement: a session's first search would spend more time on
//! parsing and planning such look-ups than on all else together.
//!
//! Nobody sees by it what a statement would not show him: the statement itself runs wherever more than the caller's
//! SELECT on the whole table has a say in it.

use std::ffi::CStr;

use pgrx::prelude::*;

use crate::failure::Failure;
use crate::statements::{Parameter, Row, change, select};

/// A look-up in a table of schema copymatch.
pub struct Lookup {
    /// The table.
    pub table: &'static CStr,
    /// The column that has the value.
    pub column: &'static CStr,
    /// The index whose first column that is; None: the whole table is read.
    pub index: Option<&'static CStr>,
    /// What is read.
    pub columns: &'static str,
}

/// Which rows are seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Those of the statement's snapshot.
    Snapshot,
    /// What is there now, and what this statement has written.
    Now,
}

impl Lookup {
    /// The row with this value.
    pub fn first<T>(
        &self,
        value: Parameter,
        sight: Sight,
        read: impl FnMut(&Row) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        if sight == Sight::Snapshot
            && let Some(table) = self.open()?
            && let Some(scan) = Scan::prepare(self, &table, &value)
        {
            return scan.first(read);
        }
        let sql = format!(
            "SELECT {} FROM copymatch.{} t WHERE t.{} = $1 LIMIT 1",
            self.columns,
            self.table.to_string_lossy(),
            self.column.to_string_lossy()
        );
        let found = match sight {
            Sight::Snapshot => select(&sql, &[value], read)?,
            Sight::Now => change(&sql, &[value], read)?,
        };
        Ok(found.into_iter().next())
    }

    /// Whether there is a row with this value.
    pub fn exists(&self, value: Parameter) -> Result<bool, Failure> {
        Ok(self.first(value, Sight::Snapshot, |_| Ok(()))?.is_some())
    }

    /// Opens the table, where nothing but the current user's rights to the schema and to all of the table decides what
    /// he sees of it. None: a statement has to find out.
    fn open(&self) -> Result<Option<Table>, Failure> {
        // SAFETY: look-ups in PostgreSQL's caches, which raise what a statement would raise; a hook is only looked at.
        unsafe {
            if !pg_sys::ActiveSnapshotSet() || (&raw const pg_sys::ExecutorCheckPerms_hook).read().is_some() {
                return Ok(None);
            }
            let schema = pg_sys::LookupExplicitNamespace(c"copymatch".as_ptr(), true);
            let oid = pg_sys::get_relname_relid(self.table.as_ptr(), schema);
            if schema == pg_sys::InvalidOid || oid == pg_sys::InvalidOid {
                return Ok(None);
            }
            let table = Table::open(oid);
            let class = &*(*table.0).rd_rel;
            let plain = class.relkind as u8 == pg_sys::RELKIND_RELATION && !class.relhassubclass;
            let user = pg_sys::GetUserId();
            let may_read = pg_sys::pg_class_aclcheck(oid, user, pg_sys::ACL_SELECT as pg_sys::AclMode)
                == pg_sys::AclResult::ACLCHECK_OK;
            let row_security = pg_sys::check_enable_rls(oid, pg_sys::InvalidOid, true) as u32;
            let filtered = row_security == pg_sys::CheckEnableRlsResult::RLS_ENABLED;
            Ok((plain && may_read && !filtered).then_some(table))
        }
    }
}

/// An open relation. It stays locked until the transaction ends, as those of statements do.
struct Table(pg_sys::Relation);

impl Table {
    /// # Safety
    /// The OID is a relation's.
    unsafe fn open(oid: pg_sys::Oid) -> Table {
        // SAFETY: by contract; raises where the relation is gone.
        Table(unsafe { pg_sys::table_open(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE) })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: opened above. While an ERROR unwinds, the transaction's abort does this itself.
        if !std::thread::panicking() {
            unsafe { pg_sys::table_close(self.0, pg_sys::NoLock as pg_sys::LOCKMODE) };
        }
    }
}

/// How a table is read.
struct Scan<'a> {
    table: &'a Table,
    /// InvalidOid: from its first page to its last.
    index: pg_sys::Oid,
    key: pg_sys::ScanKeyData,
}

impl Scan<'_> {
    /// None where the look-up's names do not fit the table as it is now, or the index cannot be used.
    fn prepare<'a>(lookup: &Lookup, table: &'a Table, value: &Parameter) -> Option<Scan<'a>> {
        let (kind, value) = value.parts();
        let equal = match kind {
            pg_sys::TEXTOID => pg_sys::F_TEXTEQ,
            pg_sys::INT8OID => pg_sys::F_INT8EQ,
            pg_sys::BOOLOID => pg_sys::F_BOOLEQ,
            _ => return None,
        };
        // SAFETY: the table is open, and so is the index while its entry is read.
        unsafe {
            let descriptor = (*table.0).rd_att;
            let number = pg_sys::SPI_fnumber(descriptor, lookup.column.as_ptr());
            if number <= 0 || pg_sys::SPI_gettypeid(descriptor, number) != kind {
                return None;
            }
            let number = number as pg_sys::AttrNumber;
            // Equal texts are equal bytes under every collation that a database may have.
            let (index, collation) = match lookup.index {
                Some(name) => usable_index(table, name, number)?,
                None => (pg_sys::InvalidOid, pg_sys::C_COLLATION_OID),
            };
            let mut key = pg_sys::ScanKeyData::default();
            pg_sys::ScanKeyEntryInitialize(
                &mut key,
                0,
                number,
                pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                pg_sys::InvalidOid,
                collation,
                pg_sys::Oid::from(equal),
                value?,
            );
            Some(Scan { table, index, key })
        }
    }

    fn first<T>(mut self, mut read: impl FnMut(&Row) -> Result<T, Failure>) -> Result<Option<T>, Failure> {
        // SAFETY: table and index are open or named by their OIDs; the active snapshot outlives the scan, and the row
        // is read before the scan ends.
        unsafe {
            let scan = pg_sys::systable_beginscan(
                self.table.0,
                self.index,
                self.index != pg_sys::InvalidOid,
                pg_sys::GetActiveSnapshot(),
                1,
                &mut self.key,
            );
            let tuple = pg_sys::systable_getnext(scan);
            let found = (!tuple.is_null()).then(|| read(&Row::new(tuple, (*self.table.0).rd_att)));
            pg_sys::systable_endscan(scan);
            found.transpose()
        }
    }
}

/// The OID and the collation of an index of this name over this column first, if it is whole and valid for every
/// snapshot. One that leaves out rows is never asked for the values of those.
///
/// # Safety
/// The table is open.
unsafe fn usable_index(table: &Table, name: &CStr, column: pg_sys::AttrNumber) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    // SAFETY: by contract; the index is closed before its entry may go.
    unsafe {
        let schema = (*(*table.0).rd_rel).relnamespace;
        let oid = pg_sys::get_relname_relid(name.as_ptr(), schema);
        if oid == pg_sys::InvalidOid || pg_sys::get_rel_relkind(oid) as u8 != pg_sys::RELKIND_INDEX {
            return None;
        }
        let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let entry = (*index).rd_index;
        let usable = (*entry).indrelid == (*table.0).rd_id
            && (*entry).indisvalid
            && (*entry).indislive
            && !(*entry).indcheckxmin
            && *(*entry).indkey.values.as_ptr() == column
            && (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID;
        let collation = *(*index).rd_indcollation;
        pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
        usable.then_some((oid, collation))
    }
}
