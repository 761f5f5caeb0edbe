//! Corners: FAST with nine of sixteen pixels (Rosten and Drummond), ranked by Harris' measure and spread over the picture.

use crate::grey::Grey;

/// A corner in one level of the pyramid.
#[derive(Clone, Copy)]
pub(crate) struct Corner {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) response: f32,
}

/// A corner's patch and its rotations must lie within the picture.
pub(crate) const MARGIN: usize = 19;

/// How much brighter or darker the circle must be than its centre.
const CONTRAST: i32 = 12;

/// Cells of this side share a quota, so that one busy spot does not take it all.
const CELL: usize = 32;

/// Bresenham's circle of radius 3.
const CIRCLE: [(isize, isize); 16] = [
    (0, -3),
    (1, -3),
    (2, -2),
    (3, -1),
    (3, 0),
    (3, 1),
    (2, 2),
    (1, 3),
    (0, 3),
    (-1, 3),
    (-2, 2),
    (-3, 1),
    (-3, 0),
    (-3, -1),
    (-2, -2),
    (-1, -3),
];

/// At most `quota` corners, the strongest first.
pub(crate) fn corners(level: &Grey, quota: usize) -> Vec<Corner> {
    if level.width <= 2 * MARGIN || level.height <= 2 * MARGIN {
        return Vec::new();
    }
    let offsets = CIRCLE.map(|(dx, dy)| dy * level.width as isize + dx);
    let mut found = Vec::new();
    for y in MARGIN..level.height - MARGIN {
        for x in MARGIN..level.width - MARGIN {
            if is_corner(level, y * level.width + x, &offsets) {
                found.push(Corner {
                    x,
                    y,
                    response: harris(level, x, y),
                });
            }
        }
    }
    spread(strongest_of_neighbours(level, found), quota, level)
}

fn is_corner(level: &Grey, at: usize, offsets: &[isize; 16]) -> bool {
    let centre = i32::from(level.pixels[at]);
    let (mut brighter, mut darker) = (0_u32, 0_u32);
    let mut look = |place: usize| {
        let value = i32::from(level.pixels[at.wrapping_add_signed(offsets[place])]);
        brighter |= u32::from(value > centre + CONTRAST) << place;
        darker |= u32::from(value < centre - CONTRAST) << place;
    };
    // Nine in a row hold at least two of the four compass points.
    for place in [0, 4, 8, 12] {
        look(place);
    }
    if brighter.count_ones() < 2 && darker.count_ones() < 2 {
        return false;
    }
    let mut look = |place: usize| {
        let value = i32::from(level.pixels[at.wrapping_add_signed(offsets[place])]);
        brighter |= u32::from(value > centre + CONTRAST) << place;
        darker |= u32::from(value < centre - CONTRAST) << place;
    };
    for place in [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15] {
        look(place);
    }
    nine_in_a_row(brighter) || nine_in_a_row(darker)
}

fn nine_in_a_row(ring: u32) -> bool {
    let twice = ring | ring << 16;
    let two = twice & twice >> 1;
    let four = two & two >> 2;
    let eight = four & four >> 4;
    eight & twice >> 8 != 0
}

/// Harris' measure over 7 × 7 pixels.
fn harris(level: &Grey, x: usize, y: usize) -> f32 {
    let (mut xx, mut yy, mut xy) = (0.0_f32, 0.0_f32, 0.0_f32);
    for v in y - 3..=y + 3 {
        for u in x - 3..=x + 3 {
            let dx = (level.at(u + 1, v) - level.at(u - 1, v)) as f32;
            let dy = (level.at(u, v + 1) - level.at(u, v - 1)) as f32;
            xx += dx * dx;
            yy += dy * dy;
            xy += dx * dy;
        }
    }
    xx * yy - xy * xy - 0.04 * (xx + yy) * (xx + yy)
}

fn strongest_of_neighbours(level: &Grey, found: Vec<Corner>) -> Vec<Corner> {
    let mut map = vec![f32::NEG_INFINITY; level.pixels.len()];
    for corner in &found {
        map[corner.y * level.width + corner.x] = corner.response;
    }
    let strongest = |corner: &Corner| {
        (corner.y - 1..=corner.y + 1).all(|y| {
            (corner.x - 1..=corner.x + 1).all(|x| {
                let other = map[y * level.width + x];
                // Of equals the first stays.
                other < corner.response || (other == corner.response && (y, x) >= (corner.y, corner.x))
            })
        })
    };
    found.into_iter().filter(strongest).collect()
}

fn spread(mut found: Vec<Corner>, quota: usize, level: &Grey) -> Vec<Corner> {
    found.sort_by(|a, b| b.response.total_cmp(&a.response).then((a.y, a.x).cmp(&(b.y, b.x))));
    let columns = level.width.div_ceil(CELL);
    let cells = columns * level.height.div_ceil(CELL);
    let most = (3 * quota).div_ceil(cells).max(2);
    let mut taken = vec![0; cells];
    let mut chosen = Vec::new();
    for corner in found {
        let cell = &mut taken[corner.y / CELL * columns + corner.x / CELL];
        if *cell < most && chosen.len() < quota {
            *cell += 1;
            chosen.push(corner);
        }
    }
    chosen
}
