//! The least that any program costs: started, linked as ours are, and over.
#![no_main]

use std::ffi::{c_char, c_int};

/// The C library's entry, as in the driver: Rust's own start-up would be something already.
// SAFETY: with `no_main` the program has no other symbol of that name.
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _words: *const *const c_char) -> c_int {
    0
}
