//! Edits that put something around the picture: the screen of a phone or a browser, a caption band.

use crate::EditError;
use crate::canvas::Canvas;
use crate::lettering::{self, Typeface};
use crate::path::Path;
use crate::random::Random;

/// Colours of an interface.
#[derive(Clone, Copy)]
struct Theme {
    page: [u8; 3],
    bar: [u8; 3],
    ink: [u8; 3],
    faint: [u8; 3],
    accent: [u8; 3],
}

const LIGHT: Theme = Theme {
    page: [255; 3],
    bar: [242, 243, 245],
    ink: [28, 28, 30],
    faint: [205, 208, 214],
    accent: [24, 119, 242],
};
const DARK: Theme = Theme {
    page: [18, 18, 20],
    bar: [32, 33, 37],
    ink: [235; 3],
    faint: [72, 74, 82],
    accent: [90, 200, 160],
};

/// Shows the picture as on a screen: a post in a phone's app or a page in a browser. The picture's share of the screen
/// falls from 90 % to 28 %.
pub(super) fn screenshot<'p>(canvas: &Canvas<'p>, strength: f64, random: &mut Random) -> Result<Canvas<'p>, EditError> {
    let share = 0.9 - 0.62 * strength;
    let theme = random.pick(&[LIGHT, DARK]);
    if random.below(2) == 0 {
        phone(canvas, share, theme, random)
    } else {
        browser(canvas, share, theme, random)
    }
}

/// What a screen is drawn with: `unit` is the height of a line of text.
struct Screen<'a, 'p> {
    canvas: Canvas<'p>,
    theme: Theme,
    unit: f64,
    random: &'a mut Random,
}

impl Screen<'_, '_> {
    fn rectangle(&mut self, place: [f64; 4], radius: f64, colour: [u8; 3]) {
        let [left, top, width, height] = place;
        Path::rectangle(left, top, width, height, radius).fill_flat(&mut self.canvas, colour);
    }

    fn disc(&mut self, x: f64, y: f64, radius: f64, colour: [u8; 3]) {
        Path::ellipse([x, y], radius, radius).fill_flat(&mut self.canvas, colour);
    }

    /// A line of text with its middle at height `y`, cut off at `right`.
    fn words(&mut self, text: &str, x: f64, y: f64, right: f64, scale: f64) {
        let line = Typeface::Sans.line(text, 0.03);
        let height = (self.unit * 0.55 * scale).min((right - x) / line.width).max(0.5);
        line.at(x, y + height / 2.0, height)
            .fill_flat(&mut self.canvas, self.theme.ink);
    }

    /// Lines of text from `top` to `bottom` as people see them from afar: words as rounded bars.
    fn paragraph(&mut self, left: f64, right: f64, top: f64, bottom: f64) {
        let mut y = top + self.unit * 0.6;
        while y + self.unit * 0.6 < bottom {
            let end = right - (right - left) * self.random.between(0.0, 0.35);
            let mut x = left;
            while x < end {
                let width = (self.unit * self.random.between(0.8, 3.2)).min(end - x);
                self.rectangle([x, y, width, self.unit * 0.36], self.unit * 0.18, self.theme.faint);
                x += width + self.unit * 0.35;
            }
            y += self.unit * 0.95;
        }
    }
}

fn phone<'p>(picture: &Canvas<'p>, share: f64, theme: Theme, random: &mut Random) -> Result<Canvas<'p>, EditError> {
    let (w, h) = (picture.width, picture.height);
    let extra = (h as f64 * (1.0 / share - 1.0)).round() as usize;
    let above = (extra as f64 * random.between(0.25, 0.55)) as usize;
    let below = extra - above;
    let width = w as f64;
    let unit = (width / 22.0).min(extra as f64 / 2.0).max(1.0);
    let mut screen = Screen {
        canvas: Canvas::filled(w, h + extra, theme.page, picture.poll)?,
        theme,
        unit,
        random,
    };
    screen.canvas.place(picture, 0, above);

    let mut free = above as f64;
    let status = free.min(1.3 * unit);
    screen.rectangle([0.0, 0.0, width, status], 0.0, theme.bar);
    let clock = format!("{:02}:{:02}", screen.random.below(24), screen.random.below(60));
    screen.words(&clock, unit * 0.8, status / 2.0, width * 0.4, 0.9);
    screen.rectangle(
        [width - unit * 2.2, status * 0.32, unit * 1.2, status * 0.36],
        status * 0.1,
        theme.ink,
    );
    screen.disc(width - unit * 3.0, status / 2.0, status * 0.18, theme.ink);
    free -= status;
    if free > 1.5 * unit {
        let header = free.min(2.6 * unit);
        let top = above as f64 - header;
        let portrait = screen.random.colour();
        screen.disc(unit * 1.6, top + header / 2.0, header * 0.36, portrait);
        screen.words("sunny.side.up", unit * 3.2, top + header * 0.36, width * 0.7, 1.0);
        screen.rectangle(
            [unit * 3.2, top + header * 0.64, unit * 4.0, unit * 0.3],
            unit * 0.15,
            theme.faint,
        );
        for dot in 0..3 {
            screen.disc(
                width - unit * (1.0 + 0.5 * f64::from(dot)),
                top + header / 2.0,
                unit * 0.12,
                theme.ink,
            );
        }
        screen.paragraph(unit, width - unit, status, top - unit * 0.3);
    }

    let top = (above + h) as f64;
    let bottom = top + below as f64;
    if below as f64 > 2.0 * unit {
        let middle = top + unit;
        screen.disc(unit * 1.5, middle, unit * 0.5, [226, 42, 60]);
        screen.disc(unit * 3.4, middle, unit * 0.5, theme.faint);
        screen.rectangle(
            [unit * 4.8, middle - unit * 0.45, unit, unit * 0.9],
            unit * 0.2,
            theme.faint,
        );
        let likes = format!("{} likes", 100 + screen.random.below(90_000));
        screen.words(&likes, width * 0.6, middle, width - unit, 0.9);
        let caption = lettering::phrase(screen.random);
        if below as f64 > 4.0 * unit {
            screen.words(&caption, unit, top + 2.6 * unit, width - unit, 1.1);
            screen.paragraph(unit, width - unit, top + 3.2 * unit, bottom - 2.2 * unit);
        }
        screen.rectangle(
            [width * 0.33, bottom - unit * 0.5, width * 0.34, unit * 0.2],
            unit * 0.1,
            theme.ink,
        );
    }
    Ok(screen.canvas)
}

fn browser<'p>(picture: &Canvas<'p>, share: f64, theme: Theme, random: &mut Random) -> Result<Canvas<'p>, EditError> {
    let (w, h) = (picture.width as f64, picture.height as f64);
    // Both sides grow; the wider share goes to the right, where a page keeps its side column.
    let growth = (1.0 / share).sqrt();
    let (width, height) = (w * growth, h * growth);
    let (free_width, free_height) = (width - w, height - h);
    let unit = (free_height / 5.0).min(width / 30.0).max(1.0);
    let mut screen = Screen {
        canvas: Canvas::filled(
            width.round() as usize,
            height.round() as usize,
            theme.page,
            picture.poll,
        )?,
        theme,
        unit,
        random,
    };
    let left = (free_width * screen.random.between(0.1, 0.35)).round();
    let bar = (2.4 * unit).min(free_height * 0.55).round();
    let top = bar + ((free_height - bar) * screen.random.between(0.35, 0.75)).round();
    screen.canvas.place(picture, left as usize, top as usize);

    screen.rectangle([0.0, 0.0, width, bar], 0.0, theme.bar);
    screen.rectangle(
        [width * 0.02, bar * 0.08, width * 0.3, bar * 0.45],
        bar * 0.12,
        theme.page,
    );
    let title = lettering::phrase(screen.random);
    screen.words(&title, width * 0.04, bar * 0.3, width * 0.3, 0.8);
    for (index, light) in [[237, 106, 94], [245, 191, 79], [98, 197, 84]].into_iter().enumerate() {
        screen.disc(width - unit * (0.8 + index as f64), bar * 0.28, unit * 0.28, light);
    }
    screen.rectangle(
        [width * 0.12, bar * 0.58, width * 0.76, bar * 0.34],
        bar * 0.17,
        theme.page,
    );
    screen.words(
        "photos.example/gallery/2217",
        width * 0.15,
        bar * 0.75,
        width * 0.7,
        0.7,
    );
    screen.disc(width * 0.05, bar * 0.75, bar * 0.12, theme.faint);

    if top - bar > unit * 1.6 {
        let heading = lettering::phrase(screen.random);
        screen.words(&heading, left.max(unit), (bar + top) / 2.0, width - unit, 1.6);
    }
    let right = left + w + unit;
    if width - unit - right > 2.0 * unit {
        let button = unit * 1.4;
        screen.paragraph(right, width - unit, top, height - unit * 2.5);
        screen.rectangle(
            [right, height - unit * 2.2, width - unit - right, button],
            unit * 0.3,
            theme.accent,
        );
    }
    screen.paragraph(left.max(unit), left + w, top + h, height);
    Ok(screen.canvas)
}

/// Adds a band with a caption above or below the picture, or both. Together the bands are 8 % to 60 % of the picture's
/// height.
pub(super) fn meme<'p>(canvas: &Canvas<'p>, strength: f64, random: &mut Random) -> Result<Canvas<'p>, EditError> {
    let (w, h) = (canvas.width, canvas.height);
    let bands = ((0.08 + 0.52 * strength) * h as f64).round() as usize;
    let above = match random.below(3) {
        0 => bands,
        1 => 0,
        _ => bands / 2,
    };
    let (paper, ink) = random.pick(&[([255_u8; 3], [0_u8; 3]), ([255; 3], [20; 3]), ([0; 3], [255; 3])]);
    let mut framed = Canvas::filled(w, h + bands, paper, canvas.poll)?;
    framed.place(canvas, 0, above);
    for (top, band) in [(0, above), (above + h, bands - above)] {
        caption(&mut framed, top as f64, band as f64, ink, random);
    }
    Ok(framed)
}

/// One or two lines that fill the band from `top`, `band` pixels high.
fn caption(canvas: &mut Canvas, top: f64, band: f64, ink: [u8; 3], random: &mut Random) {
    if band < 4.0 {
        return;
    }
    let width = canvas.width as f64;
    let lines = if band > width * 0.22 { 2 } else { 1 };
    for line in 0..lines {
        let words = lettering::phrase(random).to_uppercase();
        let set = Typeface::Sans.line(&words, 0.13);
        let room = band / lines as f64;
        let height = (room * 0.55).min(width * 0.92 / set.width);
        let baseline = top + room * (line as f64 + 0.5) + height / 2.0;
        set.at((width - height * set.width) / 2.0, baseline, height)
            .fill_flat(canvas, ink);
    }
}
