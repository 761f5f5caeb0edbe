//! `copy_shard_check`: what there is to say of each part of a set; and the indexes that shards lack.

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};
use serde::Deserialize;
use shards::Wanted;

use super::answer::report;
use super::ask::{About, Ask, ask, hex};
use super::failing::{from_shard, is_down, is_lost, is_older_or_none};
use super::living::{give_up, has_no_rows};
use super::parts::{Foreign, Part, leaves};
use crate::embed::catalogue::Model;
use crate::failure::{Failure, boundary};
use crate::flagging::{Ended, subtransaction};
use crate::matching::gate;
use crate::sets::unknown_set;
use crate::statements::{Parameter, change, select};

/// How a part stands; the worst of what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Ok,
    Warning,
    Error,
}

/// What a shard says of itself.
#[derive(Debug, Default, Deserialize)]
struct Report {
    version: String,
    kind: Option<String>,
    dimensions: Option<i64>,
    #[serde(rename = "type")]
    type_name: Option<String>,
    columns: Option<Vec<String>>,
    class: String,
    set: Option<String>,
    model: Option<String>,
    sha256: Option<String>,
    valid: Option<String>,
    broken: Option<String>,
    rows: Option<i64>,
    missing: Option<f64>,
}

/// The set that is checked.
struct Checked {
    name: String,
    relation: pg_sys::Oid,
    table: String,
    descriptor: String,
    key: Vec<String>,
    sketch: Option<String>,
    model: Model,
}

/// What was found about a part.
struct Finding {
    part: Part,
    status: Status,
    reachable: Option<bool>,
    agrees: Option<bool>,
    report: Option<Report>,
    problems: Vec<String>,
    /// Statements, each with where it is to be run before it.
    mends: Vec<String>,
    /// The statement that makes the index that is missing.
    index: Option<String>,
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn copy_shard_check(
    reference_set: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(part, pg_sys::Oid),
        name!(server, Option<String>),
        name!(remote_relation, Option<String>),
        name!(status, &'static str),
        name!(problem, Option<String>),
        name!(mend, Option<String>),
        name!(reachable, Option<bool>),
        name!(version, Option<String>),
        name!(model, Option<String>),
        name!(model_sha256, Option<String>),
        name!(model_agrees, Option<bool>),
        name!(index, Option<String>),
        name!(rows, Option<i64>),
        name!(without_descriptor, Option<i64>),
        name!(options, Vec<String>),
    ),
> {
    boundary(|| {
        let set = Checked::find(reference_set)?;
        let rows: Vec<_> = set.findings()?.into_iter().map(Finding::into_row).collect();
        Ok(TableIterator::new(rows))
    })
}

#[pg_extern(sql = false)]
fn copy_create_shard_indexes(
    reference_set: Option<&str>,
    run: Option<bool>,
) -> TableIterator<
    'static,
    (
        name!(part, pg_sys::Oid),
        name!(server, Option<String>),
        name!(statement, String),
        name!(done, bool),
    ),
> {
    boundary(|| {
        let set = Checked::find(reference_set)?;
        let run = run.unwrap_or(false);
        let mut rows = Vec::new();
        for finding in set.findings()? {
            let Some(statement) = &finding.index else { continue };
            let server = finding.part.foreign.as_ref().map(|foreign| foreign.server.clone());
            if run {
                // The connection that asked holds a snapshot there until this transaction ends: a concurrent build
                // would wait for it.
                let statement = statement.replacen(" CONCURRENTLY", "", 1);
                match &server {
                    Some(server) => by_dblink(server, &statement)?,
                    None => change(&statement, &[], |_| Ok(())).map(|_| ())?,
                }
            }
            rows.push((finding.part.oid, server, statement.clone(), run));
        }
        Ok(TableIterator::new(rows))
    })
}

/// Runs a statement on a server, as the caller's user mapping there. dblink is PostgreSQL's own, but not everywhere
/// installed.
fn by_dblink(server: &str, statement: &str) -> Result<(), Failure> {
    let schema = select(
        "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n \
         ON n.oid = e.extnamespace \
         WHERE e.extname = 'dblink'",
        &[],
        |row| row.required::<String>(1),
    )?;
    let Some(schema) = schema.first() else {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "statements on other servers need the extension dblink",
        )
        .hint("CREATE EXTENSION dblink; or run there what copy_create_shard_indexes gives without run => true."));
    };
    change(
        &format!("SELECT {schema}.dblink_exec($1, $2)"),
        &[Parameter::of(server), Parameter::of(statement)],
        |_| Ok(()),
    )
    .map(|_| ())
}

/// Says of a set that was just made what its shards lack: one WARNING.
pub fn warn_of(name: &str) -> Result<(), Failure> {
    let set = Checked::find(Some(name))?;
    if leaves(set.relation)?.iter().all(|(part, _)| part.foreign.is_none()) {
        return Ok(());
    }
    let lacking: Vec<String> = set
        .findings()?
        .iter()
        .filter(|finding| {
            finding.part.foreign.is_some() && (finding.status == Status::Error || finding.index.is_some())
        })
        .map(|finding| format!("{}: {}.", finding.part.name, finding.problems.join("; ")))
        .collect();
    if !lacking.is_empty() {
        Failure::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("not all shards of reference set \"{name}\" are in order"),
        )
        .detail(lacking.join(" "))
        .hint(format!(
            "SELECT * FROM copy_shard_check({0}) says what mends it; copy_create_shard_indexes({0}) gives or runs the \
             statements for indexes.",
            quote_literal(name)
        ))
        .warn();
    }
    Ok(())
}

impl Checked {
    fn find(name: Option<&str>) -> Result<Checked, Failure> {
        let name = name.ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "the name of a reference set is NULL",
            )
            .hint("SELECT name FROM copymatch.reference_sets lists them.")
        })?;
        let found = change(
            "SELECT s.relation::pg_catalog.oid, s.descriptor_column::pg_catalog.text, \
                    (ARRAY[s.key_column] || s.further_key_columns)::pg_catalog.text[], \
                    s.sketch_column::pg_catalog.text, s.model \
             FROM copymatch.reference_set s WHERE s.name = $1",
            &[Parameter::of(name)],
            |row| {
                Ok((
                    row.required::<pg_sys::Oid>(1)?,
                    row.required::<String>(2)?,
                    row.required::<Vec<String>>(3)?,
                    row.get::<String>(4)?,
                    row.required::<String>(5)?,
                ))
            },
        )?;
        let Some((relation, descriptor, key, sketch, model)) = found.into_iter().next() else {
            return Err(unknown_set(name));
        };
        let table = gate::locked(relation).ok_or_else(|| {
            Failure::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("the relation of reference set \"{name}\" no longer exists"),
            )
        })?;
        Ok(Checked {
            name: name.to_owned(),
            relation,
            table: table.name,
            descriptor,
            key,
            sketch,
            model: Model::find(Some(&model))?,
        })
    }

    fn findings(&self) -> Result<Vec<Finding>, Failure> {
        leaves(self.relation)?
            .into_iter()
            .map(|(part, readable)| self.look(part, readable))
            .collect()
    }

    fn look(&self, part: Part, readable: bool) -> Result<Finding, Failure> {
        let mut finding = Finding {
            part,
            status: Status::Ok,
            reachable: None,
            agrees: None,
            report: None,
            problems: Vec::new(),
            mends: Vec::new(),
            index: None,
        };
        let Some(foreign) = finding.part.foreign.clone() else {
            finding.report = Some(read(&report(&finding.part.name, &self.descriptor)?)?);
            self.judge(&mut finding, None);
            return Ok(finding);
        };
        if !foreign.is_postgres() {
            finding.found(
                Status::Warning,
                format!(
                    "is of foreign data wrapper {}, of which nothing is known",
                    foreign.wrapper
                ),
                None,
            );
            return Ok(finding);
        }
        let readable_by_itself = readable;
        if !readable_by_itself {
            let mend = format!("GRANT SELECT ON {}, {} TO …;", self.table, finding.part.name);
            finding.found(
                Status::Warning,
                "you may not read it by itself, or row-level security holds: searches read the parent as a whole, and \
                 nothing is checked",
                Some(mend),
            );
            return Ok(finding);
        }
        self.options(&mut finding, &foreign)?;
        if finding.status == Status::Error {
            return Ok(finding);
        }
        let part = finding.part.clone();
        let asked = subtransaction(|| {
            let asks = [Ask {
                part: &part,
                number: 0,
                wanted: Wanted::Report,
                payload: 0,
            }];
            ask(&self.about(), &asks, &[Vec::new()])
        });
        match asked {
            Ok(Some(answers)) => {
                finding.reachable = Some(true);
                let text = answers.into_iter().next().unwrap_or_default();
                finding.report = Some(read(&String::from_utf8_lossy(&text))?);
                self.judge(&mut finding, Some(&foreign));
            }
            Ok(None) => finding.found(
                Status::Warning,
                "PostgreSQL does not ship questions to it: searches compute everything here",
                None,
            ),
            Err(ended) => self.unanswered(&mut finding, &foreign, ended)?,
        }
        Ok(finding)
    }

    fn about(&self) -> About<'_> {
        About {
            set: &self.name,
            descriptor: &self.descriptor,
            model: &self.model,
        }
    }

    /// The server's options.
    fn options(&self, finding: &mut Finding, foreign: &Foreign) -> Result<(), Failure> {
        let server = quote_identifier(&foreign.server);
        let adopted = change(
            "SELECT a.atttypid <> $3 FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 \
             AND a.attname = $2::pg_catalog.name",
            &[
                Parameter::of(self.relation),
                Parameter::of(self.descriptor.as_str()),
                Parameter::of(crate::own_schema::OwnSchema::of_type()?.vector),
            ],
            |row| row.required::<bool>(1),
        )?;
        let wanted = if adopted == [true] {
            &["copymatch", "vector"][..]
        } else {
            &["copymatch"]
        };
        let lacking: Vec<&str> = wanted.iter().copied().filter(|one| !foreign.ships(one)).collect();
        if !lacking.is_empty() {
            let now = foreign.option("extensions").unwrap_or_default();
            let all: Vec<&str> = now
                .split(',')
                .map(str::trim)
                .filter(|one| !one.is_empty())
                .chain(lacking)
                .collect();
            let verb = if foreign.option("extensions").is_some() {
                "SET"
            } else {
                "ADD"
            };
            finding.found(
                Status::Error,
                "the server lacks the option extensions: every descriptor is fetched and sorted here",
                Some(format!(
                    "ALTER SERVER {server} OPTIONS ({verb} extensions {});",
                    quote_literal(all.join(", "))
                )),
            );
        }
        match foreign.option("async_capable") {
            Some("true" | "on" | "yes" | "1") => {}
            other => {
                let verb = if other.is_some() { "SET" } else { "ADD" };
                finding.found(
                    Status::Warning,
                    "the server lacks the option async_capable: shards are asked one after the other",
                    Some(format!("ALTER SERVER {server} OPTIONS ({verb} async_capable 'true');")),
                );
            }
        }
        Ok(())
    }

    /// The shard gave an error, or none of its own.
    fn unanswered(&self, finding: &mut Finding, foreign: &Foreign, ended: Ended) -> Result<(), Failure> {
        if let Some((code, message)) = is_down(&ended) {
            finding.reachable = Some(!is_lost(code));
            finding.found(Status::Error, format!("does not answer: {message}"), None);
            if is_lost(code) {
                let part = finding.part.clone();
                let asks = [Ask {
                    part: &part,
                    number: 0,
                    wanted: Wanted::Report,
                    payload: 0,
                }];
                give_up(&self.name, &foreign.server, || {
                    ask(&self.about(), &asks, &[Vec::new()]).map(|_| ())
                })?;
            }
            return Ok(());
        }
        if ended.is_cancel() {
            ended.again();
        }
        let Some((code, message)) = from_shard(&ended) else {
            let why = match ended {
                Ended::Failed(failure) => failure.line(),
                Ended::Raised(error) => message_of(&error),
            };
            finding.found(Status::Error, format!("cannot be asked: {why}"), None);
            return Ok(());
        };
        finding.reachable = Some(true);
        let server = &foreign.server;
        let (relation, table) = (&foreign.relation, &finding.part.name);
        let (problem, mend) = match code {
            _ if has_no_rows(code, &message) => {
                return {
                    finding.found(
                        Status::Warning,
                        format!(
                            "{relation} is a view there: its descriptors cross the wire, and their model is not checked"
                        ),
                        Some(format!("ALTER FOREIGN TABLE {table} OPTIONS (SET table_name '…');")),
                    );
                    Ok(())
                };
            }
            _ if is_older_or_none(code, &message) => (
                format!(
                    "copymatch there is older than this database's {}, or missing",
                    env!("CARGO_PKG_VERSION")
                ),
                Some(there(
                    server,
                    "ALTER EXTENSION copymatch UPDATE; -- or CREATE EXTENSION copymatch;",
                )),
            ),
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE => (
                format!("{relation} does not exist there"),
                Some(format!("ALTER FOREIGN TABLE {table} OPTIONS (SET table_name '…');")),
            ),
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE => (
                message,
                Some(there(server, &format!("GRANT SELECT ON {relation} TO …;"))),
            ),
            _ => (message, None),
        };
        finding.found(Status::Error, problem, mend);
        Ok(())
    }

    /// What a report says. `foreign`: None for a part that lies here.
    fn judge(&self, finding: &mut Finding, foreign: Option<&Foreign>) {
        let Some(report) = finding.report.take() else { return };
        let relation = foreign.map_or(finding.part.name.clone(), |foreign| foreign.relation.clone());
        let column = foreign.map_or(self.descriptor.clone(), |foreign| foreign.column(&self.descriptor));
        let run = |statement: String| match foreign {
            Some(foreign) => there(&foreign.server, &statement),
            None => statement,
        };
        let own = env!("CARGO_PKG_VERSION");
        if foreign.is_some() && shards::is_older(&report.version, own) {
            finding.found(
                Status::Error,
                format!("has copymatch {}, this database {own}", report.version),
                Some(run("ALTER EXTENSION copymatch UPDATE;".to_owned())),
            );
        }
        let known: Vec<String> = report.columns.clone().unwrap_or_default();
        let there_is = |name: &String| known.contains(&foreign.map_or(name.clone(), |foreign| foreign.column(name)));
        let names = self.key.iter().chain([&self.descriptor]).chain(&self.sketch);
        let lacking: Vec<String> = names.filter(|name| !there_is(name)).cloned().collect();
        if report.kind.is_some() && !lacking.is_empty() {
            finding.found(
                Status::Error,
                format!("{relation} has no column \"{}\"", lacking.join("\", \"")),
                foreign.map(|_| {
                    format!(
                        "ALTER FOREIGN TABLE {} ALTER COLUMN … OPTIONS (ADD column_name '…');",
                        finding.part.name
                    )
                }),
            );
        }
        let dimensions = i64::try_from(self.model.dimensions).unwrap_or(0);
        if report.dimensions.is_some_and(|stated| stated != dimensions) {
            finding.found(
                Status::Error,
                format!(
                    "column \"{column}\" is {}({}), model \"{}\" makes {dimensions} dimensions",
                    report.type_name.as_deref().unwrap_or("vector"),
                    report.dimensions.unwrap_or(0),
                    self.model.name
                ),
                None,
            );
        }
        if foreign.is_some() {
            self.judge_model(finding, &report, &relation, &column, &run);
        }
        let name = quote_identifier(&column);
        let create = format!(
            "CREATE INDEX CONCURRENTLY ON {relation} USING ivf ({name} {});",
            report.class
        );
        if let Some(broken) = &report.broken {
            finding.found(
                Status::Error,
                format!("index {broken} is not valid: a build of it failed"),
                Some(run(format!("REINDEX INDEX CONCURRENTLY {broken};"))),
            );
        } else if report.valid.is_none() && report.kind.is_some() {
            // A partitioned table takes no concurrent build.
            let create = if report.kind.as_deref() == Some("p") {
                create.replacen(" CONCURRENTLY", "", 1)
            } else {
                create
            };
            finding.index = Some(create.clone());
            finding.found(
                Status::Warning,
                format!("no index of column \"{column}\" for the cosine distance: every search reads all rows"),
                Some(run(create)),
            );
        }
        if report.missing.is_some_and(|missing| missing >= 1.0) && self.sketch.is_some() {
            let fill = format!(
                "CALL copy_fill_set({});",
                quote_literal(report.set.as_deref().unwrap_or("…"))
            );
            finding.found(
                Status::Warning,
                format!("about {} rows have no descriptor", report.missing.unwrap_or(0.0)),
                Some(run(fill)),
            );
        }
        finding.report = Some(report);
    }

    fn judge_model(
        &self,
        finding: &mut Finding,
        report: &Report,
        relation: &str,
        column: &str,
        run: &impl Fn(String) -> String,
    ) {
        let own = hex(&self.model.sha256);
        let agrees = match (&report.model, &report.sha256) {
            (None, _) => None,
            (Some(_), Some(sha256)) => Some(*sha256 == own),
            (Some(model), None) => Some(*model == self.model.name),
        };
        finding.agrees = agrees;
        match agrees {
            Some(true) => {}
            Some(false) => finding.found(
                Status::Error,
                format!(
                    "its descriptors are of model \"{}\" ({}…), the set's of \"{}\" ({}…)",
                    report.model.as_deref().unwrap_or_default(),
                    report.sha256.as_deref().unwrap_or("?").get(..8).unwrap_or("?"),
                    self.model.name,
                    &own[..8]
                ),
                Some(run(format!(
                    "CALL copy_reembed({}, model => {});",
                    quote_literal(report.set.as_deref().unwrap_or_default()),
                    quote_literal(&self.model.name)
                ))),
            ),
            None => finding.found(
                Status::Warning,
                format!("no reference set there says of which model column \"{column}\" of {relation} is"),
                Some(run(format!(
                    "SELECT copy_create_set('…', {}, {}, NULL, {}, model => {});",
                    quote_literal(relation),
                    quote_literal(self.key.join(", ")),
                    quote_literal(column),
                    quote_literal(&self.model.name)
                ))),
            ),
        }
    }
}

impl Finding {
    fn found(&mut self, status: Status, problem: impl Into<String>, mend: Option<String>) {
        self.status = self.status.max(status);
        self.problems.push(problem.into());
        self.mends.extend(mend);
    }

    #[allow(clippy::type_complexity)]
    fn into_row(
        self,
    ) -> (
        pg_sys::Oid,
        Option<String>,
        Option<String>,
        &'static str,
        Option<String>,
        Option<String>,
        Option<bool>,
        Option<String>,
        Option<String>,
        Option<String>,
        Option<bool>,
        Option<String>,
        Option<i64>,
        Option<i64>,
        Vec<String>,
    ) {
        let foreign = self.part.foreign;
        let report = self.report;
        let of = |take: fn(&Report) -> Option<String>| report.as_ref().and_then(take);
        let some = |list: Vec<String>, between: &str| (!list.is_empty()).then(|| list.join(between));
        let options = foreign.iter().flat_map(|foreign| &foreign.options);
        (
            self.part.oid,
            foreign.as_ref().map(|foreign| foreign.server.clone()),
            foreign.as_ref().map(|foreign| foreign.relation.clone()),
            match self.status {
                Status::Ok => "ok",
                Status::Warning => "warning",
                Status::Error => "error",
            },
            some(self.problems, "; "),
            some(self.mends, "\n"),
            self.reachable,
            of(|report| Some(report.version.clone())),
            of(|report| report.model.clone()),
            of(|report| report.sha256.clone()),
            self.agrees,
            of(|report| report.valid.clone().or_else(|| report.broken.clone())),
            report.as_ref().and_then(|report| report.rows),
            report
                .as_ref()
                .and_then(|report| report.missing.map(|missing| missing as i64)),
            options
                // Who may not see passwords sees none: those stand in user mappings.
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        )
    }
}

fn there(server: &str, statement: &str) -> String {
    format!("/* on server \"{server}\" */ {statement}")
}

fn read(text: &str) -> Result<Report, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            format!("a shard's report cannot be read: {error}"),
        )
    })
}

fn message_of(error: &pgrx::pg_sys::panic::CaughtError) -> String {
    use pgrx::pg_sys::panic::CaughtError;
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report.message().to_owned(),
        CaughtError::RustPanic { .. } => "an internal error".to_owned(),
    }
}
