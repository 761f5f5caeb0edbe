//! Nearest first: probe lists, keep what the one-bit codes leave, refine lazily, rank by exact distance where asked.
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet, VecDeque};

use vectors::quantised;

use crate::candidates::{Candidate, Cut, Kept, Position};
use crate::code::{InList, Query};
use crate::descent::Descent;
use crate::directory::{MOST_RESTARTS, Probe};
use crate::filter::Filter;
use crate::geometry::{BLOCK, Geometry};
use crate::list::{self, Walked};
use crate::page::{Kind, NONE};
use crate::rotation::Rotation;
use crate::{Error, Meta, Metric, Page, PageStore, Result, Tid, grow};

mod together;

pub use together::{RerankTogether, Together};

/// An estimate by the one-bit code is trusted this many standard deviations below itself, at 256 dimensions.
const ESTIMATE_MARGIN: f32 = 2.5;
/// A key by the six-bit code is trusted this many standard deviations below itself, at 256 dimensions.
const REFINED_MARGIN: f32 = 4.0;
/// Candidates that a first scan keeps.
const FIRST_CANDIDATES: usize = 256;
/// Six-bit codes that are fetched from memory at a time.
const LOOKAHEAD: usize = 8;
/// Rows after which more lists are probed, and how many times as many until the next time.
const FIRST_WIDENING: usize = 16;
const WIDENING: usize = 8;
/// How many times as many lists as were probed are added at once for a filter.
const REACHING: usize = 4;
/// How many times as many candidates a further scan of the same lists keeps.
const GROWTH: usize = 8;

/// What happens when the probed lists are used up and more rows are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Iteration {
    /// The search ends. Rows that would come late are left out.
    Off,
    /// The next nearest lists are probed, and every row is given; a row that turns out to be nearer than some given
    /// before comes late.
    Relaxed,
    /// The next nearest lists are probed; rows that would come late are left out.
    Strict,
}

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchOptions {
    /// Lists to probe, clamped to those there are; by `target_recall` where not given.
    pub probes: Option<u32>,
    /// The part of the nearest neighbours to be found, from 0 to 1.
    pub target_recall: f32,
    /// Nothing farther is asked for (a distance as the SQL operator gives it): the search ends where lists have nothing
    /// within it any more.
    pub bound: Option<f64>,
    /// What happens behind the probed lists.
    pub iteration: Iteration,
    /// Whether rows are ordered by their exact distance instead of the codes'.
    pub rerank: bool,
}

impl Default for SearchOptions {
    fn default() -> Self {
        SearchOptions {
            probes: None,
            target_recall: 0.98,
            bound: None,
            iteration: Iteration::Relaxed,
            rerank: true,
        }
    }
}

/// Exact distances, from where the rows are.
pub trait Rerank {
    /// The distance of a row from the query, as the SQL operator gives it; none for a row that is not visible.
    fn distance(&mut self, tid: Tid) -> Result<Option<f64>>;
}

/// No exact distances: for searches without `rerank`.
impl Rerank for () {
    fn distance(&mut self, _: Tid) -> Result<Option<f64>> {
        Ok(None)
    }
}

/// A row found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Where it is.
    pub tid: Tid,
    /// As the SQL operator gives it: exact with `rerank`, else by the six-bit code.
    pub distance: f64,
    /// How many lists were nearer than the row's.
    pub(crate) probe: u32,
}

/// A number to order by, smallest first in a [`BinaryHeap`]; equal ones in the order of the table.
#[derive(Debug, Clone, Copy)]
struct Nearest<T> {
    key: f64,
    tid: Tid,
    item: T,
}

impl<T> PartialEq for Nearest<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<T> Eq for Nearest<T> {}
impl<T> PartialOrd for Nearest<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Nearest<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.total_cmp(&self.key).then(other.tid.cmp(&self.tid))
    }
}

/// A key to order by: NaN (a zero query under cosine, an overflow) comes last, as PostgreSQL sorts it.
fn last(key: f64) -> f64 {
    if key.is_nan() { f64::INFINITY } else { key }
}

/// Rows of the lists that were scanned.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    /// Free slots among them: it is a measure of the work.
    all: u64,
    /// Those that the filter lets pass.
    passing: u64,
}

/// Lists that were probed together.
#[derive(Debug, Clone, Copy)]
struct Round {
    first: usize,
    end: usize,
    /// How many candidates its last scan kept.
    capacity: usize,
    /// Where that scan was cut off: candidates from here on were not kept. None: nothing was left out.
    cut: Option<Cut>,
    /// Nothing whose key lies beyond this was kept either, and the order of estimates does not tell what was.
    within: f32,
}

/// A search in progress.
pub struct Search {
    meta: Meta,
    geometry: Geometry,
    query: Query,
    options: SearchOptions,
    bound: Option<f32>,
    /// None: every row passes.
    filter: Option<Filter>,
    tally: Tally,
    /// None: the lists probed so far were chosen together with those of other searches.
    descent: Option<Descent>,
    /// Rows that a scan within some key kept, in order.
    kept_within: Vec<Tid>,
    /// Lists probed so far, by their rounds.
    probes: Vec<(Probe, InList)>,
    rounds: Vec<Round>,
    /// The farthest list that had a row within the bound.
    within_bound_until: usize,
    candidates: BinaryHeap<Nearest<Candidate>>,
    /// The nearest of them, on their way from memory.
    upcoming: VecDeque<Nearest<Candidate>>,
    refined: BinaryHeap<Nearest<(f32, u32)>>,
    ready: BinaryHeap<Nearest<u32>>,
    last_key: f64,
    estimate_margin: f32,
    refined_margin: f32,
    /// Six-bit codes read.
    refines: u64,
    restarts: u32,
    /// With so many rows given, more lists are probed before the next.
    widen_at: usize,
    given: Vec<Tid>,
    /// Rows given before lists moved under the search: never given again.
    skip: HashSet<Tid>,
    ended: bool,
}

impl Search {
    /// Begins a search. No query (SQL NULL) and a zero one under cosine find rows in any order.
    ///
    /// # Errors
    /// A query of other dimensions than the index's; a corrupted page.
    pub fn new<S: PageStore>(store: &S, query: Option<&[f32]>, options: SearchOptions) -> Result<Search> {
        Self::filtered(store, query, options, Filter::new())
    }

    /// Begins a search among the rows that pass a filter.
    ///
    /// # Errors
    /// As for [`new`](Self::new); a filter on a column that the index does not have.
    pub fn filtered<S: PageStore>(
        store: &S,
        query: Option<&[f32]>,
        options: SearchOptions,
        filter: Filter,
    ) -> Result<Search> {
        let meta = Meta::read(store)?;
        let geometry = meta.geometry()?;
        if let Some(query) = query
            && query.len() != geometry.dimensions
        {
            return Err(Error::Dimensions {
                expected: geometry.dimensions,
                actual: query.len(),
            });
        }
        if !filter.fits(&meta.filters) {
            return Err(Error::corrupted(0, "has fewer filter columns than the index"));
        }
        let rotated = Self::rotate(&meta, &geometry, query);
        let mut search = Self::rotated(store, meta, geometry, &rotated, options)?;
        search.filter = (!filter.is_empty()).then_some(filter);
        Ok(search)
    }

    /// A query as the index's vectors are; zeros for none, and for a zero one under cosine.
    fn rotate(meta: &Meta, geometry: &Geometry, query: Option<&[f32]>) -> Vec<f32> {
        let mut rotated = vec![0.0; geometry.rotated];
        let scaled = query.and_then(|query| match meta.metric {
            Metric::Cosine => normalised(query),
            Metric::L2 | Metric::InnerProduct => Some(query.to_vec()),
        });
        if let Some(query) = scaled {
            Rotation::shared(geometry, meta.seed).apply(&query, &mut rotated);
        }
        rotated
    }

    /// Begins a search with a query that is rotated already.
    pub(crate) fn rotated<S: PageStore>(
        store: &S,
        meta: Meta,
        geometry: Geometry,
        rotated: &[f32],
        options: SearchOptions,
    ) -> Result<Search> {
        let mut search = Self::without_lists(meta, geometry, rotated, options);
        search.descent = Some(Descent::new(store, &search.meta, &geometry, &search.query)?);
        Ok(search)
    }

    /// A search whose lists are chosen by the caller.
    fn without_lists(meta: Meta, geometry: Geometry, rotated: &[f32], options: SearchOptions) -> Search {
        let query = Query::new(meta.metric, &geometry, rotated);
        let bound = options.bound.map(|distance| match meta.metric {
            Metric::L2 => (distance.max(0.0) * distance.max(0.0)) as f32,
            Metric::InnerProduct => distance as f32,
            Metric::Cosine => (distance - 1.0) as f32,
        });
        // The fewer dimensions, the less normal the errors; at 64 the wider margins cover any error.
        let caution = (256.0 / geometry.rotated as f32).sqrt().max(1.0);
        Search {
            estimate_margin: ESTIMATE_MARGIN * caution,
            refined_margin: REFINED_MARGIN * caution,
            geometry,
            query,
            options,
            bound,
            filter: None,
            tally: Tally::default(),
            descent: None,
            kept_within: Vec::new(),
            probes: Vec::new(),
            rounds: Vec::new(),
            within_bound_until: 0,
            candidates: BinaryHeap::new(),
            upcoming: VecDeque::with_capacity(LOOKAHEAD),
            refined: BinaryHeap::new(),
            ready: BinaryHeap::new(),
            last_key: f64::NEG_INFINITY,
            refines: 0,
            restarts: 0,
            widen_at: FIRST_WIDENING,
            given: Vec::new(),
            skip: HashSet::new(),
            ended: false,
            meta,
        }
    }

    /// The next nearest row; none when there are no more.
    pub fn next<S: PageStore, R: Rerank + ?Sized>(&mut self, store: &S, rerank: &mut R) -> Result<Option<Hit>> {
        loop {
            let ready = self.ready.peek().map_or(f64::INFINITY, |n| n.key);
            let refined = self.refined.peek().map_or(f64::INFINITY, |n| n.key);
            let candidate = self.nearest_candidate();
            let (round, cut) = self.nearest_cut();
            // What may be as near comes before what is: equal rows are all known before the first of them is given.
            if let Some(candidate) = candidate
                && candidate <= ready.min(refined).min(cut)
            {
                self.refine(store)?;
            } else if !self.refined.is_empty() && refined <= ready.min(cut) {
                self.rank_exactly(rerank)?;
            } else if !self.ready.is_empty() && ready <= cut {
                if self.given.len() >= self.widen_at {
                    self.widen(store)?;
                } else if let Some(hit) = self.give()? {
                    return Ok(Some(hit));
                }
            } else if let Some(round) = round {
                self.scan_further(store, round)?;
            } else if !self.next_round(store)? {
                return Ok(None);
            }
        }
    }

    /// The round whose candidates that were not kept may be nearest, and the key that they may have.
    fn nearest_cut(&self) -> (Option<usize>, f64) {
        let mut nearest = (None, f64::INFINITY);
        for (at, round) in self.rounds.iter().enumerate() {
            let cut = round.cut.map(|cut| cut.position.0 - self.estimate_margin * cut.error);
            let within = (round.within < f32::INFINITY).then_some(round.within);
            for key in [cut, within].into_iter().flatten() {
                let key = last(f64::from(key));
                if nearest.0.is_none() || key < nearest.1 {
                    nearest = (Some(at), key);
                }
            }
        }
        nearest
    }

    /// Probes as many lists again before more rows are given: the number of probes was measured for the ten nearest,
    /// and whoever takes many more rows, or filters most of them out, looks farther away.
    fn widen<S: PageStore>(&mut self, store: &S) -> Result<()> {
        self.widen_at = self.widen_at.saturating_mul(WIDENING);
        let wanted = self.options.probes.is_none() && self.options.iteration != Iteration::Off && self.bound.is_none();
        if wanted {
            self.next_round(store)?;
        }
        Ok(())
    }

    /// How many six-bit codes were read so far.
    pub fn refined_count(&self) -> u64 {
        self.refines
    }

    fn give(&mut self) -> Result<Option<Hit>> {
        let Some(Nearest { key, tid, item: probe }) = self.ready.pop() else {
            return Ok(None);
        };
        if self.skip.contains(&tid) {
            return Ok(None);
        }
        if self.options.iteration != Iteration::Relaxed && key < self.last_key {
            return Ok(None);
        }
        self.last_key = self.last_key.max(key);
        grow::push(&mut self.given, tid)?;
        // A cursor may live for hours; only restarts that lead to nothing are suspicious.
        self.restarts = 0;
        let distance = match self.meta.metric {
            Metric::L2 => key.max(0.0).sqrt(),
            Metric::InnerProduct => key,
            Metric::Cosine => (key + 1.0).clamp(0.0, 2.0),
        };
        Ok(Some(Hit { tid, distance, probe }))
    }

    fn rank_exactly<R: Rerank + ?Sized>(&mut self, rerank: &mut R) -> Result<()> {
        let Some(Nearest {
            tid,
            item: (key, probe),
            ..
        }) = self.refined.pop()
        else {
            return Ok(());
        };
        let key = if self.options.rerank {
            match rerank.distance(tid)? {
                None => return Ok(()),
                Some(distance) => self.key_of(distance),
            }
        } else {
            f64::from(key)
        };
        self.rank(tid, key, probe)
    }

    /// The key of a row at this distance.
    fn key_of(&self, distance: f64) -> f64 {
        match self.meta.metric {
            Metric::L2 => distance * distance,
            Metric::InnerProduct => distance,
            Metric::Cosine => distance - 1.0,
        }
    }

    fn rank(&mut self, tid: Tid, key: f64, probe: u32) -> Result<()> {
        let key = last(key);
        grow::add(&mut self.ready, Nearest { key, tid, item: probe })
    }

    /// The key of the nearest candidate.
    fn nearest_candidate(&self) -> Option<f64> {
        let nearest = self.upcoming.front().or_else(|| self.candidates.peek());
        nearest.map(|nearest| nearest.key)
    }

    /// Takes the nearest candidates from the heap and lets their codes come from memory.
    fn look_ahead<S: PageStore>(&mut self, store: &S) {
        if !self.upcoming.is_empty() {
            return;
        }
        while self.upcoming.len() < LOOKAHEAD
            && let Some(candidate) = self.candidates.pop()
        {
            let Candidate { refine, place, .. } = candidate.item;
            list::prefetch_refine(store, &self.geometry, refine, usize::from(place));
            self.upcoming.push_back(candidate);
        }
    }

    fn refine<S: PageStore>(&mut self, store: &S) -> Result<()> {
        self.look_ahead(store);
        let Some(Nearest { item: candidate, .. }) = self.upcoming.pop_front() else {
            return Ok(());
        };
        let page = store.read(candidate.refine)?;
        let (key, error) = self.refined_key(&page, &candidate)?;
        drop(page);
        self.refined(&candidate, key, error)
    }

    /// A candidate's key by its six-bit code, which is on this page, and that key's standard deviation.
    fn refined_key(&mut self, page: &Page, candidate: &Candidate) -> Result<(f32, f32)> {
        self.refines += 1;
        let (probe, list) = &self.probes[candidate.probe as usize];
        Ok(
            if page.is(Kind::Refine, probe.entry.list, probe.entry.generation)
                && usize::from(candidate.place) < self.geometry.refines
            {
                let record = list::refine_record(&self.geometry, page, usize::from(candidate.place));
                self.query.refine(list, record)
            } else {
                // The list moved since it was scanned; the estimate is what is left.
                list::check_recycled(candidate.refine, page)?;
                (candidate.estimate, candidate.error)
            },
        )
    }

    /// Takes over a candidate whose key is known.
    fn refined(&mut self, candidate: &Candidate, key: f32, error: f32) -> Result<()> {
        if let Some(bound) = self.bound {
            if key - self.refined_margin * error > bound {
                return Ok(());
            }
            self.within_bound_until = self.within_bound_until.max(candidate.probe as usize);
        }
        let margin = if self.options.rerank {
            self.refined_margin * error
        } else {
            0.0
        };
        let key = Nearest {
            key: last(f64::from(key - margin)),
            tid: candidate.tid,
            item: (key, candidate.probe),
        };
        grow::add(&mut self.refined, key)
    }

    /// Probes the next lists. False: there are none, or no more are wanted.
    fn next_round<S: PageStore>(&mut self, store: &S) -> Result<bool> {
        if self.filter.as_ref().is_some_and(Filter::is_impossible) {
            return Ok(false);
        }
        let first = self.rounds.is_empty();
        let wanted = if first {
            first_probes(&self.meta, &self.options)
        } else if self.options.iteration == Iteration::Off || self.ended || self.nothing_within_bound_beyond() {
            return Ok(false);
        } else {
            self.probes.len().max(16)
        };
        let capacity = match self.rounds.last() {
            None => FIRST_CANDIDATES,
            Some(round) => round.capacity.saturating_mul(GROWTH),
        };
        let probed = self.probe(store, wanted, capacity)?;
        if first {
            self.probe_for_filter(store)?;
        }
        Ok(probed)
    }

    /// Where a filter lets few rows pass, the nearest of these lie farther away than the nearest of all: probes as many
    /// lists more as the part that passes says, before a row is given.
    fn probe_for_filter<S: PageStore>(&mut self, store: &S) -> Result<()> {
        if self.filter.is_none() || self.options.probes.is_some() || self.bound.is_some() {
            return Ok(());
        }
        while !self.ended {
            // Where none passed yet, it is as if the next row would.
            let part = (self.tally.passing as f64 + 1.0) / (self.tally.all as f64 + 1.0);
            let wanted = self.meta.probes_among(self.options.target_recall, part) as usize;
            let probed = self.probes.len();
            if wanted <= probed {
                break;
            }
            // What part passes near the query is known the better the more lists were looked at.
            self.probe(store, (wanted - probed).min(REACHING * probed), FIRST_CANDIDATES)?;
        }
        Ok(())
    }

    fn probe<S: PageStore>(&mut self, store: &S, wanted: usize, capacity: usize) -> Result<bool> {
        let Some(probes) = self.nearest_lists(store, wanted)? else {
            let wanted = self.probes.len() + wanted;
            self.start_again(store, self.meta.branch_block, wanted, capacity)?;
            return Ok(true);
        };
        if probes.is_empty() {
            self.ended = true;
            return Ok(false);
        }
        self.begin_round(probes, capacity)?;
        self.scan(store, self.rounds.len() - 1, None)?;
        Ok(true)
    }

    fn begin_round(&mut self, probes: Vec<Probe>, capacity: usize) -> Result<()> {
        let first = self.probes.len();
        self.probes.try_reserve(probes.len())?;
        for probe in probes {
            self.probes.push((probe, self.query.in_list(probe.dot, probe.squared)));
        }
        self.rounds.push(Round {
            first,
            end: self.probes.len(),
            capacity,
            cut: None,
            within: f32::INFINITY,
        });
        Ok(())
    }

    /// The next nearest lists; none where those before are no longer what they were.
    fn nearest_lists<S: PageStore>(&mut self, store: &S, wanted: usize) -> Result<Option<Vec<Probe>>> {
        if let Some(descent) = &mut self.descent {
            return descent.next(store, &self.geometry, &self.query, wanted);
        }
        // Others chose the lists so far: a descent of its own first finds the same ones.
        let mut descent = Descent::new(store, &self.meta, &self.geometry, &self.query)?;
        let known: HashSet<(u32, u32)> = self
            .probes
            .iter()
            .map(|(probe, _)| (probe.entry.list, probe.entry.generation))
            .collect();
        let found = descent.next(store, &self.geometry, &self.query, known.len() + wanted)?;
        self.descent = Some(descent);
        Ok(found.and_then(|mut found| {
            let all = found.len();
            found.retain(|probe| !known.contains(&(probe.entry.list, probe.entry.generation)));
            (all - found.len() == known.len()).then_some(found)
        }))
    }

    /// Whether a bound is given and the farthest quarter of the last round's lists had nothing within it: then the
    /// lists behind them have nothing to speak of either.
    fn nothing_within_bound_beyond(&self) -> bool {
        let (first, end) = self.rounds.last().map_or((0, 0), |round| (round.first, round.end));
        let reached = (self.within_bound_until + 1).saturating_sub(first);
        self.bound.is_some() && 4 * reached <= 3 * (end - first)
    }

    /// Scans a round's lists again, for the candidates that were not kept.
    fn scan_further<S: PageStore>(&mut self, store: &S, round: usize) -> Result<()> {
        self.rounds[round].capacity = self.rounds[round].capacity.saturating_mul(GROWTH);
        let from = self.rounds[round].cut.map(|cut| cut.position);
        let within = std::mem::replace(&mut self.rounds[round].within, f32::INFINITY);
        // What was kept within some key is known, but not by its place in the order: everything is looked at again.
        self.scan(store, round, if within < f32::INFINITY { None } else { from })
    }

    /// Scans a round's lists for candidates at or behind `from`, keeping the nearest.
    fn scan<S: PageStore>(&mut self, store: &S, round: usize, from: Option<Position>) -> Result<()> {
        let Round {
            first, end, capacity, ..
        } = self.rounds[round];
        let mut kept = Kept::new(capacity, from)?;
        let mut tally = Tally::default();
        for at in first..end {
            store.interrupts()?;
            if let Some((next, _)) = self.probes.get(at + 1)
                && next.entry.head != NONE
            {
                list::prefetch_scan(store, next.entry.head);
            }
            if self.scan_list(store, at, &mut kept, &mut tally)? == Walked::Moved {
                let block = self.probes[at].0.block;
                return self.start_again(store, block, self.probes.len(), capacity);
            }
        }
        if from.is_none() {
            self.tally.all += tally.all;
            self.tally.passing += tally.passing;
        }
        self.keep(round, kept)
    }

    /// Takes over what a scan of a round's lists left.
    fn keep(&mut self, round: usize, kept: Kept) -> Result<()> {
        let (mut candidates, cut) = kept.finish()?;
        self.rounds[round].cut = cut;
        if round == 0 && !self.kept_within.is_empty() {
            candidates.retain(|candidate| self.kept_within.binary_search(&candidate.tid).is_err());
        }
        self.candidates.try_reserve(self.upcoming.len() + candidates.len())?;
        // New ones may be nearer than those on their way.
        self.candidates.extend(self.upcoming.drain(..));
        self.candidates.extend(candidates.into_iter().map(|candidate| Nearest {
            key: last(f64::from(candidate.estimate - self.estimate_margin * candidate.error)),
            tid: candidate.tid,
            item: candidate,
        }));
        Ok(())
    }

    fn scan_list<S: PageStore>(&self, store: &S, at: usize, kept: &mut Kept, tally: &mut Tally) -> Result<Walked> {
        let entry = &self.probes[at].0.entry;
        list::walk(store, entry.head, entry.list, entry.generation, |_, page| {
            self.scan_page(page, at, kept, f32::INFINITY, tally)
        })
    }

    /// Looks for candidates on a page of the list of probe `at`, whose keys do not lie beyond `reach`.
    fn scan_page(&self, page: &Page, at: usize, kept: &mut Kept, farthest: f32, tally: &mut Tally) -> Result<()> {
        let (probe, in_list) = &self.probes[at];
        let geometry = &self.geometry;
        let kernels = quantised::kernels();
        let estimate = self.query.estimate(in_list);
        // What lies farther than the bound by a list's typical error is not looked at.
        let most = self.bound.map_or(f32::INFINITY, |bound| {
            let factor = 2.0 * 1.3 * probe.entry.rms_residual / (geometry.scanned as f32).sqrt();
            bound + 4.0 * self.query.one_bit_error(in_list, factor)
        });
        let mut estimates = [0.0; BLOCK];
        for block in 0..list::used_blocks(geometry, page) {
            let mut asked = u32::MAX;
            if let Some(filter) = &self.filter {
                // The values of all blocks lie beside each other; the block itself is far from them.
                asked = filter.passing(&geometry.filters, list::filters(geometry, page, block), asked);
                tally.all += BLOCK as u64;
                if asked == 0 {
                    continue;
                }
            }
            let live = list::live(geometry, page, block) & asked;
            if self.filter.is_some() {
                tally.passing += u64::from(live.count_ones());
            }
            let view = list::block(geometry, page, block);
            let mut limit = kept.limit().min(most);
            if farthest < f32::INFINITY {
                let error = self
                    .query
                    .one_bit_error(in_list, quantised::largest_magnitude(view.factors));
                limit = limit.min((farthest + self.estimate_margin * error).next_up());
            }
            let below = kernels.scan_block(&view, &self.query.tables, &estimate, limit, &mut estimates);
            let mut left = if limit == f32::INFINITY { live } else { live & below };
            while left != 0 {
                let within = left.trailing_zeros() as usize;
                left &= left - 1;
                let estimate = estimates[within];
                let slot = block * BLOCK + within;
                let tid = list::tid(geometry, page, slot);
                if !kept.wants((estimate, tid)) {
                    continue;
                }
                let error = self.query.one_bit_error(in_list, list::factor(geometry, page, slot));
                if estimate - self.estimate_margin * error > farthest {
                    continue;
                }
                let (refine, place) = list::refine_place(geometry, page, slot);
                kept.push(Candidate {
                    estimate,
                    error,
                    tid,
                    refine,
                    place: place as u16,
                    probe: at as u32,
                })?;
            }
        }
        Ok(())
    }

    /// A list moved under the search, or the branches changed: everything that was not given out is looked for anew.
    /// `block` has what led astray.
    fn start_again<S: PageStore>(&mut self, store: &S, block: u32, wanted: usize, capacity: usize) -> Result<()> {
        self.restarts += 1;
        if self.restarts > MOST_RESTARTS {
            return Err(Error::corrupted(block, "leads to pages of another list or branch"));
        }
        self.skip.try_reserve(self.given.len())?;
        self.skip.extend(self.given.iter().copied());
        self.meta = Meta::read(store)?;
        self.descent = Some(Descent::new(store, &self.meta, &self.geometry, &self.query)?);
        self.candidates.clear();
        self.upcoming.clear();
        self.refined.clear();
        self.ready.clear();
        self.probes.clear();
        self.kept_within.clear();
        self.rounds.clear();
        self.ended = false;
        self.tally = Tally::default();
        self.probe(store, wanted.max(1), capacity)?;
        Ok(())
    }
}

/// Lists that a search probes at first.
fn first_probes(meta: &Meta, options: &SearchOptions) -> usize {
    match options.probes {
        Some(probes) => probes.clamp(1, meta.lists) as usize,
        None => meta.probes_for(options.target_recall) as usize,
    }
}

/// A vector of length one; none for a zero vector.
pub(crate) fn normalised(vector: &[f32]) -> Option<Vec<f32>> {
    let norm = vectors::norm(vector);
    (norm > 0.0).then(|| vector.iter().map(|x| (f64::from(*x) / norm) as f32).collect())
}
