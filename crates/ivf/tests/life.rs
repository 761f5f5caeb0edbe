//! Rows come and go, and no crash, cancellation or damage does harm.
mod data;

use std::collections::HashSet;

use data::*;
use ivf::stores::{Faulty, Memory};
use ivf::{
    Error, Metric, PAGE_SIZE, PageStore, SearchOptions, bulk_delete, check, cleanup, create_empty, insert, stats,
};

fn found(store: &Memory, rows: &[Vec<f32>]) -> HashSet<usize> {
    let options = SearchOptions {
        probes: Some(u32::MAX),
        ..SearchOptions::default()
    };
    search(store, Metric::L2, &rows[0], rows, usize::MAX, options)
        .into_iter()
        .map(|hit| hit.0)
        .collect()
}

#[test]
fn lists_split_as_an_index_fills_and_recall_stays() {
    let mut random = Random::new(1);
    let rows = random.clustered(20_000, 64);
    let store = Memory::new();
    create_empty(&store, 64, Metric::L2).unwrap();
    for (at, row) in rows.iter().enumerate() {
        insert(&store, row, tid(at)).unwrap();
    }
    assert_sound(&store, 20_000);
    let before = stats(&store).unwrap();
    assert!(before.lists >= 20 && before.longest_list < 2048, "{before:?}");
    let cleaned = cleanup(&store).unwrap();
    assert_eq!(cleaned.remaining, 20_000);
    assert!(!ivf::Meta::read(&store).unwrap().curve.is_empty());
    let (mut found, mut itself) = (0.0, 0);
    for at in 0..100 {
        let query = &rows[at * 131];
        let hits = search(&store, Metric::L2, query, &rows, 10, SearchOptions::default());
        itself += usize::from(hits[0].0 == at * 131);
        found += recall(&hits, &exact(Metric::L2, query, &rows, 10)) / 100.0;
    }
    assert!(found >= 0.95 && itself >= 97, "{found}, {itself}");
}

#[test]
fn rows_find_themselves_after_their_index_has_split_its_lists_and_was_vacuumed() {
    // A few broad clusters: a row is about as far from many centroids, so that splits change their order.
    let mut random = Random::new(11);
    let centres: Vec<Vec<f32>> = (0..12).map(|_| random.vector(32)).collect();
    let rows: Vec<Vec<f32>> = (0..40_000)
        .map(|_| {
            let centre = random.below(12);
            centres[centre].iter().map(|c| c + 0.5 * random.normal()).collect()
        })
        .collect();
    let store = Memory::new();
    create_empty(&store, 32, Metric::L2).unwrap();
    for (at, row) in rows.iter().enumerate() {
        insert(&store, row, tid(at)).unwrap();
    }
    cleanup(&store).unwrap();
    let missed = |probes| {
        let options = SearchOptions {
            probes: Some(probes),
            ..SearchOptions::default()
        };
        (0..2000)
            .map(|at| at * 20)
            .filter(|&at| search(&store, Metric::L2, &rows[at], &rows, 1, options)[0].0 != at)
            .count()
    };
    let meta = ivf::Meta::read(&store).unwrap();
    assert!(missed(1) > 100, "the data are too easy");
    assert!(missed(meta.lists_for_itself) <= 2, "in {} lists", meta.lists_for_itself);
    assert!(meta.probes_for(0.01) >= meta.lists_for_itself);
}

#[test]
fn deleted_rows_go_and_their_room_is_used_again() {
    let mut random = Random::new(2);
    let mut rows = random.clustered(6000, 32);
    let store = Memory::new();
    build(&store, &rows, Metric::L2, 20, 1).unwrap();
    let pages = store.blocks().unwrap();
    for round in 0..4 {
        let dead = |at: usize| at % 4 == round;
        let done = bulk_delete(&store, &mut |tid| dead(row(tid))).unwrap();
        assert_eq!((done.removed, done.remaining), (1500, 4500));
        assert_sound(&store, 4500);
        assert!(found(&store, &rows).iter().all(|&at| !dead(at)));
        for at in (0..6000).filter(|&at| dead(at)) {
            rows[at] = rows[(at + 1) % 6000]
                .iter()
                .map(|x| x + 0.1 * random.normal())
                .collect();
            insert(&store, &rows[at], tid(at)).unwrap();
        }
        assert_sound(&store, 6000);
        assert_eq!(found(&store, &rows).len(), 6000);
    }
    assert!(
        store.blocks().unwrap() <= pages + pages / 10,
        "{} from {pages}",
        store.blocks().unwrap()
    );
}

#[test]
fn lists_that_lost_most_of_their_rows_move_to_fewer_pages_and_nothing_else_changes() {
    let mut random = Random::new(12);
    let mut rows = random.clustered(6000, 32);
    let first = rows[7].clone();
    let store = Memory::new();
    build(&store, &rows, Metric::L2, 20, 1).unwrap();
    let pages = store.blocks().unwrap();
    let stays = |at: usize| at.is_multiple_of(25) && at < 5000;
    assert_eq!(bulk_delete(&store, &mut |tid| !stays(row(tid))).unwrap().remaining, 200);
    let by_codes = |store: &Memory| {
        let options = SearchOptions {
            probes: Some(u32::MAX),
            rerank: false,
            ..SearchOptions::default()
        };
        let mut hits = search(store, Metric::L2, &first, &[], usize::MAX, options);
        hits.sort_by_key(|hit| hit.0);
        hits
    };
    let (before, sizes) = (by_codes(&store), stats(&store).unwrap());
    let done = cleanup(&store).unwrap();
    assert!(done.compacted >= 5 && done.remaining == 200, "{done:?}");
    let after = stats(&store).unwrap();
    assert!(after.scan_pages + after.refine_pages < sizes.scan_pages + sizes.refine_pages);
    assert!(after.free_slots < sizes.free_slots);
    assert_sound(&store, 200);
    assert_eq!(by_codes(&store), before, "the same rows at the same estimates");
    assert_eq!(cleanup(&store).unwrap().compacted, 0, "once is enough");
    // The pages are used again.
    for at in (0..6000).filter(|&at| !stays(at)) {
        rows[at] = rows[(at * 7 + 1) % 6000].clone();
        insert(&store, &rows[at], tid(at)).unwrap();
    }
    assert_sound(&store, 6000);
    let now = store.blocks().unwrap();
    assert!(now <= pages + pages / 5, "{now} from {pages}");
    // And a list without any row has no page.
    bulk_delete(&store, &mut |_| true).unwrap();
    cleanup(&store).unwrap();
    assert_eq!(stats(&store).unwrap().scan_pages, 0);
    assert!(found(&store, &rows).is_empty());
    insert(&store, &rows[0], tid(0)).unwrap();
    assert_sound(&store, 1);
}

#[test]
fn a_list_too_long_for_memory_is_written_piece_by_piece_and_is_the_same_list() {
    let rows = Random::new(13).clustered(5000, 16);
    let (whole, pieces) = (Memory::new(), Memory::new());
    build(&whole, &rows, Metric::L2, 3, 1).unwrap();
    build_within(&pieces, &rows, Metric::L2, 3, 1, 100).unwrap();
    assert_sound(&pieces, 5000);
    let by_codes = |store: &Memory| {
        let options = SearchOptions {
            rerank: false,
            ..SearchOptions::default()
        };
        search(store, Metric::L2, &rows[3], &[], usize::MAX, options)
    };
    assert_eq!(by_codes(&pieces), by_codes(&whole));
    assert_eq!(stats(&pieces).unwrap(), stats(&whole).unwrap());
    // It takes rows where a list that was written at once does.
    let pages = pieces.blocks().unwrap();
    for at in 5000..5010 {
        insert(&pieces, &rows[at - 5000], tid(at)).unwrap();
    }
    assert_sound(&pieces, 5010);
    assert!(pieces.blocks().unwrap() <= pages + 2);
    // Fewer rows than were counted are an error, not a shorter list.
    let short = Memory::new();
    let trained = trained(&rows, Metric::L2, 3, 1).unwrap();
    let mut writer = ivf::Writer::new(&short, &trained).unwrap();
    assert!(writer.add_long_list(0, 10, &mut |_, _| Ok(())).is_err());
}

#[test]
fn a_crash_at_any_record_of_a_build_leaves_no_index_and_a_whole_build_is_sound() {
    let rows = Random::new(3).clustered(700, 16);
    for records in 0.. {
        let store = Faulty::new(Memory::new(), records);
        match build(&store, &rows, Metric::L2, 3, 1) {
            Ok(_) => {
                assert_sound(&store.into_memory(), 700);
                break;
            }
            Err(error) => {
                assert!(matches!(error, Error::Store(_)), "{error}");
                let memory = store.into_memory();
                let sound = check(&memory, &mut |_| Ok(())).is_ok_and(|report| report.problems.is_empty());
                assert!(!sound, "after {records} records");
            }
        }
    }
}

/// Repeats an action, cut off after every number of records, from the same start each time.
fn cut_everywhere(
    make: impl Fn() -> Memory,
    action: impl Fn(&Faulty) -> ivf::Result<()>,
    sound: impl Fn(&Memory, bool),
) -> u64 {
    for records in 0.. {
        let store = Faulty::new(make(), records);
        let outcome = action(&store);
        if let Err(error) = &outcome {
            assert!(matches!(error, Error::Store(_)), "{error}");
        }
        let memory = store.into_memory();
        let report = check(&memory, &mut |_| Ok(())).unwrap();
        assert_eq!(report.problems, vec![], "after {records} records");
        sound(&memory, outcome.is_ok());
        if outcome.is_ok() {
            return records;
        }
    }
    unreachable!()
}

#[test]
fn a_crash_at_any_record_of_an_insert_with_a_split_loses_no_row() {
    let rows = Random::new(4).clustered(1500, 64);
    // Filled until the next insert splits the list.
    let splits_at = {
        let store = Memory::new();
        create_empty(&store, 64, Metric::L2).unwrap();
        (0..rows.len())
            .find(|&at| {
                insert(&store, &rows[at], tid(at)).unwrap();
                stats(&store).unwrap().lists > 1
            })
            .unwrap()
    };
    let make = || {
        let store = Memory::new();
        create_empty(&store, 64, Metric::L2).unwrap();
        for (at, row) in rows[..splits_at].iter().enumerate() {
            insert(&store, row, tid(at)).unwrap();
        }
        store
    };
    let records = cut_everywhere(
        make,
        |store| insert(store, &rows[splits_at], tid(splits_at)).map(|_| ()),
        |memory, whole| {
            let present = found(memory, &rows);
            assert!((0..splits_at).all(|at| present.contains(&at)));
            if whole {
                assert!(present.contains(&splits_at));
            }
            // And life goes on.
            insert(memory, &rows[1499], tid(1499)).unwrap();
            assert!(found(memory, &rows).contains(&1499));
        },
    );
    assert!(records > 10, "the split took only {records} records");
}

#[test]
fn a_crash_at_any_record_of_the_first_inserts_loses_no_earlier_row() {
    let rows = Random::new(5).clustered(200, 2000);
    for start in [0, 1, 4, 5, 31, 32, 33] {
        let make = || {
            let store = Memory::new();
            create_empty(&store, 2000, Metric::L2).unwrap();
            for (at, row) in rows[..start].iter().enumerate() {
                insert(&store, row, tid(at)).unwrap();
            }
            store
        };
        cut_everywhere(
            make,
            |store| insert(store, &rows[start], tid(start)).map(|_| ()),
            |memory, _| {
                let present = found(memory, &rows);
                assert!((0..start).all(|at| present.contains(&at)), "{start}");
            },
        );
    }
}

#[test]
fn a_crash_at_any_record_of_a_vacuum_loses_no_living_row() {
    let rows = Random::new(6).clustered(1500, 16);
    let make = || {
        let store = Memory::new();
        build(&store, &rows, Metric::L2, 5, 1).unwrap();
        store
    };
    cut_everywhere(
        make,
        |store| bulk_delete(store, &mut |tid| row(tid).is_multiple_of(3)).map(|_| ()),
        |memory, whole| {
            let present = found(memory, &rows);
            assert!((0..1500).filter(|at| at % 3 != 0).all(|at| present.contains(&at)));
            if whole {
                assert_eq!(present.len(), 1000);
            }
        },
    );
    cut_everywhere(
        make,
        |store| cleanup(store).map(|_| ()),
        |memory, _| assert_eq!(found(memory, &rows).len(), 1500),
    );
    // Lists that move to fewer pages.
    let thinned = || {
        let store = make();
        bulk_delete(&store, &mut |tid| row(tid) % 20 != 3).unwrap();
        store
    };
    cut_everywhere(
        thinned,
        |store| cleanup(store).map(|done| assert!(done.compacted > 0)),
        |memory, _| assert_eq!(found(memory, &rows).len(), 75),
    );
}

#[test]
fn cancelling_anywhere_leaves_the_index_sound() {
    let rows = Random::new(7).clustered(1500, 16);
    for calls in [0, 1, 2, 3, 5, 10, 20] {
        let store = Memory::new();
        build(&store, &rows, Metric::L2, 5, 1).unwrap();
        store.cancel_after(Some(calls));
        let outcome = bulk_delete(&store, &mut |tid| row(tid).is_multiple_of(2));
        store.cancel_after(None);
        assert!(matches!(outcome, Ok(_) | Err(Error::Cancelled)));
        let report = check(&store, &mut |_| Ok(())).unwrap();
        assert_eq!(report.problems, vec![]);
    }
}

#[test]
fn damaged_pages_are_errors_never_panics_or_endless_loops() {
    let rows = Random::new(8).clustered(1500, 16);
    let mut random = Random::new(9);
    let (mut noticed, mut harmless) = (0, 0);
    for _ in 0..250 {
        let store = Memory::new();
        build(&store, &rows, Metric::L2, 40, 1).unwrap();
        for _ in 0..1 + random.below(3) {
            let block = random.below(store.blocks().unwrap() as usize) as u32;
            // The fixed parts of a page more often than its codes.
            let at = match random.below(3) {
                0 => PAGE_SIZE - 16 + random.below(13),
                1 => 12 + random.below(100),
                _ => random.below(PAGE_SIZE - 4),
            };
            let bytes: Vec<u8> = (0..4).map(|_| random.below(256) as u8).collect();
            let bytes = if random.below(4) == 0 { vec![0xff; 4] } else { bytes };
            store.damage(block, at, &bytes[..4.min(PAGE_SIZE - at)]);
        }
        let options = SearchOptions {
            probes: Some(40),
            ..SearchOptions::default()
        };
        let mut outcomes = Vec::new();
        outcomes.push(
            ivf::Search::new(&store, Some(&rows[3]), options)
                .and_then(|mut search| {
                    let mut table = Table {
                        metric: Metric::L2,
                        query: &rows[3],
                        rows: &rows,
                        asked: 0,
                    };
                    let mut hits = 0;
                    while search.next(&store, &mut table)?.is_some() {
                        hits += 1;
                        assert!(hits < 100_000);
                    }
                    Ok(())
                })
                .err(),
        );
        outcomes.push(insert(&store, &rows[4], tid(2000)).err());
        outcomes.push(bulk_delete(&store, &mut |tid| tid.0.is_multiple_of(5)).err());
        outcomes.push(cleanup(&store).err());
        outcomes.push(stats(&store).err());
        let report = check(&store, &mut |_| Ok(())).unwrap();
        let errors: Vec<Error> = outcomes.into_iter().flatten().collect();
        for error in &errors {
            assert!(
                matches!(error, Error::Corrupted { .. } | Error::Version { .. }),
                "{error:?}"
            );
        }
        if errors.is_empty() && report.problems.is_empty() {
            harmless += 1;
        } else {
            noticed += 1;
        }
    }
    assert!(noticed > 40 && harmless > 5, "{noticed} noticed, {harmless} harmless");
}
