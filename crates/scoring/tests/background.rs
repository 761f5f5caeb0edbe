//! Background sets: read right or refused by cause; the mean of the nearest is that of an exhaustive search.

use half::f16;
use proptest::prelude::*;
use scoring::{Background, BackgroundError, Encoding};

const ENCODINGS: [u16; 3] = [0, 1, 2];

/// A file as the training tools write it.
fn file(encoding: u16, rows: &[Vec<f32>]) -> Vec<u8> {
    let mut bytes = b"CMBG".to_vec();
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(encoding.to_le_bytes());
    bytes.extend((rows.len() as u32).to_le_bytes());
    bytes.extend((rows[0].len() as u32).to_le_bytes());
    match encoding {
        0 => rows
            .iter()
            .flatten()
            .for_each(|value| bytes.extend(value.to_le_bytes())),
        1 => rows
            .iter()
            .flatten()
            .for_each(|&value| bytes.extend(f16::from_f32(value).to_le_bytes())),
        _ => {
            let scales: Vec<f32> = rows
                .iter()
                .map(|row| row.iter().fold(0.0_f32, |most, value| most.max(value.abs())) / 127.0)
                .collect();
            scales.iter().for_each(|scale| bytes.extend(scale.to_le_bytes()));
            for (row, scale) in rows.iter().zip(&scales) {
                bytes.extend(row.iter().map(|value| (value / scale).round() as i8 as u8));
            }
        }
    }
    bytes
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    vector
        .iter_mut()
        .for_each(|value| *value = (f64::from(*value) / norm) as f32);
    vector
}

/// Unit vectors in no particular direction.
fn vectors(count: usize, dimensions: usize, mut state: u64) -> Vec<Vec<f32>> {
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count)
        .map(|_| unit((0..dimensions).map(|_| next()).collect()))
        .collect()
}

/// The definition: all inner products in double precision, sorted, the first k averaged.
fn oracle(rows: &[Vec<f32>], query: &[f32], k: usize) -> f64 {
    let mut products: Vec<f64> = rows
        .iter()
        .map(|row| row.iter().zip(query).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum())
        .collect();
    products.sort_by(|a, b| b.total_cmp(a));
    products[..k].iter().sum::<f64>() / k as f64
}

fn tolerance(encoding: u16) -> f64 {
    match encoding {
        0 => 1e-6,
        1 => 5e-4,
        _ => 8e-3,
    }
}

#[test]
fn every_encoding_reads_back_with_its_rows_and_dimensions() {
    let rows = vectors(7, 48, 1);
    for (encoding, name) in ENCODINGS
        .into_iter()
        .zip([Encoding::F32, Encoding::F16, Encoding::Int8])
    {
        let background = Background::parse(&file(encoding, &rows)).expect("valid");
        assert_eq!(
            (background.rows(), background.dimensions(), background.encoding()),
            (7, 48, name)
        );
    }
}

#[test]
fn a_background_in_the_programs_own_data_gives_the_same_answers() {
    let rows = vectors(50, 20, 2);
    let query = &vectors(1, 20, 3)[0];
    for encoding in ENCODINGS {
        let bytes = file(encoding, &rows);
        let owned = Background::parse(&bytes).expect("valid");
        let kept = Background::from_verified(bytes.leak()).expect("valid");
        assert_eq!(owned.mean_top_k(query, 5), kept.mean_top_k(query, 5));
    }
}

#[test]
fn the_first_rows_answer_as_a_background_of_these_alone() {
    let rows = vectors(50, 20, 4);
    let query = &vectors(1, 20, 5)[0];
    for encoding in ENCODINGS {
        let few = Background::parse(&file(encoding, &rows[..12])).expect("valid");
        let bytes = file(encoding, &rows);
        let owned = Background::parse(&bytes).expect("valid").first(12);
        let kept = Background::from_verified(bytes.leak()).expect("valid");
        assert_ne!(kept.mean_top_k(query, 5), few.mean_top_k(query, 5));
        for background in [owned, kept.clone().first(12)] {
            assert_eq!(background.rows(), 12);
            assert_eq!(background.mean_top_k(query, 12), few.mean_top_k(query, 12));
            assert!(background.mean_top_k(query, 13).is_err());
        }
        assert_eq!(kept.clone().first(1000).rows(), 50, "there are no more");
    }
}

#[test]
fn the_int8_sum_is_exact_at_the_extremes_of_its_range_and_over_several_blocks() {
    // All codes -128 or 127, so that a block of 512 products comes as near to overflow as it can.
    for dimensions in [1_usize, 511, 512, 513, 1024, 1500, 16_000] {
        for code in [-128_i8, 127] {
            let scale = 1.0 / (f64::from(code).abs() * (dimensions as f64).sqrt());
            let mut bytes = file(2, &[unit(vec![1.0; dimensions])]);
            bytes[16..20].copy_from_slice(&(scale as f32).to_le_bytes());
            bytes[20..].fill(code as u8);
            let background = Background::parse(&bytes).expect("valid");
            let query = unit(vec![1.0; dimensions]);
            let found = background.mean_top_k(&query, 1).expect("one row");
            assert!(
                (f64::from(found) - f64::from(code.signum())).abs() < 1e-5,
                "{dimensions} x {code}: {found}"
            );
        }
    }
}

#[test]
fn equal_neighbours_are_all_counted() {
    let one = unit(vec![1.0, 1.0, 0.0]);
    let rows = vec![one.clone(), one.clone(), one.clone(), vec![0.0, 0.0, 1.0]];
    for encoding in ENCODINGS {
        let background = Background::parse(&file(encoding, &rows)).expect("valid");
        for k in 1..=3 {
            let mean = background.mean_top_k(&one, k).expect("enough rows");
            assert!((mean - 1.0).abs() < 2e-3, "{k}: {mean}");
        }
        let mean = background.mean_top_k(&one, 4).expect("enough rows");
        assert!((mean - 0.75).abs() < 2e-3, "{mean}");
    }
}

#[test]
fn the_means_of_many_queries_are_exactly_those_of_each() {
    for (dimensions, rows) in [(64, 700), (256, 300), (30, 100), (576, 40)] {
        for encoding in ENCODINGS {
            let background = Background::parse(&file(encoding, &vectors(rows, dimensions, 5))).unwrap();
            for asked in [0, 1, 2, 7, 70] {
                let queries = vectors(asked, dimensions, 9);
                let each: Vec<f32> = queries.iter().map(|q| background.mean_top_k(q, 5).unwrap()).collect();
                assert_eq!(background.mean_top_k_of_each(&queries, 5).unwrap(), each);
            }
        }
    }
    let background = Background::parse(&file(2, &vectors(100, 64, 5))).unwrap();
    let mut queries = vectors(40, 64, 9);
    assert_eq!(
        background.mean_top_k_of_each(&queries, 101),
        Err(BackgroundError::Neighbours { k: 101, most: 100 })
    );
    queries[33].pop();
    let refused = BackgroundError::Dimensions {
        expected: 64,
        found: 63,
    };
    assert_eq!(background.mean_top_k_of_each(&queries, 5), Err(refused));
}

#[test]
fn a_query_is_refused_where_it_is_no_descriptor_of_this_model() {
    let background = Background::parse(&file(0, &vectors(4, 3, 1))).expect("valid");
    let refused = |query: &[f32], k| background.mean_top_k(query, k).expect_err("refused");
    assert_eq!(
        refused(&[1.0, 0.0], 1),
        BackgroundError::Dimensions { expected: 3, found: 2 }
    );
    assert_eq!(refused(&[], 1), BackgroundError::Dimensions { expected: 3, found: 0 });
    assert_eq!(
        refused(&[1.0, f32::NAN, 0.0], 1),
        BackgroundError::NonFiniteQuery { component: 1 }
    );
    assert_eq!(
        refused(&[1.0, 0.0, f32::INFINITY], 1),
        BackgroundError::NonFiniteQuery { component: 2 }
    );
    assert_eq!(refused(&[0.0; 3], 1), BackgroundError::QueryNotUnit { norm: 0.0 });
    assert_eq!(
        refused(&[2.0, 0.0, 0.0], 1),
        BackgroundError::QueryNotUnit { norm: 2.0 }
    );
    assert!(matches!(
        refused(&[f32::MAX; 3], 1),
        BackgroundError::QueryNotUnit { .. }
    ));
    assert_eq!(
        refused(&[1.0, 0.0, 0.0], 0),
        BackgroundError::Neighbours { k: 0, most: 4 }
    );
    assert_eq!(
        refused(&[1.0, 0.0, 0.0], 5),
        BackgroundError::Neighbours { k: 5, most: 4 }
    );
    for error in [
        refused(&[1.0], 1),
        refused(&[2.0, 0.0, 0.0], 1),
        refused(&[1.0, 0.0, 0.0], 9),
    ] {
        assert!(!error.hint().is_empty());
    }
}

#[test]
fn a_query_that_was_rounded_counts_as_the_unit_vector_it_was() {
    let rows = vectors(20, 64, 5);
    let query = &vectors(1, 64, 6)[0];
    let rounded: Vec<f32> = query.iter().map(|value| value * 1.009).collect();
    for encoding in ENCODINGS {
        let background = Background::parse(&file(encoding, &rows)).expect("valid");
        let (exact, found) = (background.mean_top_k(query, 5), background.mean_top_k(&rounded, 5));
        assert!((exact.expect("unit") - found.expect("nearly unit")).abs() < 1e-5);
    }
}

#[test]
fn a_header_field_out_of_range_is_refused_by_its_name() {
    let good = file(0, &vectors(2, 3, 1));
    let cases = [
        (4, 2_u16.to_le_bytes().to_vec(), "version", 2),
        (6, 3_u16.to_le_bytes().to_vec(), "encoding", 3),
        (8, 0_u32.to_le_bytes().to_vec(), "rows", 0),
        (8, u32::MAX.to_le_bytes().to_vec(), "rows", u32::MAX),
        (12, 0_u32.to_le_bytes().to_vec(), "dimensions", 0),
        (12, 16_001_u32.to_le_bytes().to_vec(), "dimensions", 16_001),
    ];
    for (at, bytes, name, wrong) in cases {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(&bytes);
        match Background::parse(&file) {
            Err(BackgroundError::Header { field, value, .. }) => assert_eq!((field, value), (name, wrong)),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_file_of_another_length_than_announced_is_refused_without_allocating_for_it() {
    for encoding in ENCODINGS {
        let good = file(encoding, &vectors(3, 5, 1));
        for cut in 0..good.len() {
            let error = Background::parse(&good[..cut]).expect_err("cut");
            if cut < 16 {
                assert_eq!(error, BackgroundError::Magic);
            } else {
                let (expected, found) = (good.len() as u64, cut as u64);
                assert_eq!(error, BackgroundError::Length { expected, found });
            }
        }
        let longer = [&good[..], &[0]].concat();
        assert!(matches!(
            Background::parse(&longer),
            Err(BackgroundError::Length { .. })
        ));
    }
    // Ten million rows of 16,000 dimensions in 16 bytes.
    let mut claim = b"CMBG\x01\x00\x00\x00".to_vec();
    claim.extend(10_000_000_u32.to_le_bytes());
    claim.extend(16_000_u32.to_le_bytes());
    assert_eq!(
        Background::parse(&claim).err(),
        Some(BackgroundError::Length {
            expected: 640_000_000_016,
            found: 16
        })
    );
    assert_eq!(
        Background::parse(b"PK\x03\x04 and so on, quite long").err(),
        Some(BackgroundError::Magic)
    );
}

#[test]
fn a_row_that_is_not_finite_or_not_of_unit_length_is_refused_by_its_number() {
    for (encoding, value) in [(0, f32::NAN), (0, f32::INFINITY), (1, f32::NAN), (1, f32::INFINITY)] {
        let mut rows = vectors(4, 3, 1);
        rows[2][1] = value;
        let error = Background::parse(&file(encoding, &rows)).expect_err("not finite");
        assert_eq!(error, BackgroundError::NonFiniteRow { row: 2 });
    }
    for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut bytes = file(2, &vectors(4, 3, 1));
        bytes[16 + 8..16 + 12].copy_from_slice(&scale.to_le_bytes());
        assert_eq!(
            Background::parse(&bytes).err(),
            Some(BackgroundError::NonFiniteRow { row: 2 })
        );
    }
    for encoding in ENCODINGS {
        let mut rows = vectors(4, 3, 1);
        rows[1].iter_mut().for_each(|value| *value *= 1.05);
        match Background::parse(&file(encoding, &rows)) {
            Err(BackgroundError::RowNotUnit { row: 1, norm }) => assert!((norm - 1.05).abs() < 0.01, "{norm}"),
            other => panic!("{other:?}"),
        }
    }
    let mut zero_scale = file(2, &vectors(1, 3, 1));
    zero_scale[16..20].fill(0);
    assert_eq!(
        Background::parse(&zero_scale).err(),
        Some(BackgroundError::RowNotUnit { row: 0, norm: 0.0 })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_mean_of_the_nearest_is_that_of_an_exhaustive_search(
        seed in any::<u64>(), count in 1_usize..60, dimensions in 2_usize..130, k in 1_usize..12
    ) {
        prop_assume!(k <= count);
        let rows = vectors(count, dimensions, seed);
        let query = vectors(1, dimensions, !seed).remove(0);
        for encoding in ENCODINGS {
            let background = Background::parse(&file(encoding, &rows)).expect("valid");
            let found = f64::from(background.mean_top_k(&query, k).expect("enough rows"));
            let expected = oracle(&rows, &query, k);
            prop_assert!((found - expected).abs() < tolerance(encoding), "{found} instead of {expected}");
        }
    }

    #[test]
    fn the_int8_mean_is_that_of_the_rows_as_they_are_stored(
        seed in any::<u64>(), count in 1_usize..30, dimensions in 2_usize..600
    ) {
        let rows = vectors(count, dimensions, seed);
        let query = vectors(1, dimensions, !seed).remove(0);
        let bytes = file(2, &rows);
        let stored: Vec<Vec<f32>> = (0..count)
            .map(|row| {
                let scale = f32::from_le_bytes(bytes[16 + row * 4..20 + row * 4].try_into().expect("four bytes"));
                let start = 16 + count * 4 + row * dimensions;
                bytes[start..start + dimensions].iter().map(|&code| f32::from(code as i8) * scale).collect()
            })
            .collect();
        let background = Background::parse(&bytes).expect("valid");
        let k = count.min(5);
        let found = f64::from(background.mean_top_k(&query, k).expect("enough rows"));
        let expected = oracle(&stored, &query, k);
        prop_assert!((found - expected).abs() < 5e-5, "{found} instead of {expected}");
    }

    #[test]
    fn the_order_of_the_rows_does_not_matter(seed in any::<u64>(), count in 5_usize..40) {
        let mut rows = vectors(count, 32, seed);
        let query = vectors(1, 32, !seed).remove(0);
        let mean = |rows: &[Vec<f32>], encoding| {
            Background::parse(&file(encoding, rows)).expect("valid").mean_top_k(&query, 5).expect("enough rows")
        };
        let before = ENCODINGS.map(|encoding| mean(&rows, encoding));
        rows.reverse();
        prop_assert_eq!(ENCODINGS.map(|encoding| mean(&rows, encoding)), before);
    }
}
