//! Bytes to pixels within limits: decoding, orientation, resizing, edits.
