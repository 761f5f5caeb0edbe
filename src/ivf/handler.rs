//! What PostgreSQL asks of an access method, and who answers.
use pgrx::prelude::*;

use super::{build, cost, insert, options, scan, vacuum, validate};

/// PostgreSQL's version-1 calling convention, for the function below.
#[unsafe(no_mangle)]
extern "C" fn pg_finfo_ivf_handler() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// The handler named by `CREATE ACCESS METHOD`. PostgreSQL calls it without the argument that it is declared with.
#[pg_guard]
#[unsafe(no_mangle)]
extern "C-unwind" fn ivf_handler(_call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: allocates a node in the current memory context, all zeros but its tag: false and none for every field.
    let mut routine = unsafe { PgBox::<pg_sys::IndexAmRoutine>::alloc_node(pg_sys::NodeTag::T_IndexAmRoutine) };
    routine.amstrategies = super::filters::GREATER;
    routine.amsupport = super::operators::KIND_PROCEDURE;
    // It orders by a distance operator, forwards; a scan needs no condition.
    routine.amcanorderbyop = true;
    routine.amoptionalkey = true;
    // Conditions on the columns behind the vector are judged in the index. They are key columns, since PostgreSQL makes
    // no condition of the index's from one on an included column, and its executor takes none.
    routine.amcanmulticol = true;
    routine.amsearcharray = true;
    routine.amsearchnulls = true;
    routine.amusemaintenanceworkmem = true;
    routine.amparallelvacuumoptions =
        (pg_sys::VACUUM_OPTION_PARALLEL_BULKDEL | pg_sys::VACUUM_OPTION_PARALLEL_COND_CLEANUP) as u8;
    routine.amkeytype = pg_sys::InvalidOid;
    routine.ambuild = Some(build::ambuild);
    routine.ambuildempty = Some(build::ambuildempty);
    routine.ambuildphasename = Some(build::ambuildphasename);
    routine.aminsert = Some(insert::aminsert);
    routine.ambulkdelete = Some(vacuum::ambulkdelete);
    routine.amvacuumcleanup = Some(vacuum::amvacuumcleanup);
    routine.amcostestimate = Some(cost::amcostestimate);
    routine.amoptions = Some(options::amoptions);
    routine.amvalidate = Some(validate::amvalidate);
    routine.ambeginscan = Some(scan::ambeginscan);
    routine.amrescan = Some(scan::amrescan);
    routine.amgettuple = Some(scan::amgettuple);
    routine.amendscan = Some(scan::amendscan);
    pg_sys::Datum::from(routine.into_pg())
}
