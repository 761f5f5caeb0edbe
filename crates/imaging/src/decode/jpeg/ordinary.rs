//! Ordinary JPEGs at full size, through `zune-jpeg`.

use std::cell::Cell;

use zune_core::bytestream::{ZByteIoError, ZByteReaderTrait, ZSeekFrom};
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use crate::decode::Input;
use crate::poll::{POLL_BYTES, Poll};
use crate::{Format, Image, ImageError};

pub(super) fn decode(input: &Input) -> Result<Image, ImageError> {
    let (width, height) = (input.header.width, input.header.height);
    let source = Source {
        bytes: input.bytes,
        position: 0,
        next_poll: 0,
        poll: input.poll,
        ran_out: input.ran_out,
    };
    let options = DecoderOptions::default()
        .set_max_width(width as usize)
        .set_max_height(height as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(source, options);
    decoder.decode_headers().map_err(|error| failure(input, error))?;
    if decoder.dimensions() != Some((width as usize, height as usize)) {
        return Err(ImageError::corrupt(
            Format::Jpeg,
            "its frame headers give different sizes",
        ));
    }
    let mut pixels = crate::buffers::zeroed(input.header.pixels() as usize * 3)?;
    decoder
        .decode_into(&mut pixels)
        .map_err(|error| failure(input, error))?;
    if input.ran_out.get() {
        return Err(ImageError::truncated(Format::Jpeg, input.bytes));
    }
    Image::new(width, height, pixels)
}

fn failure(input: &Input, error: DecodeErrors) -> ImageError {
    match error {
        DecodeErrors::Unsupported(scheme) => ImageError::unsupported(Format::Jpeg, format!("{scheme:?}")),
        // Reading fails for nothing but the end of the bytes, and for a stop, which wins over this.
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => ImageError::truncated(Format::Jpeg, input.bytes),
        other => input.failure(format!("{other:?}")),
    }
}

/// The encoded bytes with cancellation. After a stop every read fails.
struct Source<'a> {
    bytes: &'a [u8],
    position: usize,
    next_poll: usize,
    poll: &'a Poll<'a>,
    ran_out: &'a Cell<bool>,
}

impl Source<'_> {
    #[inline]
    fn keep_going(&mut self) -> Result<(), ZByteIoError> {
        if self.position >= self.next_poll {
            self.ask()?;
        }
        Ok(())
    }

    #[cold]
    fn ask(&mut self) -> Result<(), ZByteIoError> {
        if self.poll.stopped() {
            return Err(ZByteIoError::Generic("cancelled"));
        }
        self.next_poll = self.position + POLL_BYTES;
        Ok(())
    }

    #[inline]
    fn ahead(&mut self, count: usize) -> Result<&[u8], ZByteIoError> {
        self.keep_going()?;
        let ahead = self.bytes.get(self.position..).unwrap_or(&[]);
        match ahead.get(..count) {
            Some(bytes) => Ok(bytes),
            None => Err(ZByteIoError::NotEnoughBytes(ahead.len(), count)),
        }
    }
}

impl ZByteReaderTrait for Source<'_> {
    #[inline]
    fn read_byte_no_error(&mut self) -> u8 {
        match self.bytes.get(self.position) {
            Some(&byte) => {
                self.position += 1;
                byte
            }
            None => {
                self.ran_out.set(true);
                0
            }
        }
    }

    #[inline]
    fn read_exact_bytes(&mut self, buffer: &mut [u8]) -> Result<(), ZByteIoError> {
        buffer.copy_from_slice(self.ahead(buffer.len())?);
        self.position += buffer.len();
        Ok(())
    }

    fn read_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, ZByteIoError> {
        let count = self.peek_bytes(buffer)?;
        self.position += count;
        Ok(count)
    }

    fn peek_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, ZByteIoError> {
        let count = buffer.len().min(self.bytes.len().saturating_sub(self.position));
        buffer[..count].copy_from_slice(self.ahead(count)?);
        Ok(count)
    }

    fn peek_exact_bytes(&mut self, buffer: &mut [u8]) -> Result<(), ZByteIoError> {
        buffer.copy_from_slice(self.ahead(buffer.len())?);
        Ok(())
    }

    fn z_seek(&mut self, from: ZSeekFrom) -> Result<u64, ZByteIoError> {
        let position = match from {
            ZSeekFrom::Start(offset) => Some(offset),
            ZSeekFrom::End(offset) => (self.bytes.len() as u64).checked_add_signed(offset),
            ZSeekFrom::Current(offset) => (self.position as u64).checked_add_signed(offset),
        };
        let position = position.ok_or(ZByteIoError::Generic("seek before the start"))?;
        self.position = usize::try_from(position).unwrap_or(usize::MAX).min(self.bytes.len());
        Ok(self.position as u64)
    }

    #[inline]
    fn is_eof(&mut self) -> Result<bool, ZByteIoError> {
        self.keep_going()?;
        // Asked only in the middle of entropy-coded data and in search of a marker: what comes next is missing.
        let end = self.position >= self.bytes.len();
        if end {
            self.ran_out.set(true);
        }
        Ok(end)
    }

    fn z_position(&mut self) -> Result<u64, ZByteIoError> {
        Ok(self.position as u64)
    }

    fn read_remaining(&mut self, sink: &mut Vec<u8>) -> Result<usize, ZByteIoError> {
        let rest = self.bytes.get(self.position..).unwrap_or(&[]);
        sink.extend_from_slice(rest);
        self.position = self.bytes.len();
        Ok(rest.len())
    }
}
