//! Images to descriptors: the model catalogue, the sessions of this backend, and the SQL functions over them.

mod builtin;
pub mod catalogue;
mod copy_embed;
mod edits;
mod give_back;
mod info;
mod maintain;
mod models;
mod parsed;
pub mod picture;
mod progress;
mod session;
mod sketch;

pub use catalogue::named;
pub use copy_embed::{embed_each, embed_one, embed_views};
pub use edits::edited;
pub use picture::read;
pub use progress::count_progress;
pub use session::{Stream, Urgency, input_side, with_background};
pub use sketch::{decoded, descriptor_of, sketch_of};

/// Manifest and weights of the model that the library carries.
pub fn built_in() -> (&'static str, &'static [u8]) {
    (builtin::MANIFEST, builtin::WEIGHTS)
}
