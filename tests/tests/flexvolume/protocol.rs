//! One JSON object on one line and exit code 0, whatever comes.

use std::fs;
use std::process::{Command, Stdio};

use harness::call::Launch;
use harness::kernel::trace;
use harness::kubelet::{Attacher, Kubelet, Volume};
use harness::suite::volume;
use harness::volume_look::{files, mounts_at};
use harness::volume_node::{OURS, VolumeNode};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::ours::{Call, SECRET, SECRET_BASE64, STATE, folder, memory, object, program};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("every_call_of_a_whole_kubelet_gets_its_answer", &[], calls_of_a_whole_kubelet),
        volume("each_name_has_its_capabilities", &[], capabilities),
        volume("the_calls_of_drivers_that_attach_are_agreed_with", &[], attaching_calls),
        volume("a_driver_taken_for_one_that_attaches_does_no_harm", &[], taken_for_attaching),
        volume("init_needs_nothing_of_the_node", &[], init_needs_nothing),
        volume("an_odd_call_gets_one_object", &[], odd_calls),
        volume("an_argument_of_127_kib_is_read_and_never_quoted", &[], long_arguments),
        volume("closed_descriptors_spoil_no_answer", &[], closed_descriptors),
        volume("a_reader_that_went_away_is_no_failure", &[], gone_reader),
        volume("limits_of_the_kubelet_spoil_no_answer", &[], limits),
        volume("a_node_without_dev_null_is_answered", &[], no_null),
        volume("a_signal_at_any_time_gets_one_object_and_leaves_nothing", &[], signals),
        volume("a_call_cannot_be_read_from_outside", &[], read_from_outside),
        volume("a_call_for_an_unknown_name_is_for_the_driver_of_all", &[], other_name),
    ]
}

/// The calls that a whole kubelet 1.36.2 and its controller manager were seen to make, by the capability
/// `attach`.
const SEEN: &[(&str, bool, &[&str])] = &[
    ("kubelet", false, &["init"]),
    ("kube-controller-manager", false, &["init"]),
    ("kubelet", true, &["init"]),
    ("kube-controller-manager", true, &["getvolumename", ATTACHED]),
    ("kube-controller-manager", true, &["attach", ATTACHED, "localhost"]),
    ("kubelet", true, &["getvolumename", ATTACHED]),
    ("kubelet", true, &["attach", ATTACHED, "localhost"]),
    ("kubelet", true, &["waitforattach", "/dev/refdisk0", ATTACHED]),
    ("kubelet", true, &["mountdevice", DEVICE_FOLDER, "/dev/refdisk0", ATTACHED]),
    (
        "kubelet",
        true,
        &[
            "mount",
            "/var/lib/kubelet/pods/2b1786e6-1e52-49e3-9067-e6a278619580/volumes/vendor~loggeratt/vol",
            r#"{"kubernetes.io/fsType":"ext4","kubernetes.io/pod.name":"loggeratt","kubernetes.io/pod.namespace":"default","kubernetes.io/pod.uid":"2b1786e6-1e52-49e3-9067-e6a278619580","kubernetes.io/pvOrVolumeName":"vol","kubernetes.io/readwrite":"ro","kubernetes.io/serviceAccount.name":"default","volumeID":"disk-7"}"#,
        ],
    ),
    ("kube-controller-manager", true, &["detach", "vol", "localhost"]),
    (
        "kubelet",
        true,
        &[
            "unmount",
            "/var/lib/kubelet/pods/2b1786e6-1e52-49e3-9067-e6a278619580/volumes/vendor~loggeratt/vol",
        ],
    ),
    ("kubelet", true, &["unmountdevice", DEVICE_FOLDER]),
    ("kubelet", true, &["detach", "vol", "localhost"]),
    (
        "kubelet",
        false,
        &[
            "mount",
            "/var/lib/kubelet/pods/d18e1b533c695e07976161b355b863fc/volumes/vendor~logger/v",
            r#"{"kubernetes.io/fsType":"","kubernetes.io/pod.name":"flexstatic-localhost","kubernetes.io/pod.namespace":"default","kubernetes.io/pod.uid":"d18e1b533c695e07976161b355b863fc","kubernetes.io/pvOrVolumeName":"v","kubernetes.io/readwrite":"rw","kubernetes.io/serviceAccount.name":"","opt1":"one"}"#,
        ],
    ),
    (
        "kubelet",
        false,
        &["unmount", "/var/lib/kubelet/pods/d18e1b533c695e07976161b355b863fc/volumes/vendor~logger/v"],
    ),
];
const ATTACHED: &str = r#"{"kubernetes.io/fsType":"ext4","kubernetes.io/pvOrVolumeName":"vol","kubernetes.io/readwrite":"ro","volumeID":"disk-7"}"#;
const DEVICE_FOLDER: &str = "/var/lib/kubelet/plugins/kubernetes.io/flexvolume/vendor/loggeratt/mounts/vol";

fn calls_of_a_whole_kubelet(node: &VolumeNode) {
    for name in OURS {
        for (caller, attach, arguments) in SEEN {
            if arguments[0] == "mount" {
                fs::create_dir_all(arguments[1]).unwrap();
            }
            let answer = Call::of(name, arguments).object();
            let told = format!("{caller} attach:{attach} {name} {}: {answer}", arguments[0]);
            if arguments[0] == "mount" {
                // The options are another driver's.
                let unknown = if *attach { "volumeID" } else { "opt1" };
                let message = answer["message"].as_str().unwrap();
                assert!(answer["status"] == "Failure", "{told}");
                assert!(name != "tmpfs" || message.contains(unknown), "{told}");
                fs::remove_dir(arguments[1]).unwrap();
            } else {
                assert_eq!(answer["status"], "Success", "{told}");
            }
        }
    }
    for pod in fs::read_dir("/var/lib/kubelet/pods").unwrap().flatten() {
        fs::remove_dir_all(pod.path()).unwrap();
    }
    let left: Vec<String> = files(STATE.as_ref()).iter().map(|f| f.display().to_string()).collect();
    assert!(left.is_empty(), "{left:?}");
    node.assert_nothing_left("after all calls");
}

fn capabilities(node: &VolumeNode) {
    // name, selinuxRelabel, supportsMetrics, requiresFSResize
    let table = [
        ("volume", false, false, true),
        ("tmpfs", true, true, false),
        ("bind", false, false, false),
        ("image", true, true, true),
        ("overlay", true, true, false),
        ("block", true, true, true),
        ("nfs", false, false, false),
        ("cifs", false, false, false),
        ("fuse", false, false, false),
    ];
    let kubelet = node.kubelet();
    for (name, relabel, metrics, resize) in table {
        let object = Call::of(name, &["init"]).succeeds();
        let expect = json!({
            "status": "Success",
            "capabilities": {
                "attach": false,
                "selinuxRelabel": relabel,
                "supportsMetrics": metrics,
                "fsGroup": false,
                "requiresFSResize": resize,
            },
        });
        assert_eq!(object, expect, "{name}");
        let seen = kubelet.look_up(&format!("nodeplug/{name}")).unwrap();
        assert!(!seen.attach && !seen.fs_group, "{name}");
        let seen = (seen.selinux_relabel, seen.supports_metrics, seen.requires_fs_resize);
        assert_eq!(seen, (relabel, metrics, resize), "{name}");
    }
    assert_eq!(kubelet.log(), Vec::<String>::new());
}

fn attaching_calls(_node: &VolumeNode) {
    let table = [
        (vec!["getvolumename", ATTACHED], json!({"status": "Success", "volumeName": "vol"})),
        (vec!["attach", ATTACHED, "node-1"], json!({"status": "Success"})),
        (vec!["isattached", ATTACHED, "node-1"], json!({"status": "Success", "attached": true})),
        (vec!["waitforattach", "/dev/x", ATTACHED], json!({"status": "Success", "device": "/dev/x"})),
        (vec!["waitforattach", "", ATTACHED], json!({"status": "Success", "device": ""})),
        (vec!["mountdevice", DEVICE_FOLDER, "/dev/x", ATTACHED], json!({"status": "Success"})),
        (vec!["unmountdevice", DEVICE_FOLDER], json!({"status": "Success"})),
        (vec!["detach", "vol", "node-1"], json!({"status": "Success"})),
        (
            vec!["expandvolume", ATTACHED, DEVICE_FOLDER, "2147483648", "1073741824"],
            json!({"status": "Success", "volumeNewSize": 2_147_483_648_u64}),
        ),
    ];
    for _ in 0..2 {
        for (arguments, expect) in &table {
            assert_eq!(Call::of("volume", arguments).object(), *expect, "{arguments:?}");
        }
    }
}

/// An administrator who wraps the driver, and says that it attaches.
fn taken_for_attaching(node: &VolumeNode) {
    let ours = program("tmpfs");
    let attaching = r#"echo '{"status":"Success","capabilities":{"attach":true,"fsGroup":false}}'"#;
    let script =
        format!("#!/bin/sh\ncase \"$1\" in init) {attaching} ;; *) exec {} \"$@\" ;; esac\n", ours.display());
    node.install_script("acme/tmpfs", &script);
    for attacher in [Attacher::Controller, Attacher::Both] {
        let kubelet: Kubelet = node.kubelet().attacher(attacher);
        let pods = ["one", "two"].map(|name| kubelet.pod("default", name));
        let volumes: Vec<Volume> = pods
            .iter()
            .map(|pod| pod.inline("acme/tmpfs", "data").option("size", "1Mi").secret("password", b"x"))
            .collect();
        for volume in &volumes {
            kubelet.set_up(volume).mounted();
            assert!(kubelet.is_attached(volume));
            assert_eq!(mounts_at(&volume.path()).len(), 1);
        }
        fs::write(volumes[0].path().join("mine"), "").unwrap();
        assert!(!volumes[1].path().join("mine").exists(), "each pod has a mount of its own");
        for volume in &volumes {
            kubelet.end(volume.pod());
        }
        let log = kubelet.log();
        assert!(log.is_empty(), "{log:?}");
    }
    fs::remove_dir_all("/var/lib/kubelet/plugins").unwrap();
    node.assert_nothing_left("after attaching");
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

/// What is no call, or no whole one. Whether it is an unknown word, a failure or a success.
fn odd_calls(node: &VolumeNode) {
    let path = "/var/lib/kubelet/pods/u/volumes/nodeplug~tmpfs/data";
    let deep = "[".repeat(50_000);
    let deeper = format!("{{\"a\":{}", "{\"a\":".repeat(20_000));
    let unknown: &[&[&[u8]]] = &[
        &[],
        &[b""],
        &[b"frobnicate"],
        &[b"Mount"],
        &[b"MOUNT", b"x"],
        &[b"mount "],
        &[b"\xff\xfe"],
        &[b"-x"],
        &[b"--"],
        &[b"\n{\"status\":\"Success\"}\n"],
        &[b"\"}{\""],
        &["ä\u{202e}".as_bytes()],
    ];
    for arguments in unknown {
        let answer = Call::bytes("volume", arguments).object();
        assert_eq!(answer["status"], "Not supported", "{arguments:?}");
    }
    let failing: &[&[&[u8]]] = &[
        &[b"mount"],
        &[b"mount", path.as_bytes()],
        &[b"mount", path.as_bytes(), b""],
        &[b"mount", path.as_bytes(), b"{"],
        &[b"mount", path.as_bytes(), b"{}"],
        &[b"mount", path.as_bytes(), b"null"],
        &[b"mount", path.as_bytes(), b"[]"],
        &[b"mount", path.as_bytes(), b"{}{}"],
        &[b"mount", path.as_bytes(), b"{\"a\":1}"],
        &[b"mount", path.as_bytes(), b"{\"a\":null}"],
        &[b"mount", path.as_bytes(), b"{\"a\":\"\xff\"}"],
        &[b"mount", path.as_bytes(), b"{\"a\":\"\\ud800\"}"],
        &[b"mount", path.as_bytes(), b"{\"\":\"\"}"],
        &[b"mount", path.as_bytes(), b"\x01\x02"],
        &[b"mount", path.as_bytes(), deep.as_bytes()],
        &[b"mount", path.as_bytes(), deeper.as_bytes()],
        &[b"mount", b"", b"{}"],
        &[b"mount", b"/", b"{}"],
        &[b"mount", b"\xff", b"{}"],
        &[b"unmount"],
        &[b"unmount", b""],
        &[b"unmount", b"/"],
        &[b"unmount", b"relative"],
        &[b"unmount", b"/var/lib/kubelet/pods/\xff/volumes/d/v"],
        &[b"unmount", b"/etc"],
        &[b"expandfs"],
        &[b"expandfs", b"{}", b"", path.as_bytes(), b"-1", b"0"],
        &[b"expandfs", b"{}", b"", path.as_bytes(), b"18446744073709551616", b"0"],
        &[b"expandvolume", b"{}", b"x", b"much", b"0"],
        &[b"getvolumename"],
        &[b"getvolumename", b"\"x\""],
        &[b"waitforattach"],
        &[b"waitforattach", b"\xff"],
    ];
    for arguments in failing {
        for name in ["volume", "tmpfs"] {
            let answer = Call::bytes(name, arguments).object();
            let shown: Vec<_> =
                arguments.iter().map(|a| String::from_utf8_lossy(&a[..a.len().min(60)])).collect();
            assert_eq!(answer["status"], "Failure", "{shown:?}: {answer}");
        }
    }
    node.assert_nothing_left("after odd calls");
}

fn long_arguments(node: &VolumeNode) {
    let volume = memory("long");
    folder(&volume);
    // What one argument may hold (MAX_ARG_STRLEN) with its end, and what the options have beside this.
    let whole = 128 * 1024 - 1;
    let room = whole - volume.mount_json().unwrap().len() - r#""junk":"","#.len();
    let junk = "j".repeat(room - 16);
    let message = Call::mount(&volume.clone().option("junk", &junk)).fails();
    assert!(message.len() < 1024 && message.contains("`junk`") && !message.contains("jjj"), "{message}");
    let message = Call::mount(&volume.clone().option(&junk, "v")).fails();
    assert!(message.len() < 1024, "{}", message.len());
    // A Secret of that size is no mistake.
    let bytes = "s".repeat(room / 4 * 3 - 64);
    let large = volume.clone().secret("large", bytes.as_bytes());
    assert!(large.mount_json().unwrap().len() > 127 * 1024);
    Call::mount(&large).succeeds();
    assert_eq!(fs::read_to_string(large.path().join("large")).unwrap(), bytes);
    Call::unmount(&large).succeeds();
    let word = "w".repeat(whole - 2);
    assert!(Call::of("tmpfs", &[word.as_str()]).object()["message"].as_str().unwrap().len() < 300);
    fs::remove_dir(volume.path()).unwrap();
    node.assert_nothing_left("after long arguments");
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
    let folder = std::path::Path::new(harness::kubelet::PLUGINS).join("acme.example~store");
    fs::create_dir(&folder).unwrap();
    fs::copy(program("volume"), folder.join("store")).unwrap();
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
