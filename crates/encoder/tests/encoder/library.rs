//! Which libraries are loaded, and what is said of the others.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use encoder::{Encoder, EncoderError, Provider, RuntimeOptions, runtime_library, runtime_version};

use crate::onnx_builder::mean_colour;
use crate::process::{assert_success, child};
use crate::setup::{library, load, manifest, options};

fn load_with(library: &Path, provider: Provider, threads: usize) -> Result<Encoder, EncoderError> {
    let weights = mean_colour(&[1.0, 0.0, 0.0, 1.0, 0.5, 0.5], &[0.1, 0.2]).model();
    let options = RuntimeOptions {
        library: library.to_owned(),
        provider,
        threads,
        device: 0,
        device_memory: 0,
        fp16: false,
        arena: false,
    };
    Encoder::load(&weights, manifest(&weights, 2, &[16]), &options)
}

/// A folder of this test alone, removed when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("copymatch-encoder-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A shared library that answers as ONNX Runtime does, but with this version and without any API table.
fn impostor(folder: &Path, version: &str, base: bool) -> PathBuf {
    let source = folder.join(format!("impostor_{}_{base}.rs", version.replace(['.', ' '], "_")));
    let library = source.with_extension("so");
    let answer = if base { "&BASE" } else { "core::ptr::null()" };
    let text = format!(
        r#"#![no_std]
        #[panic_handler] fn panic(_: &core::panic::PanicInfo) -> ! {{ loop {{}} }}
        #[repr(C)] pub struct Base {{ api: extern "C" fn(u32) -> *const u8, version: extern "C" fn() -> *const u8 }}
        extern "C" fn api(_: u32) -> *const u8 {{ core::ptr::null() }}
        extern "C" fn version() -> *const u8 {{ b"{version}\0".as_ptr() }}
        static BASE: Base = Base {{ api, version }};
        #[unsafe(no_mangle)] pub extern "C" fn OrtGetApiBase() -> *const Base {{ let _ = &BASE; {answer} }}"#
    );
    fs::write(&source, text).expect("the source is written");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args([
            "--edition=2024",
            "--crate-type=cdylib",
            "-Cpanic=abort",
            "-Clink-arg=-nostartfiles",
            "-o",
        ])
        .args([&library, &source])
        .output()
        .expect("rustc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

#[test]
fn the_version_of_the_library_that_runs_is_known() {
    load_with(&library(), Provider::Cpu, 1).expect("loads");
    let version = runtime_version().expect("loaded");
    let numbers: Vec<u32> = version.split('.').map(|part| part.parse().expect("a number")).collect();
    assert!(
        numbers.len() == 3 && numbers[0] == 1 && numbers[1] >= encoder::MINIMUM_VERSION,
        "{version}"
    );
    assert_eq!(runtime_library(), Some(library().canonicalize().expect("exists")));
}

#[test]
fn automatic_choice_and_cpu_run_on_the_cpu_where_the_library_has_no_cuda() {
    for provider in [Provider::Auto, Provider::Cpu] {
        let encoder = load_with(&library(), provider, 1).expect("loads");
        assert_eq!(encoder.provider(), "cpu");
    }
}

#[test]
fn a_provider_asked_for_by_name_is_an_error_where_the_library_lacks_it() {
    for (provider, name) in [(Provider::Cuda, "cuda"), (Provider::TensorRt, "tensorrt")] {
        let error = load_with(&library(), provider, 1).expect_err("a library for the CPU");
        assert!(matches!(error, EncoderError::ProviderUnavailable { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.hint().contains("GPU=1"));
        assert_eq!(name.parse(), Ok(provider));
    }
    assert!("gpu".parse::<Provider>().expect_err("unknown").contains("tensorrt"));
}

#[test]
fn a_number_of_threads_out_of_range_is_refused() {
    for threads in [0, 257, usize::MAX] {
        let error = load_with(&library(), Provider::Cpu, threads).expect_err("out of range");
        assert!(matches!(error, EncoderError::Threads { .. }), "{error}");
    }
}

#[test]
fn files_that_are_no_usable_library_are_refused_with_their_path_and_reason() {
    assert_success(&child("library::child_without_a_usable_library", &[]));
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_without_a_usable_library() {
    let folder = Folder::new("unusable");
    let real = fs::read(library()).expect("the library");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.0.join(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let mut headers_only = real[..64].to_vec();
    headers_only[54..56].copy_from_slice(&1_u16.to_le_bytes());
    // Beside the test program's own libraries there is always one that is not ONNX Runtime: the C library.
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    let c_library = maps
        .split_whitespace()
        .find(|word| word.contains("libc.so"))
        .expect("the C library");

    let cases: Vec<(PathBuf, &str)> = vec![
        (folder.0.clone(), "not a regular file"),
        ("/dev/zero".into(), "not a regular file"),
        (file("empty.so", b""), "no ELF header"),
        (
            file(
                "text.so",
                &b"not a library, just text that is long enough for a header of 64 bytes".repeat(2),
            ),
            "no ELF",
        ),
        (file("header.so", &real[..100]), "program headers"),
        (file("damaged.so", &headers_only), "damaged"),
        (file("half.so", &real[..real.len() / 2]), "past the end"),
        (file("nearly.so", &real[..real.len() / 10 * 9]), "is not a usable"),
        (c_library.into(), "OrtGetApiBase"),
        (impostor(&folder.0, "1.99.0", false), "returns nothing"),
        (impostor(&folder.0, "1.99.0", true), "does not offer API"),
    ];
    for (path, reason) in cases {
        let error = load_with(&path, Provider::Cpu, 1).expect_err(reason);
        assert!(
            matches!(error, EncoderError::LibraryUnusable { .. }),
            "{}: {error}",
            path.display()
        );
        assert!(error.to_string().contains(reason), "{reason:?} is not in: {error}");
        let shown = path.canonicalize().expect("exists");
        assert!(error.to_string().contains(&shown.display().to_string()), "{error}");
        assert!(!error.hint().is_empty());
    }

    for version in ["1.10.2", "0.9.0", "no version"] {
        let error = load_with(&impostor(&folder.0, version, true), Provider::Cpu, 1).expect_err("too old");
        assert!(matches!(error, EncoderError::LibraryTooOld { .. }), "{error}");
        assert!(
            error.to_string().contains(version) && error.to_string().contains("1.17"),
            "{error}"
        );
    }

    for path in [
        "/no/such/libonnxruntime.so",
        "",
        "relative/libonnxruntime.so",
        "/etc/hosts/libonnxruntime.so",
    ] {
        let error = load_with(Path::new(path), Provider::Cpu, 1).expect_err("missing");
        assert!(matches!(error, EncoderError::LibraryMissing { .. }), "{error}");
        assert!(error.hint().contains("make setup"));
    }

    assert_eq!(runtime_version(), None);
    load_with(&library(), Provider::Cpu, 1).expect("none of the failures stands in the way of the right library");
    assert!(runtime_version().is_some());
}

#[test]
fn a_second_library_is_refused_and_another_name_of_the_first_is_not() {
    assert_success(&child("library::child_with_two_libraries", &[]));
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_with_two_libraries() {
    let folder = Folder::new("two");
    let copy = folder.0.join("libonnxruntime.so");
    fs::copy(library(), &copy).expect("a copy");
    let link = folder.0.join("link.so");
    std::os::unix::fs::symlink(library().canonicalize().expect("exists"), &link).expect("a link");

    let mut first = load_with(&library(), Provider::Cpu, 1).expect("loads");
    load_with(&link, Provider::Cpu, 1).expect("the same file by another name");
    let error = load_with(&copy, Provider::Cpu, 1).expect_err("another file");
    match &error {
        EncoderError::LibraryConflict { loaded, requested } => {
            assert_eq!(loaded, &library().canonicalize().expect("exists"));
            assert_eq!(requested, &copy.canonicalize().expect("exists"));
        }
        other => panic!("{other}"),
    }
    assert!(error.hint().contains("Reconnect"));
    // The first one is none the worse for it.
    first
        .embed(&[crate::setup::noise(16, 16, 1)], &|| false)
        .expect("embeds");
}

#[test]
fn one_process_runs_several_models_side_by_side() {
    let mut encoders: Vec<Encoder> = (1..4)
        .map(|i| {
            let weights = mean_colour(&[i as f32, 0.0, 0.0, 1.0, 0.5, 0.5], &[0.1, 0.2]).model();
            load(&weights, manifest(&weights, 2, &[16])).expect("loads")
        })
        .collect();
    let image = crate::setup::noise(16, 16, 5);
    let descriptors: Vec<_> = encoders
        .iter_mut()
        .map(|encoder| {
            encoder
                .embed(std::slice::from_ref(&image), &|| false)
                .expect("embeds")
                .concat()
        })
        .collect();
    assert!(descriptors[0] != descriptors[1] && descriptors[1] != descriptors[2]);
    assert_eq!(options().threads, 1);
}
