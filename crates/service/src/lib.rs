//! The embedding service, as far as it needs no PostgreSQL.
//!
//! * [`Slot`]: who may touch a slot of shared memory when; checked by a model checker (`tests/model.rs`).
//! * [`Engine`]: which requests run next and together, what happens when the encoder dies or hangs; knows no clock, no
//!   process and no memory, and is tested by random sequences of events (`tests/engine.rs`).
//! * [`Histogram`]: times, kept in atomics that another process reads.
//! * [`wire`]: the frames between the supervisor and the encoder's process, and how descriptors
//!   of files travel with them.
//!
//! `src/service/README.md` explains how they work together.

mod engine;
mod histogram;
mod model;
mod slot;
pub mod wire;

pub use engine::{Action, Answer, Engine, Fault, Limits, Request, RunId, Ticket};
pub use histogram::{BUCKETS, Histogram};
pub use model::ModelKey;
pub use slot::{Freed, Slot, State};
