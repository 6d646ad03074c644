//! The floor of the benchmark: only the kernel work of the driver's tmpfs mount or unmount.
//!
//! Called as a driver is, `mount FOLDER OPTIONS` or `unmount FOLDER`; the options are not read.
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
    i32::from(rustix::io::write(&answer, line.as_bytes()).is_err())
}

fn run() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    let (Some(verb), Some(folder)) = (words.next(), words.next()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = Path::new(&folder).strip_prefix("/var/lib/kubelet").map_err(io::Error::other)?;
    if verb == "mount" { bare_volume::mount(folder) } else { bare_volume::umount(folder) }
}
