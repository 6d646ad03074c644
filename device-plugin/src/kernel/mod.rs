//! What only the kernel does: its ways to tell of a change, programs with a deadline; and a little randomness.

pub(crate) mod child;
pub mod inotify;
pub mod memory;
pub mod random;
pub mod ready;
pub mod uevent;
