//! Vector formats, arithmetic and distances with run-time SIMD dispatch.
