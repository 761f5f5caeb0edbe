//! An index that fills from empty, and that nobody vacuums.
mod data;

use data::*;
use ivf::stores::Memory;
use ivf::{Meta, Metric, PageStore, SearchOptions, automatic_lists, create_empty, insert};

fn cube(random: &mut Random, rows: usize, dimensions: usize, from: f32) -> Vec<Vec<f32>> {
    let number = |random: &mut Random| from + (1.0 - from) * random.uniform();
    (0..rows)
        .map(|_| (0..dimensions).map(|_| number(random)).collect())
        .collect()
}

/// The recall with nothing set, of strangers and of rows that were moved a little.
fn recall_of(store: &Memory, metric: Metric, rows: &[Vec<f32>], strangers: &[Vec<f32>], random: &mut Random) -> f64 {
    let moved: Vec<Vec<f32>> = (0..strangers.len())
        .map(|_| {
            let row = &rows[random.below(rows.len())];
            row.iter().map(|x| x + 0.1 * random.normal()).collect()
        })
        .collect();
    let found: f64 = strangers
        .iter()
        .chain(&moved)
        .map(|query| {
            let hits = search(store, metric, query, rows, 10, SearchOptions::default());
            recall(&hits, &exact(metric, query, rows, 10))
        })
        .sum();
    found / (2 * strangers.len()) as f64
}

#[test]
fn as_much_is_found_as_is_asked_for_at_any_time_while_an_index_fills() {
    let target = f64::from(SearchOptions::default().target_recall);
    for (metric, what, dimensions) in [
        (Metric::L2, "uniform", 112),
        (Metric::InnerProduct, "positive", 96),
        (Metric::Cosine, "clustered", 32),
        (Metric::L2, "uniform", 3),
        // Rows lie so near to one another here that an error of a code is much.
        (Metric::Cosine, "positive", 3),
    ] {
        let mut random = Random::new(dimensions as u64);
        let (rows, strangers) = match what {
            "uniform" => (
                cube(&mut random, 40_000, dimensions, -1.0),
                cube(&mut random, 50, dimensions, -1.0),
            ),
            "positive" => (
                cube(&mut random, 40_000, dimensions, 0.0),
                cube(&mut random, 50, dimensions, 0.0),
            ),
            _ => {
                let mut rows = random.clustered(40_050, dimensions);
                let strangers = rows.split_off(40_000);
                (rows, strangers)
            }
        };
        let store = Memory::new();
        create_empty(&store, dimensions, metric).unwrap();
        let mut filled = 0;
        for until in [4_000, 12_000, 24_000, 40_000] {
            for (at, row) in rows.iter().enumerate().take(until).skip(filled) {
                insert(&store, row, tid(at)).unwrap();
            }
            filled = until;
            let found = recall_of(&store, metric, &rows[..filled], &strangers, &mut random);
            assert!(
                found >= target - 0.02,
                "{what} {metric:?} {dimensions} at {filled}: {found}"
            );
        }
        let meta = Meta::read(&store).unwrap();
        assert!(meta.lists > 40, "{what} {metric:?} {dimensions}: {} lists", meta.lists);
        assert!(!meta.curve.is_empty(), "{what} {metric:?} {dimensions}");
    }
}

#[test]
fn an_index_that_filled_takes_little_more_space_than_one_that_was_built() {
    for (dimensions, metric) in [(3, Metric::L2), (64, Metric::Cosine), (300, Metric::InnerProduct)] {
        let rows = Random::new(3).clustered(20_000, dimensions);
        let built = Memory::new();
        let lists = automatic_lists(rows.len() as f64);
        build(&built, &rows, metric, lists, 2).unwrap();
        let grown = Memory::new();
        create_empty(&grown, dimensions, metric).unwrap();
        for (at, row) in rows.iter().enumerate() {
            insert(&grown, row, tid(at)).unwrap();
        }
        assert_sound(&grown, 20_000);
        let (built, grown) = (built.blocks().unwrap(), grown.blocks().unwrap());
        assert!(
            10 * grown <= 13 * built,
            "{dimensions}: {grown} pages, {built} when built"
        );
    }
}
