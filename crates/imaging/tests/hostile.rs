//! Hostile bytes, made here: none may crash, hang or take more memory than allowed. A counting allocator proves the
//! memory bound for every file of the corpus and for good files of every coding.

mod pictures;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use imaging::{DecodeOptions, ImageError, Limits, decode, encode_jpeg, inspect};
use pictures::{Sequence, png, samples, scene};

/// Counts the bytes that the current thread holds, and the most it ever held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread being torn down no longer has its counters; nothing is measured there.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system allocator unchanged; counting allocates nothing (the counters are constants
// until first written and have no destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new block at once: the worst that a system may do.
        count(size as isize);
        // SAFETY: the caller's promises are passed on.
        let moved = unsafe { System.realloc(block, layout, size) };
        count(-(layout.size() as isize));
        moved
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` gives, and the most bytes it held at once.
fn measured<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = HELD.get();
    MOST.set(before);
    let result = work();
    (result, (MOST.get() - before).max(0) as u64)
}

/// Allowed beyond a limit: error texts, small tables, the test's own closures.
const SLACK: u64 = 64 * 1024;

/// Decodes under `limits` at full size and reduced, and inspects: each must return, within the memory allowed.
fn survive(name: &str, bytes: &[u8], limits: Limits) {
    let (information, held) = measured(|| inspect(bytes, &limits));
    assert!(held <= SLACK, "{name}: inspecting held {held} bytes");
    for min_side in [None, Some(16)] {
        let options = DecodeOptions {
            limits,
            min_side,
            ..Default::default()
        };
        let (result, held) = measured(|| decode(bytes, &options));
        assert!(
            held <= limits.max_memory + SLACK,
            "{name}: held {held} bytes of {}: {result:?}",
            limits.max_memory
        );
        if let Err(error) = &result {
            assert!(!error.to_string().is_empty() && !error.hint().is_empty());
            assert_ne!(*error, ImageError::Cancelled, "{name}: nobody asked to stop");
        }
        if let (Ok(information), Ok(_)) = (&information, &result) {
            let bound = information.decode_memory;
            assert!(
                held <= bound + SLACK,
                "{name}: held {held} bytes, though {bound} was to be the bound"
            );
        }
    }
}

/// Enough for every small file of the corpus, and little enough that a lie about the size shows.
fn tight() -> Limits {
    Limits {
        max_memory: 4 << 20,
        ..Limits::default()
    }
}

/// Enough for a lossy WebP too, whose decoder may allocate 16 MiB for a partition that is not there.
fn roomy() -> Limits {
    Limits {
        max_memory: 20 << 20,
        ..Limits::default()
    }
}

#[test]
fn good_pictures_of_every_coding_stay_within_the_bound_they_are_checked_against() {
    for (name, bytes) in pictures::one_of_each() {
        survive(name, &bytes, Limits::default());
    }
    for (width, height) in [(1200, 900), (3000, 40), (40, 3000), (4001, 1)] {
        let image = scene(width, height, 1);
        for (name, bytes) in pictures::lossless_files(&image) {
            survive(&format!("{name} {width}x{height}"), &bytes, Limits::default());
        }
        survive("jpeg", &encode_jpeg(&image, 85).unwrap(), Limits::default());
        survive("gif", &pictures::gif(&image), Limits::default());
        survive("16-bit png", &png::deep(&image, false), Limits::default());
        survive("16-bit interlaced png", &png::deep(&image, true), Limits::default());
        let turned = pictures::jpeg_with_exif(&encode_jpeg(&image, 85).unwrap(), &pictures::exif(6));
        survive("turned jpeg", &turned, Limits::default());
    }
}

#[test]
fn a_picture_that_could_need_more_memory_than_allowed_is_refused_before_it_is_decoded() {
    let image = scene(700, 500, 1);
    let mut files = pictures::lossless_files(&image);
    files.push(("jpeg", encode_jpeg(&image, 85).unwrap()));
    files.push(("gif", pictures::gif(&image)));
    for (name, bytes) in files {
        let limits = Limits {
            max_memory: 700_000,
            ..Limits::default()
        };
        let (result, held) = measured(|| {
            decode(
                &bytes,
                &DecodeOptions {
                    limits,
                    ..Default::default()
                },
            )
        });
        assert!(
            matches!(
                result,
                Err(ImageError::TooMuchMemory {
                    width: 700,
                    height: 500,
                    ..
                })
            ),
            "{name}: {result:?}"
        );
        assert!(held <= SLACK, "{name}: held {held} bytes");
    }
}

#[test]
fn sixty_five_bytes_that_claim_900_megapixels_are_refused_by_their_size() {
    let bytes = png::file(&[png::header(30_000, 30_000, 8, 2, false), (b"IDAT", vec![0; 8])]);
    assert_eq!(bytes.len(), 65);
    let (result, held) = measured(|| decode(&bytes, &DecodeOptions::default()));
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "image claims 30000x30000 pixels, more than the limit of 250000000 pixels"
    );
    assert!(held <= SLACK);
    assert_eq!(
        inspect(&bytes, &Limits::default()).unwrap().width,
        30_000,
        "the header can still be looked at"
    );
}

#[test]
fn bytes_beyond_the_limit_are_refused_unread() {
    let limits = Limits {
        max_bytes: 100,
        ..Limits::default()
    };
    let error = decode(
        &[0; 101],
        &DecodeOptions {
            limits,
            ..Default::default()
        },
    )
    .unwrap_err();
    assert_eq!(error, ImageError::TooManyBytes { found: 101, limit: 100 });
    assert_eq!(inspect(&[0; 101], &limits).unwrap_err(), error);
}

#[test]
fn every_truncation_is_survived_and_never_taken_for_a_whole_jpeg_or_png() {
    for (name, bytes) in pictures::one_of_each() {
        for cut in (0..bytes.len()).step_by(bytes.len() / 150 + 1) {
            survive(name, &bytes[..cut], tight());
            let result = decode(&bytes[..cut], &DecodeOptions::default());
            // A JPEG without its end marker is whole.
            let is_cut = cut + 2 < bytes.len();
            if (name.contains("jpeg") && is_cut) || (name.contains("png") && cut < bytes.len() * 3 / 4) {
                assert!(result.is_err(), "{name} cut to {cut} of {} bytes", bytes.len());
            }
        }
    }
}

#[test]
fn flipped_bits_are_survived() {
    let mut random = Sequence::new(11);
    for (name, bytes) in pictures::one_of_each() {
        for _ in 0..150 {
            let mut broken = bytes.clone();
            for _ in 0..=random.below(4) {
                // Headers are where a wrong bit does most harm.
                let span = if random.below(2) == 0 {
                    bytes.len().min(80)
                } else {
                    bytes.len()
                };
                broken[random.below(span)] ^= 1 << random.below(8);
            }
            survive(name, &broken, if random.below(2) == 0 { tight() } else { roomy() });
        }
    }
}

#[test]
fn spliced_files_are_survived() {
    let mut random = Sequence::new(5);
    let files = pictures::one_of_each();
    for _ in 0..400 {
        let (a, b) = (&files[random.below(files.len())].1, &files[random.below(files.len())].1);
        let spliced = [&a[..random.below(a.len())], &b[random.below(b.len())..]].concat();
        survive("splice", &spliced, if random.below(2) == 0 { tight() } else { roomy() });
    }
}

#[test]
fn absurd_sizes_in_headers_are_survived() {
    let mut corpus: Vec<(&str, Vec<u8>)> = Vec::new();
    for side in [0u32, 1, 0x7FFF_FFFF, 0x8000_0000, u32::MAX] {
        corpus.push((
            "png",
            png::file(&[png::header(side, side, 8, 6, false), png::data(&[0; 5])]),
        ));
        corpus.push((
            "png row",
            png::file(&[png::header(side, 1, 16, 6, true), png::data(&[0; 5])]),
        ));
        for (tag, kind) in [(256, 4), (257, 4), (277, 3), (278, 4), (279, 4), (258, 3)] {
            let mut entries = vec![
                (256u16, 4u16, 8u32),
                (257, 4, 8),
                (258, 3, 8),
                (259, 3, 1),
                (262, 3, 1),
                (277, 3, 1),
                (278, 4, 8),
                (279, 4, 64),
            ];
            entries
                .iter_mut()
                .filter(|entry| entry.0 == tag)
                .for_each(|entry| *entry = (tag, kind, side));
            corpus.push(("tiff", pictures::tiff_raw(&entries, &[7; 64])));
        }
        for tile in [(side, 16), (16, side), (side, side)] {
            let entries = [
                (256, 4, 64),
                (257, 4, 64),
                (258, 3, 8),
                (259, 3, 1),
                (262, 3, 1),
                (277, 3, 1),
                (322, 4, tile.0),
                (323, 4, tile.1),
                (324, 4, 200),
                (325, 4, side),
            ];
            corpus.push(("tiled tiff", pictures::tiff_raw(&entries, &[7; 64])));
        }
        let mut bmp = pictures::bmp(&scene(8, 8, 1));
        bmp[18..22].copy_from_slice(&side.to_le_bytes());
        corpus.push(("bmp", bmp.clone()));
        bmp[22..26].copy_from_slice(&side.to_le_bytes());
        corpus.push(("bmp", bmp));
        let mut webp = pictures::webp_with_exif(&pictures::webp(&scene(8, 8, 1)), 8, 8, &pictures::exif(3));
        webp[24..27].copy_from_slice(&side.to_le_bytes()[..3]);
        corpus.push(("webp with a lying canvas", webp));
        for chunk_size_at in [4, 16] {
            for sample in [samples::WEBP_LOSSY, samples::WEBP_LOSSY_ALPHA, samples::WEBP_ANIMATED] {
                let mut webp = sample.to_vec();
                webp[chunk_size_at..chunk_size_at + 4].copy_from_slice(&side.to_le_bytes());
                corpus.push(("webp with a lying chunk", webp));
            }
        }
    }
    for (width, height) in [(0, 0), (0, 5), (65_535, 65_535), (65_535, 1)] {
        let mut gif = pictures::gif(&scene(8, 8, 1));
        gif[6..8].copy_from_slice(&(width as u16).to_le_bytes());
        gif[8..10].copy_from_slice(&(height as u16).to_le_bytes());
        corpus.push(("gif with a lying canvas", gif));
        let mut gif = pictures::gif(&scene(8, 8, 1));
        let frame = gif.windows(5).position(|w| w == [0x2C, 0, 0, 0, 0]).unwrap();
        gif[frame + 5..frame + 7].copy_from_slice(&(width as u16).to_le_bytes());
        gif[frame + 7..frame + 9].copy_from_slice(&(height as u16).to_le_bytes());
        corpus.push(("gif with a lying frame", gif));
        for sample in [samples::JPEG_PROGRESSIVE, samples::JPEG_420, samples::JPEG_CMYK] {
            let mut jpeg = sample.to_vec();
            let frame = jpeg
                .windows(2)
                .position(|w| w[0] == 0xFF && matches!(w[1], 0xC0 | 0xC2))
                .unwrap();
            jpeg[frame + 5..frame + 7].copy_from_slice(&(height as u16).to_be_bytes());
            jpeg[frame + 7..frame + 9].copy_from_slice(&(width as u16).to_be_bytes());
            corpus.push(("jpeg with a lying frame", jpeg));
        }
    }
    for (name, bytes) in corpus {
        survive(name, &bytes, tight());
        survive(name, &bytes, roomy());
    }
}

#[test]
fn sampling_factors_and_tables_out_of_range_are_survived() {
    for sample in [
        samples::JPEG_PROGRESSIVE,
        samples::JPEG_420,
        samples::JPEG_422,
        samples::JPEG_CMYK,
    ] {
        let frame = sample
            .windows(2)
            .position(|w| w[0] == 0xFF && matches!(w[1], 0xC0 | 0xC2))
            .unwrap();
        for component in 0..3 {
            for factors in [0x00, 0x01, 0x12, 0x13, 0x31, 0x41, 0x14, 0x44, 0x55, 0xFF] {
                let mut jpeg = sample.to_vec();
                jpeg[frame + 11 + 3 * component] = factors;
                survive("sampling factors", &jpeg, tight());
                jpeg[frame + 12 + 3 * component] = factors;
                survive("quantisation table", &jpeg, tight());
            }
        }
    }
}

#[test]
fn compression_bombs_stay_within_their_bound() {
    // Zeros compress a thousandfold: 4,000 × 4,000 pixels in some 50 kB, in a picture and in metadata nobody reads.
    let blank = imaging::Image::new(4000, 4000, vec![0; 48_000_000]).unwrap();
    let bomb = imaging::encode_png(&blank).unwrap();
    assert!(bomb.len() < 1_000_000);
    survive("png bomb", &bomb, Limits::default());
    survive("png bomb", &bomb, tight());
    let idat = bomb.windows(4).position(|w| w == b"IDAT").unwrap();
    let length = u32::from_be_bytes(bomb[idat - 4..idat].try_into().unwrap()) as usize;
    let compressed = &bomb[idat + 4..idat + 4 + length];
    for (kind, prefix) in [
        (b"iCCP", b"icc\0\0".as_slice()),
        (b"zTXt", b"note\0\0"),
        (b"iTXt", b"note\0\x01\0\0\0"),
    ] {
        let chunk = [prefix, compressed].concat();
        let file = png::file(&[png::header(2, 1, 8, 0, false), (kind, chunk), png::data(&[0, 1, 2])]);
        survive("metadata bomb", &file, tight());
        assert!(
            decode(
                &file,
                &DecodeOptions {
                    limits: tight(),
                    ..Default::default()
                }
            )
            .is_ok()
        );
    }
    // More rows than the header says.
    let overlong = png::file(&[png::header(2, 2, 8, 2, false), (b"IDAT", compressed.to_vec())]);
    survive("overlong data", &overlong, tight());
}

/// A lossless WebP of 16 × 16 pixels that claims `groups` groups of five prefix codes, each
/// with a table of 1,024 entries.
fn webp_of_many_codes(groups: u32) -> Vec<u8> {
    let (mut bits, mut length) = (Vec::<u8>::new(), 0usize);
    let mut put = |value: u32, count: usize| {
        for bit in 0..count {
            if length % 8 == 0 {
                bits.push(0);
            }
            *bits.last_mut().unwrap() |= ((value >> bit & 1) as u8) << (length % 8);
            length += 1;
        }
    };
    put(0x2F, 8);
    put(15 | 15 << 14, 32);
    // No transform, no colour cache; group numbers for blocks of 4 × 4 pixels.
    put(0b100, 3);
    put(0, 3);
    // That sub-image: no cache, five codes of one symbol; every pixel is red, green = the last group's number.
    put(0, 1);
    let last = groups - 1;
    for symbol in [last & 255, last >> 8] {
        put(0b101, 3);
        put(symbol, 8);
    }
    for _ in 0..3 {
        put(0b0001, 4);
    }
    for _ in 0..groups * 5 {
        // Code lengths 1 to 10 are coded in 3 (1 to 6) and 4 bits; the code has one symbol of each, two of length 10.
        put(0, 1);
        put(10, 4);
        for code_length in [0, 0, 0, 3, 3, 3, 3, 3, 0, 3, 4, 4, 4, 4] {
            put(code_length, 3);
        }
        put(1, 1);
        put(1, 3);
        put(11 - 2, 4);
        for value in (1..=10u32).chain([10]) {
            // Canonical codes, their first bit first.
            let (code, count) = if value <= 6 {
                (value - 1, 3)
            } else {
                (12 + value - 7, 4)
            };
            for bit in (0..count).rev() {
                put(code >> bit & 1, 1);
            }
        }
    }
    put(0, 32);
    bits.resize(bits.len() + 2048, 0);
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((bits.len() as u32 + 12).to_le_bytes());
    bytes.extend(b"WEBPVP8L");
    bytes.extend((bits.len() as u32).to_le_bytes());
    bytes.extend(bits);
    bytes
}

#[test]
fn a_lossless_webp_of_thousands_of_prefix_codes_is_refused_by_the_memory_they_take() {
    let few = webp_of_many_codes(10);
    assert!(
        decode(&few, &DecodeOptions::default()).is_ok(),
        "the file itself is sound"
    );
    survive("few codes", &few, Limits::default());

    let many = webp_of_many_codes(5_000);
    let (_, held) = measured(|| decode(&many, &DecodeOptions::default()));
    let bound = inspect(&many, &Limits::default()).unwrap().decode_memory;
    assert!(held > 90 << 20, "the decoder does take the memory: {held} bytes");
    assert!(held <= bound, "held {held} bytes, though {bound} was to be the bound");
    let limits = Limits {
        max_memory: 64 << 20,
        ..Limits::default()
    };
    let (result, held) = measured(|| {
        decode(
            &many,
            &DecodeOptions {
                limits,
                ..Default::default()
            },
        )
    });
    assert!(matches!(result, Err(ImageError::TooMuchMemory { .. })), "{result:?}");
    assert!(held <= SLACK);
}

#[test]
fn a_tiff_of_a_million_tags_and_a_loop_of_pages_is_counted_in_bounded_time() {
    let mut many = b"II\x2b\0\x08\0\0\0\x10\0\0\0\0\0\0\0".to_vec();
    many.extend(1_000_000u64.to_le_bytes());
    many.resize(2_000_000, 0);
    survive("bigtiff of many tags", &many, tight());
    many[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    survive("bigtiff of endless tags", &many, tight());

    let mut looping = pictures::tiff_with_orientation(&scene(8, 8, 1), 1);
    let next = 8 + 2 + 10 * 12;
    looping[next..next + 4].copy_from_slice(&8u32.to_le_bytes());
    survive("tiff whose next page is itself", &looping, Limits::default());
    assert_eq!(
        inspect(&looping, &Limits::default()).unwrap().frames,
        65_536,
        "counted up to a bound"
    );

    for count in [1u32, 0x1000_0000, u32::MAX] {
        let mut bytes = pictures::tiff_with_orientation(&scene(8, 8, 1), 1);
        for entry in 0..10 {
            bytes[8 + 2 + entry * 12 + 4..][..4].copy_from_slice(&count.to_le_bytes());
            survive("tiff of long entries", &bytes, tight());
        }
    }
}

#[test]
fn endless_scans_of_a_progressive_jpeg_end() {
    // The last scan, repeated: each costs a walk over the picture.
    let jpeg = samples::JPEG_PROGRESSIVE;
    let last = jpeg.windows(2).rposition(|w| w == [0xFF, 0xDA]).unwrap();
    let (head, scan) = (&jpeg[..last], &jpeg[last..jpeg.len() - 2]);
    let mut bytes = head.to_vec();
    for _ in 0..3_000 {
        bytes.extend(scan);
    }
    bytes.extend([0xFF, 0xD9]);
    survive("many scans", &bytes, tight());
}

#[test]
fn restarts_and_markers_in_odd_places_are_survived() {
    let mut random = Sequence::new(3);
    for sample in [samples::JPEG_RESTARTS, samples::JPEG_PROGRESSIVE, samples::JPEG_420] {
        let scan = sample.windows(2).position(|w| w == [0xFF, 0xDA]).unwrap();
        for _ in 0..200 {
            let mut bytes = sample.to_vec();
            let at = scan + random.below(bytes.len() - scan - 1);
            let marker = [
                0xD0, 0xD3, 0xD7, 0xD8, 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xC0, 0xC2, 0xFF, 0x01,
            ][random.below(13)];
            bytes.splice(at..at, [0xFF, marker]);
            survive("stray marker", &bytes, tight());
        }
    }
}

#[test]
fn random_bytes_behind_every_signature_are_survived() {
    let mut random = Sequence::new(9);
    for signature in [
        b"\xff\xd8\xff\xdb".as_slice(),
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR",
        b"RIFF\xff\0\0\0WEBPVP8 ",
        b"RIFF\xff\0\0\0WEBPVP8L\xff\0\0\0\x2f",
        b"RIFF\xff\0\0\0WEBPVP8X",
        b"GIF89a",
        b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
        b"II\x2a\0\x08\0\0\0",
        b"MM\0\x2b\0\x08\0\0\0\0\0\0\0\0\0\x10",
    ] {
        for length in 0..120 {
            let mut bytes = signature.to_vec();
            bytes.extend((0..length).map(|_| random.next() as u8));
            survive("random", &bytes, tight());
        }
    }
}
