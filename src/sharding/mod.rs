//! Sets whose rows lie on other servers: partitions that are foreign tables of `postgres_fdw`, their servers the
//! *shards*, and this database the *coordinator*.
//!
//! A shard is asked by an aggregate over its foreign table: `SELECT copymatch.shard_answer(question, payload) WITHIN
//! GROUP (ORDER BY ctid) FROM part WHERE ctid = '(0,0)'`. `postgres_fdw` ships the whole of it where the server's
//! option `extensions` names copymatch; no row has that ctid, and the aggregate's final function answers on the shard,
//! from what the question says. So a search crosses the wire as keys and distances, with the caller's rights on the
//! foreign table here and those of his user mapping there, in the transaction that `postgres_fdw` holds; and several
//! shards are asked at once.
//!
//! That takes five round trips. A search that needs neither that transaction's snapshot nor what it wrote calls the
//! aggregate's final function by a connection of this session's own (`direct`, `connections`, `libpq`), in one.

mod answer;
pub mod ask;
pub mod check;
pub mod citus;
mod connections;
mod direct;
mod failing;
mod libpq;
mod link;
mod living;
mod nearest;
pub mod parts;

pub use nearest::{as_planned, nearest};
