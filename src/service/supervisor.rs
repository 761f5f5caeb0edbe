//! The supervisor: a background worker that owns the encoder's process. It takes requests out of the slots
//! (requests.rs), lets the engine say what runs, hands it to the process and answers (actions.rs), and hears what the
//! process says (reports.rs). It runs no network itself, and connects to no database.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgrx::PgTryBuilder;
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::prelude::*;
use service::wire::{self, Mapping};
use service::{Engine, Limits, ModelKey, Ticket};

use super::child::{self, Encoder};
use super::shared::{Shared, Standing, now, shared};
use crate::background::{self, OnTerminate};
use crate::embed::built_in;
use crate::settings;

const KIND: &str = "copymatch embedding service";
/// How long after its own end the supervisor is started again.
const RESTART: Duration = Duration::from_secs(1);
/// How long a process that has died is left alone: not at all, then, while it dies before it has run anything, from
/// SHORTEST_REST to LONGEST_REST.
pub(super) const FIRST_REST: Duration = Duration::ZERO;
const SHORTEST_REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(10);
/// A process that lived for so long has nothing to do with the last one's death.
const LIVED: Duration = Duration::from_secs(10);
/// How often a missing program is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Longest nap.
const NAP: Duration = Duration::from_secs(10);

/// Registers the supervisor. Called from _PG_init while the postmaster preloads libraries.
pub fn register() {
    // Before recovery is done, so that a standby and a server in crash recovery have it, too: it reads no data.
    BackgroundWorkerBuilder::new(KIND)
        .set_type(KIND)
        .set_library("copymatch")
        .set_function("copymatch_embedding_service")
        .enable_shmem_access(None)
        .set_start_time(BgWorkerStartTime::PostmasterStart)
        .set_restart_time(Some(RESTART))
        .load();
}

/// The supervisor's process.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn copymatch_embedding_service(_argument: pg_sys::Datum) {
    background::take_signals(OnTerminate::Finish);
    let Some(shared) = shared() else { return };
    // SAFETY: the callback lives as long as the library; this process is attached to shared memory.
    unsafe { pg_sys::before_shmem_exit(Some(farewell), pg_sys::Datum::from(0usize)) };
    let mut supervisor = Supervisor::new(shared);
    PgTryBuilder::new(AssertUnwindSafe(|| supervisor.work())).execute();
    // The process ends with what is dropped here, or with this one by PR_SET_PDEATHSIG.
    supervisor.end_encoder("the supervisor ends");
    // SAFETY: ends this process as every PostgreSQL process ends; with 1 it is started again,
    // unless the server shuts down.
    unsafe { pg_sys::proc_exit(1) };
}

/// Sessions find that nobody is there until the next supervisor has begun.
#[pg_guard]
unsafe extern "C-unwind" fn farewell(_code: std::ffi::c_int, _argument: pg_sys::Datum) {
    if let Some(shared) = shared() {
        shared.header.latch.store(std::ptr::null_mut(), Ordering::Release);
        shared
            .header
            .standing
            .store(Standing::Stopped as u32, Ordering::Release);
        shared.header.supervisor.store(0, Ordering::Release);
        shared.header.encoder.store(0, Ordering::Release);
    }
}

/// A model whose bytes the supervisor holds, in a file in memory that the encoder's process maps.
pub(super) struct HeldModel {
    pub(super) file: OwnedFd,
    pub(super) manifest: usize,
    pub(super) weights: usize,
    pub(super) verified: bool,
}

/// A model that a session is bringing, piece by piece.
pub(super) struct Brought {
    pub(super) pid: i32,
    pub(super) model: ModelKey,
    pub(super) file: OwnedFd,
    pub(super) mapping: Mapping,
    pub(super) manifest: usize,
    pub(super) weights: usize,
    pub(super) received: usize,
}

pub(super) struct Supervisor {
    pub(super) shared: Shared,
    pub(super) engine: Engine,
    pub(super) limits: Limits,
    pub(super) encoder: Option<Encoder>,
    /// What the process was started with; another setting starts it anew.
    pub(super) started_with: Option<(usize, usize, String)>,
    pub(super) started: Duration,
    pub(super) next_start: Duration,
    pub(super) rest: Duration,
    pub(super) held: HashMap<ModelKey, HeldModel>,
    pub(super) brought: Vec<Brought>,
    pub(super) fallback_said: bool,
    pub(super) regions: usize,
}

fn limits() -> Limits {
    Limits {
        batch: settings::service_batch(),
        cpu_batch: 1,
        wait: settings::service_wait(),
        timeout: settings::service_timeout(),
        model_memory: settings::model_memory(),
        region: child::region_bytes(),
    }
}

impl Supervisor {
    fn new(shared: Shared) -> Self {
        let header = shared.header;
        // What an earlier supervisor had taken. It is dead: PostgreSQL has reaped it before it started this one.
        for place in shared.places {
            place.slot.recover();
        }
        // SAFETY: variables of this process.
        let (pid, latch) = unsafe { (pg_sys::MyProcPid, &raw mut (*pg_sys::MyProc).procLatch) };
        header.supervisor.store(pid, Ordering::Release);
        header.latch.store(latch, Ordering::Release);
        header.standing.store(Standing::Starting as u32, Ordering::Release);
        header.library.set(&settings::onnxruntime_library().to_string_lossy());
        for model in &header.models {
            model.bytes.store(0, Ordering::Relaxed);
        }
        let limits = limits();
        let mut supervisor = Supervisor {
            shared,
            engine: Engine::new(limits, child::regions(), now()),
            limits,
            encoder: None,
            started_with: None,
            started: Duration::ZERO,
            next_start: Duration::ZERO,
            rest: FIRST_REST,
            held: HashMap::new(),
            brought: Vec::new(),
            fallback_said: false,
            regions: child::regions(),
        };
        supervisor.hold_built_in();
        supervisor
    }

    fn hold_built_in(&mut self) {
        let (manifest, weights) = built_in();
        let key = ModelKey::of_manifest(manifest);
        match model_file(manifest.len() + weights.len()) {
            Ok((file, mapping)) => {
                // SAFETY: nobody else has the file yet.
                let bytes = unsafe { mapping.part_mut(0, manifest.len() + weights.len()) };
                bytes[..manifest.len()].copy_from_slice(manifest.as_bytes());
                bytes[manifest.len()..].copy_from_slice(weights);
                let held = HeldModel {
                    file,
                    manifest: manifest.len(),
                    weights: weights.len(),
                    verified: true,
                };
                self.held.insert(key, held);
                self.engine.hold_permanent(key, weights.len() as u64, now());
            }
            Err(error) => {
                pgrx::warning!("copymatch: the embedding service has no memory for the built-in model: {error}")
            }
        }
    }

    /// Until the server stops.
    fn work(&mut self) {
        while !background::stopped() {
            self.reload();
            self.keep_encoder();
            self.take_requests();
            self.drop_abandoned();
            self.take_reports();
            let actions = self.engine.tick(now());
            self.apply(actions);
            self.show();
            self.nap();
        }
    }

    fn reload(&mut self) {
        if !background::reload_configuration() {
            return;
        }
        let changed = self
            .started_with
            .as_ref()
            .is_some_and(|with| *with != process_settings());
        if self.encoder.is_some() && (changed || !settings::service()) {
            self.lose_encoder("other settings", false);
        }
        self.limits = limits();
        self.engine.set_limits(self.limits);
    }

    /// Starts the process where there is none and it is time for one.
    fn keep_encoder(&mut self) {
        let header = self.shared.header;
        let standing = |standing: Standing| header.standing.store(standing as u32, Ordering::Release);
        if !settings::service() {
            standing(Standing::Off);
            return;
        }
        if self.encoder.is_some() || now() < self.next_start {
            return;
        }
        if child::regions() != self.regions {
            // Nothing is running without a process: what waits is admitted again.
            self.begin_anew();
        }
        match Encoder::start() {
            Ok(encoder) => {
                header.encoder.store(encoder.pid(), Ordering::Release);
                header.library.set(&settings::onnxruntime_library().to_string_lossy());
                header
                    .requested
                    .set(encoder::Provider::from(settings::execution_provider()).name());
                header
                    .lanes
                    .store(settings::service_threads() as u32, Ordering::Relaxed);
                // SAFETY: reads the clock.
                header
                    .started
                    .store(unsafe { pg_sys::GetCurrentTimestamp() }, Ordering::Relaxed);
                pgrx::log!("copymatch: embedding service: process {} started", encoder.pid());
                if self.rest == FIRST_REST {
                    standing(Standing::Starting);
                }
                self.started_with = Some(process_settings());
                self.started = now();
                self.encoder = Some(encoder);
            }
            Err(error) => {
                let program = settings::encoder_program();
                let why = format!("{} cannot be started: {error}", program.display());
                if header.trouble.get().as_deref() != Some(&why) {
                    pgrx::warning!("copymatch: embedding service: {why}");
                }
                header.trouble.set(&why);
                self.next_start = now() + LOOK_AGAIN;
                let actions = self.engine.died(&why, now());
                self.apply(actions);
                if program.exists() {
                    standing(Standing::Failing);
                } else {
                    standing(Standing::Missing);
                }
            }
        }
    }

    /// Another number of threads: an engine with as many regions.
    fn begin_anew(&mut self) {
        self.regions = child::regions();
        let tickets: Vec<Ticket> = self.engine.tickets().collect();
        self.engine = Engine::new(self.limits, self.regions, now());
        self.held.clear();
        self.brought.clear();
        self.hold_built_in();
        for ticket in tickets {
            // To READY or FREE, as after a supervisor's death.
            self.shared.places[ticket].slot.recover();
        }
    }

    fn end_encoder(&mut self, why: &str) {
        if let Some(encoder) = self.encoder.take() {
            let pid = encoder.pid();
            let how = encoder.end();
            pgrx::log!("copymatch: embedding service: process {pid} ended ({why}; {how})");
            self.shared.header.encoder.store(0, Ordering::Release);
        }
    }

    /// The process is gone, or is to go.
    pub(super) fn lose_encoder(&mut self, why: &str, failed: bool) {
        let Some(encoder) = self.encoder.take() else { return };
        let header = self.shared.header;
        let pid = encoder.pid();
        let how = encoder.end();
        header.encoder.store(0, Ordering::Release);
        for model in &header.models {
            model.bytes.store(0, Ordering::Relaxed);
        }
        let why = if why.is_empty() { how } else { format!("{why}; {how}") };
        if failed {
            header.trouble.set(&why);
            header.restarts.fetch_add(1, Ordering::Relaxed);
            pgrx::warning!("copymatch: embedding service: process {pid} is gone ({why}); it is started again");
            let lived = now().saturating_sub(self.started);
            if lived >= LIVED {
                self.rest = FIRST_REST;
            }
            header.standing.store(
                if self.rest == FIRST_REST {
                    Standing::Starting
                } else {
                    Standing::Failing
                } as u32,
                Ordering::Release,
            );
            self.next_start = now() + self.rest;
            self.rest = (self.rest * 2).clamp(SHORTEST_REST, LONGEST_REST);
        } else {
            pgrx::log!("copymatch: embedding service: process {pid} ended ({why})");
            self.next_start = now();
        }
        let actions = self.engine.died(&why, now());
        self.apply(actions);
    }

    fn show(&self) {
        let header = self.shared.header;
        header.waiting.store(self.engine.waiting() as u32, Ordering::Relaxed);
        header.running.store(self.engine.running() as u32, Ordering::Relaxed);
    }

    fn nap(&self) {
        let time = now();
        let mut until = self.engine.next_tick(time).unwrap_or(time + NAP);
        if self.encoder.is_none() && settings::service() {
            until = until.min(self.next_start);
        }
        let nap = until.saturating_sub(time).min(NAP);
        // Rounded up, or the last millisecond would be spent in a busy loop.
        let milliseconds = nap.as_micros().div_ceil(1000) as std::ffi::c_long;
        let socket = self.encoder.as_ref().map_or(pg_sys::PGINVALID_SOCKET, Encoder::socket);
        let readable = if self.encoder.is_some() {
            pg_sys::WL_SOCKET_READABLE
        } else {
            0
        };
        let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH | readable;
        // SAFETY: this process's latch and a socket of its own. The latch is reset before the slots are looked at, so
        // no request is overlooked.
        unsafe {
            pg_sys::WaitLatchOrSocket(
                pg_sys::MyLatch,
                events as i32,
                socket,
                milliseconds,
                pg_sys::PG_WAIT_EXTENSION,
            );
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
        check_interrupts();
    }
}

/// CHECK_FOR_INTERRUPTS, for what PostgreSQL asks of every process, such as to take part in a barrier.
fn check_interrupts() {
    pgrx::check_for_interrupts!();
}

/// What a change of starts the process anew.
fn process_settings() -> (usize, usize, String) {
    let text = format!(
        "{} {:?} {} {} {}",
        settings::onnxruntime_library().display(),
        settings::execution_provider(),
        settings::device(),
        settings::device_memory(),
        settings::tensorrt_fp16()
    );
    (settings::service_threads(), settings::service_batch(), text)
}

pub(super) fn model_file(bytes: usize) -> std::io::Result<(OwnedFd, Mapping)> {
    let file = wire::memory_file(c"copymatch model", bytes)?;
    let mapping = Mapping::new(file.as_raw_fd(), bytes, true)?;
    Ok((file, mapping))
}
