//! A little randomness, so that nodes and resources do not act in step.

use std::hash::{BuildHasher, RandomState};

/// A part of the whole, from 0 to 1.
pub fn part() -> f64 {
    // The standard library draws each state's keys anew.
    let drawn = RandomState::new().hash_one(0) >> 32;
    f64::from(u32::try_from(drawn).unwrap_or(0)) / f64::from(u32::MAX)
}
