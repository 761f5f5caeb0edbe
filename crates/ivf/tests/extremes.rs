//! Numbers at the ends of their range.
mod data;

use data::*;
use ivf::stores::Memory;
use ivf::{Metric, SearchOptions};

#[test]
fn huge_and_tiny_vectors_are_indexed_soundly_and_none_is_lost() {
    let mut random = Random::new(1);
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        let mut rows = random.clustered(300, 8);
        for (at, row) in rows.iter_mut().enumerate() {
            let factor = [1.0, 1e30, 1e-30][at % 3];
            row.iter_mut().for_each(|x| *x *= factor);
        }
        let store = Memory::new();
        build(&store, &rows, metric, 3, 1).unwrap();
        assert_sound(&store, 300);
        for query in [&rows[0], &rows[1], &rows[2]] {
            let hits = search(&store, metric, query, &rows, usize::MAX, SearchOptions::default());
            assert_eq!(hits.len(), 300, "{metric:?}");
        }
    }
}
