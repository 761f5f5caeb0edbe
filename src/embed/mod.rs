//! Images to descriptors: the model catalogue, the sessions of this backend, and the SQL functions over them.

mod builtin;
pub mod catalogue;
mod copy_embed;
mod edits;
mod give_back;
mod info;
mod maintain;
mod models;
pub mod picture;
mod session;
mod sketch;

pub use copy_embed::{count_progress, embed_each, embed_one, embed_views, named};
pub use edits::edited;
pub use picture::read;
pub use session::{Stream, Urgency, encoder_failure, input_side, with_background};
pub use sketch::{decoded, descriptor_of, sketch_of};

/// Manifest and weights of the model that the library carries.
pub fn built_in() -> (&'static str, &'static [u8]) {
    (builtin::MANIFEST, builtin::WEIGHTS)
}
