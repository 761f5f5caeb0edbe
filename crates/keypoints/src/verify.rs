//! Whether a query shows a reference: features under one motion, and the content under it.

use imaging::{Image, ImageError};
use vectors::hamming::{self, Code};

use crate::content::{Cells, Content, Pyramid, content};
use crate::features::{Feature, features, finest};
use crate::grey::Grey;
use crate::motion::{Match, Motion, matches, motion};
use crate::plane::{Plane, Spare};
use crate::sketch::{FINE_FEATURES, FINE_SIDE, QUERY_FEATURES, SKETCH_SIDE, Sketch, SketchError, THUMBNAIL, at_most};
use crate::transform::Affine;

/// Fewer features than this agree by chance, too: the content is not looked at.
const LEAST_INLIERS: usize = 5;
/// Correlation of the thumbnails from which the whole frames are tried as they lie on one another.
const LEAST_ALIKE: f32 = 0.7;
/// Cells that must be compared before their agreement counts.
const LEAST_COMPARED: usize = 6;

/// A query, prepared once for any number of references.
pub struct Query {
    plain: Vec<Feature>,
    mirrored: Vec<Feature>,
    picture: Pyramid,
    thumbnails: [Vec<f32>; 8],
}

/// What a query and a reference have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Features that one motion explains, each place counted once.
    pub inliers: usize,
    /// Cells of the reference with structure.
    pub structured: usize,
    /// Of these, those that the query's frame shows under that motion.
    pub compared: usize,
    /// Of these, those with the same content.
    pub agreed: usize,
    /// Of those without, the most that lie side by side.
    pub block: usize,
    /// Whether the query shows the reference mirrored.
    pub mirrored: bool,
    /// The box of the query that shows the reference, in parts of its sides: left, top, width, height.
    pub query_box: Option<[f64; 4]>,
    /// The box of the reference that is shown.
    pub reference_box: Option<[f64; 4]>,
    /// From reference to query, in parts of width and height.
    pub transform: Option<Affine>,
}

impl Evidence {
    /// Share of the compared cells that agree, 0 to 1; 0 where too few could be compared.
    pub fn agreement(&self) -> f64 {
        if self.compared < LEAST_COMPARED.min(self.structured.max(1)) {
            return 0.0;
        }
        self.agreed as f64 / self.compared as f64
    }

    /// As [`Evidence::agreement`], of the cells apart from the largest block of those that do not agree, as far as that
    /// is no more than a quarter of all: something may have been laid over the picture.
    pub fn uncovered(&self) -> f64 {
        let hidden = self.block.min(self.compared / 4);
        if self.agreement() == 0.0 {
            return 0.0;
        }
        self.agreed as f64 / (self.compared - hidden) as f64
    }

    /// Share of the reference that the query shows with the same content, 0 to 1.
    pub fn area(&self) -> f64 {
        self.agreed as f64 / self.structured.max(1) as f64
    }
}

/// What the evidence rests on, for who draws it.
#[derive(Default)]
pub(crate) struct Seen {
    /// Features that are most like one another, the better of both ways to mirror.
    pub(crate) matched: usize,
    /// Those that one motion explains, in pixels of the pictures that the features lie in.
    pub(crate) inliers: Vec<Match>,
    pub(crate) cells: Cells,
}

/// Agreement and agreeing cells from which a query is said to show a reference.
const SHOWN_AGREEMENT: f64 = 0.6;
const SHOWN_CELLS: usize = 8;

impl Evidence {
    /// Whether the evidence by itself says that the query shows the reference, or a good part of it. The probability
    /// weighs it more finely, with the descriptors' similarity.
    pub fn is_shown(&self) -> bool {
        self.agreed >= SHOWN_CELLS && self.agreement() >= SHOWN_AGREEMENT
    }
}

impl Query {
    /// Prepares a query.
    ///
    /// # Errors
    /// [`ImageError::Cancelled`] once `should_stop` says so.
    pub fn of(image: &Image, should_stop: &dyn Fn() -> bool) -> Result<Self, ImageError> {
        // The larger picture first: what it leaves behind has room for the other's planes.
        let mut spare = Spare::default();
        let fine = plane_of(image, FINE_SIDE)?;
        let fine_width = fine.width;
        let found = finest(&fine, FINE_FEATURES, &mut spare, should_stop)?;
        spare.give([fine]);
        let plane = plane_of(image, SKETCH_SIDE)?;
        let by = plane.width as f32 / fine_width as f32;
        let mut plain = features(&plane, QUERY_FEATURES, &mut spare, should_stop)?;
        plain.extend(found.iter().map(|feature| feature.scaled(by)));
        let mirrored = plain.iter().map(|feature| feature.mirrored(plane.width)).collect();
        let small = Grey::of(&imaging::resize(
            image,
            THUMBNAIL as u32,
            THUMBNAIL as u32,
            imaging::Filter::Bilinear,
        )?);
        Ok(Self {
            plain,
            mirrored,
            thumbnails: std::array::from_fn(|number| {
                let turned: Vec<u8> = (0..THUMBNAIL * THUMBNAIL)
                    .map(|at| {
                        let (x, y) = (at % THUMBNAIL, at / THUMBNAIL);
                        let (x, y) = laid(number, x, y);
                        small.pixels[y * THUMBNAIL + x]
                    })
                    .collect();
                unit(&turned)
            }),
            picture: Pyramid::of(plane),
        })
    }

    /// How many local features it has.
    pub fn features(&self) -> usize {
        self.plain.len()
    }

    /// Width and height of the picture that the features lie in.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.picture.first().width, self.picture.first().height)
    }

    /// Compares the query with a reference.
    ///
    /// # Errors
    /// [`SketchError::Damaged`] where the sketch's picture cannot be decoded.
    pub fn compare(&self, reference: &Sketch) -> Result<Evidence, SketchError> {
        self.compared(reference, None)
    }

    /// As [`Query::compare`]; `seen` is filled with what the evidence rests on.
    pub(crate) fn compared(&self, reference: &Sketch, mut seen: Option<&mut Seen>) -> Result<Evidence, SketchError> {
        let kernel = hamming::fastest();
        let codes: Vec<Code> = reference.features.iter().map(|feature| feature.code).collect();
        let mut row = Vec::new();
        let mut best: Option<(Motion, bool)> = None;
        for (features, mirrored) in [(&self.plain, false), (&self.mirrored, true)] {
            let found = matches(kernel, features, &reference.features, &codes, &mut row);
            if let Some(seen) = &mut seen {
                seen.matched = seen.matched.max(found.len());
            }
            if let Some(found) = motion(&found)
                && best
                    .as_ref()
                    .is_none_or(|(best, _)| found.inliers.len() > best.inliers.len())
            {
                best = Some((found, mirrored));
            }
        }
        let mut evidence = Evidence::default();
        let mut tried: Vec<(Affine, bool)> = Vec::new();
        let (width, height) = (self.picture.first().width as f64, self.picture.first().height as f64);
        if let Some((motion, mirrored)) = best {
            evidence.inliers = motion.inliers.len();
            evidence.mirrored = mirrored;
            if let Some(seen) = &mut seen {
                seen.inliers.clone_from(&motion.inliers);
                if mirrored {
                    for one in &mut seen.inliers {
                        one.query.0 = width - 1.0 - one.query.0;
                    }
                }
            }
            if evidence.inliers >= LEAST_INLIERS {
                let transform = if mirrored {
                    flipped(&motion.transform, width)
                } else {
                    motion.transform
                };
                tried.push((transform, mirrored));
            }
        }
        if evidence.inliers < 2 * LEAST_INLIERS {
            let other = unit(&reference.thumbnail);
            let likeness =
                |number: usize| -> f32 { self.thumbnails[number].iter().zip(&other).map(|(a, b)| a * b).sum() };
            let (number, alike) = (0..8)
                .map(|number| (number, likeness(number)))
                .fold((0, f32::MIN), |best, one| if one.1 > best.1 { one } else { best });
            if alike >= LEAST_ALIKE {
                let whole = frame(
                    number,
                    (reference.width as f64, reference.height as f64),
                    (width, height),
                );
                tried.push((whole, number & 1 == 1));
            }
        }
        if tried.is_empty() {
            return Ok(evidence);
        }
        let picture = Pyramid::of(reference.picture()?);
        let (pw, ph) = (picture.first().width as f64, picture.first().height as f64);
        let mut most: Option<(Content, Affine, bool)> = None;
        for (transform, mirrored) in tried {
            let small = scaled(&transform, reference.width as f64 / pw, reference.height as f64 / ph);
            let mut cells = seen.is_some().then(Cells::default);
            let found = content(&self.picture, &picture, &small, cells.as_mut());
            if most.as_ref().is_none_or(|(best, _, _)| found.agreed > best.agreed) {
                if let (Some(seen), Some(cells)) = (&mut seen, cells) {
                    seen.cells = cells;
                }
                most = Some((found, transform, mirrored));
            }
        }
        if let Some((found, transform, mirrored)) = most {
            evidence.structured = found.structured;
            evidence.compared = found.compared;
            evidence.agreed = found.agreed;
            evidence.block = found.block;
            evidence.mirrored = mirrored;
            let transform = in_parts(
                &transform,
                (reference.width as f64, reference.height as f64),
                (width, height),
            );
            evidence.transform = Some(transform);
            if let Some([left, top, right, bottom]) = found.bounds {
                evidence.reference_box = Some([left, top, right - left, bottom - top]);
                let corners = [(left, top), (right, top), (left, bottom), (right, bottom)].map(|at| {
                    let (x, y) = transform.apply(at);
                    (x.clamp(0.0, 1.0), y.clamp(0.0, 1.0))
                });
                let least = |value: fn(&(f64, f64)) -> f64| corners.iter().map(value).fold(1.0, f64::min);
                let most = |value: fn(&(f64, f64)) -> f64| corners.iter().map(value).fold(0.0, f64::max);
                let (x, y) = (least(|c| c.0), least(|c| c.1));
                evidence.query_box = Some([x, y, most(|c| c.0) - x, most(|c| c.1) - y]);
            }
        }
        Ok(evidence)
    }
}

/// Correlation of thumbnails from which two sketches are laid upon each other as they are; features that must agree
/// where they are not; and agreement of cells from which they are of one picture.
const SAME_THUMBNAILS: f32 = 0.97;
const SAME_INLIERS: usize = 12;
const SAME_AGREEMENT: f64 = 0.95;
const SAME_CELLS: usize = 12;

impl Sketch {
    /// Whether another sketch is one of the same picture, registered again as it is or cut, scaled or framed: all that
    /// both show is alike. Two receipts of one shop are not.
    ///
    /// # Errors
    /// [`SketchError::Damaged`] where a small picture cannot be decoded.
    pub fn is_same_picture(&self, other: &Sketch) -> Result<bool, SketchError> {
        let (ours, theirs) = (self.width * other.height, other.width * self.height);
        let alike: f32 = unit(&self.thumbnail)
            .iter()
            .zip(unit(&other.thumbnail))
            .map(|(a, b)| a * b)
            .sum();
        let size = |plane: &Plane| (plane.width as f64, plane.height as f64);
        let upon = |one: &Pyramid, two: &Pyramid, transform: &Affine, least: usize| {
            let found = content(one, two, transform, None);
            found.compared >= least && found.agreed as f64 >= SAME_AGREEMENT * found.compared as f64
        };
        if ours.abs_diff(theirs) * 20 <= ours.max(theirs) && alike >= SAME_THUMBNAILS {
            let (one, two) = (Pyramid::of(self.picture()?), Pyramid::of(other.picture()?));
            let whole = frame(0, size(two.first()), size(one.first()));
            if upon(&one, &two, &whole, 1) {
                return Ok(true);
            }
        }
        let codes: Vec<Code> = other.features.iter().map(|feature| feature.code).collect();
        let found = matches(
            hamming::fastest(),
            &self.features,
            &other.features,
            &codes,
            &mut Vec::new(),
        );
        let Some(found) = motion(&found).filter(|found| found.inliers.len() >= SAME_INLIERS) else {
            return Ok(false);
        };
        // The pictures may be smaller than what the features lie in.
        let (one, two) = (Pyramid::of(self.picture()?), Pyramid::of(other.picture()?));
        let ((ow, oh), (tw, th)) = (size(one.first()), size(two.first()));
        let from = scaled(&found.transform, other.width as f64 / tw, other.height as f64 / th);
        let transform = shrunk(&from, ow / self.width as f64, oh / self.height as f64);
        Ok(upon(&one, &two, &transform, SAME_CELLS))
    }
}

/// A transform whose result is then made smaller by these factors.
fn shrunk(transform: &Affine, x: f64, y: f64) -> Affine {
    // Pixel centres lie at whole numbers: v = (u + ½) x − ½.
    Affine {
        a: transform.a * x,
        b: transform.b * x,
        c: (transform.c + 0.5) * x - 0.5,
        d: transform.d * y,
        e: transform.e * y,
        f: (transform.f + 0.5) * y - 0.5,
    }
}

fn plane_of(image: &Image, longest: u32) -> Result<Plane, ImageError> {
    let grey = Grey::of(&at_most(image, longest)?);
    Ok(Plane::of(grey.width, grey.height, &grey.pixels))
}

/// Where a place of the reference's thumbnail lies in the query's, for each of the eight ways to lay it: bit 0 mirrors
/// left and right, bit 1 above and below, bit 2 exchanges the axes.
fn laid(number: usize, x: usize, y: usize) -> (usize, usize) {
    let (x, y) = if number & 4 != 0 { (y, x) } else { (x, y) };
    let x = if number & 1 != 0 { THUMBNAIL - 1 - x } else { x };
    let y = if number & 2 != 0 { THUMBNAIL - 1 - y } else { y };
    (x, y)
}

/// The whole reference upon the whole query, laid the same way.
fn frame(number: usize, (rw, rh): (f64, f64), (qw, qh): (f64, f64)) -> Affine {
    // In pixels with centres at whole numbers: u = (x + ½) / w.
    let (mut row_x, mut row_y) = ([qw / rw, 0.0], [0.0, qh / rh]);
    if number & 4 != 0 {
        (row_x, row_y) = ([0.0, qw / rh], [qh / rw, 0.0]);
    }
    let (mut c, mut f) = (0.5 * (row_x[0] + row_x[1]) - 0.5, 0.5 * (row_y[0] + row_y[1]) - 0.5);
    if number & 1 != 0 {
        row_x = row_x.map(|part| -part);
        c = qw - 1.0 - c;
    }
    if number & 2 != 0 {
        row_y = row_y.map(|part| -part);
        f = qh - 1.0 - f;
    }
    Affine {
        a: row_x[0],
        b: row_x[1],
        c,
        d: row_y[0],
        e: row_y[1],
        f,
    }
}

/// A transform onto the mirrored query, as one onto the query.
fn flipped(transform: &Affine, width: f64) -> Affine {
    Affine {
        a: -transform.a,
        b: -transform.b,
        c: width - 1.0 - transform.c,
        ..*transform
    }
}

/// The transform of a reference that is first enlarged by these factors.
fn scaled(transform: &Affine, x: f64, y: f64) -> Affine {
    // Pixel centres lie at whole numbers: u = (v + ½) x − ½.
    let (left, top) = transform.apply((0.5 * x - 0.5, 0.5 * y - 0.5));
    Affine {
        a: transform.a * x,
        b: transform.b * y,
        c: left,
        d: transform.d * x,
        e: transform.e * y,
        f: top,
    }
}

/// The transform between coordinates that run from 0 to 1 across each picture.
fn in_parts(transform: &Affine, (rw, rh): (f64, f64), (qw, qh): (f64, f64)) -> Affine {
    let (left, top) = transform.apply((-0.5, -0.5));
    Affine {
        a: transform.a * rw / qw,
        b: transform.b * rh / qw,
        c: (left + 0.5) / qw,
        d: transform.d * rw / qh,
        e: transform.e * rh / qh,
        f: (top + 0.5) / qh,
    }
}

/// Mean taken away, of length 1; zeros for a blank one.
fn unit(pixels: &[u8]) -> Vec<f32> {
    let mean = pixels.iter().map(|&level| f32::from(level)).sum::<f32>() / pixels.len() as f32;
    let centred: Vec<f32> = pixels.iter().map(|&level| f32::from(level) - mean).collect();
    let length = centred.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length < 16.0 {
        return vec![0.0; pixels.len()];
    }
    centred.iter().map(|value| value / length).collect()
}
