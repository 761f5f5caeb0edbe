//! The one field of metadata that changes the picture: orientation, in EXIF (tag 0x0112; EXIF 2.32, section 4.6.4) or,
//! where EXIF has none, in XMP (`tiff:Orientation`; XMP specification, part 2).

use crate::header::Fields;

const ORIENTATION: u16 = 0x0112;

/// What an APP1 segment with XMP starts with in a JPEG.
pub(crate) const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// Bytes of an XMP packet that are looked at: those of ordinary size, whole.
const MAX_XMP: usize = 1 << 20;

/// The orientation that a file's metadata give, block by block. Anything malformed counts for nothing: a camera's
/// broken metadata must not cost the picture.
#[derive(Default)]
pub(crate) struct Orientation {
    exif: Option<Option<u8>>,
    xmp: Option<u8>,
}

impl Orientation {
    /// Takes an EXIF block, with or without the `Exif\0\0` prefix; the first one counts. Only its first directory is
    /// read, so no chain of offsets is followed and none can loop.
    pub(crate) fn exif(&mut self, block: &[u8]) {
        let tiff = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
        self.exif.get_or_insert_with(|| read_orientation(tiff));
    }

    /// Takes an XMP packet, in which the orientation is an attribute or an element; the first one counts.
    pub(crate) fn xmp(&mut self, packet: &[u8]) {
        self.xmp = self.xmp.or_else(|| read_xmp(&packet[..packet.len().min(MAX_XMP)]));
    }

    /// 1 to 8; EXIF goes before XMP.
    pub(crate) fn get(&self) -> u8 {
        self.exif.flatten().or(self.xmp).unwrap_or(1)
    }
}

fn read_xmp(packet: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut rest = packet;
    loop {
        let at = rest.windows(NAME.len()).position(|window| window == NAME)?;
        rest = &rest[at + NAME.len()..];
        // `="6"`, `='6'` or `>6<`, with blanks where XML allows them.
        let value = rest.trim_ascii_start();
        let value = match value {
            [b'=', value @ ..] => match value.trim_ascii_start() {
                [b'"' | b'\'', value @ ..] => value,
                _ => continue,
            },
            [b'>', value @ ..] => value.trim_ascii_start(),
            _ => continue,
        };
        if let [digit @ b'1'..=b'8', next, ..] = value
            && !next.is_ascii_digit()
        {
            return Some(digit - b'0');
        }
    }
}

fn read_orientation(tiff: &[u8]) -> Option<u8> {
    let fields = match tiff.get(..4)? {
        [b'I', b'I', 42, 0] => Fields::little_endian(tiff),
        [b'M', b'M', 0, 42] => Fields::big_endian(tiff),
        _ => return None,
    };
    let directory = fields.u32(4)? as usize;
    let entries = fields.u16(directory)? as usize;
    for entry in 0..entries {
        let at = directory.checked_add(2 + entry * 12)?;
        if fields.u16(at)? == ORIENTATION {
            let value = match fields.u16(at + 2)? {
                1 => u32::from(fields.u8(at + 8)?),
                3 => u32::from(fields.u16(at + 8)?),
                4 | 9 => fields.u32(at + 8)?,
                _ => return None,
            };
            return u8::try_from(value).ok().filter(|value| (1..=8).contains(value));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn orientation(block: &[u8]) -> u8 {
        let mut found = Orientation::default();
        found.exif(block);
        found.get()
    }

    #[test]
    fn xmp_counts_where_exif_says_nothing() {
        let packets: [&[u8]; 5] = [
            b"<rdf:Description tiff:Orientation=\"6\"/>",
            b"<rdf:Description tiff:Orientation = '6' />",
            b"<tiff:Orientation>6</tiff:Orientation>",
            b"<tiff:Orientation> 6 </tiff:Orientation>",
            b"tiff:Orientation tiff:Orientation=\"x\" tiff:Orientation=\"6\"",
        ];
        for packet in packets {
            let mut found = Orientation::default();
            found.xmp(packet);
            assert_eq!(found.get(), 6, "{}", String::from_utf8_lossy(packet));
            found.exif(&block(false, 3, 0));
            assert_eq!(found.get(), 6, "an EXIF block without an orientation");
            let mut both = Orientation::default();
            both.exif(&block(false, 3, 8));
            both.xmp(packet);
            assert_eq!(both.get(), 8, "EXIF goes first");
        }
        for packet in [
            b"tiff:Orientation=\"9\"".as_slice(),
            b"tiff:Orientation=\"66\"",
            b"tiff:Orientation=\"6",
        ] {
            let mut found = Orientation::default();
            found.xmp(packet);
            assert_eq!(found.get(), 1);
        }
    }

    fn block(big_endian: bool, kind: u16, value: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let put16 =
            |bytes: &mut Vec<u8>, v: u16| bytes.extend(if big_endian { v.to_be_bytes() } else { v.to_le_bytes() });
        bytes.extend(if big_endian { b"MM" } else { b"II" });
        put16(&mut bytes, 42);
        bytes.extend(if big_endian {
            8u32.to_be_bytes()
        } else {
            8u32.to_le_bytes()
        });
        put16(&mut bytes, 2);
        put16(&mut bytes, 0x010F);
        bytes.extend([0; 10]);
        put16(&mut bytes, ORIENTATION);
        put16(&mut bytes, kind);
        bytes.extend(if big_endian {
            1u32.to_be_bytes()
        } else {
            1u32.to_le_bytes()
        });
        if kind == 3 {
            put16(&mut bytes, value as u16);
            put16(&mut bytes, 0);
        } else {
            bytes.extend(if big_endian {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            });
        }
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn orientation_is_read_in_both_byte_orders_and_with_or_without_prefix() {
        for value in 1..=8 {
            for big_endian in [false, true] {
                for kind in [3, 4] {
                    let plain = block(big_endian, kind, value);
                    assert_eq!(orientation(&plain), value as u8);
                    assert_eq!(orientation(&[b"Exif\0\0".as_slice(), &plain].concat()), value as u8);
                }
            }
        }
    }

    #[test]
    fn values_outside_1_to_8_and_other_types_read_as_upright() {
        for value in [0, 9, 255, 65535] {
            assert_eq!(orientation(&block(false, 3, value)), 1);
        }
        assert_eq!(orientation(&block(true, 2, 6)), 1);
    }

    #[test]
    fn every_truncation_reads_as_upright_or_as_the_value() {
        let whole = block(true, 3, 6);
        for length in 0..whole.len() {
            assert!(matches!(orientation(&whole[..length]), 1 | 6));
        }
    }

    #[test]
    fn a_directory_that_points_at_itself_or_beyond_the_end_reads_as_upright() {
        for offset in [0u32, 4, 8, 0x7FFF_FFFF, u32::MAX] {
            let mut bytes = b"II\x2a\0".to_vec();
            bytes.extend(offset.to_le_bytes());
            bytes.extend([0xFF; 64]);
            assert_eq!(orientation(&bytes), 1);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_orientation_between_1_and_8(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!((1..=8).contains(&orientation(&bytes)));
            let framed = [b"MM\0\x2a\0\0\0\x08".as_slice(), &bytes].concat();
            prop_assert!((1..=8).contains(&orientation(&framed)));
        }
    }
}
