//! What a coordinator asks the servers of a set's partitions, and what they answer.
//!
//! A question is JSON, so that a log of statements can be read; its payload and the answer are bytes, since they are
//! most of what crosses the wire.
//!
//! ```
//! use shards::{Near, Place, near_from, near_to};
//!
//! let near = [Near { distance: 0.25, key: "7".into(), place: Place { table: 16384, block: 3, offset: 9 } }];
//! assert_eq!(near_from(&near_to(2, &near))?, (2, near.to_vec()));
//! # Ok::<(), shards::Garbled>(())
//! ```

#![forbid(unsafe_code)]

mod answer;
mod connection;
mod question;
mod version;

pub use answer::{Garbled, Near, Pictured, Place, near_from, near_to, pictured_from, pictured_to};
pub use answer::{elements_from, elements_to, places_from, places_to};
pub use connection::{ASK, BEGIN, COMMIT, Settled, settle};
pub use question::{Question, Wanted};
pub use version::is_older;
