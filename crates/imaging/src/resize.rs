//! Resampling as Pillow does it, bit for bit: descriptors depend on every pixel being the one that the network was
//! trained on.
//!
//! An antialiased separable convolution. When shrinking, the filter's support grows with the factor, so every source
//! pixel counts; plain interpolation would alias. Horizontal pass first, rounded to 8 bits, then the vertical one;
//! weights are normalised in double precision and rounded to 22 bits after the point (Pillow,
//! `src/libImaging/Resample.c`). Libraries that are quicker at large factors take weights of 16 bits, which is a
//! level off here and there.

use std::array;
use std::ops::Range;

use resample::{ROWS_AT_ONCE, Windows};

use crate::poll::Poll;
use crate::{Image, ImageError, buffers};

/// The kernel of a resize; names and shapes as in Pillow's `Image.Resampling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// The nearest source pixel, no antialiasing.
    Nearest,
    /// Triangle, support 1.
    Bilinear,
    /// Keys' cubic with a = −0.5 (Catmull-Rom), support 2.
    Bicubic,
    /// Sinc windowed by sinc, support 3.
    Lanczos,
}

/// Most bytes of a result, and of what lies between the passes.
const MAX_BYTES: u64 = 1 << 31;
/// Bits after the point of a weight: a sum of 255 times weights that add up to no more than two fits 32 bits.
const PRECISION: u32 = 32 - 8 - 2;
/// Half of the last place that is kept: sums start with it and are then cut off.
const HALF: i32 = 1 << (PRECISION - 1);
/// Rows between two polls.
const POLL_ROWS: usize = 16;
/// Columns whose weights are held at a time.
const COLUMNS_AT_ONCE: usize = 4096;

/// Resizes to exactly `width × height`; the aspect ratio is not kept. The pixels are those of Pillow's
/// `Image.resize((width, height), filter)` on RGB pictures.
///
/// # Errors
/// [`ImageError::InvalidSize`] for a side of zero, or when the result, or the picture between the passes (`width` by
/// the old height), would have more than 2³¹ bytes.
pub fn resize(image: &Image, width: u32, height: u32, filter: Filter) -> Result<Image, ImageError> {
    resize_until(image, width, height, filter, &|| false)
}

/// As [`resize`]; `should_stop` is polled all along.
///
/// # Errors
/// As [`resize`]; [`ImageError::Cancelled`] once `should_stop` says so.
pub fn resize_until(
    image: &Image,
    width: u32,
    height: u32,
    filter: Filter,
    should_stop: &dyn Fn() -> bool,
) -> Result<Image, ImageError> {
    let source = (image.pixels(), image.width() as usize, image.height() as usize);
    let pixels = resize_pixels(source, width, height, filter, &Poll::new(should_stop))?;
    Image::new(width, height, pixels)
}

/// As [`resize_until`], on bare pixels: their bytes (RGB, row-major), width and height.
///
/// # Errors
/// As [`resize_until`].
pub fn resize_pixels(
    (pixels, source, old_height): (&[u8], usize, usize),
    width: u32,
    height: u32,
    filter: Filter,
    poll: &Poll,
) -> Result<Vec<u8>, ImageError> {
    let too_large = |height: u64| (u64::from(width) * height).saturating_mul(3) > MAX_BYTES;
    if width == 0 || height == 0 || too_large(u64::from(height)) || too_large(old_height as u64) {
        return Err(ImageError::InvalidSize { width, height });
    }
    let kernel = match filter {
        Filter::Nearest => return nearest(pixels, (source, old_height), (width, height), poll),
        Filter::Bilinear => Kernel {
            support: 1.0,
            value: triangle,
        },
        Filter::Bicubic => Kernel {
            support: 2.0,
            value: catmull_rom,
        },
        Filter::Lanczos => Kernel {
            support: 3.0,
            value: lanczos,
        },
    };
    let (columns, rows) = (width as usize, height as usize);
    if columns != source && rows != old_height && columns <= COLUMNS_AT_ONCE {
        return both((pixels, source, old_height), (columns, rows), &kernel, poll);
    }
    let narrowed = (columns != source)
        .then(|| horizontal(pixels, source, old_height, columns, &kernel, poll))
        .transpose()?;
    match narrowed {
        narrowed if rows != old_height => {
            let pixels = narrowed.as_deref().unwrap_or(pixels);
            vertical(pixels, columns, old_height, rows, &kernel, poll)
        }
        Some(narrowed) => Ok(narrowed),
        None => buffers::copy(pixels),
    }
}

struct Kernel {
    /// Where it becomes zero, at scale 1.
    support: f64,
    value: fn(f64) -> f64,
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

fn catmull_rom(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| {
        let angle = x * std::f64::consts::PI;
        // The same sine on every machine.
        if x == 0.0 { 1.0 } else { libm::sin(angle) / angle }
    };
    if (-3.0..3.0).contains(&x) {
        sinc(x) * sinc(x / 3.0)
    } else {
        0.0
    }
}

/// Which of `source` samples make target sample `at` of `target`: the first one, and their weights into `weights`.
fn weigh(
    source: usize,
    target: usize,
    at: usize,
    kernel: &Kernel,
    exact: &mut Vec<f64>,
    weights: &mut Vec<i32>,
) -> usize {
    let scale = source as f64 / target as f64;
    let stretch = scale.max(1.0);
    let support = kernel.support * stretch;
    let center = (at as f64 + 0.5) * scale;
    // Cut off towards zero, as C does.
    let first = ((center - support + 0.5) as i64).max(0) as usize;
    let end = ((center + support + 0.5) as usize).min(source);
    exact.clear();
    exact.extend((first..end).map(|place| (kernel.value)((place as f64 - center + 0.5) * (1.0 / stretch))));
    let sum: f64 = exact.iter().sum();
    weights.extend(exact.iter().map(|&weight| {
        let weight = if sum == 0.0 { weight } else { weight / sum } * f64::from(1 << PRECISION);
        (if weight < 0.0 { weight - 0.5 } else { weight + 0.5 }) as i32
    }));
    first
}

/// Both passes at once: of what lies between them only the rows that the next row of the result is made of are held,
/// which stay in the cache.
fn both(
    (pixels, source, old_height): (&[u8], usize, usize),
    (columns, rows): (usize, usize),
    kernel: &Kernel,
    poll: &Poll,
) -> Result<Vec<u8>, ImageError> {
    let stride = columns * 3;
    let mut result = buffers::zeroed(stride * rows)?;
    let (mut exact, mut weights) = (Vec::new(), Vec::new());
    let windows = windows(source, 0..columns, columns, kernel, &mut exact);
    // A row of the result is made of no more than these; whole blocks of rows are made.
    let stretch = (old_height as f64 / rows as f64).max(1.0);
    let most = ((2.0 * kernel.support * stretch).ceil() as usize + 2).min(old_height);
    let held = (most + ROWS_AT_ONCE).next_multiple_of(ROWS_AT_ONCE);
    let mut between = buffers::zeroed(stride * held)?;
    let mut sums = vec![0; stride];
    let mut next = 0;
    for (row, target) in result.chunks_exact_mut(stride).enumerate() {
        poll.check()?;
        weights.clear();
        let first = weigh(old_height, rows, row, kernel, &mut exact, &mut weights);
        while next < first + weights.len() {
            let until = (next + ROWS_AT_ONCE).min(old_height);
            let block = &pixels[next * source * 3..until * source * 3];
            let results = &mut between[next % held * stride..][..(until - next) * stride];
            across(block, source, &windows, results, columns, 0..columns);
            next = until;
        }
        sums.fill(HALF);
        for (line, weight) in (first..).zip(&weights) {
            resample::add(&mut sums, &between[line % held * stride..][..stride], *weight);
        }
        for (target, sum) in target.iter_mut().zip(&sums) {
            *target = resample::rounded::<PRECISION>(*sum);
        }
    }
    Ok(result)
}

/// The windows of some of the result's `columns`.
fn windows(source: usize, some: Range<usize>, columns: usize, kernel: &Kernel, exact: &mut Vec<f64>) -> Windows {
    let mut windows = Windows::new();
    let mut weights = Vec::new();
    for column in some {
        weights.clear();
        let first = weigh(source, columns, column, kernel, exact, &mut weights);
        windows.push(first, &weights);
    }
    windows
}

/// Narrows up to ROWS_AT_ONCE rows: those columns of the result that there are windows of.
fn across(block: &[u8], source: usize, windows: &Windows, results: &mut [u8], columns: usize, some: Range<usize>) {
    let mut rows = block.chunks_exact(source * 3).map(|row| row.as_chunks().0);
    let mut targets = results
        .chunks_exact_mut(columns * 3)
        .map(|target| target[some.start * 3..some.end * 3].as_chunks_mut().0);
    if rows.len() == ROWS_AT_ONCE && targets.len() == ROWS_AT_ONCE {
        let rows: [_; ROWS_AT_ONCE] = array::from_fn(|_| rows.next().unwrap_or_default());
        let targets = array::from_fn(|_| targets.next().unwrap_or_default());
        resample::across::<PRECISION>(rows, windows, targets);
    } else {
        for (row, target) in rows.zip(targets) {
            resample::across_one::<PRECISION>(row, windows, target);
        }
    }
}

fn horizontal(
    pixels: &[u8],
    source: usize,
    rows: usize,
    columns: usize,
    kernel: &Kernel,
    poll: &Poll,
) -> Result<Vec<u8>, ImageError> {
    let mut result = buffers::zeroed(columns * rows * 3)?;
    let mut exact = Vec::new();
    for from in (0..columns).step_by(COLUMNS_AT_ONCE) {
        let to = (from + COLUMNS_AT_ONCE).min(columns);
        let windows = windows(source, from..to, columns, kernel, &mut exact);
        let blocks = pixels.chunks(source * 3 * ROWS_AT_ONCE);
        let results = result.chunks_mut(columns * 3 * ROWS_AT_ONCE);
        for (number, (block, results)) in blocks.zip(results).enumerate() {
            if (number * ROWS_AT_ONCE).is_multiple_of(POLL_ROWS) {
                poll.check()?;
            }
            across(block, source, &windows, results, columns, from..to);
        }
    }
    Ok(result)
}

fn vertical(
    pixels: &[u8],
    columns: usize,
    source: usize,
    rows: usize,
    kernel: &Kernel,
    poll: &Poll,
) -> Result<Vec<u8>, ImageError> {
    let stride = columns * 3;
    let mut result = buffers::zeroed(stride * rows)?;
    let (mut exact, mut weights) = (Vec::new(), Vec::new());
    let mut sums = vec![0; stride];
    for (row, target) in result.chunks_exact_mut(stride).enumerate() {
        weights.clear();
        let first = weigh(source, rows, row, kernel, &mut exact, &mut weights);
        sums.fill(HALF);
        // A row may be made of all the others.
        poll.check()?;
        for (line, weight) in pixels[first * stride..].chunks_exact(stride).zip(&weights) {
            resample::add(&mut sums, line, *weight);
        }
        for (target, sum) in target.iter_mut().zip(&sums) {
            *target = resample::rounded::<PRECISION>(*sum);
        }
    }
    Ok(result)
}

fn nearest(
    pixels: &[u8],
    (old_width, old_height): (usize, usize),
    (width, height): (u32, u32),
    poll: &Poll,
) -> Result<Vec<u8>, ImageError> {
    let columns = places(old_width as u32, width);
    let (source, _) = pixels.as_chunks::<3>();
    let mut result = buffers::with_room(width as usize * height as usize * 3)?;
    for (number, row) in places(old_height as u32, height).into_iter().enumerate() {
        if number.is_multiple_of(POLL_ROWS) {
            poll.check()?;
        }
        let row = &source[row * old_width..][..old_width];
        result.extend(columns.iter().flat_map(|&column| row[column]));
    }
    Ok(result)
}

/// For each target sample the source sample that its centre falls into; summed up step by step, as Pillow does
/// (`Geometry.c`, `ImagingScaleAffine`), because the rounding of the sum decides ties.
fn places(source: u32, target: u32) -> Vec<usize> {
    let step = f64::from(source) / f64::from(target);
    let last = source as usize - 1;
    std::iter::successors(Some(step * 0.5), |place| Some(place + step))
        .take(target as usize)
        .map(|place| (place as usize).min(last))
        .collect()
}
