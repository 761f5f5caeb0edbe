//! Both pictures side by side: what agrees in full colour within a green line, the rest faded.

use imaging::{Image, ImageError};

use crate::agreement::Agreement;

const MARGIN: usize = 8;
const GAP: usize = 16;
const PAPER: [u8; 3] = [255, 255, 255];
const LINE: [u8; 3] = [20, 190, 70];
const THREAD: [u8; 3] = [255, 170, 0];
/// Threads between places that agree; more would hide the pictures.
const MOST_THREADS: usize = 10;

/// The query on the left, the reference on the right. Where nothing agrees, both are as they are.
///
/// # Errors
/// None that can happen: the picture's size is bounded.
pub fn draw(agreement: &Agreement) -> Result<Image, ImageError> {
    let (query, reference) = (&agreement.query, &agreement.reference);
    let (qw, qh) = (query.width() as usize, query.height() as usize);
    let (rw, rh) = (reference.width() as usize, reference.height() as usize);
    let mut canvas = Canvas {
        width: 2 * MARGIN + qw + GAP + rw,
        height: 2 * MARGIN + qh.max(rh),
        pixels: Vec::new(),
    };
    canvas.pixels = PAPER.repeat(canvas.width * canvas.height);
    let right = MARGIN + qw + GAP;
    match &agreement.working {
        None => {
            canvas.paint(query, MARGIN, |_, _| true, false);
            canvas.paint(reference, right, |_, _| true, false);
        }
        Some(transform) => {
            let mask = &agreement.mask;
            canvas.paint(query, MARGIN, |x, y| mask.holds(x, y), true);
            canvas.paint(
                reference,
                right,
                |x, y| {
                    let (u, v) = transform.apply((x, y));
                    mask.holds(u, v)
                },
                true,
            );
            let every = agreement.pairs.len().div_ceil(MOST_THREADS).max(1);
            for pair in agreement.pairs.iter().step_by(every) {
                let from = (pair.query.0 + MARGIN as f64, pair.query.1 + MARGIN as f64);
                let to = (pair.reference.0 + right as f64, pair.reference.1 + MARGIN as f64);
                canvas.thread(from, to);
            }
        }
    }
    let side = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    Image::new(side(canvas.width), side(canvas.height), canvas.pixels)
}

struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            let at = (y * self.width + x) * 3;
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }

    fn paint(&mut self, picture: &Image, left: usize, agrees: impl Fn(f64, f64) -> bool, outlined: bool) {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let inside: Vec<bool> = (0..width * height)
            .map(|at| agrees((at % width) as f64, (at / width) as f64))
            .collect();
        let holds = |x: isize, y: isize| {
            x >= 0 && y >= 0 && (x as usize) < width && (y as usize) < height && inside[y as usize * width + x as usize]
        };
        let (pixels, _) = picture.pixels().as_chunks::<3>();
        for (at, &pixel) in pixels.iter().enumerate() {
            let (x, y) = (at % width, at / width);
            let near = |reach: isize| {
                let (x, y) = (x as isize, y as isize);
                holds(x - reach, y) && holds(x + reach, y) && holds(x, y - reach) && holds(x, y + reach)
            };
            let colour = if !inside[at] {
                faded(pixel)
            } else if outlined && !near(2) {
                LINE
            } else {
                pixel
            };
            self.set(left + x, MARGIN + y, colour);
        }
    }

    fn thread(&mut self, from: (f64, f64), to: (f64, f64)) {
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().max(1.0) as usize;
        for step in 0..=steps {
            let part = step as f64 / steps as f64;
            let (x, y) = (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part);
            self.set(x.round().max(0.0) as usize, y.round().max(0.0) as usize, THREAD);
        }
        for end in [from, to] {
            for dy in -1..=1 {
                for dx in -1..=1 {
                    let place = |at: f64, by: i32| (at.round() + f64::from(by)).max(0.0) as usize;
                    self.set(place(end.0, dx), place(end.1, dy), THREAD);
                }
            }
        }
    }
}

/// Grey, and two thirds of the way to white.
fn faded([r, g, b]: [u8; 3]) -> [u8; 3] {
    let luma = (u32::from(r) * 299 + u32::from(g) * 587 + u32::from(b) * 114) / 1000;
    [(170 + luma / 3) as u8; 3]
}
