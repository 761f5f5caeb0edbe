//! Whether an operator class has what this access method needs (`amvalidate`).
use pgrx::prelude::*;

use super::filters::Kind;
use super::operators::{BOUND_STRATEGY, DISTANCE_STRATEGY, KIND_PROCEDURE};
use crate::failure::{Failure, boundary};

/// Checks an operator class and says what is wrong at INFO, as PostgreSQL's own access methods do.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn amvalidate(class: pg_sys::Oid) -> bool {
    boundary(|| {
        let Some(Class { name, family, input }) = Class::find(class)? else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("operator class {} does not exist", class.to_u32()),
            ));
        };
        let mut valid = true;
        let mut complain = |what: &str| {
            pgrx::info!("operator class \"{name}\" of access method ivf {what}");
            valid = false;
        };
        // SAFETY: look-ups in system catalogues inside a transaction.
        unsafe {
            if let Some(kind) = Kind::of_type(input)
                && pg_sys::get_opfamily_member(family, input, input, DISTANCE_STRATEGY as i16) == pg_sys::InvalidOid
            {
                for strategy in kind.strategies() {
                    let operator = pg_sys::get_opfamily_member(family, input, input, strategy as i16);
                    if operator == pg_sys::InvalidOid {
                        complain(&format!("is missing the comparison operator, number {strategy}"));
                    } else if returns(operator) != pg_sys::BOOLOID {
                        complain(&format!("has an operator {strategy} that does not return boolean"));
                    }
                }
                support(family, input, &mut complain);
                return Ok(valid);
            }
            let distance = pg_sys::get_opfamily_member(family, input, input, DISTANCE_STRATEGY as i16);
            if distance == pg_sys::InvalidOid {
                complain("is missing the distance operator, number 1");
            } else if returns(distance) != pg_sys::FLOAT8OID {
                complain("has a distance operator that does not return double precision");
            } else if pg_sys::get_op_opfamily_sortfamily(distance, family) == pg_sys::InvalidOid {
                complain("has a distance operator that is not declared FOR ORDER BY");
            }
            let bound = pg_sys::get_opfamily_member(family, input, pg_sys::FLOAT8OID, BOUND_STRATEGY as i16);
            if bound == pg_sys::InvalidOid {
                complain("is missing the bound operator, number 2");
            } else if returns(bound) != pg_sys::BOOLOID {
                complain("has a bound operator that does not return boolean");
            }
            support(family, input, &mut complain);
        }
        Ok(valid)
    })
}

/// Looks at an operator class's support function.
///
/// # Safety
/// Inside a transaction.
unsafe fn support(family: pg_sys::Oid, input: pg_sys::Oid, complain: &mut dyn FnMut(&str)) {
    // SAFETY: look-ups in system catalogues.
    unsafe {
        let kind = pg_sys::get_opfamily_proc(family, input, input, KIND_PROCEDURE as i16);
        if kind == pg_sys::InvalidOid {
            complain("is missing support function 1");
        } else if pg_sys::get_func_rettype(kind) != pg_sys::INT4OID || takes(kind) != [pg_sys::INTERNALOID] {
            complain("has a support function 1 with a wrong signature: it must be (internal) returning integer");
        }
    }
}

/// The type that an operator returns.
///
/// # Safety
/// Inside a transaction.
unsafe fn returns(operator: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a look-up in a system catalogue.
    unsafe { pg_sys::get_func_rettype(pg_sys::get_opcode(operator)) }
}

/// The types of a function's arguments.
///
/// # Safety
/// Inside a transaction.
unsafe fn takes(function: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let (mut types, mut count) = (std::ptr::null_mut(), 0);
    // SAFETY: PostgreSQL allocates as many types as it says.
    unsafe {
        pg_sys::get_func_signature(function, &mut types, &mut count);
        match usize::try_from(count) {
            Ok(count) if count > 0 => std::slice::from_raw_parts(types, count).to_vec(),
            _ => Vec::new(),
        }
    }
}

/// What `pg_opclass` says of an operator class.
struct Class {
    name: String,
    family: pg_sys::Oid,
    input: pg_sys::Oid,
}

impl Class {
    fn find(class: pg_sys::Oid) -> Result<Option<Self>, Failure> {
        // SAFETY: a row of the cache is valid until it is released; everything is copied before.
        unsafe {
            let cache = pg_sys::SysCacheIdentifier::CLAOID as core::ffi::c_int;
            let row = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(class));
            if row.is_null() {
                return Ok(None);
            }
            let form = pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_opclass>();
            let found = Class {
                name: pg_sys::name_data_to_str(&(*form).opcname).to_owned(),
                family: (*form).opcfamily,
                input: (*form).opcintype,
            };
            pg_sys::ReleaseSysCache(row);
            Ok(Some(found))
        }
    }
}
