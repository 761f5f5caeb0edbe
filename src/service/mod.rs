//! The embedding service: one process for the whole server runs the networks, and sessions hand it their images through
//! slots of shared memory. Read README.md first.

mod actions;
mod child;
mod client;
mod reports;
mod requests;
pub mod shared;
mod status;
mod supervisor;

pub use client::{Answer, Job, Path, Submitted, bring, has_begun, most_in_flight, path};
pub use shared::{Shared, running_provider};
pub use supervisor::register;
