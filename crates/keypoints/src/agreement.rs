//! From two pictures to the regions that agree.

use imaging::{Filter, Image, ImageError, resize};

use crate::describe::keypoints;
use crate::grey::Grey;
use crate::matching::{Pair, pairs};
use crate::transform::{Affine, agree};

/// Longest side of the pictures that are worked on.
pub const WORKING_SIDE: u32 = 512;

/// Fewer keypoints than this agree by chance, too.
pub const LEAST_INLIERS: usize = 8;

/// Blocks are squares of this side, half overlapping.
const BLOCK: usize = 16;
const STEP: usize = BLOCK / 2;
/// Agreement of a block: zero-mean normalised cross-correlation.
const LEAST_CORRELATION: f32 = 0.7;
/// Standard deviation below which a block has nothing to correlate.
const FLAT: f32 = 5.0;
/// Blocks with structure that must agree.
const LEAST_BLOCKS: usize = 4;

/// A rectangle of whole and broken pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Left edge, top edge, width, height in the query, as parts of its width and height.
    pub query: [f64; 4],
    /// The same in the reference.
    pub reference: [f64; 4],
}

/// What two pictures have in common.
pub struct Agreement {
    /// Keypoints that are each other's best match.
    pub matched: usize,
    /// Those that one transform explains, each place counted once.
    pub inliers: usize,
    /// Whether the query shows the reference mirrored.
    pub mirrored: bool,
    /// From reference to query, in parts of width and height; `None` where the pictures do not agree.
    pub transform: Option<Affine>,
    /// Connected regions that agree, the largest first.
    pub regions: Vec<Region>,
    pub(crate) query: Image,
    pub(crate) reference: Image,
    /// From reference to query, in working pixels.
    pub(crate) working: Option<Affine>,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) mask: Mask,
}

/// Which cells (of [`STEP`] pixels a side) of the query agree.
pub(crate) struct Mask {
    columns: usize,
    rows: usize,
    cells: Vec<bool>,
}

impl Mask {
    /// Whether a pixel of the query lies in an agreeing cell.
    pub(crate) fn holds(&self, x: f64, y: f64) -> bool {
        if !(x >= -0.5 && y >= -0.5) {
            return false;
        }
        let (column, row) = ((x.max(0.0) as usize) / STEP, (y.max(0.0) as usize) / STEP);
        column < self.columns && row < self.rows && self.cells[row * self.columns + column]
    }
}

/// Compares a query with a reference.
///
/// # Errors
/// [`ImageError::Cancelled`] once `should_stop` says so.
pub fn compare(query: &Image, reference: &Image, should_stop: &dyn Fn() -> bool) -> Result<Agreement, ImageError> {
    let (query, reference) = (working(query)?, working(reference)?);
    let (grey, other) = (Grey::of(&query), Grey::of(&reference));
    let described = keypoints(&grey, should_stop)?;
    let mut matched = 0;
    let mut best: Option<(Affine, Vec<Pair>, bool)> = None;
    for mirrored in [false, true] {
        let picture = if mirrored { other.mirrored() } else { other.clone() };
        let found = pairs(&described, &keypoints(&picture, should_stop)?, should_stop)?;
        let agreed = agree(&found, should_stop)?;
        if best.is_none() {
            matched = matched.max(found.len());
        }
        let Some((transform, inliers)) = agreed else { continue };
        if best.as_ref().is_none_or(|(_, most, _)| inliers.len() > most.len()) {
            matched = found.len();
            best = Some((transform, inliers, mirrored));
        }
    }
    let mut agreement = Agreement {
        matched,
        inliers: best.as_ref().map_or(0, |(_, inliers, _)| inliers.len()),
        mirrored: false,
        transform: None,
        regions: Vec::new(),
        working: None,
        pairs: Vec::new(),
        mask: Mask {
            columns: 0,
            rows: 0,
            cells: Vec::new(),
        },
        query,
        reference,
    };
    let Some((transform, mut inliers, mirrored)) = best.filter(|(_, inliers, _)| inliers.len() >= LEAST_INLIERS) else {
        return Ok(agreement);
    };
    let width = other.width as f64;
    let transform = if mirrored {
        transform.after_mirror(width)
    } else {
        transform
    };
    if mirrored {
        for pair in &mut inliers {
            pair.reference.0 = width - 1.0 - pair.reference.0;
        }
    }
    let Some(inverse) = transform.inverse() else {
        return Ok(agreement);
    };
    let (mask, structured) = correlate(&grey, &other, &inverse, should_stop)?;
    if structured < LEAST_BLOCKS {
        return Ok(agreement);
    }
    agreement.regions = regions(&mask, &agreement.query, &agreement.reference, &inverse);
    agreement.mirrored = mirrored;
    agreement.transform = Some(in_parts(&transform, &agreement.query, &agreement.reference));
    agreement.working = Some(transform);
    agreement.pairs = inliers;
    agreement.mask = mask;
    Ok(agreement)
}

fn working(image: &Image) -> Result<Image, ImageError> {
    let longest = image.width().max(image.height());
    if longest <= WORKING_SIDE {
        return Ok(image.clone());
    }
    let side = |length: u32| {
        let scaled = (u64::from(length) * u64::from(WORKING_SIDE)).div_ceil(u64::from(longest));
        u32::try_from(scaled).unwrap_or(WORKING_SIDE).max(1)
    };
    resize(image, side(image.width()), side(image.height()), Filter::Bilinear)
}

/// The transform between coordinates that run from 0 to 1 across each picture.
fn in_parts(transform: &Affine, query: &Image, reference: &Image) -> Affine {
    let (qw, qh) = (f64::from(query.width()), f64::from(query.height()));
    let (rw, rh) = (f64::from(reference.width()), f64::from(reference.height()));
    // Pixel centres lie at one half: x = w u − 1/2.
    let (cx, cy) = transform.apply((-0.5, -0.5));
    Affine {
        a: transform.a * rw / qw,
        b: transform.b * rh / qw,
        c: (cx + 0.5) / qw,
        d: transform.d * rw / qh,
        e: transform.e * rh / qh,
        f: (cy + 0.5) / qh,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Block {
    Agrees,
    /// Nothing in it on either side: it agrees if it lies beside what does, and is as bright.
    Flat,
    Differs,
}

/// The cells of the query that agree with the reference under the transform from query to reference, and how many blocks
/// with structure do.
fn correlate(
    query: &Grey,
    reference: &Grey,
    inverse: &Affine,
    should_stop: &dyn Fn() -> bool,
) -> Result<(Mask, usize), ImageError> {
    let columns = query.width.saturating_sub(BLOCK) / STEP + 1;
    let rows = query.height.saturating_sub(BLOCK) / STEP + 1;
    let mut blocks = vec![Block::Differs; columns * rows];
    let mut brightness = vec![(0.0, 0.0); columns * rows];
    if query.width >= BLOCK && query.height >= BLOCK {
        for row in 0..rows {
            if should_stop() {
                return Err(ImageError::Cancelled);
            }
            for column in 0..columns {
                let at = row * columns + column;
                (blocks[at], brightness[at]) = block(query, reference, inverse, column * STEP, row * STEP);
            }
        }
    }
    let structured = blocks.iter().filter(|block| **block == Block::Agrees).count();
    let (gain, offset) = tone(
        blocks
            .iter()
            .zip(&brightness)
            .filter(|(block, _)| **block == Block::Agrees)
            .map(|(_, pair)| *pair),
    );
    for (block, (ours, theirs)) in blocks.iter_mut().zip(&brightness) {
        if *block == Block::Flat && (ours - (gain * theirs + offset)).abs() > TONE {
            *block = Block::Differs;
        }
    }
    // Flat parts (sky, walls) of a copy hang together with its structure.
    let mut edge: Vec<usize> = (0..blocks.len()).filter(|&at| blocks[at] == Block::Agrees).collect();
    while let Some(at) = edge.pop() {
        let (column, row) = (at % columns, at / columns);
        let beside = [
            (column > 0).then(|| at - 1),
            (column + 1 < columns).then(|| at + 1),
            (row > 0).then(|| at - columns),
            (row + 1 < rows).then(|| at + columns),
        ];
        for next in beside.into_iter().flatten() {
            if blocks[next] == Block::Flat {
                blocks[next] = Block::Agrees;
                edge.push(next);
            }
        }
    }
    let (cell_columns, cell_rows) = (query.width.div_ceil(STEP), query.height.div_ceil(STEP));
    let mut cells = vec![false; cell_columns * cell_rows];
    for (at, block) in blocks.iter().enumerate() {
        if *block == Block::Agrees {
            for row in at / columns..(at / columns + 2).min(cell_rows) {
                for column in at % columns..(at % columns + 2).min(cell_columns) {
                    cells[row * cell_columns + column] = true;
                }
            }
        }
    }
    let mask = Mask {
        columns: cell_columns,
        rows: cell_rows,
        cells,
    };
    Ok((mask, structured))
}

/// Grey levels by which a flat block may differ after the copy's change of tone.
const TONE: f32 = 24.0;

/// Gain and offset from the reference's brightness to the query's, by least squares over agreeing blocks.
fn tone(pairs: impl Iterator<Item = (f32, f32)>) -> (f32, f32) {
    let (mut count, mut x, mut y, mut xx, mut xy) = (0.0_f64, 0.0, 0.0, 0.0, 0.0);
    for (ours, theirs) in pairs {
        let (ours, theirs) = (f64::from(ours), f64::from(theirs));
        count += 1.0;
        x += theirs;
        y += ours;
        xx += theirs * theirs;
        xy += theirs * ours;
    }
    let variance = xx * count - x * x;
    if count < 8.0 || variance <= 25.0 * count * count {
        // Too little to tell a gain from: the offset alone.
        return (1.0, if count > 0.0 { ((y - x) / count) as f32 } else { 0.0 });
    }
    let gain = ((xy * count - x * y) / variance).clamp(0.2, 3.0);
    (gain as f32, ((y - gain * x) / count) as f32)
}

/// Samples of a block are two pixels apart.
const SAMPLES: usize = (BLOCK / 2) * (BLOCK / 2);

/// What a block of the query is, and its mean brightness in query and reference.
fn block(query: &Grey, reference: &Grey, inverse: &Affine, left: usize, top: usize) -> (Block, (f32, f32)) {
    let mut ours = [0.0_f32; SAMPLES];
    let mut places = [(0.0, 0.0); SAMPLES];
    for (at, (value, place)) in ours.iter_mut().zip(&mut places).enumerate() {
        let (x, y) = (left + at % (BLOCK / 2) * 2, top + at / (BLOCK / 2) * 2);
        *value = query.at(x, y) as f32;
        *place = inverse.apply((x as f64, y as f64));
    }
    let (our_mean, deviation) = centre(&mut ours);
    let mut flat = None;
    // The transform is right to a few pixels only: a perspective is not affine.
    for (dx, dy) in [
        (0.0, 0.0),
        (-2.5, 0.0),
        (2.5, 0.0),
        (0.0, -2.5),
        (0.0, 2.5),
        (-2.5, -2.5),
        (2.5, 2.5),
        (-2.5, 2.5),
        (2.5, -2.5),
    ] {
        let mut theirs = [0.0_f32; SAMPLES];
        for (value, (x, y)) in theirs.iter_mut().zip(places) {
            match reference.between(x + dx, y + dy) {
                Some(found) => *value = found,
                None => return (Block::Differs, (0.0, 0.0)),
            }
        }
        let (their_mean, other) = centre(&mut theirs);
        if deviation < FLAT || other < FLAT {
            if deviation < 2.0 * FLAT && other < 2.0 * FLAT {
                flat = flat.or(Some((our_mean, their_mean)));
            }
            continue;
        }
        let product: f32 = ours.iter().zip(&theirs).map(|(a, b)| a * b).sum::<f32>() / SAMPLES as f32;
        if product >= LEAST_CORRELATION * deviation * other {
            return (Block::Agrees, (our_mean, their_mean));
        }
    }
    match flat {
        Some(means) => (Block::Flat, means),
        None => (Block::Differs, (0.0, 0.0)),
    }
}

/// Takes the mean away; returns it and the standard deviation.
fn centre(values: &mut [f32]) -> (f32, f32) {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    values.iter_mut().for_each(|value| *value -= mean);
    let variance = values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
    (mean, variance.sqrt())
}

/// Connected cells as rectangles, the largest first; specks are left out.
fn regions(mask: &Mask, query: &Image, reference: &Image, inverse: &Affine) -> Vec<Region> {
    let (qw, qh) = (f64::from(query.width()), f64::from(query.height()));
    let (rw, rh) = (f64::from(reference.width()), f64::from(reference.height()));
    let mut seen = vec![false; mask.cells.len()];
    let mut found: Vec<(usize, Region)> = Vec::new();
    for start in 0..mask.cells.len() {
        if !mask.cells[start] || seen[start] {
            continue;
        }
        let (mut low, mut high, mut size) = ((usize::MAX, usize::MAX), (0, 0), 0);
        let mut waiting = vec![start];
        seen[start] = true;
        while let Some(at) = waiting.pop() {
            let (column, row) = (at % mask.columns, at / mask.columns);
            size += 1;
            low = (low.0.min(column), low.1.min(row));
            high = (high.0.max(column + 1), high.1.max(row + 1));
            let beside = [
                (column > 0).then(|| at - 1),
                (column + 1 < mask.columns).then(|| at + 1),
                (row > 0).then(|| at - mask.columns),
                (row + 1 < mask.rows).then(|| at + mask.columns),
            ];
            for next in beside.into_iter().flatten() {
                if mask.cells[next] && !seen[next] {
                    seen[next] = true;
                    waiting.push(next);
                }
            }
        }
        let (left, top) = ((low.0 * STEP) as f64, (low.1 * STEP) as f64);
        let (right, bottom) = (((high.0 * STEP) as f64).min(qw), ((high.1 * STEP) as f64).min(qh));
        let corners = [(left, top), (right, top), (left, bottom), (right, bottom)]
            .map(|(x, y)| inverse.apply((x - 0.5, y - 0.5)))
            .map(|(x, y)| ((x + 0.5).clamp(0.0, rw), (y + 0.5).clamp(0.0, rh)));
        let least = |value: fn(&(f64, f64)) -> f64| corners.iter().map(value).fold(f64::INFINITY, f64::min);
        let most = |value: fn(&(f64, f64)) -> f64| corners.iter().map(value).fold(f64::NEG_INFINITY, f64::max);
        let (x, y) = (least(|c| c.0), least(|c| c.1));
        found.push((
            size,
            Region {
                query: [left / qw, top / qh, (right - left) / qw, (bottom - top) / qh],
                reference: [x / rw, y / rh, (most(|c| c.0) - x) / rw, (most(|c| c.1) - y) / rh],
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
