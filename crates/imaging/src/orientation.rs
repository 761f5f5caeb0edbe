//! EXIF orientation applied to pixels.

use crate::poll::Poll;
use crate::{Image, ImageError, buffers};

/// The picture as shown, given the stored one and its orientation 1–8 (EXIF 2.32: where row 0 and column 0 are). Flips
/// and half turns happen in place; quarter turns and transpositions take a second buffer.
pub(crate) fn apply(image: Image, orientation: u8, poll: &Poll) -> Result<Image, ImageError> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let mut pixels = image.into_pixels();
    match orientation {
        2 => pixels.chunks_exact_mut(width * 3).for_each(mirror_row),
        3 => mirror_row(&mut pixels),
        4 => flip_rows(&mut pixels, width * 3),
        5..=8 => {
            // Shown pixel (x, y) is stored pixel (column, row); 5 and 8 read stored columns left to right, 6 and 7
            // right to left, and so on: each stored row becomes one shown column.
            let mut shown = buffers::zeroed(pixels.len())?;
            let (columns_reversed, rows_reversed) = (matches!(orientation, 7 | 8), matches!(orientation, 6 | 7));
            // Tiles keep both sides of the transposition in the cache.
            const TILE: usize = 32;
            for top in (0..height).step_by(TILE) {
                poll.check()?;
                for left in (0..width).step_by(TILE) {
                    for row in top..(top + TILE).min(height) {
                        let x = if rows_reversed { height - 1 - row } else { row };
                        for column in left..(left + TILE).min(width) {
                            let y = if columns_reversed { width - 1 - column } else { column };
                            let (from, to) = ((row * width + column) * 3, (y * height + x) * 3);
                            shown[to..to + 3].copy_from_slice(&pixels[from..from + 3]);
                        }
                    }
                }
            }
            return Image::new(height as u32, width as u32, shown);
        }
        _ => {}
    }
    Image::new(width as u32, height as u32, pixels)
}

/// Reverses the order of the pixels, keeping each one's channels.
fn mirror_row(row: &mut [u8]) {
    row.reverse();
    for pixel in row.chunks_exact_mut(3) {
        pixel.swap(0, 2);
    }
}

fn flip_rows(pixels: &mut [u8], stride: usize) {
    let middle = pixels.len() / stride / 2 * stride;
    let (upper, rest) = pixels.split_at_mut(middle);
    for (above, below) in upper.chunks_exact_mut(stride).zip(rest.rchunks_exact_mut(stride)) {
        above.swap_with_slice(below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(image: Image, orientation: u8) -> Image {
        apply(image, orientation, &Poll::new(&|| false)).unwrap()
    }

    /// 2 × 3 pixels named by their red channel: `ab / cd / ef`.
    fn letters() -> Image {
        let pixels = b"abcdef".iter().flat_map(|&letter| [letter, 1, 2]).collect();
        Image::new(2, 3, pixels).unwrap()
    }

    fn rows(image: &Image) -> Vec<String> {
        image
            .pixels()
            .chunks_exact(image.width() as usize * 3)
            .map(|row| {
                row.chunks_exact(3)
                    .map(|pixel| {
                        assert_eq!(&pixel[1..], [1, 2], "channels stay in order");
                        char::from(pixel[0])
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn each_orientation_moves_every_pixel_where_exif_says() {
        // What ImageOps.exif_transpose of Pillow gives for the same picture.
        let expected: [&[&str]; 8] = [
            &["ab", "cd", "ef"],
            &["ba", "dc", "fe"],
            &["fe", "dc", "ba"],
            &["ef", "cd", "ab"],
            &["ace", "bdf"],
            &["eca", "fdb"],
            &["fdb", "eca"],
            &["bdf", "ace"],
        ];
        for (index, expected) in expected.iter().enumerate() {
            let shown = turned(letters(), index as u8 + 1);
            assert_eq!(rows(&shown), *expected, "orientation {}", index + 1);
        }
    }

    #[test]
    fn tiles_cover_sizes_that_they_do_not_divide() {
        let (width, height) = (67u32, 45u32);
        let pixels = (0..width * height).flat_map(|i| [(i >> 8) as u8, i as u8, 0]).collect();
        let image = Image::new(width, height, pixels).unwrap();
        let once = turned(image.clone(), 6);
        assert_eq!((once.width(), once.height()), (height, width));
        let back = turned(once, 8);
        assert_eq!(back, image);
    }
}
