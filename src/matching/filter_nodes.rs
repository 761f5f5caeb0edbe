//! What walks over a filter's tree need of PostgreSQL's lists and names.

use std::ffi::CStr;

use pgrx::prelude::*;

/// A palloc'd name.
///
/// # Safety
/// NUL-terminated, or null.
pub(super) unsafe fn text_of(name: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: by contract.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name).to_string_lossy().into_owned() })
}

/// The nodes of a list, which may be null.
///
/// # Safety
/// A list of nodes.
pub(super) unsafe fn nodes(list: *mut pg_sys::List) -> Vec<*mut pg_sys::Node> {
    // SAFETY: by contract each cell holds a pointer to a node.
    unsafe {
        (0..pg_sys::list_length(list))
            .map(|at| (*(*list).elements.add(at as usize)).ptr_value.cast::<pg_sys::Node>())
            .collect()
    }
}
