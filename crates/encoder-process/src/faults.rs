//! Faults on demand, for tests: COPYMATCH_ENCODER_FAULTS in the server's environment names a file, whose word is done
//! at the next run, once. Only who starts the server can set it.

use std::sync::OnceLock;
use std::time::Duration;

/// Does what the file asks for, if there is one.
pub fn inject() {
    static FILE: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
    let Some(file) = FILE.get_or_init(|| std::env::var_os("COPYMATCH_ENCODER_FAULTS")) else {
        return;
    };
    let Ok(word) = std::fs::read_to_string(file) else {
        return;
    };
    // "always …" stays.
    let fault = match word.trim().strip_prefix("always ") {
        Some(fault) => fault,
        None if std::fs::remove_file(file).is_ok() => word.trim(),
        None => return,
    };
    match fault {
        "abort" => std::process::abort(),
        "hang" => std::thread::sleep(Duration::from_secs(3600)),
        "slow" => std::thread::sleep(Duration::from_millis(500)),
        _ => {}
    }
}
