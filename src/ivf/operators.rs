//! The numbers of operators and support functions in operator classes of this access method; those of filter columns
//! stand in `filters.rs`.

/// The number of the support function that names an operator class's element type and metric.
pub(super) const KIND_PROCEDURE: u16 = 1;
/// The strategy of the operator that orders by distance.
pub(super) const DISTANCE_STRATEGY: u16 = 1;
/// The strategy of the operator that carries a distance bound.
pub(super) const BOUND_STRATEGY: u16 = 2;
