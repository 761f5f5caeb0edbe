//! A row that outlives the transaction which is about to be rolled back: a background worker of its own writes it.
//!
//! The session puts what is to be written into a segment of dynamic shared memory, starts a worker, and waits until
//! that has committed, for [`LONGEST`] at most. The worker runs as the server's first superuser, as the queue's do, and
//! does one thing: it calls `copymatch.record_refusal` of the installed extension with what the segment holds. Only
//! code in the server can start it. A session that ends, or is cancelled, takes the segment with it, and a worker that
//! finds none ends.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime};
use pgrx::prelude::*;

use super::guarded::{Ended, subtransaction};
use super::installed::is_installed;
use crate::background::{self, OnTerminate};
use crate::failure::{Failure, boundary};
use crate::interrupts::should_stop;
use crate::rights::as_extension_owner;
use crate::statements::{Parameter, change};

const KIND: &str = "copymatch refusal recorder";
/// How long a session waits for a free background worker and for its commit.
const LONGEST: Duration = Duration::from_secs(3);
/// How long the worker waits for a lock, in PostgreSQL's notation: not longer than anybody waits for it.
const LONGEST_LOCK: &std::ffi::CStr = c"2s";

const WAITING: u32 = 0;
const WRITTEN: u32 = 1;
/// The table of the uploads is not committed yet.
const UNCOMMITTED: u32 = 2;
/// The extension is not installed as this library is.
const ABSENT: u32 = 3;

/// What stands at the segment's start; the bytes of the JSON text follow.
#[repr(C)]
struct Header {
    state: AtomicU32,
    notify: u32,
    /// The row's identifier, once state says WRITTEN.
    id: AtomicI64,
    length: usize,
}

/// A mapped segment.
struct Segment(*mut pg_sys::dsm_segment);

impl Segment {
    /// A new one that holds `told`; None where the server has no more of them.
    fn create(refusal: &str, notify: bool) -> Option<Segment> {
        // SAFETY: within a (sub)transaction, whose end unmaps the segment. It is mapped at the start of a page and has
        // room for header and text; nobody else knows it yet.
        unsafe {
            let segment = pg_sys::dsm_create(
                size_of::<Header>() + refusal.len(),
                pg_sys::DSM_CREATE_NULL_IF_MAXSEGMENTS as i32,
            );
            if segment.is_null() {
                return None;
            }
            let start = pg_sys::dsm_segment_address(segment).cast::<Header>();
            start.write(Header {
                state: AtomicU32::new(WAITING),
                notify: notify.into(),
                id: AtomicI64::new(0),
                length: refusal.len(),
            });
            std::ptr::copy_nonoverlapping(refusal.as_ptr(), start.add(1).cast::<u8>(), refusal.len());
            Some(Segment(segment))
        }
    }

    /// One that a session made; None where that is gone.
    fn attach(handle: pg_sys::dsm_handle) -> Option<Segment> {
        // SAFETY: without a resource owner it stays mapped until this process ends.
        let segment = unsafe { pg_sys::dsm_attach(handle) };
        (!segment.is_null()).then_some(Segment(segment))
    }

    fn header(&self) -> &Header {
        // SAFETY: written by create() before anybody else could know the segment, and changed by atomics alone.
        unsafe { &*pg_sys::dsm_segment_address(self.0).cast::<Header>() }
    }

    fn refusal(&self) -> Option<&str> {
        let header = self.header();
        // SAFETY: the mapping's length bounds what is read.
        let text = unsafe {
            let length = header.length;
            if length > pg_sys::dsm_segment_map_length(self.0).saturating_sub(size_of::<Header>()) {
                return None;
            }
            std::slice::from_raw_parts((&raw const *header).add(1).cast::<u8>(), length)
        };
        std::str::from_utf8(text).ok()
    }
}

/// Has a worker record a refused upload, and gives the record's identifier once that is committed.
///
/// # Errors
/// No background worker or shared memory to be had, the worker failed (the server's log says why) or took too long, the
/// uploads' table is not committed, or the statement was cancelled.
pub fn record(refusal: &str, notify: bool) -> Result<i64, Failure> {
    // PostgreSQL's own errors on the way must not hide that the upload is refused.
    match subtransaction(|| written(refusal, notify)) {
        Ok(id) => Ok(id),
        Err(ended) if ended.is_cancel() => ended.again(),
        Err(Ended::Failed(failure)) => Err(failure),
        Err(Ended::Raised(_)) => Err(Failure::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
            "no dynamic shared memory could be had",
        )),
    }
}

fn written(refusal: &str, notify: bool) -> Result<i64, Failure> {
    let until = Instant::now() + LONGEST;
    let segment = Segment::create(refusal, notify).ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
            "the server has no more segments of dynamic shared memory",
        )
    })?;
    // SAFETY: the segment is mapped; variables of this backend.
    let (handle, database, own) = unsafe {
        (
            pg_sys::dsm_segment_handle(segment.0),
            u32::from(pg_sys::MyDatabaseId),
            pg_sys::MyProcPid,
        )
    };
    let worker = loop {
        let started = BackgroundWorkerBuilder::new(KIND)
            .set_type(KIND)
            .set_library("copymatch")
            .set_function("copymatch_refusal_recorder")
            .set_extra(&format!("{database} {handle}"))
            .enable_spi_access()
            .set_start_time(BgWorkerStartTime::RecoveryFinished)
            .set_restart_time(None)
            .set_notify_pid(own)
            .load_dynamic();
        match started {
            Ok(worker) => break worker,
            // Others that record refusals end in a moment.
            Err(_) if Instant::now() < until => nap(Duration::from_millis(10))?,
            Err(_) => {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
                    "no background worker was free",
                )
                .hint("Raise max_worker_processes."));
            }
        }
    };
    let header = segment.header();
    loop {
        // Asked first: a worker that has ended has said before what became of its work.
        let ended = matches!(
            worker.pid(),
            Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied)
        );
        match header.state.load(Ordering::Acquire) {
            WRITTEN => return Ok(header.id.load(Ordering::Acquire)),
            UNCOMMITTED => {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "the table of the uploads was made by the same transaction",
                ));
            }
            ABSENT => {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "the installed extension copymatch is not this library's version",
                )
                .hint("ALTER EXTENSION copymatch UPDATE."));
            }
            _ if ended => {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    "the background worker that records refusals failed; the server's log says why",
                ));
            }
            _ if Instant::now() >= until => {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                    format!("it took longer than {} s", LONGEST.as_secs()),
                ));
            }
            _ => nap(Duration::from_millis(100))?,
        }
    }
}

/// Waits on this process's latch, which the worker's start and end set.
fn nap(time: Duration) -> Result<(), Failure> {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: this process's latch. Whoever calls looks again at what it waits for.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            time.as_millis() as std::ffi::c_long,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    if should_stop() {
        return Err(Failure::stopped("recording a refused upload was cancelled"));
    }
    Ok(())
}

/// The worker's process.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn copymatch_refusal_recorder(_argument: pg_sys::Datum) {
    background::take_signals(OnTerminate::Cancel);
    let (database, handle) = BackgroundWorker::get_extra().split_once(' ').unwrap_or_default();
    let (Ok(database), Ok(handle)) = (database.parse::<u32>(), handle.parse::<pg_sys::dsm_handle>()) else {
        return;
    };
    let Some(segment) = Segment::attach(handle) else {
        return;
    };
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(database)), None);
    // SAFETY: settings of this process, which ends soon: a database's defaults must not keep the record out, nor an
    // absent standby or somebody's lock keep a worker for good.
    unsafe {
        for (name, value) in [
            (c"default_transaction_read_only", c"off"),
            (c"default_transaction_isolation", c"read committed"),
            (c"synchronous_commit", c"local"),
            (c"lock_timeout", LONGEST_LOCK),
        ] {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
            );
        }
    }
    let (state, id) = BackgroundWorker::transaction(AssertUnwindSafe(|| boundary(|| write(&segment))));
    let header = segment.header();
    header.id.store(id, Ordering::Release);
    header.state.store(state, Ordering::Release);
}

fn write(segment: &Segment) -> Result<(u32, i64), Failure> {
    if !is_installed("refusal")? {
        return Ok((ABSENT, 0));
    }
    let Some(refusal) = segment.refusal() else {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            "what a session said of a refused upload cannot be read",
        ));
    };
    as_extension_owner(|| {
        let recorded = change(
            "SELECT copymatch.record_refusal($1::pg_catalog.jsonb, $2)",
            &[Parameter::of(refusal), Parameter::of(segment.header().notify != 0)],
            |row| row.get::<i64>(1),
        )?;
        Ok(match recorded.into_iter().flatten().next() {
            Some(id) => (WRITTEN, id),
            None => (UNCOMMITTED, 0),
        })
    })
}
