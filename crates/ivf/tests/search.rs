//! Searching finds what comparing all rows finds.
mod data;

use data::*;
use ivf::stores::Memory;
use ivf::{Error, Iteration, Metric, Search, SearchOptions, create_empty, insert, measure_recall};
use proptest::prelude::*;

const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

#[test]
fn with_all_lists_probed_nearly_every_neighbour_is_found_and_distances_are_exact() {
    for metric in METRICS {
        for dimensions in [3, 64, 100, 256] {
            let mut random = Random::new(dimensions as u64);
            let rows = random.clustered(3000, dimensions);
            let store = Memory::new();
            build(&store, &rows, metric, 12, 2).unwrap();
            assert_sound(&store, 3000);
            let options = SearchOptions {
                probes: Some(12),
                iteration: Iteration::Off,
                ..SearchOptions::default()
            };
            let mut found = 0.0;
            for at in 0..50 {
                let query: Vec<f32> = rows[at * 7].iter().map(|x| x + 0.3 * random.normal()).collect();
                let hits = search(&store, metric, &query, &rows, 10, options);
                assert!(hits.windows(2).all(|w| w[0].1 <= w[1].1), "{metric:?} {dimensions}");
                for (row, d) in &hits {
                    assert!((d - distance(metric, &query, &rows[*row])).abs() < 1e-6 * (1.0 + d.abs()));
                }
                found += recall(&hits, &exact(metric, &query, &rows, 10)) / 50.0;
            }
            assert!(found >= 0.98, "{metric:?} {dimensions}: {found}");
        }
    }
}

#[test]
fn the_measured_curve_gives_the_recall_that_is_asked_for() {
    let mut random = Random::new(1);
    let rows = random.clustered(20_000, 64);
    let store = Memory::new();
    build(&store, &rows, Metric::Cosine, 80, 2).unwrap();
    measure_recall(&store).unwrap();
    for target in [0.9, 0.98] {
        let options = SearchOptions {
            target_recall: target,
            ..SearchOptions::default()
        };
        let mut found = 0.0;
        for at in 0..100 {
            let query: Vec<f32> = rows[at * 97].iter().map(|x| x + 0.3 * random.normal()).collect();
            let hits = search(&store, Metric::Cosine, &query, &rows, 10, options);
            found += recall(&hits, &exact(Metric::Cosine, &query, &rows, 10)) / 100.0;
        }
        assert!(found >= f64::from(target) - 0.03, "{target}: {found}");
    }
}

#[test]
fn the_curve_is_true_of_data_whose_neighbours_lie_in_most_lists() {
    let mut random = Random::new(8);
    let mut rows: Vec<Vec<f32>> = (0..16_060).map(|_| random.vector(64)).collect();
    let queries = rows.split_off(16_000);
    let store = Memory::new();
    build(&store, &rows, Metric::L2, 1600, 2).unwrap();
    measure_recall(&store).unwrap();
    let meta = ivf::Meta::read(&store).unwrap();
    assert!(
        meta.probes_for(0.95) > 320,
        "the data are too easy: {}",
        meta.probes_for(0.95)
    );
    let options = SearchOptions {
        target_recall: 0.95,
        ..SearchOptions::default()
    };
    let found: f64 = queries
        .iter()
        .map(|query| {
            let hits = search(&store, Metric::L2, query, &rows, 10, options);
            recall(&hits, &exact(Metric::L2, query, &rows, 10))
        })
        .sum();
    assert!(found / 60.0 >= 0.92, "{}", found / 60.0);
}

#[test]
fn iterating_gives_every_row_exactly_once() {
    let rows = Random::new(2).clustered(5000, 32);
    let store = Memory::new();
    build(&store, &rows, Metric::L2, 20, 1).unwrap();
    for rerank in [true, false] {
        let options = SearchOptions {
            probes: Some(1),
            rerank,
            ..SearchOptions::default()
        };
        let hits = search(&store, Metric::L2, &rows[17], &rows, usize::MAX, options);
        let mut seen: Vec<usize> = hits.iter().map(|hit| hit.0).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..5000).collect::<Vec<_>>());
        if rerank {
            assert_eq!(hits[0].0, 17);
        }
    }
}

#[test]
fn without_iteration_the_search_ends_with_the_probed_lists_and_strict_keeps_the_order() {
    let rows = Random::new(3).clustered(5000, 32);
    let store = Memory::new();
    build(&store, &rows, Metric::L2, 20, 1).unwrap();
    let with = |iteration| {
        let options = SearchOptions {
            probes: Some(2),
            iteration,
            ..SearchOptions::default()
        };
        search(&store, Metric::L2, &rows[17], &rows, usize::MAX, options)
    };
    let off = with(Iteration::Off);
    assert!(off.len() > 10 && off.len() < 2500);
    let strict = with(Iteration::Strict);
    assert!(strict.len() >= off.len());
    assert!(strict.windows(2).all(|w| w[0].1 <= w[1].1));
}

#[test]
fn equal_rows_are_all_found() {
    let rows = vec![vec![1.0, 2.0, 3.0]; 3000];
    for metric in METRICS {
        let store = Memory::new();
        build(&store, &rows, metric, 10, 1).unwrap();
        let hits = search(&store, metric, &rows[0], &rows, usize::MAX, SearchOptions::default());
        assert_eq!(hits.len(), 3000, "{metric:?}");
        let order: Vec<usize> = hits.iter().map(|hit| hit.0).collect();
        assert_eq!(
            order[..256],
            (0..256).collect::<Vec<_>>(),
            "equal rows come in the order of the table"
        );
    }
}

#[test]
fn a_bound_leaves_out_what_lies_farther() {
    let mut random = Random::new(4);
    let rows = random.clustered(5000, 64);
    for metric in METRICS {
        let store = Memory::new();
        build(&store, &rows, metric, 20, 1).unwrap();
        let truth = exact(metric, &rows[5], &rows, 30);
        let options = SearchOptions {
            probes: Some(20),
            bound: Some(truth[29].1),
            ..SearchOptions::default()
        };
        let hits = search(&store, metric, &rows[5], &rows, usize::MAX, options);
        let within: Vec<_> = hits.iter().filter(|hit| hit.1 <= truth[29].1).copied().collect();
        assert!(recall(&within, &truth) >= 0.96, "{metric:?}");
        assert!(hits.len() < 300, "{metric:?}: {}", hits.len());
    }
}

#[test]
fn a_wide_bound_goes_on_to_further_lists_and_a_narrow_one_ends() {
    let rows = Random::new(6).clustered(5000, 64);
    let store = Memory::new();
    build(&store, &rows, Metric::L2, 20, 1).unwrap();
    let with = |bound| {
        let options = SearchOptions {
            probes: Some(4),
            bound: Some(bound),
            ..SearchOptions::default()
        };
        search(&store, Metric::L2, &rows[5], &rows, usize::MAX, options).len()
    };
    let farthest = exact(Metric::L2, &rows[5], &rows, 5000)[4999].1;
    assert_eq!(with(farthest + 1.0), 5000);
    let nearest = exact(Metric::L2, &rows[5], &rows, 10);
    assert!((5..2000).contains(&with(nearest[9].1)), "{}", with(nearest[9].1));
}

#[test]
fn odd_queries_are_answered() {
    let rows = Random::new(5).clustered(600, 8);
    let store = Memory::new();
    build(&store, &rows, Metric::Cosine, 4, 1).unwrap();
    let mut search = Search::new(&store, None, SearchOptions::default()).unwrap();
    let mut rows_found = 0;
    while search.next(&store, &mut Null).unwrap().is_some() {
        rows_found += 1;
    }
    assert_eq!(rows_found, 600);
    let error = Search::new(&store, Some(&[1.0; 7]), SearchOptions::default()).err();
    assert_eq!(error, Some(Error::Dimensions { expected: 8, actual: 7 }));
}

struct Null;
impl ivf::Rerank for Null {
    fn distance(&mut self, _: ivf::Tid) -> ivf::Result<Option<f64>> {
        Ok(Some(f64::NAN))
    }
}

#[test]
fn an_empty_index_finds_nothing_and_takes_rows() {
    for metric in METRICS {
        let store = Memory::new();
        create_empty(&store, 5, metric).unwrap();
        let mut rows: Vec<Vec<f32>> = Vec::new();
        assert_eq!(
            search(&store, metric, &[1.0; 5], &rows, 10, SearchOptions::default()),
            vec![]
        );
        rows.push(vec![1.0, 2.0, 0.0, 0.0, 1.0]);
        assert!(insert(&store, &rows[0], tid(0)).unwrap());
        let hits = search(&store, metric, &[1.0; 5], &rows, 10, SearchOptions::default());
        assert_eq!(hits.len(), 1);
        assert_eq!(insert(&store, &[0.0; 5], tid(1)).unwrap(), metric != Metric::Cosine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_inserted_is_found(seed: u64, dimensions in 1usize..80, count in 1usize..2500, metric in 0usize..3) {
        let metric = METRICS[metric];
        let mut random = Random::new(seed);
        let rows = random.clustered(count, dimensions);
        let store = Memory::new();
        create_empty(&store, dimensions, metric).unwrap();
        for (at, row) in rows.iter().enumerate() {
            prop_assert!(insert(&store, row, tid(at)).unwrap());
        }
        assert_sound(&store, count as u64);
        let options = SearchOptions { probes: Some(u32::MAX), ..SearchOptions::default() };
        let hits = search(&store, metric, &rows[count / 2], &rows, usize::MAX, options);
        let mut seen: Vec<usize> = hits.iter().map(|hit| hit.0).collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..count).collect::<Vec<_>>());
    }
}
