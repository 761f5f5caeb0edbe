//! What part of a table lies within a distance, as an index measured it.
use ivf_core::Meta;
use pgrx::prelude::*;

use super::column::Column;
use super::error::failure;
use super::pages::Pages;
use crate::failure::Failure;

/// The part of a table's rows within a distance that is not known, or that no index has measured. PostgreSQL takes a
/// third for any comparison with an expression; who states a bound asks for copies: few rows.
pub(super) const UNKNOWN: f64 = 0.005;

/// What an index knows of itself.
pub(super) struct Measured {
    pub column: Column,
    pub meta: Meta,
}

impl Measured {
    /// Reads it.
    ///
    /// # Safety
    /// Inside the planner, which has locked the index; it must be of this access method, and real.
    pub unsafe fn of(index: &pg_sys::IndexOptInfo) -> Result<Self, Failure> {
        // SAFETY: the caller vouches for the index; after an error PostgreSQL closes it.
        unsafe {
            let relation = pg_sys::index_open(index.indexoid, pg_sys::NoLock as pg_sys::LOCKMODE);
            let column = Column::of(relation)?;
            let meta = Meta::read(&Pages::new(relation)).map_err(|error| failure(error, relation))?;
            pg_sys::index_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            Ok(Measured { column, meta })
        }
    }

    /// The part of the rows within a limit that a query states.
    ///
    /// # Safety
    /// Inside the planner; `limit` must be a valid expression.
    pub unsafe fn part_within(&self, root: *mut pg_sys::PlannerInfo, limit: *mut pg_sys::Node) -> f64 {
        // SAFETY: the caller vouches for the expression, whose tag says what became of it.
        let value = unsafe {
            let estimated = pg_sys::estimate_expression_value(root, limit);
            if (*estimated).type_ != pg_sys::NodeTag::T_Const {
                return UNKNOWN;
            }
            let constant = &*estimated.cast::<pg_sys::Const>();
            if constant.constisnull {
                return 0.0;
            }
            f64::from_bits(constant.constvalue.value() as u64)
        };
        // PostgreSQL holds every number for less than NaN.
        if value.is_nan() {
            return 1.0;
        }
        let within = self.column.bound(value);
        if within.is_nan() {
            return 0.0;
        }
        self.meta.part_within(within).unwrap_or(UNKNOWN)
    }
}
