//! What a person may ask the program for.

pub mod validate;
