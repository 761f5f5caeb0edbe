//! PNG files written by hand: any colour type and bit depth, interlaced, lying. Compression is stored blocks, so that
//! every byte is where the test puts it.

use imaging::Image;

/// A PNG of these chunks between signature and IEND.
pub fn file(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in chunks
        .iter()
        .map(|(kind, data)| (*kind, data.as_slice()))
        .chain([(b"IEND", [].as_slice())])
    {
        bytes.extend((data.len() as u32).to_be_bytes());
        let start = bytes.len();
        bytes.extend(kind);
        bytes.extend(data);
        let checksum = crc32(&bytes[start..]);
        bytes.extend(checksum.to_be_bytes());
    }
    bytes
}

pub fn header(width: u32, height: u32, bits: u8, colour_type: u8, interlaced: bool) -> (&'static [u8; 4], Vec<u8>) {
    let mut data = width.to_be_bytes().to_vec();
    data.extend(height.to_be_bytes());
    data.extend([bits, colour_type, 0, 0, u8::from(interlaced)]);
    (b"IHDR", data)
}

/// Rows without filter as an IDAT chunk.
pub fn data(rows: &[u8]) -> (&'static [u8; 4], Vec<u8>) {
    (b"IDAT", zlib_stored(rows))
}

/// 8-bit RGB.
pub fn rgb(image: &Image, interlaced: bool) -> Vec<u8> {
    let rows = rows(
        image.width() as usize,
        image.height() as usize,
        3,
        image.pixels(),
        interlaced,
    );
    file(&[header(image.width(), image.height(), 8, 2, interlaced), data(&rows)])
}

/// 16-bit RGB: the picture's levels above, noise below.
pub fn deep(image: &Image, interlaced: bool) -> Vec<u8> {
    let samples: Vec<u8> = image
        .pixels()
        .iter()
        .flat_map(|&level| [level, level.wrapping_mul(37)])
        .collect();
    let rows = rows(image.width() as usize, image.height() as usize, 6, &samples, interlaced);
    file(&[header(image.width(), image.height(), 16, 2, interlaced), data(&rows)])
}

/// 2-bit palette with transparency: pixel (x, y) has entry (x + y) mod length.
pub fn palette(width: u32, height: u32, entries: &[[u8; 4]]) -> Vec<u8> {
    let mut rows = Vec::new();
    for y in 0..height as usize {
        rows.push(0);
        for x in (0..width as usize).step_by(4) {
            rows.push((0..4).fold(0, |byte, i| byte << 2 | ((x + i + y) % entries.len()) as u8));
        }
    }
    file(&[
        header(width, height, 2, 3, false),
        (b"PLTE", entries.iter().flat_map(|entry| entry[..3].to_vec()).collect()),
        (b"tRNS", entries.iter().map(|entry| entry[3]).collect()),
        data(&rows),
    ])
}

/// Filter byte 0 before every row; with `interlaced` in the seven passes of Adam7.
pub fn rows(width: usize, height: usize, pixel_bytes: usize, pixels: &[u8], interlaced: bool) -> Vec<u8> {
    let passes: &[(usize, usize, usize, usize)] = if interlaced {
        &[
            (0, 0, 8, 8),
            (4, 0, 8, 8),
            (0, 4, 4, 8),
            (2, 0, 4, 4),
            (0, 2, 2, 4),
            (1, 0, 2, 2),
            (0, 1, 1, 2),
        ]
    } else {
        &[(0, 0, 1, 1)]
    };
    let mut rows = Vec::new();
    for &(left, top, across, down) in passes {
        if left >= width {
            continue;
        }
        for y in (top..height).step_by(down) {
            rows.push(0);
            for x in (left..width).step_by(across) {
                let at = (y * width + x) * pixel_bytes;
                rows.extend(&pixels[at..at + pixel_bytes]);
            }
        }
    }
    rows
}

pub fn zlib_stored(data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x78, 0x01];
    let mut blocks = data.chunks(65_535).peekable();
    if data.is_empty() {
        bytes.extend([1, 0, 0, 0xFF, 0xFF]);
    }
    while let Some(block) = blocks.next() {
        bytes.push(u8::from(blocks.peek().is_none()));
        bytes.extend((block.len() as u16).to_le_bytes());
        bytes.extend((!(block.len() as u16)).to_le_bytes());
        bytes.extend(block);
    }
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in data {
        a = (a + u32::from(byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    bytes.extend((b << 16 | a).to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0xEDB8_8320 } else { 0 };
        }
    }
    !crc
}
