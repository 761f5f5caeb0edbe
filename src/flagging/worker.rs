//! The queue's background workers: from shared_preload_libraries for the databases that copymatch.queue_databases lists, or
//! started by `copy_start_worker()`.

use std::ffi::CString;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgrx::PgTryBuilder;
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::prelude::*;

use super::wake;
use crate::failure::{Failure, boundary};
use crate::select::change;
use crate::settings;

const KIND: &str = "copymatch queue worker";
/// How long after a failure or a crash a worker starts again.
const RESTART: Duration = Duration::from_secs(5);
/// What a worker from shared_preload_libraries has as its argument; others have their database's OID.
const PRELOADED: u32 = 0;

static STOP: AtomicBool = AtomicBool::new(false);

/// Registers the workers of copymatch.queue_databases. Called from _PG_init while the postmaster preloads libraries.
pub fn register_workers() {
    for database in settings::queue_databases() {
        for _ in 0..settings::queue_workers() {
            describe(&format!("{KIND} for {database}"), PRELOADED)
                .set_extra(&database)
                .load();
        }
    }
}

fn describe(name: &str, argument: u32) -> BackgroundWorkerBuilder {
    // A worker's name has 95 bytes.
    let name: String = name.chars().take(40).collect();
    BackgroundWorkerBuilder::new(&name)
        .set_type(KIND)
        .set_library("copymatch")
        .set_function("copymatch_queue_worker")
        .set_argument(Some(pg_sys::Datum::from(argument)))
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(RESTART))
}

#[pg_extern(sql = false)]
fn copy_start_worker() -> i32 {
    boundary(|| {
        // SAFETY: variables of this backend.
        let (database, own) = unsafe { (u32::from(pg_sys::MyDatabaseId), pg_sys::MyProcPid) };
        let none_free = || {
            Failure::new(
                PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                "no background worker could be started",
            )
            .hint("Raise max_worker_processes, or process the queue with CALL copy_process_queue().")
        };
        let worker = describe(KIND, database)
            .set_notify_pid(own)
            .load_dynamic()
            .map_err(|_| none_free())?;
        worker.wait_for_startup().map_err(|_| none_free())
    })
}

/// SIGTERM: cancels the batch under way, whose entries stay in the queue, and ends the loop.
unsafe extern "C-unwind" fn on_sigterm(_signal: std::ffi::c_int) {
    STOP.store(true, Ordering::SeqCst);
    // SAFETY: flags that signal handlers set, and this process's latch, which may be set from a handler.
    unsafe {
        pg_sys::QueryCancelPending = 1;
        pg_sys::InterruptPending = 1;
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}

/// SIGHUP: the configuration is read again before the next batch.
unsafe extern "C-unwind" fn on_sighup(_signal: std::ffi::c_int) {
    // SAFETY: as above.
    unsafe {
        pg_sys::ConfigReloadPending = 1;
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}

/// A worker's process.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn copymatch_queue_worker(argument: pg_sys::Datum) {
    let database = argument.value() as u32;
    // SAFETY: signals are still blocked; the handlers only set flags and the latch.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        {
            pg_sys::pqsignal(pg_sys::SIGTERM as i32, Some(on_sigterm));
            pg_sys::pqsignal(pg_sys::SIGHUP as i32, Some(on_sighup));
        }
        #[cfg(feature = "pg18")]
        {
            pg_sys::pqsignal_be(pg_sys::SIGTERM as i32, Some(on_sigterm));
            pg_sys::pqsignal_be(pg_sys::SIGHUP as i32, Some(on_sighup));
        }
        pg_sys::BackgroundWorkerUnblockSignals();
    }
    if database == PRELOADED {
        BackgroundWorker::connect_worker_to_spi(Some(BackgroundWorker::get_extra()), None);
    } else {
        BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(database)), None);
    }
    wake::listen();
    while !STOP.load(Ordering::SeqCst) {
        let stopped = PgTryBuilder::new(AssertUnwindSafe(|| {
            turn();
            false
        }))
        .catch_others(|error| {
            if STOP.load(Ordering::SeqCst) {
                return true;
            }
            // PostgreSQL logs the error, ends the process and starts it again after RESTART.
            error.rethrow()
        })
        .execute();
        if stopped {
            break;
        }
    }
    // Exit 0 is the end of a worker; any other is started again, unless the server shuts down. The end of the process rolls
    // back what is open.
    let code = if database == PRELOADED { 1 } else { 0 };
    // SAFETY: ends this process in the way every PostgreSQL process ends.
    unsafe { pg_sys::proc_exit(code) };
}

/// One batch, or a nap where there is none.
fn turn() {
    // SAFETY: flags and functions of this process, outside any transaction.
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
    let worked = batch();
    let patience = if worked { 0 } else { settings::queue_naptime() };
    // SAFETY: MyLatch is this process's; with WL_EXIT_ON_PM_DEATH the wait does not outlive the postmaster.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
            patience,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// Claims a batch and commits that, works it off and commits that: after a crash in between, a claim shows as a failed try.
fn batch() -> bool {
    report(true);
    let claimed = in_transaction(|| {
        // The extension may not be there, or not be there yet.
        let there = change(
            "SELECT pg_catalog.to_regprocedure('copymatch.claim_batch(integer)') IS NOT NULL",
            &[],
            |row| row.required::<bool>(1),
        )?;
        if there != [true] {
            return Ok(None);
        }
        let claimed = change("SELECT copymatch.claim_batch()", &[], |row| row.get::<Vec<i64>>(1))?;
        Ok(claimed.into_iter().flatten().next())
    });
    let worked = match claimed.filter(|ids| !ids.is_empty()) {
        None => false,
        Some(ids) => {
            in_transaction(|| {
                change(
                    "SELECT copymatch.process_claimed($1)",
                    &[crate::select::Parameter::of(ids.clone())],
                    |_| Ok(()),
                )
            });
            true
        }
    };
    report(false);
    worked
}

fn in_transaction<T>(work: impl FnOnce() -> Result<T, Failure>) -> T {
    BackgroundWorker::transaction(AssertUnwindSafe(|| boundary(work)))
}

/// Tells pg_stat_activity and the cumulative statistics.
fn report(running: bool) {
    let text = CString::new("copymatch: working off copymatch.queue").unwrap_or_default();
    // SAFETY: outside a transaction; the text is copied.
    unsafe {
        if running {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr());
        } else {
            pg_sys::pgstat_report_stat(false);
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        }
    }
}
