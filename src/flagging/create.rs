//! `copy_create_flagging`: makes a flagging trigger, and says at once what would otherwise fail at the first upload.

use flagging::{OnBadImage, Options};
use pgrx::IntoDatum;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use super::flag::references;
use super::upload::{Uploads, invalid_options};
use crate::failure::{Failure, boundary};
use crate::own_schema::OwnSchema;
use crate::record::Record;
use crate::rights::as_role;
use crate::sharding::citus;
use crate::statements::{Parameter, change, select};

/// Bytes of a name in PostgreSQL.
const LONGEST_NAME: usize = 63;

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn copy_create_flagging(
    relation: Option<pg_sys::Oid>,
    image: Option<&str>,
    key: Option<&str>,
    reference_set: Option<&str>,
    uploader: Option<&str>,
    mode: Option<&str>,
    on_copy: Option<&str>,
    verdict: Option<&str>,
    on_bad_image: Option<&str>,
    notify: Option<bool>,
    k: Option<i32>,
    trigger_name: Option<&str>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> String {
    boundary(|| {
        let (Some(relation), Some(image), Some(key), Some(set)) = (relation, image, key, reference_set) else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "copy_create_flagging needs a table, its image and key columns, and a reference set",
            )
            .hint("copy_create_flagging('uploads', 'image', 'id', 'licensed')"));
        };
        let mut arguments = vec![image.to_owned(), key.to_owned(), set.to_owned()];
        let number = k.map(|k| k.to_string());
        let notify = notify.map(|notify| if notify { "on" } else { "off" });
        for (name, value) in [
            ("uploader", uploader),
            ("mode", mode),
            ("on_copy", on_copy),
            ("verdict", verdict),
            ("on_bad_image", on_bad_image),
            ("notify", notify),
            ("k", number.as_deref()),
        ] {
            if let Some(value) = value {
                arguments.push(format!("{name}={value}"));
            }
        }
        let options = Options::parse(&arguments).map_err(|error| invalid_options(&error))?;
        let trigger = trigger_name.map_or_else(|| name_for(set), str::to_owned);
        let uploads = table(relation, trigger, arguments, options)?;
        citus::refuse(
            relation,
            &uploads.name,
            "it takes no trigger",
            "Keep uploads in a table of the coordinator's own, or search with copy_match in the statement that stores \
             the upload.",
        )?;
        uploads.check()?;
        as_role(uploads.owner, || references(set).map(|_| ()))?;
        let own_schema = OwnSchema::of(fcinfo)?;
        let quoted: Vec<String> = uploads.arguments.iter().map(quote_literal).collect();
        change(
            &format!(
                "CREATE TRIGGER {} AFTER INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION {}.copy_flag({})",
                quote_identifier(&uploads.trigger),
                uploads.name,
                own_schema.schema,
                quoted.join(", ")
            ),
            &[],
            |_| Ok(()),
        )?;
        Ok(uploads.trigger)
    })
}

fn name_for(set: &str) -> String {
    let mut name = format!("flag_{set}");
    while name.len() > LONGEST_NAME {
        name.pop();
    }
    name
}

/// The table that is to have the trigger, which must be the caller's.
fn table(relation: pg_sys::Oid, trigger: String, arguments: Vec<String>, options: Options) -> Result<Uploads, Failure> {
    let found = select(
        "SELECT c.relowner, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), \
                c.relkind IN ('r', 'p'), pg_catalog.pg_has_role(c.relowner, 'USAGE') \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        &[Parameter::of(relation)],
        |row| {
            Ok((
                row.required::<pg_sys::Oid>(1)?,
                row.required::<String>(2)?,
                row.required::<bool>(3)?,
                row.required::<bool>(4)?,
            ))
        },
    )?;
    let Some((owner, name, is_table, own)) = found.into_iter().next() else {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("there is no relation with OID {}", u32::from(relation)),
        ));
    };
    if !is_table {
        return Err(
            Failure::new(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, format!("{name} is no table"))
                .hint("Uploads are flagged where they are written: make the trigger on the table behind it."),
        );
    }
    if !own {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must be owner of table {name}"),
        )
        .hint("References are read with the rights of the table's owner, who therefore makes the trigger himself."));
    }
    Ok(Uploads {
        relation,
        owner,
        name,
        trigger,
        arguments,
        options,
    })
}

#[pg_extern(sql = false)]
fn flag_options(arguments: Vec<Option<String>>, fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        let arguments: Vec<String> = arguments.into_iter().map(Option::unwrap_or_default).collect();
        let options = Options::parse(&arguments).map_err(|error| invalid_options(&error))?;
        Record::form(
            fcinfo,
            vec![
                options.image.into_datum(),
                options.key.into_datum(),
                options.set.into_datum(),
                options.uploader.into_datum(),
                (options.on_bad_image == OnBadImage::Skip).into_datum(),
                options.review.into_datum(),
                options.k.into_datum(),
            ],
        )
    })
}
