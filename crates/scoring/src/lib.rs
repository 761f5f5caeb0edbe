//! Descriptor stretching, calibration and retrieval metrics.
