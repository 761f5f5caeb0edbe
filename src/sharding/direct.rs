//! Asking shards by connections of this session's own: one round trip a search, all shards at once. What is asked and
//! answered is what goes by way of postgres_fdw otherwise.

use std::cell::RefCell;
use std::ffi::CString;
use std::rc::Rc;

use pgrx::prelude::*;
use shards::Settled;

use super::ask::{About, Ask};
use super::connections;
use super::failing::{self, RemoteError};
use super::libpq::Trouble;
use super::link::{Link, Question};
use super::living::has_no_rows;
use super::parts::{Foreign, Part};
use crate::failure::Failure;
use crate::interrupts;
use crate::matching::{gate, is_known_down, remember_down};

/// A shard of a search.
struct Shard {
    server: pg_sys::Oid,
    name: String,
    foreign: Foreign,
    settled: Rc<Settled>,
    link: Option<Link>,
    /// Why there is none.
    down: Option<Trouble>,
}

/// Shards that are asked by connections of this session's own, for one search.
pub struct Asking<'a> {
    set: &'a str,
    user: pg_sys::Oid,
    /// Whether several questions are asked under one snapshot.
    pinned: bool,
    partial: bool,
    shards: Vec<Shard>,
}

thread_local! {
    /// What is waited for by the last search, to be waited for by the next: the numbers of the links.
    static WAITING: RefCell<Option<(Vec<u64>, *mut pg_sys::WaitEventSet)>> = const { RefCell::new(None) };
}

impl<'a> Asking<'a> {
    /// Reaches every shard of the parts. None where postgres_fdw is to be asked instead.
    pub fn open(set: &'a str, parts: &[Part], pinned: bool, partial: bool) -> Result<Option<Self>, Failure> {
        if !connections::may_be_used() {
            return Ok(None);
        }
        let mut asking = Asking {
            set,
            user: gate::current_user(),
            pinned,
            partial,
            shards: Vec::new(),
        };
        for foreign in parts.iter().filter_map(|part| part.foreign.as_ref()) {
            if asking.shards.iter().any(|shard| shard.server == foreign.server_oid) {
                continue;
            }
            if connections::has_written(foreign.server_oid)? {
                return Ok(None);
            }
            let Some(settled) = connections::settled(foreign.server_oid) else {
                return Ok(None);
            };
            asking.shards.push(Shard {
                server: foreign.server_oid,
                name: foreign.server.clone(),
                foreign: foreign.clone(),
                settled,
                link: None,
                down: None,
            });
        }
        for shard in &mut asking.shards {
            if partial && is_known_down(set, &shard.name) {
                continue;
            }
            shard.link = connections::take(shard.server, &shard.settled);
            if shard.link.is_none() && !shard.connect() {
                return Ok(None);
            }
        }
        Ok(Some(asking))
    }

    /// Asks all at once. None where a part cannot be asked so: its foreign table stands for a view.
    pub fn ask(&mut self, about: &About, asks: &[Ask], payloads: &[Vec<u8>]) -> Result<Option<Vec<Vec<u8>>>, Failure> {
        let mut of_shard: Vec<Vec<Question>> = self.shards.iter().map(|_| Vec::new()).collect();
        for ask in asks {
            let Some(foreign) = &ask.part.foreign else { continue };
            let text = CString::new(ask.question(about, foreign)?)
                .map_err(|_| Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a question with a NUL byte"))?;
            if let Some(at) = self.shards.iter().position(|shard| shard.server == foreign.server_oid) {
                let payload = ask.payload;
                of_shard[at].push(Question { text, payload });
            }
        }
        let mut asked: Vec<usize> = (0..self.shards.len())
            .filter(|at| !of_shard[*at].is_empty() && self.shards[*at].link.is_some())
            .collect();
        for last in [false, true] {
            for at in &asked {
                if let Some(link) = &mut self.shards[*at].link {
                    link.put(&of_shard[*at], payloads, self.pinned);
                }
            }
            self.wait();
            asked.retain(|at| !last && self.shards[*at].is_to_be_asked_again());
            if asked.is_empty() {
                break;
            }
            for at in &asked {
                self.shards[*at].again();
            }
        }
        let mut answers = Vec::new();
        for (shard, questions) in self.shards.iter_mut().zip(&of_shard) {
            if questions.is_empty() {
                continue;
            }
            let trouble = match &mut shard.link {
                Some(link) => match link.trouble.take() {
                    None => {
                        answers.append(&mut link.answers);
                        continue;
                    }
                    Some(trouble) => {
                        if !link.is_of_use() {
                            shard.link = None;
                        }
                        trouble
                    }
                },
                None => match shard.down.take() {
                    Some(trouble) => trouble,
                    // Known to be down, and said before.
                    None => continue,
                },
            };
            let error = RemoteError::from(trouble);
            if has_no_rows(error.code, &error.message) {
                return Ok(None);
            }
            if !self.partial || !failing::is_about_down(error.code) {
                return Err(failing::shard_failure(
                    &error,
                    self.set,
                    &[&shard.name],
                    Some(&shard.name),
                ));
            }
            shard.link = None;
            remember_down(self.set, &shard.name);
            failing::warn_of_down(self.set, &shard.name, error.line());
        }
        Ok(Some(answers))
    }

    /// Waits until all has come that is awaited, or, unless a partial answer is wanted, one shard has failed.
    fn wait(&mut self) {
        // One that has answered is waited for, too: what is waited for stays the same set. Until it says something.
        let mut all = true;
        loop {
            let mut links: Vec<&mut Link> = Vec::new();
            for link in self.shards.iter_mut().filter_map(|shard| shard.link.as_mut()) {
                if link.awaited {
                    link.read();
                    if link.trouble.is_some() && !link.awaited && !self.partial && !link.may_be_asked_again() {
                        return;
                    }
                }
                links.push(link);
            }
            if links.iter().all(|link| !link.awaited) {
                return;
            }
            links.retain(|link| (all || link.awaited) && !link.kept.connection.is_lost());
            for at in wait_for(&mut links) {
                all &= links[at].awaited;
                links[at].consume();
            }
        }
    }

    /// Ends the search: the connections are kept for the next.
    pub fn end(self) {
        for shard in self.shards {
            if let Some(mut link) = shard.link.filter(|link| link.trouble.is_none())
                && link.rest()
            {
                connections::keep(shard.server, self.user, link);
            }
        }
    }
}

impl Shard {
    /// Connects; what went wrong is kept. False where the connection must not be used.
    fn connect(&mut self) -> bool {
        match connections::connect(&self.foreign, &self.settled) {
            Ok(Some(kept)) => self.link = Some(Link::new(kept)),
            Ok(None) => return false,
            Err(trouble) => self.down = Some(trouble),
        }
        true
    }

    fn is_to_be_asked_again(&self) -> bool {
        self.link.as_ref().is_some_and(Link::may_be_asked_again)
    }

    /// Another connection instead of one that was lost while nobody looked, or that forgot what was prepared.
    fn again(&mut self) {
        let prepares = !self.link.take().is_some_and(|link| link.is_unprepared());
        if self.connect() {
            if let Some(link) = &mut self.link {
                link.prepared = prepares;
            }
        } else {
            self.down = Some(Trouble {
                code: "08001".to_owned(),
                message: format!("could not connect to server \"{}\" by password", self.name),
                ..Trouble::default()
            });
        }
    }
}

/// Waits for the sockets of some links, open to whatever PostgreSQL asks of this backend meanwhile: which of them have
/// something, or nothing where it was this backend that was meant.
fn wait_for(links: &mut [&mut Link]) -> Vec<usize> {
    let ids: Vec<u64> = links.iter().map(|link| link.id).collect();
    let known = WAITING.with_borrow_mut(|waiting| match waiting.take() {
        Some((known, set)) if known == ids => Some(set),
        Some((_, set)) => {
            // SAFETY: made below, and freed once.
            unsafe { pg_sys::FreeWaitEventSet(set) };
            None
        }
        None => None,
    });
    let mut events = vec![pg_sys::WaitEvent::default(); links.len() + 2];
    // SAFETY: this backend's latch, sockets that are open, and a set that lives until it is freed above: closed ones
    // are in it no more. It has the latch first and then each link's socket.
    let (came, woken) = unsafe {
        let set = match known {
            Some(set) => set,
            None => set_of(links),
        };
        WAITING.with_borrow_mut(|waiting| *waiting = Some((ids, set)));
        for (at, link) in (1..).zip(links.iter_mut()) {
            let unsent = link.awaited && link.kept.connection.flush() == Some(false);
            let wanted = if unsent {
                pg_sys::WL_SOCKET_READABLE | pg_sys::WL_SOCKET_WRITEABLE
            } else {
                pg_sys::WL_SOCKET_READABLE
            };
            pg_sys::ModifyWaitEvent(set, at, wanted, std::ptr::null_mut());
        }
        let count = pg_sys::WaitEventSetWait(
            set,
            -1,
            events.as_mut_ptr(),
            events.len() as i32,
            pg_sys::PG_WAIT_EXTENSION,
        );
        events.truncate(usize::try_from(count).unwrap_or(0));
        let woken = events.iter().any(|event| event.events & pg_sys::WL_LATCH_SET != 0);
        if woken {
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
        (events, woken)
    };
    if woken {
        interrupts::process();
    }
    let sockets = came.iter().filter(|event| event.events & pg_sys::WL_LATCH_SET == 0);
    sockets
        .filter_map(|event| usize::try_from(event.pos - 1).ok())
        .filter(|at| *at < links.len())
        .collect()
}

/// # Safety
/// The links' sockets are open.
unsafe fn set_of(links: &[&mut Link]) -> *mut pg_sys::WaitEventSet {
    let count = i32::try_from(links.len() + 2).unwrap_or(i32::MAX);
    // SAFETY: by contract; the set belongs to nothing that ends before this backend.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
        let set = pg_sys::CreateWaitEventSet(pg_sys::TopMemoryContext, count);
        #[cfg(not(any(feature = "pg14", feature = "pg15", feature = "pg16")))]
        let set = pg_sys::CreateWaitEventSet(std::ptr::null_mut(), count);
        let none = std::ptr::null_mut();
        pg_sys::AddWaitEventToSet(
            set,
            pg_sys::WL_LATCH_SET,
            pg_sys::PGINVALID_SOCKET,
            pg_sys::MyLatch,
            none,
        );
        for link in links {
            let socket = link.kept.connection.socket().unwrap_or(pg_sys::PGINVALID_SOCKET);
            pg_sys::AddWaitEventToSet(set, pg_sys::WL_SOCKET_READABLE, socket, std::ptr::null_mut(), none);
        }
        pg_sys::AddWaitEventToSet(
            set,
            pg_sys::WL_EXIT_ON_PM_DEATH,
            pg_sys::PGINVALID_SOCKET,
            std::ptr::null_mut(),
            none,
        );
        set
    }
}
