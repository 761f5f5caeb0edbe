//! Asking before one needs.

use std::fmt;

/// The system has no memory for so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes that were asked for.
    pub bytes: usize,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out of memory: {} bytes are needed at once", self.bytes)
    }
}

impl std::error::Error for OutOfMemory {}

/// Whether the system would give so many bytes now. It is asked for them, and they are given back untouched, so whoever
/// needs them next finds them, unless another process takes them first.
///
/// # Errors
/// [`OutOfMemory`] when it would not.
pub fn ensure(bytes: usize) -> Result<(), OutOfMemory> {
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: a new private mapping that nobody else knows; it is unmapped by its own address and length.
    unsafe {
        let mapping = libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if mapping == libc::MAP_FAILED {
            return Err(OutOfMemory { bytes });
        }
        libc::munmap(mapping, bytes);
    }
    Ok(())
}

/// An empty vector with room for `count` elements.
///
/// # Errors
/// [`OutOfMemory`] where there is none.
pub fn vector<T>(count: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(count).map_err(|_| OutOfMemory {
        bytes: count.saturating_mul(size_of::<T>()),
    })?;
    Ok(vector)
}

/// A vector of `count` default elements.
///
/// # Errors
/// [`OutOfMemory`] where there is no room.
pub fn zeroed<T: Default + Clone>(count: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut vector = vector(count)?;
    vector.resize(count, T::default());
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_has_is_refused_and_a_little_is_not() {
        assert_eq!(ensure(1 << 50), Err(OutOfMemory { bytes: 1 << 50 }));
        assert_eq!(ensure(1 << 20), Ok(()));
        assert_eq!(ensure(0), Ok(()));
        assert!(vector::<u64>(usize::MAX / 4).is_err());
        assert_eq!(zeroed::<u32>(3), Ok(vec![0; 3]));
    }
}
