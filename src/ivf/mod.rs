//! The access method `ivf`: PostgreSQL's callbacks, one phase per file. What they do with pages is in the `ivf` crate;
//! `README.md` beside this file explains page layout, locking order and crash safety.
//!
//! `handler` lists the callbacks. `pages` (with `guards`, `recent` and `raw_calls`) gives the crate PostgreSQL's
//! buffers and WAL. `build` (with `heap`, `sample`, `train` and `spill`), `insert`, `vacuum` and `scan` (with `rows`
//! `within` and `announced`) are an index's life; `cost`, `bound`, `conditions`, `paths` and `selectivity` speak to the
//! planner; `column`, `filters`, `operators` and `value` say what is indexed and read it; `options` holds what
//! `WITH (…)` takes; `inspection` what SQL calls.
pub mod announced;
mod bound;
mod build;
mod column;
mod conditions;
mod cost;
mod error;
mod filters;
mod guards;
mod handler;
mod heap;
mod insert;
mod inspection;
mod operators;
mod options;
mod pages;
mod paths;
mod raw_calls;
mod recent;
mod rows;
mod sample;
mod scan;
mod selectivity;
mod spill;
mod train;
mod vacuum;
mod validate;
mod value;
pub mod within;

/// Registers what PostgreSQL must know of the access method before it is used. Called once, at the library's load.
pub fn register() {
    options::register();
    paths::register();
}
