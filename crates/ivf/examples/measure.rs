//! Recall against time of the index in memory, without a server: `measure FOLDER [LISTS]`, the folder being one that
//! ../shared/bench/annbench.py or benches/ivf_data.py made (x.npy, q.npy, gt.npy).
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ivf::stores::Memory;
use ivf::{
    Batch, Encoders, Filter, FilterLayout, Iteration, Meta, Metric, PageStore, Rerank, Sample, Search, SearchOptions,
    Test, Tid, Trained, Writer, measure_recall,
};

/// The numbers of a two-dimensional array of `width`-byte little-endian items, and its second dimension.
fn npy(path: &str, width: usize) -> (Vec<u8>, usize) {
    let bytes = std::fs::read(path).expect(path);
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..10 + header]).into_owned();
    let shape: Vec<usize> = text[text.find('(').unwrap() + 1..text.find(')').unwrap()]
        .split(',')
        .filter_map(|n| n.trim().parse().ok())
        .collect();
    let data = bytes[10 + header..].to_vec();
    assert_eq!(data.len(), shape[0] * shape[1] * width);
    (data, shape[1])
}

struct Exact<'a> {
    rows: &'a [f32],
    query: &'a [f32],
    asked: u64,
}

impl Rerank for Exact<'_> {
    fn distance(&mut self, tid: Tid) -> ivf::Result<Option<f64>> {
        self.asked += 1;
        let at = (tid.0 - 1) as usize * self.query.len();
        let row = &self.rows[at..at + self.query.len()];
        Ok(vectors::cosine_distance(row, self.query).ok())
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = &arguments[1];
    let (x, dimensions) = npy(&format!("{folder}/x.npy"), 4);
    let x: Vec<f32> = x.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let (q, _) = npy(&format!("{folder}/q.npy"), 4);
    let q: Vec<f32> = q.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let (gt, truths) = npy(&format!("{folder}/gt.npy"), 8);
    let gt: Vec<i64> = gt.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
    let rows = x.len() / dimensions;
    let lists = arguments
        .get(2)
        .map_or(ivf::automatic_lists(rows as f64), |n| n.parse().unwrap());

    let started = Instant::now();
    let most = (64 * lists as usize).min(190_000).min(rows);
    let layout = FilterLayout::new(&[4]).unwrap();
    let mut sample = Sample::with_filters(dimensions, layout, Metric::Cosine, most).unwrap();
    for at in 0..most {
        sample.add(&x[at * rows / most * dimensions..][..dimensions]).unwrap();
    }
    println!("sample {} rows {:.1} s", sample.len(), started.elapsed().as_secs_f64());
    let progress = AtomicU64::new(0);
    let trained = Arc::new(Trained::train(sample, lists, 2, &|| false, &progress).unwrap());
    assert_eq!(progress.load(Ordering::Relaxed), 1000);
    println!(
        "trained {} lists {:.1} s",
        trained.lists(),
        started.elapsed().as_secs_f64()
    );
    let mut encoders = Encoders::start(&trained, 2);
    let mut encoded = Vec::new();
    for first in (0..rows).step_by(512) {
        let count = 512.min(rows - first);
        let tids = (first..first + count).map(|row| Tid(row as u64 + 1)).collect();
        let mut filters = Vec::new();
        for row in first..first + count {
            layout.put_row(&[Some(value(row))], &mut filters).unwrap();
        }
        let mut back = Some(Batch {
            tids,
            vectors: x[first * dimensions..(first + count) * dimensions].to_vec(),
            filters,
        });
        while let Some(batch) = back {
            back = encoders.submit(batch).unwrap();
            if back.is_some() {
                encoded.extend(encoders.receive(true).unwrap());
            }
        }
    }
    while let Some(batch) = encoders.receive(true).unwrap() {
        encoded.push(batch);
    }
    println!("encoded {:.1} s", started.elapsed().as_secs_f64());
    let mut of_list: Vec<Vec<&[u8]>> = vec![Vec::new(); trained.lists() as usize];
    for batch in &encoded {
        for (list, record) in batch
            .lists
            .iter()
            .zip(batch.records.chunks_exact(trained.record_bytes()))
        {
            of_list[*list as usize].push(record);
        }
    }
    let store = Memory::new();
    let mut writer = Writer::new(&store, &trained).unwrap();
    for (list, records) in of_list.iter().enumerate() {
        writer.add_list(list as u32, &mut records.iter().copied()).unwrap();
    }
    writer.finish().unwrap();
    drop(of_list);
    drop(encoded);
    println!(
        "written {:.1} s, {} MB",
        started.elapsed().as_secs_f64(),
        store.blocks().unwrap() as u64 * 8192 / 1_000_000
    );
    measure_recall(&store).unwrap();
    println!("measured {:.1} s", started.elapsed().as_secs_f64());
    let meta = Meta::read(&store).unwrap();
    for point in &meta.curve {
        print!("{}:{:.3} ", point.probes, point.recall);
    }
    println!("\n{:?}", ivf::stats(&store).unwrap());

    for k in [10usize, 100] {
        for setting in [
            "0.90", "0.95", "0.98", "0.99", "0.995", "p16", "p32", "p64", "p128", "p256",
        ] {
            let options = SearchOptions {
                probes: setting.strip_prefix('p').map(|n| n.parse().unwrap()),
                target_recall: setting.parse().unwrap_or(0.98),
                iteration: Iteration::Relaxed,
                ..SearchOptions::default()
            };
            let (mut hits, mut asked, mut refined, mut late, mut queries) = (0, 0, 0, 0, 0);
            let started = Instant::now();
            for at in (0..q.len() / dimensions).step_by(4) {
                let query = &q[at * dimensions..][..dimensions];
                let mut exact = Exact {
                    rows: &x,
                    query,
                    asked: 0,
                };
                let mut search = Search::new(&store, Some(query), options).unwrap();
                let truth = &gt[at * truths..][..k];
                let mut last = f64::NEG_INFINITY;
                for _ in 0..k {
                    let Some(hit) = search.next(&store, &mut exact).unwrap() else {
                        break;
                    };
                    hits += usize::from(truth.contains(&(hit.tid.0 as i64 - 1)));
                    late += usize::from(hit.distance < last);
                    last = last.max(hit.distance);
                }
                asked += exact.asked;
                refined += search.refined_count();
                queries += 1;
            }
            println!(
                "k {k} {setting}: probes {} recall {:.4} {:.1} us, reranked {:.1} refined {:.1} late {:.4}",
                options.probes.unwrap_or_else(|| meta.probes_for(options.target_recall)),
                hits as f64 / (queries * k) as f64,
                started.elapsed().as_micros() as f64 / queries as f64,
                asked as f64 / queries as f64,
                refined as f64 / queries as f64,
                late as f64 / queries as f64,
            );
        }
    }
    for passing in [1000, 100, 10, 1] {
        filtered(&store, &x, &q, dimensions, passing);
    }
}

/// What a row's filter column holds: numbers below 10,000 that follow no vector.
fn value(row: usize) -> i128 {
    i128::from((row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % 10_000
}

/// Recall and time of the ten nearest of the rows whose value is below `passing`, by the lists probed.
fn filtered(store: &Memory, x: &[f32], q: &[f32], dimensions: usize, passing: i128) {
    let rows = x.len() / dimensions;
    let among: Vec<usize> = (0..rows).filter(|&row| value(row) < passing).collect();
    let queries: Vec<&[f32]> = q.chunks_exact(dimensions).step_by(10).collect();
    let truths: Vec<Vec<usize>> = queries
        .iter()
        .map(|query| {
            let mut all: Vec<(f64, usize)> = among
                .iter()
                .map(|&row| {
                    (
                        vectors::cosine_distance(&x[row * dimensions..][..dimensions], query).unwrap(),
                        row,
                    )
                })
                .collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            all.into_iter().take(10).map(|(_, row)| row).collect()
        })
        .collect();
    let probes = [16u32, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096].map(Some);
    for probes in [None].into_iter().chain(probes) {
        for target_recall in [0.90, 0.95, 0.98, 0.99] {
            if probes.is_some() && target_recall != 0.98 {
                continue;
            }
            let options = SearchOptions {
                probes,
                target_recall,
                iteration: if probes.is_some() {
                    Iteration::Off
                } else {
                    Iteration::Relaxed
                },
                ..SearchOptions::default()
            };
            let (mut hits, mut of, mut asked) = (0, 0, 0);
            let started = Instant::now();
            for (query, truth) in queries.iter().zip(&truths) {
                let mut exact = Exact {
                    rows: x,
                    query,
                    asked: 0,
                };
                let mut filter = Filter::new();
                filter.add(0, Test::Within(0, passing - 1));
                let mut search = Search::filtered(store, Some(query), options, filter).unwrap();
                for _ in 0..10 {
                    let Some(hit) = search.next(store, &mut exact).unwrap() else {
                        break;
                    };
                    hits += usize::from(truth.contains(&(hit.tid.0 as usize - 1)));
                }
                of += truth.len();
                asked += exact.asked;
            }
            println!(
                "{} % pass, probes {probes:?} target {target_recall}: recall {:.4} {:.1} us, reranked {:.1}",
                passing as f64 / 100.0,
                hits as f64 / of as f64,
                started.elapsed().as_micros() as f64 / queries.len() as f64,
                asked as f64 / queries.len() as f64,
            );
        }
    }
}
