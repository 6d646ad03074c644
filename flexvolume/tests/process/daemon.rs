//! Daemons outlive who started them, are found by their volume, and end when they are told to.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flexvolume::kernel::daemon::{Daemon, Spec, find, start, start_of, stop};
use flexvolume::kernel::helper::memory_file;
use libtest_mimic::Trial;
use nix::unistd::{Pid, getsid};
use node::Kind;

use super::{LONG, SHORT, act, alive, trial, until};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_daemon_has_a_session_and_cgroup_of_its_own", its_own),
        trial("a_daemon_knows_its_number_before_it_starts", its_number),
        trial("a_daemon_outlives_who_started_it_and_keeps_no_pipe", outlives),
        trial("a_daemon_is_found_without_its_cgroup", without_its_cgroup),
        trial("a_daemon_that_ends_early_says_why", ends_early),
        trial("a_daemon_may_put_itself_into_the_background", background),
        trial("a_daemon_that_does_not_listen_is_killed", does_not_listen),
        trial("a_daemon_that_is_not_ready_in_time_is_tried_again", not_ready),
        trial("a_program_that_is_not_there_names_its_package", not_there),
        trial("no_daemon_at_all_is_ended_already", none),
    ]
}

/// An id that no volume and no other run has.
fn id() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("feed{:020x}{next:08x}", std::process::id())
}

fn shell(volume: &str, script: &str) -> Daemon {
    let arguments = |_| -> Vec<OsString> { vec!["-c".into(), script.into()] };
    start(&Spec {
        volume,
        program: Path::new("/bin/sh"),
        arguments: &arguments,
        environment: &|_| vec![("HOME".to_owned(), "/nonexistent".to_owned())],
        keep: &[],
    })
    .unwrap()
}

fn groups(volume: &str) -> Vec<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"]
        .map(|root| Path::new(root).join("nodeplug-flexvolume").join(volume))
        .into_iter()
        .filter(|group| group.exists())
        .collect()
}

fn same(text: &str) -> String {
    text.to_owned()
}

fn its_own() {
    let volume = id();
    let daemon = shell(&volume, "exec sleep 1000");
    assert_eq!(daemon.tied_to_kubelet, None);
    assert_eq!(start_of(daemon.pid), Some(daemon.started));
    assert_eq!(getsid(Some(Pid::from_raw(daemon.pid))).unwrap().as_raw(), daemon.pid);
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", daemon.pid)).unwrap();
    let unified = cgroups.lines().find(|l| l.starts_with("0::")).unwrap();
    assert!(unified.ends_with(&format!("/nodeplug-flexvolume/{volume}")), "{cgroups}");
    assert!(!groups(&volume).is_empty());
    until("the exec of sleep", || {
        fs::read_to_string(format!("/proc/{}/comm", daemon.pid)).unwrap() == "sleep\n"
    });
    // The kernel gives a program its name a moment before its environment.
    let environ = || fs::read_to_string(format!("/proc/{}/environ", daemon.pid)).unwrap();
    until("the environment of sleep", || !environ().is_empty());
    let environment = environ();
    for variable in [&format!("NODEPLUG_VOLUME={volume}"), "HOME=/nonexistent", "LC_ALL=C"] {
        assert!(environment.split('\0').any(|v| v == variable), "{environment}");
    }
    assert_eq!(fs::read_dir(format!("/proc/{}/fd", daemon.pid)).unwrap().count(), 3);
    daemon.check(&same).unwrap();
    assert_eq!(find(&volume), [daemon.pid]);
    stop(&volume, LONG).unwrap();
    assert!(!alive(daemon.pid));
    assert!(groups(&volume).is_empty());
    stop(&volume, LONG).unwrap();
}

fn its_number() {
    let volume = id();
    let secret = memory_file("secret", b"hunter2").unwrap();
    let number = secret.as_raw_fd();
    let arguments = |pid| -> Vec<OsString> {
        vec!["-c".into(), format!("cat /proc/{pid}/fd/{number}; exec sleep 1000").into()]
    };
    let daemon = start(&Spec {
        volume: &volume,
        program: Path::new("/bin/sh"),
        arguments: &arguments,
        environment: &|_| Vec::new(),
        keep: &[secret.as_fd()],
    })
    .unwrap();
    until("the secret", || {
        let log = fs::read(format!("/proc/{}/fd/2", daemon.pid)).unwrap_or_default();
        log.starts_with(b"hunter2\0")
    });
    stop(&volume, LONG).unwrap();
}

fn outlives() {
    let volume = id();
    let output = act(&["daemon", &volume]).output().unwrap();
    let pid: i32 = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    assert!(alive(pid));
    assert_eq!(find(&volume), [pid]);
    stop(&volume, LONG).unwrap();
    assert!(!alive(pid));
}

fn without_its_cgroup() {
    let volume = id();
    let daemon = shell(&volume, "exec sleep 1000");
    for group in groups(&volume) {
        let root = group.parent().unwrap().parent().unwrap();
        fs::write(root.join("cgroup.procs"), daemon.pid.to_string()).unwrap();
    }
    assert_eq!(find(&volume), [daemon.pid]);
    assert!(find(&id()).is_empty());
    stop(&volume, LONG).unwrap();
    assert!(!alive(daemon.pid));
    assert!(groups(&volume).is_empty());
}

fn ends_early() {
    let volume = id();
    let daemon = shell(&volume, "echo wrong password hunter2 >&2; exit 3");
    let redact = |text: &str| text.replace("hunter2", "***");
    let error = daemon.until_ready(Instant::now() + LONG, &redact, || Ok(false)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(error.chain(), "start `sh`: it exited with code 3; it wrote: wrong password ***");
    stop(&volume, LONG).unwrap();
    assert!(groups(&volume).is_empty());
}

fn background() {
    let volume = id();
    let daemon = shell(&volume, "sleep 1000 & exit 0");
    until("the end of the one that started it", || !alive(daemon.pid));
    daemon.check(&same).unwrap();
    daemon.check(&same).unwrap();
    let left = find(&volume);
    assert_eq!(left.len(), 1);
    stop(&volume, LONG).unwrap();
    assert!(!alive(left[0]));
    assert!(daemon.check(&same).is_err());
}

fn does_not_listen() {
    let volume = id();
    let file = super::folder().join("listening");
    let daemon =
        shell(&volume, &format!("trap '' TERM; touch {}; while :; do sleep 1; done", file.display()));
    until("the trap", || file.exists());
    stop(&volume, SHORT).unwrap();
    assert!(!alive(daemon.pid));
    assert!(find(&volume).is_empty() && groups(&volume).is_empty());
}

fn not_ready() {
    let volume = id();
    let daemon = shell(&volume, "exec sleep 1000");
    let mut looks = 0;
    daemon
        .until_ready(Instant::now() + LONG, &same, || {
            looks += 1;
            Ok(looks == 3)
        })
        .unwrap();
    let error = daemon.until_ready(Instant::now() + SHORT, &same, || Ok(false)).unwrap_err();
    assert_eq!(error.kind(), Kind::TryAgain);
    stop(&volume, Duration::ZERO).unwrap();
}

fn not_there() {
    let volume = id();
    let spec = Spec {
        volume: &volume,
        program: Path::new("/nonexistent/sshfs"),
        arguments: &|_| Vec::new(),
        environment: &|_| Vec::new(),
        keep: &[],
    };
    let error = start(&spec).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (Kind::Unavailable, Some(libc::ENOENT)));
    assert_eq!(error.advice(), Some("install `sshfs` on the node"));
    assert!(groups(&volume).is_empty());
}

fn none() {
    stop(&id(), LONG).unwrap();
}
