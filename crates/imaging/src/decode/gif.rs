//! GIF through the `gif` crate; frames are laid on the canvas here (GIF89a specification, sections 18 to 23).

use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError, DisposalMethod, MemoryLimit};

use super::Input;
use super::animation::Chooser;
use crate::poll::Source;
use crate::{Format, Image, ImageError, buffers};

pub(super) fn decode(input: &Input) -> Result<(Image, u32), ImageError> {
    let size = (input.header.width, input.header.height);
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Unlimited);
    options.allow_unknown_blocks(true);
    // Frames may be larger than the canvas: the header has made room.
    options.check_frame_consistency(false);
    let source = Source::new(input.bytes, input.poll, input.ran_out);
    let mut decoder = options.read_info(source).map_err(|error| failure(input, error))?;
    let mut canvas = Canvas {
        width: size.0 as usize,
        height: size.1 as usize,
        pixels: buffers::zeroed(size.0 as usize * size.1 as usize * 3)?,
        matte: input.options.matte,
    };
    canvas.pixels.as_chunks_mut::<3>().0.fill(canvas.matte);
    let mut indices = Vec::new();
    let first = lay_next(
        input,
        &mut decoder,
        &mut canvas,
        &mut indices,
        input.header.frame_pixels,
    )?;
    let Some(mut to_undo) = first else {
        return Err(input.failure("it holds no frame"));
    };
    if !input.looks_further() {
        return Ok((Image::new(size.0, size.1, canvas.pixels)?, 1));
    }
    let mut chooser = Chooser::new(input, size);
    while chooser.offer(&canvas.pixels)? {
        canvas.undo(to_undo);
        // What is wrong with a later frame is no reason to refuse the ones before it.
        to_undo = match lay_next(
            input,
            &mut decoder,
            &mut canvas,
            &mut indices,
            input.header.frame_pixels,
        ) {
            Ok(Some(next)) => next,
            Err(error @ (ImageError::Cancelled | ImageError::OutOfMemory { .. })) => return Err(error),
            Ok(None) | Err(_) => break,
        };
    }
    input.poll.check()?;
    let chosen = chooser.chosen();
    chosen.unwrap_or_else(|| Err(input.failure("it holds no frame")))
}

/// What happens to a frame's place before the next frame is laid.
enum Undo {
    Nothing,
    Clear([usize; 4]),
    Restore([usize; 4], Vec<u8>),
}

/// RGB on the matte.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    matte: [u8; 3],
}

impl Canvas {
    /// The part of a row of a rectangle [left, top, width, height] that lies on the canvas, in bytes.
    fn span(&self, [left, top, width, _]: [usize; 4], row: usize) -> Option<std::ops::Range<usize>> {
        let y = top + row;
        let (from, to) = (left.min(self.width), (left + width).min(self.width));
        (y < self.height).then(|| (y * self.width + from) * 3..(y * self.width + to) * 3)
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Nothing => {}
            Undo::Clear(place) => {
                for row in 0..place[3] {
                    if let Some(span) = self.span(place, row) {
                        self.pixels[span].as_chunks_mut::<3>().0.fill(self.matte);
                    }
                }
            }
            Undo::Restore(place, saved) => {
                let mut at = 0;
                for row in 0..place[3] {
                    if let Some(span) = self.span(place, row) {
                        let length = span.len();
                        self.pixels[span].copy_from_slice(&saved[at..at + length]);
                        at += length;
                    }
                }
            }
        }
    }

    fn save(&self, place: [usize; 4]) -> Result<Vec<u8>, ImageError> {
        let spans = || (0..place[3]).filter_map(|row| self.span(place, row));
        let mut saved = buffers::with_room(spans().map(|span| span.len()).sum())?;
        spans().for_each(|span| saved.extend_from_slice(&self.pixels[span]));
        Ok(saved)
    }
}

/// Lays the next frame on the canvas, if there is one of at most `most` pixels.
fn lay_next(
    input: &Input,
    decoder: &mut Decoder<Source>,
    canvas: &mut Canvas,
    indices: &mut Vec<u8>,
    most: u64,
) -> Result<Option<Undo>, ImageError> {
    let Some(frame) = decoder.next_frame_info().map_err(|error| failure(input, error))? else {
        return Ok(None);
    };
    let place = [frame.left, frame.top, frame.width, frame.height].map(usize::from);
    let (transparent, dispose) = (frame.transparent, frame.dispose);
    let palette = frame.palette.clone();
    let size = place[2] * place[3];
    if size == 0 || size as u64 > most {
        return Ok(None);
    }
    if indices.len() < size {
        *indices = buffers::zeroed(size)?;
    }
    decoder
        .read_into_buffer(&mut indices[..size])
        .map_err(|error| failure(input, error))?;
    input.poll.check()?;
    let palette = palette.as_deref().or(decoder.global_palette());
    let undo = match dispose {
        DisposalMethod::Background => Undo::Clear(place),
        DisposalMethod::Previous => Undo::Restore(place, canvas.save(place)?),
        DisposalMethod::Any | DisposalMethod::Keep => Undo::Nothing,
    };
    for (row, line) in indices[..size].chunks_exact(place[2]).enumerate() {
        let Some(span) = canvas.span(place, row) else { break };
        for (to, &index) in canvas.pixels[span].as_chunks_mut::<3>().0.iter_mut().zip(line) {
            if Some(index) == transparent {
                continue;
            }
            let at = usize::from(index) * 3;
            *to = match palette {
                // Beyond the end of the palette there is black; without one, a ramp of grey.
                Some(palette) => palette
                    .get(at..at + 3)
                    .map_or([0; 3], |colour| [colour[0], colour[1], colour[2]]),
                None => [index; 3],
            };
        }
    }
    Ok(Some(undo))
}

fn failure(input: &Input, error: DecodingError) -> ImageError {
    match error {
        DecodingError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::truncated(Format::Gif, input.bytes)
        }
        other => input.failure(other),
    }
}
