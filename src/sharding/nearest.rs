//! The nearest references of a set that lies on several servers: each is asked for its own, and the best of all are
//! the answer.

use std::cell::RefCell;
use std::collections::HashMap;

use pgrx::prelude::*;
use shards::{Place, Wanted};

use super::ask::{About, Ask, ask, garbled};
use super::direct::Asking;
use super::living::{Attempt, living};
use super::parts::{Foreign, Part};
use crate::embed::catalogue::Model;
use crate::failure::Failure;
use crate::matching::gate;
use crate::matching::{Neighbour, Plan, ReferenceSet, in_use, is_known_down, nearest_here};
use crate::own_schema::OwnSchema;
use crate::settings;

/// References that a shard is asked for beyond those that are wanted, where some are out of use.
const SPARE: usize = 16;

/// How much more it is asked for where that was not enough.
const MORE: usize = 4;

/// Most that a shard is asked for.
const MOST: usize = 1_000_000;

thread_local! {
    /// Sets' relations that were asked before in this session: what was known of changes then, and whether they can be
    /// asked so.
    static ASKED: RefCell<HashMap<pg_sys::Oid, (u64, bool)>> = RefCell::default();
}

/// A search in a set that lies on several servers.
struct Search<'a> {
    set: &'a ReferenceSet,
    parts: &'a [Part],
    about: About<'a>,
    attempt: Attempt,
    /// Connections of this session's own, where they may be used; else postgres_fdw's.
    own: Option<Asking<'a>>,
}

/// A neighbour, and where its row lies if not here.
type Located = (Neighbour, Option<(usize, Place)>);

/// As many neighbours as the plan says, nearest first. None where the shards cannot be asked so: one has no
/// `extensions` option, the filter means something else there, or a foreign table stands for a view.
#[allow(clippy::too_many_arguments)]
pub fn nearest(
    set: &ReferenceSet,
    parts: &[Part],
    model: &Model,
    own_schema: &OwnSchema,
    descriptor: &[f32],
    plan: &Plan,
    left_out: &[String],
    partial: bool,
) -> Result<Option<Vec<Neighbour>>, Failure> {
    let before = ASKED.with_borrow(|asked| asked.get(&set.oid).copied());
    let before = before.filter(|(then, _)| *then == gate::changes()).map(|(_, can)| can);
    let Some((descriptor_column, key)) = set.columns.split_last() else {
        return Ok(None);
    };
    let ships = |foreign: &Foreign| foreign.ships("copymatch");
    if before == Some(false) || !foreign(parts).all(|(_, foreign)| ships(foreign)) {
        return Ok(None);
    }
    let mut search = Search {
        set,
        parts,
        about: About {
            set: &set.name,
            descriptor: descriptor_column,
            model,
        },
        attempt: match before {
            _ if partial => Attempt::Partial,
            Some(_) => Attempt::Whole,
            None => Attempt::First,
        },
        own: None,
    };
    if !portable(set, parts) {
        // Searched as PostgreSQL plans it; what lies there must be of the set's model all the same.
        let agrees = search.all(|_, _| Wanted::Agreement, &[Vec::new()], |_| 0)?;
        search.remember(agrees.is_some());
        return Ok(None);
    }
    // Pictures are fetched from where their rows lay, under the snapshot that showed them.
    let pictured = set.sketch_column.is_some() && plan.compared > 0;
    search.own = Asking::open(&set.name, parts, pictured, partial)?;
    let Some(mut found) = search.on_shards(key, descriptor, plan, left_out)? else {
        search.remember(false);
        return Ok(None);
    };
    search.remember(true);
    let here: Vec<&Part> = parts.iter().filter(|part| part.foreign.is_none()).collect();
    if here.is_empty() && partial && foreign(parts).all(|(_, foreign)| is_known_down(&set.name, &foreign.server)) {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_CONNECTION_EXCEPTION,
            format!("no shard of reference set \"{}\" answers", set.name),
        ));
    }
    if !here.is_empty() {
        let near = nearest_here(set, own_schema, descriptor, plan, left_out, &here)?;
        found.extend(near.into_iter().map(|neighbour| (neighbour, None)));
    }
    found.sort_by(|(a, _), (b, _)| b.similarity.total_cmp(&a.similarity));
    found.truncate(plan.neighbours);
    search.pictures(&mut found, plan)?;
    if let Some(own) = search.own {
        own.end();
    }
    Ok(Some(found.into_iter().map(|(neighbour, _)| neighbour).collect()))
}

/// As [`nearest`], by one statement, as PostgreSQL plans it: what a shard cannot be asked to compute is computed here.
pub fn as_planned(
    set: &ReferenceSet,
    parts: &[Part],
    own_schema: &OwnSchema,
    descriptor: &[f32],
    plan: &Plan,
    left_out: &[String],
    partial: bool,
) -> Result<Vec<Neighbour>, Failure> {
    let there: Vec<(usize, &str)> = foreign(parts)
        .map(|(number, foreign)| (number, foreign.server.as_str()))
        .collect();
    if !partial {
        let all: Vec<&Part> = parts.iter().collect();
        let run = |_: &[usize]| nearest_here(set, own_schema, descriptor, plan, left_out, &all).map(Some);
        return Ok(living(&set.name, &there, Attempt::Whole, run)?.unwrap_or_default());
    }
    let of = |wanted: &dyn Fn(usize) -> bool| -> Vec<&Part> {
        let numbered = parts.iter().enumerate().filter(|(number, _)| wanted(*number));
        numbered.map(|(_, part)| part).collect()
    };
    let run = |numbers: &[usize]| match numbers {
        [] => Ok(Some(Vec::new())),
        some => nearest_here(
            set,
            own_schema,
            descriptor,
            plan,
            left_out,
            &of(&|number| some.contains(&number)),
        )
        .map(Some),
    };
    let mut found = living(&set.name, &there, Attempt::Partial, run)?.unwrap_or_default();
    let here = of(&|number| parts[number].foreign.is_none());
    if !here.is_empty() {
        found.append(&mut nearest_here(set, own_schema, descriptor, plan, left_out, &here)?);
    }
    found.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
    found.truncate(plan.neighbours);
    Ok(found)
}

/// Whether the filter means the same on every shard: it is immutable, of PostgreSQL's own words, and its columns are
/// called the same.
fn portable(set: &ReferenceSet, parts: &[Part]) -> bool {
    set.filter.is_none() || set.portable && foreign(parts).all(|(_, foreign)| foreign.renamed.is_empty())
}

fn foreign(parts: &[Part]) -> impl Iterator<Item = (usize, &Foreign)> {
    parts
        .iter()
        .enumerate()
        .filter_map(|(number, part)| part.foreign.as_ref().map(|foreign| (number, foreign)))
}

impl Search<'_> {
    fn remember(&self, can: bool) {
        ASKED.with_borrow_mut(|asked| asked.insert(self.set.oid, (gate::changes(), can)));
    }

    /// Asks every foreign part.
    fn all(
        &mut self,
        wanted: impl Fn(usize, &Foreign) -> Wanted,
        payloads: &[Vec<u8>],
        payload: impl Fn(usize) -> usize,
    ) -> Result<Option<Vec<Vec<u8>>>, Failure> {
        let numbers: Vec<usize> = foreign(self.parts).map(|(number, _)| number).collect();
        self.some(&numbers, self.attempt, wanted, payloads, payload)
    }

    /// Asks these parts. `wanted`, `payload`: of the part of a number.
    fn some(
        &mut self,
        numbers: &[usize],
        attempt: Attempt,
        wanted: impl Fn(usize, &Foreign) -> Wanted,
        payloads: &[Vec<u8>],
        payload: impl Fn(usize) -> usize,
    ) -> Result<Option<Vec<Vec<u8>>>, Failure> {
        let parts = self.parts;
        let servers: Vec<(usize, &str)> = foreign(parts)
            .filter(|(number, _)| numbers.contains(number))
            .map(|(number, foreign)| (number, foreign.server.as_str()))
            .collect();
        let asks = |numbers: &[usize]| -> Vec<Ask> {
            foreign(parts)
                .filter(|(number, _)| numbers.contains(number))
                .map(|(number, foreign)| Ask {
                    part: &parts[number],
                    number: u32::try_from(number).unwrap_or(u32::MAX),
                    wanted: wanted(number, foreign),
                    payload: payload(number),
                })
                .collect()
        };
        if let Some(own) = &mut self.own {
            return own.ask(&self.about, &asks(numbers), payloads);
        }
        living(&self.set.name, &servers, attempt, |numbers| {
            let asks = asks(numbers);
            if asks.is_empty() {
                return Ok(Some(Vec::new()));
            }
            ask(&self.about, &asks, payloads)
        })
    }

    /// The nearest of each shard, those out of use left out.
    fn on_shards(
        &mut self,
        key: &[String],
        descriptor: &[f32],
        plan: &Plan,
        left_out: &[String],
    ) -> Result<Option<Vec<Located>>, Failure> {
        let set = self.set;
        let payload = [shards::elements_to(descriptor)];
        let mut limit = plan.neighbours + left_out.len() + if set.watched { SPARE } else { 0 };
        loop {
            let wanted = |_, foreign: &Foreign| Wanted::Nearest {
                key: key.iter().map(|column| foreign.column(column)).collect(),
                filter: set.filter.clone(),
                limit,
                recall: settings::said_recall(),
            };
            let Some(answers) = self.all(wanted, &payload, |_| 0)? else {
                return Ok(None);
            };
            let mut found = Vec::new();
            let mut enough = true;
            for answer in answers {
                let (part, near) = shards::near_from(&answer).map_err(garbled)?;
                let (all, before) = (near.len(), found.len());
                for one in near {
                    if left_out.contains(&one.key) || set.watched && !in_use(set.id, &one.key)? {
                        continue;
                    }
                    let neighbour = Neighbour {
                        reference: one.key,
                        similarity: 1.0 - one.distance,
                        descriptor: None,
                        sketch: None,
                    };
                    found.push((neighbour, Some((part as usize, one.place))));
                }
                // One that gave all it has cannot give more.
                enough &= found.len() - before >= plan.neighbours || all < limit;
            }
            if enough || limit >= MOST {
                return Ok(Some(found));
            }
            limit = (limit * MORE).min(MOST);
        }
    }

    /// Fetches what verification compares, of those that it compares.
    fn pictures(&mut self, found: &mut [Located], plan: &Plan) -> Result<(), Failure> {
        let Some(sketch) = self.set.sketch_column.as_deref().filter(|_| plan.compared > 0) else {
            return Ok(());
        };
        let compared = plan.compared.min(found.len());
        let mut places: Vec<(usize, Vec<Place>)> = Vec::new();
        for (_, location) in &found[..compared] {
            let Some((part, place)) = location else { continue };
            match places.iter_mut().find(|(number, _)| number == part) {
                Some((_, of_part)) => of_part.push(*place),
                None => places.push((*part, vec![*place])),
            }
        }
        places.sort_by_key(|(part, _)| *part);
        let numbers: Vec<usize> = places.iter().map(|(part, _)| *part).collect();
        let payloads: Vec<Vec<u8>> = places.iter().map(|(_, of_part)| shards::places_to(of_part)).collect();
        let wanted = |_, foreign: &Foreign| Wanted::Pictured {
            sketch: foreign.column(sketch),
        };
        let payload = |number| numbers.iter().position(|one| *one == number).unwrap_or(0);
        let attempt = match self.attempt {
            Attempt::First => Attempt::Whole,
            other => other,
        };
        let answers = self
            .some(&numbers, attempt, wanted, &payloads, payload)?
            .unwrap_or_default();
        let mut of_place = HashMap::new();
        for answer in answers {
            let (part, rows) = shards::pictured_from(&answer).map_err(garbled)?;
            of_place.extend(rows.into_iter().map(|row| ((part as usize, row.place), row)));
        }
        for (neighbour, location) in &mut found[..compared] {
            if let Some(row) = location.and_then(|location| of_place.remove(&location)) {
                neighbour.descriptor = (!row.descriptor.is_empty()).then_some(row.descriptor);
                neighbour.sketch = row.sketch;
            }
        }
        // Local rows came with theirs, of as many as might have been compared.
        for (neighbour, _) in &mut found[compared..] {
            (neighbour.descriptor, neighbour.sketch) = (None, None);
        }
        Ok(())
    }
}
