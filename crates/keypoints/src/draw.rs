//! Both pictures side by side under their names: what agrees in full colour within a line, the rest
//! faded; and what that comes to.

use edits::{Line, letter};
use imaging::{Image, ImageError};

use crate::explain::Explanation;

const MARGIN: usize = 8;
const GAP: usize = 16;
/// Height of the line of text above the pictures, and of the one below.
const HEADING: usize = 24;
/// Height of capitals.
const LETTERS: f64 = 9.0;
const PAPER: [u8; 3] = [255, 255, 255];
const INK: [u8; 3] = [60, 60, 60];
/// Around what agrees, where the query shows the reference, and where that is too little to say so.
const SHOWN: [u8; 3] = [20, 190, 70];
const TOO_LITTLE: [u8; 3] = [235, 150, 20];
const THREAD: [u8; 3] = [255, 170, 0];
/// Threads between places that agree; more would hide the pictures.
const MOST_THREADS: usize = 10;

/// The query on the left, the reference on the right. Where nothing agrees, both are as they are.
///
/// # Errors
/// None that can happen: the picture's size is bounded.
pub fn draw(explanation: &Explanation) -> Result<Image, ImageError> {
    let (query, reference) = (&explanation.query, &explanation.reference);
    let (qw, qh) = (query.width() as usize, query.height() as usize);
    let (rw, rh) = (reference.width() as usize, reference.height() as usize);
    let mut canvas = Canvas {
        width: (2 * MARGIN + qw + GAP + rw).max(LEAST_WIDTH),
        height: 2 * HEADING + qh.max(rh),
        line: match explanation.evidence.is_shown() {
            true => SHOWN,
            false => TOO_LITTLE,
        },
        pixels: Vec::new(),
    };
    canvas.pixels = PAPER.repeat(canvas.width * canvas.height);
    let right = MARGIN + qw + GAP;
    let evidence = &explanation.evidence;
    match evidence
        .transform
        .and_then(|transform| transform.inverse())
        .filter(|_| evidence.agreed > 0)
    {
        None => {
            canvas.paint(query, MARGIN, |_, _| true, false);
            canvas.paint(reference, right, |_, _| true, false);
        }
        Some(inverse) => {
            let part = |x: f64, y: f64, w: usize, h: usize| ((x + 0.5) / w as f64, (y + 0.5) / h as f64);
            canvas.paint(
                query,
                MARGIN,
                |x, y| explanation.agrees_at(inverse.apply(part(x, y, qw, qh))),
                true,
            );
            canvas.paint(reference, right, |x, y| explanation.agrees_at(part(x, y, rw, rh)), true);
            let every = explanation.threads.len().div_ceil(MOST_THREADS).max(1);
            for [(x, y), (u, v)] in explanation.threads.iter().step_by(every).copied() {
                canvas.thread(
                    (x * qw as f64 + MARGIN as f64, y * qh as f64 + HEADING as f64),
                    (u * rw as f64 + right as f64, v * rh as f64 + HEADING as f64),
                );
            }
        }
    }
    let side = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let below = (canvas.height - 8) as f64;
    let said = caption(explanation);
    let picture = Image::new(side(canvas.width), side(canvas.height), canvas.pixels)?;
    let line = |text, left: usize, baseline| Line {
        text,
        left: left as f64,
        baseline,
        height: LETTERS,
    };
    letter(
        &picture,
        &[
            line("image", MARGIN, 16.0),
            line("reference", right, 16.0),
            line(&said, MARGIN, below),
        ],
        INK,
    )
}

/// The caption has room.
const LEAST_WIDTH: usize = 480;

/// What the evidence comes to.
fn caption(explanation: &Explanation) -> String {
    let evidence = &explanation.evidence;
    let features = evidence.inliers;
    if evidence.agreed == 0 {
        return format!("nothing that both show was found ({features} features in common)");
    }
    let mirrored = if evidence.mirrored { ", mirrored" } else { "" };
    let cells = format!(
        "{} of {} cells agree, {features} features{mirrored}",
        evidence.agreed, evidence.compared
    );
    match evidence.is_shown() {
        true => cells,
        false => format!("too little to say that it is shown: {cells}"),
    }
}

struct Canvas {
    width: usize,
    height: usize,
    line: [u8; 3],
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
                self.line
            } else {
                pixel
            };
            self.set(left + x, HEADING + y, colour);
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
