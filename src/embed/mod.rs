//! Images to descriptors: the model catalogue, the sessions of this backend, and the SQL functions over them.

mod builtin;
pub mod catalogue;
mod edits;
mod functions;
mod info;
mod maintain;
mod picture;
mod session;

pub use functions::{embed_one, say_progress};
pub use picture::read;
pub use session::with_background;
