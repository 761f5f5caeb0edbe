//! Areas of shared memory, which the postmaster makes while it starts: only where copymatch is in
//! shared_preload_libraries.

use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::prelude::*;

/// One area: a static of the module that it belongs to.
pub struct Area {
    name: &'static CStr,
    bytes: fn() -> usize,
    zeroed: fn() -> usize,
    start: AtomicPtr<u8>,
}

impl Area {
    /// An area of `bytes`, of which the first `zeroed` are zero when the server starts, also after a crash. Settings
    /// that the sizes rest upon do not change while the server runs.
    pub const fn new(name: &'static CStr, bytes: fn() -> usize, zeroed: fn() -> usize) -> Self {
        Area {
            name,
            bytes,
            zeroed,
            start: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// Where it begins, on a cache line; None where the server did not preload the library. It lives as long as the
    /// server.
    pub fn start(&self) -> Option<NonNull<u8>> {
        NonNull::new(self.start.load(Ordering::Acquire))
    }
}

/// The areas that were asked for.
static AREAS: OnceLock<&[&Area]> = OnceLock::new();

static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;
#[cfg(not(feature = "pg14"))]
static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;

/// Asks for the library's areas. Called from _PG_init while the postmaster preloads libraries, once the settings are
/// there.
pub fn request(areas: &'static [&'static Area]) {
    let _ = AREAS.set(areas);
    // SAFETY: the postmaster has one thread while it preloads libraries; hooks are chained as PostgreSQL asks for.
    unsafe {
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(make);
        #[cfg(feature = "pg14")]
        for area in AREAS.get().copied().unwrap_or_default() {
            pg_sys::RequestAddinShmemSpace((area.bytes)());
        }
        #[cfg(not(feature = "pg14"))]
        {
            PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
            pg_sys::shmem_request_hook = Some(ask);
        }
    }
}

#[cfg(not(feature = "pg14"))]
#[pg_guard]
unsafe extern "C-unwind" fn ask() {
    // SAFETY: called by the postmaster, once, at the time for requests.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST {
            previous();
        }
        for area in AREAS.get().copied().unwrap_or_default() {
            pg_sys::RequestAddinShmemSpace((area.bytes)());
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn make() {
    // SAFETY: called by the postmaster when shared memory is there, again after a crash, when no other process is left.
    // The memory is of the size asked for.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        for area in AREAS.get().copied().unwrap_or_default() {
            let mut found = false;
            let start = pg_sys::ShmemInitStruct(area.name.as_ptr(), (area.bytes)(), &mut found).cast::<u8>();
            if !found {
                std::ptr::write_bytes(start, 0, (area.zeroed)());
            }
            area.start.store(start, Ordering::Release);
        }
    }
}
