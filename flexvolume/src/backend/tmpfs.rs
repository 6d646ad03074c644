//! The tmpfs backend.
