//! What PostgreSQL asks of a backend in the midst of its work: to cancel, to end, to give way to a
//! standby's replay, to take part in a signal barrier (`DROP DATABASE` waits for every backend's), to look
//! whether its client is still there.
//!
//! Signal handlers only set flags; CHECK_FOR_INTERRUPTS acts on them. Work of ours that lasts polls [`should_stop`], on
//! the main thread, between images, bands, rows and steps; what calls PostgreSQL anyway uses [`process`].

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::prelude::*;

use crate::shortage;

/// Whether [`should_stop`] last said yes for want of memory. By the time it is asked why, what
/// needed the memory may be gone.
static STOPPED_SHORT: AtomicBool = AtomicBool::new(false);

/// Whether this statement is to end: PostgreSQL wants it, or memory has run out. Everything else that PostgreSQL
/// asks for is done here and now; where that is an error (a conflict on a standby, a client that is gone), it
/// unwinds through the caller.
///
/// A cancel and a shutdown are left for [`Failure::raise`](crate::failure::Failure::raise), so
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
pub fn stopped_short() -> bool {
    STOPPED_SHORT.swap(false, Ordering::Relaxed)
}

/// CHECK_FOR_INTERRUPTS, for places where an error may unwind. Also tells that memory has run out.
///
/// A cancel comes last. PostgreSQL's own order is the other way round: it clears the flag that says that there
/// is something to do, raises the cancel, and what else there was to do waits for the session's next
/// interrupt, which may be hours away.
pub fn process() {
    if memory::is_short() {
        shortage::failure(None).raise();
    }
    if !is_pending() {
        return;
    }
    // SAFETY: on the main thread, and where no lock of PostgreSQL's is held (else it does nothing). The count is what
    // HOLD_CANCEL_INTERRUPTS and its counterpart change; an error that is raised meanwhile sets it back itself.
    unsafe {
        pg_sys::QueryCancelHoldoffCount += 1;
        pg_sys::ProcessInterrupts();
        pg_sys::QueryCancelHoldoffCount -= 1;
        pg_sys::ProcessInterrupts();
    }
}

/// Whether there is anything to do.
#[inline]
fn is_pending() -> bool {
    // SAFETY: signal handlers of this process set the flag; a volatile read of a sig_atomic_t is all that is done.
    unsafe { (&raw const pg_sys::InterruptPending).read_volatile() != 0 }
}

/// Whether the statement was cancelled or the session is to end.
fn is_to_end() -> bool {
    // SAFETY: as above.
    unsafe {
        (&raw const pg_sys::QueryCancelPending).read_volatile() != 0
            || (&raw const pg_sys::ProcDiePending).read_volatile() != 0
    }
}
