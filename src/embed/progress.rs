//! How far bulk work is, told every few seconds.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use pgrx::prelude::*;

/// How often bulk work says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

struct Progress {
    statement: pg_sys::TimestampTz,
    started: Instant,
    said: Instant,
    done: i64,
}

thread_local! {
    static PROGRESS: RefCell<Option<Progress>> = const { RefCell::new(None) };
}

/// Counts one piece of the running statement's work and says every few seconds how far it is.
pub fn count_progress(total: i64, what: &str) {
    // SAFETY: reads a variable of this backend.
    let statement = unsafe { pg_sys::GetCurrentStatementStartTimestamp() };
    let now = Instant::now();
    let line = PROGRESS.with_borrow_mut(|progress| {
        let current = match progress {
            Some(current) if current.statement == statement => current,
            _ => progress.insert(Progress {
                statement,
                started: now,
                said: now,
                done: 0,
            }),
        };
        current.done += 1;
        if now - current.said < PROGRESS_EVERY {
            return None;
        }
        current.said = now;
        let rate = current.done as f64 / (now - current.started).as_secs_f64();
        let left = (total - current.done).max(0) as f64 / rate;
        Some(format!(
            "{} of {total} {what}, {rate:.0} a second, about {left:.0} s to go",
            current.done
        ))
    });
    if let Some(line) = line {
        notice!("{line}");
    }
}
