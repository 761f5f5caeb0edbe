//! A session's side: it claims a slot, writes a tensor into it, and waits on its latch for the answer.

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use encoder::Preparation;
use imaging::Image;
use pgrx::prelude::*;
use service::{Freed, ModelKey, State};

use super::shared::{Answered, Asked, Kind, Outcome, Shared, Standing, now, shared};
use crate::failure::Failure;
use crate::interrupts::should_stop;
use crate::settings::{self, ExecutionProvider};

/// Longest nap while a session waits: what it waits for wakes it.
const NAP: Duration = Duration::from_millis(1000);
/// How often a session looks for a free slot where there is none.
const LOOK: Duration = Duration::from_millis(3);
/// How long a session waits for a supervisor that has not begun, before it does without.
const BEGINNING: Duration = Duration::from_secs(3);
/// Slots that one session may have at a time.
const MOST_IN_FLIGHT: usize = 16;

/// Which way a session's images go.
pub enum Path {
    /// Through the service.
    Service(Shared),
    /// Through a network of the session's own. Why.
    Own(String),
}

thread_local! {
    /// The slots that this process has claimed.
    static CLAIMED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static CALLBACK: Cell<bool> = const { Cell::new(false) };
    static GAVE_UP: Cell<bool> = const { Cell::new(false) };
}

/// Which way this session's images go now.
pub fn path() -> Path {
    let own = |reason: &str| Path::Own(reason.to_owned());
    let Some(shared) = shared() else {
        return own("copymatch is not in shared_preload_libraries");
    };
    if !settings::service() {
        return own("copymatch.service is off");
    }
    match shared.standing() {
        Standing::Off => return own("copymatch.service is off for the server"),
        Standing::Missing => return own("the program of the service is not installed"),
        Standing::Stopped if GAVE_UP.get() => return own(NOBODY),
        _ => {}
    }
    let header = shared.header;
    if let Some(library) = header.library.get()
        && library != settings::onnxruntime_library().to_string_lossy()
    {
        return own("copymatch.onnxruntime_library differs from the service's");
    }
    let (requested, provider) = (header.requested.get(), header.provider.get());
    let serves = |name: &str| [&requested, &provider].iter().any(|text| text.as_deref() == Some(name));
    let served = match settings::execution_provider() {
        ExecutionProvider::Auto => true,
        ExecutionProvider::Cpu => requested.is_none() || serves("cpu"),
        ExecutionProvider::Cuda => serves("cuda"),
        ExecutionProvider::TensorRt => serves("tensorrt"),
    };
    if served {
        Path::Service(shared)
    } else {
        own("copymatch.execution_provider differs from the service's")
    }
}

const NOBODY: &str = "the service's supervisor does not run (max_worker_processes may be too few)";

/// Whether the supervisor has begun, after a while for it to begin. It has not where the server had
/// no background worker left.
pub fn has_begun(shared: &Shared) -> Result<bool, Failure> {
    let started = Instant::now();
    while shared.standing() == Standing::Stopped {
        if GAVE_UP.get() || started.elapsed() >= BEGINNING {
            GAVE_UP.set(true);
            return Ok(false);
        }
        nap(LOOK * 10)?;
    }
    GAVE_UP.set(false);
    Ok(true)
}

/// What a session embeds with: one model, one urgency.
pub struct Job {
    pub shared: Shared,
    pub model: ModelKey,
    pub bulk: bool,
}

/// A slot that this session has claimed. Dropped, it is free, or will be.
pub struct Submitted {
    shared: Shared,
    slot: usize,
}

impl Drop for Submitted {
    fn drop(&mut self) {
        CLAIMED.with_borrow_mut(|claimed| claimed.retain(|&slot| slot != self.slot));
        give_up(&self.shared, self.slot);
    }
}

fn give_up(shared: &Shared, slot: usize) {
    if shared.places[slot].slot.release() == Freed::Later {
        shared.wake();
    }
}

/// At the end of the process, also where it ends in the midst of a wait.
#[pg_guard]
unsafe extern "C-unwind" fn give_up_all(_code: std::ffi::c_int, _argument: pg_sys::Datum) {
    if let Some(shared) = shared() {
        for slot in CLAIMED.take() {
            give_up(&shared, slot);
        }
    }
}

/// Claims a free slot; None where there is none. Bulk work leaves a quarter of the slots to others.
fn claim(shared: Shared, bulk: bool) -> Option<Submitted> {
    if !CALLBACK.replace(true) {
        // SAFETY: the callback lives as long as the library.
        unsafe { pg_sys::before_shmem_exit(Some(give_up_all), pg_sys::Datum::from(0usize)) };
    }
    let first = if bulk { shared.places.len() / 4 } else { 0 };
    // Nothing between claiming and noting it can raise an error: it is given up in any case.
    let slot = (first..shared.places.len()).find(|&slot| shared.places[slot].slot.claim())?;
    CLAIMED.with_borrow_mut(|claimed| claimed.push(slot));
    Some(Submitted { shared, slot })
}

/// As [`claim`], waiting for a slot for a while.
fn claim_patiently(shared: Shared, bulk: bool) -> Result<Submitted, Failure> {
    if let Some(claimed) = claim(shared, bulk) {
        return Ok(claimed);
    }
    let waiting = Waiting::new(&shared);
    let started = Instant::now();
    loop {
        if let Some(claimed) = claim(shared, bulk) {
            return Ok(claimed);
        }
        if started.elapsed() >= settings::service_timeout() {
            waiting
                .shared
                .header
                .counters
                .queue_full
                .fetch_add(1, Ordering::Relaxed);
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                format!(
                    "no slot of the embedding service was free for {} ms",
                    settings::service_timeout().as_millis()
                ),
            )
            .detail(format!(
                "All of its {} slots are in use; copymatch.service_stats shows the load.",
                shared.places.len()
            ))
            .hint("Try again later; or raise copymatch.service_slots (a restart), or copymatch.service_timeout."));
        }
        nap(LOOK)?;
    }
}

/// Counts a session that waits for a slot, while it lives.
struct Waiting<'a> {
    shared: &'a Shared,
}

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.header.without_slot.fetch_add(1, Ordering::Relaxed);
        Waiting { shared }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.header.without_slot.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits on this process's latch, and does what PostgreSQL asks for.
fn nap(time: Duration) -> Result<(), Failure> {
    let stop = || {
        if should_stop() {
            Err(Failure::stopped("embedding was cancelled"))
        } else {
            Ok(())
        }
    };
    stop()?;
    let milliseconds = time.as_millis().max(1) as std::ffi::c_long;
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: this process's latch. Whoever calls looks again at what it waits for.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, milliseconds, wait_event());
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    stop()
}

/// What pg_stat_activity shows meanwhile: CopymatchService from 17 on, Extension before.
fn wait_event() -> u32 {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    {
        thread_local! {
            static EVENT: Cell<u32> = const { Cell::new(0) };
        }
        if EVENT.get() == 0 {
            // SAFETY: a NUL-terminated name; a name that is known already gives its number.
            EVENT.set(unsafe { pg_sys::WaitEventExtensionNew(c"CopymatchService".as_ptr()) });
        }
        EVENT.get()
    }
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    pg_sys::PG_WAIT_EXTENSION
}

/// Slots that a job may have under way.
pub fn most_in_flight(shared: &Shared) -> usize {
    (shared.places.len() / 4).clamp(1, MOST_IN_FLIGHT)
}

impl Job {
    /// Sends an image at one of the model's sizes; None where no slot is free now and `patient` is false.
    pub fn submit(
        &self,
        preparation: &Preparation,
        image: &Image,
        size: u32,
        patient: bool,
    ) -> Result<Option<Submitted>, Failure> {
        let claimed = if patient {
            Some(claim_patiently(self.shared, self.bulk)?)
        } else {
            claim(self.shared, self.bulk)
        };
        let Some(submitted) = claimed else { return Ok(None) };
        let shape = preparation.shape(image, size);
        let bytes = preparation.bytes(shape);
        // SAFETY: claimed: the room is this session's until it submits.
        let room = unsafe { self.shared.room(submitted.slot) };
        let room = room.get_mut(..bytes).ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                "the network's input does not fit into a slot of the embedding service",
            )
            .hint("Raise copymatch.service_slot_size.")
        })?;
        preparation.write(image, size, room).map_err(Failure::from)?;
        submitted.send(Asked {
            kind: Kind::Run,
            bulk: self.bulk,
            model: self.model,
            shape: shape.map(|side| side as u32),
            bytes: bytes as u32,
            manifest: 0,
            weights: 0,
            offset: 0,
            // SAFETY: variables of this process.
            pid: unsafe { pg_sys::MyProcPid },
            arrived: now(),
            // SAFETY: as above.
            latch: unsafe { pg_sys::MyLatch },
        });
        Ok(Some(submitted))
    }
}

/// What became of a request.
pub enum Answer {
    /// The network's raw output.
    Output(Vec<f32>),
    /// What was brought is there.
    Brought,
    /// The service does not have the model: it is to be brought, and the request sent again.
    UnknownModel,
}

impl Submitted {
    fn send(&self, asked: Asked) {
        let place = &self.shared.places[self.slot];
        // SAFETY: claimed, so the request is this session's to write.
        unsafe { *place.asked.get() = asked };
        place.slot.submit();
        self.shared.wake();
    }

    /// Sends the same request once more, after its answer.
    pub fn send_again(&self) {
        let place = &self.shared.places[self.slot];
        if place.slot.reopen() && place.slot.submit() {
            self.shared.wake();
        }
    }

    /// Waits for the answer.
    pub fn wait(&self) -> Result<Answer, Failure> {
        let place = &self.shared.places[self.slot];
        let mut alone_since = None;
        while place.slot.state() != State::Done {
            nap(NAP)?;
            // The supervisor answers everything, unless it is not there.
            if self.shared.standing() == Standing::Off {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_CANNOT_CONNECT_NOW,
                    "the embedding service was switched off meanwhile",
                )
                .hint("Run it again: this session then loads the network for itself."));
            }
            if self.shared.standing() != Standing::Stopped {
                alone_since = None;
            } else if alone_since.get_or_insert_with(Instant::now).elapsed() >= settings::service_timeout() {
                return Err(unavailable("its supervisor does not run"));
            }
        }
        // SAFETY: done: answer and room are this session's.
        let (answered, room) = unsafe { (*place.answered.get(), self.shared.room(self.slot)) };
        self.read(answered, room)
    }

    fn read(&self, answered: Answered, room: &[u8]) -> Result<Answer, Failure> {
        let text = |from: u32, bytes: u32| {
            let part = room
                .get(from as usize..from as usize + bytes as usize)
                .unwrap_or_default();
            String::from_utf8_lossy(part).into_owned()
        };
        let message = text(0, answered.message);
        let hint = text(answered.message, answered.hint);
        let external = |message: String| Failure::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, message);
        match answered.outcome {
            Outcome::Output => {
                let bytes = room.get(..answered.values as usize * size_of::<f32>()).unwrap_or_default();
                let values = bytes.chunks_exact(4).map(|four| f32::from_ne_bytes([four[0], four[1], four[2], four[3]]));
                Ok(Answer::Output(values.collect()))
            }
            Outcome::Brought => Ok(Answer::Brought),
            Outcome::UnknownModel => Ok(Answer::UnknownModel),
            Outcome::Crashed => Err(external("the embedding service's process died twice at this request".to_owned())
                .detail(message)
                .hint("The server log says when. Other requests are not affected; please report an image that does it \
                       again.")),
            Outcome::TimedOut => Err(external(format!(
                "the network did not answer within {} ms",
                settings::service_timeout().as_millis()
            ))
            .hint("The service's process was started anew. copymatch.service_timeout is the limit.")),
            Outcome::Unavailable => Err(unavailable(&message)),
            Outcome::Failed => Err(external(message).hint(hint)),
            Outcome::OutOfMemory => {
                Err(Failure::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, message).hint(hint))
            }
        }
    }
}

fn unavailable(why: &str) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_CANNOT_CONNECT_NOW,
        format!(
            "the embedding service was not to be had for {} ms",
            settings::service_timeout().as_millis()
        ),
    )
    .detail(why)
    .hint(
        "SELECT * FROM copymatch.service; the server log says more. \
         SET copymatch.service = off (superusers) embeds without it.",
    )
}

/// Brings a model to the service, piece by piece, and waits until it is loaded: checked against
/// its manifest as everywhere.
pub fn bring(shared: Shared, manifest: &str, weights: &[u8]) -> Result<(), Failure> {
    let model = ModelKey::of_manifest(manifest);
    let total = manifest.len() + weights.len();
    let mut offset = 0;
    while offset < total {
        let piece = claim_patiently(shared, false)?;
        // SAFETY: claimed.
        let room = unsafe { shared.room(piece.slot) };
        let bytes = room.len().min(total - offset);
        for (place, byte) in room[..bytes]
            .iter_mut()
            .zip(manifest.as_bytes().iter().chain(weights).skip(offset))
        {
            *place = *byte;
        }
        piece.send(Asked {
            kind: Kind::Bring,
            bulk: false,
            model,
            shape: [0; 3],
            bytes: bytes as u32,
            manifest: manifest.len() as u64,
            weights: weights.len() as u64,
            offset: offset as u64,
            // SAFETY: variables of this process.
            pid: unsafe { pg_sys::MyProcPid },
            arrived: now(),
            // SAFETY: as above.
            latch: unsafe { pg_sys::MyLatch },
        });
        piece.wait()?;
        offset += bytes;
    }
    Ok(())
}
