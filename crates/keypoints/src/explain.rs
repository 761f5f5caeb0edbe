//! What verification's evidence rests on, between two pictures, for a person who has to decide.

use imaging::{Image, ImageError};

use crate::content::{Cells, Said};
use crate::sketch::{Sketch, at_most};
use crate::transform::Affine;
use crate::verify::{Evidence, Query, Seen};

/// Longest side of each picture as it is drawn.
pub const DRAWN_SIDE: u32 = 512;

/// A rectangle that both pictures show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Left edge, top edge, width, height in the query, as parts of its width and height.
    pub query: [f64; 4],
    /// The same in the reference.
    pub reference: [f64; 4],
}

/// What two pictures have in common.
pub struct Explanation {
    /// The evidence that a search weighs, of the sketch that a set would keep of the reference.
    pub evidence: Evidence,
    /// Features that are most like one another.
    pub matched: usize,
    /// Connected cells that agree, the largest first.
    pub regions: Vec<Region>,
    pub(crate) query: Image,
    pub(crate) reference: Image,
    /// Places of the features that one motion explains: query, reference, in parts of each picture.
    pub(crate) threads: Vec<[(f64, f64); 2]>,
    pub(crate) cells: Cells,
}

/// Compares a query with a reference.
///
/// # Errors
/// [`ImageError::Cancelled`] once `should_stop` says so.
pub fn explain(query: &Image, reference: &Image, should_stop: &dyn Fn() -> bool) -> Result<Explanation, ImageError> {
    let sketch = Sketch::of(reference, should_stop)?;
    // As it is when it is read again: rounded.
    let sketch = Sketch::parse(&sketch.to_bytes()).unwrap_or(sketch);
    let features = Query::of(query, should_stop)?;
    let mut seen = Seen::default();
    let evidence = features.compared(&sketch, Some(&mut seen)).unwrap_or_default();
    fill(&mut seen.cells);
    let (width, height) = features.size();
    let in_parts = |(x, y): (f64, f64), w: usize, h: usize| ((x + 0.5) / w as f64, (y + 0.5) / h as f64);
    let drawn = |image: &Image| at_most(image, DRAWN_SIDE.min(image.width().max(image.height())));
    Ok(Explanation {
        evidence,
        matched: seen.matched,
        regions: match evidence.transform {
            Some(transform) => regions(&seen.cells, &transform),
            None => Vec::new(),
        },
        query: drawn(query)?,
        reference: drawn(reference)?,
        threads: seen
            .inliers
            .iter()
            .map(|one| {
                [
                    in_parts(one.query, width, height),
                    in_parts(one.reference, sketch.width, sketch.height),
                ]
            })
            .collect(),
        cells: seen.cells,
    })
}

impl Explanation {
    /// Whether a place of the reference, in parts of it, lies in a cell that agrees.
    pub(crate) fn agrees_at(&self, (x, y): (f64, f64)) -> bool {
        if self.cells.columns == 0 || !(0.0..1.0).contains(&x) || !(0.0..1.0).contains(&y) {
            return false;
        }
        let row = self.cells.all.chunks(self.cells.columns).find(|row| y < row[0].0[3]);
        let cell = row.and_then(|row| row.iter().find(|(bounds, _)| x < bounds[2]));
        cell.is_some_and(|(_, said)| *said == Said::Agrees)
    }
}

/// The cells above, below, left and right of one.
fn beside(at: usize, columns: usize, count: usize) -> impl Iterator<Item = usize> {
    let column = at % columns;
    [
        (column > 0).then(|| at - 1),
        (column + 1 < columns && at + 1 < count).then(|| at + 1),
        (at >= columns).then(|| at - columns),
        (at + columns < count).then(|| at + columns),
    ]
    .into_iter()
    .flatten()
}

/// Flat parts (sky, walls, paper) of a copy hang together with its structure.
fn fill(cells: &mut Cells) {
    let count = cells.all.len();
    let mut edge: Vec<usize> = (0..count).filter(|&at| cells.all[at].1 == Said::Agrees).collect();
    while let Some(at) = edge.pop() {
        for next in beside(at, cells.columns, count) {
            if cells.all[next].1 == Said::Flat {
                cells.all[next].1 = Said::Agrees;
                edge.push(next);
            }
        }
    }
}

/// Connected cells that agree as rectangles, the largest first; single cells beside a large region are left out.
fn regions(cells: &Cells, transform: &Affine) -> Vec<Region> {
    let count = cells.all.len();
    let mut seen = vec![false; count];
    let mut found: Vec<(usize, Region)> = Vec::new();
    for start in 0..count {
        if seen[start] || cells.all[start].1 != Said::Agrees {
            continue;
        }
        let [mut left, mut top, mut right, mut bottom] = cells.all[start].0;
        let (mut waiting, mut size) = (vec![start], 0);
        seen[start] = true;
        while let Some(at) = waiting.pop() {
            size += 1;
            let bounds = cells.all[at].0;
            (left, top) = (left.min(bounds[0]), top.min(bounds[1]));
            (right, bottom) = (right.max(bounds[2]), bottom.max(bounds[3]));
            for next in beside(at, cells.columns, count) {
                if !seen[next] && cells.all[next].1 == Said::Agrees {
                    seen[next] = true;
                    waiting.push(next);
                }
            }
        }
        let corners = [(left, top), (right, top), (left, bottom), (right, bottom)].map(|at| {
            let (x, y) = transform.apply(at);
            (x.clamp(0.0, 1.0), y.clamp(0.0, 1.0))
        });
        let least = |value: fn(&(f64, f64)) -> f64| corners.iter().map(value).fold(1.0, f64::min);
        let most = |value: fn(&(f64, f64)) -> f64| corners.iter().map(value).fold(0.0, f64::max);
        let (x, y) = (least(|c| c.0), least(|c| c.1));
        found.push((
            size,
            Region {
                query: [x, y, most(|c| c.0) - x, most(|c| c.1) - y],
                reference: [left, top, right - left, bottom - top],
            },
        ));
    }
    found.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let specks = found.first().map_or(0, |(size, _)| size / 50);
    found
        .into_iter()
        .filter(|(size, _)| *size > specks)
        .take(20)
        .map(|(_, region)| region)
        .collect()
}
