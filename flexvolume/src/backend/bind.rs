//! The bind backend.
