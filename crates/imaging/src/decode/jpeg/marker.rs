//! Finding markers.

/// The next marker at or after `at`, and the position behind it. Whatever is not a marker is skipped, as in libjpeg.
pub(super) fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let found = at + bytes.get(at..)?.iter().position(|&byte| byte == 0xFF)?;
    let code = found + bytes[found..].iter().position(|&byte| byte != 0xFF)?;
    Some((bytes[code], code + 1))
}
