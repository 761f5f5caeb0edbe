//! Memory that pictures took goes back to the system at the end of a transaction: the C library keeps what was freed,
//! up to twice the largest buffer, and hundreds of connections that are idle most of the time would each keep that.

use std::cell::Cell;
use std::time::{Duration, Instant};

use pgrx::prelude::*;

/// How often at most: what was given back is fetched anew, page by page, which takes a fifth of what a picture of a
/// megapixel takes a session.
const EVERY: Duration = Duration::from_secs(1);

thread_local! {
    /// Whether a picture was decoded since memory was last given back.
    static DECODED: Cell<bool> = const { Cell::new(false) };
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// A picture is about to be decoded.
pub fn at_end_of_transaction() {
    if !REGISTERED.replace(true) {
        // SAFETY: a function that lives as long as the library, and no argument.
        unsafe { pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut()) };
    }
    DECODED.set(true);
}

#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{
        XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PARALLEL_ABORT, XACT_EVENT_PARALLEL_COMMIT, XACT_EVENT_PREPARE,
    };
    let ends = matches!(
        event,
        XACT_EVENT_COMMIT
            | XACT_EVENT_PARALLEL_COMMIT
            | XACT_EVENT_ABORT
            | XACT_EVENT_PARALLEL_ABORT
            | XACT_EVENT_PREPARE
    );
    // Where it is too early, a later transaction does it, whatever that is about.
    let is_due = || LAST.get().is_none_or(|last| last.elapsed() >= EVERY);
    if ends && DECODED.get() && is_due() {
        DECODED.set(false);
        LAST.set(Some(Instant::now()));
        memory::give_back();
    }
}
