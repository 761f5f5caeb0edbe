//! How many lists must be probed: measured on the index itself.
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::code::{self, Query};

use crate::directory::{self, BranchEntry, Descent, OwnedCentroid, Probe};
use crate::geometry::Geometry;
use crate::list;
use crate::meta::{CurvePoint, MOST_POINTS};
use crate::page::Kind;
use crate::search::{Iteration, Search, SearchOptions};
use crate::{Meta, Metric, PageStore, Result, Tid, split};

/// Queries with which the curve is measured.
const QUERIES: usize = 400;
/// Neighbours that are to be found.
const NEIGHBOURS: usize = 10;
/// How far a perturbed copy lies from its row, in lengths of the row.
const PERTURBATION: f32 = 0.5;
/// Rows of which the rank of their own list is looked at.
const OWN_LISTS: usize = 2_000;

/// Measures what part of the ten nearest neighbours lies in the nearest lists, by their number, and stores the curve.
///
/// Queries are rows of the index, half of them perturbed as edited copies are. What is true is taken from a search that
/// probes many more lists than any query will need.
pub fn measure_recall<S: PageStore>(store: &S) -> Result<()> {
    let meta = Meta::read(store)?;
    let geometry = meta.geometry()?;
    let many = (meta.lists / 8).max(256).min(meta.lists);
    let queries = sample_queries(store, &meta, &geometry)?;
    let mut ranks = Vec::new();
    for query in &queries {
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
            if Some(hit.tid) != query.lists_for_itself {
                ranks.push(hit.probe);
                found += 1;
            }
        }
    }
    let curve = curve_of(&mut ranks, many, meta.lists);
    let lists_for_itself = lists_to_find_itself(store, &meta, &geometry, many)?;
    Meta::update(store, |meta| {
        meta.curve = curve;
        meta.lists_for_itself = lists_for_itself;
        meta.measured_lists = meta.lists;
    })
}

/// How many lists must be ranked until every sampled row's own is among them. Rows are assigned to the nearest list of
/// their time; a split brings centroids that may be nearer.
fn lists_to_find_itself<S: PageStore>(store: &S, meta: &Meta, geometry: &Geometry, many: u32) -> Result<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(!meta.seed ^ u64::from(meta.lists));
    let pages = directory_pages(store, meta, geometry)?;
    let mut farthest = 0;
    for _ in 0..OWN_LISTS {
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

struct SampledQuery {
    /// Rotated.
    vector: Vec<f32>,
    /// The row that it is, which is not its own neighbour; none for a perturbed one.
    lists_for_itself: Option<Tid>,
}

fn sample_queries<S: PageStore>(store: &S, meta: &Meta, geometry: &Geometry) -> Result<Vec<SampledQuery>> {
    let mut random = ChaCha8Rng::seed_from_u64(meta.seed ^ u64::from(meta.lists));
    let pages = directory_pages(store, meta, geometry)?;
    let mut queries = Vec::with_capacity(QUERIES);
    for attempt in 0..4 * QUERIES {
        if queries.len() == QUERIES {
            break;
        }
        store.interrupts()?;
        let Some(probe) = random_list(store, geometry, &pages, &mut random)? else {
            continue;
        };
        if let Some((tid, mut vector)) = random_row(store, meta, geometry, &probe, random.next_u32())? {
            let perturbed = attempt % 2 == 1;
            if perturbed {
                perturb(&mut vector, &mut random);
            }
            queries.push(SampledQuery {
                vector,
                lists_for_itself: (!perturbed).then_some(tid),
            });
        }
    }
    Ok(queries)
}

/// All directory pages, with their branches; those of branches that are split meanwhile are left out.
fn directory_pages<S: PageStore>(store: &S, meta: &Meta, geometry: &Geometry) -> Result<Vec<(BranchEntry, u32)>> {
    let mut pages = Vec::new();
    for (branch, _, _) in directory::branches(store, meta, geometry)? {
        directory::walk(store, &branch, |block, _| {
            pages.push((branch, block));
            Ok(())
        })?;
    }
    Ok(pages)
}

/// A list of a random directory page; none where that page is empty or no longer one.
fn random_list<S: PageStore>(
    store: &S,
    geometry: &Geometry,
    pages: &[(BranchEntry, u32)],
    random: &mut ChaCha8Rng,
) -> Result<Option<Probe>> {
    if pages.is_empty() {
        return Ok(None);
    }
    let (branch, block) = pages[random.next_u32() as usize % pages.len()];
    let Some((probes, _)) = directory::read_page(store, geometry, &branch, block)? else {
        return Ok(None);
    };
    if probes.is_empty() {
        return Ok(None);
    }
    Ok(Some(probes[random.next_u32() as usize % probes.len()]))
}

/// A row of the list's first page, as far as its six-bit code knows it.
fn random_row<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
    probe: &Probe,
    number: u32,
) -> Result<Option<(Tid, Vec<f32>)>> {
    let Some(centroid) = OwnedCentroid::read(store, geometry, probe)? else {
        return Ok(None);
    };
    let mut row = None;
    let mut first = true;
    list::walk(
        store,
        probe.entry.head,
        probe.entry.list,
        probe.entry.generation,
        |_, page| {
            if first {
                let slots: Vec<usize> = split::live_slots(geometry, page).collect();
                if !slots.is_empty() {
                    let slot = slots[number as usize % slots.len()];
                    row = Some((
                        list::tid(geometry, page, slot),
                        list::refine_place(geometry, page, slot),
                    ));
                }
                first = false;
            }
            Ok(())
        },
    )?;
    let Some((tid, (block, place))) = row else {
        return Ok(None);
    };
    let page = store.read(block)?;
    if !page.is(Kind::Refine, probe.entry.list, probe.entry.generation) || place >= geometry.refines {
        return Ok(None);
    }
    let mut vector = vec![0.0; geometry.rotated];
    let mut code = vec![0; geometry.rotated];
    code::decode(
        meta.metric,
        list::refine_record(geometry, &page, place),
        centroid.view(),
        &mut code,
        &mut vector,
    );
    if meta.metric == Metric::Cosine {
        rescale(&mut vector, 1.0);
    }
    Ok(Some((tid, vector)))
}

/// Adds noise of a fixed part of the vector's length, and keeps the length.
fn perturb(vector: &mut [f32], random: &mut ChaCha8Rng) {
    let length = vectors::norm(vector) as f32;
    let mut noise: Vec<f32> = vector
        .iter()
        // The sum of four uniform numbers is near enough to normal.
        .map(|_| (0..4).map(|_| random.next_u32() as f32 / u32::MAX as f32 - 0.5).sum())
        .collect();
    rescale(&mut noise, PERTURBATION * length);
    for (x, noise) in vector.iter_mut().zip(noise) {
        *x += noise;
    }
    rescale(vector, length);
}

fn rescale(vector: &mut [f32], length: f32) {
    let norm = vectors::norm(vector) as f32;
    if norm > 0.0 {
        for x in vector {
            *x *= length / norm;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

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
