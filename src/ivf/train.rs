//! Threads of a build. They compute and call no PostgreSQL function; the backend waits for them where it can be
//! interrupted.
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use encoder::SignalsBlocked;
use ivf_core::{Sample, Trained};
use pgrx::prelude::*;

use crate::failure::Failure;
use crate::interrupts;
use crate::interrupts::should_stop;

/// How long an interrupt may wait.
const POLL: Duration = Duration::from_millis(20);
/// What a finished training has made of its progress counter.
const DONE: u64 = 1000;

/// A training that runs. Dropped before its end, by an error or an interrupt, it is told to stop and waited for.
struct Running {
    thread: Option<JoinHandle<ivf_core::Result<Trained>>>,
    cancel: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.cancel.store(true, Ordering::Relaxed);
            // What it returns or died of matters no more.
            drop(thread.join());
        }
    }
}

/// Trains centroids on `threads` threads; `progress` is told the part done, of 1000. Where no thread can be started,
/// the backend trains by itself, and tells nothing meanwhile.
pub(super) fn train(
    sample: Sample,
    lists: u32,
    threads: usize,
    mut progress: impl FnMut(u64),
) -> Result<ivf_core::Result<Trained>, Failure> {
    let cancel = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    // Whoever trains takes it.
    let sample = Arc::new(Mutex::new(Some(sample)));
    let taken = |sample: &Mutex<Option<Sample>>| sample.lock().unwrap_or_else(PoisonError::into_inner).take();
    let work = {
        let (cancel, done, backend) = (cancel.clone(), done.clone(), thread::current());
        let sample = sample.clone();
        move || {
            let sample = taken(&sample).ok_or(ivf_core::Error::Cancelled)?;
            let trained = Trained::train(sample, lists, threads, &|| cancel.load(Ordering::Relaxed), &done);
            backend.unpark();
            trained
        }
    };
    let started = match memory::ensure(ivf_core::THREAD_BYTES) {
        Err(_) => Err(io::ErrorKind::OutOfMemory.into()),
        Ok(()) => {
            let _blocked = SignalsBlocked::new().map_err(|error| no_thread(&error))?;
            thread::Builder::new().name("ivf training".to_owned()).spawn(work)
        }
    };
    let thread = match started {
        Ok(thread) => thread,
        Err(error) => {
            let sample = taken(&sample).ok_or_else(|| no_thread(&error))?;
            return Ok(Trained::train(sample, lists, 1, &should_stop, &done));
        }
    };
    let mut running = Running {
        thread: Some(thread),
        cancel,
    };
    while running.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
        interrupts::process();
        progress(done.load(Ordering::Relaxed).min(DONE));
        thread::park_timeout(POLL);
    }
    let Some(thread) = running.thread.take() else {
        return Ok(Err(ivf_core::Error::Cancelled));
    };
    thread.join().map_err(|_| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "training of an ivf index met an internal error",
        )
        .hint("The cause is in the server log.")
    })
}

/// Threads of a build: what `copymatch.build_threads` says, or as many as PostgreSQL would use processes and the
/// machine has cores.
pub(super) fn threads() -> usize {
    let set = crate::settings::build_threads();
    if set > 0 {
        return set;
    }
    // SAFETY: a setting of this process.
    let workers = unsafe { pg_sys::max_parallel_maintenance_workers };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (usize::try_from(workers).unwrap_or(0) + 1).min(cores)
}

pub(super) fn no_thread(error: &io::Error) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
        format!("could not start a thread: {error}"),
    )
}
