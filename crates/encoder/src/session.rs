//! The ONNX Runtime session: its settings, its provider, and the check of the model against the manifest.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use ndarray::{Array2, Ix2};
use ort::environment::Environment;
use ort::ep::{self, ExecutionProvider};
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};

use crate::error::{EncoderError, SESSION_BYTES, THREAD_BYTES, ensure};
use crate::library;
use crate::manifest::{Element, Fit, Layout, Manifest};
use crate::preprocess::Input;
use crate::provider::Provider;
use crate::signals::SignalsBlocked;

/// For errors.
const LOADING: &str = "while ONNX Runtime loaded the network";
const RUNNING: &str = "while ONNX Runtime ran the network";

/// How to run a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Path of `libonnxruntime.so`, loaded on first use. One process can load only one.
    pub library: PathBuf,
    /// Where to compute.
    pub provider: Provider,
    /// Threads that compute one image, 1..=256; with 1 the calling thread computes alone and none is started.
    pub threads: usize,
    /// Which device, where a device computes.
    pub device: i32,
    /// Bytes of the device's memory that may be taken; 0: as many as there are.
    pub device_memory: usize,
    /// Whether TensorRT may compute in half precision. The model's parity descriptors are then compared as ever.
    pub fp16: bool,
    /// Whether memory of a run is kept for the next one, as a process wants that does nothing else: a twentieth less
    /// time for the default model, tens of MB more.
    pub arena: bool,
}

/// A loaded network that has the inputs and outputs of its manifest.
pub(crate) struct Network {
    session: Session,
    run_options: RunOptions<HasSelectedOutputs>,
    output_name: String,
    dimensions: usize,
    provider: Provider,
}

impl Network {
    /// Makes a session on exactly `provider`, which is not [`Provider::Auto`].
    pub(crate) fn load(
        weights: &[u8],
        manifest: &Manifest,
        options: &RuntimeOptions,
        provider: Provider,
    ) -> Result<Self, EncoderError> {
        let environment = library::environment(&options.library)?;
        ensure(
            weights.len().saturating_mul(3) + SESSION_BYTES + options.threads * THREAD_BYTES,
            LOADING,
        )?;
        Self::make(&environment, weights, manifest, options, provider).map_err(|error| error.or_out_of_memory(LOADING))
    }

    fn make(
        environment: &Environment,
        weights: &[u8],
        manifest: &Manifest,
        options: &RuntimeOptions,
        provider: Provider,
    ) -> Result<Self, EncoderError> {
        // Blocked until the last step: thread pools and device contexts start their threads in any of them.
        let _signals = SignalsBlocked::new().map_err(|error| EncoderError::Signals {
            reason: error.to_string(),
        })?;
        let builder = Session::builder(environment)
            .map_err(|error| EncoderError::ModelRefused {
                reason: error.to_string(),
            })
            .and_then(|builder| configure(builder, options).map_err(|reason| EncoderError::ModelRefused { reason }))?;
        let mut builder = register(builder, provider, options)
            .map_err(|reason| EncoderError::ProviderUnavailable { provider, reason })?;
        // `ort` panics at value types that no tensor has; a model may declare any.
        let session = catch_unwind(AssertUnwindSafe(|| builder.commit_from_memory(weights)))
            .map_err(|_| EncoderError::ModelRefused {
                reason: "an input or output has an unknown type".to_owned(),
            })?
            .map_err(|error| EncoderError::ModelRefused {
                reason: one_line(&error.to_string()),
            })?;
        check(&session, manifest)?;
        let output_name = manifest.output_name().to_owned();
        let run_options = RunOptions::new()
            .map_err(|error| EncoderError::ModelRefused {
                reason: error.to_string(),
            })?
            .with_outputs(OutputSelector::no_default().with(&output_name));
        Ok(Self {
            session,
            run_options,
            output_name,
            dimensions: manifest.dimensions(),
            provider,
        })
    }

    /// The provider that the session was made on.
    pub(crate) fn provider(&self) -> Provider {
        self.provider
    }

    /// Runs N images and returns the raw output, N x dimensions.
    pub(crate) fn run(&mut self, input: &Input) -> Result<Array2<f32>, EncoderError> {
        self.run_checked(input).map_err(|error| error.or_out_of_memory(RUNNING))
    }

    fn run_checked(&mut self, input: &Input) -> Result<Array2<f32>, EncoderError> {
        let failed = |error: ort::Error| EncoderError::Inference {
            reason: one_line(&error.to_string()),
        };
        // Device libraries may start threads as late as in a run.
        let _signals = SignalsBlocked::new().map_err(|error| EncoderError::Signals {
            reason: error.to_string(),
        })?;
        let (count, tensor): (usize, SessionInputValue) = match input {
            Input::Float(values) => (
                values.shape()[0],
                TensorRef::from_array_view(values.view()).map_err(failed)?.into(),
            ),
            Input::Bytes(values) => (
                values.shape()[0],
                TensorRef::from_array_view(values.view()).map_err(failed)?.into(),
            ),
        };
        let outputs = self
            .session
            .run_with_options(ort::inputs![tensor], &self.run_options)
            .map_err(failed)?;
        let expected = || format!("{count} x {}", self.dimensions);
        let output = outputs
            .get(&self.output_name)
            .ok_or_else(|| EncoderError::OutputShape {
                found: "no output".to_owned(),
                expected: expected(),
            })?;
        let values = output.try_extract_array::<f32>().map_err(failed)?;
        let mismatch = EncoderError::OutputShape {
            found: format!("{:?}", values.shape()),
            expected: expected(),
        };
        match values.into_dimensionality::<Ix2>() {
            Ok(descriptors) if descriptors.dim() == (count, self.dimensions) => Ok(descriptors.to_owned()),
            _ => Err(mismatch),
        }
    }
}

/// Whether the loaded library was built with CUDA.
pub(crate) fn library_has_cuda(options: &RuntimeOptions) -> Result<bool, EncoderError> {
    library::environment(&options.library)?;
    Ok(ep::CUDA::is_available().unwrap_or(false))
}

/// No thread spins while idle. In a process that computes one image now and then beside much other work no arena or
/// memory plan keeps the largest batch's activations for ever.
fn configure(builder: SessionBuilder, options: &RuntimeOptions) -> Result<SessionBuilder, String> {
    let configured = || -> ort::Result<SessionBuilder> {
        Ok(builder
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(options.threads)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_memory_pattern(options.arena)?
            .with_log_level(LogLevel::Fatal)?
            // Without this the library guesses the format and would also take its own, which nothing here has checked.
            .with_config_entry("session.load_model_format", "ONNX")?)
    };
    configured().map_err(|error| error.to_string())
}

fn register(builder: SessionBuilder, provider: Provider, options: &RuntimeOptions) -> Result<SessionBuilder, String> {
    // TF32 would round inputs to 10 bits and move descriptors away from those of the CPU; an exhaustive search for
    // convolution kernels would cost seconds in each process.
    let cuda = || {
        let cuda = ep::CUDA::default()
            .with_device_id(options.device)
            .with_tf32(false)
            .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic)
            .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested);
        match options.device_memory {
            0 => cuda,
            limit => cuda.with_memory_limit(limit),
        }
    };
    let not_built_in = |name: &str| Err(format!("the loaded ONNX Runtime library is built without {name}"));
    let mut providers = Vec::new();
    match provider {
        Provider::TensorRt => {
            if !ep::TensorRT::is_available().unwrap_or(false) {
                return not_built_in("TensorRT");
            }
            let tensorrt = ep::TensorRT::default()
                .with_device_id(options.device)
                .with_fp16(options.fp16);
            providers.push(tensorrt.build().error_on_failure());
            providers.push(cuda().build().error_on_failure());
        }
        Provider::Cuda => {
            if !ep::CUDA::is_available().unwrap_or(false) {
                return not_built_in("CUDA");
            }
            providers.push(cuda().build().error_on_failure());
        }
        Provider::Auto | Provider::Cpu => {}
    }
    providers.push(
        ep::CPU::default()
            .with_arena_allocator(options.arena)
            .build()
            .error_on_failure(),
    );
    builder
        .with_execution_providers(providers)
        .map_err(|error| one_line(&error.to_string()))
}

/// Inputs and outputs by name, element type, rank and every dimension that the manifest fixes.
fn check(session: &Session, manifest: &Manifest) -> Result<(), EncoderError> {
    let input = find("input", session.inputs(), manifest.input_name())?;
    if session.inputs().len() != 1 {
        return Err(mismatch(
            "the list of inputs",
            names(session.inputs()),
            format!("{:?} alone", input.name()),
        ));
    }
    let output = find("output", session.outputs(), manifest.output_name())?;
    let element = match manifest.element() {
        Element::Float32 => TensorElementType::Float32,
        Element::Uint8 => TensorElementType::Uint8,
    };
    let dims = tensor("input", input, element, 4)?;
    dynamic_batch("input", input, dims)?;
    let (channels, height, width) = match manifest.layout() {
        Layout::Nchw => (1, 2, 3),
        Layout::Nhwc => (3, 1, 2),
    };
    if dims[channels] != 3 && dims[channels] != -1 {
        return Err(mismatch(
            format!("dimension {channels} of input {:?}", input.name()),
            dims[channels],
            "3 (channels)",
        ));
    }
    for (i, axis) in [(height, "height"), (width, "width")] {
        let part = || format!("dimension {i} of input {:?}", input.name());
        for &size in manifest.input_sizes() {
            if dims[i] == -1 {
                continue;
            }
            if manifest.fit() == Fit::Short {
                let expected = format!("dynamic ({axis}: input.fit keeps each image's aspect ratio)");
                return Err(mismatch(part(), dims[i], expected));
            }
            if dims[i] != i64::from(size) {
                let expected = format!("{size} ({axis}, as input.sizes says) or dynamic");
                return Err(mismatch(part(), dims[i], expected));
            }
        }
    }
    let dims = tensor("output", output, TensorElementType::Float32, 2)?;
    dynamic_batch("output", output, dims)?;
    if dims[1] != -1 && dims[1] != manifest.dimensions() as i64 {
        let part = format!("dimension 1 of output {:?}", output.name());
        return Err(mismatch(
            part,
            dims[1],
            format!("{} (as dimensions says)", manifest.dimensions()),
        ));
    }
    Ok(())
}

fn find<'a>(kind: &str, outlets: &'a [Outlet], name: &str) -> Result<&'a Outlet, EncoderError> {
    outlets.iter().find(|outlet| outlet.name() == name).ok_or_else(|| {
        mismatch(
            format!("the list of {kind}s"),
            names(outlets),
            format!("one named {name:?}"),
        )
    })
}

fn tensor<'a>(
    kind: &str,
    outlet: &'a Outlet,
    element: TensorElementType,
    rank: usize,
) -> Result<&'a [i64], EncoderError> {
    let name = outlet.name();
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } if *ty == element && shape.len() == rank => Ok(shape),
        ValueType::Tensor { ty, shape, .. } if *ty == element => {
            Err(mismatch(format!("the rank of {kind} {name:?}"), shape.len(), rank))
        }
        other => Err(mismatch(
            format!("the type of {kind} {name:?}"),
            one_line(&other.to_string()),
            match element {
                TensorElementType::Uint8 => "a uint8 tensor, as input.type says",
                _ => "a float32 tensor",
            },
        )),
    }
}

fn dynamic_batch(kind: &str, outlet: &Outlet, dims: &[i64]) -> Result<(), EncoderError> {
    if dims[0] == -1 {
        return Ok(());
    }
    Err(mismatch(
        format!("dimension 0 of {kind} {:?}", outlet.name()),
        dims[0],
        "dynamic (the batch)",
    ))
}

fn mismatch(part: impl Into<String>, found: impl fmt::Display, expected: impl fmt::Display) -> EncoderError {
    EncoderError::ModelMismatch {
        part: part.into(),
        found: found.to_string(),
        expected: expected.to_string(),
    }
}

fn names(outlets: &[Outlet]) -> String {
    let shown: Vec<String> = outlets
        .iter()
        .take(8)
        .map(|outlet| format!("{:?}", outlet.name()))
        .collect();
    let more = if outlets.len() > 8 {
        format!(" and {} more", outlets.len() - 8)
    } else {
        String::new()
    };
    if shown.is_empty() {
        "empty".to_owned()
    } else {
        format!("{}{more}", shown.join(", "))
    }
}

/// The library's messages carry line breaks and may quote the model at length.
fn one_line(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > 400 {
        line.chars().take(400).chain("...".chars()).collect()
    } else {
        line
    }
}
