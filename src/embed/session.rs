//! The models that this backend has loaded: on first use, a bounded number of them.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use encoder::{Encoder, EncoderError, Manifest, RuntimeOptions};
use imaging::Image;
use pgrx::prelude::*;
use scoring::Background;

use super::catalogue::{Model, Weights};
use crate::failure::{Failure, should_stop};
use crate::settings::{self, ExecutionProvider};

/// Models kept loaded in one backend: the current one, and the next one while a set is re-embedded.
const MOST_LOADED: usize = 2;

struct Loaded {
    sha256: Vec<u8>,
    name: String,
    provider: ExecutionProvider,
    threads: usize,
    encoder: Encoder,
    load_milliseconds: f64,
}

/// A model's background descriptors, which searches by descriptor need without the network.
struct Remembered {
    name: String,
    sha256: Option<Vec<u8>>,
    background: Option<Background>,
}

thread_local! {
    static FALLBACK_SAID: Cell<bool> = const { Cell::new(false) };
    /// Most recently used last.
    static LOADED: RefCell<Vec<Loaded>> = const { RefCell::new(Vec::new()) };
    static BACKGROUNDS: RefCell<Vec<Remembered>> = const { RefCell::new(Vec::new()) };
}

/// What runs the model in this backend.
pub struct Running {
    /// The execution provider that really runs it.
    pub provider: String,
    /// Why that is not the one wished for.
    pub fallback: Option<String>,
    /// Milliseconds that loading took: library, session, parity check.
    pub load_milliseconds: f64,
}

fn with_loaded<T>(model: &Model, work: impl FnOnce(&mut Loaded) -> Result<T, Failure>) -> Result<T, Failure> {
    let provider = settings::execution_provider();
    let threads = settings::threads();
    // Taken out while in use: an error that unwinds drops the model, and the next use loads it afresh.
    let found = LOADED.with_borrow_mut(|all| {
        let at = all.iter().position(|loaded| {
            loaded.name == model.name
                && loaded.sha256 == model.sha256
                && loaded.provider == provider
                && loaded.threads == threads
        })?;
        Some(all.remove(at))
    });
    let mut loaded = match found {
        Some(loaded) => loaded,
        None => load(model, provider, threads)?,
    };
    let result = work(&mut loaded);
    LOADED.with_borrow_mut(|all| {
        if all.len() >= MOST_LOADED {
            all.remove(0);
        }
        all.push(loaded);
    });
    result
}

fn load(model: &Model, provider: ExecutionProvider, threads: usize) -> Result<Loaded, Failure> {
    let started = Instant::now();
    model.with_parts(|manifest, weights| {
        let encoder = load_encoder(weights, manifest, provider, threads)?;
        say_fallback(provider, &encoder);
        Ok(Loaded {
            sha256: model.sha256.clone(),
            name: model.name.clone(),
            provider,
            threads,
            encoder,
            load_milliseconds: started.elapsed().as_secs_f64() * 1000.0,
        })
    })
}

/// Why `auto` ended on the CPU, if it did.
fn fallback_reason(provider: ExecutionProvider, encoder: &Encoder) -> Option<String> {
    let fell_back = provider == ExecutionProvider::Auto && encoder.provider() == "cpu";
    fell_back.then(|| {
        encoder
            .fallback()
            .unwrap_or("the installed ONNX Runtime has no CUDA")
            .to_owned()
    })
}

/// Whether no other backend has come here since the server started. Where even these bytes are not to be had: no.
fn first_in_this_server() -> bool {
    PgTryBuilder::new(|| {
        let mut found = false;
        // SAFETY: PostgreSQL finds or makes the structure under a lock of its own, which it has released where it raises.
        unsafe { pg_sys::ShmemInitStruct(c"copymatch fallback".as_ptr(), size_of::<u64>(), &mut found) };
        !found
    })
    .catch_others(|_| false)
    .execute()
}

/// One line in the server's log, once per server: a few bytes of shared memory are the note that it was said.
fn say_fallback(provider: ExecutionProvider, encoder: &Encoder) {
    if let Some(reason) = fallback_reason(provider, encoder)
        && !FALLBACK_SAID.replace(true)
        && first_in_this_server()
    {
        pgrx::log!("copymatch.execution_provider is auto: the CPU runs the network ({reason})");
    }
}

/// Loads a network with this backend's settings and checks it against its manifest.
pub fn load_encoder(
    weights: Weights,
    manifest: Manifest,
    provider: ExecutionProvider,
    threads: usize,
) -> Result<Encoder, Failure> {
    let options = RuntimeOptions {
        library: settings::onnxruntime_library(),
        provider: provider.into(),
        threads,
    };
    match weights {
        Weights::BuiltIn(weights) => Encoder::load_verified(weights, manifest, &options),
        Weights::Stored(weights) => Encoder::load(weights, manifest, &options),
    }
    .map_err(encoder_failure)
}

/// Descriptors (unit vectors) of images, in their order.
pub fn embed(model: &Model, images: &[Image]) -> Result<Vec<Vec<f32>>, Failure> {
    with_loaded(model, |loaded| {
        loaded.encoder.embed(images, &should_stop).map_err(encoder_failure)
    })
}

/// The side, or short side, in pixels, that the network looks at: larger pictures may be decoded at reduced scale.
pub fn input_side(model: &Model) -> Result<u32, Failure> {
    with_loaded(model, |loaded| {
        Ok(loaded
            .encoder
            .manifest()
            .input_sizes()
            .iter()
            .copied()
            .max()
            .unwrap_or(224))
    })
}

/// Passes the model's background descriptors to `work`. Loads them alone: no network, no runtime library.
pub fn with_background<T>(model: &Model, work: impl FnOnce(&Background) -> Result<T, Failure>) -> Result<T, Failure> {
    let found = BACKGROUNDS.with_borrow_mut(|all| {
        let at = all
            .iter()
            .position(|known| known.name == model.name && known.sha256 == model.background_sha256)?;
        Some(all.remove(at))
    });
    let remembered = match found {
        Some(remembered) => remembered,
        None => Remembered {
            name: model.name.clone(),
            sha256: model.background_sha256.clone(),
            background: model.background()?,
        },
    };
    let result = match &remembered.background {
        Some(background) => work(background),
        None => Err(Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("model \"{}\" has no background descriptors", model.name),
        )
        .hint("copy_add_model takes them; without them descriptors can be compared, but scores are not comparable across images.")),
    };
    BACKGROUNDS.with_borrow_mut(|all| {
        if all.len() >= MOST_LOADED {
            all.remove(0);
        }
        all.push(remembered);
    });
    result
}

/// What runs this model in this backend; loads it if need be.
pub fn running(model: &Model) -> Result<Running, Failure> {
    with_loaded(model, |loaded| {
        Ok(Running {
            provider: loaded.encoder.provider().to_owned(),
            fallback: fallback_reason(loaded.provider, &loaded.encoder),
            load_milliseconds: loaded.load_milliseconds,
        })
    })
}

/// Gives an encoder's error its SQLSTATE.
pub fn encoder_failure(error: EncoderError) -> Failure {
    let hint = error.hint().to_string();
    match error {
        EncoderError::Cancelled => Failure::stopped(error.to_string()),
        EncoderError::Image(error) => return Failure::from(error),
        EncoderError::OutOfMemory { .. } | EncoderError::NotRestartable => {
            memory::recovered();
            Failure::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, error.to_string())
        }
        _ => Failure::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, error.to_string()),
    }
    .hint(hint)
}
