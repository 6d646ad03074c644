//! The kernel's own ways to tell of a change: inotify and uevents; and a little randomness.

pub mod inotify;
pub mod random;
pub mod ready;
pub mod uevent;
