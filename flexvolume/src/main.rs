//! `nodeplug-flexvolume`: reads the call, serves it, answers with one JSON line and exit code 0, whatever
//! happens. The kubelet execs it for every mount and unmount; a person gets the commands of
//! [`flexvolume::command`].

#![no_main]

use std::ffi::{c_char, c_int};
use std::os::fd::IntoRawFd;
use std::time::Instant;

use flexvolume::kernel::{crash, process};
use flexvolume::render::Answer;
use flexvolume::request::{Call, Request};
use flexvolume::{command, verb};

/// The C library's entry: an exec for every volume has no use for what Rust's own start-up asks of the
/// kernel.
// SAFETY: with `no_main` the program has no other symbol of that name.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, argv: *const *const c_char) -> c_int {
    let start = Instant::now();
    node::adopt();
    if command::is_wanted(process::word(count, argv, 1).as_deref()) {
        return command::main();
    }
    // First of all: every process of the node may read another's arguments.
    let arguments = process::Arguments::take(count, argv);
    process::harden();
    // The kubelet reads stdout and stderr as one: from here on nothing but the answer gets there.
    let (stdout, silenced) = match process::silence() {
        Ok(descriptor) => (descriptor.into_raw_fd(), Ok(())),
        // No descriptor is left for the answer but the one that it came with.
        Err(error) => (libc::STDOUT_FILENO, Err(error)),
    };
    crash::install(stdout);
    crash::install_panic_hook(stdout);
    let served = Request::read(arguments.iter()).and_then(|request| {
        // `init` needs nothing; whatever else is done may say something where only the answer belongs.
        if !matches!(request.call, Call::Init) {
            silenced?;
        }
        verb::serve(request, start)
    });
    let answer = served.unwrap_or_else(|error| Answer::failure(&error));
    crash::answer(stdout, &answer.line());
    0
}
