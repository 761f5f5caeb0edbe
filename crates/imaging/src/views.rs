//! Other views of one picture: its eight orientations, and itself without a border.

use crate::poll::Poll;
use crate::{Image, ImageError, buffers, orientation};

/// A pixel differs from the border's colour when a channel is further away than this; compression stays within it.
const TOLERANCE: i32 = 24;
/// A line belongs to the border while at most this part of its pixels differs.
const MOST_DIFFERENT: f32 = 0.01;
/// What is cut must be this part of a side to count as a border, and this part of a side must be left.
const LEAST_CUT: f32 = 0.02;
const LEAST_LEFT: f32 = 0.2;

/// The picture turned and mirrored: `orientation` 1 to 8 as EXIF numbers them, 1 the picture itself.
///
/// # Errors
/// [`ImageError::OutOfMemory`].
pub fn oriented(image: &Image, orientation: u8) -> Result<Image, ImageError> {
    let copy = Image::new(image.width(), image.height(), buffers::copy(image.pixels())?)?;
    orientation::apply(copy, orientation, &Poll::new(&|| false))
}

/// The picture without letterbox, pillarbox or frame of one colour; `None` where it has none.
pub fn without_border(image: &Image) -> Option<Image> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let (top, bottom) = span(height, width, |line, i| pixel(image, i, line));
    let (left, right) = span(width, bottom - top, |line, i| pixel(image, line, top + i));
    if top == 0 && bottom == height && left == 0 && right == width {
        return None;
    }
    let mut pixels = Vec::with_capacity((right - left) * (bottom - top) * 3);
    for y in top..bottom {
        pixels.extend_from_slice(&image.pixels()[(y * width + left) * 3..(y * width + right) * 3]);
    }
    Image::new((right - left) as u32, (bottom - top) as u32, pixels).ok()
}

fn pixel(image: &Image, x: usize, y: usize) -> [u8; 3] {
    let at = (y * image.width() as usize + x) * 3;
    [image.pixels()[at], image.pixels()[at + 1], image.pixels()[at + 2]]
}

/// First line inside the border and first line behind the inside, of `lines` lines with `length` pixels each.
fn span(lines: usize, length: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> (usize, usize) {
    let least_cut = ((lines as f32 * LEAST_CUT) as usize).max(1);
    let cut = |line_at: &dyn Fn(usize) -> usize| {
        // The middle pixel of the outermost line: corners may be rounded.
        let colour = pixel(line_at(0), length / 2);
        let depth = (0..lines)
            .take_while(|&n| {
                let different = (0..length)
                    .filter(|&i| {
                        let found = pixel(line_at(n), i);
                        (0..3).any(|c| (i32::from(found[c]) - i32::from(colour[c])).abs() > TOLERANCE)
                    })
                    .count();
                different as f32 <= MOST_DIFFERENT * length as f32
            })
            .count();
        if depth < least_cut { 0 } else { depth }
    };
    let (before, after) = (cut(&|n| n), cut(&|n| lines - 1 - n));
    if (lines as f32 * LEAST_LEFT) as usize + before + after >= lines {
        return (0, lines);
    }
    (before, lines - after)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chequered picture of 40 × 30 with a border of `[left, top, right, bottom]` pixels in one colour.
    fn framed(border: [u32; 4]) -> Image {
        let [left, top, right, bottom] = border;
        let (width, height) = (40 + left + right, 30 + top + bottom);
        let mut pixels = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let inside = (left..left + 40).contains(&x) && (top..top + 30).contains(&y);
                let noise = ((x * 7 + y * 13) % 9) as u8;
                let level = if inside {
                    120 + 100 * (((x - left) + (y - top)) % 2) as u8
                } else {
                    noise
                };
                pixels.extend([level; 3]);
            }
        }
        Image::new(width, height, pixels).unwrap()
    }

    #[test]
    fn borders_of_one_colour_are_cut_on_the_sides_that_have_them() {
        let picture = framed([0; 4]);
        for border in [[0, 12, 0, 12], [10, 0, 3, 0], [5, 6, 7, 8], [0, 0, 0, 4]] {
            assert_eq!(without_border(&framed(border)), Some(picture.clone()), "{border:?}");
        }
    }

    #[test]
    fn a_picture_without_a_border_and_one_that_is_all_border_stay_whole() {
        assert_eq!(without_border(&framed([0; 4])), None);
        assert_eq!(without_border(&Image::new(20, 10, vec![9; 600]).unwrap()), None);
        assert_eq!(without_border(&Image::new(1, 1, vec![9; 3]).unwrap()), None);
    }

    #[test]
    fn eight_orientations_are_eight_pictures() {
        let picture = framed([3, 0, 0, 0]);
        let all: Vec<Image> = (1..=8).map(|n| oriented(&picture, n).unwrap()).collect();
        assert_eq!(all[0], picture);
        for (n, one) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|other| other != one));
        }
    }
}
