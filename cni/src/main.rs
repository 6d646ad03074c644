//! `nodeplug-cni`: reads the call, runs it, prints the one answer. A runtime execs it for every pod; a
//! person who runs it without `CNI_COMMAND` gets the commands of [`cni::command`].

#![no_main]

use std::env;
use std::ffi::{c_char, c_int};
use std::io::Read;
use std::panic;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use cni::request::Request;
use cni::role::Role;
use cni::verb::add::undone;
use cni::verb::run;
use cni::version::Version;
use cni::{command, log, render};
use node::{Error, Kind, times};
use serde_json::Value;

/// A configuration is a few kilobytes; one with every attachment of a node (GC) some hundred.
const LONGEST_STDIN: u64 = 16 << 20;

/// The exit code that goes with the answer, once that is given: nothing may be added to it then.
static ANSWERED: AtomicI32 = AtomicI32::new(-1);

/// The C library's entry. Rust's own start-up reads the memory map and sets up a stack guard: twenty
/// system calls, which a call of two milliseconds has no use for.
// SAFETY: with `no_main` the program has no other symbol of that name.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    node::adopt();
    // Runtimes give no arguments.
    if env::args_os().len() > 1 || env::var_os("CNI_COMMAND").is_none_or(|c| c.is_empty()) {
        return command::main();
    }
    panic::set_hook(Box::new(|info| {
        let code = ANSWERED.load(Ordering::Relaxed);
        if code >= 0 {
            // In the log, of whose mistakes no call dies.
            #[allow(clippy::exit, reason = "a panic has no other way out with the code of the answer")]
            std::process::exit(code);
        }
        let what = Error::caused(Kind::Internal, "serve the call", info.to_string())
            .hint("this is a mistake in nodeplug-cni: please report it; DEL cleans up");
        let _ = answer(&render::error(&what, Version::NEWEST));
        // The profile aborts after the hook; the runtime expects an exit code beside the answer.
        #[allow(clippy::exit, reason = "a panic has no other way out that lets the caller read the answer")]
        std::process::exit(1);
    }));
    serve()
}

/// Reads, runs and answers the call, and writes its line when the runtime has its answer.
fn serve() -> c_int {
    let mut stdin = Vec::new();
    // What cannot be read cannot be decoded either: the verb decides whether that matters.
    let _ = std::io::stdin().take(LONGEST_STDIN).read_to_end(&mut stdin);
    let start = Instant::now();
    let request = match Request::read(role(), &|name| env::var_os(name), &stdin) {
        Ok(request) => request,
        Err(refused) => {
            refuse(&refused.error, refused.version);
            answered(1);
            log::append_refused(&refused, role(), &stdin, start.elapsed());
            return 1;
        }
    };
    if log::is_kept(&request) {
        times::start(start);
        times::lap("request");
    }
    let outcome = run(&request).and_then(|value| delivered(&request, value));
    if let Err(error) = &outcome {
        refuse(error, request.version());
    }
    let code = c_int::from(outcome.is_err());
    answered(code);
    times::lap("answer");
    log::append(&request, outcome.as_ref().map_err(AsRef::as_ref), start.elapsed());
    code
}

fn refuse(error: &Error, version: Version) {
    // A caller that closed its pipe has gone; there is nobody else to tell.
    let _ = answer(&render::error(error, version));
}

/// The answer is out, and a caller that reads up to its end has it.
fn answered(code: c_int) {
    ANSWERED.store(code, Ordering::Relaxed);
    let _ = nix::unistd::close(libc::STDOUT_FILENO);
}

fn role() -> Role {
    env::args_os().next().map_or(Role::Main, |path| Role::called_as(&path))
}

/// Hands the answer over. A runtime that did not hear of a network takes the ADD for failed, and nothing
/// may stay of a failed ADD.
fn delivered(request: &Request, text: Option<Value>) -> node::Result<Option<Value>> {
    let Some(value) = text else { return Ok(None) };
    let Err(error) = answer(&value) else { return Ok(Some(value)) };
    let error = Error::caused(Kind::Io, "write the answer to stdout", error);
    match request {
        Request::Add { call, .. } if call.config.leaves_something() => Err(undone(call, error)),
        _ => Err(error),
    }
}

/// Writes an answer past every buffer: it is one, and whole.
fn answer(value: &Value) -> std::io::Result<()> {
    let text = render::text(value);
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match nix::unistd::write(std::io::stdout(), rest) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
