//! The block backend.
