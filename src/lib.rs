//! Image copy detection inside PostgreSQL.
//!
//! This package is what touches PostgreSQL, and nothing else: types, settings, the model catalogue, reference sets and
//! `copy_match`. The work is done by the pure crates under `crates/`; the SQL side is written by hand under `sql/`.

use pgrx::prelude::*;

mod background;
mod calibration;
mod committing;
mod context;
mod crate_errors;
mod embed;
mod evaluate;
mod explain;
mod failure;
mod flagging;
mod installation;
mod interrupts;
mod ivf;
mod json;
mod matching;
mod own_schema;
mod own_table;
mod pending;
mod record;
mod retired;
mod rights;
mod service;
mod sets;
mod settings;
mod sharding;
mod shared_memory;
mod shortage;
mod statements;
mod tuple;
mod types;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/requirements.sql", name = "requirements");
extension_sql_file!("../sql/roles.sql", name = "roles", requires = ["requirements"]);
extension_sql_file!("../sql/types.sql", name = "types", requires = ["roles"]);
extension_sql_file!("../sql/ivf.sql", name = "ivf", requires = ["types"]);
extension_sql_file!("../sql/catalogue.sql", name = "catalogue", requires = ["ivf"]);
extension_sql_file!("../sql/set_tables.sql", name = "set_tables", requires = ["catalogue"]);
extension_sql_file!("../sql/embed.sql", name = "embed", requires = ["set_tables"]);
extension_sql_file!("../sql/service.sql", name = "service", requires = ["embed"]);
extension_sql_file!("../sql/sets.sql", name = "sets", requires = ["service"]);
extension_sql_file!("../sql/matching.sql", name = "matching", requires = ["sets"]);
extension_sql_file!("../sql/groups.sql", name = "groups", requires = ["matching"]);
extension_sql_file!("../sql/references.sql", name = "references", requires = ["groups"]);
extension_sql_file!("../sql/batch.sql", name = "batch", requires = ["references"]);
extension_sql_file!("../sql/reembed.sql", name = "reembed", requires = ["batch"]);
extension_sql_file!("../sql/findings.sql", name = "findings", requires = ["reembed"]);
extension_sql_file!("../sql/refusals.sql", name = "refusals", requires = ["findings"]);
extension_sql_file!("../sql/flagging.sql", name = "flagging", requires = ["refusals"]);
extension_sql_file!("../sql/reports.sql", name = "reports", requires = ["flagging"]);
extension_sql_file!("../sql/evaluate.sql", name = "evaluate", requires = ["reports"]);
extension_sql_file!("../sql/calibrate.sql", name = "calibrate", requires = ["evaluate"]);
extension_sql_file!("../sql/explain.sql", name = "explain", requires = ["calibrate"]);
extension_sql_file!("../sql/verification.sql", name = "verification", requires = ["explain"]);
extension_sql_file!("../sql/dropped.sql", name = "dropped", requires = ["verification"]);
extension_sql_file!("../sql/check.sql", name = "check", requires = ["dropped"]);
extension_sql_file!("../sql/pgvector.sql", name = "pgvector", requires = ["check"]);
extension_sql_file!("../sql/shards.sql", name = "shards", requires = ["pgvector"]);
extension_sql_file!("../sql/doctor.sql", name = "doctor", requires = ["shards"]);
extension_sql_file!("../sql/views.sql", name = "views", requires = ["doctor"]);

/// What lies in shared memory.
static AREAS: [&shared_memory::Area; 2] = [&flagging::wake::AREA, &service::shared::AREA];

/// Runs when PostgreSQL loads the library.
#[allow(non_snake_case)]
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    shortage::guard();
    settings::register();
    crate::ivf::register();
    // SAFETY: a variable that the postmaster sets while it preloads libraries.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } && !binary_upgrade() {
        shared_memory::request(&AREAS);
        crate::flagging::register_workers();
        crate::service::register();
    }
}

/// Whether pg_upgrade runs this server, the old one or the new one. It has read the transaction counters before it
/// copies the tables: whoever writes in between leaves rows that the new cluster cannot tell the age of. Nothing of
/// ours may start or write there by itself.
pub(crate) fn binary_upgrade() -> bool {
    // SAFETY: a variable that is set from the command line before any library is loaded.
    unsafe { pg_sys::IsBinaryUpgrade }
}
