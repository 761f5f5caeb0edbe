//! Images to descriptors: the model manifest, the ONNX Runtime session and the batches that go through it.
//!
//! ```no_run
//! use encoder::{Encoder, Manifest, Provider, RuntimeOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let manifest = Manifest::from_json(&std::fs::read_to_string("models/default/manifest.json")?)?;
//! let weights = std::fs::read("models/default/model.onnx")?;
//! let options = RuntimeOptions {
//!     library: "/usr/lib/libonnxruntime.so".into(),
//!     provider: Provider::Auto,
//!     threads: 1,
//!     device: 0,
//!     device_memory: 0,
//!     fp16: false,
//!     arena: false,
//! };
//! let mut encoder = Encoder::load(&weights, manifest, &options)?;
//! # let images: Vec<imaging::Image> = Vec::new();
//! let descriptors = encoder.embed(&images, &|| false)?; // one unit vector for each image
//! println!("{} images on {}", descriptors.len(), encoder.provider());
//! # Ok(())
//! # }
//! ```
//!
//! Four promises hold for a host that cannot afford surprises, such as a database backend:
//!
//! * nothing is sent anywhere: the library's telemetry, on by default since 1.29, is off before it starts;
//! * a model is bytes and nothing else: one that names files of the server (external data) is refused
//!   ([`check_self_contained`]);
//! * every thread that the library starts has all signals blocked, so no handler of the host runs on it;
//! * whatever is wrong with library, model, manifest or image comes back as an error that names it, with a hint.

#![deny(unsafe_code)]

mod encoder;
mod error;
mod library;
mod manifest;
mod onnx;
mod parity;
mod preparation;
mod preprocess;
mod provider;
mod session;
mod signals;

pub use encoder::Encoder;
pub use error::EncoderError;
pub use library::{MINIMUM_VERSION, is_half_started, runtime_library, runtime_version};
pub use manifest::{
    Colour, DIMENSIONS, Element, Fit, Layout, MAX_ASPECT, MAX_MANIFEST_BYTES, MAX_SIZES, Manifest, ManifestError,
    Parity, Resize, SHORT_SIZES, SIZES,
};
pub use onnx::check_self_contained;
pub use parity::{Pattern, waves_v1};
pub use preparation::{Mean, Preparation};
pub use provider::Provider;
pub use session::RuntimeOptions;
pub use signals::SignalsBlocked;
