//! The same functions as in `pg_sys`, which there have a guard each against errors. Here one guard of the caller's
//! covers several, or none is needed.
use pgrx::pg_sys;

#[cfg(any(feature = "pg14", feature = "pg15"))]
pub(super) type Locator = pg_sys::RelFileNode;
#[cfg(not(any(feature = "pg14", feature = "pg15")))]
pub(super) type Locator = pg_sys::RelFileLocator;

unsafe extern "C-unwind" {
    pub(super) fn ReadRecentBuffer(
        locator: Locator,
        fork: pg_sys::ForkNumber::Type,
        block: pg_sys::BlockNumber,
        buffer: pg_sys::Buffer,
    ) -> bool;
    pub(super) fn ReadBufferExtended(
        relation: pg_sys::Relation,
        fork: pg_sys::ForkNumber::Type,
        block: pg_sys::BlockNumber,
        mode: pg_sys::ReadBufferMode::Type,
        strategy: pg_sys::BufferAccessStrategy,
    ) -> pg_sys::Buffer;
    pub(super) fn LockBuffer(buffer: pg_sys::Buffer, mode: core::ffi::c_int);
    pub(super) fn UnlockReleaseBuffer(buffer: pg_sys::Buffer);
}
