//! The candidates of a scan: the nearest rows by their one-bit codes, at most so many, in a total order.
use std::cmp::Ordering;

use crate::{Result, Tid, grow};

/// A row that the one-bit code left.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    pub estimate: f32,
    pub error: f32,
    pub tid: Tid,
    pub refine: u32,
    pub place: u16,
    pub probe: u32,
}

/// The total order of candidates: no two rows of an index are equal in it.
pub type Position = (f32, Tid);

#[inline]
pub fn before(a: Position, b: Position) -> bool {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)) == Ordering::Less
}

/// The nearest candidates so far, with a running bound.
pub struct Kept {
    /// Estimates in an integer that orders as they do, and the candidates' places.
    keys: Vec<(u32, u32)>,
    candidates: Vec<Candidate>,
    capacity: usize,
    /// Candidates in memory, in units of `capacity`, from which on those that are out are given up.
    slack: usize,
    from: Option<Position>,
    /// Candidates from here on are not kept.
    cut: Option<Cut>,
}

/// Where candidates end.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub position: Position,
    /// Standard deviation of the estimate there.
    pub error: f32,
}

/// An integer that orders as `total_cmp` orders the number.
#[inline]
pub fn ordered(number: f32) -> u32 {
    let bits = number.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

impl Kept {
    pub fn new(capacity: usize, from: Option<Position>) -> Result<Self> {
        let room = 2 * capacity.min(1 << 16);
        Ok(Kept {
            keys: memory::vector(room)?,
            candidates: memory::vector(room)?,
            capacity,
            slack: 8,
            from,
            cut: None,
        })
    }

    /// Bytes that one of [`thrifty`](Self::thrifty) takes at most.
    pub const fn thrifty_bytes(capacity: usize) -> usize {
        2 * capacity * size_of::<(u32, u32)>() + 4 * capacity * size_of::<Candidate>()
    }

    /// The same, for one of many that are kept at a time.
    pub fn thrifty(capacity: usize) -> Result<Self> {
        Ok(Kept {
            slack: 3,
            ..Self::new(capacity, None)?
        })
    }

    /// No estimate at or above this is wanted.
    #[inline]
    pub fn limit(&self) -> f32 {
        self.cut.map_or(f32::INFINITY, |cut| cut.position.0.next_up())
    }

    #[inline]
    pub fn wants(&self, position: Position) -> bool {
        self.cut.is_none_or(|cut| before(position, cut.position))
            && self.from.is_none_or(|from| !before(position, from))
    }

    #[inline]
    pub fn push(&mut self, candidate: Candidate) -> Result<()> {
        let key = (ordered(candidate.estimate), self.candidates.len() as u32);
        grow::push(&mut self.keys, key)?;
        grow::push(&mut self.candidates, candidate)?;
        if self.keys.len() >= 2 * self.capacity {
            self.prune()?;
        }
        Ok(())
    }

    /// Keeps the nearest `capacity`.
    fn prune(&mut self) -> Result<()> {
        if self.keys.len() <= self.capacity {
            return Ok(());
        }
        let (_, &mut (limit, _), _) = self.keys.select_nth_unstable(self.capacity);
        // Equal estimates are ordered by their row pointers.
        let mut ties: Vec<(Tid, u32)> = Vec::new();
        self.keys.retain(|&(key, at)| {
            if key == limit {
                ties.push((self.candidates[at as usize].tid, at));
            }
            key < limit
        });
        ties.sort_unstable();
        let room = self.capacity - self.keys.len();
        self.keys.extend(ties[..room].iter().map(|&(_, at)| (limit, at)));
        let first_out = self.candidates[ties[room].1 as usize];
        self.cut = Some(Cut {
            position: (first_out.estimate, first_out.tid),
            error: first_out.error,
        });
        // Places of those that are out are not used again before the next `compact`.
        if self.candidates.len() > self.slack * self.capacity {
            self.compact()?;
        }
        Ok(())
    }

    /// The nearest `n` so far, in no order.
    pub fn nearest(&mut self, n: usize) -> impl Iterator<Item = &Candidate> {
        if n < self.keys.len() && n > 0 {
            self.keys.select_nth_unstable(n - 1);
        }
        let keys = &self.keys[..n.min(self.keys.len())];
        keys.iter().map(|&(_, at)| &self.candidates[at as usize])
    }

    fn compact(&mut self) -> Result<()> {
        let mut candidates = memory::vector(self.keys.len())?;
        candidates.extend(self.keys.iter().map(|&(_, at)| self.candidates[at as usize]));
        self.candidates = candidates;
        for (at, key) in self.keys.iter_mut().enumerate() {
            key.1 = at as u32;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<(Vec<Candidate>, Option<Cut>)> {
        self.prune()?;
        self.compact()?;
        Ok((self.candidates, self.cut))
    }
}
