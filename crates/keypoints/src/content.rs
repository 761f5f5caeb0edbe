//! The content of two pictures compared under an alignment: cell by cell, what both show.

use crate::plane::Plane;
use crate::transform::Affine;

/// Cells a side: a sixteenth of the reference's small picture, longest side.
pub(crate) const CELLS: usize = 16;
/// Agreement of a cell: zero-mean normalised cross-correlation. Lines of text, rules and axes alone, which two receipts or charts have
/// in common, correlate by 0.6 and more; what JPEG and a smaller size leave of the same cell by more than this.
const LEAST_CORRELATION: f32 = 0.8;
/// Standard deviation below which a cell has nothing to correlate.
const FLAT: f32 = 4.0;
/// Part of a cell that the query must show.
const LEAST_SHOWN: f32 = 0.6;

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

/// A picture at full, half, quarter … size, so that it can be looked at from afar without aliasing.
pub(crate) struct Pyramid(Vec<Plane>);

impl Pyramid {
    pub(crate) fn of(plane: Plane) -> Self {
        let mut levels = vec![plane];
        while levels.len() < 5 {
            let last = &levels[levels.len() - 1];
            if last.width.min(last.height) < 8 {
                break;
            }
            let next = last.smoothed(1.0).halved();
            levels.push(next);
        }
        Self(levels)
    }

    /// The level at which one step covers about one pixel, if the step covers `scale` pixels of the first; and how much
    /// smaller it is.
    fn level(&self, scale: f64) -> (&Plane, f32) {
        let mut number = 0;
        let mut left = scale;
        while left > 1.45 && number + 1 < self.0.len() {
            left /= 2.0;
            number += 1;
        }
        (&self.0[number], 1.0 / (1 << number) as f32)
    }

    pub(crate) fn first(&self) -> &Plane {
        &self.0[0]
    }
}

/// Compares the cells of `reference`, the small picture, with what `query` shows there. `motion` leads from the small picture to
/// the query, both in pixels. `cells`: filled where they are wanted.
pub(crate) fn content(query: &Pyramid, reference: &Pyramid, motion: &Affine, mut cells: Option<&mut Cells>) -> Content {
    let scale = (motion.a * motion.e - motion.b * motion.d).abs().sqrt();
    // A query with fewer pixels than the small picture is compared at its own resolution.
    let mut level = 0;
    while scale * f64::from(1 << level) < 0.7 && level + 1 < reference.0.len().min(3) {
        level += 1;
    }
    let picture = &reference.0[level];
    let step = f64::from(1 << level);
    let (seen, shrunk) = query.level(scale * step);
    let shrunk = f64::from(shrunk);
    let side = picture.width.max(picture.height);
    let cell = side.div_ceil(CELLS).max(4);
    let mut result = Content::default();
    let full = query.first();
    let mut warped = vec![f32::NAN; cell * cell];
    let mut shifted = vec![0.0; cell * cell];
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
            for row in 0..rows {
                for column in 0..columns {
                    let place = ((left + column) as f64 * step, (top + row) as f64 * step);
                    let (x, y) = motion.apply(place);
                    let inside = x > -1.0 && y > -1.0 && x < full.width as f64 && y < full.height as f64;
                    shown += usize::from(inside);
                    warped[row * columns + column] = if inside {
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
            let mut agrees = false;
            for (dx, dy) in [
                (0, 0),
                (-1, 0),
                (1, 0),
                (0, -1),
                (0, 1),
                (-1, -1),
                (1, 1),
                (-1, 1),
                (1, -1),
            ] {
                let clamp = |at: usize, by: isize, most: usize| at.saturating_add_signed(by).min(most - 1);
                for row in 0..rows {
                    let v = clamp(top + row, dy, picture.height) * picture.width;
                    for column in 0..columns {
                        shifted[row * columns + column] = picture.values[v + clamp(left + column, dx, picture.width)];
                    }
                }
                if correlation(&warped[..size], &shifted[..size]) >= LEAST_CORRELATION {
                    agrees = true;
                    break;
                }
            }
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

/// Zero-mean normalised cross-correlation over the places that are numbers in `one`; 0 where that has no structure.
fn correlation(one: &[f32], other: &[f32]) -> f32 {
    let (mut n, mut a, mut b, mut aa, mut bb, mut ab) = (0.0_f32, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (&x, &y) in one.iter().zip(other) {
        if x.is_nan() {
            continue;
        }
        n += 1.0;
        a += x;
        b += y;
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    let (va, vb) = (aa - a * a / n, bb - b * b / n);
    if va <= n || vb <= n {
        return 0.0;
    }
    (ab - a * b / n) / (va * vb).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

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
