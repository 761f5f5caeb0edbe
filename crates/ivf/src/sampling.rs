//! Rows of an index taken at random, and queries made of them.
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::centroid::OwnedCentroid;
use crate::code;
use crate::directory::{self, BranchEntry, Probe};
use crate::geometry::Geometry;
use crate::list;
use crate::page::Kind;
use crate::{Meta, Metric, PageStore, Result, Tid};

/// How far a perturbed copy lies from its row, in lengths of the row.
const PERTURBATION: f32 = 0.5;

/// A query that was made of a row of the index.
pub(crate) struct SampledQuery {
    /// Rotated.
    pub vector: Vec<f32>,
    /// The row that it is, which is not its own neighbour; none for a perturbed one.
    pub own_row: Option<Tid>,
}

pub(crate) fn sample_queries<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
    wanted: usize,
) -> Result<Vec<SampledQuery>> {
    let mut random = ChaCha8Rng::seed_from_u64(meta.seed ^ u64::from(meta.lists));
    let pages = directory_pages(store, meta, geometry)?;
    let mut queries = Vec::with_capacity(wanted);
    for attempt in 0..4 * wanted {
        if queries.len() == wanted {
            break;
        }
        store.interrupts()?;
        let Some(probe) = random_list(store, geometry, &pages, &mut random)? else {
            continue;
        };
        if let Some((tid, mut vector)) = random_row(store, meta, geometry, &probe, random.next_u32())? {
            let perturbed = attempt % 2 == 1;
            if perturbed {
                perturb(&mut vector, &mut random);
            }
            queries.push(SampledQuery {
                vector,
                own_row: (!perturbed).then_some(tid),
            });
        }
    }
    Ok(queries)
}

/// All directory pages, with their branches; those of branches that are split meanwhile are left out.
pub(crate) fn directory_pages<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
) -> Result<Vec<(BranchEntry, u32)>> {
    let mut pages = Vec::new();
    for (branch, _, _) in directory::branches(store, meta, geometry)? {
        directory::walk(store, &branch, |block, _| {
            pages.push((branch, block));
            Ok(())
        })?;
    }
    Ok(pages)
}

/// A list of a random directory page; none where that page is empty or no longer one.
pub(crate) fn random_list<S: PageStore>(
    store: &S,
    geometry: &Geometry,
    pages: &[(BranchEntry, u32)],
    random: &mut ChaCha8Rng,
) -> Result<Option<Probe>> {
    if pages.is_empty() {
        return Ok(None);
    }
    let (branch, block) = pages[random.next_u32() as usize % pages.len()];
    let Some((probes, _)) = directory::read_page(store, geometry, &branch, block)? else {
        return Ok(None);
    };
    if probes.is_empty() {
        return Ok(None);
    }
    Ok(Some(probes[random.next_u32() as usize % probes.len()]))
}

/// A row of the list's first page, as far as its six-bit code knows it.
pub(crate) fn random_row<S: PageStore>(
    store: &S,
    meta: &Meta,
    geometry: &Geometry,
    probe: &Probe,
    number: u32,
) -> Result<Option<(Tid, Vec<f32>)>> {
    let Some(centroid) = OwnedCentroid::read(store, geometry, probe)? else {
        return Ok(None);
    };
    let mut row = None;
    let mut first = true;
    list::walk(
        store,
        probe.entry.head,
        probe.entry.list,
        probe.entry.generation,
        |_, page| {
            if first {
                let slots: Vec<usize> = list::live_slots(geometry, page).collect();
                if !slots.is_empty() {
                    let slot = slots[number as usize % slots.len()];
                    row = Some((
                        list::tid(geometry, page, slot),
                        list::refine_place(geometry, page, slot),
                    ));
                }
                first = false;
            }
            Ok(())
        },
    )?;
    let Some((tid, (block, place))) = row else {
        return Ok(None);
    };
    let page = store.read(block)?;
    if !page.is(Kind::Refine, probe.entry.list, probe.entry.generation) || place >= geometry.refines {
        return Ok(None);
    }
    let mut vector = vec![0.0; geometry.rotated];
    let mut code = vec![0; geometry.rotated];
    code::decode(
        meta.metric,
        list::refine_record(geometry, &page, place),
        centroid.view(),
        &mut code,
        &mut vector,
    );
    if meta.metric == Metric::Cosine {
        rescale(&mut vector, 1.0);
    }
    Ok(Some((tid, vector)))
}

/// Adds noise of a fixed part of the vector's length, and keeps the length.
fn perturb(vector: &mut [f32], random: &mut ChaCha8Rng) {
    let length = vectors::norm(vector) as f32;
    let mut noise: Vec<f32> = vector
        .iter()
        // The sum of four uniform numbers is near enough to normal.
        .map(|_| (0..4).map(|_| random.next_u32() as f32 / u32::MAX as f32 - 0.5).sum())
        .collect();
    rescale(&mut noise, PERTURBATION * length);
    for (x, noise) in vector.iter_mut().zip(noise) {
        *x += noise;
    }
    rescale(vector, length);
}

/// Gives a vector another length.
pub(crate) fn rescale(vector: &mut [f32], length: f32) {
    let norm = vectors::norm(vector) as f32;
    if norm > 0.0 {
        for x in vector {
            *x *= length / norm;
        }
    }
}
