//! Threads of ours run none of PostgreSQL's signal handlers, which are for the backend's main thread.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// While it lives, this thread has all signals blocked, and so has every thread that it starts.
pub struct SignalsBlocked {
    previous: libc::sigset_t,
    // The mask belongs to one thread; the guard must not be dropped on another.
    not_send: PhantomData<*const ()>,
}

impl SignalsBlocked {
    /// Blocks them.
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
        Ok(SignalsBlocked {
            // SAFETY: pthread_sigmask succeeded, so it has written the earlier mask.
            previous: unsafe { previous.assume_init() },
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
