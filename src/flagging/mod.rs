//! Uploads: flagged by a trigger at once or from the queue, and the page that shows the findings.

mod create;
mod existing;
mod flag;
mod guarded;
mod health;
mod installed;
mod key;
mod queue;
mod recorder;
mod refusal;
mod report;
mod trigger;
mod upload;
pub mod wake;
mod worker;

pub use key::Canonical;
pub use worker::register_workers;

pub use guarded::{Ended, subtransaction};
