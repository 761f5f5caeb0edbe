//! The part of libpq that connections to shards need, loaded at run time: postgres_fdw is linked with it, so it is
//! there wherever there are shards. None of the calls here waits for the network, but for the look-up of a host's name.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::OnceLock;

use pgrx::prelude::*;

/// PGconn, of which only libpq knows what is in it.
type Conn = *mut c_void;
/// PGresult, likewise.
type Res = *mut c_void;

/// First version with pipelines.
const PIPELINES: c_int = 140_000;

const CONNECTION_OK: c_int = 0;
const PGRES_COMMAND_OK: c_int = 1;
const PGRES_TUPLES_OK: c_int = 2;
const PGRES_PIPELINE_SYNC: c_int = 10;
const PGRES_PIPELINE_ABORTED: c_int = 11;

macro_rules! library {
    ($($name:ident: fn($($argument:ty),*) $(-> $value:ty)?;)*) => {
        /// Functions of the library, by their own names.
        #[allow(non_snake_case)]
        struct Library {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $value)?,)*
        }

        impl Library {
            /// # Safety
            /// `handle` is one that dlopen gave for libpq and that is never closed.
            unsafe fn of(handle: *mut c_void) -> Option<Library> {
                // SAFETY: a function of this name has these arguments in every libpq with this soname.
                unsafe {
                    Some(Library {
                        $($name: {
                            let symbol = libc::dlsym(handle, concat!(stringify!($name), "\0").as_ptr().cast());
                            if symbol.is_null() {
                                return None;
                            }
                            type Function = unsafe extern "C" fn($($argument),*) $(-> $value)?;
                            std::mem::transmute::<*mut c_void, Function>(symbol)
                        },)*
                    })
                }
            }
        }
    };
}

library! {
    PQlibVersion: fn() -> c_int;
    PQconnectStartParams: fn(*const *const c_char, *const *const c_char, c_int) -> Conn;
    PQconnectPoll: fn(Conn) -> c_int;
    PQfinish: fn(Conn);
    PQstatus: fn(Conn) -> c_int;
    PQsocket: fn(Conn) -> c_int;
    PQerrorMessage: fn(Conn) -> *const c_char;
    PQconnectionUsedPassword: fn(Conn) -> c_int;
    PQsetNoticeReceiver: fn(Conn, unsafe extern "C" fn(*mut c_void, Res), *mut c_void) -> *mut c_void;
    PQsetnonblocking: fn(Conn, c_int) -> c_int;
    PQenterPipelineMode: fn(Conn) -> c_int;
    PQsendQueryParams: fn(
        Conn, *const c_char, c_int, *const u32, *const *const c_char, *const c_int, *const c_int, c_int
    ) -> c_int;
    PQsendPrepare: fn(Conn, *const c_char, *const c_char, c_int, *const u32) -> c_int;
    PQsendQueryPrepared: fn(
        Conn, *const c_char, c_int, *const *const c_char, *const c_int, *const c_int, c_int
    ) -> c_int;
    PQpipelineSync: fn(Conn) -> c_int;
    PQflush: fn(Conn) -> c_int;
    PQconsumeInput: fn(Conn) -> c_int;
    PQisBusy: fn(Conn) -> c_int;
    PQgetResult: fn(Conn) -> Res;
    PQresultStatus: fn(Res) -> c_int;
    PQresultErrorField: fn(Res, c_int) -> *const c_char;
    PQresultErrorMessage: fn(Res) -> *const c_char;
    PQntuples: fn(Res) -> c_int;
    PQnfields: fn(Res) -> c_int;
    PQgetisnull: fn(Res, c_int, c_int) -> c_int;
    PQgetvalue: fn(Res, c_int, c_int) -> *const c_char;
    PQgetlength: fn(Res, c_int, c_int) -> c_int;
    PQclear: fn(Res);
    PQgetCancel: fn(Conn) -> *mut c_void;
    PQcancel: fn(*mut c_void, *mut c_char, c_int) -> c_int;
    PQfreeCancel: fn(*mut c_void);
}

static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();

/// The library; None where there is none, or only one that is too old.
fn library() -> Option<&'static Library> {
    LIBRARY.get_or_init(load).as_ref()
}

/// Whether there is a libpq to connect with.
pub fn is_there() -> bool {
    library().is_some()
}

/// This PostgreSQL's own is looked for first. One that is loaded already, by postgres_fdw, is found by its name.
fn load() -> Option<Library> {
    let name = if cfg!(target_os = "macos") {
        "libpq.5.dylib"
    } else {
        "libpq.so.5"
    };
    let mut own = [0 as c_char; pg_sys::MAXPGPATH as usize];
    // SAFETY: both are buffers of MAXPGPATH bytes; PostgreSQL ends the text with a NUL.
    let own = unsafe {
        pg_sys::get_lib_path((&raw const pg_sys::my_exec_path).cast(), own.as_mut_ptr());
        CStr::from_ptr(own.as_ptr()).to_string_lossy().into_owned()
    };
    let candidates = [format!("{own}/{name}"), name.to_owned()];
    let library = candidates.into_iter().find_map(|path| {
        let path = CString::new(path).ok()?;
        // SAFETY: loads libpq, whose constructors do nothing that matters here; the handle is never closed.
        unsafe {
            let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            if handle.is_null() { None } else { Library::of(handle) }
        }
    })?;
    // SAFETY: answers a number.
    (unsafe { (library.PQlibVersion)() } >= PIPELINES).then_some(library)
}

thread_local! {
    /// Whether a connection said, unasked, that it ends.
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// What a server says beside its answers is not for the user. libpq would write it to the server's log.
unsafe extern "C" fn hear(_: *mut c_void, notice: Res) {
    let Some(library) = library() else { return };
    // SAFETY: libpq gives a result that lives until this returns; the field is a text of its own, or null.
    let severity = unsafe {
        let severity = (library.PQresultErrorField)(notice, c_int::from(b'V'));
        if severity.is_null() {
            return;
        }
        CStr::from_ptr(severity)
    };
    if severity == c"FATAL" || severity == c"PANIC" {
        ENDS.set(true);
    }
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The socket can be read.
    Readable,
    /// It can be written.
    Writable,
    /// Nothing.
    Nothing,
}

/// An error that a server, or libpq, gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// SQLSTATE; empty where libpq has none: the connection is gone.
    pub code: String,
    /// Its message.
    pub message: String,
    /// More of it.
    pub detail: String,
    /// What to do about it.
    pub hint: String,
}

/// One of the things that come back.
#[derive(Debug)]
pub enum Came {
    /// A row's only value.
    Value(Option<Vec<u8>>),
    /// A statement without rows is done, or left out because one before it failed.
    Done,
    /// An error.
    Trouble(Trouble),
    /// All up to a sync has come.
    Sync,
}

/// A connection, closed when it is dropped.
pub struct Connection {
    raw: Conn,
    library: &'static Library,
}

impl Connection {
    /// Begins to connect. None for want of memory, files or the library.
    pub fn start(keywords: &[(CString, CString)]) -> Option<Connection> {
        let library = library()?;
        let list = |of: fn(&(CString, CString)) -> &CString| -> Vec<*const c_char> {
            let all = keywords.iter().map(|pair| of(pair).as_ptr());
            all.chain([std::ptr::null()]).collect()
        };
        let (names, values) = (list(|(name, _)| name), list(|(_, value)| value));
        // SAFETY: both lists end with null and are copied; the file that will be open is counted until it is dropped.
        unsafe {
            if !pg_sys::AcquireExternalFD() {
                return None;
            }
            let raw = (library.PQconnectStartParams)(names.as_ptr(), values.as_ptr(), 0);
            if raw.is_null() {
                pg_sys::ReleaseExternalFD();
                return None;
            }
            (library.PQsetNoticeReceiver)(raw, hear, std::ptr::null_mut());
            Some(Connection { raw, library })
        }
    }

    /// Goes on connecting: what to wait for; None where it failed.
    pub fn poll(&mut self) -> Option<Wait> {
        // SAFETY: a connection that is being made.
        match unsafe { (self.library.PQconnectPoll)(self.raw) } {
            1 => Some(Wait::Readable),
            2 => Some(Wait::Writable),
            3 => Some(Wait::Nothing),
            _ => None,
        }
    }

    /// Whether it failed before it began, or was lost.
    pub fn is_lost(&self) -> bool {
        // SAFETY: a connection.
        unsafe { (self.library.PQstatus)(self.raw) != CONNECTION_OK }
    }

    /// Whether connecting has failed at once: `is_lost` is so until it is made.
    pub fn has_failed(&self) -> bool {
        // SAFETY: a connection.
        unsafe { (self.library.PQstatus)(self.raw) == 1 }
    }

    /// Its socket; None where it has none.
    pub fn socket(&self) -> Option<pg_sys::pgsocket> {
        // SAFETY: a connection.
        let socket = unsafe { (self.library.PQsocket)(self.raw) };
        (socket >= 0).then_some(socket)
    }

    /// What libpq says of it.
    pub fn message(&self) -> String {
        // SAFETY: a connection, whose message is a text of its own.
        text(unsafe { (self.library.PQerrorMessage)(self.raw) })
            .trim_end()
            .to_owned()
    }

    /// Whether the server asked for a password and got one.
    pub fn used_password(&self) -> bool {
        // SAFETY: a connection.
        unsafe { (self.library.PQconnectionUsedPassword)(self.raw) != 0 }
    }

    /// From here on nothing is waited for, and several statements go in one round trip.
    pub fn enter_pipeline(&mut self) -> bool {
        // SAFETY: a connection that is made and idle.
        unsafe {
            (self.library.PQsetnonblocking)(self.raw, 1) == 0 && (self.library.PQenterPipelineMode)(self.raw) == 1
        }
    }

    /// Sends a statement without parameters.
    pub fn send(&mut self, statement: &CStr) -> bool {
        // SAFETY: a connection in pipeline mode, no parameters, binary results.
        unsafe {
            let (types, values) = (std::ptr::null(), std::ptr::null());
            let (lengths, formats) = (std::ptr::null(), std::ptr::null());
            (self.library.PQsendQueryParams)(self.raw, statement.as_ptr(), 0, types, values, lengths, formats, 1) == 1
        }
    }

    /// Prepares a statement under a name.
    pub fn prepare(&mut self, name: &CStr, statement: &CStr) -> bool {
        // SAFETY: a connection in pipeline mode; the server finds the parameters' types.
        unsafe { (self.library.PQsendPrepare)(self.raw, name.as_ptr(), statement.as_ptr(), 0, std::ptr::null()) == 1 }
    }

    /// Executes a prepared statement of two parameters: a text, and bytes.
    pub fn execute(&mut self, name: &CStr, text: &CStr, bytes: &[u8]) -> bool {
        let values = [text.as_ptr(), bytes.as_ptr().cast()];
        let Ok(length) = c_int::try_from(bytes.len()) else {
            return false;
        };
        // SAFETY: as many values, lengths and formats as are said; of a text the length is not looked at.
        unsafe {
            (self.library.PQsendQueryPrepared)(
                self.raw,
                name.as_ptr(),
                2,
                values.as_ptr(),
                [0, length].as_ptr(),
                [0, 1].as_ptr(),
                1,
            ) == 1
        }
    }

    /// Ends what goes together: an error before it leaves out the rest up to here. Sends as much as can be sent now.
    pub fn sync(&mut self) -> bool {
        // SAFETY: a connection in pipeline mode.
        unsafe { (self.library.PQpipelineSync)(self.raw) == 1 }
    }

    /// Sends what is left to send: whether all is sent; None where it cannot be.
    pub fn flush(&mut self) -> Option<bool> {
        // SAFETY: a connection that does not block.
        match unsafe { (self.library.PQflush)(self.raw) } {
            0 => Some(true),
            1 => Some(false),
            _ => None,
        }
    }

    /// Reads what has come; false where the connection is lost.
    pub fn consume(&mut self) -> bool {
        // SAFETY: a connection.
        unsafe { (self.library.PQconsumeInput)(self.raw) == 1 }
    }

    /// Whether an idle connection is of no use any more. What it said unasked is forgotten.
    pub fn is_stale(&mut self) -> bool {
        ENDS.set(false);
        let alive = self.consume();
        // SAFETY: a connection; reads what has come, and calls `hear` for what was not asked for.
        unsafe { (self.library.PQisBusy)(self.raw) };
        !alive || ENDS.take() || self.is_lost()
    }

    /// The next thing that has come. None: nothing more yet. `Err`: nothing more will.
    pub fn next(&mut self) -> Result<Option<Came>, ()> {
        // A null result ends each statement's; two are the end of all that was sent.
        for _ in 0..2 {
            // SAFETY: PQgetResult does not wait where the connection is not busy; a result is read, copied and cleared.
            unsafe {
                if (self.library.PQisBusy)(self.raw) != 0 {
                    return Ok(None);
                }
                let result = (self.library.PQgetResult)(self.raw);
                if !result.is_null() {
                    let came = self.came(result);
                    (self.library.PQclear)(result);
                    return Ok(Some(came));
                }
            }
        }
        Err(())
    }

    /// # Safety
    /// `result` is one of this library's.
    unsafe fn came(&self, result: Res) -> Came {
        let library = self.library;
        // SAFETY: by contract; a value is as long as the library says, and only read where there is one.
        unsafe {
            match (library.PQresultStatus)(result) {
                PGRES_PIPELINE_SYNC => Came::Sync,
                PGRES_TUPLES_OK => {
                    let (rows, columns) = ((library.PQntuples)(result), (library.PQnfields)(result));
                    if rows < 1 || columns < 1 || (library.PQgetisnull)(result, 0, 0) != 0 {
                        return Came::Value(None);
                    }
                    let length = usize::try_from((library.PQgetlength)(result, 0, 0)).unwrap_or(0);
                    let value = (library.PQgetvalue)(result, 0, 0).cast::<u8>();
                    Came::Value(Some(std::slice::from_raw_parts(value, length).to_vec()))
                }
                PGRES_COMMAND_OK | PGRES_PIPELINE_ABORTED => Came::Done,
                _ => {
                    let field = |of: u8| text((library.PQresultErrorField)(result, c_int::from(of)));
                    let message = match field(b'M') {
                        none if none.is_empty() => text((library.PQresultErrorMessage)(result)),
                        some => some,
                    };
                    Came::Trouble(Trouble {
                        code: field(b'C'),
                        message: message.trim_end().to_owned(),
                        detail: field(b'D'),
                        hint: field(b'H'),
                    })
                }
            }
        }
    }

    /// What cancels the statement that runs there.
    pub fn canceller(&self) -> Option<Canceller> {
        // SAFETY: a connection.
        let raw = unsafe { (self.library.PQgetCancel)(self.raw) };
        (!raw.is_null()).then_some(Canceller {
            raw,
            library: self.library,
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: it is finished once; the file was counted when it began.
        unsafe {
            (self.library.PQfinish)(self.raw);
            pg_sys::ReleaseExternalFD();
        }
    }
}

/// Cancels what runs on a connection.
pub struct Canceller {
    raw: *mut c_void,
    library: &'static Library,
}

// SAFETY: PQcancel may be called from any thread, also behind the end of the connection; nobody else has the pointer.
unsafe impl Send for Canceller {}

impl Canceller {
    /// Connects to the server, and waits for as long as that takes: for a thread of its own.
    pub fn cancel(self) {
        let mut message: [c_char; 256] = [0; 256];
        // SAFETY: a valid PGcancel and a buffer of the length that is said. No function of PostgreSQL's is called.
        unsafe { (self.library.PQcancel)(self.raw, message.as_mut_ptr(), 256) };
    }
}

impl Drop for Canceller {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { (self.library.PQfreeCancel)(self.raw) };
    }
}

/// A text of libpq's; none is an empty one.
fn text(raw: *const c_char) -> String {
    if raw.is_null() {
        return String::new();
    }
    // SAFETY: libpq's texts end with a NUL and live while what they belong to does.
    unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned()
}
