//! What the service says of itself: behind copymatch.service, copymatch.service_stats and copymatch.service_models.

use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use pgrx::{FromDatum, IntoDatum};
use service::{Histogram, State};

use super::client::{Path, path};
use super::shared::{Standing, shared};
use crate::failure::boundary;
use crate::record::Record;

/// Whether the caller may see paths, causes and other sessions' numbers.
fn is_trusted() -> bool {
    // SAFETY: reads this backend's role and the catalogue of roles.
    unsafe {
        let admin = pg_sys::get_role_oid(c"copymatch_admin".as_ptr(), true);
        admin != pg_sys::InvalidOid && pg_sys::has_privs_of_role(pg_sys::GetUserId(), admin)
    }
}

fn resident(pid: i32) -> Option<i64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: i64 = text.split_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: asks for a constant of the system.
    Some(pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) })
}

#[pg_extern(sql = false)]
fn service_status(fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        let (way, reason) = match path() {
            Path::Service(_) => ("service", None),
            Path::Own(reason) => ("session", Some(reason)),
        };
        let Some(shared) = shared() else {
            let mut fields = vec![way.into_datum(), reason.into_datum(), "not preloaded".into_datum()];
            fields.resize(19, None);
            return Record::form(fcinfo, fields);
        };
        let header = shared.header;
        let trusted = is_trusted();
        let encoder = Some(header.encoder.load(Ordering::Acquire)).filter(|&pid| pid > 0);
        let supervisor = Some(header.supervisor.load(Ordering::Acquire)).filter(|&pid| pid > 0);
        let running = shared.standing() == Standing::Running;
        let started = header.started.load(Ordering::Relaxed);
        // SAFETY: the number is a timestamp that PostgreSQL's clock gave.
        let started = unsafe { TimestampWithTimeZone::from_datum(pg_sys::Datum::from(started), started == 0) };
        let used = shared
            .places
            .iter()
            .filter(|place| place.slot.state() != State::Free)
            .count();
        let models = header
            .models
            .iter()
            .filter(|model| model.bytes.load(Ordering::Acquire) > 0)
            .count();
        let number = |value: u32| i32::try_from(value).ok();
        let bytes = |value: &AtomicU64| {
            let value = i64::try_from(value.load(Ordering::Relaxed)).ok();
            value.filter(|&bytes| bytes > 0 && running).into_datum()
        };
        Record::form(
            fcinfo,
            vec![
                way.into_datum(),
                reason.into_datum(),
                shared.standing().name().into_datum(),
                supervisor.into_datum(),
                encoder.into_datum(),
                header.provider.get().filter(|_| running).into_datum(),
                header.fallback.get().filter(|_| running && trusted).into_datum(),
                header.version.get().filter(|_| running).into_datum(),
                number(header.lanes.load(Ordering::Relaxed)).into_datum(),
                i32::try_from(models).ok().into_datum(),
                encoder.and_then(resident).into_datum(),
                started.filter(|_| encoder.is_some()).into_datum(),
                i64::try_from(header.restarts.load(Ordering::Relaxed)).ok().into_datum(),
                header.trouble.get().filter(|_| trusted).into_datum(),
                i32::try_from(shared.places.len()).ok().into_datum(),
                i32::try_from(used).ok().into_datum(),
                header.library.get().filter(|_| trusted).into_datum(),
                bytes(&header.device_used),
                bytes(&header.device_total),
            ],
        )
    })
}

#[pg_extern(sql = false)]
fn service_counters(fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        let Some(shared) = shared() else {
            return Record::form(fcinfo, vec![None; 22]);
        };
        let counters = &shared.header.counters;
        let count = |counter: &AtomicU64| i64::try_from(counter.load(Ordering::Relaxed)).ok().into_datum();
        let (images, batches) = (
            counters.images.load(Ordering::Relaxed),
            counters.batches.load(Ordering::Relaxed),
        );
        let milliseconds = |times: &Histogram, part| {
            times
                .quantile(part)
                .map(|time| time.as_secs_f64() * 1000.0)
                .into_datum()
        };
        let now = |value: &std::sync::atomic::AtomicU32| i32::try_from(value.load(Ordering::Relaxed)).ok().into_datum();
        Record::form(
            fcinfo,
            vec![
                count(&counters.images),
                count(&counters.bulk_images),
                count(&counters.batches),
                (batches > 0).then(|| images as f64 / batches as f64).into_datum(),
                now(&shared.header.waiting),
                now(&shared.header.running),
                now(&shared.header.without_slot),
                milliseconds(&counters.waited, 0.5),
                milliseconds(&counters.waited, 0.95),
                milliseconds(&counters.waited, 0.99),
                milliseconds(&counters.ran, 0.5),
                milliseconds(&counters.ran, 0.95),
                milliseconds(&counters.ran, 0.99),
                count(&counters.abandoned),
                count(&counters.crashed),
                count(&counters.timed_out),
                count(&counters.unavailable),
                count(&counters.failed),
                count(&counters.queue_full),
                count(&counters.smaller_batches),
                count(&counters.models_loaded),
                count(&counters.models_evicted),
            ],
        )
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn service_model_list() -> TableIterator<
    'static,
    (
        name!(model, Option<String>),
        name!(provider, Option<String>),
        name!(memory, i64),
        name!(images, i64),
        name!(manifest_sha256, Option<String>),
    ),
> {
    let mut rows = Vec::new();
    for model in shared().iter().flat_map(|shared| &shared.header.models) {
        let bytes = model.bytes.load(Ordering::Acquire);
        if bytes > 0 {
            rows.push((
                model.name.get(),
                model.provider.get(),
                i64::try_from(bytes).unwrap_or(i64::MAX),
                i64::try_from(model.images.load(Ordering::Relaxed)).unwrap_or(i64::MAX),
                model.key.get(),
            ));
        }
    }
    TableIterator::new(rows)
}
