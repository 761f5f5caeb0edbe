//! Every setting (GUC) of copymatch, with the help that `pg_settings` and `SHOW` give.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

use crate::installation;

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

/// `copymatch.iterative_scan`: what an index scan does when more rows are asked for than the probed lists hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum IterativeScan {
    /// It ends.
    #[name = c"off"]
    Off,
    /// It probes further lists, whose rows may be nearer than some given before.
    #[name = c"relaxed_order"]
    RelaxedOrder,
    /// It probes further lists and leaves out rows that are nearer than one given before.
    #[name = c"strict_order"]
    StrictOrder,
}

static DEFAULT_MODEL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static EXECUTION_PROVIDER: GucSetting<ExecutionProvider> =
    GucSetting::<ExecutionProvider>::new(ExecutionProvider::Auto);
static THREADS: GucSetting<i32> = GucSetting::<i32>::new(1);
static ONNXRUNTIME_LIBRARY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static SERVICE: GucSetting<bool> = GucSetting::<bool>::new(true);
static SERVICE_SLOTS: GucSetting<i32> = GucSetting::<i32>::new(64);
static SERVICE_SLOT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1024);
static SERVICE_THREADS: GucSetting<i32> = GucSetting::<i32>::new(0);
static SERVICE_BATCH: GucSetting<i32> = GucSetting::<i32>::new(32);
static SERVICE_WAIT: GucSetting<i32> = GucSetting::<i32>::new(2);
static SERVICE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(30_000);
static MODEL_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(1024);
static DEVICE: GucSetting<i32> = GucSetting::<i32>::new(0);
static DEVICE_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(0);
static TENSORRT_FP16: GucSetting<bool> = GucSetting::<bool>::new(false);
static MAX_IMAGE_BYTES: GucSetting<i32> = GucSetting::<i32>::new(64 * 1024);
static MAX_IMAGE_PIXELS: GucSetting<i32> = GucSetting::<i32>::new(250);
static MAX_IMAGE_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(512 * 1024);
const DEFAULT_RECALL: f64 = 0.98;
static TARGET_RECALL: GucSetting<f64> = GucSetting::<f64>::new(DEFAULT_RECALL);
static PROBES: GucSetting<i32> = GucSetting::<i32>::new(0);
static ITERATIVE_SCAN: GucSetting<IterativeScan> = GucSetting::<IterativeScan>::new(IterativeScan::RelaxedOrder);
static BOUND_SCANS: GucSetting<bool> = GucSetting::<bool>::new(true);
static RERANK: GucSetting<bool> = GucSetting::<bool>::new(true);
static VERIFY_NEAREST: GucSetting<i32> = GucSetting::<i32>::new(50);
static SHARD_CONNECTIONS: GucSetting<bool> = GucSetting::<bool>::new(true);
static BUILD_THREADS: GucSetting<i32> = GucSetting::<i32>::new(0);
static QUEUE_DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static QUEUE_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(1);
static QUEUE_NAPTIME: GucSetting<i32> = GucSetting::<i32>::new(1000);
static QUEUE_BATCH: GucSetting<i32> = GucSetting::<i32>::new(32);
static QUEUE_ATTEMPTS: GucSetting<i32> = GucSetting::<i32>::new(6);
static QUEUE_RETRY_DELAY: GucSetting<i32> = GucSetting::<i32>::new(5000);
static QUEUE_TIME_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static QUEUE_MAX_STARTED: GucSetting<i32> = GucSetting::<i32>::new(2);
static RECORD_REFUSALS: GucSetting<bool> = GucSetting::<bool>::new(true);

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
        c"auto takes CUDA where the installed ONNX Runtime has it and a device answers, and falls back to the CPU with \
          one LOG line. The others fail when they cannot be had. copy_runtime() tells which one really runs.",
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
        c"Empty means copymatch/libonnxruntime.so beside copymatch.so, where `make install` puts it. Read when a \
          backend first embeds; later changes need a new connection.",
        &ONNXRUNTIME_LIBRARY,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    register_service_settings();
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
    register_index_settings();
    register_queue_settings();
    // PostgreSQL then refuses misspelt copymatch.* settings instead of keeping them as placeholders.
    // SAFETY: called from _PG_init with a constant, NUL-terminated prefix.
    unsafe {
        #[cfg(not(feature = "pg14"))]
        pgrx::pg_sys::MarkGUCPrefixReserved(c"copymatch".as_ptr());
        #[cfg(feature = "pg14")]
        pgrx::pg_sys::EmitWarningsOnPlaceholders(c"copymatch".as_ptr());
    }
}

/// The settings of the embedding service, and of the device that it or a session computes on.
fn register_service_settings() {
    // PostgreSQL makes settings of this kind only while it preloads libraries. Elsewhere nobody reads these two.
    // SAFETY: a variable that the postmaster sets.
    let preloading = unsafe { pgrx::pg_sys::process_shared_preload_libraries_in_progress };
    let at_start = || {
        if preloading {
            GucContext::Postmaster
        } else {
            GucContext::Sighup
        }
    };
    GucRegistry::define_bool_guc(
        c"copymatch.service",
        c"Embed through the server's embedding service.",
        c"It runs where copymatch is in shared_preload_libraries. off, or without it: each session loads the network \
          for itself. copymatch.service tells which path a session takes.",
        &SERVICE,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.service_slots",
        c"Images that may be at the embedding service at a time.",
        c"Each takes copymatch.service_slot_size of shared memory once it is used. Bulk work leaves a quarter of them \
          to others. Whoever finds none free waits for copymatch.service_timeout at most.",
        &SERVICE_SLOTS,
        4,
        4096,
        at_start(),
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.service_slot_size",
        c"Room for one image as the network takes it, in the embedding service's shared memory.",
        c"A model whose input is larger (width x height x 3, four bytes each where it takes floats) runs in the \
          sessions themselves.",
        &SERVICE_SLOT_SIZE,
        64,
        64 * 1024,
        at_start(),
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"copymatch.service_threads",
        c"Threads on which the embedding service runs networks on the CPU, an image each.",
        c"0, the default, takes as many as there are processors, eight at most. A change starts the service's process \
          anew.",
        &SERVICE_THREADS,
        0,
        256,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.service_batch",
        c"Most images that the embedding service runs together on a device.",
        c"As many as wait are run together, of all sessions. On the CPU each runs alone, which is no slower.",
        &SERVICE_BATCH,
        1,
        256,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.service_wait",
        c"Longest that an image waits at the embedding service for others to share its run.",
        c"Only while the device is busy with another run: an image that comes alone never waits.",
        &SERVICE_WAIT,
        0,
        1000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"copymatch.service_timeout",
        c"Longest that one run of the embedding service may take, and that a session waits for a free slot or for the \
          service to come back.",
        c"A run that takes longer is an error for those who wait for it, and the service's process is started anew.",
        &SERVICE_TIMEOUT,
        100,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"copymatch.model_memory",
        c"Memory that models may take in the embedding service.",
        c"Those least recently used give way to others; a session whose model was given up brings it again.",
        &MODEL_MEMORY,
        16,
        1024 * 1024,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_int_guc(
        c"copymatch.device",
        c"The number of the device that runs networks, where copymatch.execution_provider finds one.",
        c"As the provider counts them, from 0.",
        &DEVICE,
        0,
        255,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.device_memory",
        c"Memory of the device that a process of this server may take.",
        c"0, the default, sets no limit. With CUDA, for ONNX Runtime's arena; the driver's own share comes on top.",
        &DEVICE_MEMORY,
        0,
        1024 * 1024,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_bool_guc(
        c"copymatch.tensorrt_fp16",
        c"Whether TensorRT may compute networks in half precision.",
        c"A model whose descriptors then differ from its manifest's by more than that allows is refused.",
        &TENSORRT_FP16,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

/// The settings of the access method `ivf`.
fn register_index_settings() {
    GucRegistry::define_float_guc(
        c"copymatch.target_recall",
        c"The part of the ten nearest neighbours that a scan of an ivf index is to find.",
        c"From it and from what was measured when the index was built or last vacuumed follows how many lists are \
          probed. Higher finds more and takes longer. copy_index_stats shows what was measured.",
        &TARGET_RECALL,
        0.5,
        1.0,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.probes",
        c"Lists of an ivf index that a scan probes.",
        c"0, the default, chooses them by copymatch.target_recall. More than the index has means all of them.",
        &PROBES,
        0,
        1_000_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"copymatch.iterative_scan",
        c"What a scan of an ivf index does when more rows are asked for than the probed lists hold: off, relaxed_order \
          or strict_order.",
        c"A filter may leave too few rows for a LIMIT. relaxed_order probes further lists until there are enough; \
          their rows may be nearer than some given before. strict_order leaves such rows out. off ends the scan with \
          the probed lists.",
        &ITERATIVE_SCAN,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"copymatch.shard_connections",
        c"Ask shards by connections of the session's own, beside those of postgres_fdw.",
        c"One round trip for each search instead of five. Taken where the transaction is READ COMMITTED and has not \
          written to the shard; by the same user mapping, options and rules for passwords. off: always by way of \
          postgres_fdw.",
        &SHARD_CONNECTIONS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"copymatch.bound_scans",
        c"Let an ivf index find the rows within a distance for SELECTs that do not order by it.",
        c"WHERE d <=> q < t, and joins by such a condition, are planned on the index where few rows are expected, and \
          find as many of them as copymatch.target_recall asks for. off: only by comparing all rows, which misses \
          none.",
        &BOUND_SCANS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"copymatch.rerank",
        c"Order the rows that an ivf index finds by their exact distances.",
        c"Candidates are read from the table for it. off orders by the distances of the index's six-bit codes, which \
          are near but not exact, and reads only the rows that are returned.",
        &RERANK,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.verify_nearest",
        c"Nearest references whose pictures a verifying search compares with the query.",
        c"More find copies that the descriptor ranks low, at a fraction of a millisecond each. A search for more \
          references than this compares all of them.",
        &VERIFY_NEAREST,
        1,
        1000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.build_threads",
        c"Threads that build an ivf index.",
        c"0, the default, takes one more than max_parallel_maintenance_workers, but no more than there are cores.",
        &BUILD_THREADS,
        0,
        256,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// The settings of the queue of uploads and of its workers.
fn register_queue_settings() {
    GucRegistry::define_string_guc(
        c"copymatch.queue_databases",
        c"Databases, separated by commas, whose queues background workers work off.",
        c"Read at the server's start where copymatch is in shared_preload_libraries. Elsewhere copy_start_worker() \
          starts one, or CALL copy_process_queue() does the work.",
        &QUEUE_DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.queue_workers",
        c"Background workers for each database of copymatch.queue_databases.",
        c"Read at the server's start. Each takes one of max_worker_processes and runs the network on copymatch.threads \
          threads.",
        &QUEUE_WORKERS,
        0,
        64,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.queue_naptime",
        c"How long an idle queue worker waits before it looks again.",
        c"Where copymatch is in shared_preload_libraries, commits wake the workers at once; the time then matters for \
          retries alone.",
        &QUEUE_NAPTIME,
        10,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"copymatch.queue_batch",
        c"Uploads that a queue worker takes at a time and commits together.",
        c"More use the network better, and are repeated together after a crash.",
        &QUEUE_BATCH,
        1,
        1024,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.queue_attempts",
        c"Tries after which an upload in the queue is given up.",
        c"It then stays in copymatch.queue with state failed and its error, until copy_retry_queue() or a DELETE.",
        &QUEUE_ATTEMPTS,
        1,
        100,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"copymatch.queue_retry_delay",
        c"Time before an upload in the queue is tried a second time.",
        c"It doubles with each further try, up to an hour.",
        &QUEUE_RETRY_DELAY,
        1,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"copymatch.queue_time_limit",
        c"Time that one upload in the queue may take.",
        c"To be read, and to be embedded and matched. One that takes longer counts as a failed try, and the others of \
          its trigger wait for copymatch.queue_retry_delay, so that they do not stall other tables.",
        &QUEUE_TIME_LIMIT,
        10,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"copymatch.queue_max_started",
        c"Queue workers that copy_start_worker() may have running at a time, in all databases together.",
        c"Each takes one of max_worker_processes, which parallel queries and others need as well. Workers of \
          copymatch.queue_databases do not count.",
        &QUEUE_MAX_STARTED,
        0,
        64,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"copymatch.record_refusals",
        c"Record uploads that a flagging trigger with on_copy=reject refuses.",
        c"In copymatch.refusal, by a background worker of a few milliseconds, which takes one of max_worker_processes: \
          the row outlives the transaction that is rolled back. off: what is refused leaves no trace and cannot be \
          released.",
        &RECORD_REFUSALS,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// The databases of `copymatch.queue_databases`.
pub fn queue_databases() -> Vec<String> {
    let list = QUEUE_DATABASES.get().and_then(|list| list.into_string().ok());
    let names = list.and_then(|list| flagging::split_columns(&list));
    names.unwrap_or_default()
}

/// The setting of `copymatch.queue_workers`.
pub fn queue_workers() -> i32 {
    QUEUE_WORKERS.get()
}

/// The setting of `copymatch.queue_batch`.
pub fn queue_batch() -> i32 {
    QUEUE_BATCH.get()
}

/// The setting of `copymatch.queue_attempts`.
pub fn queue_attempts() -> i32 {
    QUEUE_ATTEMPTS.get()
}

/// The setting of `copymatch.queue_retry_delay`, in milliseconds.
pub fn queue_retry_delay() -> i32 {
    QUEUE_RETRY_DELAY.get()
}

/// The setting of `copymatch.queue_time_limit`, in milliseconds.
pub fn queue_time_limit() -> i32 {
    QUEUE_TIME_LIMIT.get()
}

/// The setting of `copymatch.queue_max_started`.
pub fn queue_max_started() -> i32 {
    QUEUE_MAX_STARTED.get()
}

/// The setting of `copymatch.record_refusals`.
pub fn record_refusals() -> bool {
    RECORD_REFUSALS.get()
}

/// The setting of `copymatch.queue_naptime`, in milliseconds.
pub fn queue_naptime() -> std::ffi::c_long {
    std::ffi::c_long::from(QUEUE_NAPTIME.get())
}

/// The setting of `copymatch.target_recall`.
pub fn target_recall() -> f32 {
    TARGET_RECALL.get() as f32
}

/// That, where it is not what it is by default: shards find as much, whose own setting counts otherwise.
pub fn said_recall() -> Option<f32> {
    let said = TARGET_RECALL.get();
    ((said - DEFAULT_RECALL).abs() > f64::EPSILON).then_some(said as f32)
}

/// The setting of `copymatch.probes`; none where it is left to `copymatch.target_recall`.
pub fn probes() -> Option<u32> {
    u32::try_from(PROBES.get()).ok().filter(|&probes| probes > 0)
}

/// The setting of `copymatch.iterative_scan`.
pub fn iterative_scan() -> IterativeScan {
    ITERATIVE_SCAN.get()
}

/// The setting of `copymatch.bound_scans`.
pub fn bound_scans() -> bool {
    BOUND_SCANS.get()
}

/// The setting of `copymatch.rerank`.
pub fn rerank() -> bool {
    RERANK.get()
}

/// `copymatch.shard_connections`.
pub fn shard_connections() -> bool {
    SHARD_CONNECTIONS.get()
}

/// The setting of `copymatch.verify_nearest`.
pub fn verify_nearest() -> usize {
    usize::try_from(VERIFY_NEAREST.get()).unwrap_or(1)
}

/// The setting of `copymatch.build_threads`: 0 where it is left to PostgreSQL's settings and the machine.
pub fn build_threads() -> usize {
    usize::try_from(BUILD_THREADS.get()).unwrap_or(0)
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

/// The setting of `copymatch.service`.
pub fn service() -> bool {
    SERVICE.get()
}

/// The setting of `copymatch.service_slots`.
pub fn service_slots() -> usize {
    usize::try_from(SERVICE_SLOTS.get()).unwrap_or(4)
}

/// The setting of `copymatch.service_slot_size`, in bytes.
pub fn service_slot_size() -> usize {
    usize::try_from(SERVICE_SLOT_SIZE.get()).unwrap_or(64) * 1024
}

/// The setting of `copymatch.service_threads`, or what it stands for.
pub fn service_threads() -> usize {
    match usize::try_from(SERVICE_THREADS.get()) {
        Ok(0) | Err(_) => std::thread::available_parallelism().map_or(1, |count| count.get().min(8)),
        Ok(threads) => threads,
    }
}

/// The setting of `copymatch.service_batch`.
pub fn service_batch() -> usize {
    usize::try_from(SERVICE_BATCH.get()).unwrap_or(1)
}

/// The setting of `copymatch.service_wait`.
pub fn service_wait() -> Duration {
    Duration::from_millis(u64::try_from(SERVICE_WAIT.get()).unwrap_or(0))
}

/// The setting of `copymatch.service_timeout`.
pub fn service_timeout() -> Duration {
    Duration::from_millis(u64::try_from(SERVICE_TIMEOUT.get()).unwrap_or(100))
}

/// The setting of `copymatch.model_memory`, in bytes.
pub fn model_memory() -> u64 {
    u64::try_from(MODEL_MEMORY.get()).unwrap_or(16) << 20
}

/// The setting of `copymatch.device`.
pub fn device() -> i32 {
    DEVICE.get()
}

/// The setting of `copymatch.tensorrt_fp16`.
pub fn tensorrt_fp16() -> bool {
    TENSORRT_FP16.get()
}

/// The setting of `copymatch.device_memory`, in bytes.
pub fn device_memory() -> usize {
    usize::try_from(DEVICE_MEMORY.get()).unwrap_or(0) << 20
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
        None => installation::file("libonnxruntime.so"),
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

/// The program that the embedding service runs networks in.
pub fn encoder_program() -> PathBuf {
    installation::file("copymatch-encoder")
}
