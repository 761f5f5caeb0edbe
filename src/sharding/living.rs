//! Asking parts that may be down.

use pgrx::prelude::*;

use super::failing::{again, from_shard, is_down, is_lost, is_stuck, listening, naming, warn_of_down};
use crate::failure::Failure;
use crate::flagging::subtransaction;
use crate::matching::{is_known_down, remember_down};

/// What to do where a part does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// An error. Asked within the caller's transaction.
    Whole,
    /// An error, too; in a subtransaction, so that a shard which cannot be asked so (the foreign table stands for a
    /// view) is noticed.
    First,
    /// Leave the part out, with a WARNING that names its server.
    Partial,
}

/// Runs `run` for the parts, each with the name of its server. None where it was computed here, or cannot be asked
/// this way.
pub fn living<T>(
    set: &str,
    parts: &[(usize, &str)],
    attempt: Attempt,
    mut run: impl FnMut(&[usize]) -> Result<Option<Vec<T>>, Failure>,
) -> Result<Option<Vec<T>>, Failure> {
    let servers = |parts: &[(usize, &'_ str)]| -> Vec<String> {
        let mut names: Vec<String> = parts.iter().map(|(_, server)| (*server).to_owned()).collect();
        names.sort();
        names.dedup();
        names
    };
    let numbers = |parts: &[(usize, &str)]| parts.iter().map(|(number, _)| *number).collect::<Vec<_>>();
    let names = servers(parts);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // SAFETY: reads a variable of this backend.
    let parallel = unsafe { pg_sys::IsInParallelMode() };
    if attempt == Attempt::Partial && parallel {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE,
            "partial => true cannot be asked for within a parallel query",
        )
        .hint("SET max_parallel_workers_per_gather = 0 for this statement."));
    }
    if attempt == Attempt::Whole || parallel {
        return naming(set, &names, || run(&numbers(parts)));
    }
    let mut left: Vec<(usize, &str)> = parts.to_vec();
    if attempt == Attempt::Partial {
        left.retain(|(_, server)| !is_known_down(set, server));
    }
    match listening(|| subtransaction(|| run(&numbers(&left)))) {
        Ok(found) => return Ok(found),
        Err(ended) if from_shard(&ended).is_some_and(|(code, message)| has_no_rows(code, &message)) => return Ok(None),
        Err(ended) if attempt == Attempt::First || is_down(&ended).is_none() => return Err(again(ended, set, &names)),
        Err(_) => {}
    }
    // Which it was, server by server.
    let mut found = Vec::new();
    for server in servers(&left) {
        let of_server: Vec<(usize, &str)> = left.iter().copied().filter(|(_, of)| *of == server).collect();
        match listening(|| subtransaction(|| run(&numbers(&of_server)))) {
            Ok(Some(mut rows)) => found.append(&mut rows),
            Ok(None) => return Ok(None),
            Err(ended) => {
                let Some((code, message)) = is_down(&ended) else {
                    return Err(again(ended, set, &[&server]));
                };
                if is_lost(code) {
                    give_up(set, &server, || run(&numbers(&of_server)).map(|_| ()))?;
                }
                remember_down(set, &server);
                warn_of_down(set, &server, message);
            }
        }
    }
    Ok(Some(found))
}

/// A connection that was lost while the transaction had it in use lets the commit fail. postgres_fdw gives
/// it up when it is asked for the next time; its later releases do not, and then an ERROR now is better
/// than one behind the answer.
pub fn give_up(set: &str, server: &str, mut ask: impl FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
    for last in [false, true] {
        match subtransaction(&mut ask) {
            Err(ended) if from_shard(&ended).is_none() => return Err(again(ended, set, &[server])),
            Err(ended) if last && is_stuck(&ended) => {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
                    format!(
                        "the connection to shard \"{server}\" of reference set \"{set}\" was lost while this \
                         transaction had it in use"
                    ),
                )
                .hint(
                    "PostgreSQL lets such a transaction not commit. Run it again: then the shard is left out, if it \
                     still does not answer.",
                ));
            }
            Err(ended) if is_stuck(&ended) => {}
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Whether the foreign table stands for a relation whose rows have no place: a view, which has
/// neither of the two columns.
pub fn has_no_rows(code: PgSqlErrorCode, message: &str) -> bool {
    code == PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN && (message.contains("ctid") || message.contains("tableoid"))
}
