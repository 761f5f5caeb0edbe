//! Hashes the built-in model while the extension is built, so that no connection has to: seven megabytes cost each of
//! them ten milliseconds. A manifest that belongs to other weights ends the build.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use sha2::{Digest, Sha256};

const FOLDER: &str = "models/default";
/// Rows of the background that version 0.2.0 had alone: photographs, to which pages were added.
const EARLIER_BACKGROUND_ROWS: usize = 8192;

fn main() {
    let weights = digest("model.onnx");
    let background = digest("background.bin");
    let earlier: [u8; 32] = Sha256::digest(first_rows(&read("background.bin"), EARLIER_BACKGROUND_ROWS)).into();
    let manifest: serde_json::Value =
        serde_json::from_slice(&read("manifest.json")).expect("models/default/manifest.json is JSON");
    let written = weights.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    assert_eq!(
        manifest["weights_sha256"], *written,
        "{FOLDER}/manifest.json belongs to other weights than {FOLDER}/model.onnx"
    );
    let code = format!(
        "/// SHA-256 of [`WEIGHTS`], found equal to the manifest's when this was built.\n\
         pub static WEIGHTS_SHA256: [u8; 32] = {weights:?};\n\
         /// SHA-256 of [`BACKGROUND`].\n\
         pub static BACKGROUND_SHA256: [u8; 32] = {background:?};\n\
         /// Rows of [`BACKGROUND`] that version 0.2.0 had alone.\n\
         pub const EARLIER_BACKGROUND_ROWS: usize = {EARLIER_BACKGROUND_ROWS};\n\
         /// SHA-256 of the file that held them.\n\
         pub static EARLIER_BACKGROUND_SHA256: [u8; 32] = {earlier:?};\n"
    );
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("builtin_hashes.rs"), code).expect("OUT_DIR is writable");
}

fn read(name: &str) -> Vec<u8> {
    let path = Path::new(FOLDER).join(name);
    println!("cargo::rerun-if-changed={}", path.display());
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The file that a background's first rows would make: header, a scale a row, codes (crate `scoring`).
fn first_rows(file: &[u8], rows: usize) -> Vec<u8> {
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes")) as usize;
    let (all, dimensions) = (number(8), number(12));
    let (head, payload) = file.split_at(16);
    let (scales, codes) = payload.split_at(4 * all);
    let count = u32::try_from(rows).expect("rows fit").to_le_bytes();
    [
        &head[..8],
        count.as_slice(),
        &head[12..],
        &scales[..4 * rows],
        &codes[..rows * dimensions],
    ]
    .concat()
}

fn digest(name: &str) -> [u8; 32] {
    Sha256::digest(read(name)).into()
}
