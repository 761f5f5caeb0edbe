//! What a flagging trigger says of a table of uploads, and an upload read by its key with the
//! rights of that table's owner.

use flagging::{Mode, Options};
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::key::{Canonical, condition};
use crate::failure::Failure;
use crate::rights::as_role;
use crate::statements::{Parameter, select};

/// An enabled flagging trigger as it stands now. Nothing else says what is read and matched: not an entry of the queue.
pub struct Uploads {
    /// The table that the trigger was made on; of a partition's clone, the partitioned table.
    pub relation: pg_sys::Oid,
    /// Whose rights references are read with.
    pub owner: pg_sys::Oid,
    /// Schema and name, quoted.
    pub name: String,
    pub trigger: String,
    pub arguments: Vec<String>,
    pub options: Options,
}

/// The failure that a trigger's arguments are.
pub fn invalid_options(error: &flagging::OptionError) -> Failure {
    Failure::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, error.to_string()).hint(error.hint())
}

const TRIGGERS: &str = "\
    SELECT t.tgname::pg_catalog.text, t.tgargs, t.tgnargs::pg_catalog.int4, c.relowner, \
           pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) \
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE t.tgrelid = $1 AND t.tgparentid = 0 AND t.tgenabled <> 'D' AND c.relkind IN ('r', 'p', 'f') \
      AND t.tgfoid = (SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_extension e \
                          ON e.extnamespace = p.pronamespace AND e.extname = 'copymatch' \
                      WHERE p.proname = 'copy_flag' AND p.pronargs = 0) \
    ORDER BY t.tgname";

/// A row of TRIGGERS.
struct Standing {
    trigger: String,
    arguments: Vec<String>,
    owner: pg_sys::Oid,
    name: String,
}

impl Standing {
    fn all(relation: pg_sys::Oid) -> Result<Vec<Standing>, Failure> {
        select(TRIGGERS, &[Parameter::of(relation)], |row| {
            let packed: Vec<u8> = row.required(2)?;
            let count = usize::try_from(row.required::<i32>(3)?).unwrap_or(0);
            Ok(Standing {
                trigger: row.required(1)?,
                arguments: packed
                    .split(|&byte| byte == 0)
                    .take(count)
                    .map(|argument| String::from_utf8_lossy(argument).into_owned())
                    .collect(),
                owner: row.required(4)?,
                name: row.required(5)?,
            })
        })
    }

    fn uploads(self, relation: pg_sys::Oid) -> Result<Uploads, Failure> {
        Ok(Uploads {
            relation,
            owner: self.owner,
            name: self.name,
            trigger: self.trigger,
            options: Options::parse(&self.arguments).map_err(|error| invalid_options(&error))?,
            arguments: self.arguments,
        })
    }
}

impl Uploads {
    /// The enabled flagging triggers of a table, or the one of this name.
    pub fn all(relation: pg_sys::Oid, trigger: Option<&str>) -> Result<Vec<Uploads>, Failure> {
        Standing::all(relation)?
            .into_iter()
            .filter(|one| trigger.is_none_or(|name| name == one.trigger))
            .map(|one| one.uploads(relation))
            .collect()
    }

    /// The enabled trigger of this name; where it was renamed, the one with these arguments.
    pub fn find(relation: pg_sys::Oid, trigger: Option<&str>, arguments: &[String]) -> Result<Uploads, Failure> {
        let mut standing = Standing::all(relation)?;
        let at = standing
            .iter()
            .position(|one| trigger == Some(one.trigger.as_str()))
            .or_else(|| standing.iter().position(|one| one.arguments == arguments));
        match at {
            Some(at) => standing.swap_remove(at).uploads(relation),
            None => Err(Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                match trigger {
                    Some(trigger) => format!("flagging trigger \"{trigger}\" is gone, or disabled"),
                    None => "the flagging trigger is gone, or disabled".to_owned(),
                },
            )
            .hint(
                "Make or enable the trigger again and call copy_retry_queue(), or forget the entry with \
                 copy_clear_queue().",
            )),
        }
    }

    /// Checks that the columns are there and of types that can be used, and gives the condition that
    /// finds an upload by its key.
    pub fn check(&self) -> Result<String, Failure> {
        let columns = select(
            "SELECT a.attname::pg_catalog.text, a.atttypid, a.attgenerated = 'v' FROM pg_catalog.pg_attribute a \
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped",
            &[Parameter::of(self.relation)],
            |row| {
                Ok((
                    row.required::<String>(1)?,
                    row.required::<pg_sys::Oid>(2)?,
                    row.required::<bool>(3)?,
                ))
            },
        )?;
        let named = std::iter::once(&self.options.image)
            .chain(&self.options.key)
            .chain(&self.options.uploader);
        for name in named {
            let Some((_, kind, is_virtual)) = columns.iter().find(|(column, ..)| column == name) else {
                return Err(self.column_failure(name, PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, "does not exist"));
            };
            // The trigger looks at image and key; who uploaded, in the asynchronous form, only the
            // query that reads the row.
            let by_query = self.options.mode == Mode::Async
                && self.options.uploader.as_ref() == Some(name)
                && name != &self.options.image
                && !self.options.key.contains(name);
            if *is_virtual && !by_query {
                return Err(self
                    .column_failure(
                        name,
                        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                        "is a virtual generated column, of which triggers see no value",
                    )
                    .hint("Make the column with GENERATED ALWAYS AS (…) STORED, or name an ordinary column."));
            }
            if name == &self.options.image && *kind != pg_sys::BYTEAOID {
                return Err(self.column_failure(
                    name,
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    "is not of type bytea",
                ));
            }
        }
        condition("u", self.relation, &self.name, &self.options.key)
    }

    /// Image and uploader of the upload with this key, as the table's owner may read them; None where it
    /// is gone, or its image is.
    #[allow(clippy::type_complexity)]
    pub fn read(&self, key: &[String]) -> Result<Option<(Vec<u8>, Option<String>)>, Failure> {
        let condition = self.check()?;
        let statement = format!(
            "SELECT u.{}, {} FROM {} u WHERE {condition} LIMIT 1",
            quote_identifier(&self.options.image),
            match &self.options.uploader {
                Some(uploader) => format!("u.{}", quote_identifier(uploader)),
                None => "NULL::pg_catalog.text".to_owned(),
            },
            self.name,
        );
        let found = as_role(self.owner, || {
            let _canonical = Canonical::settings();
            select(&statement, &[Parameter::of(key.to_vec())], |row| {
                Ok((row.get::<Vec<u8>>(1)?, row.text(2)))
            })
        })?;
        Ok(found
            .into_iter()
            .next()
            .and_then(|(image, uploader)| Some((image?, uploader))))
    }

    fn column_failure(&self, column: &str, code: PgSqlErrorCode, what: &str) -> Failure {
        Failure::new(
            code,
            format!(
                "column \"{column}\" of relation {}, which trigger \"{}\" names, {what}",
                self.name, self.trigger
            ),
        )
        .hint("Columns stand in the trigger's arguments as text: after a rename, drop the trigger and make it again.")
    }
}
