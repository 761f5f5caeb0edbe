//! One connection of this session's own to a shard: what has been sent on it, and what comes.

use std::cell::Cell;
use std::ffi::{CStr, CString};

use encoder::SignalsBlocked;
use shards::{BEGIN, COMMIT};

use super::libpq::{Came, Canceller, Connection, Trouble};

/// A connection that is made, and what was known when it was.
pub struct Kept {
    /// It.
    pub connection: Connection,
    /// Whether a password that the mapping has was really used.
    pub with_password: bool,
    /// Of which state of servers and mappings it is.
    pub changes: u64,
}

/// Under this name the question is prepared on each connection.
const PREPARED: &CStr = c"copymatch_ask";

/// A connection with what has been sent on it and has not come back yet.
pub struct Link {
    /// The connection.
    pub kept: Kept,
    /// No other has this number.
    pub id: u64,
    /// Whether it was made for this search.
    pub fresh: bool,
    /// Whether the question is prepared there: not behind a pooler that has no room for it.
    pub prepared: bool,
    /// Whether it has been.
    pub has_prepared: bool,
    /// Whether a transaction is open there, whose snapshot the next question has, too.
    pub in_transaction: bool,
    /// Syncs that have not come back, and how many of them come before the answers.
    pub owed: usize,
    pub before: usize,
    /// Whether answers are awaited.
    pub awaited: bool,
    /// What has come.
    pub answers: Vec<Vec<u8>>,
    pub trouble: Option<Trouble>,
}

/// A question, and the number of its payload.
pub struct Question {
    pub text: CString,
    pub payload: usize,
}

thread_local! {
    static LAST_ID: Cell<u64> = const { Cell::new(0) };
}

impl Link {
    pub fn new(kept: Kept) -> Self {
        LAST_ID.set(LAST_ID.get() + 1);
        Link {
            kept,
            id: LAST_ID.get(),
            fresh: true,
            prepared: true,
            has_prepared: false,
            in_transaction: false,
            owed: 0,
            before: 0,
            awaited: false,
            answers: Vec::new(),
            trouble: None,
        }
    }

    /// Whether an idle connection is of no use any more.
    pub fn is_stale(&mut self) -> bool {
        self.fresh = false;
        if self.kept.connection.is_stale() {
            return true;
        }
        self.drain();
        self.trouble.is_some()
    }

    /// Sends questions.
    pub fn put(&mut self, questions: &[Question], payloads: &[Vec<u8>], pinned: bool) {
        (self.awaited, self.trouble) = (true, None);
        self.answers.clear();
        if !self.send(questions, payloads, pinned) {
            self.lose();
        }
    }

    fn send(&mut self, questions: &[Question], payloads: &[Vec<u8>], pinned: bool) -> bool {
        let connection = &mut self.kept.connection;
        if self.prepared && !self.has_prepared {
            // Apart from the questions, whose errors would take it back.
            if !(connection.prepare(PREPARED, shards::ASK) && connection.sync()) {
                return false;
            }
            (self.owed, self.before, self.has_prepared) = (self.owed + 1, self.before + 1, true);
        }
        if pinned && !self.in_transaction {
            if !connection.send(BEGIN) {
                return false;
            }
            self.in_transaction = true;
        }
        let name = if self.prepared { PREPARED } else { c"" };
        for Question { text, payload } in questions {
            if !self.prepared && !connection.prepare(name, shards::ASK) {
                return false;
            }
            let payload = payloads.get(*payload).map_or(&[][..], Vec::as_slice);
            if !connection.execute(name, text, payload) {
                return false;
            }
        }
        if !connection.sync() {
            return false;
        }
        self.owed += 1;
        true
    }

    /// The connection is gone.
    pub fn lose(&mut self) {
        self.awaited = false;
        if self.trouble.is_none() {
            self.trouble = Some(Trouble {
                message: self.kept.connection.message(),
                ..Trouble::default()
            });
        }
    }

    /// Reads from the socket.
    pub fn consume(&mut self) {
        if self.kept.connection.flush().is_none() || !self.kept.connection.consume() {
            // What came before the end may say why.
            self.drain();
            if self.awaited {
                self.lose();
            }
        }
    }

    /// Takes what has come.
    pub fn read(&mut self) {
        self.drain();
        if self.owed == 0 {
            self.awaited = false;
        } else if self.kept.connection.is_lost() {
            self.lose();
        }
    }

    fn drain(&mut self) {
        while self.owed > 0 {
            match self.kept.connection.next() {
                Ok(None) => return,
                Ok(Some(Came::Sync)) => {
                    self.owed -= 1;
                    self.before = self.before.saturating_sub(1);
                }
                Ok(Some(Came::Value(value))) if self.before == 0 => self.answers.push(value.unwrap_or_default()),
                Ok(Some(Came::Trouble(trouble))) => {
                    self.trouble.get_or_insert(trouble);
                }
                Ok(Some(Came::Value(_) | Came::Done)) => {}
                Err(()) => return self.lose(),
            }
        }
    }

    /// Whether it was lost with nothing said, and was idle before: what is between may have dropped it. One that the
    /// shard ended itself, with a reason, is not tried again: somebody may have wanted the search to end. And whether
    /// the statement that was prepared is not there.
    pub fn may_be_asked_again(&self) -> bool {
        let lost = self.trouble.as_ref().is_some_and(|trouble| trouble.code.is_empty());
        !self.fresh && lost && !self.in_transaction || self.is_unprepared()
    }

    pub fn is_unprepared(&self) -> bool {
        let code = self.trouble.as_ref().map(|trouble| trouble.code.as_str());
        self.prepared && matches!(code, Some("26000" | "42P05")) && !self.kept.connection.is_lost()
    }

    /// Whether an error has left the connection as it was.
    pub fn is_of_use(&self) -> bool {
        self.owed == 0 && !self.in_transaction && !self.kept.connection.is_lost()
    }

    /// Ends the transaction there, without waiting for it; false where the connection is of no use any more.
    pub fn rest(&mut self) -> bool {
        if self.in_transaction {
            if !(self.kept.connection.send(COMMIT) && self.kept.connection.sync()) {
                return false;
            }
            (self.owed, self.before, self.in_transaction) = (self.owed + 1, self.before + 1, false);
        }
        self.answers = Vec::new();
        self.kept.connection.flush() == Some(true)
    }
}

impl Drop for Link {
    /// An error or a cancel ends the search: what runs there is cancelled, by a thread, as that waits for the network.
    fn drop(&mut self) {
        if self.awaited
            && self.owed > 0
            && let Some(canceller) = self.kept.connection.canceller()
        {
            // Without the thread the shard finds out when it sends its answer.
            let Ok(_blocked) = SignalsBlocked::new() else { return };
            let _ = std::thread::Builder::new()
                .name("cancel".to_owned())
                .spawn(|| Canceller::cancel(canceller));
        }
    }
}
