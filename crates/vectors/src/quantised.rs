//! Kernels over quantised vectors: blocks of one-bit codes, six-bit codes, and bytes.
//!
//! A *block* holds the one-bit codes of 32 vectors, four dimensions to a nibble: nibble `m` of vector `j` says which of
//! the dimensions `4m … 4m+3` are positive. Nibbles of two neighbouring `m` and all 32 vectors fill 32 bytes, so that
//! one shuffle looks up both in tables of 16 sums (the layout of FAISS's and RaBitQ's fast scan: André et al., "Cache
//! locality is not enough", VLDB 2015; Gao & Long, "RaBitQ", SIGMOD 2024).
//!
//! Every kernel is exact in integers; the scalar ones are the oracle of the others.
#![allow(unsafe_code)]

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod encode;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

/// Vectors in a block.
pub const BLOCK: usize = 32;

/// Most elements of a row of [`Kernels::dot_rows`]: as many products of a byte and 16 bits fit an `i32`.
pub const MOST_IN_ROW: usize = 512;

/// Bytes of the one-bit codes of a block, `dimensions` being a multiple of 8.
pub const fn block_code_bytes(dimensions: usize) -> usize {
    dimensions / 8 * BLOCK
}

/// Bytes of a six-bit code, `dimensions` being a multiple of 64.
pub const fn six_bit_bytes(dimensions: usize) -> usize {
    dimensions / 64 * 48
}

/// A query as the block kernel takes it: for each nibble, the 16 sums that its four dimensions can make.
#[derive(Debug, Clone)]
pub struct Tables {
    bytes: Vec<u8>,
    step: f32,
    bias: f32,
}

impl Tables {
    /// Tables for a query of a multiple of 8 dimensions: `Σ ±q` is about `step · S + bias`, `S` being a block kernel's
    /// sum of table entries, which fits 16 bits.
    pub fn new(query: &[f32]) -> Self {
        assert!(query.len().is_multiple_of(8), "dimensions must be a multiple of 8");
        let nibbles = query.len() / 4;
        // The least sum of a nibble is minus the sum of magnitudes; entries count steps above it.
        let widest = query
            .chunks_exact(4)
            .map(|q| 2.0 * q.iter().map(|x| x.abs()).sum::<f32>())
            .fold(0.0f32, f32::max);
        let most = (65_535 / nibbles.max(1)).min(255) as f32;
        let step = if widest > 0.0 { widest / most } else { 1.0 };
        let mut bytes = vec![0u8; 16 * nibbles];
        let mut bias = 0.0f64;
        for (q, table) in query.chunks_exact(4).zip(bytes.chunks_exact_mut(16)) {
            let least = -q.iter().map(|x| x.abs()).sum::<f32>();
            bias += f64::from(least);
            for (signs, entry) in table.iter_mut().enumerate() {
                let sum: f32 = (0..4).map(|i| if signs_bit(signs, i) { q[i] } else { -q[i] }).sum();
                *entry = ((sum - least) / step).round().clamp(0.0, most) as u8;
            }
        }
        Tables {
            bytes,
            step,
            bias: bias as f32,
        }
    }

    /// The sums, 16 for each nibble, as [`Kernels::scan_sums`] takes them.
    pub fn sums(&self) -> &[u8] {
        &self.bytes
    }

    /// What one unit of a sum is worth.
    pub fn step(&self) -> f32 {
        self.step
    }

    /// What a sum of zero is worth.
    pub fn bias(&self) -> f32 {
        self.bias
    }
}

fn signs_bit(signs: usize, at: usize) -> bool {
    signs >> at & 1 == 1
}

/// How a block's sums become estimates: `base + lambda · addend + factor · (unit · sum + zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The same for every vector of the list.
    pub base: f32,
    /// Weight of the vectors' addends.
    pub lambda: f32,
    /// What one unit of a sum is worth.
    pub unit: f32,
    /// What a sum of zero is worth.
    pub zero: f32,
}

/// The one-bit codes of a block with each vector's addend and factor as bfloat16, little endian.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// 32 bytes for every 8 dimensions.
    pub codes: &'a [u8],
    /// 64 bytes.
    pub addends: &'a [u8],
    /// 64 bytes.
    pub factors: &'a [u8],
}

/// A `f32` as bfloat16 bits, rounded to nearest even. Not for NaN.
pub fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// bfloat16 bits as `f32`, exactly.
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The largest magnitude among numbers as bfloat16, little endian: none of them is NaN.
#[inline]
pub fn largest_magnitude(numbers: &[u8]) -> f32 {
    // Without their sign, their bits order as they do.
    let largest = numbers
        .as_chunks::<2>()
        .0
        .iter()
        .fold(0, |most: u16, &two| most.max(u16::from_le_bytes(two) & 0x7fff));
    from_bf16(largest)
}

/// Writes the one-bit code of vector `slot` of a block: bit set where an element is not negative.
pub fn put_signs(codes: &mut [u8], slot: usize, elements: &[f32]) {
    let mut nibbles = vec![0; elements.len() / 8];
    pack_signs(elements, &mut nibbles);
    put_nibbles(codes, slot, &nibbles);
}

/// Writes the one-bit code of vector `slot`, given as nibbles in the order of their dimensions,
/// low half of a byte first.
pub fn put_nibbles(codes: &mut [u8], slot: usize, nibbles: &[u8]) {
    for (at, &two) in nibbles.iter().enumerate() {
        for (m, nibble) in [(2 * at, two & 15), (2 * at + 1, two >> 4)] {
            let (byte, shift) = place(m, slot);
            codes[byte] = codes[byte] & !(0x0f << shift) | nibble << shift;
        }
    }
}

/// Reads back what [`put_nibbles`] wrote.
pub fn take_nibbles(codes: &[u8], slot: usize, nibbles: &mut [u8]) {
    for (at, two) in nibbles.iter_mut().enumerate() {
        let [low, high] = [2 * at, 2 * at + 1].map(|m| {
            let (byte, shift) = place(m, slot);
            codes[byte] >> shift & 15
        });
        *two = low | high << 4;
    }
}

/// Packs the signs of elements (a multiple of 8) as [`put_nibbles`] takes them.
pub fn pack_signs(elements: &[f32], nibbles: &mut [u8]) {
    for (eight, byte) in elements.chunks_exact(8).zip(nibbles) {
        *byte = eight
            .iter()
            .enumerate()
            .fold(0, |bits, (i, x)| bits | u8::from(*x >= 0.0) << i);
    }
}

/// Where nibble `m` of vector `slot` lies in a block: its byte and the shift within it.
pub fn place(m: usize, slot: usize) -> (usize, u32) {
    (m / 2 * 32 + m % 2 * 16 + slot % 16, if slot < 16 { 0 } else { 4 })
}

/// Writes a six-bit code. `code` holds `dimensions` numbers from 0 to 63.
pub fn put_six_bit(planes: &mut [u8], code: &[u8]) {
    for (out, six) in planes.chunks_exact_mut(48).zip(code.chunks_exact(64)) {
        for i in 0..32 {
            out[i] = six[i] & 15 | (six[32 + i] & 15) << 4;
        }
        for i in 0..16 {
            out[32 + i] = six[i] >> 4 | six[16 + i] >> 4 << 2 | six[32 + i] >> 4 << 4 | six[48 + i] >> 4 << 6;
        }
    }
}

/// Reads a six-bit code back.
pub fn get_six_bit(planes: &[u8], code: &mut [u8]) {
    for (chunk, six) in planes.chunks_exact(48).zip(code.chunks_exact_mut(64)) {
        for i in 0..32 {
            six[i] = chunk[i] & 15;
            six[32 + i] = chunk[i] >> 4;
        }
        for i in 0..64 {
            six[i] |= (chunk[32 + i % 16] >> (i / 16 * 2) & 3) << 4;
        }
    }
}

/// What encoding must know of a residual `o = x − c`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Residual {
    /// ‖o‖²
    pub squared: f32,
    /// ⟨o, c⟩
    pub along: f32,
    /// The largest magnitude of an element.
    pub largest: f32,
    /// Σ |o| over the scanned dimensions
    pub magnitudes: f32,
    /// Σ ±c over the scanned dimensions, with the signs of o
    pub signed_centre: f32,
}

fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return avx2::available();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Subtracts the centroid `scale · code` from `x`, all of the same multiple of 8 elements.
pub fn residual(
    x: &[f32],
    code: &[i8],
    scale: f32,
    scanned: usize,
    residual: &mut [f32],
    centre: &mut [f32],
) -> Residual {
    if has_avx2() {
        // SAFETY: the processor has AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        return unsafe { encode::residual_avx2(x, code, scale, scanned, residual, centre) };
    }
    encode::residual(x, code, scale, scanned, residual, centre)
}

/// Rounds a residual to levels `0 … 2 · middle` of the step `1 / inverse`; gives ⟨u, o⟩ and ⟨u, c⟩
/// for `u = level − middle`.
pub fn levels(residual: &[f32], centre: &[f32], inverse: f32, middle: f32, levels: &mut [u8]) -> (f32, f32) {
    if has_avx2() {
        // SAFETY: the processor has AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        return unsafe { encode::levels_avx2(residual, centre, inverse, middle, levels) };
    }
    encode::levels(residual, centre, inverse, middle, levels)
}

/// A query in 16-bit integers: `query ≈ step · integers`.
///
/// Scaled so that an inner product with as many bytes from −127 to 127 fits 32 bits.
#[derive(Debug, Clone, Default)]
pub struct Integers {
    /// The integers.
    pub values: Vec<i16>,
    /// What one unit is worth.
    pub step: f32,
    /// Their sum.
    pub sum: i32,
}

impl Integers {
    /// Rounds a query.
    pub fn new(query: &[f32]) -> Self {
        let largest = query.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let norm = query.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
        if largest == 0.0 || !norm.is_finite() {
            return Integers {
                values: vec![0; query.len()],
                step: 1.0,
                sum: 0,
            };
        }
        // |Σ c·q| ≤ ‖c‖‖q‖, ‖c‖ ≤ 127·√n; rounding adds at most 127/2 each.
        let most_norm = (i32::MAX as f32 - 64.0 * query.len() as f32) / (127.0 * (query.len() as f32).sqrt()) * 0.99;
        let scale = (32_767.0 / largest).min(most_norm / norm);
        let values: Vec<i16> = query.iter().map(|x| (x * scale).round() as i16).collect();
        let sum = values.iter().map(|&v| i32::from(v)).sum();
        Integers {
            values,
            step: 1.0 / scale,
            sum,
        }
    }
}

/// Brings bytes towards the processor's cache. Only a hint.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching has no effect on the program, and every x86-64 processor can.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

type ScanBlock = unsafe fn(&Block<'_>, &[u8], &Estimate, f32, &mut [f32; BLOCK]) -> u32;

/// The kernels of one instruction set.
pub struct Kernels {
    name: &'static str,
    scan_block: ScanBlock,
    dot_bytes: unsafe fn(*const i8, *const i16, usize) -> i32,
    dot_rows: unsafe fn(*const i8, *const i16, usize, &mut [i32]),
    dot_all: unsafe fn(*const i8, usize, *const i16, usize, &mut [i32]),
    dot_six_bit: unsafe fn(*const u8, *const i16, usize) -> i32,
}

impl Kernels {
    /// The instruction set.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Estimates for the 32 vectors of a block; the mask says which lie below `bound`.
    #[inline(always)]
    pub fn scan_block(
        &self,
        block: &Block<'_>,
        tables: &Tables,
        estimate: &Estimate,
        bound: f32,
        out: &mut [f32; BLOCK],
    ) -> u32 {
        self.scan_sums(block, &tables.bytes, estimate, bound, out)
    }

    /// The same with the sums of tables that lie elsewhere.
    #[inline(always)]
    pub fn scan_sums(
        &self,
        block: &Block<'_>,
        sums: &[u8],
        estimate: &Estimate,
        bound: f32,
        out: &mut [f32; BLOCK],
    ) -> u32 {
        assert!(block.codes.len() == sums.len() && block.addends.len() == 64 && block.factors.len() == 64);
        assert!(sums.len().is_multiple_of(32));
        // SAFETY: the lengths were just checked, and these kernels are offered only where the processor has them.
        unsafe { (self.scan_block)(block, sums, estimate, bound, out) }
    }

    /// Σ code·query, `code` being bytes from −127 to 127 and both of the same multiple of 64 elements.
    #[inline(always)]
    pub fn dot_bytes(&self, code: &[i8], query: &Integers) -> i32 {
        assert!(code.len() == query.values.len() && code.len().is_multiple_of(64));
        // SAFETY: as above.
        unsafe { (self.dot_bytes)(code.as_ptr(), query.values.as_ptr(), code.len()) }
    }

    /// As [`dot_bytes`](Self::dot_bytes), with a query's integers alone.
    pub fn dot_long(&self, code: &[i8], query: &[i16]) -> i32 {
        assert!(code.len() == query.len() && code.len().is_multiple_of(64));
        // SAFETY: as above.
        unsafe { (self.dot_bytes)(code.as_ptr(), query.as_ptr(), code.len()) }
    }

    /// Σ code·query for each row of bytes, exactly. Rows and query have the same multiple of 64 elements, at most
    /// [`MOST_IN_ROW`], and no element of the query is −32,768: no sum exceeds 32 bits then.
    pub fn dot_rows(&self, rows: &[u8], query: &[i16], out: &mut [i32]) {
        let n = query.len();
        assert!(n.is_multiple_of(64) && n <= MOST_IN_ROW && rows.len() == n * out.len());
        // SAFETY: the lengths were just checked, bytes are of the size of i8, and the processor has these instructions.
        unsafe { (self.dot_rows)(rows.as_ptr().cast(), query.as_ptr(), n, out) }
    }

    /// As [`dot_rows`](Self::dot_rows) for each of several queries of `n` elements, which lie one behind the other:
    /// `out` has the sums with all rows for each query.
    pub fn dot_all(&self, rows: &[u8], queries: &[i16], n: usize, out: &mut [i32]) {
        assert!(n.is_multiple_of(64) && n > 0 && n <= MOST_IN_ROW);
        assert!(rows.len().is_multiple_of(n) && queries.len().is_multiple_of(n));
        assert!(out.len() == rows.len() / n * (queries.len() / n));
        // SAFETY: the lengths were just checked, bytes are of the size of i8, and the processor has these instructions.
        unsafe { (self.dot_all)(rows.as_ptr().cast(), rows.len() / n, queries.as_ptr(), n, out) }
    }

    /// Σ code·query, `planes` being a six-bit code of as many dimensions as the query has.
    #[inline(always)]
    pub fn dot_six_bit(&self, planes: &[u8], query: &Integers) -> i32 {
        assert!(query.values.len().is_multiple_of(64) && planes.len() == six_bit_bytes(query.values.len()));
        // SAFETY: as above.
        unsafe { (self.dot_six_bit)(planes.as_ptr(), query.values.as_ptr(), query.values.len()) }
    }
}

static SCALAR: Kernels = Kernels {
    name: "scalar",
    scan_block: scalar::scan_block,
    dot_bytes: scalar::dot_bytes,
    dot_rows: scalar::dot_rows,
    dot_all: scalar::dot_all,
    dot_six_bit: scalar::dot_six_bit,
};

#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = Kernels {
    name: "avx2",
    scan_block: avx2::scan_block,
    dot_bytes: avx2::dot_bytes,
    dot_rows: avx2::dot_rows,
    dot_all: avx2::dot_all,
    dot_six_bit: avx2::dot_six_bit,
};

#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = Kernels {
    name: "avx512",
    scan_block: avx512::scan_block,
    dot_bytes: avx512::dot_bytes,
    dot_rows: avx512::dot_rows,
    dot_all: avx512::dot_all,
    dot_six_bit: avx512::dot_six_bit,
};

#[cfg(target_arch = "aarch64")]
static NEON: Kernels = Kernels {
    name: "neon",
    scan_block: neon::scan_block,
    dot_bytes: neon::dot_bytes,
    dot_rows: neon::dot_rows,
    dot_all: neon::dot_all,
    dot_six_bit: neon::dot_six_bit,
};

/// Every set of kernels that the processor can run, fastest first; the last is the oracle.
pub fn available() -> Vec<&'static Kernels> {
    let mut available = Vec::new();
    #[cfg(target_arch = "x86_64")]
    if avx512::available() {
        available.push(&AVX512);
    }
    #[cfg(target_arch = "x86_64")]
    if avx2::available() {
        available.push(&AVX2);
    }
    #[cfg(target_arch = "aarch64")]
    if neon::available() {
        available.push(&NEON);
    }
    available.push(&SCALAR);
    available
}

/// The fastest kernels of this machine, chosen once per process.
#[inline(always)]
pub fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| available()[0])
}

#[cfg(test)]
mod tests;
