//! Words on pictures. The typefaces come with the crate `epaint_default_fonts`: Ubuntu Light (Ubuntu Font Licence 1.0)
//! and Hack (MIT, with parts of Bitstream Vera); no font file is part of this repository.

use ttf_parser::{Face, OutlineBuilder};

use crate::canvas::Canvas;
use crate::path::Path;
use crate::random::Random;

/// What people write on pictures: short, of different lengths, in scripts that both typefaces draw.
const PHRASES: [&str; 32] = [
    "when you see it",
    "follow for more",
    "good morning",
    "happy birthday!",
    "nobody: / me:",
    "LIMITED OFFER -50%",
    "wait for it...",
    "monday mood",
    "no filter needed",
    "breaking news",
    "so true",
    "best day ever",
    "@sunny.side.up",
    "tag a friend",
    "#throwback #summer #2019",
    "c'est la vie",
    "¡viva la vida!",
    "schönes Wochenende",
    "с днём рождения",
    "καλημέρα",
    "part 2 in bio",
    "POV: you are late again",
    "this changed my life",
    "only today",
    "swipe up",
    "source: trust me",
    "one does not simply",
    "what could go wrong",
    "sold out",
    "click the link",
    "do not repost",
    "that feeling when it just works",
];

/// The two typefaces at hand.
#[derive(Clone, Copy)]
pub(super) enum Typeface {
    /// Ubuntu Light.
    Sans,
    /// Hack.
    Mono,
}

impl Typeface {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Sans => epaint_default_fonts::UBUNTU_LIGHT,
            Self::Mono => epaint_default_fonts::HACK_REGULAR,
        }
    }

    /// A line of text one unit high (from baseline to baseline of capitals' height), its baseline on y = 0, starting at
    /// x = 0. `weight` thickens the strokes by that share of the capitals' height. Characters that the typeface lacks
    /// are left out.
    pub(super) fn line(self, text: &str, weight: f64) -> Line {
        let mut pen = Pen {
            path: Path::default(),
            x: 0.0,
            scale: 1.0,
        };
        let Ok(face) = Face::parse(self.bytes(), 0) else {
            return Line {
                path: pen.path,
                width: 0.0,
            };
        };
        let capital = face
            .capital_height()
            .filter(|&height| height > 0)
            .map_or(700.0, f64::from);
        pen.scale = 1.0 / capital;
        for character in text.chars() {
            if let Some(glyph) = face.glyph_index(character) {
                face.outline_glyph(glyph, &mut pen);
                pen.x += f64::from(face.glyph_hor_advance(glyph).unwrap_or(0)) * pen.scale + weight;
            }
        }
        let path = if weight > 0.0 {
            pen.path.grown(weight / 2.0)
        } else {
            pen.path
        };
        Line {
            path,
            width: pen.x.max(0.01),
        }
    }
}

/// A set line: capitals are 1 high and stand on y = 0, y grows downwards.
pub(super) struct Line {
    path: Path,
    /// Width in capitals' heights.
    pub(super) width: f64,
}

impl Line {
    /// The outline with capitals `height` pixels high, its left end at (x, baseline).
    pub(super) fn at(&self, x: f64, baseline: f64, height: f64) -> Path {
        self.path.placed([x, baseline], height, 0.0)
    }

    /// As [`Line::at`], with the line's middle at `centre`, turned by `angle` radians.
    fn about(&self, centre: [f64; 2], height: f64, angle: f64) -> Path {
        self.path
            .placed([-self.width / 2.0, 0.5], 1.0, 0.0)
            .placed(centre, height, angle)
    }
}

/// Collects a glyph's outline; fonts count y upwards.
struct Pen {
    path: Path,
    x: f64,
    scale: f64,
}

impl Pen {
    fn place(&self, x: f32, y: f32) -> [f64; 2] {
        [self.x + f64::from(x) * self.scale, -f64::from(y) * self.scale]
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        let [x, y] = self.place(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let [x, y] = self.place(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.path.quad_to(self.place(x1, y1), self.place(x, y));
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.path
            .cubic_to(self.place(x1, y1), self.place(x2, y2), self.place(x, y));
    }

    fn close(&mut self) {
        self.path.close();
    }
}

/// One of the phrases, in its own case, in capitals or capitalised.
pub(super) fn phrase(random: &mut Random) -> String {
    let text = random.pick(&PHRASES);
    if random.below(3) == 0 {
        text.to_uppercase()
    } else {
        text.to_owned()
    }
}

/// Writes 1 to 4 lines over the picture. Capitals are 3 % to 15 % of the picture's height (less where a line would not
/// fit across), turned by up to ±20°·strength, filled and outlined in contrasting colours.
pub(super) fn text(canvas: &mut Canvas, strength: f64, random: &mut Random) {
    let (w, h) = (canvas.width as f64, canvas.height as f64);
    for _ in 0..1 + (3.0 * strength).round() as usize {
        let face = random.pick(&[Typeface::Sans, Typeface::Sans, Typeface::Mono]);
        let line = face.line(&phrase(random), random.between(0.02, 0.14));
        let height = (h * (0.03 + 0.12 * strength * random.between(0.7, 1.0)))
            .min(w * (0.4 + 0.6 * strength) / line.width)
            .max(3.0);
        let centre = [w * random.between(0.25, 0.75), h * random.between(0.08, 0.92)];
        let angle = random.between(-0.35, 0.35) * strength;
        let fill = match random.below(3) {
            0 => [255; 3],
            1 => random.pick(&[
                [250, 220, 40],
                [230, 30, 40],
                [20, 20, 20],
                [40, 200, 120],
                [60, 120, 240],
            ]),
            _ => random.colour(),
        };
        let brightness = fill.iter().map(|&channel| u32::from(channel)).sum::<u32>();
        let outline = if brightness > 380 { [10; 3] } else { [245; 3] };
        let letters = line.about(centre, height, angle);
        if random.below(3) > 0 {
            letters.grown(height * 0.08).fill_flat(canvas, outline);
        }
        letters.fill_flat(canvas, fill);
    }
}
