//! What signal handlers have asked for and is not done yet.

use pgrx::prelude::*;

/// Whether there is anything to do.
#[inline]
pub fn is_pending() -> bool {
    // SAFETY: signal handlers of this process set the flag; a volatile read of a sig_atomic_t is all that is done.
    unsafe { (&raw const pg_sys::InterruptPending).read_volatile() != 0 }
}

/// Whether the statement was cancelled or the session is to end.
pub fn is_to_end() -> bool {
    // SAFETY: as above.
    unsafe {
        (&raw const pg_sys::QueryCancelPending).read_volatile() != 0
            || (&raw const pg_sys::ProcDiePending).read_volatile() != 0
    }
}

/// CHECK_FOR_INTERRUPTS.
///
/// A cancel comes last. PostgreSQL's own order is the other way round: it clears the flag that says that there
/// is something to do, raises the cancel, and what else there was to do waits for the session's next
/// interrupt, which may be hours away.
pub fn process() {
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
