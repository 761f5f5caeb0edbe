//! How much of an NVIDIA device's memory is in use, as its driver says.

use std::ffi::{CStr, c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;

/// CUDA_SUCCESS.
const SUCCESS: c_int = 0;

type Initialise = unsafe extern "C" fn(u32) -> c_int;
type Device = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type Retain = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;
type Push = unsafe extern "C" fn(*mut c_void) -> c_int;
type Pop = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
type Memory = unsafe extern "C" fn(*mut usize, *mut usize) -> c_int;

fn symbol(library: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a library that is loaded, and a NUL-terminated name.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// Bytes in use, by whichever process, and bytes in all; None without a driver, or where it refuses. Asked only where a
/// network runs on the device: its primary context is there then.
pub fn memory(device: i32) -> Option<(u64, u64)> {
    // SAFETY: a NUL-terminated name; the library stays loaded, as ONNX Runtime's provider keeps it.
    let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if library.is_null() {
        return None;
    }
    let [initialise, get, retain, push, memory, pop] = [
        symbol(library, c"cuInit")?,
        symbol(library, c"cuDeviceGet")?,
        symbol(library, c"cuDevicePrimaryCtxRetain")?,
        symbol(library, c"cuCtxPushCurrent_v2")?,
        symbol(library, c"cuMemGetInfo_v2")?,
        symbol(library, c"cuCtxPopCurrent_v2")?,
    ];
    // SAFETY: the driver's functions of these names have these types (CUDA Driver API, since 4.0).
    let (initialise, get, retain, push, memory, pop) = unsafe {
        (
            transmute::<*mut c_void, Initialise>(initialise),
            transmute::<*mut c_void, Device>(get),
            transmute::<*mut c_void, Retain>(retain),
            transmute::<*mut c_void, Push>(push),
            transmute::<*mut c_void, Memory>(memory),
            transmute::<*mut c_void, Pop>(pop),
        )
    };
    let (mut number, mut context): (c_int, *mut c_void) = (0, null_mut());
    let (mut free, mut total) = (0_usize, 0_usize);
    // SAFETY: every pointer is to a variable of this function; the context is retained once more for the life of the
    // process, which keeps it alive whatever ONNX Runtime does, and is popped again from this thread.
    unsafe {
        if initialise(0) != SUCCESS || get(&raw mut number, device) != SUCCESS {
            return None;
        }
        if retain(&raw mut context, number) != SUCCESS || push(context) != SUCCESS {
            return None;
        }
        let used_and_total = memory(&raw mut free, &raw mut total);
        let mut popped = null_mut();
        pop(&raw mut popped);
        (used_and_total == SUCCESS).then(|| (total.saturating_sub(free) as u64, total as u64))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_machine_without_a_driver_has_no_device_memory_to_tell_of() {
        let used_and_total = super::memory(0);
        if !std::path::Path::new("/dev/nvidia0").exists() {
            assert_eq!(used_and_total, None);
        } else if let Some((used, total)) = used_and_total {
            assert!(used <= total && total > 0);
        }
    }
}
