//! Everything that can go wrong between a model's bytes and a descriptor.

use std::path::PathBuf;

use crate::provider::Provider;

/// Why no encoder could be made, or no descriptor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// No file at the library's path, or no right to see it.
    #[error("the ONNX Runtime library {} cannot be opened: {reason}", path.display())]
    LibraryMissing {
        /// The path that was asked for.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A file, but no library of this platform that is ONNX Runtime.
    #[error("{} is not a usable ONNX Runtime library: {reason}", path.display())]
    LibraryUnusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// ONNX Runtime, but older than the calls that are made.
    #[error("the ONNX Runtime library {} has version {version}; at least {minimum} is needed", path.display())]
    LibraryTooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
        /// The oldest version that will do.
        minimum: String,
    },
    /// A process loads one library once; another was loaded before.
    #[error(
        "the ONNX Runtime library {} cannot be loaded: this process already runs {}",
        requested.display(), loaded.display()
    )]
    LibraryConflict {
        /// What this process runs.
        loaded: PathBuf,
        /// What was asked for.
        requested: PathBuf,
    },
    /// `threads` outside its range.
    #[error("{threads} threads are not allowed; the number must be in 1..=256")]
    Threads {
        /// The number asked for.
        threads: usize,
    },
    /// The execution provider that was asked for by name does not run here.
    #[error("the execution provider {provider} is not available: {reason}")]
    ProviderUnavailable {
        /// The provider asked for.
        provider: Provider,
        /// Why not.
        reason: String,
    },
    /// The weights are not the ones that the manifest describes.
    #[error("the model's weights have SHA-256 {actual}; its manifest says {expected}")]
    WeightsMismatch {
        /// Of the manifest.
        expected: String,
        /// Of the bytes.
        actual: String,
    },
    /// The weights are no self-contained ONNX model.
    #[error("the model {reason}")]
    InvalidModel {
        /// The rest of the sentence.
        reason: String,
    },
    /// ONNX Runtime could not make a session of the model.
    #[error("ONNX Runtime refuses the model: {reason}")]
    ModelRefused {
        /// The library's own words.
        reason: String,
    },
    /// The model's inputs or outputs are not what the manifest says.
    #[error("the model does not fit its manifest: {part} is {found}, expected {expected}")]
    ModelMismatch {
        /// Which tensor, and what of it.
        part: String,
        /// What the model has.
        found: String,
        /// What the manifest asks for.
        expected: String,
    },
    /// The model does not reproduce its recorded descriptor.
    #[error(
        "the model does not reproduce its parity descriptor for {pattern}: it differs by {difference:.6}, \
         the tolerance is {tolerance}"
    )]
    ParityFailed {
        /// Name of the picture.
        pattern: &'static str,
        /// Largest absolute difference of a component.
        difference: f32,
        /// What the manifest allows.
        tolerance: f32,
    },
    /// The image could not be brought to the network's size.
    #[error(transparent)]
    Image(#[from] imaging::ImageError),
    /// ONNX Runtime failed while it ran the model.
    #[error("ONNX Runtime failed to run the model: {reason}")]
    Inference {
        /// The library's own words.
        reason: String,
    },
    /// Bytes that are said to be a tensor are not.
    #[error("{bytes} bytes are no input of shape {shape:?}")]
    InputShape {
        /// How many.
        bytes: usize,
        /// What they are said to hold.
        shape: [usize; 4],
    },
    /// The output has another shape than N x dimensions.
    #[error("the model's output has shape {found}, expected {expected}")]
    OutputShape {
        /// What came.
        found: String,
        /// What should have come.
        expected: String,
    },
    /// NaN or infinity in the output.
    #[error("the model's descriptor of image {image} at {size} pixels is not finite")]
    NonFiniteDescriptor {
        /// Position in the list of images, from 0.
        image: usize,
        /// Side of the square.
        size: u32,
    },
    /// All components are zero, so there is no direction to compare.
    #[error("the model's descriptor of image {image} has length zero")]
    ZeroDescriptor {
        /// Position in the list of images, from 0.
        image: usize,
    },
    /// The signal mask could not be changed.
    #[error("signals cannot be blocked while ONNX Runtime starts its threads: {reason}")]
    Signals {
        /// What the system says.
        reason: String,
    },
    /// The system has no memory for what is to be done.
    #[error("out of memory {doing}: {reason}")]
    OutOfMemory {
        /// What was being done.
        doing: &'static str,
        /// The library's own words, or how much was asked for.
        reason: String,
    },
    /// Memory ran out while the library started, which it does once in a process.
    #[error("out of memory earlier, while ONNX Runtime started: this process cannot start it again")]
    NotRestartable,
    /// `should_stop` said so.
    #[error("embedding was cancelled")]
    Cancelled,
}

/// Room that starting the library takes besides its file: its tables, and the environment.
pub(crate) const START_BYTES: usize = 24 << 20;
/// Room that a session takes besides its weights, and for each of its threads: the stack, and a heap of its own.
pub(crate) const SESSION_BYTES: usize = 24 << 20;
pub(crate) const THREAD_BYTES: usize = 9 << 20;

/// Asks the system for memory that a library is going to need. What it does itself when memory runs out is not always
/// an error: it may end the process, or stay half started.
pub(crate) fn ensure(bytes: usize, doing: &'static str) -> Result<(), EncoderError> {
    memory::ensure(bytes).map_err(|error| EncoderError::OutOfMemory {
        doing,
        reason: error.to_string(),
    })
}

/// Whether the words of a library or of the dynamic loader mean that memory, or threads, ran out.
pub(crate) fn means_out_of_memory(reason: &str) -> bool {
    const WORDS: [&str; 8] = [
        "bad_alloc",
        "bad allocation",
        "failed to map segment",
        "annot allocate memory",
        "ailed to allocate memory",
        "cannot create shared object",
        "pthread_create",
        "Resource temporarily unavailable",
    ];
    WORDS.iter().any(|words| reason.contains(words))
}

impl EncoderError {
    /// This error, unless the library's words mean that memory ran out.
    pub(crate) fn or_out_of_memory(self, doing: &'static str) -> Self {
        match self {
            Self::LibraryUnusable { reason, .. }
            | Self::ModelRefused { reason }
            | Self::ProviderUnavailable { reason, .. }
            | Self::Inference { reason }
                if means_out_of_memory(&reason) =>
            {
                Self::OutOfMemory { doing, reason }
            }
            other => other,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::LibraryMissing { .. } => {
                "Install the library (make setup) or set the path to an existing libonnxruntime.so."
            }
            Self::LibraryUnusable { .. } => {
                "The path must name libonnxruntime.so for this platform, whole and readable; install it again with \
                 make setup."
            }
            Self::LibraryTooOld { .. } => "Install the pinned version with make setup.",
            Self::LibraryConflict { .. } => "Reconnect: a new session loads the library that is set now.",
            Self::Threads { .. } => "Use 1 to compute in the calling thread alone.",
            Self::ProviderUnavailable { .. } => {
                "Install the GPU build of ONNX Runtime with its CUDA libraries (make install GPU=1), or choose auto or \
                 cpu."
            }
            Self::WeightsMismatch { .. } => "Weights and manifest must come from the same export.",
            Self::InvalidModel { .. } | Self::ModelRefused { .. } => {
                "Export the network as one ONNX file of an opset that this ONNX Runtime supports."
            }
            Self::ModelMismatch { .. } | Self::OutputShape { .. } => {
                "The input must be float32 N x 3 x S x S, or what input.layout, input.type and input.fit make of it, \
                 the output float32 N x dimensions, both with a dynamic N; names and sizes as in the manifest."
            }
            Self::ParityFailed { .. } => {
                "Preprocessing or weights differ from what the manifest was recorded with; record it again after the \
                 export."
            }
            Self::Image(error) => error.hint(),
            Self::InputShape { .. } => "This is an error of copymatch; please report it.",
            Self::Inference { .. } => "The message is ONNX Runtime's own; check memory, device and model.",
            Self::NonFiniteDescriptor { .. } | Self::ZeroDescriptor { .. } => {
                "The network cannot describe this image; report it with the image if the model is a published one."
            }
            Self::Signals { .. } => "This is an error of the operating system.",
            Self::OutOfMemory { .. } => {
                "The server's limits (ulimit -v, LimitAS, overcommit) leave this session too little memory for the \
                 network."
            }
            Self::NotRestartable => "Reconnect: a new session starts it.",
            Self::Cancelled => "Run it again.",
        }
    }
}
