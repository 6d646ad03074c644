//! `nodeplug-flexvolume`: reads the call, serves it, answers with one JSON line and exit code 0, whatever
//! happens. The kubelet execs it for every mount and unmount; a person gets the commands of
//! [`flexvolume::command`].

#![no_main]

use std::ffi::{c_char, c_int};
use std::os::fd::IntoRawFd;
use std::time::Instant;

use flexvolume::kernel::{crash, process};
use flexvolume::log::Entry;
use flexvolume::render::Answer;
use flexvolume::request::{Call, Request};
use flexvolume::{command, verb};
use node::times;

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
    let mut entry = Entry::unread(arguments.get(1));
    let served = Request::read(arguments.iter()).and_then(|request| {
        // `init` needs nothing; whatever else is done may say something where only the answer belongs.
        if !matches!(request.call, Call::Init) {
            silenced?;
            times::start(start);
            times::lap("request");
        }
        entry = Entry::of(&request);
        verb::serve(request, start, &mut entry)
    });
    let (answer, error) = match served {
        Ok(answer) => (answer, None),
        Err(error) => (Answer::failure(&error), Some(error)),
    };
    crash::answer(stdout, &answer.line());
    times::lap("answer");
    let _ = nix::unistd::close(stdout);
    entry.append(error.as_deref(), &answer.message, start.elapsed());
    0
}
