//! The inverse transforms (RFC 6386, section 14).

/// Walsh-Hadamard: the DC coefficients of the 16 blocks of luma.
pub(super) fn means(input: &[i32; 16]) -> [i32; 16] {
    let pass = |[a, b, c, d]: [i32; 4]| {
        let (outer, inner) = (a + d, b + c);
        let (outer_less, inner_less) = (a - d, b - c);
        [
            outer + inner,
            inner_less + outer_less,
            outer - inner,
            outer_less - inner_less,
        ]
    };
    let mut between = [0; 16];
    for x in 0..4 {
        let column = pass([input[x], input[4 + x], input[8 + x], input[12 + x]]);
        (0..4).for_each(|y| between[4 * y + x] = column[y]);
    }
    let mut output = [0; 16];
    for y in 0..4 {
        let row = pass([
            between[4 * y],
            between[4 * y + 1],
            between[4 * y + 2],
            between[4 * y + 3],
        ]);
        (0..4).for_each(|x| output[4 * y + x] = (row[x] + 3) >> 3);
    }
    output
}

/// Adds a block's inverse DCT to 4 × 4 pixels.
pub(super) fn add(input: &[i32; 16], pixels: &mut [u8], stride: usize) {
    let pass = |[a, b, c, d]: [i32; 4]| {
        // √2·sin(π/8) and √2·cos(π/8) − 1, in units of 2⁻¹⁶.
        let sine = |value: i32| value.wrapping_mul(35_468) >> 16;
        let cosine = |value: i32| value + (value.wrapping_mul(20_091) >> 16);
        let (sum, difference) = (a + c, a - c);
        let (low, high) = (sine(b) - cosine(d), cosine(b) + sine(d));
        [sum + high, difference + low, difference - low, sum - high]
    };
    let mut between = [0; 16];
    for x in 0..4 {
        let column = pass([input[x], input[4 + x], input[8 + x], input[12 + x]]);
        (0..4).for_each(|y| between[4 * y + x] = column[y]);
    }
    for y in 0..4 {
        let row = pass([
            between[4 * y],
            between[4 * y + 1],
            between[4 * y + 2],
            between[4 * y + 3],
        ]);
        for (pixel, change) in pixels[y * stride..y * stride + 4].iter_mut().zip(row) {
            *pixel = (i32::from(*pixel) + ((change + 4) >> 3)).clamp(0, 255) as u8;
        }
    }
}
