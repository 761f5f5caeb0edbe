//! References out of use: left out of every search, whoever searches, without a list of them for everybody.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use pgrx::prelude::*;

use super::set_cache::remember;
use crate::failure::{Failure, boundary};
use crate::rights::as_extension_owner;
use crate::statements::{Parameter, select};

/// References out of use that are read at once and kept for the rows to come; where there are
/// more, each row is looked up.
const MOST_KEPT: i64 = 20_000;

const OUT_OF_USE: &str = "(x.until IS NULL OR x.until > pg_catalog.now())";

thread_local! {
    /// The sets that are being searched, the innermost last.
    static SEARCHED: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
}

/// A search under way: as long as it lives, `reference_in_use` answers for this set whoever asks.
pub struct Searching;

impl Searching {
    /// A search in the set of this number begins.
    pub fn begin(set: i64) -> Self {
        SEARCHED.with_borrow_mut(|searched| searched.push(set));
        Searching
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        SEARCHED.with_borrow_mut(|searched| searched.pop());
    }
}

/// Stands in the condition of a search. Called by hand it tells what copymatch.reference_status shows to the caller.
#[pg_extern(sql = false)]
fn reference_in_use(set: Option<i64>, reference: Option<&str>) -> bool {
    boundary(|| {
        let (Some(set), Some(reference)) = (set, reference) else {
            return Ok(true);
        };
        judge(set, reference)
    })
}

fn judge(set: i64, reference: &str) -> Result<bool, Failure> {
    let looked_up = || {
        select(
            &format!(
                "SELECT NOT EXISTS (SELECT FROM copymatch.reference_status x JOIN copymatch.reference_set s \
                 ON s.name = x.reference_set \
                 WHERE s.id = $1 AND x.reference = $2 AND {OUT_OF_USE})"
            ),
            &[Parameter::of(set), Parameter::of(reference)],
            |row| row.required::<bool>(1),
        )
        .map(|found| found.contains(&true))
    };
    if SEARCHED.with_borrow(|searched| searched.last() != Some(&set)) {
        return looked_up();
    }
    match out_of_use(set)? {
        Some(known) => Ok(!known.contains(reference)),
        None => as_extension_owner(looked_up),
    }
}

/// Whether a search in this set may find a reference, whoever searches.
pub fn in_use(set: i64, reference: &str) -> Result<bool, Failure> {
    let _searching = Searching::begin(set);
    judge(set, reference)
}

fn out_of_use(set: i64) -> Result<Option<Rc<HashSet<String>>>, Failure> {
    // Until when a reference is out of use is judged by the transaction's time, which belongs to what is remembered.
    // SAFETY: reads a variable of this backend.
    let now = unsafe { pg_sys::GetCurrentTransactionStartTimestamp() };
    remember(
        |last| &mut last.out_of_use,
        Some(&format!("{set} {now}")),
        || {
            let found = as_extension_owner(|| {
                select(
                    &format!(
                        "SELECT x.reference FROM copymatch.reference_status x JOIN copymatch.reference_set s \
                         ON s.name = x.reference_set \
                         WHERE s.id = $1 AND {OUT_OF_USE} LIMIT $2"
                    ),
                    &[Parameter::of(set), Parameter::of(MOST_KEPT + 1)],
                    |row| row.required::<String>(1),
                )
            })?;
            Ok((found.len() as i64 <= MOST_KEPT).then(|| Rc::new(found.into_iter().collect())))
        },
    )
}
