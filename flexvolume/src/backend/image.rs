//! The image backend.
