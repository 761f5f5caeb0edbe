//! The supervisor's way in: what sessions ask for, the models that they bring, and what they give up.

use std::sync::atomic::Ordering;

use service::{Answer, Fault, Request, Ticket};

use super::shared::{Asked, Kind, now};
use super::supervisor::{Brought, HeldModel, Supervisor, model_file};

/// Models that sessions may be bringing at a time.
const MOST_BROUGHT: usize = 8;

impl Supervisor {
    pub(super) fn take_requests(&mut self) {
        for ticket in 0..self.shared.places.len() {
            let place = &self.shared.places[ticket];
            if !place.slot.take() {
                continue;
            }
            // SAFETY: taken: the request is the supervisor's to read.
            let asked = unsafe { *place.asked.get() };
            match asked.kind {
                Kind::Run => {
                    let request = Request {
                        model: asked.model,
                        shape: asked.shape.map(|side| side as usize),
                        bytes: (asked.bytes as usize).min(self.shared.room_bytes()),
                        bulk: asked.bulk,
                        arrived: asked.arrived,
                    };
                    let actions = self.engine.admit(ticket, request, now());
                    self.apply(actions);
                }
                Kind::Bring => self.take_piece(ticket, &asked),
            }
        }
    }

    /// A piece of a model that a session brings.
    pub(super) fn take_piece(&mut self, ticket: Ticket, asked: &Asked) {
        let refuse = |message: String, hint: &str| {
            Answer::Fault(Fault::Failed {
                message,
                hint: hint.to_owned(),
                memory: false,
            })
        };
        if self.engine.holds(asked.model) {
            let actions = self.engine.brought(ticket, asked.model, asked.weights, now());
            self.apply(actions);
            return;
        }
        if asked.weights.saturating_add(asked.manifest) > self.limits.model_memory {
            let message = format!(
                "a model of {} bytes does not fit into the service's memory for models",
                asked.weights
            );
            self.answer(ticket, &refuse(message, "Raise copymatch.model_memory."));
            return;
        }
        let (manifest, weights) = (asked.manifest as usize, asked.weights as usize);
        if asked.offset == 0 {
            // What the session began before, and, where there are too many, whoever began first:
            // his next piece is refused.
            self.brought.retain(|brought| brought.pid != asked.pid);
            if self.brought.len() >= MOST_BROUGHT {
                self.brought.remove(0);
            }
            match model_file(manifest + weights) {
                Ok((file, mapping)) => self.brought.push(Brought {
                    pid: asked.pid,
                    model: asked.model,
                    file,
                    mapping,
                    manifest,
                    weights,
                    received: 0,
                }),
                Err(error) => {
                    let message = format!("the service has no memory for a model of {weights} bytes: {error}");
                    self.answer(ticket, &refuse(message, ""));
                    return;
                }
            }
        }
        let bytes = asked.bytes as usize;
        let at = self.brought.iter().position(|brought| {
            brought.pid == asked.pid
                && brought.model == asked.model
                && (brought.manifest, brought.weights) == (manifest, weights)
                && brought.received == asked.offset as usize
                && brought.received + bytes <= manifest + weights
        });
        let Some(at) = at else {
            self.answer(
                ticket,
                &refuse("a piece of the model is not the next one".to_owned(), "Run it again."),
            );
            return;
        };
        let brought = &mut self.brought[at];
        // SAFETY: the slot is taken, and the file is nobody else's before it is whole.
        unsafe {
            let piece = self.shared.room(ticket).get(..bytes).unwrap_or_default();
            brought
                .mapping
                .part_mut(brought.received, piece.len())
                .copy_from_slice(piece);
        }
        brought.received += bytes;
        if brought.received < manifest + weights {
            self.answer(ticket, &Answer::ModelLoaded);
            return;
        }
        let whole = self.brought.swap_remove(at);
        let held = HeldModel {
            file: whole.file,
            manifest,
            weights,
            verified: false,
        };
        self.held.insert(asked.model, held);
        let actions = self.engine.brought(ticket, asked.model, asked.weights, now());
        self.apply(actions);
    }

    /// Frees the slots of requests that nobody waits for any more; those that run are freed when they are done.
    pub(super) fn drop_abandoned(&mut self) {
        let given_up = |ticket: &Ticket| self.shared.places[*ticket].slot.is_abandoned();
        let tickets: Vec<Ticket> = self.engine.tickets().filter(given_up).collect();
        for ticket in tickets {
            if self.engine.abandon(ticket) {
                self.shared.places[ticket].slot.finish();
                self.shared.header.counters.abandoned.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
