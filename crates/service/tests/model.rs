//! The slot protocol under a model checker: every order in which sessions and a supervisor may meet, every view of
//! memory that the processor may give them. `cargo test -p service --features model-check --release --test model`.
#![cfg(feature = "model-check")]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use service::{Freed, Slot, State};

/// A slot with its memory. The checker reports every access that another one could race with.
struct Place {
    slot: Slot,
    memory: UnsafeCell<u32>,
}

// SAFETY: the protocol is what is checked here.
unsafe impl Sync for Place {}
// SAFETY: as above.
unsafe impl Send for Place {}

fn place() -> Arc<Place> {
    Arc::new(Place {
        slot: Slot::new(),
        memory: UnsafeCell::new(0),
    })
}

impl Place {
    fn write(&self, value: u32) {
        // SAFETY: the checker says whether somebody else may be at it.
        self.memory.with_mut(|memory| unsafe { *memory = value });
    }

    fn read(&self) -> u32 {
        // SAFETY: as above.
        self.memory.with(|memory| unsafe { *memory })
    }

    /// One session's request: its answer is its own, or it was not waited for.
    fn ask(&self, number: u32, patient: bool) {
        if !self.slot.claim() {
            return;
        }
        self.write(number);
        assert!(self.slot.submit());
        // A session that is impatient looks once.
        if (patient || self.slot.state() == State::Done) && self.slot.state() == State::Done {
            assert_eq!(self.read(), number + 100, "the answer is another's");
        }
        self.slot.release();
    }

    /// The supervisor's turn: takes what is ready, answers it.
    fn serve(&self) -> bool {
        if !self.slot.take() {
            return false;
        }
        let asked = self.read();
        if !self.slot.is_abandoned() {
            self.write(asked + 100);
        }
        self.slot.finish();
        true
    }
}

#[test]
fn two_sessions_and_a_supervisor_share_a_slot_without_a_race_or_another_s_answer() {
    loom::model(|| {
        let place = place();
        let sessions: Vec<_> = [1, 2]
            .map(|number| {
                let place = place.clone();
                thread::spawn(move || place.ask(number, false))
            })
            .into();
        place.serve();
        place.serve();
        for session in sessions {
            session.join().unwrap();
        }
        // Whatever happened: one more look of the supervisor's leaves nothing behind.
        place.serve();
        assert_eq!(place.slot.state(), State::Free, "a slot is lost");
    });
}

#[test]
fn a_session_that_comes_after_one_that_gave_up_never_gets_its_answer() {
    loom::model(|| {
        let place = place();
        let supervisor = {
            let place = place.clone();
            thread::spawn(move || {
                place.serve();
                place.serve();
            })
        };
        place.ask(1, false);
        // The same session asks again, as after a cancel.
        place.ask(2, true);
        supervisor.join().unwrap();
        place.serve();
        assert_eq!(place.slot.state(), State::Free, "a slot is lost");
    });
}

#[test]
fn a_supervisor_that_died_leaves_nothing_taken_and_nothing_lost() {
    loom::model(|| {
        let place = place();
        let session = {
            let place = place.clone();
            thread::spawn(move || place.ask(1, false))
        };
        // The first supervisor takes and dies; it has written nothing: what it took is put back or freed by the second.
        place.slot.take();
        place.slot.recover();
        place.serve();
        session.join().unwrap();
        place.serve();
        assert_eq!(place.slot.state(), State::Free, "a slot is lost");
    });
}

#[test]
fn giving_up_says_whether_the_supervisor_still_has_it() {
    loom::model(|| {
        let place = place();
        assert!(place.slot.claim());
        assert!(place.slot.submit());
        let supervisor = {
            let place = place.clone();
            thread::spawn(move || place.serve())
        };
        let freed = place.slot.release();
        let served = supervisor.join().unwrap();
        assert!(served || freed == Freed::Now);
        assert_eq!(place.slot.state(), State::Free);
    });
}
