//! Queries that are known before they are asked, so that scans of an index begin the searches of many together: a list
//! is then read once for all queries that look at it.
//!
//! Who asks many queries, one statement after the other, announces them. The first scan whose query is one of them
//! begins its search together with those that come behind it (`crates/ivf/src/search/together.rs`); theirs are kept
//! until their scans begin. Everything else is left as it is: each query is planned and executed by itself, with the
//! rights of whoever asks, and gets the rows that it would get alone. A statement that is not planned on an index, or
//! on one of another kind, knows nothing of all this.

use std::cell::RefCell;
use std::rc::Rc;

use encoder::SignalsBlocked;
use ivf_core::{Search, SearchOptions, Threads, Together};
use pgrx::prelude::*;

use super::column::Column;
use super::pages::Pages;
use super::rows::{ExactOfMany, Rows};
use super::value::{Elements, Owned};
use crate::failure::Failure;

/// Fewer are not worth the reading of all centroids.
const FEWEST: usize = 8;

/// The most queries that are worth announcing at a time: lists are shared by no more as there are more.
pub const MOST: usize = 2048;

/// Queries to come.
struct Announced {
    /// Who asks: only statements of this subject are meant.
    subject: i64,
    queries: Rc<[Vec<f32>]>,
    /// Rows that each will take.
    rows: usize,
    /// Indexes that share the memory.
    sharers: usize,
    /// The query whose turn it is, and whether it is being asked now.
    turn: usize,
    asked: bool,
    prepared: Vec<Prepared>,
}

/// The searches of one index that have begun.
struct Prepared {
    index: pg_sys::Oid,
    seen: Seen,
    options: SearchOptions,
    first: usize,
    searches: Vec<Option<Search>>,
}

/// Which rows a snapshot shows. Two that are equal show the same.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    xmin: pg_sys::TransactionId,
    xmax: pg_sys::TransactionId,
    running: (u32, i32),
    command: u32,
    ended: u64,
}

thread_local! {
    static ANNOUNCED: RefCell<Option<Announced>> = const { RefCell::new(None) };
}

/// As long as it lives, these queries are expected. Announcements within another take its place for as long.
pub struct Announcement(Option<Announced>);

impl Announcement {
    /// Announces queries, which statements of `subject` will ask in this order and of which each takes so many rows.
    /// `sharers`: the number of indexes, about, that will be scanned for each.
    pub fn new(subject: i64, queries: Vec<Vec<f32>>, rows: usize, sharers: usize) -> Self {
        Announcement(ANNOUNCED.replace(Some(Announced {
            subject,
            queries: queries.into(),
            rows,
            sharers: sharers.max(1),
            turn: 0,
            asked: false,
            prepared: Vec::new(),
        })))
    }

    /// The query of this number is the next one that is asked.
    pub fn turn_to(&self, query: usize) {
        with_announced(|announced| announced.turn = query);
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let before = self.0.take();
        drop(ANNOUNCED.replace(before));
    }
}

fn with_announced(work: impl FnOnce(&mut Announced)) {
    ANNOUNCED.with_borrow_mut(|announced| announced.as_mut().map(work));
}

/// As long as it lives, a statement of the subject asks the query whose turn it is.
pub struct Asking(());

impl Asking {
    /// A statement of this subject begins.
    pub fn begin(subject: i64) -> Self {
        with_announced(|announced| announced.asked = announced.subject == subject);
        Asking(())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        with_announced(|announced| announced.asked = false);
    }
}

/// The search of a query that was announced, begun with those that come behind it; none where it was not, or where that
/// is not worth it.
///
/// # Safety
/// The scan's relations must be open and its snapshot registered; `rows` must be of this scan.
pub(super) unsafe fn begun(
    scan: &pg_sys::IndexScanDescData,
    column: Column,
    pages: &Pages,
    rows: &mut Rows,
    query: &Owned,
    options: SearchOptions,
) -> Result<Option<Search>, Failure> {
    // SAFETY: the caller vouches for index and snapshot.
    let (index, seen) = unsafe { ((*scan.indexRelation).rd_id, Seen::by(&*scan.xs_snapshot)) };
    let expected = ANNOUNCED.with_borrow_mut(|announced| {
        let announced = announced.as_mut().filter(|announced| announced.asked)?;
        let current = announced.turn;
        // Descriptors are of single precision; whatever else is asked by such a statement was not announced.
        match (announced.queries.get(current), query.elements()) {
            (Some(announced), Elements::Single(query)) if announced.as_slice() == query => {}
            _ => return None,
        }
        let fits = |one: &Prepared| one.index == index && one.seen == seen && one.options == options;
        if let Some(prepared) = announced.prepared.iter_mut().find(|one| fits(one))
            && let Some(place) = current.checked_sub(prepared.first)
            && let Some(search) = prepared.searches.get_mut(place)
        {
            // None: this one was given out, and is asked once more.
            return Some(Expected::Begun(search.take().map(Box::new)));
        }
        announced.prepared.retain(|one| one.index != index);
        Some(Expected::ToBegin {
            queries: announced.queries.clone(),
            current,
            rows: announced.rows,
            sharers: announced.sharers,
        })
    });
    let (queries, current, rows_wanted, sharers) = match expected {
        None => return Ok(None),
        Some(Expected::Begun(search)) => return Ok(search.map(|search| *search)),
        Some(Expected::ToBegin {
            queries,
            current,
            rows,
            sharers,
        }) => (queries, current, rows, sharers),
    };
    let mut exact = ExactOfMany {
        rows,
        column,
        queries: &[],
        failed: None,
    };
    // SAFETY: the caller vouches for the index.
    let refused = |error, exact: &mut ExactOfMany<'_>| unsafe {
        exact
            .failed
            .take()
            .unwrap_or_else(|| super::error::failure(error, scan.indexRelation))
    };
    let together = Together::new(pages, options).map_err(|error| refused(error, &mut exact))?;
    let count = together.queries_within(memory() / sharers).min(queries.len() - current);
    if count < FEWEST {
        return Ok(None);
    }
    let owned: Vec<Owned> = queries[current..current + count]
        .iter()
        .map(|query| Owned::Single(query.clone()))
        .collect();
    exact.queries = &owned;
    let slices: Vec<&[f32]> = queries[current..current + count].iter().map(Vec::as_slice).collect();
    let searches = together.begin(pages, &slices, rows_wanted, &mut exact, &threads());
    let searches = searches.map_err(|error| refused(error, &mut exact))?;
    let mut searches: Vec<Option<Search>> = searches.into_iter().map(Some).collect();
    let first = searches.first_mut().and_then(Option::take);
    with_announced(|announced| {
        if Rc::ptr_eq(&announced.queries, &queries) {
            announced.prepared.push(Prepared {
                index,
                seen,
                options,
                first: current,
                searches,
            });
        }
    });
    Ok(first)
}

/// What is known of a query that was announced.
enum Expected {
    Begun(Option<Box<Search>>),
    ToBegin {
        queries: Rc<[Vec<f32>]>,
        current: usize,
        rows: usize,
        sharers: usize,
    },
}

/// Threads that compute for many queries together: as many as PostgreSQL would use processes for a node of a plan, and
/// no more than the machine has cores. This backend alone reads pages and rows. A process that itself is one of several
/// gets no others.
pub fn threads() -> Threads<'static> {
    // SAFETY: reads settings and a variable of this process.
    let (workers, of_all, worker) = unsafe {
        (
            pg_sys::max_parallel_workers_per_gather,
            pg_sys::max_parallel_workers,
            pg_sys::ParallelWorkerNumber >= 0,
        )
    };
    if worker {
        return Threads::ALONE;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = (usize::try_from(workers.min(of_all)).unwrap_or(0) + 1).min(cores);
    Threads::new(count, &|start| {
        if let Ok(_blocked) = SignalsBlocked::new() {
            start();
        }
    })
}

/// Bytes that searches that begin together may take.
fn memory() -> usize {
    // SAFETY: reads a setting of this process.
    let kilobytes = unsafe { pg_sys::maintenance_work_mem };
    usize::try_from(kilobytes).unwrap_or(0).saturating_mul(1024)
}

impl Seen {
    fn by(snapshot: &pg_sys::SnapshotData) -> Self {
        Seen {
            xmin: snapshot.xmin,
            xmax: snapshot.xmax,
            running: (snapshot.xcnt, snapshot.subxcnt),
            command: snapshot.curcid,
            ended: snapshot.snapXactCompletionCount,
        }
    }
}
