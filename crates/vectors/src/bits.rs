//! Distances between bit strings, which is what [`crate::binary_quantize`] makes of vectors.
//!
//! A bit string is its bytes, as SQL's `bit` stores it; both operands have the same number, and unused bits of the last
//! byte are 0 in both.
use crate::Error;

/// Refuses operands of different length, in bits.
pub fn check_lengths(left: usize, right: usize) -> Result<(), Error> {
    if left == right {
        Ok(())
    } else {
        Err(Error::DifferentLengths { left, right })
    }
}

/// The number of places where the two differ.
pub fn hamming_distance(a: &[u8], b: &[u8]) -> f64 {
    words(a, b).map(|(a, b)| u64::from((a ^ b).count_ones())).sum::<u64>() as f64
}

/// 1 − |a ∧ b| / |a ∨ b|: 0 where the set bits are the same, 1 where they have none in common. Two strings without a
/// set bit are at distance 1, as pgvector has it.
pub fn jaccard_distance(a: &[u8], b: &[u8]) -> f64 {
    let (mut both, mut either) = (0, 0);
    for (a, b) in words(a, b) {
        both += u64::from((a & b).count_ones());
        either += u64::from((a | b).count_ones());
    }
    if both == 0 {
        1.0
    } else {
        1.0 - both as f64 / either as f64
    }
}

/// The operands 64 bits at a time, the last ones filled up with zeros.
fn words<'a>(a: &'a [u8], b: &'a [u8]) -> impl Iterator<Item = (u64, u64)> + 'a {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = (last(a.remainder()), last(b.remainder()));
    a.zip(b).map(|(a, b)| (last(a), last(b))).chain(std::iter::once(rest))
}

#[inline(always)]
fn last(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_ne_bytes(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_manuals_examples() {
        let (a, b) = ([0b1110_0000], [0b0110_0000]);
        assert_eq!(hamming_distance(&a, &b), 1.0);
        assert_eq!(jaccard_distance(&[0b1111_0000], &[0b1100_0000]), 0.5);
        assert_eq!(jaccard_distance(&[0], &[0]), 1.0);
        assert_eq!(hamming_distance(&[], &[]), 0.0);
        assert_eq!(jaccard_distance(&[], &[]), 1.0);
        assert_eq!(
            check_lengths(2, 3).unwrap_err().to_string(),
            "different bit lengths 2 and 3"
        );
    }

    proptest! {
        #[test]
        fn words_count_what_single_bits_count(pairs in proptest::collection::vec(any::<(u8, u8)>(), 0..70)) {
            let (a, b): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            let bits = |value: &[u8]| -> Vec<bool> {
                value.iter().flat_map(|byte| (0..8).map(move |place| byte >> place & 1 == 1)).collect()
            };
            let (x, y) = (bits(&a), bits(&b));
            let count = |test: fn(bool, bool) -> bool| x.iter().zip(&y).filter(|&(&x, &y)| test(x, y)).count() as f64;
            prop_assert_eq!(hamming_distance(&a, &b), count(|x, y| x != y));
            let both = count(|x, y| x && y);
            let expected = if both == 0.0 { 1.0 } else { 1.0 - both / count(|x, y| x || y) };
            prop_assert_eq!(jaccard_distance(&a, &b), expected);
        }
    }
}
