//! Grey pictures: where features are looked for.

use imaging::Image;

/// Row-major, one byte a pixel.
#[derive(Clone)]
pub(crate) struct Grey {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) pixels: Vec<u8>,
}

impl Grey {
    /// Luma (ITU-R BT.601).
    pub(crate) fn of(image: &Image) -> Self {
        let (pixels, _) = image.pixels().as_chunks::<3>();
        Self {
            width: image.width() as usize,
            height: image.height() as usize,
            pixels: pixels
                .iter()
                .map(|&[r, g, b]| ((u32::from(r) * 299 + u32::from(g) * 587 + u32::from(b) * 114 + 500) / 1000) as u8)
                .collect(),
        }
    }
}
