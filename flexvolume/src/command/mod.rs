//! What a person runs.

pub mod install;
