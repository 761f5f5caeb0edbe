//! The CONTEXT of an error: the lines of our own PL/pgSQL and SQL functions tell a user nothing and are left out. Those
//! of his functions, and of COPY, stay.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};

use pgrx::prelude::*;

unsafe extern "C-unwind" {
    // Of utils/elog.h; pgrx leaves it out.
    fn errcontext_msg(format: *const c_char, ...) -> c_int;
}

/// Functions of the extension's own schema that are written in PL/pgSQL or SQL. `tests/test_wrong_calls.py` compares
/// with the catalogue.
const OURS: [&str; 18] = [
    "copy_adopt_pgvector",
    "copy_calibrate",
    "copy_calibration_report",
    "copy_check_set",
    "copy_confirm",
    "copy_dismiss",
    "copy_doctor",
    "copy_evaluate",
    "copy_evaluate_matches",
    "copy_keep_index_dimensions",
    "copy_match_table",
    "copy_precision_recall",
    "copy_quarantine",
    "copy_release",
    "copy_reopen",
    "copy_undescribed",
    "copy_use_calibration",
    "copy_withdraw_release",
];

thread_local! {
    /// What is left, for as long as the error is being reported.
    static KEPT: RefCell<CString> = RefCell::default();
}

/// PostgreSQL adds a line to an error for each function that is being executed. Called where an ERROR is about to leave
/// Rust: what it adds from here on are the lines that are not ours. Whoever catches the error puts
/// `error_context_stack` back, as PG_TRY does.
pub fn without_ours() {
    // SAFETY: this process's stack of callbacks; the text is palloc'd and freed; the callback put there lives for ever.
    unsafe {
        if pg_sys::error_context_stack.is_null() {
            return;
        }
        let text = pg_sys::GetErrorContextStack();
        if text.is_null() {
            return;
        }
        let all = CStr::from_ptr(text).to_string_lossy().into_owned();
        pg_sys::pfree(text.cast());
        let kept = foreign(&all);
        if kept.len() == all.len() {
            return;
        }
        if kept.is_empty() {
            pg_sys::error_context_stack = std::ptr::null_mut();
            return;
        }
        KEPT.set(CString::new(kept).unwrap_or_default());
        pg_sys::error_context_stack = &raw mut CALLBACK;
    }
}

static mut CALLBACK: pg_sys::ErrorContextCallback = pg_sys::ErrorContextCallback {
    previous: std::ptr::null_mut(),
    callback: Some(tell_kept),
    arg: std::ptr::null_mut(),
};

unsafe extern "C-unwind" fn tell_kept(_: *mut std::ffi::c_void) {
    // SAFETY: called while an error is being reported; the text is copied.
    KEPT.with_borrow(|kept| unsafe { errcontext_msg(c"%s".as_ptr(), kept.as_ptr()) });
}

/// The lines behind the last one that is a function of ours: the innermost stand first; what ours called is ours, too.
fn foreign(context: &str) -> &str {
    let mut kept = context;
    let mut rest = context;
    while !rest.is_empty() {
        let (line, behind) = rest.split_once('\n').unwrap_or((rest, ""));
        if is_ours(line) {
            kept = behind;
        }
        rest = behind;
    }
    kept
}

/// `PL/pgSQL function copymatch.decide(bigint,text,text,boolean) line 13 at RAISE`, `SQL function "copy_confirm"
/// statement 1`; the words around are in the language of lc_messages.
fn is_ours(line: &str) -> bool {
    let plain = |name: &str| OURS.contains(&name);
    if line.contains("PL/pgSQL") {
        let Some((before, _)) = line.split_once('(') else {
            return false;
        };
        let name = before.rsplit([' ', '\u{a0}']).next().unwrap_or_default();
        return name.starts_with("copymatch.") || plain(name.rsplit('.').next().unwrap_or_default());
    }
    // Only the name stands there, without its schema.
    line.split(['"', '«', '»', '„', '“'])
        .map(|part| part.trim_matches([' ', '\u{a0}']))
        .any(|name| plain(name) || name == "decide_all" || name == "is_dismissed")
        && line.contains("SQL")
}
