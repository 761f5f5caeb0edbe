//! What part of an index lies within a distance of a row: measured with the recall, for whoever plans a query that
//! bounds the distance.
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::directory;
use crate::geometry::Geometry;
use crate::meta::{DistancePoint, MOST_DISTANCES};
use crate::page::NONE;
use crate::sampling::{SampledQuery, random_row};
use crate::{Error, Meta, Metric, PageStore, Result};

/// One of a query's nearest rows.
pub(crate) struct Neighbour {
    /// How many lists are nearer than its own.
    pub rank: u32,
    /// By its six-bit code.
    pub distance: f32,
}

/// Rows that each query is compared with.
const OTHERS: usize = 512;
/// Pairs that a part of them is told by, at least.
const FEWEST_PAIRS: f64 = 30.0;
/// Rows within the distance of a query, on average, that a part of all rows is told by where pairs tell nothing.
const FEW_ROWS: [f64; 4] = [0.1, 0.3, 1.0, 3.0];
/// Steps from one part to the next: a factor up to [`FINE`], then these.
const STEP: f64 = 3.0;
const FINE: f64 = 0.25;
const COARSE: [f64; 4] = [0.3, 0.5, 0.8, 1.0];

/// The parts within growing distances. Of the nearest rows it tells the neighbours that searches found, of the others
/// a sample's distances.
pub(crate) fn measure<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
    queries: &[SampledQuery],
    neighbours: &[Neighbour],
) -> Result<Vec<DistancePoint>> {
    let (others, counted) = sample(store, meta, geometry)?;
    let rows = meta.rows.max(counted).max(1) as f64;
    let mut pairs: Vec<f32> = memory::vector(queries.len() * others.len())?;
    for query in queries {
        store.interrupts()?;
        pairs.extend(others.iter().map(|other| distance(meta.metric, &query.vector, other)));
    }
    pairs.sort_unstable_by(f32::total_cmp);
    let mut nearest: Vec<f32> = memory::vector(neighbours.len())?;
    nearest.extend(neighbours.iter().map(|neighbour| neighbour.distance));
    nearest.sort_unstable_by(f32::total_cmp);
    Ok(curve_of(&nearest, queries.len(), rows, &pairs))
}

/// Both lists of distances are ascending.
fn curve_of(nearest: &[f32], queries: usize, rows: f64, pairs: &[f32]) -> Vec<DistancePoint> {
    let mut curve: Vec<DistancePoint> = Vec::new();
    let mut add = |part: f64, distance: Option<&f32>| {
        let (Some(&distance), part) = (distance, part as f32) else {
            return;
        };
        let full = curve.len() == MOST_DISTANCES;
        match curve.last_mut() {
            Some(last) if distance <= last.distance => last.part = last.part.max(part),
            _ if full || !distance.is_finite() => (),
            _ => curve.push(DistancePoint { distance, part }),
        }
    };
    let at = |part: f64, of: usize| ((part * of as f64).ceil() as usize).saturating_sub(1);
    let finest = FEWEST_PAIRS / pairs.len().max(1) as f64;
    for few in FEW_ROWS {
        if few / rows < finest {
            add(few / rows, nearest.get(at(few, queries)));
        }
    }
    let fine = std::iter::successors(Some(finest), |part| Some(STEP * part)).take_while(|&part| part < FINE);
    for part in fine.chain(COARSE) {
        add(part, pairs.get(at(part, pairs.len())));
    }
    curve
}

/// As the SQL operator gives it, of rotated vectors.
fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    let distance = match metric {
        Metric::L2 => vectors::l2_distance(a, b),
        Metric::InnerProduct => vectors::negative_inner_product(a, b),
        Metric::Cosine => vectors::cosine_distance(a, b),
    };
    distance.map_or(f32::INFINITY, |distance| distance as f32)
}

/// Rows, from each list as many as it has of all, and how many all are, as far as the directories know.
fn sample<S: PageStore>(store: &S, meta: &Meta, geometry: &Geometry) -> Result<(Vec<Vec<f32>>, u64)> {
    let mut random = ChaCha8Rng::seed_from_u64(meta.seed.rotate_left(1) ^ u64::from(meta.lists));
    let mut all = 0;
    each_list(store, meta, geometry, |probe| {
        all += u64::from(probe.entry.count);
        Ok(())
    })?;
    let step = (all / OTHERS as u64).max(1);
    let mut rows = memory::vector(OTHERS)?;
    let (mut passed, mut wanted) = (0, step / 2);
    each_list(store, meta, geometry, |probe| {
        passed += u64::from(probe.entry.count);
        while wanted < passed {
            wanted += step;
            if rows.len() < OTHERS
                && let Some((_, row)) = random_row(store, meta, geometry, probe, random.next_u32())?
            {
                rows.push(row);
            }
        }
        Ok(())
    })?;
    Ok((rows, all))
}

/// Visits the lists, but those of branches that are split meanwhile.
fn each_list<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
    mut visit: impl FnMut(&directory::Probe) -> Result<()>,
) -> Result<()> {
    for (branch, _, _) in directory::branches(store, meta, geometry)? {
        let (mut block, mut steps) = (branch.directory, 0);
        while block != NONE
            && let Some((probes, next)) = directory::read_page(store, geometry, &branch, block)?
        {
            store.interrupts()?;
            for probe in probes.iter().filter(|probe| probe.entry.head != NONE) {
                visit(probe)?;
            }
            steps += 1;
            if steps > store.blocks()? {
                return Err(Error::corrupted(branch.directory, "chain of pages runs in a circle"));
            }
            block = next;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_tells_single_rows_by_neighbours_and_parts_by_pairs() {
        // A hundred queries among a million rows: one row each within 0.1, none beyond it until 1.
        let nearest: Vec<f32> = (0..1000)
            .map(|i| {
                if i < 100 {
                    0.001 * i as f32
                } else {
                    1.0 + i as f32 * 1e-4
                }
            })
            .collect();
        let pairs: Vec<f32> = (0..50_000).map(|i| 1.0 + i as f32 / 50_000.0).collect();
        let meta = Meta::with_distances(curve_of(&nearest, 100, 1e6, &pairs));
        let part = |distance: f64| meta.part_within(distance).unwrap();
        assert!((part(0.099) / 1e-6 - 1.0).abs() < 0.1, "{}", part(0.099));
        assert!(part(-1.0) < 1e-7 && part(0.5) < 1e-3, "{} {}", part(-1.0), part(0.5));
        assert!((part(1.5) - 0.5).abs() < 0.01 && (part(1.02) - 0.02).abs() < 0.01);
        assert_eq!((part(2.0), part(7.0)), (1.0, 1.0));
        let distances: Vec<f64> = (0..300).map(|i| f64::from(i) * 0.01).collect();
        assert!(distances.windows(2).all(|two| part(two[0]) <= part(two[1])));
    }

    #[test]
    fn equal_rows_lie_all_within_nothing() {
        let meta = Meta::with_distances(curve_of(&[0.0; 1000], 100, 5000.0, &[0.0; 50_000]));
        assert_eq!(meta.part_within(0.0), Some(1.0));
        assert!(meta.part_within(-0.1).unwrap() <= 1.0);
        assert_eq!(Meta::with_distances(curve_of(&[], 0, 1.0, &[])).part_within(1.0), None);
    }
}
