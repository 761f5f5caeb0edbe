//! Images to descriptors: model manifest, ONNX Runtime session, batching.
