//! The process side against the kernel: signals, helpers, children in namespaces, daemons, holders.
//!
//! What forks must have one thread, so the tests run one after the other on the main one. What ends or
//! changes the whole process is an act (see [`act`]): the test runs this very program again for it.
//! Mounts are made in a mount namespace of the tests' own; the cgroups of the daemons are the node's,
//! and are removed again.

// What stands around the tests is theirs too; the lints know the functions marked as tests alone.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod act;
mod crash;
mod daemon;
mod helper;
mod holders;
mod workshop;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Longer than anything takes here; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(30);
/// For what must run into its deadline.
const SHORT: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(act::WORD) {
        act::run(&words.collect::<Vec<_>>());
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if let Err(why) = enter() {
        let trial = Trial::ignorable_test("the_process_side", move || {
            if std::env::var("CI").as_deref() == Ok("true") {
                return Err(format!("may not be skipped under CI: {why}").into());
            }
            Ok(Completion::ignored_with(why))
        });
        return libtest_mimic::run(&arguments, vec![trial]).exit_code();
    }
    let modules =
        [crash::trials(), helper::trials(), workshop::trials(), daemon::trials(), holders::trials()];
    libtest_mimic::run(&arguments, modules.into_iter().flatten().collect()).exit_code()
}

/// Enters a mount namespace in which `/tmp` is this run's own.
fn enter() -> Result<(), String> {
    let nothing = None::<&str>;
    let say = |what: &str, e| format!("{what}: {e}; run as root");
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| say("no mount namespace", e))?;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(|e| say("no private mounts", e))?;
    mount(Some("tests"), "/tmp", Some("tmpfs"), MsFlags::empty(), nothing).map_err(|e| say("no tmpfs", e))
}

fn trial(name: &'static str, body: fn()) -> Trial {
    Trial::test(name, move || {
        body();
        Ok(())
    })
}

/// A new folder, gone with the namespace.
fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = PathBuf::from(format!("/tmp/{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&path).unwrap();
    path
}

/// A new folder with a tmpfs of its own.
fn volume() -> PathBuf {
    let path = folder();
    mount(Some("volume"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    path
}

/// This program again, to perform an act.
fn act(words: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(act::WORD).args(words).stdin(Stdio::null());
    command
}

/// Waits until it is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        thread::sleep(Duration::from_millis(5));
    }
}

fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
