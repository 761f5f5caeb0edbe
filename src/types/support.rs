//! What the planner is told of casts that check dimensions: one that has nothing to check needs no call.
//!
//! So `ALTER TABLE … TYPE` leaves rows as they are where only the type's name changes, and an expression over a column
//! that is cast to the type of another extension with the same format still meets the column's index.
use pgrx::pg_sys;
use pgrx::prelude::*;

/// PostgreSQL's version-1 calling convention, for the function below.
#[unsafe(no_mangle)]
extern "C" fn pg_finfo_dimensions_support() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// Planner support of functions `(value, type modifier, explicit)` that give the value back, once its
/// dimensions are those asked for.
///
/// # Safety
/// Called by the planner.
#[pg_guard]
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dimensions_support(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the planner passes a node that says what it asks for.
    let simpler = unsafe {
        let request = (*fcinfo).args.as_slice(1)[0].value.cast_mut_ptr::<pg_sys::Node>();
        match (*request).type_ {
            pg_sys::NodeTag::T_SupportRequestSimplify => {
                without_check((*request.cast::<pg_sys::SupportRequestSimplify>()).fcall)
            }
            _ => None,
        }
    };
    pg_sys::Datum::from(simpler.unwrap_or(std::ptr::null_mut()))
}

/// The value under another name, where it is known to have the dimensions.
///
/// # Safety
/// `call` must be valid.
unsafe fn without_check(call: *mut pg_sys::FuncExpr) -> Option<*mut pg_sys::Node> {
    // SAFETY: the caller vouches for the node; the arguments are valid expressions, whose tags say what they are.
    unsafe {
        let arguments = (*call).args.as_ref().filter(|list| list.length == 3)?;
        let at = |number: usize| (*arguments.elements.add(number)).ptr_value.cast::<pg_sys::Node>();
        let asked = at(1);
        if (*asked).type_ != pg_sys::NodeTag::T_Const || (*asked.cast::<pg_sys::Const>()).constisnull {
            return None;
        }
        let asked = (*asked.cast::<pg_sys::Const>()).constvalue.value() as i32;
        let mut value = at(0);
        while (*value).type_ == pg_sys::NodeTag::T_RelabelType {
            value = (*value.cast::<pg_sys::RelabelType>()).arg.cast();
        }
        // A modifier is the number of dimensions with these types only: the function's own, and those that
        // are them in all but name.
        let (kind, taken) = (pg_sys::exprType(value), pg_sys::exprType(at(0)));
        let result = (*call).funcresulttype;
        let is_ours = kind == taken || kind == result || pg_sys::IsBinaryCoercible(kind, taken);
        if asked >= 0 && (!is_ours || pg_sys::exprTypmod(value) != asked) {
            return None;
        }
        let none = pg_sys::InvalidOid;
        let format = (*call).funcformat;
        Some(pg_sys::applyRelabelType(value, result, asked, none, format, -1, false))
    }
}
