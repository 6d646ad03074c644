//! The nfs backend.
