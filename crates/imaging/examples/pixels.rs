//! Decodes and resizes files as jobs on standard input say: one line a job, tab-separated
//!
//! ```text
//! input  output  min_side|-  width|-  height|-  nearest|bilinear|bicubic|lanczos|-
//! ```
//!
//! The output is a binary PPM; a line on standard output says `ok` and the score of [`imaging::detail`], or the error.
//! The parity tests compare the results with Pillow's; transparent pixels come out on white.

use std::io::{BufRead, Write};

use imaging::{DecodeOptions, Filter, decode, detail, resize};

fn main() -> std::io::Result<()> {
    let stdin = std::io::stdin();
    let mut stdout = std::io::stdout().lock();
    for line in stdin.lock().lines() {
        match run(&line?) {
            Ok(score) => writeln!(stdout, "ok\t{score}")?,
            Err(error) => writeln!(stdout, "{error}")?,
        }
    }
    Ok(())
}

fn run(job: &str) -> Result<f32, Box<dyn std::error::Error>> {
    let fields: Vec<&str> = job.split('\t').collect();
    let &[input, output, min_side, width, height, filter] = fields.as_slice() else {
        return Err("a job has six tab-separated fields".into());
    };
    let min_side = if min_side == "-" { None } else { Some(min_side.parse()?) };
    let mut image = decode(
        &std::fs::read(input)?,
        &DecodeOptions {
            min_side,
            ..Default::default()
        },
    )?;
    let score = detail(&image)?.score;
    if filter != "-" {
        let filter = match filter {
            "nearest" => Filter::Nearest,
            "bilinear" => Filter::Bilinear,
            "bicubic" => Filter::Bicubic,
            "lanczos" => Filter::Lanczos,
            other => return Err(format!("no filter is called {other:?}").into()),
        };
        image = resize(&image, width.parse()?, height.parse()?, filter)?;
    }
    if output != "-" {
        let mut file = std::io::BufWriter::new(std::fs::File::create(output)?);
        writeln!(file, "P6 {} {} 255", image.width(), image.height())?;
        file.write_all(image.pixels())?;
        file.flush()?;
    }
    Ok(score)
}
