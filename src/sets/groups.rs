//! Groups: several sets under one name.

use pgrx::prelude::*;

use super::arguments::{invalid, null};
use super::owned::{OwnedSet, has_rights_of, is_superuser, valid_name};
use crate::failure::{Failure, boundary};
use crate::matching::gate::current_user;
use crate::rights::as_extension_owner;
use crate::statements::{Parameter, change};

#[pg_extern(sql = false)]
fn copy_create_group(name: Option<&str>, members: Option<Vec<Option<String>>>) {
    boundary(|| {
        let name = valid_name(name, "group")?;
        let members = members
            .filter(|members| !members.is_empty())
            .ok_or_else(|| null("members").hint("A group has one member or more: '{licensed,banned}'."))?
            .into_iter()
            .map(|member| member.ok_or_else(|| null("a member")))
            .collect::<Result<Vec<String>, Failure>>()?;
        let taken = change(
            "SELECT EXISTS (SELECT FROM copymatch.reference_set s WHERE s.name = $1) \
                 OR EXISTS (SELECT FROM copymatch.reference_group g WHERE g.name = $1)",
            &[Parameter::of(name)],
            |row| row.required::<bool>(1),
        )?;
        if taken != [false] {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
                format!("reference set or group \"{name}\" exists already"),
            )
            .hint("Choose another name, or drop it with copy_drop_set or copy_drop_group."));
        }
        let mut ids = Vec::new();
        for member in &members {
            let set = OwnedSet::any(Some(member), pg_sys::AccessShareLock)?;
            if set.negative {
                return Err(invalid(format!("reference set \"{member}\" is negative"))
                    .hint("Negative sets explain matches; they are not searched for copies in a group."));
            }
            ids.push(set.id);
        }
        let user = current_user();
        as_extension_owner(|| {
            change(
                "INSERT INTO copymatch.reference_group (name, members, member_ids, owner, created_by) \
                 VALUES ($1, $2, $3, $4::pg_catalog.regrole, $5)",
                &[
                    Parameter::of(name),
                    Parameter::of(members),
                    Parameter::of(ids),
                    Parameter::of(user),
                    Parameter::of(crate::matching::gate::role_name(user)),
                ],
                |_| Ok(()),
            )
        })?;
        Ok(())
    })
}

#[pg_extern(sql = false)]
fn copy_drop_group(name: Option<&str>) {
    boundary(|| {
        let name = name.ok_or_else(|| null("the name of a group"))?;
        let owner = change(
            "SELECT g.owner::pg_catalog.oid FROM copymatch.reference_group g WHERE g.name = $1",
            &[Parameter::of(name)],
            |row| row.get::<pg_sys::Oid>(1),
        )?;
        let Some(owner) = owner.first() else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("group \"{name}\" does not exist"),
            )
            .hint("SELECT name, members FROM copymatch.reference_group lists them."));
        };
        if !is_superuser() && !owner.is_some_and(has_rights_of) {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("must be the maker of group \"{name}\""),
            ));
        }
        as_extension_owner(|| {
            change(
                "DELETE FROM copymatch.reference_group g WHERE g.name = $1",
                &[Parameter::of(name)],
                |_| Ok(()),
            )
        })?;
        Ok(())
    })
}
