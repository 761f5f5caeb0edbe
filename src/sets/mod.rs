//! Reference sets as their owners make, change, fill and drop them.
//!
//! The functions here are everybody's to call and run as the caller. What they write into the catalogue, which nobody
//! else may write, they write as the extension's owner after they have checked the caller's right, with who it was.
//! What they do to the set's relation they do as that relation's owner, as VACUUM and REINDEX do: its triggers, casts
//! and types run with no more rights than his, whoever looks after the set.

mod alter;
mod arguments;
mod columns;
mod create;
mod described;
mod drop;
mod fill;
mod groups;
mod health;
mod named;
mod owned;
mod reembed;
mod references;
mod rename;

pub use named::unknown_set;
