//! Distances between 128-bit codes, one against many: the inner loop of matching local features.
//!
//! Every kernel is exact; the scalar one is the oracle of the others.
#![allow(unsafe_code)]

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

/// Sixteen bytes, 128 bits.
pub type Code = [u8; 16];

/// A loop over `codes` that writes the number of bits in which each differs from the first argument.
type Distances = unsafe fn(&Code, &[Code], &mut [u8]);

/// The loop on one instruction set.
pub struct HammingKernel {
    name: &'static str,
    distances: Distances,
}

impl HammingKernel {
    /// The instruction set: `avx512`, `avx2`, `neon` or `scalar`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Writes to `out` in how many bits, 0 to 128, each of `codes` differs from `one`.
    ///
    /// # Panics
    /// When `out` and `codes` have different lengths.
    #[inline]
    pub fn distances(&self, one: &Code, codes: &[Code], out: &mut [u8]) {
        assert_eq!(codes.len(), out.len(), "one distance for each code");
        // SAFETY: the lengths are the same, and the kernel was offered only because the processor has its instructions.
        unsafe { (self.distances)(one, codes, out) }
    }
}

/// Every kernel that the processor can run, fastest first; the last is the oracle.
pub fn available() -> Vec<&'static HammingKernel> {
    static SCALAR: HammingKernel = HammingKernel {
        name: "scalar",
        distances: scalar::distances,
    };
    #[cfg(target_arch = "x86_64")]
    static AVX2: HammingKernel = HammingKernel {
        name: "avx2",
        distances: avx2::distances,
    };
    #[cfg(target_arch = "x86_64")]
    static AVX512: HammingKernel = HammingKernel {
        name: "avx512",
        distances: avx512::distances,
    };
    #[cfg(target_arch = "aarch64")]
    static NEON: HammingKernel = HammingKernel {
        name: "neon",
        distances: neon::distances,
    };

    let mut available = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if avx512::available() {
            available.push(&AVX512);
        }
        if avx2::available() {
            available.push(&AVX2);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if neon::available() {
        available.push(&NEON);
    }
    available.push(&SCALAR);
    available
}

/// The fastest kernel of this processor.
pub fn fastest() -> &'static HammingKernel {
    static CHOSEN: OnceLock<&'static HammingKernel> = OnceLock::new();
    CHOSEN.get_or_init(|| available()[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A xorshift generator: reproducible.
    fn codes(count: usize, mut state: u64) -> Vec<Code> {
        let mut word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        (0..count)
            .map(|_| {
                let mut code = [0; 16];
                code[..8].copy_from_slice(&word());
                code[8..].copy_from_slice(&word());
                code
            })
            .collect()
    }

    #[test]
    fn every_kernel_counts_what_single_bits_count_at_every_length() {
        let one = codes(1, 77)[0];
        for count in 0..300 {
            let mut others = codes(count, 0x9E37_79B9 + count as u64);
            // The ends of the range, at changing places.
            if count > 2 {
                others[count / 2] = one;
                others[count / 3] = one.map(|byte| !byte);
            }
            let exact: Vec<u8> = others
                .iter()
                .map(|other| {
                    (0..128)
                        .filter(|bit| (one[bit / 8] ^ other[bit / 8]) >> (bit % 8) & 1 == 1)
                        .count() as u8
                })
                .collect();
            for kernel in available() {
                // Bytes on either side must stay as they are.
                let mut out = vec![0xAA; count + 2];
                kernel.distances(&one, &others, &mut out[1..=count]);
                assert_eq!(out[1..=count], exact[..], "{}, {count} codes", kernel.name());
                assert_eq!(
                    (out[0], out[count + 1]),
                    (0xAA, 0xAA),
                    "{}, {count} codes",
                    kernel.name()
                );
            }
        }
    }
}
