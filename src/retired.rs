//! Functions that earlier versions of the extension declared and this one no longer has. Between the new
//! library's installation and `ALTER EXTENSION copymatch UPDATE` the catalogue still names them: whoever
//! calls one is told what to do.

use pgrx::prelude::*;

use crate::failure::{Failure, boundary};

/// What takes the place of a function that is gone.
fn outdated() -> pg_sys::Datum {
    boundary(|| {
        Err(Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "this function belongs to an older version of copymatch than the installed library",
        )
        .hint("ALTER EXTENSION copymatch UPDATE"))
    })
}

/// `retired!(name, pg_finfo_name)`: keeps the symbol `name`, which update scripts of released versions still mention.
macro_rules! retired {
    ($name:ident, $finfo:ident) => {
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $finfo() -> &'static pg_sys::Pg_finfo_record {
            const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }

        #[doc(hidden)]
        #[pg_guard]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $name(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            outdated()
        }
    };
}

// The queue's loop in PL/pgSQL, up to 0.2.0.
retired!(record_text_wrapper, pg_finfo_record_text_wrapper);
retired!(read_upload_wrapper, pg_finfo_read_upload_wrapper);
retired!(embed_uploads_wrapper, pg_finfo_embed_uploads_wrapper);
retired!(queue_settings_wrapper, pg_finfo_queue_settings_wrapper);

// Of a model, not of a calibration, up to 0.2.0.
retired!(background_of_wrapper, pg_finfo_background_of_wrapper);
retired!(background_sample_wrapper, pg_finfo_background_sample_wrapper);

retired!(check_filter_wrapper, pg_finfo_check_filter_wrapper);
// copy_match with fewer parameters, up to 0.2.0: the present one is copy_match_image_wrapper.
retired!(copy_match_wrapper, pg_finfo_copy_match_wrapper);
