//! What is no call, or none that can be read.

use std::fs;

use harness::suite::volume;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::ours::{Call, folder, memory};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("an_odd_call_gets_one_object", &[], odd_calls),
        volume("an_argument_of_127_kib_is_read_and_never_quoted", &[], long_arguments),
    ]
}

/// A volume's folder.
const PATH: &[u8] = b"/var/lib/kubelet/pods/u/volumes/nodeplug~tmpfs/data";

/// What is no call.
const UNKNOWN: &[&[&[u8]]] = &[
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
    &[b"\xc3\xa4\xe2\x80\xae"],
];

/// What is no whole one.
const BROKEN: &[&[&[u8]]] = &[
    &[b"mount"],
    &[b"mount", PATH],
    &[b"mount", PATH, b""],
    &[b"mount", PATH, b"{"],
    &[b"mount", PATH, b"{}"],
    &[b"mount", PATH, b"null"],
    &[b"mount", PATH, b"[]"],
    &[b"mount", PATH, b"{}{}"],
    &[b"mount", PATH, b"{\"a\":1}"],
    &[b"mount", PATH, b"{\"a\":null}"],
    &[b"mount", PATH, b"{\"a\":\"\xff\"}"],
    &[b"mount", PATH, b"{\"a\":\"\\ud800\"}"],
    &[b"mount", PATH, b"{\"\":\"\"}"],
    &[b"mount", PATH, b"\x01\x02"],
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
    &[b"expandfs", b"{}", b"", PATH, b"-1", b"0"],
    &[b"expandfs", b"{}", b"", PATH, b"18446744073709551616", b"0"],
    &[b"expandvolume", b"{}", b"x", b"much", b"0"],
    &[b"getvolumename"],
    &[b"getvolumename", b"\"x\""],
    &[b"waitforattach"],
    &[b"waitforattach", b"\xff"],
];

fn odd_calls(node: &VolumeNode) {
    let deep = "[".repeat(50_000);
    let deeper = format!("{{\"a\":{}", "{\"a\":".repeat(20_000));
    for arguments in UNKNOWN {
        let answer = Call::bytes("volume", arguments).object();
        assert_eq!(answer["status"], "Not supported", "{arguments:?}");
    }
    let nested = [[&b"mount"[..], PATH, deep.as_bytes()], [b"mount", PATH, deeper.as_bytes()]];
    for arguments in BROKEN.iter().copied().chain(nested.iter().map(|n| &n[..])) {
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
