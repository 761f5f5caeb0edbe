//! What PostgreSQL asks of a backend in the midst of its work: to cancel, to end, to give way to a
//! standby's replay, to take part in a signal barrier (`DROP DATABASE` waits for every backend's), to look
//! whether its client is still there.
//!
//! Signal handlers only set flags; CHECK_FOR_INTERRUPTS acts on them. Work of ours that lasts polls [`should_stop`], on
//! the main thread, between images, bands, rows and steps; what calls PostgreSQL anyway uses [`process`].

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::prelude::*;

use crate::failure::Failure;
use crate::pending::{self, is_pending, is_to_end};
use crate::shortage;

/// Whether [`should_stop`] last said yes for want of memory. By the time it is asked why, what
/// needed the memory may be gone.
static STOPPED_SHORT: AtomicBool = AtomicBool::new(false);

/// Whether this statement is to end: PostgreSQL wants it, or memory has run out. Everything else that PostgreSQL
/// asks for is done here and now; where that is an error (a conflict on a standby, a client that is gone), it
/// unwinds through the caller.
///
/// A cancel and a shutdown are left for [`Failure::raise`], so
/// that work ends in good order.
pub fn should_stop() -> bool {
    if memory::is_short() {
        STOPPED_SHORT.store(true, Ordering::Relaxed);
        return true;
    }
    if !is_pending() {
        return false;
    }
    if !is_to_end() {
        process();
    }
    STOPPED_SHORT.store(false, Ordering::Relaxed);
    is_to_end()
}

/// Whether work that [`should_stop`] ended was ended for want of memory. Asked once for each end.
fn stopped_short() -> bool {
    STOPPED_SHORT.swap(false, Ordering::Relaxed)
}

/// CHECK_FOR_INTERRUPTS, for places where an error may unwind. Also tells that memory has run out.
pub fn process() {
    if memory::is_short() {
        shortage::failure(None).raise();
    }
    pending::process();
}

impl Failure {
    /// Work ended because `should_stop` said so: for want of memory, or because PostgreSQL wants the statement to end.
    pub fn stopped(message: impl Into<String>) -> Self {
        if stopped_short() {
            return shortage::failure(None);
        }
        Failure::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, message)
    }
}
