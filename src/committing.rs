//! Procedures that commit as they go.

use pgrx::prelude::*;

use crate::failure::Failure;
use crate::statements::{Parameter, change};

/// A procedure's connection to SPI under which it may commit.
pub struct Committing;

impl Committing {
    /// An error where PostgreSQL would refuse the commit: before anything is done, not behind the first batch.
    pub fn begin(fcinfo: pg_sys::FunctionCallInfo, procedure: &str) -> Result<Committing, Failure> {
        // SAFETY: fcinfo is this call's; its context is looked at as what its tag says.
        let atomic = unsafe {
            let context = (*fcinfo).context;
            context.is_null()
                || (*context).type_ != pg_sys::NodeTag::T_CallContext
                || (*context.cast::<pg_sys::CallContext>()).atomic
        };
        if atomic {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
                format!("{procedure}() commits every batch and cannot run inside a transaction block"),
            )
            .hint(
                "CALL it by itself: outside BEGIN … COMMIT, in psql or with a driver's autocommit on, and not from a \
                 function.",
            ));
        }
        // SAFETY: paired with SPI_finish when the value is dropped; where an ERROR unwinds, the
        // transaction's abort cleans up.
        if unsafe { pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32) } != pg_sys::SPI_OK_CONNECT as i32 {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "SPI_connect_ext failed",
            ));
        }
        Ok(Committing)
    }

    /// Commits; no subtransaction may be open.
    pub fn commit() {
        // SAFETY: no subtransaction is open and no snapshot but the portal's; statements need one again afterwards.
        unsafe {
            pg_sys::SPI_commit();
            pg_sys::EnsurePortalSnapshotExists();
        }
    }
}

/// That this session works at a job, over all its transactions: what `copymatch.progress` looks for in `pg_locks`.
pub struct AtWork(pg_sys::LockRelId);

impl AtWork {
    /// `jobs`: the table of copymatch in which such jobs are recorded. Nobody who reads or writes it waits.
    pub fn on(jobs: &str) -> Result<AtWork, Failure> {
        let found = change(
            "SELECT pg_catalog.to_regclass($1)::pg_catalog.oid",
            &[Parameter::of(jobs)],
            |row| row.required::<pg_sys::Oid>(1),
        )?;
        let Some(&table) = found.first() else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("{jobs} does not exist"),
            ));
        };
        let mut lock = pg_sys::LockRelId {
            relId: table,
            // SAFETY: reads a variable of this backend.
            dbId: unsafe { pg_sys::MyDatabaseId },
        };
        // SAFETY: given back when the value is dropped.
        unsafe { pg_sys::LockRelationIdForSession(&mut lock, pg_sys::RowExclusiveLock as i32) };
        Ok(AtWork(lock))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        // While an ERROR unwinds, too: the end of a subtransaction would leave it.
        // SAFETY: taken in on(), and given back once. It raises no ERROR.
        unsafe { pg_sys::UnlockRelationIdForSession(&mut self.0, pg_sys::RowExclusiveLock as i32) };
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: connected in begin().
            unsafe { pg_sys::SPI_finish() };
        }
    }
}
