//! Who may touch a slot of shared memory.
//!
//! A slot is a state, and memory that the state gives to one process at a time:
//!
//! ```text
//!            claim            submit            take            finish
//!    FREE ──────────► FILLING ──────► READY ──────────► TAKEN ─────────► DONE
//!     ▲                  │              │  ◄──────────    │               │
//!     │     abandon      │    abandon   │     recover     │ abandon       │
//!     ├──────────────────┴──────────────┘                 ▼               │
//!     │◄────────────────────────────────────────────  ABANDONED           │
//!     │                 finish, recover                                   │
//!     └───────────────────────────────────────────────────────────────────┘
//!                            collected (release)
//! ```
//!
//! FILLING and DONE belong to the session that claimed the slot, READY to nobody, TAKEN and ABANDONED to the
//! supervisor. A session that gives up while the supervisor has its slot only says so: the supervisor frees the slot
//! when it is done with it, so nothing is ever written into a slot that somebody else has claimed meanwhile.
//!
//! All zero is a free slot.

#[cfg(feature = "model-check")]
use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(feature = "model-check"))]
use std::sync::atomic::{AtomicU32, Ordering};

/// Where a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Nobody's.
    Free = 0,
    /// A session writes its request.
    Filling = 1,
    /// Waits for the supervisor.
    Ready = 2,
    /// The supervisor has it, and the session waits.
    Taken = 3,
    /// The supervisor has it, and nobody waits any more.
    Abandoned = 4,
    /// The answer is there, for the session to read.
    Done = 5,
}

impl State {
    fn of(value: u32) -> State {
        match value {
            0 => State::Free,
            1 => State::Filling,
            2 => State::Ready,
            3 => State::Taken,
            4 => State::Abandoned,
            _ => State::Done,
        }
    }
}

/// What became of a slot that somebody gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freed {
    /// It is free.
    Now,
    /// The supervisor has it and will free it: it is to be woken.
    Later,
}

/// A slot's state.
#[repr(transparent)]
#[derive(Debug)]
pub struct Slot {
    state: AtomicU32,
}

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

impl Slot {
    /// A free slot.
    #[cfg(not(feature = "model-check"))]
    pub const fn new() -> Self {
        Self {
            state: AtomicU32::new(State::Free as u32),
        }
    }

    /// A free slot. The model checker's atomics are not made at compile time.
    #[cfg(feature = "model-check")]
    pub fn new() -> Self {
        Self {
            state: AtomicU32::new(State::Free as u32),
        }
    }

    fn turn(&self, from: State, to: State) -> bool {
        // Acquire: what the former owner wrote is there to be read; release: so is what we wrote for the next one.
        self.state
            .compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Where it stands now. [`State::Done`] lets the session that claimed it read the answer.
    pub fn state(&self) -> State {
        State::of(self.state.load(Ordering::Acquire))
    }

    /// A session takes a free slot; its memory is the session's until [`Slot::submit`].
    pub fn claim(&self) -> bool {
        // Looked at first: a compare-and-swap takes the cache line away from whoever uses the slot.
        self.state.load(Ordering::Relaxed) == State::Free as u32 && self.turn(State::Free, State::Filling)
    }

    /// The session's request is written. False where the slot was not being filled: the caller's own mistake.
    pub fn submit(&self) -> bool {
        self.turn(State::Filling, State::Ready)
    }

    /// The supervisor takes a request; its memory is the supervisor's until [`Slot::finish`].
    pub fn take(&self) -> bool {
        self.state.load(Ordering::Relaxed) == State::Ready as u32 && self.turn(State::Ready, State::Taken)
    }

    /// Whether the session that waited for what the supervisor has taken has given up.
    pub fn is_abandoned(&self) -> bool {
        self.state() == State::Abandoned
    }

    /// The supervisor has written its answer. True: the session is to be woken. False: it had given
    /// up, and the slot is free.
    pub fn finish(&self) -> bool {
        if self.turn(State::Taken, State::Done) {
            return true;
        }
        self.turn(State::Abandoned, State::Free);
        false
    }

    /// The session that has its answer asks once more with what it wrote before: the memory is
    /// its own, as after a claim.
    pub fn reopen(&self) -> bool {
        self.turn(State::Done, State::Filling)
    }

    /// The session that claimed the slot is done with it, in whatever state it is: the answer was read,
    /// or nobody waits any more.
    pub fn release(&self) -> Freed {
        loop {
            let now = self.state();
            let (next, freed) = match now {
                State::Filling | State::Ready | State::Done => (State::Free, Freed::Now),
                State::Taken => (State::Abandoned, Freed::Later),
                State::Free => return Freed::Now,
                State::Abandoned => return Freed::Later,
            };
            if self.turn(now, next) {
                return freed;
            }
            // The supervisor moved it on meanwhile: at most from READY to TAKEN to DONE, and perhaps back to READY.
            #[cfg(feature = "model-check")]
            loom::thread::yield_now();
        }
    }

    /// A new supervisor after one that ended: what that had taken is to be done again, what nobody waits for is free.
    pub fn recover(&self) {
        // Only what is taken can be abandoned: once the first has failed, the second does not race with a session.
        if !self.turn(State::Taken, State::Ready) {
            self.turn(State::Abandoned, State::Free);
        }
    }
}
