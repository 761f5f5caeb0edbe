//! `copy_match_table` and `copy_evaluate`: the rows of a query matched one after the other, many at a time.
//!
//! Each row is searched as `copy_match_descriptor` searches it, with the caller's rights. That the rows behind it are
//! known as well helps: indexes are told which queries come (`ivf::announced`), and backgrounds are computed for all.

use std::ffi::CString;

use pgrx::prelude::*;
use pgrx::{IntoDatum, PgMemoryContexts};

use super::copy_match::{Page, region, search, sets};
use super::search::{Match, model_of};
use super::sets::ReferenceSet;
use super::sought::{Sought, unit};
use super::verification::plan;
use super::verify::Verify;
use crate::embed::{count_progress, with_background};
use crate::failure::{Failure, boundary};
use crate::ivf::announced::{Announcement, MOST, threads};
use crate::own_schema::OwnSchema;
use crate::sharding::parts::parts;
use crate::statements::Row;
use crate::types::Vector;

/// Rows that are fetched at a time, and of those with a picture.
const FETCHED: std::ffi::c_long = 256;
const FETCHED_PICTURES: std::ffi::c_long = 16;
/// Bytes of pictures from which on no more rows are taken together.
const MOST_BYTES: usize = 16 << 20;
/// Queries whose backgrounds are worth a thread.
const FEWEST_OF_A_THREAD: usize = 64;
/// Columns of the result.
const COLUMNS: usize = 14;

/// PostgreSQL's version-1 calling convention, for the function below.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_match_each() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// What matches the rows of a query: `(statement, pictured, set_name, wanted, verify, min_verdict, partial, total,
/// what, every)`.
///
/// # Safety
/// Called by PostgreSQL's function manager.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn match_each(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    boundary(|| {
        // SAFETY: by contract fcinfo is valid, and the declaration in sql/batch.sql has these arguments.
        let (statement, wanted) = unsafe {
            let text = |number| pgrx::fcinfo::pg_getarg::<String>(fcinfo, number);
            let statement = text(0).unwrap_or_default();
            let wanted = Wanted {
                pictured: pgrx::fcinfo::pg_getarg(fcinfo, 1).unwrap_or(false),
                set: text(2),
                page: Page::of(pgrx::fcinfo::pg_getarg(fcinfo, 3), Some(0))?.at_least(text(5).as_deref())?,
                verify: Verify::named(text(4).as_deref())?,
                partial: pgrx::fcinfo::pg_getarg(fcinfo, 6).unwrap_or(false),
                total: pgrx::fcinfo::pg_getarg(fcinfo, 7).unwrap_or(0),
                what: text(8),
                every: pgrx::fcinfo::pg_getarg(fcinfo, 9).unwrap_or(false),
                own_schema: OwnSchema::of_type()?,
            };
            (statement, wanted)
        };
        // SAFETY: as above.
        let found = unsafe { Found::begin(fcinfo) }?;
        wanted.each(&statement, &found)?;
        // SAFETY: as above. The rows are the result.
        unsafe { (*fcinfo).isnull = true };
        Ok(pg_sys::Datum::from(0usize))
    })
}

/// One row that is matched.
struct Upload {
    key: Option<String>,
    /// None: there is nothing to look for.
    descriptor: Option<Vec<f32>>,
    picture: Option<Vec<u8>>,
}

/// What is asked of each.
struct Wanted {
    pictured: bool,
    set: Option<String>,
    page: Page,
    verify: Option<Verify>,
    partial: bool,
    total: i64,
    /// What the rows are called where it is told how far the work is; None: somebody else counts.
    what: Option<String>,
    /// Whether a row for which nothing is found comes, too.
    every: bool,
    own_schema: OwnSchema,
}

impl Wanted {
    /// Reads the statement (key, descriptor, picture) and matches its rows, as many at a time as are worth it.
    fn each(&self, statement: &str, found: &Found) -> Result<(), Failure> {
        // Its own callers pass nothing else; PostgreSQL's error would repeat the whole of it.
        if !["SELECT", "WITH"]
            .iter()
            .any(|word| statement.trim_start().starts_with(word))
        {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
                "copymatch.match_each matches the rows of a SELECT",
            )
            .hint("copy_match_table matches the rows of a relation."));
        }
        let text = CString::new(statement).map_err(|_| internal("a statement with a NUL byte"))?;
        let at_a_time = if self.pictured { FETCHED_PICTURES } else { FETCHED };
        // SAFETY: SPI is connected and finished in pairs (where an ERROR unwinds, the transaction's abort cleans up);
        // rows are copied before the table that holds them is freed; the portal is closed at the end.
        unsafe {
            if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 {
                return Err(internal("SPI_connect"));
            }
            let portal = pg_sys::SPI_cursor_open_with_args(
                std::ptr::null(),
                text.as_ptr(),
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null(),
                true,
                0,
            );
            let mut outcome = Ok(());
            let mut over = false;
            while outcome.is_ok() && !over {
                let mut uploads = Vec::new();
                let mut bytes = 0;
                while outcome.is_ok() && uploads.len() < MOST && bytes < MOST_BYTES {
                    pg_sys::SPI_cursor_fetch(portal, true, at_a_time);
                    let (table, count) = (pg_sys::SPI_tuptable, pg_sys::SPI_processed as usize);
                    over = table.is_null() || count == 0;
                    if over {
                        break;
                    }
                    outcome = (0..count).try_for_each(|at| {
                        let row = Row::new(*(*table).vals.add(at), (*table).tupdesc);
                        let upload = Upload::of(&row)?;
                        bytes += upload.picture.as_ref().map_or(0, Vec::len);
                        uploads.push(upload);
                        Ok(())
                    });
                    pg_sys::SPI_freetuptable(table);
                }
                if outcome.is_ok() {
                    outcome = self.together(&uploads, found);
                }
            }
            pg_sys::SPI_cursor_close(portal);
            pg_sys::SPI_finish();
            outcome
        }
    }

    /// Matches some rows. What one of them allocates in PostgreSQL's memory is freed behind it.
    fn together(&self, uploads: &[Upload], found: &Found) -> Result<(), Failure> {
        if uploads.is_empty() {
            return Ok(());
        }
        let sets = sets(self.set.as_deref(), &self.own_schema)?;
        let known = match sets.as_slice() {
            [set] => Some(self.announce(set, uploads)?),
            _ => None,
        };
        let models: Vec<String> = sets.iter().map(|set| set.model.clone()).collect();
        let mut memory = PgMemoryContexts::new("copymatch: a row at a time");
        for (at, upload) in uploads.iter().enumerate() {
            let background = known.as_ref().and_then(|known| {
                known.announcement.turn_to(at);
                known.backgrounds.get(at).copied()
            });
            // SAFETY: what is allocated in it is not used behind the row.
            let done: Result<(), Failure> = unsafe {
                let done = memory.switch_to(|_| {
                    let matches = self.one(&sets, &models, upload, background)?;
                    if matches.is_empty() && self.every {
                        found.put(upload.key.as_deref(), None);
                    }
                    for one in matches {
                        found.put(upload.key.as_deref(), Some(one));
                    }
                    Ok(())
                });
                memory.reset();
                done
            };
            done?;
            if let Some(what) = &self.what {
                count_progress(self.total, what);
            }
        }
        Ok(())
    }

    fn one(
        &self,
        sets: &[ReferenceSet],
        models: &[String],
        upload: &Upload,
        background: Option<(usize, f64)>,
    ) -> Result<Vec<(Match, i32)>, Failure> {
        let Some(descriptor) = &upload.descriptor else {
            return Ok(Vec::new());
        };
        let mut sought =
            Sought::descriptor(descriptor, models.to_vec(), upload.picture.as_deref()).with_background(background);
        sought.partial = self.partial;
        search(sets, &self.own_schema, &self.page, self.verify, &mut sought)
    }

    /// Tells the indexes which queries come, and computes their backgrounds.
    fn announce(&self, set: &ReferenceSet, uploads: &[Upload]) -> Result<Known, Failure> {
        let model = model_of(set)?;
        // What is no descriptor is not asked, or gets its error when its turn comes: any other may stand in its place.
        let mut queries: Vec<Vec<f32>> = uploads
            .iter()
            .map(|upload| {
                upload
                    .descriptor
                    .as_ref()
                    .and_then(|descriptor| unit(descriptor, &model).ok())
            })
            .map(Option::unwrap_or_default)
            .collect();
        if let Some(any) = queries.iter().find(|query| !query.is_empty()).cloned() {
            for query in queries.iter_mut().filter(|query| query.is_empty()) {
                query.clone_from(&any);
            }
        }
        let neighbours = set.calibration.neighbours();
        let backgrounds = with_background(&model, |background| {
            let threads = threads();
            let each = queries.len().div_ceil(threads.count()).max(FEWEST_OF_A_THREAD);
            let mut means = vec![0.0; queries.len()];
            let computed = threads.share(means.chunks_mut(each).zip(queries.chunks(each)), |(means, queries)| {
                means.copy_from_slice(&background.mean_top_k_of_each(queries, neighbours)?);
                Ok::<_, scoring::BackgroundError>(())
            });
            Ok(match computed {
                Ok(()) => means.into_iter().map(|mean| (neighbours, f64::from(mean))).collect(),
                // Told by the search of the row that it is about.
                Err(_) => Vec::new(),
            })
        })?;
        let rows = plan(set, self.verify, self.pictured, self.page.rows(set)).neighbours;
        let sharers = parts(set.oid)?.map_or(1, |parts| parts.len());
        Ok(Known {
            announcement: Announcement::new(set.id, queries, rows, sharers),
            backgrounds,
        })
    }
}

/// What is known of the queries to come.
struct Known {
    announcement: Announcement,
    backgrounds: Vec<(usize, f64)>,
}

impl Upload {
    fn of(row: &Row) -> Result<Upload, Failure> {
        Ok(Upload {
            key: row.get(1)?,
            // Copied: the row's memory is SPI's.
            descriptor: row.get::<Vector>(2)?.map(|vector| vector.elements().to_vec()),
            picture: row.get(3)?,
        })
    }
}

/// Where what is found goes: the result of the call.
struct Found {
    store: *mut pg_sys::Tuplestorestate,
    columns: pg_sys::TupleDesc,
}

impl Found {
    /// # Safety
    /// `fcinfo` must be that of the call.
    unsafe fn begin(fcinfo: pg_sys::FunctionCallInfo) -> Result<Found, Failure> {
        // SAFETY: the tag says whether there is a ReturnSetInfo; store and description belong to the query that calls.
        unsafe {
            let info = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            if info.is_null()
                || (*info).type_ != pg_sys::NodeTag::T_ReturnSetInfo
                || (*info).expectedDesc.is_null()
                || (*(*info).expectedDesc).natts as usize != COLUMNS
                || (*info).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize == 0
            {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "copymatch.match_each is called where its rows have no place",
                )
                .hint("Call it in FROM."));
            }
            let before = pg_sys::MemoryContextSwitchTo((*(*info).econtext).ecxt_per_query_memory);
            let columns = pg_sys::CreateTupleDescCopy((*info).expectedDesc);
            let random = (*info).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random != 0;
            let store = pg_sys::tuplestore_begin_heap(random, false, pg_sys::work_mem);
            pg_sys::MemoryContextSwitchTo(before);
            (*info).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            (*info).setResult = store;
            (*info).setDesc = columns;
            Ok(Found { store, columns })
        }
    }

    /// None: nothing was found.
    fn put(&self, key: Option<&str>, found: Option<(Match, i32)>) {
        let Some((found, rank)) = found else {
            let mut values = [None; COLUMNS];
            values[0] = key.into_datum();
            return self.put_values(values);
        };
        let evidence = found.evidence;
        self.put_values([
            key.into_datum(),
            found.set.into_datum(),
            found.reference.into_datum(),
            rank.into_datum(),
            found.similarity.into_datum(),
            found.background.into_datum(),
            found.score.into_datum(),
            found.probability.into_datum(),
            found.verdict.name().into_datum(),
            found.explanation.into_datum(),
            evidence.map(|_| found.shown).into_datum(),
            evidence.and_then(|e| i32::try_from(e.inliers).ok()).into_datum(),
            evidence.map(|e| e.agreement()).into_datum(),
            evidence.and_then(|e| region(&e)).into_datum(),
        ]);
    }

    fn put_values(&self, values: [Option<pg_sys::Datum>; COLUMNS]) {
        let mut datums = values.map(|value| value.unwrap_or_else(|| pg_sys::Datum::from(0usize)));
        let mut nulls = values.map(|value| value.is_none());
        // SAFETY: as many values as columns, of the types of the declaration; the store copies them.
        unsafe { pg_sys::tuplestore_putvalues(self.store, self.columns, datums.as_mut_ptr(), nulls.as_mut_ptr()) }
    }
}

fn internal(what: &str) -> Failure {
    Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("{what} failed"))
}
