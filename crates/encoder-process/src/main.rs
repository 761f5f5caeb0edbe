//! The process that runs networks for a whole server, started by the embedding service's supervisor
//! (src/service in copymatch).
//!
//! It shares nothing with PostgreSQL but two files in memory: inputs, which it can only read, and outputs. Whatever
//! happens in ONNX Runtime or a driver here ends this process alone. It ends with its supervisor: by PR_SET_PDEATHSIG,
//! and when the socket is closed.

mod device;
mod faults;
mod models;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use service::RunId;
use service::wire::{self, INPUTS, Mapping, OUTPUTS, Order, Report, SOCKET, Setup};

use crate::models::Models;

/// A run that waits for a thread.
struct Job {
    run: RunId,
    region: usize,
    model: service::ModelKey,
    shape: [usize; 4],
    bytes: usize,
}

struct Process {
    setup: Setup,
    inputs: Mapping,
    outputs: Mapping,
    models: Models,
    jobs: Mutex<VecDeque<Job>>,
    waiting: Condvar,
}

fn main() -> ExitCode {
    let setup = std::env::args()
        .nth(1)
        .and_then(|text| serde_json::from_str::<Setup>(&text).ok());
    let Some(setup) = setup else {
        eprintln!("copymatch-encoder is started by copymatch's embedding service, not by hand");
        return ExitCode::from(2);
    };
    // SAFETY: system calls that take numbers. Between fork and prctl the supervisor may have ended: then
    // there is nobody to die with.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != setup.supervisor {
            return ExitCode::FAILURE;
        }
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
    // Where memory runs out this process is to go rather than PostgreSQL, which would restart.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    let map = |file: RawFd, bytes, writable| Mapping::new(file, bytes * setup.regions, writable);
    let (inputs, outputs) = match (map(INPUTS, setup.input, false), map(OUTPUTS, setup.output, true)) {
        (Ok(inputs), Ok(outputs)) => (inputs, outputs),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("copymatch-encoder: its memory cannot be mapped: {error}");
            return ExitCode::FAILURE;
        }
    };
    let models = match Models::new(&setup) {
        Ok(models) => models,
        Err(reason) => {
            eprintln!("copymatch-encoder: {reason}");
            return ExitCode::from(2);
        }
    };
    let process = Process {
        inputs,
        outputs,
        models,
        jobs: Mutex::new(VecDeque::new()),
        waiting: Condvar::new(),
        setup,
    };
    report(&Report::Started);
    thread::scope(|scope| {
        for lane in 0..process.setup.lanes {
            let process = &process;
            scope.spawn(move || process.run_jobs(lane));
        }
        process.take_orders(scope)
    })
}

/// Sends a report. Without a supervisor that takes it there is nothing more to do.
fn report(report: &Report) {
    if wire::send(SOCKET, report, None).is_err() {
        std::process::exit(1);
    }
}

impl Process {
    /// Until the supervisor is gone; then the process ends, whatever its threads are at.
    fn take_orders<'scope>(&'scope self, scope: &'scope thread::Scope<'scope, '_>) -> ExitCode {
        loop {
            match wire::receive::<Order>(SOCKET) {
                Ok(Some((
                    Order::Run {
                        run,
                        region,
                        model,
                        shape,
                        bytes,
                    },
                    _,
                ))) => {
                    let job = Job {
                        run,
                        region,
                        model,
                        shape,
                        bytes,
                    };
                    self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
                    self.waiting.notify_one();
                }
                Ok(Some((
                    Order::Load {
                        model,
                        manifest,
                        weights,
                        verified,
                    },
                    Some(file),
                ))) => {
                    // Not here: loading takes a while, and other models' runs go on.
                    scope.spawn(move || {
                        self.models
                            .load(model, file.as_raw_fd(), manifest, weights, verified, report);
                        self.report_device();
                    });
                }
                Ok(Some((Order::Unload { model }, _))) => {
                    self.models.unload(model);
                    self.report_device();
                }
                Ok(Some((Order::Load { .. }, None))) => {}
                Ok(None) => std::process::exit(0),
                Err(error) => {
                    eprintln!("copymatch-encoder: the supervisor's orders cannot be read: {error}");
                    std::process::exit(1);
                }
            }
        }
    }

    /// Where networks run on a device: what of its memory is in use.
    fn report_device(&self) {
        if self.models.on_device()
            && let Some((used, total)) = device::memory(self.setup.device)
        {
            report(&Report::DeviceMemory { used, total });
        }
    }

    fn run_jobs(&self, lane: usize) {
        loop {
            let job = {
                let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    if let Some(job) = jobs.pop_front() {
                        break job;
                    }
                    jobs = self.waiting.wait(jobs).unwrap_or_else(PoisonError::into_inner);
                }
            };
            report(&self.run(lane, &job));
        }
    }

    fn run(&self, lane: usize, job: &Job) -> Report {
        let failed = |message: String, hint: &str, memory: bool| Report::Failed {
            run: job.run,
            message: wire::short(&message),
            hint: wire::short(hint),
            memory,
        };
        faults::inject();
        if job.region >= self.setup.regions || job.bytes > self.setup.input {
            return failed("a run lies outside of the service's memory".to_owned(), "", false);
        }
        // SAFETY: the supervisor writes a region only while no run has it.
        let input = unsafe { self.inputs.part(job.region * self.setup.input, job.bytes) };
        match self.models.run(job.model, lane, job.shape, input) {
            Ok((values, instead)) => {
                let bytes = values.len() * size_of::<f32>();
                if bytes > self.setup.output {
                    return failed(
                        format!("an output of {bytes} bytes does not fit into the service's memory"),
                        "",
                        false,
                    );
                }
                // SAFETY: this run's own region, which the supervisor reads after the report.
                let output = unsafe { self.outputs.part_mut(job.region * self.setup.output, bytes) };
                for (place, value) in output.chunks_exact_mut(size_of::<f32>()).zip(&values) {
                    place.copy_from_slice(&value.to_ne_bytes());
                }
                Report::Ran {
                    run: job.run,
                    values: values.len(),
                    instead: instead.map(|text| wire::short(&text)),
                }
            }
            Err(trouble) => failed(trouble.message, &trouble.hint, trouble.memory),
        }
    }
}
