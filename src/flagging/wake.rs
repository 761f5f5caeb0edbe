//! How a queue worker learns that there is work: a few slots of shared memory say which latch is whose. Only where
//! copymatch is in shared_preload_libraries; elsewhere workers look by themselves every copymatch.queue_naptime.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use pgrx::prelude::*;

use crate::shared_memory::Area;

/// Workers that can be woken at a time; any further ones look by themselves.
const SLOTS: usize = 64;

struct Slot {
    /// OID of the worker's database, 0 where the slot is free.
    database: AtomicU32,
    latch: AtomicPtr<pg_sys::Latch>,
}

struct Slots {
    listening: [Slot; SLOTS],
    /// By the number of a preloaded worker: whether its next start looks for its database before it connects.
    careful: [AtomicU32; SLOTS],
}

/// The slots, all free at first, which is what zeroes are to every atomic.
pub static AREA: Area = Area::new(c"copymatch queue workers", size_of::<Slots>, size_of::<Slots>);

thread_local! {
    static ENQUEUED: Cell<bool> = const { Cell::new(false) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

fn shared() -> Option<&'static Slots> {
    // SAFETY: the area is of this size and lives as long as the server.
    AREA.start().map(|start| unsafe { start.cast::<Slots>().as_ref() })
}

fn slots() -> Option<&'static [Slot; SLOTS]> {
    shared().map(|slots| &slots.listening)
}

/// Whether the preloaded worker of this number could not connect the last time. What is asked here is noted for the
/// next start: a worker that does connect says so by `connected`.
pub fn failed_before(worker: usize) -> bool {
    shared()
        .and_then(|slots| slots.careful.get(worker))
        .is_some_and(|careful| careful.swap(1, Ordering::AcqRel) != 0)
}

/// The preloaded worker of this number is connected, or may try.
pub fn connected(worker: usize) {
    if let Some(careful) = shared().and_then(|slots| slots.careful.get(worker)) {
        careful.store(0, Ordering::Release);
    }
}

/// Whether the server was started with the library preloaded.
pub fn is_preloaded() -> bool {
    slots().is_some()
}

/// Makes this process's latch the one that is set when its database has work. False where it cannot be woken.
pub fn listen() -> bool {
    let Some(slots) = slots() else { return false };
    // SAFETY: variables of this process, set when it connected to its database.
    let (database, latch) = unsafe { (u32::from(pg_sys::MyDatabaseId), &raw mut (*pg_sys::MyProc).procLatch) };
    for slot in slots {
        if slot
            .database
            .compare_exchange(0, database, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            slot.latch.store(latch, Ordering::Release);
            // SAFETY: the callback lives as long as the library.
            unsafe { pg_sys::before_shmem_exit(Some(forget), pg_sys::Datum::from(0usize)) };
            return true;
        }
    }
    false
}

#[pg_guard]
unsafe extern "C-unwind" fn forget(_code: std::ffi::c_int, _argument: pg_sys::Datum) {
    // SAFETY: MyProc is valid until shared memory is left.
    let own = unsafe { &raw mut (*pg_sys::MyProc).procLatch };
    for slot in slots().into_iter().flatten() {
        if slot.latch.load(Ordering::Acquire) == own {
            slot.latch.store(std::ptr::null_mut(), Ordering::Release);
            slot.database.store(0, Ordering::Release);
        }
    }
}

/// Wakes this database's workers when the transaction commits.
pub fn at_commit() {
    ENQUEUED.set(true);
    if slots().is_some() && !REGISTERED.replace(true) {
        // SAFETY: the callback lives as long as the library.
        unsafe { pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut()) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT | pg_sys::XactEvent::XACT_EVENT_PREPARE if ENQUEUED.replace(false) => {
            wake()
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT => ENQUEUED.set(false),
        _ => (),
    }
}

fn wake() {
    // SAFETY: a variable of this backend.
    let database = u32::from(unsafe { pg_sys::MyDatabaseId });
    for slot in slots().into_iter().flatten() {
        if slot.database.load(Ordering::Acquire) == database {
            let latch = slot.latch.load(Ordering::Acquire);
            if !latch.is_null() {
                // SAFETY: the latch of a PGPROC, which stays in shared memory; a process that has it
                // by now wakes for nothing.
                unsafe { pg_sys::SetLatch(latch) };
            }
        }
    }
}
