//! What `copy_doctor` looks at in a flagging trigger: whether the next upload would fail.

use pgrx::prelude::*;

use super::flag::references;
use super::upload::Uploads;
use crate::failure::{Failure, boundary};
use crate::rights::as_role;

/// Why the next upload would fail; None where nothing is known against it.
#[pg_extern(sql = false)]
fn flagging_health(relation: pg_sys::Oid, trigger: &str) -> Option<String> {
    boundary(|| Ok(check(relation, trigger).err().map(|failure| failure.line())))
}

fn check(relation: pg_sys::Oid, trigger: &str) -> Result<(), Failure> {
    let uploads = Uploads::find(relation, Some(trigger), &[])?;
    uploads.check()?;
    as_role(uploads.owner, || references(&uploads.options.set).map(|_| ()))
}
