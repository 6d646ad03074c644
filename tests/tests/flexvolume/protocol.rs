//! One JSON object on one line and exit code 0, whatever comes.

mod whole_kubelet;
mod words;

use std::fs;
use std::process::{Command, Stdio};

use harness::call::Launch;
use harness::kernel::trace;
use harness::suite::volume;
use harness::volume_look::{files, mounts_at};
use harness::volume_node::{OURS, VolumeNode};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::ours::{Call, SECRET, SECRET_BASE64, STATE, folder, memory, object, program};

pub fn trials() -> Vec<Trial> {
    let mut all = own();
    all.extend(whole_kubelet::trials());
    all.extend(words::trials());
    all
}

fn own() -> Vec<Trial> {
    vec![
        volume("init_needs_nothing_of_the_node", &[], init_needs_nothing),
        volume("closed_descriptors_spoil_no_answer", &[], closed_descriptors),
        volume("a_reader_that_went_away_is_no_failure", &[], gone_reader),
        volume("limits_of_the_kubelet_spoil_no_answer", &[], limits),
        volume("a_node_without_dev_null_is_answered", &[], no_null),
        volume("a_signal_at_any_time_gets_one_object_and_leaves_nothing", &[], signals),
        volume("a_call_cannot_be_read_from_outside", &[], read_from_outside),
        volume("a_call_for_an_unknown_name_is_for_the_driver_of_all", &[], other_name),
    ]
}

/// No file, no socket, no process: every volume of the node waits for it.
fn init_needs_nothing(_node: &VolumeNode) {
    let refused = [
        libc::SYS_open,
        libc::SYS_openat2,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_execve,
        libc::SYS_mkdir,
        libc::SYS_stat,
        libc::SYS_statx,
        libc::SYS_mount,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_flock,
    ];
    for name in OURS {
        let (mut opened, mut calls) = (Vec::new(), 0);
        let answer = trace::watch(&Call::of(name, &["init"]), |entry| {
            calls += 1;
            if entry.number == libc::SYS_openat {
                opened.push(entry.text(1));
            }
            assert!(!refused.contains(&entry.number), "{name}: system call {}", entry.number);
        });
        object("init", &answer);
        opened.retain(|path| path != "/dev/null");
        assert!(opened.is_empty(), "{name} opens {opened:?}");
        assert!(calls < 80, "{name}: {calls} system calls");
    }
    assert!(!std::path::Path::new(STATE).exists(), "init makes no state");
}

fn closed_descriptors(node: &VolumeNode) {
    let volume = memory("closed");
    let (path, json) = (volume.path(), volume.mount_json().unwrap());
    let path = path.to_str().unwrap();
    let calls: [&[&str]; 5] =
        [&["init"], &["frob"], &["mount", path, &json], &["mount", path, "{"], &["unmount", path]];
    for closed in 0..8 {
        let words: Vec<&str> = ["0<&-", "1>&-", "2>&-"]
            .iter()
            .enumerate()
            .filter(|(i, _)| closed & (1 << i) != 0)
            .map(|(_, w)| *w)
            .collect();
        folder(&volume);
        for arguments in calls {
            let call = Call::of("tmpfs", arguments).with(&words.join(" "));
            let answer = call.run();
            let told = format!("{words:?} {}", arguments[0]);
            if closed & 2 == 0 {
                object(&told, &answer);
            } else {
                assert!(
                    answer.ok() && answer.stdout.is_empty() && answer.stderr.is_empty(),
                    "{told}: {answer:?}"
                );
            }
            if arguments.len() == 3 {
                assert_eq!(mounts_at(&volume.path()).len(), 1, "{told}");
                // What was opened meanwhile did not take the place of a closed descriptor.
                assert_eq!(fs::read_to_string(volume.path().join("password")).unwrap(), SECRET, "{told}");
            }
        }
        assert!(mounts_at(&volume.path()).is_empty(), "{words:?}");
        fs::remove_dir_all(volume.pod().folder()).unwrap();
        node.assert_nothing_left(&format!("{words:?}"));
    }
}

fn gone_reader(node: &VolumeNode) {
    let volume = memory("gone");
    folder(&volume);
    for (call, mounted) in [
        (Call::of("tmpfs", &["init"]), 0),
        (Call::of("tmpfs", &["frob"]), 0),
        (Call::mount(&volume), 1),
        (Call::unmount(&volume), 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command: Command = call.command();
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let status = command.status().unwrap();
        assert_eq!(status.code(), Some(0), "{call:?}: {status}");
        assert_eq!(mounts_at(&volume.path()).len(), mounted, "{call:?}");
    }
    let full = Call::of("tmpfs", &["init"]).with("> /dev/full").run();
    assert!(full.ok() && full.stderr.is_empty(), "{full:?}");
    fs::remove_dir(volume.path()).unwrap();
    node.assert_nothing_left("after a reader that went away");
}

fn limits(node: &VolumeNode) {
    let volume = memory("limits");
    let limits = [
        "ulimit -n 3;",
        "ulimit -n 4;",
        "ulimit -n 6;",
        "ulimit -n 10;",
        "ulimit -n 11;",
        "ulimit -n 12;",
        "ulimit -n 14;",
        "ulimit -f 0;",
        "ulimit -c unlimited;",
        "ulimit -s 64;",
        "ulimit -v 60000;",
        "umask 0777;",
        "umask 0;",
        "trap '' TERM INT HUP QUIT ALRM PIPE;",
        "cd /proc;",
        "unset PATH;",
    ];
    for limit in limits {
        folder(&volume);
        for call in [
            Call::of("tmpfs", &["init"]),
            Call::of("tmpfs", &["frob"]),
            Call::mount(&volume),
            Call::unmount(&volume),
        ] {
            let verb = call.verb();
            let answer = object(&format!("{limit} {verb}"), &call.after(limit).run());
            if verb == "init" {
                assert_eq!(answer["status"], "Success", "{limit}: {answer}");
            }
            if verb == "mount" && answer["status"] == "Failure" {
                assert!(mounts_at(&volume.path()).is_empty(), "{limit}: {answer}");
            }
        }
        Call::unmount(&volume).succeeds();
        assert!(mounts_at(&volume.path()).is_empty());
        fs::remove_dir_all(volume.pod().folder()).unwrap();
        node.assert_nothing_left(limit);
    }
}

/// stdout and stderr cannot be set aside: the answer comes where it is expected all the same.
fn no_null(node: &VolumeNode) {
    let volume = memory("null");
    folder(&volume);
    for call in [Call::of("tmpfs", &["init"]), Call::mount(&volume), Call::unmount(&volume)] {
        let covered = "mount --bind /dev/null /dev/null && mount -o remount,bind,nodev /dev/null;";
        let answer = call.clone().after(covered).run();
        nix::mount::umount("/dev/null").unwrap();
        let answer = object(&call.verb(), &answer);
        assert_eq!(answer["status"] == "Success", call.verb() == "init", "{answer}");
    }
    fs::remove_dir_all(volume.pod().folder()).unwrap();
    node.assert_nothing_left("a node without /dev/null");
}

/// A stage of a call at which nobody can be answered yet: the C library's start and the first steps of
/// `main`. A signal that comes there ends a process that has done nothing.
const START: usize = 30;

fn signals(node: &VolumeNode) {
    let volume = memory("signals");
    let (mount, unmount) = (Call::mount(&volume), Call::unmount(&volume));
    let all = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGALRM];
    for call in [&mount, &unmount, &Call::of("tmpfs", &["init"])] {
        for n in 0.. {
            // One of them at each step: their handler is the same.
            let signal = all[n % all.len()];
            folder(&volume);
            if call.verb() == "unmount" {
                mount.succeeds();
            }
            let (answer, came) = trace::signal_after(call, n, signal);
            let when = format!("{} {signal} after {n}", call.verb());
            if answer.signal.is_some() {
                assert!(n < START, "{when}: {answer:?}");
                assert_eq!(answer.stdout, "", "{when}");
            } else {
                let json = object(&when, &answer);
                let message = json["message"].as_str().unwrap_or_default();
                assert!(!message.contains(SECRET), "{when}: {message}");
                if call.verb() == "mount" {
                    let mounted = usize::from(json["status"] == "Success");
                    assert_eq!(mounts_at(&volume.path()).len(), mounted, "{when}: {json}");
                }
            }
            unmount.succeeds();
            fs::remove_dir_all(volume.pod().folder()).unwrap();
            let left = node.leftovers();
            assert!(left.is_empty(), "{when}: {left:?}");
            if !came {
                break;
            }
        }
    }
}

fn read_from_outside(node: &VolumeNode) {
    let volume = memory("outside");
    folder(&volume);
    let (mut after, mut hidden, mut dumpable) = (0, false, true);
    let answer = trace::watch(&Call::mount(&volume), |entry| {
        let read = |what: &str| fs::read(format!("/proc/{}/{what}", entry.pid)).unwrap_or_default();
        let told = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            text.contains(SECRET) || text.contains(SECRET_BASE64) || text.contains("kubernetes.io")
        };
        assert!(!told(&read("environ")), "the environment");
        hidden |= !told(&read("cmdline"));
        if hidden {
            after += 1;
            let line = read("cmdline");
            assert!(!told(&line), "the arguments are back");
            assert!(line.starts_with(program("tmpfs").as_os_str().as_encoded_bytes()), "who it is stays");
        }
        if entry.number == libc::SYS_prctl && entry.arguments[0] == 4 {
            dumpable = entry.arguments[1] != 0;
        }
        if entry.number == libc::SYS_openat && entry.text(1) != "/dev/null" {
            assert!(hidden && !dumpable, "before the first file: {}", entry.text(1));
            let limits = String::from_utf8(read("limits")).unwrap();
            let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
            assert!(core.split_whitespace().any(|w| w == "0"), "{core}");
        }
    });
    assert_eq!(object("mount", &answer)["status"], "Success");
    assert!(after > 40, "the secret is out of sight for {after} system calls only");
    for file in files("/run".as_ref()) {
        let content = fs::read(&file).unwrap_or_default();
        let text = String::from_utf8_lossy(&content).into_owned();
        assert!(!text.contains(SECRET) && !text.contains(SECRET_BASE64), "{}", file.display());
    }
    Call::unmount(&volume).succeeds();
    fs::remove_dir(volume.path()).unwrap();
    node.assert_nothing_left("after a look");
}

fn other_name(node: &VolumeNode) {
    let kubelet = node.kubelet();
    // Whole when it appears: the kubelet calls what it finds at once, and half a program answers nothing.
    let folder = std::path::Path::new(harness::kubelet::PLUGINS).join("acme.example~store");
    let staged = folder.with_file_name(".staged");
    fs::create_dir(&staged).unwrap();
    fs::copy(program("volume"), staged.join("store")).unwrap();
    fs::rename(&staged, &folder).unwrap();
    let seen = kubelet.look_up("acme.example/store").unwrap();
    assert!(!seen.attach && !seen.fs_group && seen.requires_fs_resize);
    let volume = kubelet.pod("default", "web").inline("acme.example/store", "data");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(why.contains("`backend` is missing"), "{why}");
    kubelet.set_up(&volume.clone().option("backend", "tmpfs")).mounted();
    kubelet.end(volume.pod());
    let tmpfs = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data").option("backend", "nfs");
    let why = kubelet.set_up(&tmpfs).refused().to_owned();
    assert!(why.contains("which has that one backend"), "{why}");
    node.assert_nothing_left("after another name");
}
