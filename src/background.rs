//! What copymatch's background workers have in common: SIGTERM ends them, SIGHUP has them read the configuration anew.

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::prelude::*;

/// What SIGTERM does beside asking the worker to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OnTerminate {
    /// Nothing: the worker looks by itself.
    Finish,
    /// It cancels the statement under way.
    Cancel,
}

static STOPPED: AtomicBool = AtomicBool::new(false);
static CANCELS: AtomicBool = AtomicBool::new(false);

/// Whether this process was asked to end.
pub fn stopped() -> bool {
    STOPPED.load(Ordering::SeqCst)
}

/// Takes signals from here on. A worker calls it first: until then they are blocked.
pub fn take_signals(on_terminate: OnTerminate) {
    CANCELS.store(on_terminate == OnTerminate::Cancel, Ordering::SeqCst);
    // SAFETY: signals are still blocked; the handlers only set flags and the latch.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        use pg_sys::pqsignal as handle;
        #[cfg(feature = "pg18")]
        use pg_sys::pqsignal_be as handle;
        handle(pg_sys::SIGTERM as i32, Some(on_sigterm));
        handle(pg_sys::SIGHUP as i32, Some(on_sighup));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Reads the configuration again where SIGHUP asked for it, and says whether it did. Outside of transactions.
pub fn reload_configuration() -> bool {
    // SAFETY: a flag that the handler below sets; the configuration is read as every process of the server reads it.
    unsafe {
        if (&raw const pg_sys::ConfigReloadPending).read_volatile() == 0 {
            return false;
        }
        pg_sys::ConfigReloadPending = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
    }
    true
}

/// The server shuts down, or somebody ends this process.
unsafe extern "C-unwind" fn on_sigterm(_signal: std::ffi::c_int) {
    STOPPED.store(true, Ordering::SeqCst);
    // SAFETY: flags that signal handlers set, and this process's latch, which may be set from a handler.
    unsafe {
        if CANCELS.load(Ordering::SeqCst) {
            pg_sys::QueryCancelPending = 1;
            pg_sys::InterruptPending = 1;
        }
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}

unsafe extern "C-unwind" fn on_sighup(_signal: std::ffi::c_int) {
    // SAFETY: as above.
    unsafe {
        pg_sys::ConfigReloadPending = 1;
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}
