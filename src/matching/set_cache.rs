//! What a search looked up in the catalogue, for the next search under the same snapshot: a statement that matches ten
//! thousand rows looks up its set once.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pgrx::prelude::*;

use super::gate;
use super::sets::ReferenceSet;
use crate::embed::catalogue::Model;
use crate::failure::Failure;

/// Two look-ups with the same identity see the same rows with the same rights.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    role: pg_sys::Oid,
    subtransaction: u32,
    xmin: pg_sys::TransactionId,
    xmax: pg_sys::TransactionId,
    running: (u32, i32),
    /// Commands of the own transaction that are visible.
    command: u32,
    /// Transactions that had ended when the snapshot was taken.
    ended: u64,
}

impl Identity {
    fn current() -> Option<Identity> {
        // SAFETY: reads the backend's active snapshot, which lives while the calling statement runs, and its role.
        unsafe {
            if !pg_sys::ActiveSnapshotSet() {
                return None;
            }
            let snapshot = &*pg_sys::GetActiveSnapshot();
            Some(Identity {
                role: pg_sys::GetUserId(),
                subtransaction: pg_sys::GetCurrentSubTransactionId(),
                xmin: snapshot.xmin,
                xmax: snapshot.xmax,
                running: (snapshot.xcnt, snapshot.subxcnt),
                command: snapshot.curcid,
                ended: snapshot.snapXactCompletionCount,
            })
        }
    }
}

/// What was looked up, by name.
#[derive(Default)]
pub struct Remembered {
    /// Sets by what was asked for.
    pub sets: HashMap<Option<String>, Found>,
    /// Negative sets by the set that they apply to.
    pub negatives: HashMap<Option<String>, Found>,
    /// Sets of flagging triggers, gated, by name.
    pub flagging: HashMap<Option<String>, Found>,
    /// Models by set.
    pub models: HashMap<Option<String>, Model>,
    /// On a shard: name and hash of the model of a relation's column, where a set keeps it.
    pub agreements: HashMap<Option<String>, Option<Named>>,
    /// Servers that did not answer, by set.
    pub down: HashMap<Option<String>, Rc<HashSet<String>>>,
    /// References out of use, by set; None where they are too many to keep.
    pub out_of_use: HashMap<Option<String>, Option<Rc<HashSet<String>>>>,
}

/// Name of a model, and the hash of its weights where the user may see it.
pub type Named = (String, Option<String>);

/// Sets, and what was known of changes when their relations were locked.
#[derive(Clone)]
pub struct Found {
    sets: Vec<ReferenceSet>,
    changes: u64,
}

thread_local! {
    static LAST: RefCell<Option<(Identity, Remembered)>> = const { RefCell::new(None) };
}

/// As `remember`, for sets. The locks under which they were judged may have ended with another transaction: they are
/// taken again, and where anything has changed since, the sets are looked up again.
pub fn remember_sets(
    map: fn(&mut Remembered) -> &mut HashMap<Option<String>, Found>,
    key: Option<&str>,
    look_up: impl Fn() -> Result<Vec<ReferenceSet>, Failure>,
) -> Result<Vec<ReferenceSet>, Failure> {
    let find = || {
        let sets = look_up()?;
        Ok(Found {
            sets,
            changes: gate::changes(),
        })
    };
    let found = remember(map, key, find)?;
    if found.sets.iter().all(|set| gate::locked(set.oid).is_some()) && gate::changes() == found.changes {
        return Ok(found.sets);
    }
    LAST.with_borrow_mut(|last| *last = None);
    Ok(remember(map, key, find)?.sets)
}

/// The value of `key` in one of the maps; `look_up` is asked where it is not there, or was
/// found under another snapshot.
pub fn remember<V: Clone>(
    map: fn(&mut Remembered) -> &mut HashMap<Option<String>, V>,
    key: Option<&str>,
    look_up: impl FnOnce() -> Result<V, Failure>,
) -> Result<V, Failure> {
    let Some(identity) = Identity::current() else {
        return look_up();
    };
    let key = key.map(str::to_owned);
    let known = LAST.with_borrow_mut(|last| match last {
        Some((known, cached)) if *known == identity => map(cached).get(&key).cloned(),
        _ => None,
    });
    if let Some(value) = known {
        return Ok(value);
    }
    let value = look_up()?;
    LAST.with_borrow_mut(|last| {
        if last.as_ref().is_none_or(|(known, _)| *known != identity) {
            *last = Some((identity, Remembered::default()));
        }
        if let Some((_, cached)) = last {
            map(cached).insert(key, value.clone());
        }
    });
    Ok(value)
}

/// On a shard: the model of a relation's column, looked up once in a snapshot.
pub fn remember_agreement(
    key: &str,
    look_up: impl FnOnce() -> Result<Option<Named>, Failure>,
) -> Result<Option<Named>, Failure> {
    remember(|last| &mut last.agreements, Some(key), look_up)
}

/// Whether this statement has asked a server for a set in vain. The next one tries again.
pub fn is_known_down(set: &str, server: &str) -> bool {
    let known = remember(|last| &mut last.down, Some(set), || Ok(Rc::default()));
    known.is_ok_and(|known| known.contains(server))
}

/// See [`is_known_down`].
pub fn remember_down(set: &str, server: &str) {
    if is_known_down(set, server) {
        return;
    }
    LAST.with_borrow_mut(|last| {
        if let Some((_, cached)) = last {
            let known = cached.down.entry(Some(set.to_owned())).or_default();
            Rc::make_mut(known).insert(server.to_owned());
        }
    });
}
