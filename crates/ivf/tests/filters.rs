//! A search with a filter finds what judging every row first and comparing the rest finds.
mod data;

use std::collections::HashSet;

use data::*;
use ivf::stores::{Faulty, Memory};
use ivf::{
    Error, Filter, FilterLayout, Iteration, MOST_FILTERS, Meta, Metric, PAGE_SIZE, PageStore, SearchOptions, Test,
    bulk_delete, check, cleanup, create_empty, create_empty_with, insert, insert_with, stats,
};
use proptest::prelude::*;

const ALL: SearchOptions = SearchOptions {
    probes: Some(u32::MAX),
    target_recall: 1.0,
    bound: None,
    iteration: Iteration::Relaxed,
    rerank: true,
};

/// A tenant, a time, an identifier, a flag; some of them NULL.
fn layout() -> FilterLayout {
    FilterLayout::new(&[4, 8, 16, 1]).unwrap()
}

/// What the row of a number has in its filter columns.
fn values(at: usize) -> Values {
    let mixed = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    vec![
        (!at.is_multiple_of(11)).then_some(i128::from(mixed >> 33) % 1000),
        Some(at as i128 - 500),
        (!at.is_multiple_of(7)).then_some(i128::from(mixed) << 62 ^ i128::from(mixed)),
        Some(i128::from(at % 3 == 1)),
    ]
}

fn filter(tests: &[(usize, Test)]) -> Filter {
    let mut filter = Filter::new();
    for (column, test) in tests {
        filter.add(*column, test.clone());
    }
    filter
}

fn passes(values: &Values, tests: &[(usize, Test)]) -> bool {
    tests.iter().all(|(column, test)| match (test, values[*column]) {
        (Test::Null, value) => value.is_none(),
        (_, None) => false,
        (Test::NotNull, _) => true,
        (Test::Within(low, high), Some(value)) => (*low..=*high).contains(&value),
        (Test::OneOf(some), Some(value)) => some.contains(&value),
    })
}

/// Rows that a search for all of them gives, each once.
fn found(store: &Memory, metric: Metric, rows: &[Vec<f32>], tests: &[(usize, Test)]) -> HashSet<usize> {
    let hits = search_among(store, metric, &rows[0], rows, usize::MAX, ALL, filter(tests));
    let distinct: HashSet<usize> = hits.iter().map(|hit| hit.0).collect();
    assert_eq!(distinct.len(), hits.len(), "a row came twice");
    distinct
}

fn some_tests() -> Vec<Vec<(usize, Test)>> {
    vec![
        vec![(0, Test::Within(100, 199))],
        vec![(0, Test::Within(7, 7)), (3, Test::Within(1, 1))],
        vec![(0, Test::Null)],
        vec![(2, Test::NotNull), (1, Test::Within(i128::MIN, 300))],
        vec![(0, Test::OneOf(vec![3, 999, 500, -4]))],
        vec![(1, Test::OneOf((0..4000).step_by(37).collect()))],
        vec![(2, Test::Within(0, i128::MAX))],
        vec![(0, Test::Within(1, 0))],
    ]
}

#[test]
fn every_row_that_passes_comes_and_no_other_after_a_build_inserts_splits_and_vacuums() {
    for (metric, dimensions) in [(Metric::L2, 32), (Metric::Cosine, 100), (Metric::InnerProduct, 3)] {
        let mut random = Random::new(dimensions as u64);
        let rows = random.clustered(9000, dimensions);
        let all: Vec<Values> = (0..rows.len()).map(values).collect();
        let store = Memory::new();
        build_with(&store, (&rows[..4000], &all[..4000]), layout(), metric, 6, 300).unwrap();
        let judge = |living: &dyn Fn(usize) -> bool| {
            for tests in some_tests() {
                let expected: HashSet<usize> = (0..rows.len())
                    .filter(|&at| living(at) && passes(&all[at], &tests))
                    .collect();
                assert_eq!(found(&store, metric, &rows, &tests), expected, "{metric:?} {tests:?}");
            }
        };
        judge(&|at| at < 4000);
        let before = stats(&store).unwrap().lists;
        for at in 4000..9000 {
            insert_with(&store, &rows[at], &all[at], tid(at)).unwrap();
        }
        assert!(stats(&store).unwrap().lists > before, "no list was split");
        assert_sound(&store, 9000);
        judge(&|_| true);
        let stays = |at: usize| at.is_multiple_of(10) || at < 500;
        bulk_delete(&store, &mut |tid| !stays(row(tid))).unwrap();
        judge(&stays);
        assert!(cleanup(&store).unwrap().compacted > 0, "no list moved");
        judge(&stays);
        // Room of removed rows, values of theirs in it, is used again.
        for at in (500..9000).filter(|at| at % 10 == 4) {
            insert_with(&store, &rows[at], &all[at], tid(at)).unwrap();
        }
        let live = (0..9000).filter(|&at| stays(at) || at % 10 == 4).count() as u64;
        assert_sound(&store, live);
        judge(&|at| stays(at) || at % 10 == 4);
    }
}

#[test]
fn the_nearest_that_pass_are_found_as_often_as_the_target_says_whatever_part_passes() {
    let mut random = Random::new(5);
    let rows = random.clustered(30_000, 64);
    let all: Vec<Values> = (0..rows.len()).map(values).collect();
    let store = Memory::new();
    build_with(&store, (&rows, &all), layout(), Metric::L2, 120, usize::MAX).unwrap();
    ivf::measure_recall(&store).unwrap();
    for (target, most) in [(0.9, 499), (0.9, 99), (0.95, 99), (0.95, 9), (0.95, 0)] {
        let tests = [(0, Test::Within(0, most))];
        let among: Vec<usize> = (0..rows.len()).filter(|&at| passes(&all[at], &tests)).collect();
        let options = SearchOptions {
            target_recall: target,
            ..SearchOptions::default()
        };
        let mut sum = 0.0;
        for at in 0..60 {
            let query: Vec<f32> = rows[at * 97].iter().map(|x| x + 0.3 * random.normal()).collect();
            let mut truth: Vec<(usize, f64)> = among
                .iter()
                .map(|&row| (row, distance(Metric::L2, &query, &rows[row])))
                .collect();
            truth.sort_by(|a, b| a.1.total_cmp(&b.1));
            truth.truncate(10);
            let hits = search_among(&store, Metric::L2, &query, &rows, 10, options, filter(&tests));
            assert!(hits.iter().all(|(row, _)| passes(&all[*row], &tests)));
            assert!(hits.windows(2).all(|two| two[0].1 <= two[1].1));
            assert_eq!(hits.len(), truth.len());
            sum += recall(&hits, &truth) / 60.0;
        }
        assert!(sum >= f64::from(target) - 0.03, "{target} of those up to {most}: {sum}");
    }
}

#[test]
fn rows_that_pass_far_from_the_query_are_found() {
    // Everything near the query fails: what is wanted lies in other clusters.
    let mut random = Random::new(9);
    let near: Vec<f32> = random.vector(32);
    let rows: Vec<Vec<f32>> = (0..20_000)
        .map(|at| match at % 50 {
            0 => random.vector(32).iter().map(|x| 3.0 * x).collect(),
            _ => near.iter().map(|x| x + 0.2 * random.normal()).collect(),
        })
        .collect();
    let all: Vec<Values> = (0..rows.len()).map(|at| vec![Some((at % 50) as i128)]).collect();
    let store = Memory::new();
    let layout = FilterLayout::new(&[2]).unwrap();
    build_with(&store, (&rows, &all), layout, Metric::L2, 80, usize::MAX).unwrap();
    ivf::measure_recall(&store).unwrap();
    let filter = filter(&[(0, Test::Within(0, 0))]);
    let hits = search_among(&store, Metric::L2, &near, &rows, 10, SearchOptions::default(), filter);
    let mut truth: Vec<(usize, f64)> = (0..rows.len())
        .step_by(50)
        .map(|at| (at, distance(Metric::L2, &near, &rows[at])))
        .collect();
    truth.sort_by(|a, b| a.1.total_cmp(&b.1));
    assert!(recall(&hits, &truth[..10]) >= 0.9, "{hits:?}");
}

#[test]
fn a_filter_that_nothing_passes_reads_no_list() {
    let rows = Random::new(3).clustered(2000, 32);
    let all: Vec<Values> = (0..rows.len()).map(values).collect();
    let store = Memory::new();
    build_with(&store, (&rows, &all), layout(), Metric::L2, 8, usize::MAX).unwrap();
    let mut nothing = Filter::new();
    nothing.refuse_all();
    for filter in [
        nothing,
        filter(&[(1, Test::OneOf(vec![]))]),
        filter(&[(1, Test::Within(3, 2))]),
    ] {
        assert!(search_among(&store, Metric::L2, &rows[0], &rows, 10, ALL, filter).is_empty());
    }
}

#[test]
fn values_and_filters_of_other_columns_are_refused_and_indexes_without_any_are_as_they_were() {
    let rows = Random::new(4).clustered(300, 32);
    let plain = Memory::new();
    create_empty(&plain, 32, Metric::L2).unwrap();
    insert(&plain, &rows[0], tid(0)).unwrap();
    assert_eq!(Meta::read(&plain).unwrap().format_version(), 1);
    assert!(matches!(
        insert_with(&plain, &rows[1], &[Some(1)], tid(1)),
        Err(Error::Corrupted { block: 0, .. })
    ));
    let asked = ivf::Search::filtered(&plain, Some(&rows[0]), ALL, filter(&[(0, Test::NotNull)]));
    assert!(matches!(asked.err(), Some(Error::Corrupted { block: 0, .. })));

    let store = Memory::new();
    create_empty_with(&store, 32, layout(), Metric::L2).unwrap();
    assert_eq!(Meta::read(&store).unwrap().format_version(), 2);
    assert!(insert(&store, &rows[0], tid(0)).is_err(), "a row without its values");
    insert_with(&store, &rows[0], &values(0), tid(0)).unwrap();
    assert_sound(&store, 1);
    assert!(FilterLayout::new(&[1; MOST_FILTERS]).is_some());
}

#[test]
fn a_crash_at_any_record_of_an_insert_with_a_split_leaves_every_row_its_own_values() {
    let rows = Random::new(4).clustered(1500, 64);
    let add = |store: &Memory, at: usize| insert_with(store, &rows[at], &values(at), tid(at)).unwrap();
    let make = |until: usize| {
        let store = Memory::new();
        create_empty_with(&store, 64, layout(), Metric::L2).unwrap();
        (0..until).for_each(|at| {
            add(&store, at);
        });
        store
    };
    let splits_at = {
        let store = make(0);
        (0..rows.len())
            .find(|&at| add(&store, at) && stats(&store).unwrap().lists > 1)
            .unwrap()
    };
    for cut in 0.. {
        let store = Faulty::new(make(splits_at), cut);
        let outcome = insert_with(&store, &rows[splits_at], &values(splits_at), tid(splits_at));
        let memory = store.into_memory();
        assert_eq!(
            check(&memory, &mut |_| Ok(())).unwrap().problems,
            vec![],
            "cut at {cut}"
        );
        for tests in some_tests() {
            let mut got = found(&memory, Metric::L2, &rows, &tests);
            got.remove(&splits_at);
            let expected = (0..splits_at).filter(|&at| passes(&values(at), &tests)).collect();
            assert_eq!(got, expected, "cut at {cut}, {tests:?}");
        }
        if outcome.is_ok() {
            assert!(cut > 10, "the split took only {cut} records");
            return;
        }
    }
}

#[test]
fn a_value_where_none_is_and_other_columns_in_block_0_are_told_with_their_block() {
    let rows = Random::new(6).clustered(400, 32);
    let all: Vec<Values> = (0..rows.len()).map(values).collect();
    let store = Memory::new();
    build_with(&store, (&rows, &all), layout(), Metric::L2, 2, usize::MAX).unwrap();
    assert_sound(&store, 400);
    // The mask of the first column's values of a block: where it goes off, values are left behind.
    let mut told = 0;
    for block in 1..store.blocks().unwrap() {
        let page = store.page(block);
        for at in (24..200).step_by(4).filter(|&at| page.0[at].count_ones() >= 6) {
            store.damage(block, at, &[0]);
            let report = check(&store, &mut |_| Ok(())).unwrap();
            told += u32::from(
                report
                    .problems
                    .iter()
                    .any(|(at, what)| *at == block && what.contains("filter column")),
            );
            store.damage(block, at, &page.0[at..=at]);
        }
    }
    assert!(told > 0);
}

#[test]
fn damaged_pages_are_errors_or_rows_that_are_there_never_panics() {
    let rows = Random::new(8).clustered(1200, 16);
    let all: Vec<Values> = (0..rows.len()).map(values).collect();
    let mut random = Random::new(10);
    let mut noticed = 0;
    for _ in 0..120 {
        let store = Memory::new();
        build_with(&store, (&rows, &all), layout(), Metric::L2, 20, usize::MAX).unwrap();
        let block = random.below(store.blocks().unwrap() as usize) as u32;
        // The fixed parts of a page more often than its codes.
        let at = match random.below(3) {
            0 => PAGE_SIZE - 16 + random.below(13),
            1 => 12 + random.below(if block == 0 { 450 } else { 100 }),
            _ => random.below(PAGE_SIZE - 4),
        };
        let bytes: Vec<u8> = (0..4).map(|_| random.below(256) as u8).collect();
        store.damage(block, at, &bytes);
        let mut errors = Vec::new();
        let asked = filter(&[(0, Test::Within(0, 500)), (2, Test::NotNull)]);
        errors.push(
            ivf::Search::filtered(&store, Some(&rows[3]), ALL, asked)
                .and_then(|mut search| {
                    let mut table = Table {
                        metric: Metric::L2,
                        query: &rows[3],
                        rows: &rows,
                        asked: 0,
                    };
                    while search.next(&store, &mut table)?.is_some() {}
                    Ok(())
                })
                .err(),
        );
        errors.push(insert_with(&store, &rows[4], &values(4), tid(2000)).err());
        errors.push(cleanup(&store).err());
        for error in errors.iter().flatten() {
            assert!(
                matches!(error, Error::Corrupted { .. } | Error::Version { .. }),
                "{error:?}"
            );
        }
        let report = check(&store, &mut |_| Ok(())).unwrap();
        noticed += u32::from(errors.iter().any(Option::is_some) || !report.problems.is_empty());
    }
    assert!(noticed > 10, "{noticed}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_rows_values_and_conditions_agree_with_judging_every_row(
        seed in any::<u64>(),
        dimensions in 1usize..200,
        widths in prop::collection::vec(0usize..5, 1..=MOST_FILTERS),
        count in 1usize..700,
        distinct in 1u64..50,
        built in any::<bool>(),
    ) {
        let widths: Vec<usize> = widths.into_iter().map(|at| 1 << at).collect();
        let layout = FilterLayout::new(&widths).unwrap();
        let mut random = Random::new(seed);
        let rows = random.clustered(count, dimensions);
        let all: Vec<Values> = rows
            .iter()
            .map(|_| {
                widths
                    .iter()
                    .map(|_| (random.below(5) > 0).then(|| random.below(distinct as usize) as i128 - 3))
                    .collect()
            })
            .collect();
        let store = Memory::new();
        if built {
            build_with(&store, (&rows, &all), layout, Metric::L2, 3, 100).unwrap();
        } else {
            create_empty_with(&store, dimensions, layout, Metric::L2).unwrap();
            for (at, row) in rows.iter().enumerate() {
                insert_with(&store, row, &all[at], tid(at)).unwrap();
            }
        }
        assert_sound(&store, count as u64);
        for _ in 0..6 {
            let column = random.below(widths.len());
            let low = random.below(60) as i128 - 5;
            let test = match random.below(4) {
                0 => Test::Null,
                1 => Test::OneOf((0..random.below(20)).map(|_| random.below(50) as i128 - 3).collect()),
                2 => Test::NotNull,
                _ => Test::Within(low, low + random.below(20) as i128 - 2),
            };
            let tests = [(column, test), (random.below(widths.len()), Test::Within(-2, i128::MAX))];
            let expected: HashSet<usize> =
                (0..count).filter(|&at| passes(&all[at], &tests)).collect();
            prop_assert_eq!(found(&store, Metric::L2, &rows, &tests), expected);
        }
    }
}
