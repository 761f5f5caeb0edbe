//! A reference's key as text: one way whatever the session's settings are, so that findings, dismissals and references
//! out of use, which are kept by it, hold in every session.

use pgrx::{AnyElement, FromDatum, prelude::*};

use crate::failure::boundary;
use crate::flagging::Canonical;

/// Types whose text no setting changes, and which are most keys.
const PLAIN: [pg_sys::Oid; 10] = [
    pg_sys::INT8OID,
    pg_sys::INT4OID,
    pg_sys::INT2OID,
    pg_sys::TEXTOID,
    pg_sys::VARCHAROID,
    pg_sys::BPCHAROID,
    pg_sys::UUIDOID,
    pg_sys::NUMERICOID,
    pg_sys::OIDOID,
    pg_sys::BOOLOID,
];

/// What `value::text` gives under canonical settings.
#[pg_extern(sql = false)]
fn key_text(value: AnyElement) -> Option<String> {
    boundary(|| {
        // SAFETY: the type is the value's own, of which PostgreSQL knows how to cast it to text, or to write it out.
        unsafe {
            let kind = pg_sys::getBaseType(value.oid());
            let _canonical = (!PLAIN.contains(&kind)).then(Canonical::settings);
            let mut function = pg_sys::InvalidOid;
            let path = pg_sys::find_coercion_pathway(
                pg_sys::TEXTOID,
                kind,
                pg_sys::CoercionContext::COERCION_EXPLICIT,
                &mut function,
            );
            if path == pg_sys::CoercionPathType::COERCION_PATH_FUNC {
                let text = pg_sys::OidFunctionCall1Coll(function, pg_sys::DEFAULT_COLLATION_OID, value.datum());
                return Ok(String::from_datum(text, false));
            }
            let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
            pg_sys::getTypeOutputInfo(kind, &mut output, &mut is_varlena);
            let written = pg_sys::OidOutputFunctionCall(output, value.datum());
            let text = std::ffi::CStr::from_ptr(written).to_string_lossy().into_owned();
            pg_sys::pfree(written.cast());
            Ok(Some(text))
        }
    })
}
