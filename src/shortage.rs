//! When the system has no more memory for a backend: ERROR 53200, as PostgreSQL's own.
//!
//! Crate `memory` has the allocator and its reserve. What the reserve cannot serve either would end the process by
//! SIGABRT, and PostgreSQL would then restart, with all sessions; here it ends this session alone.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use memory::OutOfMemory;
use pgrx::prelude::*;

use crate::failure::Failure;

#[global_allocator]
static ALLOCATOR: memory::Allocator = memory::Allocator;

/// What SIGABRT did before.
static EARLIER: OnceLock<libc::sigaction> = OnceLock::new();

/// The error for a shortage; `bytes` of the piece that was wanted, where that is known.
pub fn failure(bytes: Option<usize>) -> Failure {
    memory::recovered();
    let failure = Failure::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory").hint(
        "The server's limits (ulimit -v, LimitAS, overcommit) leave this session too little; smaller images, fewer of \
         them at once, or less maintenance_work_mem need less.",
    );
    match bytes {
        Some(bytes) => failure.detail(format!("Failed on request of size {bytes}.")),
        None => failure,
    }
}

impl From<OutOfMemory> for Failure {
    fn from(error: OutOfMemory) -> Self {
        failure(Some(error.bytes))
    }
}

/// Takes care of what the reserve cannot serve. Called from _PG_init.
pub fn guard() {
    // Rust would print a backtrace when memory runs out, and needs memory for that: it could wait for itself for ever.
    // Where the server was started with RUST_BACKTRACE, pgrx would also add one to the errors that users see.
    // SAFETY: PostgreSQL loads a library while its process has one thread.
    unsafe {
        std::env::set_var("RUST_BACKTRACE", "0");
        std::env::set_var("RUST_LIB_BACKTRACE", "0");
    }
    EARLIER.get_or_init(|| {
        let mut earlier = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the action is complete: zeroed, then a handler of the right signature.
        unsafe {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            action.sa_sigaction = on_abort as extern "C-unwind" fn(c_int) as usize;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGABRT, &action, earlier.as_mut_ptr());
            earlier.assume_init()
        }
    });
}

/// Rust calls abort() right after an allocation was refused, between two statements of ordinary code, so that what a
/// signal handler must not do can be done here. Every other abort() goes on as it would.
extern "C-unwind" fn on_abort(signal: c_int) {
    let bytes = memory::refused();
    // SAFETY: system calls; the message's format and its argument agree. errfinish does not return from FATAL.
    unsafe {
        let main_thread = libc::syscall(libc::SYS_gettid) == libc::c_long::from(libc::getpid());
        if bytes > 0 && main_thread && pg_sys::MyProcPid == libc::getpid() {
            memory::recovered();
            if errstart(pg_sys::FATAL as c_int, std::ptr::null()) {
                errcode(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as c_int);
                errmsg(c"out of memory".as_ptr());
                errdetail(
                    c"copymatch failed on a request of size %zu; this session ends.".as_ptr(),
                    bytes,
                );
                errfinish(c"shortage.rs".as_ptr(), 0, c"on_abort".as_ptr());
            }
        }
        let default = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        libc::sigaction(signal, EARLIER.get().unwrap_or(&default), std::ptr::null_mut());
        libc::raise(signal);
    }
}

// PostgreSQL's ereport is a macro over these. pgrx keeps them to itself, and its own report needs memory.
unsafe extern "C-unwind" {
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errcode(code: c_int) -> c_int;
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errdetail(format: *const c_char, ...) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}
