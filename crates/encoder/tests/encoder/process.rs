//! What the encoder does to the process that it lives in: threads, signals, output, exit.
//!
//! Each promise is looked at from outside or in a process of its own: the test starts this same test program again for
//! one of the `child_` functions, which do nothing unless they are started so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use encoder::{Encoder, RuntimeOptions};

use crate::onnx_builder::convolutional;
use crate::setup::{library, manifest, noise, options};

/// Runs one ignored test of this module in a process of its own.
pub fn child(name: &str, environment: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().expect("the test program"))
        .args([name, "--exact", "--ignored", "--test-threads=1", "--nocapture"])
        .envs(environment.iter().copied())
        .env("COPYMATCH_ONNXRUNTIME", library())
        // These would switch the library's telemetry off without our doing.
        .env_remove("ORT_DISABLE_TELEMETRY")
        .env_remove("ORT_RUNNING_UNIT_TESTS")
        .env_remove("CI")
        .output()
        .expect("the test program starts")
}

#[track_caller]
pub fn assert_success(output: &Output) {
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    assert!(
        stdout.contains("1 passed") || stdout.contains("leaving"),
        "the child ran nothing:\n{stdout}"
    );
}

fn encoder(threads: usize) -> Encoder {
    let weights = convolutional().model();
    let options = RuntimeOptions { threads, ..options() };
    Encoder::load(&weights, manifest(&weights, 256, &[64]), &options).expect("loads")
}

fn embed(encoder: &mut Encoder) {
    let images: Vec<_> = (0..10).map(|seed| noise(80, 70, seed)).collect();
    assert_eq!(encoder.embed(&images, &|| false).expect("embeds").len(), 10);
}

fn mask(status: &Path) -> u64 {
    let status = std::fs::read_to_string(status).expect("the status of a thread");
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))
        .expect("its mask");
    u64::from_str_radix(mask.trim(), 16).expect("a hexadecimal mask")
}

/// Mask of blocked signals of the calling thread.
fn own_mask() -> u64 {
    mask(Path::new("/proc/thread-self/status"))
}

/// The threads of this process, as folders.
fn threads() -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir("/proc/self/task").expect("/proc");
    entries.map(|entry| entry.expect("a thread").path()).collect()
}

/// Every signal but SIGKILL and SIGSTOP, which cannot be blocked, and 32 and 33, which the C library keeps for itself.
const ALL_SIGNALS: u64 = !(1 << 8 | 1 << 18 | 1 << 31 | 1 << 32);

#[test]
fn with_one_thread_no_thread_is_started() {
    assert_success(&child("process::child_with_one_thread", &[]));
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_with_one_thread() {
    let before = (threads(), own_mask());
    let mut encoder = encoder(1);
    embed(&mut encoder);
    assert_eq!(
        (threads(), own_mask()),
        before,
        "neither a thread more nor the mask changed"
    );
}

#[test]
fn threads_of_the_library_have_all_signals_blocked_and_the_caller_keeps_its_own_mask() {
    assert_success(&child("process::child_with_three_threads", &[]));
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_with_three_threads() {
    let before = (threads(), own_mask());
    let mut encoder = encoder(3);
    embed(&mut encoder);
    assert_eq!(own_mask(), before.1);
    let started: Vec<u64> = threads()
        .difference(&before.0)
        .map(|thread| mask(&thread.join("status")))
        .collect();
    assert_eq!(
        started.len(),
        2,
        "three threads compute: the caller and two of the library's"
    );
    for mask in started {
        assert_eq!(mask & ALL_SIGNALS, ALL_SIGNALS, "{mask:016x}");
    }
    drop(encoder);
    assert_eq!(threads(), before.0, "the library's threads end with the encoder");
}

#[test]
fn the_callers_signal_mask_survives_a_model_that_fails_to_load() {
    assert_success(&child("process::child_with_a_broken_model", &[]));
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_with_a_broken_model() {
    let before = (threads(), own_mask());
    let mut graph = convolutional();
    graph.nodes[0] = crate::onnx_builder::node("NoSuchOperator", &["image"], &["c0"], &[]);
    let weights = graph.model();
    Encoder::load(&weights, manifest(&weights, 256, &[64]), &options()).expect_err("no such operator");
    assert_eq!((threads(), own_mask()), before);
}

#[test]
fn the_library_writes_nothing_to_stdout_or_stderr_even_when_a_model_is_broken() {
    for name in [
        "process::child_with_a_broken_model",
        "process::child_with_three_threads",
    ] {
        let output = child(name, &[]);
        assert_success(&output);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            !stdout.contains("onnxruntime") && !stdout.contains("[W:") && !stdout.contains("[E:"),
            "{stdout}"
        );
    }
}

#[test]
fn the_library_keeps_no_record_of_its_use() {
    let home = std::env::temp_dir().join(format!("copymatch-encoder-home-{}", std::process::id()));
    std::fs::create_dir_all(&home).expect("a temporary folder");
    let path = home.to_str().expect("a plain path");
    let output = child(
        "process::child_with_one_thread",
        &[
            ("HOME", path),
            ("XDG_CACHE_HOME", path),
            ("XDG_DATA_HOME", path),
            ("TMPDIR", path),
        ],
    );
    let left: Vec<PathBuf> = std::fs::read_dir(&home)
        .expect("a folder")
        .map(|entry| entry.expect("it").path())
        .collect();
    let _ = std::fs::remove_dir_all(&home);
    assert_success(&output);
    assert_eq!(left, Vec::<PathBuf>::new(), "files of the library's telemetry");
}

static KEPT: Mutex<Option<Encoder>> = Mutex::new(None);

thread_local! {
    static OWN: std::cell::RefCell<Option<Encoder>> = const { std::cell::RefCell::new(None) };
}

#[test]
fn the_process_exits_cleanly_while_encoders_live() {
    for end in ["return", "exit", "quick"] {
        let output = child("process::child_that_exits", &[("COPYMATCH_TEST_END", end)]);
        assert_eq!(
            output.status.code(),
            Some(if end == "exit" { 7 } else { 0 }),
            "{end}: {output:?}"
        );
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{end}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("leaving"), "{end}");
    }
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_that_exits() {
    let Ok(end) = std::env::var("COPYMATCH_TEST_END") else {
        return;
    };
    for threads in [1, 2] {
        let mut used = encoder(threads);
        embed(&mut used);
        if threads == 1 {
            *KEPT.lock().expect("not poisoned") = Some(used);
        } else {
            OWN.set(Some(used));
        }
    }
    println!("leaving by {end}");
    if end == "exit" {
        std::process::exit(7);
    }
    if end == "quick" {
        // The program's own end: from another thread, while this one still owns an encoder.
        std::thread::spawn(|| std::process::exit(0))
            .join()
            .expect("does not return");
    }
}
