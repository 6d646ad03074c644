//! Waiting for a descriptor without a thread.

use std::os::fd::AsRawFd;

use node::{Context, Kind, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::inotify::Inotify;
use super::uevent::Uevents;

/// What owns one descriptor, names always the same, and closes it when it is dropped and never before.
pub trait Descriptor: AsRawFd + sealed::Sealed {}

impl Descriptor for Inotify {}
impl Descriptor for Uevents {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Inotify {}
    impl Sealed for super::Uevents {}
}

/// Registers the descriptor with the runtime.
pub fn readable<T: Descriptor>(descriptor: T) -> Result<AsyncFd<T>> {
    // SAFETY: a `Descriptor` keeps its descriptor open for as long as it lives, and names no other; AsyncFd takes it
    // off the runtime's list before it drops it.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }
        .map_err(|e| std::io::Error::other(e.to_string()))
        .doing(Kind::Kernel, || "wait for the kernel's announcements".to_owned())
}
