//! Connections of this session's own to shards, kept from search to search: one for each server and user. Who gets one,
//! and how, is decided as postgres_fdw decides; where its rules have more than is known here, it does the asking.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrx::prelude::*;
use shards::Settled;

use super::libpq::{self, Connection, Trouble, Wait};
use super::link::{Kept, Link};
use super::parts::Foreign;
use crate::failure::Failure;
use crate::interrupts;
use crate::matching::gate;
use crate::settings;
use crate::statements::{Parameter, select};

/// A server, and the user who asks it.
pub type Reached = (pg_sys::Oid, pg_sys::Oid);

/// How to connect, where that is known here, and the state of servers and mappings of which it is.
type HowTo = (u64, Option<Rc<Settled>>);

/// Foreign tables of a server, and what was known of changes then.
type Tables = (u64, Rc<Vec<pg_sys::Oid>>);

thread_local! {
    /// Idle connections.
    static KEPT: RefCell<HashMap<Reached, Link>> = RefCell::default();
    static SETTLED: RefCell<HashMap<Reached, HowTo>> = RefCell::default();
    static TABLES: RefCell<HashMap<pg_sys::Oid, Tables>> = RefCell::default();
    /// Counts changes of servers and user mappings that this backend has heard of.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    static WATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this transaction's searches may use connections of their own at all. What it wrote on a shard is seen by
/// postgres_fdw's transaction there alone, and so is the one snapshot of a transaction that has one.
pub fn may_be_used() -> bool {
    // SAFETY: reads variables of this backend.
    let (isolation, worker) = unsafe { (pg_sys::XactIsoLevel as u32, pg_sys::ParallelWorkerNumber >= 0) };
    settings::shard_connections() && isolation <= pg_sys::XACT_READ_COMMITTED && !worker && libpq::is_there()
}

/// Whether this transaction may have written to a server: it holds a lock for it on one of its foreign tables.
pub fn has_written(server: pg_sys::Oid) -> Result<bool, Failure> {
    let known = TABLES.with_borrow(|tables| {
        tables
            .get(&server)
            .filter(|(then, _)| *then == gate::changes())
            .cloned()
    });
    let tables = match known {
        Some((_, tables)) => tables,
        None => {
            let changes = gate::changes();
            let found = select(
                "SELECT f.ftrelid FROM pg_catalog.pg_foreign_table f WHERE f.ftserver = $1",
                &[Parameter::of(server)],
                |row| row.required::<pg_sys::Oid>(1),
            )?;
            let found = Rc::new(found);
            TABLES.with_borrow_mut(|tables| tables.insert(server, (changes, found.clone())));
            found
        }
    };
    Ok(tables.iter().any(|table| holds_write_lock(*table)))
}

fn holds_write_lock(table: pg_sys::Oid) -> bool {
    // SAFETY: reads a variable of this backend.
    let database = unsafe { pg_sys::MyDatabaseId };
    let tag = pg_sys::LOCKTAG {
        locktag_field1: u32::from(database),
        locktag_field2: u32::from(table),
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    (pg_sys::RowExclusiveLock..=pg_sys::AccessExclusiveLock).any(|mode| {
        let mode = mode as pg_sys::LOCKMODE;
        // SAFETY: looks into this backend's own table of locks.
        unsafe {
            #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
            return pg_sys::LockHeldByMe(&raw const tag, mode);
            #[cfg(not(any(feature = "pg14", feature = "pg15", feature = "pg16")))]
            return pg_sys::LockHeldByMe(&raw const tag, mode, false);
        }
    })
}

/// How the current user connects to a server. None where postgres_fdw has to: it knows how, or says why not.
pub fn settled(server: pg_sys::Oid) -> Option<Rc<Settled>> {
    watch();
    let reached = (server, gate::current_user());
    let changes = CHANGES.get();
    let known = SETTLED.with_borrow(|settled| settled.get(&reached).filter(|(then, _)| *then == changes).cloned());
    let settled = match known {
        Some((_, settled)) => settled,
        None => {
            let settled = look_up(reached).map(Rc::new);
            SETTLED.with_borrow_mut(|all| {
                all.retain(|_, (then, _)| *then == changes);
                all.insert(reached, (changes, settled.clone()));
            });
            settled
        }
    }?;
    // The mapping's rule for who is no superuser: a password must be given, before anything is tried.
    (settled.has_password || !needs_password(&settled)).then_some(settled)
}

/// Whether the current user must have connected by the mapping's own password.
fn needs_password(settled: &Settled) -> bool {
    // SAFETY: a look-up in PostgreSQL's caches.
    settled.password_required && !unsafe { pg_sys::superuser_arg(gate::current_user()) }
}

fn look_up((server, user): Reached) -> Option<Settled> {
    // SAFETY: look-ups in PostgreSQL's caches; a mapping is only asked for where there is one, the user's or all's, and
    // lists of options are copied while they live.
    unsafe {
        let mapped = [user, pg_sys::InvalidOid].into_iter().any(|user| {
            let cache = pg_sys::SysCacheIdentifier::USERMAPPINGUSERSERVER as i32;
            let (user, server) = (pg_sys::Datum::from(user), pg_sys::Datum::from(server));
            let none = pg_sys::Datum::from(0usize);
            pg_sys::SearchSysCacheExists(cache, user, server, none, none)
        });
        if !mapped {
            return None;
        }
        let (found, mapping) = (pg_sys::GetForeignServer(server), pg_sys::GetUserMapping(user, server));
        let encoding = CStr::from_ptr(pg_sys::GetDatabaseEncodingName()).to_string_lossy();
        shards::settle(&options((*found).options)?, &options((*mapping).options)?, &encoding)
    }
}

/// Options as names and values; None where one is no text.
///
/// # Safety
/// A list of `DefElem`, or null.
unsafe fn options(list: *mut pg_sys::List) -> Option<Vec<(String, String)>> {
    // SAFETY: by contract; defGetString answers the value of every kind of option as text.
    unsafe {
        let length = if list.is_null() { 0 } else { (*list).length };
        (0..length)
            .map(|at| {
                let option = pg_sys::list_nth(list, at).cast::<pg_sys::DefElem>();
                let name = CStr::from_ptr((*option).defname).to_str().ok()?.to_owned();
                let value = CStr::from_ptr(pg_sys::defGetString(option)).to_str().ok()?.to_owned();
                Some((name, value))
            })
            .collect()
    }
}

/// An idle connection to a server as the current user, if there is one of what servers and mappings are now.
pub fn take(server: pg_sys::Oid, settled: &Settled) -> Option<Link> {
    let reached = (server, gate::current_user());
    let mut link = KEPT.with_borrow_mut(|kept| kept.remove(&reached))?;
    let current = link.kept.changes == CHANGES.get() && (link.kept.with_password || !needs_password(settled));
    (current && !link.is_stale()).then_some(link)
}

/// Keeps a connection for the next search.
pub fn keep(server: pg_sys::Oid, user: pg_sys::Oid, link: Link) {
    if link.kept.changes == CHANGES.get() {
        drop(KEPT.with_borrow_mut(|kept| kept.insert((server, user), link)));
    }
}

/// Connects. `Ok(None)`: it did not come about as the rules for who is no superuser want it.
pub fn connect(foreign: &Foreign, settled: &Settled) -> Result<Option<Kept>, Trouble> {
    watch();
    let changes = CHANGES.get();
    let failed = |detail: String| Trouble {
        code: "08001".to_owned(),
        message: format!("could not connect to server \"{}\"", foreign.server),
        detail,
        hint: String::new(),
    };
    let keywords = settled
        .keywords
        .iter()
        .map(|(name, value)| Ok((CString::new(name.as_str())?, CString::new(value.as_str())?)))
        .collect::<Result<Vec<_>, std::ffi::NulError>>()
        .map_err(|error| failed(error.to_string()))?;
    let Some(mut connection) = Connection::start(&keywords) else {
        return Err(failed("neither memory nor files are left for it".to_owned()));
    };
    if connection.has_failed() {
        return Err(failed(connection.message()));
    }
    let until = match settled.connect_timeout {
        0 => None,
        seconds => Some(Instant::now() + Duration::from_secs(seconds)),
    };
    let mut wait = Wait::Writable;
    while wait != Wait::Nothing {
        let Some(socket) = connection.socket() else {
            return Err(failed(connection.message()));
        };
        if !ready(socket, wait, until) {
            return Err(failed("timeout expired".to_owned()));
        }
        wait = connection.poll().ok_or_else(|| failed(connection.message()))?;
    }
    let with_password = settled.has_password && connection.used_password();
    if !with_password && needs_password(settled) {
        return Ok(None);
    }
    if connection.is_lost() || !connection.enter_pipeline() {
        return Err(failed(connection.message()));
    }
    Ok(Some(Kept {
        connection,
        with_password,
        changes,
    }))
}

/// Waits for a socket, open to whatever PostgreSQL asks of this backend meanwhile. False where the time is over.
fn ready(socket: pg_sys::pgsocket, wait: Wait, until: Option<Instant>) -> bool {
    let of_socket = match wait {
        Wait::Readable => pg_sys::WL_SOCKET_READABLE,
        _ => pg_sys::WL_SOCKET_WRITEABLE,
    };
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return false;
        }
        let clock = if left.is_some() { pg_sys::WL_TIMEOUT } else { 0 };
        let milliseconds = left.map_or(-1, |left| left.as_millis().max(1).try_into().unwrap_or(i32::MAX.into()));
        // SAFETY: this backend's latch and a socket that is open.
        let events = unsafe {
            pg_sys::WaitLatchOrSocket(
                pg_sys::MyLatch,
                (pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | of_socket | clock) as i32,
                socket,
                milliseconds,
                pg_sys::PG_WAIT_EXTENSION,
            )
        } as u32;
        if events & pg_sys::WL_LATCH_SET != 0 {
            // SAFETY: this backend's latch.
            unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
            interrupts::process();
        }
        if events & of_socket != 0 {
            return true;
        }
    }
}

fn watch() {
    if WATCHING.replace(true) {
        return;
    }
    // SAFETY: callbacks for the life of the backend.
    unsafe {
        for cache in [
            pg_sys::SysCacheIdentifier::FOREIGNSERVEROID,
            pg_sys::SysCacheIdentifier::USERMAPPINGOID,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(changed), pg_sys::Datum::from(0usize));
        }
        pg_sys::on_proc_exit(Some(ends), pg_sys::Datum::from(0usize));
    }
}

/// A server or a mapping is not what it was: idle connections are closed. One that is in use is, when it comes back.
unsafe extern "C-unwind" fn changed(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    CHANGES.set(CHANGES.get().wrapping_add(1));
    let _ = KEPT.try_with(|kept| {
        if let Ok(mut kept) = kept.try_borrow_mut() {
            kept.clear();
        }
    });
}

/// The session ends: shards are told, instead of finding out.
unsafe extern "C-unwind" fn ends(_code: i32, _argument: pg_sys::Datum) {
    let _ = KEPT.try_with(|kept| {
        if let Ok(mut kept) = kept.try_borrow_mut() {
            kept.clear();
        }
    });
}
