//! Stores without a server.
mod faulty;
mod memory;

pub use faulty::Faulty;
pub use memory::Memory;
