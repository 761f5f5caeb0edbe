//! The formats that can be decoded. Which one some bytes are in: `signature.rs`.

/// An image format that can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// JPEG: sequential and progressive, Huffman- or arithmetic-coded, 8 bits a sample; grey, YCbCr, RGB, CMYK, YCCK.
    Jpeg,
    /// PNG, with its animated form APNG.
    Png,
    /// WebP: lossy, lossless, with alpha, animated.
    WebP,
    /// GIF; frames are laid in their places on the canvas.
    Gif,
    /// Bitmap of Windows or OS/2.
    Bmp,
    /// TIFF (the first page is taken).
    Tiff,
}

impl Format {
    /// The usual upper-case name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
            Format::Gif => "GIF",
            Format::Bmp => "BMP",
            Format::Tiff => "TIFF",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
