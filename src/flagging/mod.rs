//! Uploads: flagged by a trigger at once or from the queue, and the page that shows the findings.

mod owner;
mod queue;
mod report;
mod trigger;
mod wake;
mod worker;

pub use wake::request_shared_memory;
pub use worker::register_workers;
