//! Large buffers, taken fallibly: a machine short of memory gives an [`ImageError::OutOfMemory`], not an abort.

use crate::ImageError;

/// `count` zeros. The pages come zeroed from the system and are touched only when they are written.
///
/// # Errors
/// [`ImageError::OutOfMemory`].
pub fn zeroed<T: Default + Clone>(count: usize) -> Result<Vec<T>, ImageError> {
    // `vec![0; n]` is the only safe way to zeroed pages and aborts when there are none; so the same request is made
    // fallibly first and given back. Nothing runs in between.
    std::hint::black_box(with_room::<T>(count)?);
    Ok(vec![T::default(); count])
}

/// An empty buffer with room for `count` elements.
///
/// # Errors
/// [`ImageError::OutOfMemory`].
pub fn with_room<T>(count: usize) -> Result<Vec<T>, ImageError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(count).map_err(|_| ImageError::OutOfMemory {
        bytes: (count as u64).saturating_mul(size_of::<T>() as u64),
    })?;
    Ok(buffer)
}

/// A copy of `source`.
///
/// # Errors
/// [`ImageError::OutOfMemory`].
pub fn copy<T: Copy>(source: &[T]) -> Result<Vec<T>, ImageError> {
    let mut copy = with_room(source.len())?;
    copy.extend_from_slice(source);
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_has_is_an_error_that_names_the_bytes() {
        let bytes = 1 << 60;
        assert_eq!(zeroed::<u8>(1 << 60), Err(ImageError::OutOfMemory { bytes }));
        assert_eq!(with_room::<u64>(1 << 57), Err(ImageError::OutOfMemory { bytes }));
        assert_eq!(zeroed::<u8>(3), Ok(vec![0; 3]));
        assert_eq!(copy(&[1, 2]), Ok(vec![1, 2]));
    }
}
