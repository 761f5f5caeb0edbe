//! From images to descriptors: through the embedding service where it runs, else with models that this backend has
//! loaded, on first use and a bounded number of them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use ::service::ModelKey;
use encoder::{Encoder, Fit, MAX_ASPECT, Manifest, Mean, Preparation, RuntimeOptions};
use imaging::Image;
use pgrx::prelude::*;
use scoring::Background;

use super::catalogue::{Model, Weights};
use super::parsed::parse_manifest;
use crate::failure::Failure;
use crate::interrupts::should_stop;
use crate::service::{self, Answer, Job, Path, Shared, Submitted};
use crate::settings::{self, ExecutionProvider};

/// Models kept loaded in one backend: the current one, and the next one while a set is re-embedded.
const MOST_LOADED: usize = 2;

/// Images decoded at a time in a batch: enough to keep the network busy, few enough to stay small.
pub const DECODED_AT_ONCE: usize = 16;

/// Pixels decoded at a time in a batch: images that cannot be read at reduced scale are
/// embedded before more are decoded.
pub const PIXELS_AT_ONCE: u64 = 8_000_000;

/// How often one request brings its model to the service, which may give it up again meanwhile.
const MOST_BRINGS: usize = 4;

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
    static PREPARED: RefCell<Vec<Rc<Prepared>>> = const { RefCell::new(Vec::new()) };
    static BACKGROUNDS: RefCell<Vec<Remembered>> = const { RefCell::new(Vec::new()) };
}

/// What runs the model for this session.
pub struct Running {
    /// The execution provider that really runs it.
    pub provider: String,
    /// Why that is not the one wished for.
    pub fallback: Option<String>,
    /// Of the runtime library.
    pub version: Option<String>,
    /// Threads that run networks on the CPU: of this session, or of the service.
    pub threads: usize,
    /// Milliseconds that loading took: library, session, parity check. None where the session did not load it.
    pub load_milliseconds: Option<f64>,
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
        // SAFETY: PostgreSQL finds or makes the structure under a lock of its own, which it has
        // released where it raises.
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
        device: settings::device(),
        device_memory: settings::device_memory(),
        fp16: settings::tensorrt_fp16(),
        arena: false,
    };
    match weights {
        Weights::BuiltIn(weights) => Encoder::load_verified(weights, manifest, &options),
        Weights::Stored(weights) => Encoder::load(weights, manifest, &options),
    }
    .map_err(Failure::from)
}

/// Whether somebody waits for this one image, or it is one of many.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Goes first.
    Interactive,
    /// Goes when nobody waits.
    Bulk,
}

/// What preparing a model's images needs, known without its weights.
pub struct Prepared {
    name: String,
    sha256: Vec<u8>,
    key: ModelKey,
    preparation: Preparation,
}

fn prepared(model: &Model) -> Result<Rc<Prepared>, Failure> {
    let known = PREPARED.with_borrow(|all| {
        all.iter()
            .find(|known| known.name == model.name && known.sha256 == model.sha256)
            .cloned()
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let text = model.manifest_text()?;
    let found = Rc::new(Prepared {
        name: model.name.clone(),
        sha256: model.sha256.clone(),
        key: ModelKey::of_manifest(&text),
        preparation: Preparation::new(parse_manifest(&text)?),
    });
    PREPARED.with_borrow_mut(|all| {
        if all.len() >= MOST_LOADED {
            all.remove(0);
        }
        all.push(found.clone());
    });
    Ok(found)
}

/// The way that a model's images take: the service's, unless it does not run, or the model is too large for its slots.
fn route(prepared: &Prepared) -> Result<Path, Failure> {
    let Path::Service(shared) = service::path() else {
        return Ok(service::path());
    };
    if !service::has_begun(&shared)? {
        return Ok(service::path());
    }
    let manifest = prepared.preparation.manifest();
    let largest = manifest.input_sizes().iter().copied().max().unwrap_or(1) as usize;
    let long = match manifest.fit() {
        Fit::Square => largest,
        Fit::Short => largest * MAX_ASPECT as usize,
    };
    let input = prepared.preparation.bytes([3, largest, long]);
    if input.max(manifest.dimensions() * size_of::<f32>()) > shared.room_bytes() {
        return Ok(Path::Own(
            "the model's input is larger than copymatch.service_slot_size".to_owned(),
        ));
    }
    Ok(Path::Service(shared))
}

/// Descriptors (unit vectors) of images, in their order.
pub fn embed(model: &Model, images: &[Image], urgency: Urgency) -> Result<Vec<Vec<f32>>, Failure> {
    let prepared = prepared(model)?;
    match route(&prepared)? {
        Path::Own(_) => embed_here(model, images),
        Path::Service(shared) => {
            let mut flight = Flight::new(model, prepared, shared, urgency);
            for image in images {
                flight.add(image)?;
            }
            flight.land()
        }
    }
}

/// With a network of this session's own.
fn embed_here(model: &Model, images: &[Image]) -> Result<Vec<Vec<f32>>, Failure> {
    with_loaded(model, |loaded| {
        loaded.encoder.embed(images, &should_stop).map_err(Failure::from)
    })
}

/// Bulk work: images come one by one, and descriptors are wanted in the end. With the service, images are embedded
/// while the caller decodes the next ones.
pub enum Stream<'a> {
    /// With a network of this session's own: some images at a time.
    Here {
        model: &'a Model,
        waiting: Vec<Image>,
        pixels: u64,
        done: Vec<Vec<f32>>,
    },
    /// Through the service.
    Service(Flight<'a>),
}

impl<'a> Stream<'a> {
    /// Nothing yet.
    pub fn new(model: &'a Model) -> Result<Self, Failure> {
        let prepared = prepared(model)?;
        Ok(match route(&prepared)? {
            Path::Service(shared) => Stream::Service(Flight::new(model, prepared, shared, Urgency::Bulk)),
            Path::Own(_) => Stream::Here {
                model,
                waiting: Vec::with_capacity(DECODED_AT_ONCE),
                pixels: 0,
                done: Vec::new(),
            },
        })
    }

    /// The next image.
    pub fn add(&mut self, image: Image) -> Result<(), Failure> {
        match self {
            Stream::Service(flight) => flight.add(&image),
            Stream::Here {
                model,
                waiting,
                pixels,
                done,
            } => {
                *pixels += u64::from(image.width()) * u64::from(image.height());
                waiting.push(image);
                if waiting.len() == DECODED_AT_ONCE || *pixels > PIXELS_AT_ONCE {
                    done.append(&mut embed_here(model, waiting)?);
                    waiting.clear();
                    *pixels = 0;
                }
                Ok(())
            }
        }
    }

    /// The descriptors of all images, in their order.
    pub fn finish(self) -> Result<Vec<Vec<f32>>, Failure> {
        match self {
            Stream::Service(flight) => flight.land(),
            Stream::Here {
                model,
                waiting,
                mut done,
                ..
            } => {
                if !waiting.is_empty() {
                    done.append(&mut embed_here(model, &waiting)?);
                }
                Ok(done)
            }
        }
    }
}

/// Images of one model on their way through the service: several at a time, so that one is prepared
/// while others are embedded.
pub struct Flight<'a> {
    model: &'a Model,
    prepared: Rc<Prepared>,
    job: Job,
    most: usize,
    /// Of each image, in their order.
    means: Vec<Mean>,
    /// Which image, at which size.
    parts: VecDeque<(usize, u32, Submitted)>,
}

impl<'a> Flight<'a> {
    fn new(model: &'a Model, prepared: Rc<Prepared>, shared: Shared, urgency: Urgency) -> Self {
        Flight {
            model,
            most: service::most_in_flight(&shared),
            job: Job {
                shared,
                model: prepared.key,
                bulk: urgency == Urgency::Bulk,
            },
            prepared,
            means: Vec::new(),
            parts: VecDeque::new(),
        }
    }

    fn add(&mut self, image: &Image) -> Result<(), Failure> {
        let index = self.means.len();
        let prepared = self.prepared.clone();
        let preparation = &prepared.preparation;
        self.means.push(Mean::new(preparation.manifest().dimensions()));
        for &size in preparation.manifest().input_sizes() {
            loop {
                // Patient only with nothing under way: what this session has is freed by itself alone.
                let submitted = if self.parts.len() < self.most {
                    let patient = self.parts.is_empty();
                    self.job.submit(preparation, image, size, patient)?
                } else {
                    None
                };
                if let Some(submitted) = submitted {
                    self.parts.push_back((index, size, submitted));
                    break;
                }
                self.collect()?;
            }
        }
        Ok(())
    }

    /// Waits for the answer to what was sent first.
    fn collect(&mut self) -> Result<(), Failure> {
        let Some((image, size, submitted)) = self.parts.pop_front() else {
            return Ok(());
        };
        for _ in 0..MOST_BRINGS {
            match submitted.wait()? {
                Answer::Output(values) if values.len() == self.prepared.preparation.manifest().dimensions() => {
                    return self.means[image]
                        .add(values.iter().copied(), size, image)
                        .map_err(Failure::from);
                }
                Answer::UnknownModel => {
                    self.bring()?;
                    submitted.send_again();
                }
                Answer::Output(_) | Answer::Brought => {
                    return Err(Failure::new(
                        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                        "the embedding service gave another answer than was asked for",
                    ));
                }
            }
        }
        Err(Failure::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "the model was given up by the embedding service again and again",
        )
        .hint("More models are in use than copymatch.model_memory has room for; raise it."))
    }

    fn bring(&self) -> Result<(), Failure> {
        let manifest = self.model.manifest_text()?;
        self.model
            .with_parts(|_, weights| service::bring(self.job.shared, &manifest, weights.bytes()))
    }

    /// The descriptors of all that were added.
    fn land(mut self) -> Result<Vec<Vec<f32>>, Failure> {
        while !self.parts.is_empty() {
            self.collect()?;
        }
        let means = std::mem::take(&mut self.means);
        means
            .into_iter()
            .enumerate()
            .map(|(image, mean)| mean.finish(image).map_err(Failure::from))
            .collect()
    }
}

/// Loads a model and checks it against its manifest, where its networks run.
pub fn try_load(weights: &[u8], manifest: Manifest, text: &str) -> Result<(), Failure> {
    match service::path() {
        Path::Service(shared) if service::has_begun(&shared)? => service::bring(shared, text, weights),
        _ => load_encoder(Weights::Stored(weights), manifest, ExecutionProvider::Cpu, 1).map(|_| ()),
    }
}

/// The side, or short side, in pixels, that the network looks at: larger pictures may be decoded at reduced scale.
pub fn input_side(model: &Model) -> Result<u32, Failure> {
    let prepared = prepared(model)?;
    let sizes = prepared.preparation.manifest().input_sizes();
    Ok(sizes.iter().copied().max().unwrap_or(224))
}

/// Passes the model's background descriptors to `work`. Loads them alone: no network, no runtime library.
pub fn with_background<T>(model: &Model, work: impl FnOnce(&Background) -> Result<T, Failure>) -> Result<T, Failure> {
    let found = BACKGROUNDS.with_borrow_mut(|all| {
        let at = all
            .iter()
            .position(|known| known.name == model.name && known.sha256 == model.background_sha256)?;
        Some(all.remove(at))
    });
    let cached = match found {
        Some(cached) => cached,
        None => Remembered {
            name: model.name.clone(),
            sha256: model.background_sha256.clone(),
            background: model.background()?,
        },
    };
    let result = match &cached.background {
        Some(background) => work(background),
        None => Err(Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("model \"{}\" has no background descriptors", model.name),
        )
        .hint(
            "copy_add_model takes them; without them descriptors can be compared, but scores are not comparable across \
             images.",
        )),
    };
    BACKGROUNDS.with_borrow_mut(|all| {
        if all.len() >= MOST_LOADED {
            all.remove(0);
        }
        all.push(cached);
    });
    result
}

/// What runs this model for this session; loads it if need be.
pub fn running(model: &Model) -> Result<Running, Failure> {
    let prepared = prepared(model)?;
    if let Path::Service(_) = route(&prepared)? {
        let (width, height, pixels) = encoder::waves_v1();
        embed(model, &[Image::new(width, height, pixels)?], Urgency::Interactive)?;
        if let Some((provider, fallback, version)) = service::running_provider() {
            return Ok(Running {
                provider,
                fallback,
                version,
                threads: settings::service_threads(),
                load_milliseconds: None,
            });
        }
    }
    with_loaded(model, |loaded| {
        Ok(Running {
            provider: loaded.encoder.provider().to_owned(),
            fallback: fallback_reason(loaded.provider, &loaded.encoder),
            version: encoder::runtime_version(),
            threads: loaded.threads,
            load_milliseconds: Some(loaded.load_milliseconds),
        })
    })
}
