//! Threads that share a piece of work with the one that has it.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, scope};

use crate::kmeans::THREAD_BYTES;

/// How many threads work, and how others than this one are started.
pub struct Threads<'a> {
    count: usize,
    start: &'a (dyn Fn(&mut dyn FnMut()) + Sync),
}

impl Threads<'_> {
    /// This thread alone.
    pub const ALONE: Threads<'static> = Threads {
        count: 1,
        start: &|start| start(),
    };
}

impl<'a> Threads<'a> {
    /// So many, this one among them. `start` calls what it is given, in which threads are started: under whatever they
    /// are to inherit, such as blocked signals.
    pub fn new(count: usize, start: &'a (dyn Fn(&mut dyn FnMut()) + Sync)) -> Self {
        Threads {
            count: count.max(1),
            start,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Does the parts of a work, the first of them on this thread and each other on one of its own, or on this one
    /// where none can be started. There should be no more parts than threads.
    ///
    /// # Errors
    /// One of the work's.
    pub fn share<T: Send, E: Send>(
        &self,
        parts: impl IntoIterator<Item = T>,
        work: impl Fn(T) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let mut parts = parts.into_iter();
        let Some(mine) = parts.next() else {
            return Ok(());
        };
        let others: Vec<Mutex<Option<T>>> = parts.map(|part| Mutex::new(Some(part))).collect();
        // Whoever comes first does a part: the thread that was started for it, or this one.
        let take = |part: &Mutex<Option<T>>| {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner).take();
            part.map_or(Ok(()), &work)
        };
        if others.is_empty() {
            return work(mine);
        }
        scope(|scope| {
            let mut started = Vec::new();
            (self.start)(&mut || {
                for part in &others[started.len()..] {
                    if memory::ensure(THREAD_BYTES).is_err() {
                        break;
                    }
                    match Builder::new().spawn_scoped(scope, || take(part)) {
                        Ok(thread) => started.push(thread),
                        Err(_) => break,
                    }
                }
            });
            let mut outcome = work(mine);
            for part in &others {
                outcome = outcome.and_then(|()| take(part));
            }
            for thread in started {
                let of_thread = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
                outcome = outcome.and(of_thread);
            }
            outcome
        })
    }
}
