//! What supervisor and encoder's process tell each other: one frame a packet of a Unix socket (SOCK_SEQPACKET), JSON.
//!
//! Tensors and outputs do not travel in frames. They lie in two files without a name (memfd), of one part for each run
//! that may be under way: the encoder maps the inputs for reading only, and the outputs. A model travels as such a
//! file, too: its descriptor comes with the frame.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::RunId;
use crate::model::ModelKey;

/// Longest frame.
pub const MOST_BYTES: usize = 16 * 1024;
/// Longest text in a frame.
const MOST_TEXT: usize = 2000;

/// The descriptors that the encoder's process finds open, beside the standard ones: the
/// socket, the inputs, the outputs.
pub const SOCKET: RawFd = 3;
/// See [`SOCKET`].
pub const INPUTS: RawFd = 4;
/// See [`SOCKET`].
pub const OUTPUTS: RawFd = 5;

/// What the encoder's process is told when it is started, as its one argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// Path of ONNX Runtime's library.
    pub library: String,
    /// `auto`, `cpu`, `cuda` or `tensorrt`.
    pub provider: String,
    /// Threads that each run networks on the CPU.
    pub lanes: usize,
    /// Which device.
    pub device: i32,
    /// Bytes of its memory that may be taken; 0: as many as there are.
    pub device_memory: usize,
    /// Whether TensorRT may compute in half precision.
    pub fp16: bool,
    /// Runs under way at a time.
    pub regions: usize,
    /// Bytes of a run's input.
    pub input: usize,
    /// Bytes of a run's output.
    pub output: usize,
    /// The supervisor's process.
    pub supervisor: i32,
}

/// To the encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Load a model. The frame brings a file: the manifest's text, then the weights.
    Load {
        /// What it is to be known by.
        model: ModelKey,
        /// Bytes of the manifest.
        manifest: usize,
        /// Bytes of the weights.
        weights: usize,
        /// Whether the hash of the weights was compared with the manifest's before.
        verified: bool,
    },
    /// Give a model's memory back.
    Unload {
        /// Which.
        model: ModelKey,
    },
    /// Run a model.
    Run {
        /// Number, for the answer.
        run: RunId,
        /// Part of the inputs and of the outputs.
        region: usize,
        /// Which model.
        model: ModelKey,
        /// Of the tensor; the first is the number of images.
        shape: [usize; 4],
        /// Its bytes.
        bytes: usize,
    },
}

/// From the encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// The process is there.
    Started,
    /// A model is loaded.
    Loaded {
        /// Which.
        model: ModelKey,
        /// Its name and version, as its manifest says.
        name: String,
        /// The execution provider that runs it.
        provider: String,
        /// Why that is not the one wished for.
        fallback: Option<String>,
        /// ONNX Runtime's version.
        version: Option<String>,
        /// Memory that the process took for it.
        bytes: u64,
        /// Time that it took.
        milliseconds: f64,
    },
    /// Bytes of the device's memory that are in use, by whichever process, and that there are.
    DeviceMemory {
        /// In use.
        used: u64,
        /// In all.
        total: u64,
    },
    /// A model was not loaded.
    Refused {
        /// Which.
        model: ModelKey,
        /// Why.
        message: String,
        /// What to do.
        hint: String,
        /// Whether memory is what it lacks.
        memory: bool,
    },
    /// The output of a run lies in its region.
    Ran {
        /// Number.
        run: RunId,
        /// Numbers that it wrote.
        values: usize,
        /// Where the device had no room for it: what was done instead.
        instead: Option<String>,
    },
    /// A run failed.
    Failed {
        /// Number.
        run: RunId,
        /// Why.
        message: String,
        /// What to do.
        hint: String,
        /// Whether memory is what it lacks.
        memory: bool,
    },
}

/// Cuts a text to a length that a frame has room for.
pub fn short(text: &str) -> String {
    text[..text.floor_char_boundary(MOST_TEXT)].to_owned()
}

/// Sends a frame, with a file if there is one.
///
/// # Errors
/// The system's; `WouldBlock` where the socket does not block and its buffer is full.
pub fn send<T: Serialize>(socket: RawFd, frame: &T, file: Option<RawFd>) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(frame)?;
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // Aligned as a control message's header must be.
    let mut control = [0_u64; 8];
    loop {
        // SAFETY: the message refers to `part` and `control`, which outlive the call; the control message is written
        // within `control`, whose length CMSG_SPACE of one descriptor does not exceed.
        let sent = unsafe {
            let mut message = MaybeUninit::<libc::msghdr>::zeroed().assume_init();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            if let Some(file) = file {
                message.msg_control = control.as_mut_ptr().cast();
                message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
                libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(file);
            }
            libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL)
        };
        match sent {
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            _ => return Ok(()),
        }
    }
}

/// Receives a frame, with a file if it brought one; None at the end: the other side has closed, or died.
///
/// # Errors
/// The system's; `WouldBlock` where the socket does not block and nothing is there; `InvalidData` for what is no frame.
pub fn receive<T: DeserializeOwned>(socket: RawFd) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut bytes = [0_u8; MOST_BYTES];
    let mut control = [0_u64; 8];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: as in send(); a descriptor that has come is ours alone.
    let (length, file, cut) = unsafe {
        let mut message = MaybeUninit::<libc::msghdr>::zeroed().assume_init();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let length = loop {
            let length = libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC);
            if length >= 0 {
                break length;
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::ECONNRESET) => break 0,
                _ => return Err(error),
            }
        };
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let file =
            (!header.is_null() && (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS)
                .then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()));
        (length as usize, file, message.msg_flags & libc::MSG_TRUNC != 0)
    };
    if length == 0 {
        return Ok(None);
    }
    if cut {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long"));
    }
    Ok(Some((serde_json::from_slice(&bytes[..length])?, file)))
}

/// A pair of connected sockets, which keep packets apart, closed when another program is executed.
///
/// # Errors
/// The system's.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for two; both descriptors are new.
    unsafe {
        if libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
            0,
            ends.as_mut_ptr(),
        ) != 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// A file in memory, of so many bytes, that can neither shrink nor grow: a mapping of it stays valid
/// whatever another process does.
///
/// # Errors
/// The system's.
pub fn memory_file(name: &std::ffi::CStr, bytes: usize) -> io::Result<OwnedFd> {
    // SAFETY: the name ends with NUL; the descriptor is new.
    unsafe {
        let file = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        let file = OwnedFd::from_raw_fd(file);
        let length = libc::off_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        if libc::ftruncate(file.as_raw_fd(), length) != 0
            || libc::fcntl(
                file.as_raw_fd(),
                libc::F_ADD_SEALS,
                libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL,
            ) != 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok(file)
    }
}

/// A file in memory, mapped.
#[derive(Debug)]
pub struct Mapping {
    start: *mut u8,
    bytes: usize,
    writable: bool,
}

// SAFETY: the memory belongs to no thread.
unsafe impl Send for Mapping {}
// SAFETY: writing needs unsafe code, which answers for who writes what when.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of a file for reading, or for both.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` where the file is shorter.
    pub fn new(file: RawFd, bytes: usize, writable: bool) -> io::Result<Self> {
        // SAFETY: asks for a new mapping at an address of the system's choice, after the file was found long enough.
        unsafe {
            let mut status = MaybeUninit::<libc::stat>::zeroed().assume_init();
            if libc::fstat(file, &raw mut status) != 0 {
                return Err(io::Error::last_os_error());
            }
            if bytes == 0 || u64::try_from(status.st_size).unwrap_or(0) < bytes as u64 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
            let start = libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file, 0);
            if start == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            Ok(Self {
                start: start.cast(),
                bytes,
                writable,
            })
        }
    }

    /// Part of it.
    ///
    /// # Safety
    /// Nobody writes this part while the slice lives.
    ///
    /// # Panics
    /// Where it lies outside.
    pub unsafe fn part(&self, from: usize, bytes: usize) -> &[u8] {
        assert!(from.checked_add(bytes).is_some_and(|end| end <= self.bytes));
        // SAFETY: inside the mapping; the caller answers for the rest.
        unsafe { std::slice::from_raw_parts(self.start.add(from), bytes) }
    }

    /// Part of it, to be written.
    ///
    /// # Safety
    /// Nobody else reads or writes this part while the slice lives.
    ///
    /// # Panics
    /// Where it lies outside, or was mapped for reading only.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part_mut(&self, from: usize, bytes: usize) -> &mut [u8] {
        assert!(self.writable && from.checked_add(bytes).is_some_and(|end| end <= self.bytes));
        // SAFETY: inside the mapping; the caller answers for the rest.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), bytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in new(), and nothing borrowed outlives it.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_and_its_file_arrive_as_they_were_sent() {
        let (left, right) = pair().unwrap();
        let file = memory_file(c"test", 8192).unwrap();
        let own = Mapping::new(file.as_raw_fd(), 8192, true).unwrap();
        // SAFETY: nobody else has it yet.
        unsafe { own.part_mut(4096, 3) }.copy_from_slice(b"abc");
        let model = ModelKey([7; 32]);
        let order = Order::Load {
            model,
            manifest: 1,
            weights: 2,
            verified: false,
        };
        send(left.as_raw_fd(), &order, Some(file.as_raw_fd())).unwrap();
        send(left.as_raw_fd(), &Order::Unload { model }, None).unwrap();
        let (found, brought) = receive::<Order>(right.as_raw_fd()).unwrap().unwrap();
        assert_eq!(found, order);
        let mapping = Mapping::new(brought.unwrap().as_raw_fd(), 8192, false).unwrap();
        // SAFETY: nobody writes it any more.
        assert_eq!(unsafe { mapping.part(4096, 3) }, b"abc");
        let (found, brought) = receive::<Order>(right.as_raw_fd()).unwrap().unwrap();
        assert_eq!(found, Order::Unload { model });
        assert!(brought.is_none());
        drop(left);
        assert!(receive::<Order>(right.as_raw_fd()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let (left, right) = pair().unwrap();
        send(left.as_raw_fd(), &"hello", None).unwrap();
        assert!(receive::<Order>(right.as_raw_fd()).is_err());
        send(left.as_raw_fd(), &"x".repeat(MOST_BYTES), None).unwrap();
        assert!(receive::<String>(right.as_raw_fd()).is_err());
    }

    #[test]
    fn a_file_in_memory_cannot_be_cut_under_a_mapping() {
        let file = memory_file(c"test", 4096).unwrap();
        // SAFETY: a system call on our own descriptor.
        assert_ne!(unsafe { libc::ftruncate(file.as_raw_fd(), 0) }, 0);
        assert!(Mapping::new(file.as_raw_fd(), 4097, false).is_err());
    }
}
