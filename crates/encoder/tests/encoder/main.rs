//! The encoder against a real ONNX Runtime, on networks that the tests write themselves.

mod builtin;
mod checks;
mod embed;
mod library;
mod manifest;
mod onnx_builder;
mod process;
mod setup;
