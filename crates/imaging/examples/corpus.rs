//! Writes a small file of every coding into a folder: the corpus that fuzzing starts from.
//!
//!     cargo run -p imaging --example corpus -- fuzz/corpus/decode

#[path = "../tests/pictures/mod.rs"]
mod pictures;

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "fuzz/corpus/decode".into());
    std::fs::create_dir_all(&folder)?;
    for (name, bytes) in pictures::one_of_each() {
        // The first byte is the `decode` target's choice of the scale.
        for choice in [0u8, 21] {
            let path = format!("{folder}/{} {choice}", name.replace(['/', ':'], "-"));
            std::fs::write(path, [&[choice], bytes.as_slice()].concat())?;
        }
    }
    Ok(())
}
