//! Pictures that need no file: what a model's recorded parity descriptors are descriptors of.

use serde::{Deserialize, Serialize};

/// A picture defined by a formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Pattern {
    /// [`waves_v1`].
    #[serde(rename = "waves-v1")]
    WavesV1,
}

impl Pattern {
    /// Name in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::WavesV1 => "waves-v1",
        }
    }

    /// RGB8 pixels, row-major, with width and height.
    pub(crate) fn draw(self) -> (u32, u32, Vec<u8>) {
        match self {
            Self::WavesV1 => waves_v1(),
        }
    }
}

/// Triangle waves that cross in every channel: smooth gradients, sharp folds and, through `x*y`, a frequency sweep, so
/// that a wrong filter, channel order, mean or transposition moves the descriptor.
///
/// Width 320, height 240; channel c in 0..3 at (x, y): v = (x(c+2) + y(4-c) + ((xy) >> 6)) mod 512, folded to
/// v < 256 ? v : 511 - v. Returns width, height and RGB8 pixels, row-major.
pub fn waves_v1() -> (u32, u32, Vec<u8>) {
    const WIDTH: u32 = 320;
    const HEIGHT: u32 = 240;
    let mut pixels = Vec::with_capacity((WIDTH * HEIGHT * 3) as usize);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            for c in 0..3 {
                let v = (x * (c + 2) + y * (4 - c) + ((x * y) >> 6)) % 512;
                pixels.push(if v < 256 { v } else { 511 - v } as u8);
            }
        }
    }
    (WIDTH, HEIGHT, pixels)
}
