//! How many lists must be probed: measured on the index itself.
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::code::Query;

use crate::descent::Descent;
use crate::distances::Neighbour;
use crate::geometry::Geometry;
use crate::meta::{CurvePoint, FEW_LISTS, MOST_POINTS, NEIGHBOURS};
use crate::sampling::{SampledQuery, directory_pages, random_list, random_row, sample_queries};
use crate::search::{Iteration, Search, SearchOptions};
use crate::store::LockMode;
use crate::{Error, Meta, PageStore, Result, distances};

/// A truth is looked for in at least so many lists.
const MANY: u32 = 256;
/// The part of the neighbours, at most, that the farther half of these lists may hold. With more of them there, the
/// lists behind hold some, too: data without clusters.
const FAR: f64 = 0.01;
/// How many times as many lists are then taken, with half of the queries.
const FARTHER: u32 = 4;
/// How many times as many lists as when last measured let an insert measure anew.
const GROWN: f64 = 1.5;
/// In more lists an insert does not measure any more: somebody waits for it, perhaps under a statement_timeout that
/// would strike again at the next split. Up to so many it takes some tenths of a second, and a vacuum, which
/// autovacuum begins after a fifth of the rows are new, comes soon enough behind that.
const MOST_LISTS: u32 = 1024;
/// The lock of whoever measures while others insert. No list has this number less one.
const MEASURING: u32 = u32::MAX;

/// How thoroughly to measure.
#[derive(Clone, Copy)]
struct Effort {
    /// Queries with which the curve is measured.
    queries: usize,
    /// Queries at least, where many rows have to be compared for each.
    fewest_queries: usize,
    /// Rows of which the rank of their own list is looked at.
    own_lists: usize,
}

/// By a build or a vacuum.
const WHOLE: Effort = Effort {
    queries: 400,
    fewest_queries: 100,
    own_lists: 2_000,
};
/// By an insert, which somebody waits for: 1,280 neighbours tell a recall of 0.98 to half a hundredth.
const BRIEF: Effort = Effort {
    queries: 128,
    fewest_queries: 64,
    own_lists: 500,
};

/// Measures what part of the ten nearest neighbours lies in the nearest lists, by their number, and what part of all
/// rows lies within a distance, and stores both curves.
///
/// Queries are rows of the index, half of them perturbed as edited copies are. What is true is taken from a search that
/// probes many more lists than any query will need.
pub fn measure_recall<S: PageStore>(store: &S) -> Result<()> {
    measure(store, &Meta::read(store)?, WHOLE)
}

/// Measures anew where the lists became many more by splits since that was done, unless somebody else is at it: an
/// index that fills has no other time for it before its first vacuum.
pub(crate) fn measure_if_grown<S: PageStore>(store: &S) -> Result<()> {
    if !has_grown(&Meta::read(store)?) {
        return Ok(());
    }
    let Some(_measuring) = store.lock(MEASURING, LockMode::Exclusive, false)? else {
        return Ok(());
    };
    // Somebody may have done it before the lock.
    let meta = Meta::read(store)?;
    if !has_grown(&meta) {
        return Ok(());
    }
    match measure(store, &meta, BRIEF) {
        // Whoever searches there will hear of it; this row is in its place.
        Err(Error::Corrupted { .. }) => Ok(()),
        outcome => outcome,
    }
}

fn has_grown(meta: &Meta) -> bool {
    let since = f64::from(meta.lists) / f64::from(meta.measured_lists.max(1));
    (FEW_LISTS + 1..=MOST_LISTS).contains(&meta.lists) && (meta.curve.is_empty() || since >= GROWN)
}

fn measure<S: PageStore>(store: &S, meta: &Meta, effort: Effort) -> Result<()> {
    let geometry = meta.geometry()?;
    let at_first = (meta.lists / 8).max(MANY).min(meta.lists);
    let mut many = at_first;
    let mut queries = sample_queries(store, meta, &geometry, effort.queries)?;
    let mut neighbours = neighbours_within(store, meta, geometry, &queries, many)?;
    while many < meta.lists && far(&neighbours, many) > FAR {
        many = many.saturating_mul(FARTHER).min(meta.lists);
        queries.truncate((queries.len() / 2).max(effort.fewest_queries));
        neighbours = neighbours_within(store, meta, geometry, &queries, many)?;
    }
    let distances = distances::measure(store, meta, &geometry, &queries, &neighbours)?;
    let mut ranks: Vec<u32> = neighbours.iter().map(|neighbour| neighbour.rank).collect();
    let curve = curve_of(&mut ranks, many, meta.lists);
    let lists_for_itself = lists_to_find_itself(store, meta, &geometry, at_first, effort.own_lists)?;
    let measured = meta.lists;
    Meta::update(store, |meta| {
        meta.curve = curve;
        meta.distances = distances;
        meta.lists_for_itself = lists_for_itself;
        meta.measured_lists = measured;
    })
}

/// The nearest rows of the queries, as far as the nearest `many` lists hold them.
fn neighbours_within<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: Geometry,
    queries: &[SampledQuery],
    many: u32,
) -> Result<Vec<Neighbour>> {
    let mut neighbours = memory::vector(queries.len() * NEIGHBOURS)?;
    for query in queries {
        store.interrupts()?;
        let options = SearchOptions {
            probes: Some(many),
            iteration: Iteration::Off,
            rerank: false,
            ..SearchOptions::default()
        };
        let mut search = Search::rotated(store, meta.clone(), geometry, &query.vector, options)?;
        let mut found = 0;
        while found < NEIGHBOURS
            && let Some(hit) = search.next(store, &mut ())?
        {
            if Some(hit.tid) != query.own_row {
                neighbours.push(Neighbour {
                    rank: hit.probe,
                    distance: hit.distance as f32,
                });
                found += 1;
            }
        }
    }
    Ok(neighbours)
}

/// The part of the neighbours that lies in the farther half of the lists.
fn far(neighbours: &[Neighbour], many: u32) -> f64 {
    let far = neighbours.iter().filter(|neighbour| neighbour.rank >= many / 2).count();
    far as f64 / neighbours.len().max(1) as f64
}

/// How many lists must be ranked until every sampled row's own is among them. Rows are assigned to the nearest list of
/// their time; a split brings centroids that may be nearer.
fn lists_to_find_itself<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
    many: u32,
    rows: usize,
) -> Result<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(!meta.seed ^ u64::from(meta.lists));
    let pages = directory_pages(store, meta, geometry)?;
    let mut farthest = 0;
    for _ in 0..rows {
        store.interrupts()?;
        let Some(probe) = random_list(store, geometry, &pages, &mut random)? else {
            continue;
        };
        if let Some((_, vector)) = random_row(store, meta, geometry, &probe, random.next_u32())? {
            let query = Query::new(meta.metric, geometry, &vector);
            let mut descent = Descent::new(store, meta, geometry, &query)?;
            let Some(nearest) = descent.next(store, geometry, &query, many as usize)? else {
                continue;
            };
            let rank = nearest.iter().position(|near| near.entry.list == probe.entry.list);
            farthest = farthest.max(rank.map_or(many, |rank| rank as u32 + 1));
        }
    }
    Ok(farthest)
}

/// Recall at probes that grow by about a third, or more for very many lists, from the ranks of the lists
/// that hold the neighbours.
fn curve_of(ranks: &mut [u32], many: u32, lists: u32) -> Vec<CurvePoint> {
    ranks.sort_unstable();
    let mut curve: Vec<CurvePoint> = Vec::new();
    let mut probes = 1u32;
    let next = |probes: u32, growth: f64| ((f64::from(probes) * growth).ceil() as u32).max(probes + 1).min(many);
    // As many points as there is room for reach from one list to `many`, whatever their number.
    let points =
        |growth: f64| std::iter::successors(Some(1), |&probes| (probes < many).then(|| next(probes, growth))).count();
    let mut growth = 4.0 / 3.0;
    while points(growth) > MOST_POINTS - 1 {
        growth *= 1.02;
    }
    while !ranks.is_empty() && curve.len() < MOST_POINTS - 1 {
        let within = ranks.partition_point(|&rank| rank < probes);
        let recall = within as f32 / ranks.len() as f32;
        curve.push(CurvePoint { probes, recall });
        if probes >= many {
            break;
        }
        probes = next(probes, growth);
    }
    if many < lists {
        // Beyond what was measured only all lists are certain.
        for point in &mut curve {
            point.recall = point.recall.min(0.999);
        }
        curve.push(CurvePoint {
            probes: lists,
            recall: 1.0,
        });
    }
    curve
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::stores::Memory;
    use crate::{Metric, Tid, check, create_empty, insert};

    #[test]
    fn one_insert_measures_where_an_index_has_grown_and_nobody_else_is_at_it() {
        let store = Memory::new();
        create_empty(&store, 16, Metric::L2).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut row = move || -> Vec<f32> { (0..16).map(|_| random.next_u32() as f32 / u32::MAX as f32).collect() };
        let mut at = 0;
        let mut fill = |until: &dyn Fn(&Meta) -> bool| loop {
            let meta = Meta::read(&store).unwrap();
            if until(&meta) {
                return meta;
            }
            insert(&store, &row(), Tid::new(at, 1)).unwrap();
            at += 1;
        };
        let first = fill(&|meta| !meta.curve.is_empty());
        assert_eq!(first.measured_lists, first.lists);
        assert!(
            first.lists > FEW_LISTS && first.lists <= FEW_LISTS + 16,
            "the first split that needs it"
        );
        let measuring = store.lock(MEASURING, LockMode::Exclusive, false).unwrap();
        let waiting = fill(&|meta| f64::from(meta.lists) >= 1.2 * GROWN * f64::from(first.lists));
        assert_eq!(
            (&waiting.curve, waiting.measured_lists),
            (&first.curve, first.measured_lists)
        );
        drop(measuring);
        let second = fill(&|meta| meta.measured_lists > first.measured_lists);
        assert!(second.lists <= waiting.lists + 16, "the next split measures");
        assert_eq!(check(&store, &mut |_| Ok(())).unwrap().problems, vec![]);

        let large = Meta {
            lists: MOST_LISTS,
            ..second
        };
        assert!(has_grown(&large));
        let larger = Meta {
            lists: MOST_LISTS + 1,
            ..large
        };
        assert!(!has_grown(&larger), "nobody is to wait for as long as that takes");
    }

    #[test]
    fn a_curve_counts_the_neighbours_within_the_probes_and_ends_at_all_lists() {
        let mut ranks = [vec![0u32; 50], vec![5; 30], vec![200; 20]].concat();
        let curve = curve_of(&mut ranks, 256, 4096);
        assert_eq!(curve[0], CurvePoint { probes: 1, recall: 0.5 });
        assert!(
            curve
                .windows(2)
                .all(|w| w[0].probes < w[1].probes && w[0].recall <= w[1].recall)
        );
        assert_eq!(
            curve.last().unwrap(),
            &CurvePoint {
                probes: 4096,
                recall: 1.0
            }
        );
        assert!(
            curve
                .iter()
                .any(|p| p.probes >= 6 && p.probes <= 200 && p.recall == 0.8)
        );
        assert!(curve.len() <= MOST_POINTS);
        for many in [1, 2, 256, 1024, 4884, 125_000] {
            let curve = curve_of(&mut ranks, many, 8 * many);
            assert!(curve.len() <= MOST_POINTS);
            assert_eq!(
                curve[curve.len() - 2].probes,
                many,
                "the curve ends where it was measured"
            );
        }
        let distinct: HashSet<u32> = curve.iter().map(|p| p.probes).collect();
        assert_eq!(distinct.len(), curve.len());
    }
}
