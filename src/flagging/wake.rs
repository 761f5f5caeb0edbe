//! How a queue worker learns that there is work: a few slots of shared memory say which latch is whose. Only where
//! copymatch is in shared_preload_libraries; elsewhere workers look by themselves every copymatch.queue_naptime.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use pgrx::prelude::*;

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

static SHARED: AtomicPtr<Slots> = AtomicPtr::new(std::ptr::null_mut());

thread_local! {
    static ENQUEUED: Cell<bool> = const { Cell::new(false) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;
#[cfg(not(feature = "pg14"))]
static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;

/// Asks for the slots. Called from _PG_init while the postmaster preloads libraries.
pub fn request_shared_memory() {
    // SAFETY: the postmaster has one thread while it preloads libraries; hooks are chained as PostgreSQL asks for.
    unsafe {
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(make_slots);
        #[cfg(feature = "pg14")]
        pg_sys::RequestAddinShmemSpace(size_of::<Slots>());
        #[cfg(not(feature = "pg14"))]
        {
            PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
            pg_sys::shmem_request_hook = Some(request);
        }
    }
}

#[cfg(not(feature = "pg14"))]
#[pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: called by the postmaster, once, at the time for requests.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(size_of::<Slots>());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn make_slots() {
    let mut found = false;
    // SAFETY: called by the postmaster when shared memory is there, again after a crash; the memory is of the size asked for and
    // zeroed here, which is a valid state of every atomic.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        let slots: *mut Slots =
            pg_sys::ShmemInitStruct(c"copymatch queue workers".as_ptr(), size_of::<Slots>(), &mut found).cast();
        if !found {
            std::ptr::write_bytes(slots, 0, 1);
        }
        SHARED.store(slots, Ordering::Release);
    }
}

fn slots() -> Option<&'static [Slot; SLOTS]> {
    // SAFETY: null, or the slots, which live as long as the server.
    unsafe { SHARED.load(Ordering::Acquire).as_ref() }.map(|slots| &slots.listening)
}

/// Whether the preloaded worker of this number could not connect the last time. What is asked here is noted for the next start: a
/// worker that does connect says so by `connected`.
pub fn failed_before(worker: usize) -> bool {
    // SAFETY: null, or the slots, which live as long as the server.
    let slots = unsafe { SHARED.load(Ordering::Acquire).as_ref() };
    slots
        .and_then(|slots| slots.careful.get(worker))
        .is_some_and(|careful| careful.swap(1, Ordering::AcqRel) != 0)
}

/// The preloaded worker of this number is connected, or may try.
pub fn connected(worker: usize) {
    // SAFETY: as above.
    let slots = unsafe { SHARED.load(Ordering::Acquire).as_ref() };
    if let Some(careful) = slots.and_then(|slots| slots.careful.get(worker)) {
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
                // SAFETY: the latch of a PGPROC, which stays in shared memory; a process that has it by now wakes for nothing.
                unsafe { pg_sys::SetLatch(latch) };
            }
        }
    }
}
