//! Block 0: what the index is.
use bytemuck::{Pod, Zeroable};

use crate::geometry::Geometry;
#[cfg(test)]
use crate::page::TRAILER;
use crate::page::{CONTENT, FILTER_VERSION, FORMAT_VERSION, Kind, NONE, Page};
use crate::{Error, FilterLayout, PageStore, PageWrite, Result};

/// Rows for which a list is made.
pub(crate) const ROWS_PER_LIST: usize = 256;
/// Neighbours that are to be found.
pub(crate) const NEIGHBOURS: usize = 10;
/// Up to so many lists no curve is needed: all of them are probed.
pub(crate) const FEW_LISTS: u32 = 32;
/// Most points of a stored curve.
pub(crate) const MOST_POINTS: usize = 24;
/// Most points of the stored distances.
pub(crate) const MOST_DISTANCES: usize = 24;
/// Fewer lists are not worth the time that they save, and rows that came since the measurement may lie beside them.
const FEWEST_PROBES: u32 = 10;
/// How much more slowly the lists to probe grow where most rows pass a filter: with it the number that 100,000 rows of
/// descriptors needed for 0.95 where 10, 1 and 0.1 % pass is met or exceeded by at most a third.
const SLOWLY: f64 = 1.25;
/// The rotation's seed. Stored, so that another may be chosen some day.
pub(crate) const SEED: u64 = 0x0063_6f70_796d_6174;

/// How the nearest is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Metric {
    /// Euclidean distance.
    L2 = 1,
    /// The largest inner product.
    InnerProduct = 2,
    /// The smallest angle. Vectors are normalised on their way in; zero vectors have no place.
    Cosine = 3,
}

/// What a number of probed lists gave.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct CurvePoint {
    /// Lists probed.
    pub probes: u32,
    /// The part of the ten nearest neighbours that lies in them.
    pub recall: f32,
}

/// What part of the rows lies within a distance of a row.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct DistancePoint {
    /// As the SQL operator gives it.
    pub distance: f32,
    /// From 0 to 1.
    pub part: f32,
}

/// As stored. Everything is little endian, as the machines are that PostgreSQL 14 and later run this on.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Stored {
    ready: u32,
    dimensions: u32,
    metric: u32,
    lists: u32,
    seed: u64,
    rows: u64,
    branches: u32,
    branch_block: u32,
    next_list: u32,
    measured_lists: u32,
    points: u32,
    lists_for_itself: u32,
    curve: [CurvePoint; MOST_POINTS],
    chains: u32,
    /// Zero, as what follows, where an earlier version wrote the page.
    distance_points: u32,
    distances: [DistancePoint; MOST_DISTANCES],
    filters: FilterLayout,
}

/// What block 0 says.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    /// Dimensions of the vectors.
    pub dimensions: usize,
    /// How the nearest is meant.
    pub metric: Metric,
    /// Columns whose values lie beside the codes.
    pub filters: FilterLayout,
    /// Number of lists.
    pub lists: u32,
    /// Rows when last counted: at the build or by a vacuum.
    pub rows: u64,
    /// Number of branches.
    pub branches: u32,
    /// What probing gave when last measured, by ascending number of probes. Empty: never measured.
    pub curve: Vec<CurvePoint>,
    /// The part of the rows within growing distances, measured together with the curve.
    pub distances: Vec<DistancePoint>,
    /// Lists among which every sampled row found its own when last measured: an exact copy must not be missed because
    /// lists that were split meanwhile lie nearer to it.
    pub lists_for_itself: u32,
    /// Number of lists when that was.
    pub(crate) measured_lists: u32,
    pub(crate) seed: u64,
    pub(crate) branch_block: u32,
    pub(crate) next_list: u32,
    /// Directory chains that branch splits made so far. Changes with every change of the branches.
    pub(crate) chains: u32,
}

/// Where [`Stored`] has the number of chains.
const CHAINS: usize = CONTENT + std::mem::offset_of!(Stored, chains);

impl Meta {
    /// Reads block 0.
    pub fn read<S: PageStore>(store: &S) -> Result<Meta> {
        let page = store.read(0)?;
        Self::parse(&page)
    }

    pub(crate) fn parse(page: &Page) -> Result<Meta> {
        let trailer = page.expect(0, Kind::Meta)?;
        let stored: Stored = page.get(CONTENT);
        let metric = match stored.metric {
            1 => Metric::L2,
            2 => Metric::InnerProduct,
            3 => Metric::Cosine,
            other => return Err(Error::corrupted(0, format!("unknown metric {other}"))),
        };
        let sound = stored.ready == 1
            && stored.filters.is_sound()
            && stored.filters.is_empty() == (trailer.version == FORMAT_VERSION)
            && Geometry::with_filters(stored.dimensions as usize, stored.filters).is_ok()
            && stored.points as usize <= MOST_POINTS
            && stored.distance_points as usize <= MOST_DISTANCES
            && stored.lists > 0
            && stored.branches > 0
            && stored.branch_block != NONE;
        if !sound {
            return Err(Error::corrupted(0, "meta page holds impossible values"));
        }
        Ok(Meta {
            dimensions: stored.dimensions as usize,
            metric,
            filters: stored.filters,
            lists: stored.lists,
            rows: stored.rows,
            branches: stored.branches,
            curve: stored.curve[..stored.points as usize].to_vec(),
            distances: stored.distances[..stored.distance_points as usize].to_vec(),
            lists_for_itself: stored.lists_for_itself,
            measured_lists: stored.measured_lists,
            seed: stored.seed,
            branch_block: stored.branch_block,
            next_list: stored.next_list,
            chains: stored.chains,
        })
    }

    /// The number of chains alone.
    pub(crate) fn read_chains<S: PageStore>(store: &S) -> Result<u32> {
        let page = store.read(0)?;
        page.expect(0, Kind::Meta)?;
        Ok(page.get(CHAINS))
    }

    pub(crate) fn write(&self, page: &mut Page) {
        let mut curve = [CurvePoint { probes: 0, recall: 0.0 }; MOST_POINTS];
        let points = self.curve.len().min(MOST_POINTS);
        curve[..points].copy_from_slice(&self.curve[..points]);
        let mut distances = [DistancePoint::zeroed(); MOST_DISTANCES];
        let distance_points = self.distances.len().min(MOST_DISTANCES);
        distances[..distance_points].copy_from_slice(&self.distances[..distance_points]);
        page.put(
            CONTENT,
            Stored {
                ready: 1,
                dimensions: self.dimensions as u32,
                metric: self.metric as u32,
                lists: self.lists,
                seed: self.seed,
                rows: self.rows,
                branches: self.branches,
                branch_block: self.branch_block,
                next_list: self.next_list,
                measured_lists: self.measured_lists,
                points: points as u32,
                lists_for_itself: self.lists_for_itself,
                curve,
                chains: self.chains,
                distance_points: distance_points as u32,
                distances,
                filters: self.filters,
            },
        );
        page.set_version(self.format_version());
        page.set_used(CONTENT + size_of::<Stored>());
    }

    /// Changes block 0 in a record of its own.
    pub(crate) fn update<S: PageStore>(store: &S, change: impl FnOnce(&mut Meta)) -> Result<()> {
        let mut page = store.write(0)?;
        let mut meta = Self::parse(&page)?;
        change(&mut meta);
        meta.write(page.page_mut());
        store.commit(vec![page])
    }

    /// The version of the format on disk.
    pub fn format_version(&self) -> u8 {
        if self.filters.is_empty() {
            FORMAT_VERSION
        } else {
            FILTER_VERSION
        }
    }

    /// The layout of the pages.
    pub fn geometry(&self) -> Result<Geometry> {
        Geometry::with_filters(self.dimensions, self.filters)
    }

    /// The part of the rows that lies within a distance of one of them, as the SQL operator gives it; none where that
    /// was never measured.
    pub fn part_within(&self, distance: f64) -> Option<f64> {
        let next = self
            .distances
            .partition_point(|point| f64::from(point.distance) <= distance);
        let (Some(first), Some(last)) = (self.distances.first(), self.distances.last()) else {
            return None;
        };
        let part = match next {
            // Nearer than nearly all that was measured.
            0 => f64::from(first.part) / 4.0,
            next if next == self.distances.len() => f64::from(last.part),
            next => {
                let (a, b) = (self.distances[next - 1], self.distances[next]);
                let way = (distance - f64::from(a.distance)) / f64::from(b.distance - a.distance);
                // Parts differ by factors.
                f64::from(a.part) * (f64::from(b.part) / f64::from(a.part)).powf(way)
            }
        };
        // What a damaged page says must not reach the planner's arithmetic.
        (!part.is_nan()).then(|| part.clamp(0.0, 1.0))
    }

    /// The lists to probe for a part of the nearest neighbours, by the measured curve.
    pub fn probes_for(&self, target_recall: f32) -> u32 {
        let before_measuring = || self.lists.div_ceil(8).max(FEW_LISTS);
        // Lists that came since then are probed in proportion.
        let growth = f64::from(self.lists) / f64::from(self.measured_lists.max(1));
        let scaled = |probes: u32| (f64::from(probes) * growth.max(1.0)).ceil() as u32;
        let probes = match self.curve.iter().position(|point| point.recall >= target_recall) {
            None if self.curve.is_empty() => before_measuring(),
            None => self.lists,
            Some(0) => scaled(self.curve[0].probes),
            Some(at) => {
                let (a, b) = (self.curve[at - 1], self.curve[at]);
                let part = (target_recall - a.recall) / (b.recall - a.recall).max(f32::EPSILON);
                scaled(a.probes + (part * (b.probes - a.probes) as f32).ceil() as u32)
            }
        };
        probes
            .max(scaled(self.lists_for_itself))
            .max(FEWEST_PROBES)
            .min(self.lists)
    }
}

impl Meta {
    /// The lists to probe for a part of the ten nearest neighbours among a part of the rows, from 0 to 1.
    ///
    /// Two numbers are known: of all rows, what the curve says; of ten rows, all lists. Between them the number grows
    /// with the logarithm of the rows that pass, at first more slowly.
    pub fn probes_among(&self, target_recall: f32, part: f64) -> u32 {
        let of_all = f64::from(self.probes_for(target_recall));
        let lists = f64::from(self.lists);
        let rows = (self.rows as f64).max(ROWS_PER_LIST as f64 * lists);
        let way = (part.clamp(f64::MIN_POSITIVE, 1.0).ln() / (NEIGHBOURS as f64 / rows).ln()).clamp(0.0, 1.0);
        let wanted = of_all * (lists / of_all).powf(way.powf(SLOWLY));
        (wanted.ceil() as u32).clamp(1, self.lists)
    }
}

#[cfg(test)]
impl Meta {
    pub(crate) fn with_distances(distances: Vec<DistancePoint>) -> Meta {
        Meta {
            dimensions: 3,
            metric: Metric::L2,
            filters: FilterLayout::default(),
            lists: 100,
            rows: 0,
            branches: 1,
            curve: Vec::new(),
            distances,
            lists_for_itself: 5,
            measured_lists: 100,
            seed: SEED,
            branch_block: 1,
            next_list: 100,
            chains: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_an_earlier_version_is_read_as_one_that_knows_no_distances() {
        let mut page = *Page::new(Kind::Meta, 0, 0);
        let mut meta = Meta::with_distances(vec![
            DistancePoint {
                distance: 0.5,
                part: 0.1,
            };
            3
        ]);
        meta.write(&mut page);
        assert_eq!(Meta::parse(&page).unwrap(), meta);
        // Its content ended with a number that was always 0.
        let end = CONTENT + std::mem::offset_of!(Stored, distance_points);
        page.0[end..TRAILER].fill(0);
        meta.distances.clear();
        assert_eq!(Meta::parse(&page).unwrap(), meta);
        assert_eq!(meta.part_within(0.5), None);
    }

    #[test]
    fn filter_columns_have_a_version_of_their_own_and_other_versions_are_refused() {
        let mut page = *Page::new(Kind::Meta, 0, 0);
        let plain = Meta::with_distances(Vec::new());
        let with = Meta {
            filters: FilterLayout::new(&[4, 16]).unwrap(),
            ..plain.clone()
        };
        for (meta, version) in [(&plain, FORMAT_VERSION), (&with, FILTER_VERSION)] {
            meta.write(&mut page);
            assert_eq!(page.trailer().version, version);
            assert_eq!(&Meta::parse(&page).unwrap(), meta);
        }
        // As an earlier version would read it, and the other way round: neither takes the codes for what they are not.
        page.set_version(FORMAT_VERSION);
        assert!(matches!(Meta::parse(&page), Err(Error::Corrupted { block: 0, .. })));
        plain.write(&mut page);
        page.set_version(FILTER_VERSION);
        assert!(matches!(Meta::parse(&page), Err(Error::Corrupted { block: 0, .. })));
        page.set_version(FILTER_VERSION + 1);
        assert!(matches!(
            Meta::parse(&page),
            Err(Error::Version { found: 3, expected: 2 })
        ));
    }

    #[test]
    fn fewer_rows_that_pass_are_looked_for_in_more_lists_up_to_all_of_them() {
        let meta = Meta {
            rows: 1_000_000,
            lists: 3905,
            measured_lists: 3905,
            curve: vec![CurvePoint {
                probes: 200,
                recall: 1.0,
            }],
            ..Meta::with_distances(Vec::new())
        };
        let probes: Vec<u32> = [1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-9, 0.0]
            .iter()
            .map(|&part| meta.probes_among(0.9, part))
            .collect();
        assert_eq!((probes[0], &probes[5..]), (200, &[3905; 3][..]));
        assert!(probes[..6].is_sorted_by(|a, b| a < b), "{probes:?}");
        // What a NaN in a damaged or strange estimate does is no panic, and no lists that are not there.
        assert!((1..=3905).contains(&meta.probes_among(0.9, f64::NAN)));
    }

    #[test]
    fn damaged_distances_are_no_part() {
        for (distance, part) in [(0.5, f32::NAN), (0.5, -1.0), (f32::NAN, 0.5)] {
            let last = DistancePoint {
                distance: 1.0,
                part: 0.5,
            };
            let meta = Meta::with_distances(vec![DistancePoint { distance, part }, last]);
            for within in [-1.0, 0.5, 0.7, 1.0, 2.0] {
                assert!(meta.part_within(within).is_none_or(|part| (0.0..=1.0).contains(&part)));
            }
        }
    }

    #[test]
    fn probes_follow_the_curve_the_rows_own_lists_and_the_growth_since() {
        let mut meta = Meta {
            curve: vec![
                CurvePoint {
                    probes: 20,
                    recall: 0.9,
                },
                CurvePoint {
                    probes: 40,
                    recall: 1.0,
                },
            ],
            ..Meta::with_distances(Vec::new())
        };
        assert_eq!(meta.probes_for(0.5), 20);
        assert_eq!(meta.probes_for(0.95), 30);
        assert_eq!(meta.probes_for(2.0), 100);
        meta.lists_for_itself = 35;
        assert_eq!(meta.probes_for(0.95), 35);
        meta.lists = 200;
        assert_eq!(meta.probes_for(0.95), 70);
    }
}
