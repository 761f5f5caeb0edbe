//! Which format the bytes are in, by their signature. A file name or a MIME type is never asked.

use crate::{Format, ImageError};

impl Format {
    /// The format whose signature starts `bytes`.
    ///
    /// # Errors
    /// [`ImageError::Empty`], or [`ImageError::UnknownFormat`] with the bytes found and, where they are the signature
    /// of a known but unsupported format, its name.
    pub fn of(bytes: &[u8]) -> Result<Self, ImageError> {
        match bytes {
            [] => Err(ImageError::Empty),
            [0xFF, 0xD8, 0xFF, ..] => Ok(Format::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Ok(Format::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Format::WebP),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Format::Gif),
            // "BM" alone starts many a text: the header that follows must have one of the known lengths.
            [
                b'B',
                b'M',
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                12 | 16 | 40 | 52 | 56 | 64 | 108 | 124,
                0,
                0,
                0,
                ..,
            ] => Ok(Format::Bmp),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(Format::Tiff),
            _ => Err(ImageError::UnknownFormat { found: describe(bytes) }),
        }
    }
}

/// Names what the bytes look like instead, so that the message helps with the usual mix-ups.
fn describe(bytes: &[u8]) -> String {
    let known = match bytes {
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f' | b's', ..] => Some("an AVIF picture"),
        [
            _,
            _,
            _,
            _,
            b'f',
            b't',
            b'y',
            b'p',
            b'h' | b'm',
            b'e' | b'i',
            b'i' | b'v' | b'f',
            _,
            ..,
        ] => Some("a HEIF picture"),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some("an MP4 or QuickTime film"),
        [0xFF, 0x0A, ..] | [0, 0, 0, 0x0C, b'J', b'X', b'L', b' ', ..] => Some("a JPEG XL picture"),
        [0, 0, 0, 0x0C, b'j', b'P', b' ', b' ', ..] | [0xFF, 0x4F, 0xFF, 0x51, ..] => Some("a JPEG 2000 picture"),
        [0, 0, 1, 0, ..] => Some("a Windows icon"),
        [b'8', b'B', b'P', b'S', ..] => Some("a Photoshop document"),
        [b'%', b'P', b'D', b'F', ..] => Some("a PDF document"),
        [b'<', b's', b'v', b'g', ..] | [b'<', b'?', b'x', b'm', b'l', ..] => Some("an SVG or XML document"),
        [b'<', ..] => Some("an HTML or XML document"),
        [b'P', b'K', 3, 4, ..] => Some("a ZIP archive"),
        [0x1F, 0x8B, ..] => Some("gzip-compressed data"),
        [b'\\', b'x', ..] => Some("hexadecimal text: decode it to binary first"),
        [b'd', b'a', b't', b'a', b':', ..] => Some("a data: URL: decode its base64 part first"),
        [b'/', b'9', b'j', b'/', ..] | [b'i', b'V', b'B', b'O', ..] => Some("base64 text: decode it to binary first"),
        _ => None,
    };
    let hex: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    match known {
        Some(name) => format!("{name} (starts with {})", hex.join(" ")),
        None => format!(
            "{} byte{} starting with {}",
            bytes.len(),
            if bytes.len() == 1 { "" } else { "s" },
            hex.join(" ")
        ),
    }
}
