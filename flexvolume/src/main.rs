//! `nodeplug-flexvolume`: reads the call, serves it, answers with one JSON line and exit code 0, whatever
//! happens. The kubelet execs it for every mount and unmount; a person gets the commands of
//! [`flexvolume::command`].

#![no_main]

use std::ffi::{c_char, c_int};
use std::os::fd::AsRawFd;
use std::time::Instant;

use flexvolume::kernel::{crash, process};
use flexvolume::render::Answer;
use flexvolume::request::Request;
use flexvolume::{command, verb};

/// The C library's entry: an exec for every volume has no use for what Rust's own start-up asks of the
/// kernel.
// SAFETY: with `no_main` the program has no other symbol of that name.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, argv: *const *const c_char) -> c_int {
    let start = Instant::now();
    process::adopt();
    if command::is_wanted() {
        return command::main();
    }
    // First of all: every process of the node may read another's arguments.
    let arguments = process::Arguments::take(count, argv);
    process::harden();
    // The kubelet reads stdout and stderr as one: from here on nothing but the answer gets there.
    let Ok(stdout) = process::silence() else {
        // No descriptor is left for the answer, so there is nobody to answer.
        return 0;
    };
    crash::install(stdout.as_raw_fd());
    crash::install_panic_hook(stdout.as_raw_fd());
    let served = Request::read(arguments.iter()).and_then(|request| verb::serve(request, start));
    let answer = served.unwrap_or_else(|error| Answer::failure(&error));
    crash::answer(stdout.as_raw_fd(), &answer.line());
    0
}
