//! Where this library lies, and with it what is installed beside it.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{env, ffi};

/// A file of copymatch's own folder beside the library: ONNX Runtime, the program that the embedding service runs.
pub fn file(name: &str) -> PathBuf {
    library_directory().join("copymatch").join(name)
}

/// The folder of the library that was loaded, as the loader names it: not always PostgreSQL's own, since
/// `dynamic_library_path` may have found it elsewhere (an image volume, a package of its own).
fn library_directory() -> PathBuf {
    let mut found = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let here: fn() -> PathBuf = library_directory;
    // SAFETY: the address is one of this library's, the record is ours to fill.
    let known = unsafe { libc::dladdr(here as *const ffi::c_void, &raw mut found) } != 0;
    if !known || found.dli_fname.is_null() {
        return postgresql_directory();
    }
    // SAFETY: the loader's name of a library that is loaded, NUL-terminated, and kept as long as it is.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    let library = Path::new(ffi::OsStr::from_bytes(name.to_bytes()));
    // LOAD takes a path from the data folder, which is where a server process stays.
    let library = env::current_dir().unwrap_or_default().join(library);
    library.parent().map_or_else(postgresql_directory, Path::to_path_buf)
}

/// PostgreSQL's library directory.
fn postgresql_directory() -> PathBuf {
    // SAFETY: PostgreSQL fills pkglib_path, a NUL-terminated array, at the start of every process.
    let path = unsafe { CStr::from_ptr((&raw const pgrx::pg_sys::pkglib_path).cast()) };
    PathBuf::from(ffi::OsStr::from_bytes(path.to_bytes()))
}
