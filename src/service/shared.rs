//! The service's shared memory: a header, the slots, and each slot's room for a tensor or an answer.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use pgrx::prelude::*;
use service::{Histogram, ModelKey, Slot};

use crate::settings;
use crate::shared_memory::Area;

/// Models that the views can name at a time.
pub const MOST_NAMED: usize = 16;

/// Where the service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Standing {
    /// The supervisor has not begun yet, or has ended.
    Stopped = 0,
    /// The encoder's process is being started.
    Starting = 1,
    /// It answers.
    Running = 2,
    /// It has died, and is started again after a while.
    Failing = 3,
    /// Its program is not installed.
    Missing = 4,
    /// Switched off.
    Off = 5,
}

impl Standing {
    pub fn name(self) -> &'static str {
        match self {
            Standing::Stopped => "stopped",
            Standing::Starting => "starting",
            Standing::Running => "running",
            Standing::Failing => "failing",
            Standing::Missing => "missing",
            Standing::Off => "off",
        }
    }
}

/// A text that the supervisor writes and others read at any moment: one that changes meanwhile is read again.
#[repr(C)]
pub struct Text<const BYTES: usize> {
    version: AtomicU32,
    length: AtomicU32,
    bytes: [std::sync::atomic::AtomicU8; BYTES],
}

impl<const BYTES: usize> Text<BYTES> {
    pub fn set(&self, text: &str) {
        let text = &text[..text.floor_char_boundary(BYTES)];
        self.version.fetch_add(1, Ordering::AcqRel);
        std::sync::atomic::fence(Ordering::Release);
        self.length.store(text.len() as u32, Ordering::Relaxed);
        for (place, byte) in self.bytes.iter().zip(text.bytes()) {
            place.store(byte, Ordering::Relaxed);
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    /// None where there is nothing.
    pub fn get(&self) -> Option<String> {
        for _ in 0..100 {
            let before = self.version.load(Ordering::Acquire);
            let length = (self.length.load(Ordering::Relaxed) as usize).min(BYTES);
            let bytes: Vec<u8> = self.bytes[..length]
                .iter()
                .map(|byte| byte.load(Ordering::Relaxed))
                .collect();
            std::sync::atomic::fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                return String::from_utf8(bytes).ok().filter(|text| !text.is_empty());
            }
            std::thread::yield_now();
        }
        None
    }
}

/// A model that is loaded, for the views.
#[repr(C)]
pub struct NamedModel {
    /// 0 where there is none.
    pub bytes: AtomicU64,
    pub images: AtomicU64,
    pub name: Text<192>,
    pub provider: Text<32>,
    pub key: Text<64>,
}

/// Counters since the server's start.
#[repr(C)]
pub struct Counters {
    pub images: AtomicU64,
    pub batches: AtomicU64,
    pub bulk_images: AtomicU64,
    pub abandoned: AtomicU64,
    pub crashed: AtomicU64,
    pub timed_out: AtomicU64,
    pub unavailable: AtomicU64,
    pub failed: AtomicU64,
    pub queue_full: AtomicU64,
    pub smaller_batches: AtomicU64,
    pub models_loaded: AtomicU64,
    pub models_evicted: AtomicU64,
    pub waited: Histogram,
    pub ran: Histogram,
}

#[repr(C)]
pub struct Header {
    pub latch: AtomicPtr<pg_sys::Latch>,
    pub supervisor: AtomicI32,
    pub encoder: AtomicI32,
    pub standing: AtomicU32,
    pub lanes: AtomicU32,
    pub waiting: AtomicU32,
    pub running: AtomicU32,
    /// Sessions that wait for a free slot.
    pub without_slot: AtomicU32,
    /// Of the encoder's process: PostgreSQL's time of its start, and how often one was started again.
    pub started: AtomicI64,
    pub restarts: AtomicU64,
    /// Bytes of the device's memory in use and in all, as of the last model that was loaded or
    /// given up; 0 without a device.
    pub device_used: AtomicU64,
    pub device_total: AtomicU64,
    pub library: Text<1024>,
    pub requested: Text<32>,
    pub provider: Text<32>,
    pub fallback: Text<512>,
    pub version: Text<32>,
    pub trouble: Text<512>,
    pub counters: Counters,
    pub models: [NamedModel; MOST_NAMED],
}

/// What a session asks the service for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// To run a model on the tensor in the slot's room.
    Run = 0,
    /// To keep a part of a model that the service does not have; after the last one, to load it.
    Bring = 1,
}

/// A request: written by the session while it fills the slot, read by the supervisor once it has taken it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Asked {
    pub kind: Kind,
    pub bulk: bool,
    pub model: ModelKey,
    pub shape: [u32; 3],
    pub bytes: u32,
    pub pid: i32,
    /// Of a model that is brought: bytes of its parts, and where this one begins.
    pub manifest: u64,
    pub weights: u64,
    pub offset: u64,
    pub arrived: Duration,
    pub latch: *mut pg_sys::Latch,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// So many numbers lie in the slot's room.
    Output = 0,
    /// The part of the model is kept, or the model loaded.
    Brought = 1,
    UnknownModel = 2,
    Crashed = 3,
    TimedOut = 4,
    Unavailable = 5,
    Failed = 6,
    OutOfMemory = 7,
}

/// An answer: written by the supervisor before it finishes the slot. Message and hint lie in the slot's room.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Answered {
    pub outcome: Outcome,
    pub values: u32,
    pub message: u32,
    pub hint: u32,
}

#[repr(C)]
pub struct Place {
    pub slot: Slot,
    pub asked: UnsafeCell<Asked>,
    pub answered: UnsafeCell<Answered>,
}

/// The shared memory, as one process sees it.
#[derive(Clone, Copy)]
pub struct Shared {
    pub header: &'static Header,
    pub places: &'static [Place],
    rooms: *mut u8,
    room: usize,
}

impl Shared {
    /// Bytes of each slot's room.
    pub fn room_bytes(&self) -> usize {
        self.room
    }

    /// A slot's room.
    ///
    /// # Safety
    /// The slot is the caller's by its state, and the slice ends before the caller gives it away.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn room(&self, slot: usize) -> &mut [u8] {
        assert!(slot < self.places.len());
        // SAFETY: the rooms are as many as the slots, and lie in shared memory for as long as the server runs.
        unsafe { std::slice::from_raw_parts_mut(self.rooms.add(slot * self.room), self.room) }
    }

    pub fn standing(&self) -> Standing {
        match self.header.standing.load(Ordering::Acquire) {
            1 => Standing::Starting,
            2 => Standing::Running,
            3 => Standing::Failing,
            4 => Standing::Missing,
            5 => Standing::Off,
            _ => Standing::Stopped,
        }
    }

    /// Wakes the supervisor.
    pub fn wake(&self) {
        let latch = self.header.latch.load(Ordering::Acquire);
        if !latch.is_null() {
            // SAFETY: the latch of a PGPROC, which stays in shared memory; who has it by now wakes for nothing.
            unsafe { pg_sys::SetLatch(latch) };
        }
    }
}

/// The time that requests and the supervisor agree on: since the machine's start.
pub fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is valid for writes.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// Zero is a valid state of every part that is read before it is written; rooms are written before they are read.
pub static AREA: Area = Area::new(
    c"copymatch embedding service",
    || sizes().all + ROOMS_ALIGNMENT,
    || sizes().rooms + ROOMS_ALIGNMENT,
);

const ROOMS_ALIGNMENT: usize = 4096;

struct Sizes {
    places: usize,
    rooms: usize,
    all: usize,
}

/// Offsets of the parts. The settings do not change while the server runs.
fn sizes() -> Sizes {
    let slots = settings::service_slots();
    let places = size_of::<Header>().next_multiple_of(64);
    let rooms = (places + slots * size_of::<Place>()).next_multiple_of(ROOMS_ALIGNMENT);
    Sizes {
        places,
        rooms,
        all: rooms + slots * settings::service_slot_size(),
    }
}

/// The service's memory; None where the server did not preload the library.
pub fn shared() -> Option<Shared> {
    let start = AREA.start()?.as_ptr();
    let sizes = sizes();
    // SAFETY: an area of these sizes, with room for the alignment; it lives as long as the server. Plain fields are
    // behind UnsafeCell.
    unsafe {
        let start = start.add(start.align_offset(ROOMS_ALIGNMENT));
        Some(Shared {
            header: &*start.cast::<Header>(),
            places: std::slice::from_raw_parts(start.add(sizes.places).cast::<Place>(), settings::service_slots()),
            rooms: start.add(sizes.rooms),
            room: settings::service_slot_size(),
        })
    }
}

/// What runs the default model in the service, and why not what was wished for.
pub fn running_provider() -> Option<(String, Option<String>, Option<String>)> {
    let header = shared()?.header;
    Some((header.provider.get()?, header.fallback.get(), header.version.get()))
}
