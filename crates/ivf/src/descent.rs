//! The lists nearest to a query, found by way of the branches.
use std::cmp::Ordering;

use crate::code::Query;
use crate::directory::{BranchEntry, Probe, branch_entry, centroid, entries, list_entry, walk, walk_branches};
use crate::geometry::Geometry;
use crate::list::Walked;
use crate::{Meta, PageStore, Result, grow};

/// Branches with their ranks, farthest first: a total order, too.
pub(crate) fn farther(a: &(f32, BranchEntry), b: &(f32, BranchEntry)) -> Ordering {
    b.0.total_cmp(&a.0).then(b.1.directory.cmp(&a.1.directory))
}

/// How many lists are looked at for the nearest `n` of them.
pub(crate) fn opened_for(n: usize) -> usize {
    n.saturating_mul(16).saturating_add(256)
}

/// Lists by ascending distance of their centroids from a query, a batch at a time.
///
/// Branches are opened as they are needed: for `n` lists, the nearest branches that hold at least `16·n + 256`.
pub(crate) struct Descent {
    /// Branches not opened yet, farthest first.
    branches: Vec<(f32, BranchEntry)>,
    /// Lists of opened branches that were not given out yet.
    pool: Vec<Probe>,
    given: usize,
    opened: usize,
    /// The number of chains that the branches were read at.
    chains: u32,
}

impl Descent {
    pub fn new<S: PageStore>(store: &S, meta: &Meta, geometry: &Geometry, query: &Query) -> Result<Self> {
        let mut branches = Vec::new();
        let mut chains = meta.chains;
        // A split changes several entries, perhaps on several pages: all of them are seen, or none.
        loop {
            walk_branches(store, meta, |_, page| {
                for at in 0..entries(geometry, page) {
                    let centroid = centroid(geometry, page, at);
                    let rank = query.rank(query.dot(centroid), centroid.squared);
                    grow::push(&mut branches, (rank, branch_entry(geometry, page, at)))?;
                }
                Ok(())
            })?;
            let now = Meta::read_chains(store)?;
            if now == chains {
                break;
            }
            store.interrupts()?;
            chains = now;
            branches.clear();
        }
        branches.sort_unstable_by(farther);
        Ok(Descent {
            branches,
            pool: Vec::new(),
            given: 0,
            opened: 0,
            chains,
        })
    }

    /// The next `n` nearest lists, nearest first; fewer only when there are no more. None when a branch was split
    /// meanwhile: the descent has to begin anew.
    pub fn next<S: PageStore>(
        &mut self,
        store: &S,
        geometry: &Geometry,
        query: &Query,
        n: usize,
    ) -> Result<Option<Vec<Probe>>> {
        let wanted = opened_for(self.given + n);
        let before = self.opened;
        while self.opened < wanted || self.pool.len() < n {
            let Some((_, branch)) = self.branches.pop() else {
                break;
            };
            let pool = &mut self.pool;
            let held = pool.len();
            let walked = walk(store, &branch, |block, page| {
                pool.try_reserve(entries(geometry, page))?;
                for at in 0..entries(geometry, page) {
                    let centroid = centroid(geometry, page, at);
                    let dot = query.dot(centroid);
                    pool.push(Probe {
                        rank: query.rank(dot, centroid.squared),
                        dot,
                        squared: centroid.squared,
                        entry: list_entry(geometry, page, at),
                        branch,
                        block,
                        at: at as u32,
                    });
                }
                Ok(())
            })?;
            if walked == Walked::Moved {
                return Ok(None);
            }
            self.opened += pool.len() - held;
        }
        // Pages of a directory that was given up may be those of another by now, which no page tells.
        if self.opened > before && Meta::read_chains(store)? != self.chains {
            return Ok(None);
        }
        let n = n.min(self.pool.len());
        if n == 0 {
            return Ok(Some(Vec::new()));
        }
        if n < self.pool.len() {
            self.pool.select_nth_unstable_by(n - 1, Probe::nearer);
        }
        let mut batch: Vec<Probe> = memory::vector(n)?;
        batch.extend(self.pool.drain(..n));
        batch.sort_unstable_by(Probe::nearer);
        self.given += n;
        Ok(Some(batch))
    }
}
