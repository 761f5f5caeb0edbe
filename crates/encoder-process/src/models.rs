//! The models that this process has loaded.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use encoder::{Encoder, EncoderError, Manifest, Provider, RuntimeOptions};
use service::ModelKey;
use service::wire::{self, Mapping, Report, Setup};

/// Why something failed, as the session is told.
pub struct Trouble {
    pub message: String,
    pub hint: String,
    pub memory: bool,
}

impl From<EncoderError> for Trouble {
    fn from(error: EncoderError) -> Self {
        Trouble {
            message: error.to_string(),
            hint: error.hint().to_owned(),
            memory: matches!(error, EncoderError::OutOfMemory { .. } | EncoderError::NotRestartable),
        }
    }
}

impl Trouble {
    fn new(message: impl Into<String>) -> Self {
        Trouble {
            message: message.into(),
            hint: String::new(),
            memory: false,
        }
    }
}

/// A loaded model: on the CPU a session for each thread, as soon as they are made, on a device one for all.
struct Model {
    sessions: RwLock<Vec<Arc<Mutex<Encoder>>>>,
    source: Source,
}

/// What a model is loaded from. Its pages are the supervisor's, too: they cost nothing more.
struct Source {
    file: Mapping,
    manifest: usize,
    weights: usize,
}

impl Source {
    fn manifest(&self) -> Result<&str, Trouble> {
        // SAFETY: the supervisor has written the file before it sent it, and writes it no more.
        let bytes = unsafe { self.file.part(0, self.manifest) };
        std::str::from_utf8(bytes).map_err(|_| Trouble::new("the model's manifest is not UTF-8"))
    }

    fn weights(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { self.file.part(self.manifest, self.weights) }
    }
}

pub struct Models {
    options: RuntimeOptions,
    lanes: usize,
    /// Whether a device was in use.
    device: AtomicBool,
    loaded: RwLock<HashMap<ModelKey, Arc<Model>>>,
}

impl Models {
    pub fn new(setup: &Setup) -> Result<Self, String> {
        let provider: Provider = setup.provider.parse()?;
        Ok(Models {
            options: RuntimeOptions {
                library: setup.library.clone().into(),
                provider,
                threads: 1,
                device: setup.device,
                device_memory: setup.device_memory,
                fp16: setup.fp16,
                arena: true,
            },
            lanes: setup.lanes.max(1),
            device: AtomicBool::new(false),
            loaded: RwLock::new(HashMap::new()),
        })
    }

    /// Loads a model out of a file: its manifest, whose hash must be the key, and the weights, whose hash must be the
    /// manifest's. It is reported as soon as one session is there; the other threads' sessions follow.
    pub fn load(
        &self,
        key: ModelKey,
        file: RawFd,
        manifest: usize,
        weights: usize,
        verified: bool,
        report: impl Fn(&Report),
    ) {
        let started = Instant::now();
        let before = resident();
        match self.first(key, file, manifest, weights, verified) {
            Ok((source, encoder)) => {
                let on_cpu = encoder.provider() == Provider::Cpu.name();
                let lanes = if on_cpu { self.lanes } else { 1 };
                self.device.fetch_or(!on_cpu, Ordering::Relaxed);
                let bytes = resident().saturating_sub(before) * lanes as u64;
                let loaded = Report::Loaded {
                    model: key,
                    name: wire::short(&format!(
                        "{} {}",
                        encoder.manifest().name(),
                        encoder.manifest().version()
                    )),
                    provider: encoder.provider().to_owned(),
                    fallback: encoder.fallback().map(wire::short),
                    version: encoder::runtime_version(),
                    bytes: bytes.max(weights as u64),
                    milliseconds: started.elapsed().as_secs_f64() * 1000.0,
                };
                let model = Arc::new(Model {
                    sessions: RwLock::new(vec![Arc::new(Mutex::new(encoder))]),
                    source,
                });
                self.loaded
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(key, model.clone());
                report(&loaded);
                for _ in 1..lanes {
                    self.add_session(&model);
                }
            }
            Err(trouble) => report(&Report::Refused {
                model: key,
                message: wire::short(&trouble.message),
                hint: wire::short(&trouble.hint),
                memory: trouble.memory,
            }),
        }
    }

    /// One more session of a model on the CPU. Without it the threads share those that are there.
    fn add_session(&self, model: &Model) {
        let options = RuntimeOptions {
            provider: Provider::Cpu,
            ..self.options.clone()
        };
        // The hash has been compared by now.
        match Self::encoder(&model.source, &options, true) {
            Ok(encoder) => model
                .sessions
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Arc::new(Mutex::new(encoder))),
            Err(trouble) => eprintln!(
                "copymatch-encoder: a thread has no session of its own: {}",
                trouble.message
            ),
        }
    }

    fn first(
        &self,
        key: ModelKey,
        file: RawFd,
        manifest: usize,
        weights: usize,
        verified: bool,
    ) -> Result<(Source, Encoder), Trouble> {
        let file = Mapping::new(file, manifest.saturating_add(weights), false)
            .map_err(|error| Trouble::new(format!("the model's file cannot be mapped: {error}")))?;
        let source = Source {
            file,
            manifest,
            weights,
        };
        if ModelKey::of_manifest(source.manifest()?) != key {
            return Err(Trouble::new("the model's manifest is another one than was announced"));
        }
        let encoder = Self::encoder(&source, &self.options, verified)?;
        Ok((source, encoder))
    }

    fn encoder(source: &Source, options: &RuntimeOptions, verified: bool) -> Result<Encoder, Trouble> {
        let manifest = Manifest::from_json(source.manifest()?).map_err(|error| Trouble {
            message: format!("the model's manifest is not valid: {error}"),
            hint: error.hint().to_string(),
            memory: false,
        })?;
        Ok(if verified {
            Encoder::load_verified(source.weights(), manifest, options)?
        } else {
            Encoder::load(source.weights(), manifest, options)?
        })
    }

    /// Whether a model runs on a device, or did.
    pub fn on_device(&self) -> bool {
        self.device.load(Ordering::Relaxed)
    }

    pub fn unload(&self, key: ModelKey) {
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Runs a model on a tensor of `shape[0]` images: the raw outputs, and what was done instead
    /// where a device had no room.
    pub fn run(
        &self,
        key: ModelKey,
        lane: usize,
        shape: [usize; 4],
        input: &[u8],
    ) -> Result<(Vec<f32>, Option<String>), Trouble> {
        let model = {
            let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
            let found = loaded.get(&key).cloned();
            found.ok_or_else(|| Trouble::new("the service does not have this model any more"))?
        };
        let session = {
            let sessions = model.sessions.read().unwrap_or_else(PoisonError::into_inner);
            sessions[lane % sessions.len()].clone()
        };
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        match session.run(shape, input) {
            Ok(values) => Ok((values, None)),
            Err(EncoderError::OutOfMemory { reason, .. }) if session.provider() != Provider::Cpu.name() => {
                self.with_less(&model, &mut session, shape, input, &reason)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The device had no memory for a batch: half of it at a time; one image that is too much
    /// even alone goes to the CPU.
    fn with_less(
        &self,
        model: &Model,
        session: &mut Encoder,
        shape: [usize; 4],
        input: &[u8],
        reason: &str,
    ) -> Result<(Vec<f32>, Option<String>), Trouble> {
        let [count, rest @ ..] = shape;
        if count <= 1 {
            let options = RuntimeOptions {
                provider: Provider::Cpu,
                ..self.options.clone()
            };
            let mut on_cpu = Self::encoder(&model.source, &options, true)?;
            let values = on_cpu.run(shape, input)?;
            return Ok((
                values,
                Some(format!(
                    "the device had no memory for one image, so the CPU ran it: {reason}"
                )),
            ));
        }
        let mut values = Vec::new();
        let mut instead = format!("the device had no memory for {count} images at once: {reason}");
        let half = count / 2;
        let image = input.len() / count;
        for (count, part) in [(half, &input[..half * image]), (count - half, &input[half * image..])] {
            let shape = [count, rest[0], rest[1], rest[2]];
            match session.run(shape, part) {
                Ok(mut more) => values.append(&mut more),
                Err(EncoderError::OutOfMemory { reason, .. }) => {
                    let (mut more, smaller) = self.with_less(model, session, shape, part, &reason)?;
                    values.append(&mut more);
                    instead = smaller.unwrap_or(instead);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((values, Some(instead)))
    }
}

/// Memory that this process has, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    // SAFETY: asks for a constant of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or(0) * u64::try_from(page).unwrap_or(4096)
}
