//! Every setting (GUC) of copymatch, with the help that `pg_settings` and `SHOW` give.

use std::ffi::CString;
use std::path::PathBuf;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

/// `copymatch.execution_provider`: where ONNX Runtime runs the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum ExecutionProvider {
    /// The GPU where ONNX Runtime has CUDA and a device answers, else the CPU.
    #[name = c"auto"]
    Auto,
    /// Always the CPU.
    #[name = c"cpu"]
    Cpu,
    /// CUDA, or an error.
    #[name = c"cuda"]
    Cuda,
    /// TensorRT, or an error.
    #[name = c"tensorrt"]
    TensorRt,
}

impl From<ExecutionProvider> for encoder::Provider {
    fn from(setting: ExecutionProvider) -> Self {
        match setting {
            ExecutionProvider::Auto => encoder::Provider::Auto,
            ExecutionProvider::Cpu => encoder::Provider::Cpu,
            ExecutionProvider::Cuda => encoder::Provider::Cuda,
            ExecutionProvider::TensorRt => encoder::Provider::TensorRt,
        }
    }
}

static DEFAULT_MODEL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static EXECUTION_PROVIDER: GucSetting<ExecutionProvider> =
    GucSetting::<ExecutionProvider>::new(ExecutionProvider::Auto);
static THREADS: GucSetting<i32> = GucSetting::<i32>::new(1);
static ONNXRUNTIME_LIBRARY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static MAX_IMAGE_BYTES: GucSetting<i32> = GucSetting::<i32>::new(64 * 1024);
static MAX_IMAGE_PIXELS: GucSetting<i32> = GucSetting::<i32>::new(100);
static MAX_IMAGE_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(512 * 1024);

/// Registers the settings. Called once, when PostgreSQL loads the library.
pub fn register() {
    GucRegistry::define_string_guc(
        c"copymatch.default_model",
        c"The model that copy_embed and new reference sets use when none is named.",
        c"A name from copymatch.models. Empty means the model built into the extension.",
        &DEFAULT_MODEL,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"copymatch.execution_provider",
        c"Where ONNX Runtime runs the network: auto, cpu, cuda or tensorrt.",
        c"auto takes CUDA where the installed ONNX Runtime has it and a device answers, and falls back to the CPU with one LOG line. The others fail when they cannot be had. copy_runtime() tells which one really runs.",
        &EXECUTION_PROVIDER,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.threads",
        c"Threads with which one backend runs the network on the CPU.",
        c"1 starts no thread at all. More make a single image faster, and many busy backends slower.",
        &THREADS,
        1,
        64,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"copymatch.onnxruntime_library",
        c"Path of ONNX Runtime's shared library.",
        c"Empty means copymatch/libonnxruntime.so in PostgreSQL's library directory, where `make install` puts it. Read when a backend first embeds; later changes need a new connection.",
        &ONNXRUNTIME_LIBRARY,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_int_guc(
        c"copymatch.max_image_bytes",
        c"Largest encoded image that is read.",
        c"A larger one is refused before anything is decoded.",
        &MAX_IMAGE_BYTES,
        1,
        1024 * 1024,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"copymatch.max_image_megapixels",
        c"Largest image, in millions of pixels, that is decoded.",
        c"Judged from the file's header, before memory is taken.",
        &MAX_IMAGE_PIXELS,
        1,
        4000,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.max_image_memory",
        c"Memory that decoding one image may take.",
        c"An image that would need more is refused before memory is taken.",
        &MAX_IMAGE_MEMORY,
        1024,
        16 * 1024 * 1024,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    // PostgreSQL then refuses misspelt copymatch.* settings instead of keeping them as placeholders.
    // SAFETY: called from _PG_init with a constant, NUL-terminated prefix.
    unsafe {
        #[cfg(not(feature = "pg14"))]
        pgrx::pg_sys::MarkGUCPrefixReserved(c"copymatch".as_ptr());
        #[cfg(feature = "pg14")]
        pgrx::pg_sys::EmitWarningsOnPlaceholders(c"copymatch".as_ptr());
    }
}

/// The model named by `copymatch.default_model`, if one is.
pub fn default_model() -> Option<String> {
    DEFAULT_MODEL
        .get()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
}

/// The setting of `copymatch.execution_provider`.
pub fn execution_provider() -> ExecutionProvider {
    EXECUTION_PROVIDER.get()
}

/// The setting of `copymatch.threads`.
pub fn threads() -> usize {
    usize::try_from(THREADS.get()).unwrap_or(1).max(1)
}

/// Where ONNX Runtime's shared library lies.
pub fn onnxruntime_library() -> PathBuf {
    match ONNXRUNTIME_LIBRARY
        .get()
        .and_then(|path| path.into_string().ok())
        .filter(|path| !path.is_empty())
    {
        Some(path) => PathBuf::from(path),
        None => library_directory().join("copymatch").join("libonnxruntime.so"),
    }
}

/// The limits within which images are decoded.
pub fn image_limits() -> imaging::Limits {
    let positive = |value: i32| u64::try_from(value).unwrap_or(1);
    imaging::Limits {
        max_bytes: positive(MAX_IMAGE_BYTES.get()) * 1024,
        max_pixels: positive(MAX_IMAGE_PIXELS.get()) * 1_000_000,
        max_memory: positive(MAX_IMAGE_MEMORY.get()) * 1024,
    }
}

fn library_directory() -> PathBuf {
    // SAFETY: PostgreSQL fills pkglib_path, a NUL-terminated array, at the start of every process.
    let path = unsafe { std::ffi::CStr::from_ptr((&raw const pgrx::pg_sys::pkglib_path).cast()) };
    PathBuf::from(path.to_string_lossy().into_owned())
}
