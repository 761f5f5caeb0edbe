//! Pixels of other layouts to RGB, transparency onto the matte. Where a pixel shrinks, this happens in the same buffer.

/// `alpha` over `matte`: round(value·α + matte·(1 − α)), exactly.
pub(super) fn over(value: u8, matte: u8, alpha: u8) -> u8 {
    let alpha = u32::from(alpha);
    ((u32::from(value) * alpha + u32::from(matte) * (255 - alpha) + 127) / 255) as u8
}

/// A pixel with alpha over another one with alpha (Porter and Duff's "over", not premultiplied).
pub(super) fn blend(above: [u8; 4], below: [u8; 4]) -> [u8; 4] {
    let (above_alpha, below_alpha) = (u32::from(above[3]), u32::from(below[3]));
    match (above_alpha, below_alpha) {
        (255, _) | (_, 0) => return above,
        (0, _) => return below,
        _ => {}
    }
    // In units of 1/255².
    let through = below_alpha * (255 - above_alpha);
    let alpha = above_alpha * 255 + through;
    let channel = |index: usize| {
        let sum = u32::from(above[index]) * above_alpha * 255 + u32::from(below[index]) * through;
        ((sum + alpha / 2) / alpha) as u8
    };
    [channel(0), channel(1), channel(2), ((alpha + 127) / 255) as u8]
}

/// Writes `source`, 8-bit pixels of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA) channels, as RGB into `target`.
pub(super) fn write_rgb(source: &[u8], channels: usize, matte: [u8; 3], target: &mut [u8]) {
    let pixels = target.chunks_exact_mut(3).zip(source.chunks_exact(channels));
    match channels {
        1 => pixels.for_each(|(to, from)| to.fill(from[0])),
        2 => pixels.for_each(|(to, from)| {
            for channel in 0..3 {
                to[channel] = over(from[0], matte[channel], from[1]);
            }
        }),
        3 => target.copy_from_slice(source),
        _ => pixels.for_each(|(to, from)| {
            for channel in 0..3 {
                to[channel] = over(from[channel], matte[channel], from[3]);
            }
        }),
    }
}

/// Turns a whole RGBA buffer into RGB without a second one.
pub(super) fn rgba_to_rgb(mut pixels: Vec<u8>, matte: [u8; 3]) -> Vec<u8> {
    let count = pixels.len() / 4;
    for index in 0..count {
        let [red, green, blue, alpha] = [0, 1, 2, 3].map(|channel| pixels[index * 4 + channel]);
        let rgb = [
            over(red, matte[0], alpha),
            over(green, matte[1], alpha),
            over(blue, matte[2], alpha),
        ];
        // Never ahead of what is still to be read: 3·index ≤ 4·index.
        pixels[index * 3..index * 3 + 3].copy_from_slice(&rgb);
    }
    pixels.truncate(count * 3);
    pixels.shrink_to_fit();
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opaque_pixels_stay_and_transparent_ones_become_the_matte() {
        for value in 0..=255 {
            assert_eq!(over(value, 7, 255), value);
            assert_eq!(over(value, 7, 0), 7);
        }
        assert_eq!(over(255, 0, 128), 128);
        assert_eq!(over(0, 255, 128), 127);
    }

    #[test]
    fn shrinking_in_place_equals_writing_elsewhere() {
        let source: Vec<u8> = (0..4 * 501u32).map(|i| (i * 37 % 251) as u8).collect();
        let mut elsewhere = vec![0; 3 * 501];
        write_rgb(&source, 4, [9, 99, 199], &mut elsewhere);
        assert_eq!(rgba_to_rgb(source, [9, 99, 199]), elsewhere);
    }
}
