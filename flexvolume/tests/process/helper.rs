//! Helpers get what they are given and nothing else, and end in time.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Instant;

use flexvolume::kernel::helper::{Helper, Outcome, memory_file, run};
use libtest_mimic::Trial;
use node::Kind;

use super::{LONG, SHORT, alive, folder, trial, until};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_helper_has_a_bare_environment", bare_environment),
        trial("a_helper_has_no_descriptor_but_those_it_keeps", descriptors),
        trial("a_helper_reads_a_secret_from_memory", a_secret),
        trial("a_helper_has_usual_signals_and_makes_private_files", usual_signals),
        trial("a_helper_that_takes_too_long_is_ended_with_what_it_started", too_long),
        trial("a_helper_in_the_background_delays_nobody", background),
        trial("a_helper_that_fails_says_how", failing),
    ]
}

fn shell(script: &str) -> Outcome {
    let words: [OsString; 2] = ["-c".into(), script.into()];
    run(&Helper::new(Path::new("/bin/sh"), &words, Instant::now() + LONG)).unwrap()
}

fn bare_environment() {
    let helper = Helper {
        environment: &[("PASSWD_FD", "9")],
        ..Helper::new(Path::new("/usr/bin/env"), &[], Instant::now() + LONG)
    };
    let text = run(&helper).unwrap().text;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["LC_ALL=C", "PASSWD_FD=9", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
}

fn descriptors() {
    let kept = memory_file("kept", b"").unwrap();
    let high = rustix::io::fcntl_dupfd_cloexec(&kept, 40).unwrap();
    let leaked = rustix::io::dup(&kept).unwrap();
    let words = ["/proc/self/fd".into()];
    let keep = [high.as_fd()];
    let helper = Helper { keep: &keep, ..Helper::new(Path::new("/bin/ls"), &words, Instant::now() + LONG) };
    let text = run(&helper).unwrap().text;
    // The lowest free number is the listing itself.
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3", &high.as_raw_fd().to_string()]
    );
    drop(leaked);
}

fn a_secret() {
    let secret = memory_file("secret", b"hunter2").unwrap();
    let words = [format!("/proc/self/fd/{}", secret.as_raw_fd()).into()];
    let keep = [secret.as_fd()];
    let mut helper =
        Helper { keep: &keep, ..Helper::new(Path::new("/bin/cat"), &words, Instant::now() + LONG) };
    assert_eq!(run(&helper).unwrap().text, "hunter2");
    let redact = |text: &str| text.replace("hunter2", "***");
    helper.redact = &redact;
    assert_eq!(run(&helper).unwrap().text, "***");
}

fn usual_signals() {
    node::adopt();
    assert_eq!(shell("kill -PIPE $$; echo alive").status.signal(), Some(libc::SIGPIPE));
    let text = shell("umask; pwd; grep -E 'SigIgn|SigBlk' /proc/self/status").text;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["0077", "/"]);
    for line in &lines[2..] {
        let mask = u64::from_str_radix(line.rsplit_once(' ').unwrap().1, 16).unwrap();
        // The C library keeps 32 and 33 for itself, and nobody resets them.
        assert_eq!(mask & !(3 << 31), 0, "{text}");
    }
}

fn too_long() {
    let file = folder().join("pid");
    let script = format!("trap '' TERM; sleep 1000 & echo $! >{}; echo waiting; wait", file.display());
    let words: [OsString; 2] = ["-c".into(), script.into()];
    let error = run(&Helper::new(Path::new("/bin/sh"), &words, Instant::now() + SHORT)).unwrap_err();
    assert_eq!(error.kind(), Kind::TryAgain);
    assert_eq!(error.chain(), "run `sh`: no answer in time, so it was ended; it wrote: waiting");
    let started: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    until("the end of what it started", || !alive(started));
}

fn background() {
    let outcome = shell("sleep 1000 & echo $!");
    assert!(outcome.status.success());
    let pid: i32 = outcome.text.parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn failing() {
    let outcome = shell("echo to stdout; echo to stderr >&2; exit 32");
    assert_eq!((outcome.status.code(), outcome.text.as_str()), (Some(32), "to stdout\nto stderr"));
}
