//! From the index's errors to PostgreSQL's.
use pgrx::prelude::*;

use crate::failure::Failure;
use crate::shortage;

/// What the user is told about an error of an index.
///
/// # Safety
/// `index` must be an open relation.
pub(super) unsafe fn failure(error: ivf_core::Error, index: pg_sys::Relation) -> Failure {
    use ivf_core::Error as E;
    // SAFETY: an open relation has its row of pg_class.
    let name = unsafe { pg_sys::name_data_to_str(&(*(*index).rd_rel).relname) };
    let reindex = || format!("REINDEX INDEX {} builds it anew from the table.", quoted(name));
    match &error {
        E::Corrupted { block, what } => Failure::new(
            PgSqlErrorCode::ERRCODE_INDEX_CORRUPTED,
            format!("index \"{name}\" is corrupted at block {block}: {what}"),
        )
        .hint(reindex()),
        E::Version { .. } => {
            let said = error.to_string();
            let said = said.strip_prefix("index").unwrap_or(&said).to_owned();
            Failure::new(
                PgSqlErrorCode::ERRCODE_INDEX_CORRUPTED,
                format!("index \"{name}\"{said}"),
            )
            .hint(reindex())
        }
        E::Dimensions { .. } => Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string()),
        E::TooManyDimensions { .. } => Failure::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, error.to_string()),
        E::Memory { required, .. } => Failure::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, error.to_string())
            .hint(format!("Set maintenance_work_mem to {required} kB or more.")),
        E::OutOfMemory => shortage::failure(None),
        E::Cancelled => Failure::stopped(error.to_string()),
        E::Store(_) => Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, error.to_string()),
    }
}

/// What the user is told of an entry whose row lies behind the end of a table of so many blocks.
///
/// # Safety
/// `index` must be an open relation.
pub(super) unsafe fn beyond(row: ivf_core::Tid, blocks: u32, index: pg_sys::Relation) -> Failure {
    // SAFETY: an open relation has its row of pg_class.
    let name = unsafe { pg_sys::name_data_to_str(&(*(*index).rd_rel).relname) };
    Failure::new(
        PgSqlErrorCode::ERRCODE_INDEX_CORRUPTED,
        format!(
            "index \"{name}\" is corrupted: an entry names row ({},{}), but the table has {blocks} blocks",
            row.block(),
            row.offset()
        ),
    )
    .hint(format!("REINDEX INDEX {} builds it anew from the table.", quoted(name)))
}

/// An identifier as SQL takes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
