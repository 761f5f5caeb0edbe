//! `avg`: the state is a `float8[]` of the count followed by one sum per dimension, `{0}` before the first row.
//!
//! Within an aggregate the state is changed in place, as PostgreSQL's own float8_accum does; elsewhere it is copied.
//! (`sum` needs no code: its transition function is addition.)
use pgrx::pg_sys;
use pgrx::prelude::*;
use vectors::{Error, MAX_DIMENSIONS};

use super::arrays::NumberArray;
use super::datum::{HalfVector, Packed, SqlElement, Vector};
use super::error::{OrRaise, raise, report};

type State = NumberArray<f64>;

/// The count and the sums of a state; refuses an array that is none.
fn parts<'a>(state: &'a State, function: &str) -> (f64, &'a [f64]) {
    match state.elements() {
        [count, sums @ ..] if sums.len() <= MAX_DIMENSIONS => (*count, sums),
        _ => report(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("{function}: expected state array"),
            None,
            Some("This function belongs to an aggregate and is not meant to be called by itself."),
        ),
    }
}

fn in_aggregate(fcinfo: pg_sys::FunctionCallInfo) -> bool {
    // SAFETY: fcinfo is that of the current call.
    unsafe { pg_sys::AggCheckCallContext(fcinfo, std::ptr::null_mut()) != 0 }
}

/// Adds `count` rows that sum to `sums` to a state of the same dimensions, refusing sums that overflow.
fn add_to(state: &mut State, count: f64, sums: impl Iterator<Item = f64>) {
    let (total, totals) = state.elements_mut().split_at_mut(1);
    total[0] += count;
    for (total, sum) in totals.iter_mut().zip(sums) {
        *total += sum;
        if total.is_infinite() {
            raise(Error::Overflow);
        }
    }
}

/// A copy of the state, unless the caller is an aggregate, which lets its state be changed.
fn own(state: State, fcinfo: pg_sys::FunctionCallInfo) -> State {
    if in_aggregate(fcinfo) {
        state
    } else {
        State::from_elements(state.elements().iter().copied())
    }
}

fn accumulate<E: SqlElement>(
    state: State,
    value: &Packed<E>,
    fcinfo: pg_sys::FunctionCallInfo,
    function: &str,
) -> State {
    let elements = value.elements();
    let (count, sums) = parts(&state, function);
    let numbers = || elements.iter().map(|element| f64::from(element.to_f32()));
    if sums.is_empty() {
        let first = std::iter::once(count + 1.0).chain(numbers());
        return State::from_elements(first.collect::<Vec<f64>>().into_iter());
    }
    vectors::expect_dimensions(Some(sums.len()), elements.len()).or_raise();
    let mut state = own(state, fcinfo);
    add_to(&mut state, 1.0, numbers());
    state
}

fn combine(left: State, right: State, fcinfo: pg_sys::FunctionCallInfo, function: &str) -> State {
    let (left_count, left_sums) = parts(&left, function);
    let (right_count, right_sums) = parts(&right, function);
    if left_count == 0.0 {
        return State::from_elements(right.elements().iter().copied());
    }
    if right_count == 0.0 {
        return left;
    }
    vectors::expect_dimensions(Some(left_sums.len()), right_sums.len()).or_raise();
    let mut state = own(left, fcinfo);
    add_to(&mut state, right_count, right.elements()[1..].iter().copied());
    state
}

fn average<E: SqlElement>(state: &State, function: &str) -> Option<Packed<E>> {
    let (count, sums) = parts(state, function);
    // The average of no rows is NULL.
    if count == 0.0 {
        return None;
    }
    let means: Result<Vec<E>, Error> = sums.iter().map(|sum| vectors::from_f64(sum / count)).collect();
    Some(Packed::from_elements(&means.or_raise()))
}

macro_rules! avg {
    ($vector:ty: $accumulate:ident, $combine:ident, $average:ident) => {
        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $accumulate(state: NumberArray<f64>, value: $vector, fcinfo: pg_sys::FunctionCallInfo) -> NumberArray<f64> {
            accumulate(state, &value, fcinfo, stringify!($accumulate))
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $combine(
            left: NumberArray<f64>,
            right: NumberArray<f64>,
            fcinfo: pg_sys::FunctionCallInfo,
        ) -> NumberArray<f64> {
            combine(left, right, fcinfo, stringify!($combine))
        }

        #[pg_extern(sql = false, immutable, strict, parallel_safe)]
        fn $average(state: NumberArray<f64>) -> Option<$vector> {
            average(&state, stringify!($average))
        }
    };
}
avg!(Vector: vector_accum, vector_combine, vector_avg);
avg!(HalfVector: halfvec_accum, halfvec_combine, halfvec_avg);
