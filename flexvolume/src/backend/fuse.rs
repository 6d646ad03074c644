//! The fuse backend.
