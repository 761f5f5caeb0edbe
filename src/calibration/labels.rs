//! References that labels name, for `copy_calibrate(…, labels => …)`.

use pgrx::prelude::*;

use super::copy_calibrate::owned;
use crate::failure::boundary;
use crate::rights;
use crate::statements::{Parameter, change, select};
use crate::types::Vector;

/// Descriptors of the references with these keys, read with the rights of the owner of the set's relation.
#[pg_extern(sql = false)]
fn labelled_references(
    reference_set: &str,
    keys: Vec<Option<String>>,
) -> TableIterator<'static, (name!(reference, String), name!(descriptor, Vector))> {
    boundary(|| {
        // SAFETY: reads a variable of this backend.
        let user = unsafe { pg_sys::GetUserId() };
        let set = owned(reference_set, user, "")?;
        let query = select(
            "SELECT copymatch.reference_query($1)",
            &[Parameter::of(reference_set)],
            |row| row.required::<String>(1),
        )?
        .pop()
        .unwrap_or_default();
        let sql = format!(
            "SELECT r.reference, r.descriptor FROM ({query}) r WHERE r.descriptor IS NOT NULL \
             AND r.reference = ANY ($1)"
        );
        let found = rights::as_role(rights::owner_of(set.relation)?, || {
            change(&sql, &[Parameter::of(keys)], |row| {
                // Copied: the row's memory is SPI's.
                Ok((
                    row.required::<String>(1)?,
                    row.required::<Vector>(2)?.elements().to_vec(),
                ))
            })
        })?;
        Ok(TableIterator::new(found.into_iter().map(|(reference, descriptor)| {
            (reference, Vector::from_elements(&descriptor))
        })))
    })
}
