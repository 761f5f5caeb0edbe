//! Integers at offsets of a byte slice; outside of it there is `None`, never a panic.

/// Bytes with a byte order.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl<'a> Fields<'a> {
    pub(crate) fn little_endian(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            big_endian: false,
        }
    }

    pub(crate) fn big_endian(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            big_endian: true,
        }
    }

    pub(crate) fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    /// `length` bytes at `at`, as far as they are there.
    pub(crate) fn slice(&self, at: usize, length: usize) -> &'a [u8] {
        let rest = self.bytes.get(at..).unwrap_or(&[]);
        &rest[..length.min(rest.len())]
    }

    pub(crate) fn u8(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    pub(crate) fn u16(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes(at)?;
        Some(if self.big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    }

    /// Three bytes, as WebP stores sizes.
    pub(crate) fn u24(&self, at: usize) -> Option<u32> {
        let [a, b, c] = self.bytes(at)?;
        Some(if self.big_endian {
            u32::from_be_bytes([0, a, b, c])
        } else {
            u32::from_le_bytes([a, b, c, 0])
        })
    }

    pub(crate) fn u32(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes(at)?;
        Some(if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    pub(crate) fn u64(&self, at: usize) -> Option<u64> {
        let bytes = self.bytes(at)?;
        Some(if self.big_endian {
            u64::from_be_bytes(bytes)
        } else {
            u64::from_le_bytes(bytes)
        })
    }
}
