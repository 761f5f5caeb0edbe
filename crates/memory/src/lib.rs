//! What a process does when the system has no more memory for it, made for a database backend: one that ends takes the
//! transactions of all the others with it.
//!
//! Rust's collections end the process where an allocation fails. [`Allocator`] therefore keeps a small *reserve* that
//! the program's own data segment holds: what the system refuses comes from there, and [`is_short`] says so while any
//! of it is in use. Work asks at its usual points of cancellation and ends with an error of its own.
//!
//! The reserve is for the many small pieces. Whoever needs a large one asks first: [`ensure`] before work that
//! allocates deep inside other libraries, [`vector`] and [`zeroed`] for a single buffer. A large piece that is refused
//! all the same is noted in [`refused`] before Rust ends the process.

mod allocator;
mod need;
mod reserve;

pub use allocator::Allocator;
pub use need::{OutOfMemory, ensure, vector, zeroed};

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether an allocation was served from the reserve, since that was last untouched and [`recovered`] was last called.
static SHORT: AtomicBool = AtomicBool::new(false);
/// Bytes of the last allocation that could not be served at all.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// Whether work lives on the reserve. Who sees it ends as soon as he can.
#[inline]
pub fn is_short() -> bool {
    SHORT.load(Ordering::Relaxed)
}

/// Bytes of the last allocation that could not be served at all; 0 when there was none since
/// the last [`forget_refused`].
pub fn refused() -> usize {
    REFUSED.load(Ordering::Relaxed)
}

/// What was refused before has had its answer, or was only asked for.
#[inline]
pub fn forget_refused() {
    REFUSED.store(0, Ordering::Relaxed);
}

/// The shortage is being told: what still lies in the reserve, such as something kept for later, is no new one.
pub fn recovered() {
    SHORT.store(false, Ordering::Relaxed);
    forget_refused();
}

/// Gives memory that was freed back to the system, but for a mebibyte that the next piece of work begins with. The C
/// library would keep as much as twice the largest buffer that there was.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks, and touches only what is free.
    unsafe {
        libc::malloc_trim(1 << 20);
    }
}
