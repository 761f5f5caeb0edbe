//! The queue's background workers: from shared_preload_libraries for the databases that copymatch.queue_databases
//! lists, or started by `copy_start_worker()`.

use std::ffi::{CStr, CString};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use pgrx::PgTryBuilder;
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::prelude::*;

use super::guarded::subtransaction;
use super::installed::is_installed;
use super::queue::{claim, process, release};
use super::wake;
use crate::background::{self, OnTerminate};
use crate::failure::{Failure, boundary};
use crate::rights::as_extension_owner;
use crate::settings;
use crate::statements::{Parameter, change};

const KIND: &str = "copymatch queue worker";
/// How long after a failure or a crash a worker starts again.
const RESTART: Duration = Duration::from_secs(5);
/// What a worker from shared_preload_libraries has as its argument; others have their database's OID.
const PRELOADED: u32 = 0;

/// Registers the workers of copymatch.queue_databases. Called from _PG_init while the postmaster preloads libraries.
pub fn register_workers() {
    let mut number = 0;
    for database in settings::queue_databases() {
        for _ in 0..settings::queue_workers() {
            describe(&format!("{KIND} for {database}"), PRELOADED)
                .set_extra(&format!("{number} {database}"))
                .load();
            number += 1;
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
        let (database, own, recovering) = unsafe {
            (
                u32::from(pg_sys::MyDatabaseId),
                pg_sys::MyProcPid,
                pg_sys::RecoveryInProgress(),
            )
        };
        if recovering {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "a standby has no queue to work off",
            )
            .hint("Start the worker on the primary, or here after the promotion."));
        }
        let _one_at_a_time = StartLock::take();
        let (running, most) = (others()?, settings::queue_max_started());
        if running >= i64::from(most) {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                format!("{running} queue workers are running already that copy_start_worker() started"),
            )
            .detail("They count in all databases together: background workers are few, and others need some too.")
            .hint(format!(
                "copy_stop_worker() ends this database's; copymatch.queue_max_started ({most}) is the limit; CALL \
                 copy_process_queue() needs no worker."
            )));
        }
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
        let pid = worker.wait_for_startup().map_err(|_| none_free())?;
        until_counted(pid)?;
        Ok(pid)
    })
}

/// Held while workers are counted and one is started: over all databases, unlike an advisory lock.
struct StartLock;

impl StartLock {
    /// No catalogue row of pg_extension is shared between databases: nobody else locks one as if it were.
    const CLASS: pg_sys::Oid = pg_sys::ExtensionRelationId;

    fn take() -> StartLock {
        // SAFETY: a lock of this transaction, released below or at its end.
        unsafe {
            pg_sys::LockSharedObject(
                Self::CLASS,
                pg_sys::InvalidOid,
                0,
                pg_sys::ExclusiveLock as pg_sys::LOCKMODE,
            );
        }
        StartLock
    }
}

impl Drop for StartLock {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: taken in take().
            unsafe {
                pg_sys::UnlockSharedObject(
                    Self::CLASS,
                    pg_sys::InvalidOid,
                    0,
                    pg_sys::ExclusiveLock as pg_sys::LOCKMODE,
                );
            }
        }
    }
}

/// Workers that run now, in all databases, but for those that the server's configuration asks for.
fn others() -> Result<i64, Failure> {
    let running = counted("a.backend_type = $1", Parameter::of(KIND))?;
    let preloaded = if wake::is_preloaded() {
        settings::queue_databases().len() as i64 * i64::from(settings::queue_workers())
    } else {
        0
    };
    Ok((running - preloaded).max(0))
}

/// Processes of the server that fulfil a condition now, not when the transaction first looked.
fn counted(condition: &str, parameter: Parameter) -> Result<i64, Failure> {
    as_extension_owner(|| {
        change("SELECT FROM pg_catalog.pg_stat_clear_snapshot()", &[], |_| Ok(()))?;
        let counted = change(
            &format!("SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_get_activity(NULL) a WHERE {condition}"),
            &[parameter],
            |row| row.required::<i64>(1),
        )?;
        Ok(counted.into_iter().sum())
    })
}

/// Waits until a worker that has just begun is one that the next caller counts.
fn until_counted(pid: i32) -> Result<(), Failure> {
    for _ in 0..500 {
        if counted(
            "a.backend_type IS NOT NULL AND a.datid <> 0 AND a.pid = $1",
            Parameter::of(pid),
        )? > 0
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
        crate::interrupts::process();
    }
    Ok(())
}

#[pg_extern(sql = false)]
fn copy_stop_worker() -> i64 {
    boundary(|| {
        as_extension_owner(|| {
            change("SELECT FROM pg_catalog.pg_stat_clear_snapshot()", &[], |_| Ok(()))?;
            let ended = change(
                "SELECT pg_catalog.count(*) FILTER (WHERE pg_catalog.pg_terminate_backend(a.pid)) \
                 FROM pg_catalog.pg_stat_get_activity(NULL) a \
                 WHERE a.backend_type = $1 AND a.datid = (SELECT d.oid FROM pg_catalog.pg_database d \
                                                          WHERE d.datname = pg_catalog.current_database())",
                &[Parameter::of(KIND)],
                |row| row.required::<i64>(1),
            )?;
            Ok(ended.into_iter().sum())
        })
    })
}

/// A worker's process.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn copymatch_queue_worker(argument: pg_sys::Datum) {
    let database = argument.value() as u32;
    // The entries of a batch that is cancelled stay in the queue.
    background::take_signals(OnTerminate::Cancel);
    if database == PRELOADED {
        let (number, name) = BackgroundWorker::get_extra().split_once(' ').unwrap_or_default();
        let number = number.parse().unwrap_or(usize::MAX);
        if wake::failed_before(number) {
            // Whoever connects to a database that is not there ends with FATAL: look for it
            // first. A process connects once.
            until_there(name);
            wake::connected(number);
            // SAFETY: ends this process as every PostgreSQL process ends; with 1 it is started again.
            unsafe { pg_sys::proc_exit(1) };
        }
        BackgroundWorker::connect_worker_to_spi(Some(name), None);
        wake::connected(number);
    } else {
        BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(database)), None);
    }
    wake::listen();
    while !background::stopped() {
        let stopped = PgTryBuilder::new(AssertUnwindSafe(|| {
            turn();
            false
        }))
        .catch_others(|error| {
            if background::stopped() {
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
    // Exit 0 is the end of a worker; any other is started again, unless the server shuts down. The end of the
    // process rolls back what is open.
    let code = if database == PRELOADED { 1 } else { 0 };
    // SAFETY: ends this process in the way every PostgreSQL process ends.
    unsafe { pg_sys::proc_exit(code) };
}

/// Longest wait between two looks for a database that is not there.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Waits until there is a database of this name, with a WARNING at the first look and whenever the wait doubles.
fn until_there(name: &str) {
    BackgroundWorker::connect_worker_to_spi(None, None);
    let text = CString::new(name).unwrap_or_default();
    let mut wait = RESTART;
    while !background::stopped() {
        let there = BackgroundWorker::transaction(AssertUnwindSafe(|| is_there(&text)));
        if there {
            return;
        }
        pgrx::warning!(
            "database \"{name}\" of copymatch.queue_databases does not exist; its queue worker looks again in {} s",
            wait.as_secs()
        );
        nap(wait.as_millis() as i64);
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Whether there is a database of this name. Read from end to end: without a database of its
/// own a process knows no index.
fn is_there(name: &CStr) -> bool {
    // SAFETY: within a transaction; pg_database is one of the relations that every process knows, and its rows begin
    // with their fixed columns.
    unsafe {
        let databases = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let scan = pg_sys::table_beginscan_catalog(databases, 0, std::ptr::null_mut());
        let mut found = false;
        while !found {
            let row = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if row.is_null() {
                break;
            }
            let database = pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_database>();
            found = CStr::from_ptr((*database).datname.data.as_ptr()) == name;
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(databases, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        found
    }
}

/// Sleeps until somebody wakes this process.
fn nap(milliseconds: i64) {
    // SAFETY: MyLatch is this process's; with WL_EXIT_ON_PM_DEATH the wait does not outlive the postmaster.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
            milliseconds as _,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// One batch, or a nap where there is none.
fn turn() {
    background::reload_configuration();
    let worked = batch();
    nap(if worked { 0 } else { settings::queue_naptime() });
    crate::interrupts::process();
}

/// Claims a batch and commits that, works it off and commits that: after a crash in between, a
/// claim shows as a failed try.
fn batch() -> bool {
    report(true);
    let claimed = in_transaction(|| {
        if !is_installed("queue")? {
            return Ok(Vec::new());
        }
        claim(settings::queue_batch())
    });
    let worked = !claimed.is_empty();
    let mut ended = None;
    let mut out_of_memory = false;
    if worked {
        in_transaction(|| {
            if !is_installed("queue")? {
                return Ok(());
            }
            match subtransaction(|| process(&claimed)) {
                Ok(worked) => out_of_memory = worked.out_of_memory,
                // Stopped, or an error that no entry is to blame for: what was claimed is given back.
                Err(error) => {
                    release(&claimed)?;
                    ended = Some(error);
                }
            }
            Ok(())
        });
    }
    report(false);
    if let Some(error) = ended {
        boundary(|| -> Result<(), Failure> { error.again() });
    }
    if out_of_memory {
        // ONNX Runtime does not recover from memory that ran out while it loaded: a fresh process does.
        pgrx::log!("copymatch: out of memory, the queue worker starts again");
        // SAFETY: ends this process as every PostgreSQL process ends; with 1 it is started again.
        unsafe { pg_sys::proc_exit(1) };
    }
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
