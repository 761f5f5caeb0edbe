//! The content of two pictures compared under an alignment: cell by cell, what both show.

use std::sync::OnceLock;

use crate::plane::{Plane, Spare};
use crate::transform::Affine;

/// Cells a side: a sixteenth of the reference's small picture, longest side.
pub(crate) const CELLS: usize = 16;
/// Agreement of a cell: zero-mean normalised cross-correlation. Lines of text, rules and axes alone, which two
/// receipts or charts have in common, correlate by 0.6 and more; what JPEG and a smaller size leave of the
/// same cell by more than this.
const LEAST_CORRELATION: f32 = 0.8;
/// Standard deviation below which a cell has nothing to correlate.
const FLAT: f32 = 4.0;
/// Part of a cell that the query must show.
const LEAST_SHOWN: f32 = 0.6;

/// Pixels by which what the query shows may lie beside its cell, nearest first.
const SHIFTS: [(isize, isize); 9] = [
    (0, 0),
    (-1, 0),
    (1, 0),
    (0, -1),
    (0, 1),
    (-1, -1),
    (1, 1),
    (-1, 1),
    (1, -1),
];

/// What the cells say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Content {
    /// Cells with structure in the reference.
    pub(crate) structured: usize,
    /// Of these, those that the query's frame shows.
    pub(crate) compared: usize,
    /// Of these, those that agree.
    pub(crate) agreed: usize,
    /// Of those that do not agree, the most that lie side by side: what one thing laid over the picture hides.
    pub(crate) block: usize,
    /// Smallest box around the cells that agree, in parts of the reference: left, top, right, bottom.
    pub(crate) bounds: Option<[f64; 4]>,
}

/// What one cell of the reference's small picture says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The query's frame does not show it.
    Hidden,
    /// Nothing in it to compare, neither in the reference nor in the query.
    Flat,
    /// The query has other content there.
    Differs,
    /// The same content.
    Agrees,
}

/// The cells one by one, row by row, for who draws them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cells {
    pub(crate) columns: usize,
    /// Left, top, right, bottom in parts of the reference, and what the cell says.
    pub(crate) all: Vec<([f64; 4], Said)>,
}

/// A picture at full, half, quarter … size, so that it can be looked at from afar without aliasing. Each is made
/// when it is first looked at.
pub(crate) struct Pyramid(Vec<OnceLock<Plane>>);

/// Levels of a pyramid, and the side from which a picture has a smaller one.
const LEVELS: usize = 5;
const LEAST_SIDE: usize = 8;

impl Pyramid {
    pub(crate) fn of(plane: Plane) -> Self {
        let mut side = plane.width.min(plane.height);
        let mut levels = vec![OnceLock::from(plane)];
        while levels.len() < LEVELS && side >= LEAST_SIDE {
            levels.push(OnceLock::new());
            side = side.div_ceil(2);
        }
        Self(levels)
    }

    fn depth(&self) -> usize {
        self.0.len()
    }

    fn plane(&self, level: usize) -> &Plane {
        self.0[level].get_or_init(|| self.plane(level - 1).smoothed(1.0, &mut Spare::default()).halved())
    }

    /// The level at which one step covers about one pixel, if the step covers `scale` pixels of the first; and how much
    /// smaller it is.
    fn level(&self, scale: f64) -> (&Plane, f32) {
        let mut number = 0;
        let mut left = scale;
        while left > 1.45 && number + 1 < self.depth() {
            left /= 2.0;
            number += 1;
        }
        (self.plane(number), 1.0 / (1 << number) as f32)
    }

    pub(crate) fn first(&self) -> &Plane {
        self.plane(0)
    }
}

/// Compares the cells of `reference`, the small picture, with what `query` shows there. `motion` leads from the small
/// picture to the query, both in pixels. `cells`: filled where they are wanted.
pub(crate) fn content(query: &Pyramid, reference: &Pyramid, motion: &Affine, cells: Option<&mut Cells>) -> Content {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || compared(query, reference, motion, cells),
    )
}

#[inline(always)]
fn compared(query: &Pyramid, reference: &Pyramid, motion: &Affine, mut cells: Option<&mut Cells>) -> Content {
    let scale = (motion.a * motion.e - motion.b * motion.d).abs().sqrt();
    // A query with fewer pixels than the small picture is compared at its own resolution.
    let mut level = 0;
    while scale * f64::from(1 << level) < 0.7 && level + 1 < reference.depth().min(3) {
        level += 1;
    }
    let picture = reference.plane(level);
    let step = f64::from(1 << level);
    let (seen, shrunk) = query.level(scale * step);
    let shrunk = f64::from(shrunk);
    let side = picture.width.max(picture.height);
    let cell = side.div_ceil(CELLS).max(4);
    let mut result = Content::default();
    let full = query.first();
    let mut warped = vec![f32::NAN; cell * cell];
    let mut shifted = vec![0.0; cell * cell];
    let (mut xs, mut ys) = (vec![0.0; cell], vec![0.0; cell]);
    let drawn = cells.is_some();
    let across = picture.width.div_ceil(cell);
    let mut differs = vec![false; across * picture.height.div_ceil(cell)];
    if let Some(cells) = &mut cells {
        cells.columns = across;
        cells.all.clear();
    }
    for top in (0..picture.height).step_by(cell) {
        for left in (0..picture.width).step_by(cell) {
            let (right, bottom) = ((left + cell).min(picture.width), (top + cell).min(picture.height));
            let (columns, rows) = (right - left, bottom - top);
            let here = [
                left as f64 / picture.width as f64,
                top as f64 / picture.height as f64,
                right as f64 / picture.width as f64,
                bottom as f64 / picture.height as f64,
            ];
            let mut say = |said| {
                if let Some(cells) = &mut cells {
                    cells.all.push((here, said));
                }
                said
            };
            let size = columns * rows;
            let structured = deviation(picture, left, top, columns, rows) >= FLAT;
            // A strip at the edge says little.
            let counts = structured && columns * 2 >= cell && rows * 2 >= cell;
            result.structured += usize::from(counts);
            if !counts && !drawn {
                continue;
            }
            let mut shown = 0;
            let wholly = [
                (left, top),
                (right - 1, top),
                (left, bottom - 1),
                (right - 1, bottom - 1),
            ]
            .iter()
            .all(|&(x, y)| {
                let (x, y) = motion.apply((x as f64 * step, y as f64 * step));
                let least = |length: usize| (length - 1) as f64 - 0.001;
                (0.001..least(full.width)).contains(&x)
                    && (0.001..least(full.height)).contains(&y)
                    && (x * shrunk) < least(seen.width)
                    && (y * shrunk) < least(seen.height)
            });
            for row in 0..rows {
                let y = (top + row) as f64 * step;
                let out = &mut warped[row * columns..][..columns];
                for (column, (x_at, y_at)) in xs.iter_mut().zip(&mut ys).enumerate().take(columns) {
                    let (x, y) = motion.apply(((left + column) as f64 * step, y));
                    (*x_at, *y_at) = (x, y);
                }
                let places = xs.iter().zip(&ys);
                if wholly {
                    shown += columns;
                    for (value, (&x, &y)) in out.iter_mut().zip(places) {
                        *value = seen.within((x * shrunk) as f32, (y * shrunk) as f32);
                    }
                    continue;
                }
                for (value, (&x, &y)) in out.iter_mut().zip(places) {
                    let inside = x > -1.0 && y > -1.0 && x < full.width as f64 && y < full.height as f64;
                    shown += usize::from(inside);
                    *value = if inside {
                        seen.between((x * shrunk) as f32, (y * shrunk) as f32)
                    } else {
                        f32::NAN
                    };
                }
            }
            if (shown as f32) < LEAST_SHOWN * size as f32 {
                say(Said::Hidden);
                continue;
            }
            result.compared += usize::from(counts);
            if !structured {
                say(if spread(&warped[..size]) < 2.0 * FLAT {
                    Said::Flat
                } else {
                    Said::Differs
                });
                continue;
            }
            let sought = Sought::of(&mut warped[..size]);
            let agrees = SHIFTS.iter().any(|&(dx, dy)| {
                let clamp = |at: usize, by: isize, most: usize| at.saturating_add_signed(by).min(most - 1);
                for row in 0..rows {
                    let line = &picture.values[clamp(top + row, dy, picture.height) * picture.width..][..picture.width];
                    let out = &mut shifted[row * columns..][..columns];
                    match left
                        .checked_add_signed(dx)
                        .and_then(|from| line.get(from..from + columns))
                    {
                        Some(whole) => out.copy_from_slice(whole),
                        None => (0..columns).for_each(|at| out[at] = line[clamp(left + at, dx, picture.width)]),
                    }
                }
                sought.correlation(&warped[..size], &shifted[..size]) >= LEAST_CORRELATION
            });
            say(if agrees { Said::Agrees } else { Said::Differs });
            if !agrees {
                differs[top / cell * across + left / cell] = counts;
            } else if counts {
                result.agreed += 1;
                let bounds = result.bounds.get_or_insert(here);
                *bounds = [
                    bounds[0].min(here[0]),
                    bounds[1].min(here[1]),
                    bounds[2].max(here[2]),
                    bounds[3].max(here[3]),
                ];
            }
        }
    }
    result.block = largest_block(&mut differs, across);
    result
}

/// The most marked cells that hang together, corners included. The marks are used up.
fn largest_block(marked: &mut [bool], across: usize) -> usize {
    let down = marked.len() / across;
    let mut largest = 0;
    let mut waiting = Vec::new();
    for first in 0..marked.len() {
        if !std::mem::take(&mut marked[first]) {
            continue;
        }
        waiting.push(first);
        let mut count = 0;
        while let Some(at) = waiting.pop() {
            count += 1;
            let (x, y) = (at % across, at / across);
            for v in y.saturating_sub(1)..(y + 2).min(down) {
                for u in x.saturating_sub(1)..(x + 2).min(across) {
                    if std::mem::take(&mut marked[v * across + u]) {
                        waiting.push(v * across + u);
                    }
                }
            }
        }
        largest = largest.max(count);
    }
    largest
}

/// Standard deviation of the places that are numbers.
fn spread(values: &[f32]) -> f32 {
    let (mut count, mut sum, mut squares) = (0.0_f32, 0.0, 0.0);
    for value in values.iter().filter(|value| !value.is_nan()) {
        count += 1.0;
        sum += value;
        squares += value * value;
    }
    if count == 0.0 {
        return 0.0;
    }
    (squares / count - (sum / count) * (sum / count)).max(0.0).sqrt()
}

fn deviation(plane: &Plane, left: usize, top: usize, columns: usize, rows: usize) -> f32 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for y in top..top + rows {
        for value in &plane.values[y * plane.width + left..][..columns] {
            sum += value;
            squares += value * value;
        }
    }
    let count = (columns * rows) as f32;
    (squares / count - (sum / count) * (sum / count)).max(0.0).sqrt()
}

/// What a cell is sought as: sums over the places that the query shows.
struct Sought {
    count: f32,
    sum: f32,
    squares: f32,
    /// Whether it shows all.
    whole: bool,
    shown: Vec<f32>,
}

/// Places that are summed at a time.
const LANES: usize = 16;

/// The sum of `of` over all places, in a fixed order.
#[inline(always)]
fn summed<const N: usize>(length: usize, of: impl Fn(usize) -> [f32; N]) -> [f32; N] {
    let mut sums = [[0.0_f32; LANES]; N];
    let whole = length / LANES * LANES;
    for from in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            let values = of(from + lane);
            for (sum, value) in sums.iter_mut().zip(values) {
                sum[lane] += value;
            }
        }
    }
    let mut totals = sums.map(|lanes| lanes.iter().sum::<f32>());
    for at in whole..length {
        for (total, value) in totals.iter_mut().zip(of(at)) {
            *total += value;
        }
    }
    totals
}

impl Sought {
    /// Replaces places that are no numbers, which the query does not show, by zero.
    #[inline(always)]
    fn of(cell: &mut [f32]) -> Self {
        let whole = !cell.iter().any(|value| value.is_nan());
        let mut shown = Vec::new();
        if !whole {
            shown.extend(cell.iter().map(|value| if value.is_nan() { 0.0 } else { 1.0 }));
            cell.iter_mut()
                .filter(|value| value.is_nan())
                .for_each(|value| *value = 0.0);
        }
        let count = if whole { cell.len() as f32 } else { shown.iter().sum() };
        let cell = &*cell;
        let [sum, squares] = summed(cell.len(), |at| [cell[at], cell[at] * cell[at]]);
        Self {
            count,
            sum,
            squares,
            whole,
            shown,
        }
    }

    /// Zero-mean normalised cross-correlation over the places that are shown; 0 where one of
    /// both has no structure there.
    #[inline(always)]
    fn correlation(&self, cell: &[f32], other: &[f32]) -> f32 {
        let (n, a, aa) = (self.count, self.sum, self.squares);
        let length = cell.len();
        let (cell, other) = (&cell[..length], &other[..length]);
        let [b, bb, ab] = if self.whole {
            summed(length, |at| {
                let y = other[at];
                [y, y * y, cell[at] * y]
            })
        } else {
            let shown = &self.shown[..length];
            summed(length, |at| {
                let y = other[at] * shown[at];
                [y, y * y, cell[at] * y]
            })
        };
        let (va, vb) = (aa - a * a / n, bb - b * b / n);
        if va <= n || vb <= n {
            return 0.0;
        }
        (ab - a * b / n) / (va * vb).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn correlation_is_that_of_the_places_shown(
            pairs in prop::collection::vec((0u8..255, 0u8..255, prop::bool::weighted(0.8)), 1..300),
            all in any::<bool>(),
        ) {
            let mut cell: Vec<f32> = pairs
                .iter()
                .map(|&(x, _, is_shown)| if is_shown || all { f32::from(x) } else { f32::NAN })
                .collect();
            let other: Vec<f32> = pairs.iter().map(|&(_, y, _)| f32::from(y)).collect();
            let shown: Vec<(f64, f64)> = cell
                .iter()
                .zip(&other)
                .filter(|(x, _)| !x.is_nan())
                .map(|(&x, &y)| (f64::from(x), f64::from(y)))
                .collect();
            let n = shown.len() as f64;
            let (mx, my) = (shown.iter().map(|p| p.0).sum::<f64>() / n, shown.iter().map(|p| p.1).sum::<f64>() / n);
            let product = |of: fn(f64, f64) -> f64| shown.iter().map(|&(x, y)| of(x - mx, y - my)).sum::<f64>();
            let (xx, yy, xy) = (product(|x, _| x * x), product(|_, y| y * y), product(|x, y| x * y));
            // Far from where structure ends, so that rounding decides nothing.
            prop_assume!(n > 0.0 && (xx < 0.5 * n || xx > 1.5 * n) && (yy < 0.5 * n || yy > 1.5 * n));
            let wanted = if xx <= n || yy <= n { 0.0 } else { xy / (xx * yy).sqrt() };
            let sought = Sought::of(&mut cell);
            prop_assert!((f64::from(sought.correlation(&cell, &other)) - wanted).abs() < 1e-3);
        }
    }

    #[test]
    fn a_block_hangs_together_by_sides_and_corners_and_ends_at_the_edge() {
        let marks = |picture: &str| {
            picture
                .bytes()
                .filter(|one| *one != b' ')
                .map(|one| one == b'#')
                .collect::<Vec<_>>()
        };
        assert_eq!(largest_block(&mut marks("##.. ..#. #..# ...#"), 4), 5);
        assert_eq!(
            largest_block(&mut marks("...# #... ...."), 4),
            1,
            "the next row begins at the other side"
        );
        assert_eq!(largest_block(&mut marks("...."), 4), 0);
        assert_eq!(largest_block(&mut marks("####"), 1), 4);
    }
}
