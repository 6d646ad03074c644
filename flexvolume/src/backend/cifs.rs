//! The cifs backend.
