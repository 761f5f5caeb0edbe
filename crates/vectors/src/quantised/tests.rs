use proptest::prelude::*;

use super::*;

/// Numbers that differ by seed; no distribution is promised.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

proptest! {
    #[test]
    fn every_kernel_gives_the_oracles_sums(seed: u64, chunks in 1usize..32, less in 0usize..8, bound in -2.0f32..2.0) {
        let n = 64 * chunks;
        // Blocks need only a multiple of 8.
        let scanned = n - 8 * less;
        let mut codes = vec![0u8; block_code_bytes(scanned)];
        let (mut addends, mut factors) = (Vec::new(), Vec::new());
        for slot in 0..BLOCK {
            put_signs(&mut codes, slot, &numbers(seed ^ slot as u64, scanned));
        }
        for x in numbers(!seed, 2 * BLOCK).chunks_exact(2) {
            addends.extend(to_bf16(x[0]).to_le_bytes());
            factors.extend(to_bf16(x[1]).to_le_bytes());
        }
        let block = Block { codes: &codes, addends: &addends, factors: &factors };
        let query = numbers(seed.rotate_left(7), n);
        let tables = Tables::new(&query[..scanned]);
        let (unit, zero) = (tables.step() / n as f32, tables.bias() / n as f32);
        let estimate = Estimate { base: 0.25, lambda: 0.5, unit, zero };
        let integers = Integers::new(&query);
        let bytes: Vec<i8> = numbers(seed ^ 77, n).iter().map(|x| (x * 127.0) as i8).collect();
        let six: Vec<u8> = numbers(seed ^ 99, n).iter().map(|x| ((x + 1.0) * 31.9) as u8).collect();
        let mut planes = vec![0u8; six_bit_bytes(n)];
        put_six_bit(&mut planes, &six);
        let mut back = vec![0u8; n];
        get_six_bit(&planes, &mut back);
        prop_assert_eq!(&back, &six);

        let exact: i64 = bytes.iter().zip(&integers.values).map(|(&c, &q)| i64::from(c) * i64::from(q)).sum();
        let exact_six: i64 = six.iter().zip(&integers.values).map(|(&c, &q)| i64::from(c) * i64::from(q)).sum();
        let mut oracle = [0.0; BLOCK];
        let mask = SCALAR.scan_block(&block, &tables, &estimate, bound, &mut oracle);
        for kernels in available() {
            let mut out = [0.0; BLOCK];
            let found = kernels.scan_block(&block, &tables, &estimate, bound, &mut out);
            prop_assert_eq!(found, mask, "{}", kernels.name());
            prop_assert_eq!(out, oracle, "{}", kernels.name());
            prop_assert_eq!(i64::from(kernels.dot_bytes(&bytes, &integers)), exact, "{}", kernels.name());
            prop_assert_eq!(i64::from(kernels.dot_six_bit(&planes, &integers)), exact_six, "{}", kernels.name());
        }
    }

    #[test]
    fn every_kernel_gives_the_exact_products_of_rows(
        seed: u64, chunks in 1usize..=8, rows in 0usize..9, extreme: bool,
    ) {
        let n = 64 * chunks;
        let (codes, query): (Vec<u8>, Vec<i16>) = if extreme {
            (vec![0x80; n * rows], vec![-32_767; n])
        } else {
            (numbers(seed, n * rows).iter().map(|x| (x * 127.9) as i8 as u8).collect(),
             numbers(!seed, n).iter().map(|x| (x * 32_767.0) as i16).collect())
        };
        for kernels in available() {
            let mut out = vec![0; rows];
            kernels.dot_rows(&codes, &query, &mut out);
            for (row, sum) in codes.chunks_exact(n).zip(out) {
                let exact: i64 = row.iter().zip(&query).map(|(&c, &q)| i64::from(c as i8) * i64::from(q)).sum();
                prop_assert_eq!(i64::from(sum), exact, "{}", kernels.name());
            }
        }
    }

    #[test]
    fn every_kernel_gives_the_exact_products_of_rows_and_several_queries(
        seed: u64, chunks in 1usize..=8, rows in 0usize..9, asked in 0usize..11, extreme: bool,
    ) {
        let n = 64 * chunks;
        let (codes, queries): (Vec<u8>, Vec<i16>) = if extreme {
            (vec![0x80; n * rows], vec![-32_767; n * asked])
        } else {
            (numbers(seed, n * rows).iter().map(|x| (x * 127.9) as i8 as u8).collect(),
             numbers(!seed, n * asked).iter().map(|x| (x * 32_767.0) as i16).collect())
        };
        for kernels in available() {
            let mut out = vec![0; rows * asked];
            kernels.dot_all(&codes, &queries, n, &mut out);
            for (query, out) in queries.chunks_exact(n).zip(out.chunks(rows.max(1))) {
                for (row, sum) in codes.chunks_exact(n).zip(out) {
                    let exact: i64 = row.iter().zip(query).map(|(&c, &q)| i64::from(c as i8) * i64::from(q)).sum();
                    prop_assert_eq!(i64::from(*sum), exact, "{}", kernels.name());
                }
            }
        }
    }

    #[test]
    fn the_tables_sums_are_near_the_sum_of_signed_elements(seed: u64, chunks in 1usize..31) {
        let n = 64 * chunks;
        let query = numbers(seed, n);
        let vector = numbers(!seed, n);
        let mut codes = vec![0u8; block_code_bytes(n)];
        put_signs(&mut codes, 5, &vector);
        let one: Vec<u8> = (0..BLOCK).flat_map(|_| to_bf16(1.0).to_le_bytes()).collect();
        let zero = vec![0u8; 64];
        let tables = Tables::new(&query);
        let estimate = Estimate { base: 0.0, lambda: 0.0, unit: tables.step(), zero: tables.bias() };
        let mut out = [0.0; BLOCK];
        let block = Block { codes: &codes, addends: &zero, factors: &one };
        kernels().scan_block(&block, &tables, &estimate, 0.0, &mut out);
        let exact: f32 = vector.iter().zip(&query).map(|(v, q)| if *v >= 0.0 { *q } else { -*q }).sum();
        // Each of n/4 entries is rounded by at most half a step.
        prop_assert!((out[5] - exact).abs() <= tables.step() * n as f32 / 8.0 + 1e-3 * n as f32 / 64.0);
    }
}

#[test]
fn the_extremes_fit_their_integers() {
    for n in [64, 256, 4032] {
        let query = vec![1.0f32; n];
        let integers = Integers::new(&query);
        let exact: i64 = integers.values.iter().map(|&q| 127 * i64::from(q)).sum();
        for kernels in available() {
            assert_eq!(i64::from(kernels.dot_bytes(&vec![127; n], &integers)), exact);
        }
        let spike: Vec<f32> = (0..n).map(|i| if i == 3 { 1e30 } else { 0.0 }).collect();
        assert_eq!(Integers::new(&spike).values[3], 32767);
    }
    assert_eq!(Integers::new(&[0.0; 64]).values, vec![0; 64]);
    assert_eq!(from_bf16(to_bf16(-3.0)), -3.0);
}
