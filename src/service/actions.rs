//! The supervisor's way out: runs to the encoder's process, answers to sessions.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use pgrx::prelude::*;
use service::wire::Order;
use service::{Action, Answer, Fault, ModelKey, Ticket};

use super::shared::{Answered, Outcome};
use super::supervisor::Supervisor;

impl Supervisor {
    pub(super) fn apply(&mut self, actions: Vec<Action>) {
        self.apply_outputs(actions, 0);
    }

    /// Does what the engine says; `values` are the numbers of each image's output, where a run has ended.
    pub(super) fn apply_outputs(&mut self, actions: Vec<Action>, values: usize) {
        for action in actions {
            match action {
                Action::Answer(
                    ticket,
                    Answer::Output {
                        region,
                        place,
                        waited,
                        ran,
                    },
                ) => {
                    self.answer_output(ticket, region, place, values);
                    let counters = &self.shared.header.counters;
                    counters.waited.add(waited);
                    counters.ran.add(ran);
                }
                Action::Answer(ticket, answer) => self.answer(ticket, &answer),
                Action::Run {
                    run,
                    region,
                    model,
                    shape,
                    tickets,
                } => {
                    let order = self.fill_region(run, region, model, shape, &tickets);
                    self.send(&order, None);
                }
                Action::Load(model) => {
                    let Some(held) = self.held.get(&model) else { continue };
                    let order = Order::Load {
                        model,
                        manifest: held.manifest,
                        weights: held.weights,
                        verified: held.verified,
                    };
                    let file = held.file.as_raw_fd();
                    self.send(&order, Some(file));
                }
                Action::Unload(model) => {
                    self.shared
                        .header
                        .counters
                        .models_evicted
                        .fetch_add(1, Ordering::Relaxed);
                    self.unname(model);
                    self.send(&Order::Unload { model }, None);
                }
                Action::Forget(model) => {
                    self.held.remove(&model);
                }
                Action::Kill(why) => self.lose_encoder(&why, true),
            }
        }
    }

    /// Copies the tensors of a run into its region. A slot whose session has given up is copied all the
    /// same: it is nobody else's.
    pub(super) fn fill_region(
        &self,
        run: u64,
        region: usize,
        model: ModelKey,
        shape: [usize; 3],
        tickets: &[Ticket],
    ) -> Order {
        let mut filled = 0;
        if let Some(encoder) = &self.encoder {
            // SAFETY: the engine gives a region to one run at a time.
            let input = unsafe { encoder.input(region) };
            for &ticket in tickets {
                let place = &self.shared.places[ticket];
                // SAFETY: taken: request and room are the supervisor's to read.
                let (asked, room) = unsafe { (*place.asked.get(), self.shared.room(ticket)) };
                let bytes = (asked.bytes as usize).min(room.len());
                if let Some(target) = input.get_mut(filled..filled + bytes) {
                    target.copy_from_slice(&room[..bytes]);
                }
                filled += bytes;
                if asked.bulk {
                    self.shared.header.counters.bulk_images.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.count_images(model, tickets.len());
        }
        let [first, second, third] = shape;
        Order::Run {
            run,
            region,
            model,
            shape: [tickets.len(), first, second, third],
            bytes: filled,
        }
    }

    pub(super) fn count_images(&self, model: ModelKey, images: usize) {
        // One model is the rule: its place is the first.
        let models = &self.shared.header.models;
        let mut named = models.iter().filter(|named| named.bytes.load(Ordering::Relaxed) > 0);
        let only = named.next();
        let place = if named.next().is_none() {
            only
        } else {
            let key = model.to_string();
            models.iter().find(|named| named.key.get().as_deref() == Some(&key))
        };
        if let Some(place) = place {
            place.images.fetch_add(images as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn send(&mut self, order: &Order, file: Option<i32>) {
        let Some(encoder) = &self.encoder else { return };
        if let Err(error) = encoder.send(order, file) {
            // Its end is seen at the socket, too; a full one means that it takes no orders any more.
            if error.kind() == std::io::ErrorKind::WouldBlock {
                self.lose_encoder("it takes no orders", true);
            }
        }
    }

    pub(super) fn answer_output(&mut self, ticket: Ticket, region: usize, place: usize, values: usize) {
        let bytes = values * size_of::<f32>();
        let copied = self.encoder.as_ref().and_then(|encoder| {
            let output = encoder
                .output(region, place, bytes)
                .filter(|output| !output.is_empty())?;
            // SAFETY: taken or abandoned: the room is the supervisor's.
            let room = unsafe { self.shared.room(ticket) };
            room.get_mut(..bytes)?.copy_from_slice(output);
            Some(())
        });
        match copied {
            Some(()) => self.finish(
                ticket,
                Answered {
                    outcome: Outcome::Output,
                    values: values as u32,
                    message: 0,
                    hint: 0,
                },
            ),
            None => {
                let fault = Fault::Failed {
                    message: format!("an output of {values} numbers does not fit into the service's memory"),
                    hint: "Raise copymatch.service_slot_size.".to_owned(),
                    memory: false,
                };
                self.answer(ticket, &Answer::Fault(fault));
            }
        }
    }

    /// Answers with anything but an output.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: &Answer) {
        let counters = &self.shared.header.counters;
        let (outcome, message, hint, counter) = match answer {
            Answer::Output { .. } => return,
            Answer::ModelLoaded => (Outcome::Brought, "", "", None),
            Answer::Fault(fault) => match fault {
                Fault::UnknownModel => (Outcome::UnknownModel, "", "", None),
                Fault::Crashed(why) => (Outcome::Crashed, why.as_str(), "", Some(&counters.crashed)),
                Fault::TimedOut => (Outcome::TimedOut, "", "", Some(&counters.timed_out)),
                Fault::Unavailable(why) => (Outcome::Unavailable, why.as_str(), "", Some(&counters.unavailable)),
                Fault::Failed { message, hint, memory } => {
                    let outcome = if *memory { Outcome::OutOfMemory } else { Outcome::Failed };
                    (outcome, message.as_str(), hint.as_str(), Some(&counters.failed))
                }
            },
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as above.
        let room = unsafe { self.shared.room(ticket) };
        let message = &message[..message.floor_char_boundary(room.len() / 4)];
        let hint = &hint[..hint.floor_char_boundary(room.len() / 4)];
        room[..message.len()].copy_from_slice(message.as_bytes());
        room[message.len()..message.len() + hint.len()].copy_from_slice(hint.as_bytes());
        let answered = Answered {
            outcome,
            values: 0,
            message: message.len() as u32,
            hint: hint.len() as u32,
        };
        self.finish(ticket, answered);
    }

    /// Gives the slot back to the session, if that still waits, and wakes it.
    pub(super) fn finish(&self, ticket: Ticket, answered: Answered) {
        let place = &self.shared.places[ticket];
        // SAFETY: as above; the session reads it after finish().
        let latch = unsafe {
            *place.answered.get() = answered;
            (*place.asked.get()).latch
        };
        if place.slot.finish() {
            // SAFETY: the latch of a PGPROC, which stays in shared memory; who has it by now wakes for nothing.
            unsafe { pg_sys::SetLatch(latch) };
        } else {
            self.shared.header.counters.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}
