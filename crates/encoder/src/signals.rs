//! Threads of a library, and of ours, must never run the host's signal handlers, which are for its main thread.
//!
//! A thread inherits the signal mask of the one that creates it, so all signals are blocked in the calling thread while
//! the library may start threads, and the caller's own mask is put back afterwards. A signal that arrives meanwhile
//! stays pending and is delivered then.

#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// While it lives, the thread that made it has all signals blocked. Dropping it puts the earlier mask back, also when
/// an error or a panic ends the work in between.
pub struct SignalsBlocked {
    previous: libc::sigset_t,
    // The mask belongs to one thread; the guard must not be dropped on another.
    not_send: PhantomData<*const ()>,
}

impl SignalsBlocked {
    /// Blocks them.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut previous = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: both sets are valid for writes; sigfillset initialises `all` before pthread_sigmask reads it.
        let status = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), previous.as_mut_ptr())
        };
        if status != 0 {
            return Err(io::Error::from_raw_os_error(status));
        }
        // SAFETY: pthread_sigmask succeeded, so it has written the earlier mask.
        let previous = unsafe { previous.assume_init() };
        Ok(Self {
            previous,
            not_send: PhantomData,
        })
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `previous` is a mask that the system handed out for this very thread.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.previous, std::ptr::null_mut()) };
    }
}
