//! The encoder's process, as its supervisor sees it: a program of its own, started by fork and exec, that shares two
//! files in memory and a socket with the supervisor, and nothing with PostgreSQL.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use service::wire::{self, INPUTS, Mapping, OUTPUTS, Order, Report, SOCKET, Setup};

use crate::settings;

/// Bytes of an output's room: the largest descriptor there is.
pub const MOST_OUTPUT: usize = *encoder::DIMENSIONS.end() as usize * size_of::<f32>();

/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// The process, and the supervisor's end of what it shares with it.
pub struct Encoder {
    child: Child,
    socket: OwnedFd,
    inputs: Mapping,
    outputs: Mapping,
    input: usize,
    output: usize,
}

/// What a run has room for.
pub fn region_bytes() -> usize {
    settings::service_slot_size() * settings::service_batch()
}

/// Runs that may be under way: one for each thread, and two for a device.
pub fn regions() -> usize {
    settings::service_threads().max(2)
}

impl Encoder {
    /// Starts the program.
    pub fn start() -> io::Result<Encoder> {
        let (input, output) = (region_bytes(), settings::service_batch() * MOST_OUTPUT);
        let setup = Setup {
            library: settings::onnxruntime_library().to_string_lossy().into_owned(),
            provider: encoder::Provider::from(settings::execution_provider())
                .name()
                .to_owned(),
            lanes: settings::service_threads(),
            device: settings::device(),
            device_memory: settings::device_memory(),
            fp16: settings::tensorrt_fp16(),
            regions: regions(),
            input,
            output,
            supervisor: std::process::id().cast_signed(),
        };
        let (socket, its_socket) = wire::pair()?;
        set_nonblocking(socket.as_raw_fd())?;
        let inputs = wire::memory_file(c"copymatch inputs", input * setup.regions)?;
        let outputs = wire::memory_file(c"copymatch outputs", output * setup.regions)?;
        let mut command = Command::new(settings::encoder_program());
        command
            .arg(serde_json::to_string(&setup)?)
            .env("ORT_DISABLE_TELEMETRY", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let given = [
            (its_socket.as_raw_fd(), SOCKET),
            (inputs.as_raw_fd(), INPUTS),
            (outputs.as_raw_fd(), OUTPUTS),
        ];
        let supervisor = setup.supervisor;
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe { command.pre_exec(move || prepare(&given, supervisor)) };
        let child = command.spawn()?;
        Ok(Encoder {
            child,
            socket,
            inputs: Mapping::new(inputs.as_raw_fd(), input * setup.regions, true)?,
            outputs: Mapping::new(outputs.as_raw_fd(), output * setup.regions, false)?,
            input,
            output,
        })
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What to wait on for reports.
    pub fn socket(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// A region of the inputs.
    ///
    /// # Safety
    /// No run has it.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn input(&self, region: usize) -> &mut [u8] {
        // SAFETY: the caller answers for it.
        unsafe { self.inputs.part_mut(region * self.input, self.input) }
    }

    /// The bytes of one image's output; None where they would lie outside of the region. The process may still write
    /// them, if it is out of its mind: they are numbers, and any will do.
    pub fn output(&self, region: usize, place: usize, bytes: usize) -> Option<&[u8]> {
        let end = place.checked_add(1)?.checked_mul(bytes)?;
        // SAFETY: bytes that are copied once; whatever another process does to them meanwhile, they stay bytes.
        (end <= self.output).then(|| unsafe { self.outputs.part(region * self.output + place * bytes, bytes) })
    }

    /// Sends an order, with a model's file. An error: the process is to be killed.
    pub fn send(&self, order: &Order, file: Option<RawFd>) -> io::Result<()> {
        wire::send(self.socket.as_raw_fd(), order, file)
    }

    /// The next report; None where there is none yet. An error: the process is gone, or is to be killed.
    pub fn receive(&self) -> io::Result<Option<Report>> {
        match wire::receive::<Report>(self.socket.as_raw_fd()) {
            Ok(Some((report, _))) => Ok(Some(report)),
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends the process and says how it ended. It may be dead already.
    pub fn end(mut self) -> String {
        let killed = matches!(self.child.try_wait(), Ok(None)) && {
            // One that has just closed its socket is about to be gone; its own status tells more than our signal.
            std::thread::sleep(Duration::from_millis(20));
            matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok()
        };
        let until = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    return match (status.signal(), status.code()) {
                        (Some(libc::SIGKILL), _) if killed => "the service ended it".to_owned(),
                        (Some(signal), _) => format!("it was ended by signal {signal}"),
                        (None, code) => format!("it ended with status {}", code.unwrap_or(-1)),
                    };
                }
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                // A driver may keep a process that is dead. It takes nothing that the next one needs.
                _ => return "it was killed, and is not gone yet".to_owned(),
            }
        }
    }
}

/// Between fork and exec: the descriptors at their numbers, all others closed, in a process group of its own, which
/// signals to the supervisor's group do not reach, and dead with the supervisor.
fn prepare(given: &[(RawFd, RawFd); 3], supervisor: i32) -> io::Result<()> {
    // SAFETY: system calls that take numbers.
    unsafe {
        // First out of each other's way.
        let mut high = [0; 3];
        for (place, (from, _)) in high.iter_mut().zip(given) {
            *place = libc::fcntl(*from, libc::F_DUPFD, 10);
            if *place < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (from, (_, to)) in high.iter().zip(given) {
            if libc::dup2(*from, *to) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // The highest of ours is OUTPUTS. Rust's own pipe, by which a failed exec is reported, must stay open until
        // then: marked to be closed by it, not closed. Kernels before 5.11 do not know the flag: one by one.
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        if libc::syscall(
            libc::SYS_close_range,
            (OUTPUTS + 1) as libc::c_uint,
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        ) != 0
        {
            for file in OUTPUTS + 1..4096 {
                libc::fcntl(file, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != supervisor {
            libc::_exit(1);
        }
    }
    Ok(())
}

fn set_nonblocking(file: RawFd) -> io::Result<()> {
    // SAFETY: system calls on our own descriptor.
    unsafe {
        let flags = libc::fcntl(file, libc::F_GETFL);
        if flags < 0 || libc::fcntl(file, libc::F_SETFL, flags | libc::O_NONBLOCK) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
