//! What a scan is one part of: a search by a session on another server, with a target of its own.

use std::cell::RefCell;
use std::rc::Rc;

use pgrx::prelude::*;

use crate::settings;

/// Such a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Within {
    /// The tables that are searched.
    pub tables: Rc<[pg_sys::Oid]>,
    /// The part of the nearest neighbours that is to be found.
    pub recall: f32,
}

thread_local! {
    static WITHIN: RefCell<Option<Within>> = const { RefCell::new(None) };
}

/// As long as it lives, scans of the tables' indexes are of such a search.
pub struct Searching(Option<Within>);

impl Within {
    /// Such a search begins.
    pub fn begin(self) -> Searching {
        Searching(WITHIN.replace(Some(self)))
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        WITHIN.replace(self.0.take());
    }
}

/// The part of the nearest neighbours that a scan is to find. Whatever else is scanned meanwhile, by policies or
/// functions, is a search of its own.
pub(super) fn target_recall(table: pg_sys::Oid) -> f32 {
    WITHIN.with_borrow(|within| match within {
        Some(within) if within.tables.contains(&table) => within.recall,
        _ => settings::target_recall(),
    })
}
