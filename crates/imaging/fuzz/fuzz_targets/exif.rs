//! Any bytes as the EXIF block of a small PNG: the picture comes out whatever the block says.
#![no_main]

use imaging::{DecodeOptions, decode};
use libfuzzer_sys::fuzz_target;

/// 1 × 1 grey pixel: signature, IHDR; then eXIf; then IDAT (stored), IEND.
const HEAD: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55";
const TAIL: &[u8] =
    b"\0\0\0\x0dIDAT\x78\x01\x01\x02\0\xfd\xff\0\x80\0\x82\0\x81\xc3\x6e\x25\xe0\0\0\0\0IEND\xae\x42\x60\x82";

fuzz_target!(|block: &[u8]| {
    let mut bytes = HEAD.to_vec();
    bytes.extend((block.len() as u32).to_be_bytes());
    let start = bytes.len();
    bytes.extend(b"eXIf");
    bytes.extend(block);
    bytes.extend(crc32(&bytes[start..]).to_be_bytes());
    bytes.extend(TAIL);
    decode(&bytes, &DecodeOptions::default()).expect("metadata must not cost the picture");
});

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
