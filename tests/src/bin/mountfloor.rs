//! The floor of the benchmark: only the kernel work of the driver's tmpfs mount.
//!
//! Called as a driver is, `mount FOLDER OPTIONS`; the options are not read.
#![no_main]

use std::ffi::{c_char, c_int};
use std::io;
use std::path::Path;

use harness::kernel::bare_volume;

/// The C library's entry, as in the driver.
// SAFETY: with `no_main` the program has no other symbol of that name.
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _words: *const *const c_char) -> c_int {
    let Ok(answer) = bare_volume::prepare() else { return 1 };
    let line = match run() {
        Ok(()) => "{\"status\":\"Success\"}\n".to_owned(),
        Err(error) => format!("{{\"status\":\"Failure\",\"message\":\"{error}\"}}\n"),
    };
    let written = rustix::io::write(&answer, line.as_bytes());
    // The end of the process closes it.
    std::mem::forget(answer);
    i32::from(written.is_err())
}

fn run() -> io::Result<()> {
    let folder = std::env::args().nth(2).ok_or(io::ErrorKind::InvalidInput)?;
    bare_volume::mount(Path::new(&folder).strip_prefix(bare_volume::ROOT).map_err(io::Error::other)?)
}
