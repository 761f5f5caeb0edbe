//! What the dashboard needs beyond SQL: small pictures, and the page itself.

use imaging::{Filter, encode_jpeg, resize};
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::guarded::subtransaction;
use super::key::{Canonical, condition};
use crate::embed::picture;
use crate::failure::{Failure, boundary};
use crate::json::Json;
use crate::rights::as_role;
use crate::statements::{Parameter, select};

/// Longest side of a thumbnail that can be asked for.
const MOST_PIXELS: i32 = 1024;

const QUALITY: u8 = 80;

#[pg_extern(sql = false)]
fn copy_thumbnail(image: &[u8], side: i32) -> Vec<u8> {
    boundary(|| small_jpeg(image, side))
}

fn small_jpeg(image: &[u8], side: i32) -> Result<Vec<u8>, Failure> {
    let side = u32::try_from(side)
        .ok()
        .filter(|_| (8..=MOST_PIXELS).contains(&side))
        .ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("side is {side}"),
            )
            .hint(format!(
                "The longest side of the thumbnail in pixels, 8 to {MOST_PIXELS}."
            ))
        })?;
    let picture = picture::read(image, Some(side))?;
    let longest = picture.width().max(picture.height()).max(1);
    let scaled = |length: u32| {
        let length = u64::from(length) * u64::from(side) / u64::from(longest);
        u32::try_from(length).unwrap_or(side).max(1)
    };
    let small = if longest > side {
        resize(
            &picture,
            scaled(picture.width()),
            scaled(picture.height()),
            Filter::Bicubic,
        )?
    } else {
        picture
    };
    Ok(encode_jpeg(&small, QUALITY)?)
}

/// A row's image as a thumbnail in base64. None where there is no such row, or the caller may not see its image:
/// whatever goes wrong is a picture not shown.
#[pg_extern(sql = false)]
fn thumbnail_of(
    relation: pg_sys::Oid,
    image: &str,
    key: Vec<Option<String>>,
    value: &str,
    side: i32,
) -> Option<String> {
    boundary(|| {
        let Some(key) = key.into_iter().collect::<Option<Vec<String>>>() else {
            return Ok(None);
        };
        match subtransaction(|| thumbnail(relation, image, &key, value, side)) {
            Ok(found) => Ok(found),
            Err(error) if error.is_cancel() => error.again(),
            Err(_) => Ok(None),
        }
    })
}

fn thumbnail(
    relation: pg_sys::Oid,
    image: &str,
    key: &[String],
    value: &str,
    side: i32,
) -> Result<Option<String>, Failure> {
    let values = match key {
        [_] => Some(vec![value.to_owned()]),
        _ => flagging::split_record(value).filter(|values| values.len() == key.len()),
    };
    let Some(values) = values else { return Ok(None) };
    let mut columns = key.to_vec();
    columns.push(image.to_owned());
    let found = select(
        "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), c.relowner, o.rolsuper, \
                c.relkind IN ('r', 'p', 'm') AND NOT pg_catalog.row_security_active(c.oid) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
              JOIN pg_catalog.pg_roles o ON o.oid = c.relowner \
         WHERE c.oid = $1 AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
           AND (SELECT pg_catalog.bool_and(pg_catalog.has_column_privilege(c.oid, u.col, 'SELECT')) \
           FROM pg_catalog.unnest($2) AS u(col))",
        &[Parameter::of(relation), Parameter::of(columns)],
        |row| {
            Ok((
                row.required::<String>(1)?,
                row.required::<pg_sys::Oid>(2)?,
                row.required::<bool>(3)?,
                row.required::<bool>(4)?,
            ))
        },
    )?;
    let Some((name, owner, by_superuser, plain)) = found.into_iter().next() else {
        return Ok(None);
    };
    let statement = format!(
        "SELECT r.{} FROM {name} r WHERE {} LIMIT 1",
        quote_identifier(image),
        condition("r", relation, &name, key)?
    );
    let read = || {
        let _canonical = Canonical::settings();
        select(&statement, &[Parameter::of(values)], |row| row.get::<Vec<u8>>(1))
    };
    // The reader may read these rows; code that hangs on the table (its key's operators, its indexes) runs with its
    // owner's rights. What a view or a policy gives depends on the reader, with whose rights its functions run: only
    // where a superuser made it.
    let images = if plain {
        as_role(owner, read)?
    } else if by_superuser {
        read()?
    } else {
        Vec::new()
    };
    let Some(image) = images.into_iter().flatten().next() else {
        return Ok(None);
    };
    let small = small_jpeg(&image, side)?;
    Ok(select(
        "SELECT pg_catalog.translate(pg_catalog.encode($1, 'base64'), E'\\n', '')",
        &[Parameter::of(small)],
        |row| row.required::<String>(1),
    )?
    .into_iter()
    .next())
}

#[pg_extern(sql = false)]
fn render_dashboard(data: Json) -> String {
    boundary(|| {
        flagging::render(data.0).map_err(|error| {
            Failure::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, error.to_string())
                .hint("copymatch.dashboard() collects the data for this function.")
        })
    })
}
