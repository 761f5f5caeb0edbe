//! The ONNX Runtime library: found by path, checked, loaded once for the life of the process.
//!
//! `ort` panics where a library is not what it expects, so everything it relies on is checked here first: a whole ELF
//! file, the entry point, the version and the API table. Library and environment are then never given back: sessions
//! of any age refer to them, and unloading code that has started threads is not safe.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;

use crate::error::{EncoderError, START_BYTES, ensure};
use crate::signals::SignalsBlocked;

/// Oldest minor version of ONNX Runtime 1.x that has every call made here.
pub const MINIMUM_VERSION: u32 = ort::MINOR_VERSION;

/// Whether memory ran out while the library made its environment: it registers names on the way, and a second try finds
/// them taken.
static HALF_STARTED: AtomicBool = AtomicBool::new(false);

struct Runtime {
    /// Canonical, so that two ways to write one path are one library.
    path: PathBuf,
    version: String,
    environment: Option<Environment>,
}

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// Version of the ONNX Runtime that this process has loaded, such as `1.31.1`; `None` before the first model.
pub fn runtime_version() -> Option<String> {
    RUNTIME
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .map(|runtime| runtime.version.clone())
}

/// Canonical path of the ONNX Runtime that this process has loaded; `None` before the first model.
pub fn runtime_library() -> Option<PathBuf> {
    RUNTIME
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .map(|runtime| runtime.path.clone())
}

/// Whether this process cannot make a network any more, since memory ran out while the library started.
pub fn is_half_started() -> bool {
    HALF_STARTED.load(Ordering::Relaxed)
}

/// Loads the library at `path`, or finds it loaded, and returns the process's one environment.
pub(crate) fn environment(path: &Path) -> Result<Environment, EncoderError> {
    let canonical = path.canonicalize().map_err(|error| EncoderError::LibraryMissing {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let mut slot = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = slot.as_ref()
        && runtime.path != canonical
    {
        return Err(EncoderError::LibraryConflict {
            loaded: runtime.path.clone(),
            requested: canonical,
        });
    }
    let runtime = match slot.take() {
        Some(runtime) => slot.insert(runtime),
        None => slot.insert(load(canonical).map_err(|error| error.or_out_of_memory(STARTING))?),
    };
    if let Some(environment) = &runtime.environment {
        return Ok(environment.clone());
    }
    if is_half_started() {
        return Err(EncoderError::NotRestartable);
    }
    ensure(START_BYTES, STARTING)?;
    let environment = create_environment(&runtime.path).map_err(|error| {
        let error = error.or_out_of_memory(STARTING);
        HALF_STARTED.store(true, Ordering::Relaxed);
        error
    })?;
    Ok(runtime.environment.insert(environment).clone())
}

/// For errors.
const STARTING: &str = "while ONNX Runtime started";

fn load(path: PathBuf) -> Result<Runtime, EncoderError> {
    let bytes = check_file(&path)?;
    ensure(
        usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(START_BYTES),
        STARTING,
    )?;
    disable_telemetry();
    let _signals = SignalsBlocked::new().map_err(|error| EncoderError::Signals {
        reason: error.to_string(),
    })?;
    let unusable = |reason: String| EncoderError::LibraryUnusable {
        path: path.clone(),
        reason,
    };
    // SAFETY: the file is a whole ELF library, checked above. Its initialisers run, as they do for every library that
    // the administrator names; there is no way to look into a library without that.
    let library = unsafe { libloading::Library::new(&path) }.map_err(|error| unusable(chain(&error)))?;
    let version = version(&library).map_err(unusable)?;
    if !supported(&version) {
        let minimum = format!("1.{MINIMUM_VERSION}");
        return Err(EncoderError::LibraryTooOld { path, version, minimum });
    }
    // `ort` opens the same file again and keeps that handle for ever; this one is given back when it goes out of scope.
    match catch_unwind(|| ort::init_from(&path).map(drop)) {
        Ok(Ok(())) => Ok(Runtime {
            path,
            version,
            environment: None,
        }),
        Ok(Err(error)) => Err(unusable(error.to_string())),
        Err(_) => Err(unusable("it does not answer as ONNX Runtime does".to_owned())),
    }
}

fn create_environment(path: &Path) -> Result<Environment, EncoderError> {
    let _signals = SignalsBlocked::new().map_err(|error| EncoderError::Signals {
        reason: error.to_string(),
    })?;
    let unusable = |reason: String| EncoderError::LibraryUnusable {
        path: path.to_owned(),
        reason,
    };
    let built = catch_unwind(|| {
        let builder = ort::init_from(path).map_err(|error| error.to_string())?;
        // Every failure reaches the caller as an error, so the library's own log would only repeat it on stderr.
        let silent: ort::logging::LoggerFunction = Arc::new(|_, _, _, _, _| {});
        builder
            .with_name("copymatch")
            .with_telemetry(false)
            .with_logger(silent)
            .build()
            .map_err(|error| error.to_string())
    });
    let environment = match built {
        Ok(Ok(environment)) => environment,
        Ok(Err(reason)) => return Err(unusable(reason)),
        Err(_) => return Err(unusable("it does not answer as ONNX Runtime does".to_owned())),
    };
    environment.set_log_level(ort::logging::LogLevel::Fatal);
    Ok(environment)
}

/// Since 1.29 the official Linux builds send telemetry unless told otherwise: creating the environment starts a thread,
/// keeps a database in the user's cache folder and uploads hashes and names of models. The API's own switch works only
/// on an environment that exists, when all of that has begun, so the documented variable is set first.
fn disable_telemetry() {
    // SAFETY: changing the environment is a data race only with threads that read it at this moment without Rust's
    // lock. This runs once per process, before the first model; the host that the crate is made for, a database
    // backend, has one thread then, and Rust's own readers take the lock.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
}

/// Checks the file and gives its length. The dynamic loader maps a file without asking whether it is all there: a page
/// that a truncated library lacks kills the process when it is touched. So every segment that the ELF header announces
/// must lie inside the file.
fn check_file(path: &Path) -> Result<u64, EncoderError> {
    let missing = |error: std::io::Error| EncoderError::LibraryMissing {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let unusable = |reason: &str| EncoderError::LibraryUnusable {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let metadata = path.metadata().map_err(missing)?;
    if !metadata.is_file() {
        return Err(unusable("it is not a regular file"));
    }
    if !cfg!(all(
        target_os = "linux",
        target_endian = "little",
        target_pointer_width = "64"
    )) {
        return Ok(metadata.len());
    }
    let mut file = File::open(path).map_err(missing)?;
    let mut header = [0_u8; 64];
    if file.read_exact(&mut header).is_err() || header[..4] != *b"\x7fELF" {
        return Err(unusable("it is not a shared library (no ELF header)"));
    }
    if header[4] != 2 || header[5] != 1 {
        return Err(unusable(
            "it is a library for another platform (not 64-bit little-endian)",
        ));
    }
    let table = u64_at(&header, 32);
    let entry = usize::from(u16_at(&header, 54));
    let entries = usize::from(u16_at(&header, 56));
    if entry < 56 {
        return Err(unusable("its ELF header is damaged"));
    }
    let mut segments = vec![0_u8; entry * entries];
    if file.seek(SeekFrom::Start(table)).is_err() || file.read_exact(&mut segments).is_err() {
        return Err(unusable("it is truncated: the program headers are missing"));
    }
    for segment in segments.chunks_exact(entry) {
        let end = u64_at(segment, 8).checked_add(u64_at(segment, 32));
        if end.is_none_or(|end| end > metadata.len()) {
            return Err(unusable("it is truncated: a segment reaches past the end of the file"));
        }
    }
    Ok(metadata.len())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8]
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) | u16::from(bytes[at + 1]) << 8
}

/// The version that the library says it has, after checking that it offers the API table that `ort` will ask for.
fn version(library: &libloading::Library) -> Result<String, String> {
    type GetApiBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: OrtGetApiBase has had this signature in every release of ONNX Runtime (onnxruntime_c_api.h).
    let entry = unsafe { library.get::<GetApiBase>(b"OrtGetApiBase\0") }
        .map_err(|_| "it does not export OrtGetApiBase".to_owned())?;
    // SAFETY: the call takes nothing and returns a pointer to a static table, or null.
    let base = unsafe { entry().as_ref() }.ok_or("OrtGetApiBase returns nothing")?;
    // SAFETY: the function returns a pointer to a static string.
    let version = unsafe { (base.GetVersionString)() };
    if version.is_null() {
        return Err("it has no version".to_owned());
    }
    // SAFETY: not null, and a C string by the API's contract.
    let version = unsafe { CStr::from_ptr(version) }.to_string_lossy().into_owned();
    // SAFETY: any number may be asked for; an unknown one is answered by null. Asked only where the version promises
    // the table, because the library writes to stderr when it has to refuse.
    if supported(&version) && unsafe { (base.GetApi)(ort::sys::ORT_API_VERSION) }.is_null() {
        return Err(format!(
            "version {version} does not offer API {}",
            ort::sys::ORT_API_VERSION
        ));
    }
    Ok(version)
}

/// Whether a library of this version has API table [`MINIMUM_VERSION`]: 1.17 and later, of any later major version too.
fn supported(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= (1, MINIMUM_VERSION),
        _ => false,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
