//! Secrets as files.

use std::fs;
use std::os::unix::fs::MetadataExt;

use harness::kubelet::Volume;
use harness::suite::volume;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{data, end};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("secrets_become_files_as_asked", &[], populate),
        volume("secrets_of_any_bytes_arrive_whole", &[], bytes),
        volume("secrets_larger_than_the_volume_are_refused", &[], too_large),
    ]
}

fn populate(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let with = || data(&kubelet).secret("a", b"1").secret("b", b"22").secret(".c-d_e", b"");
    let names = |volume: &Volume| {
        let mut names: Vec<String> = fs::read_dir(volume.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.join(" ")
    };
    for (wish, expect) in [
        (None, ".c-d_e a b"),
        (Some("true"), ".c-d_e a b"),
        (Some("false"), ""),
        (Some("a"), "a"),
        (Some("b, a"), "a b"),
        (Some(""), ".c-d_e a b"),
    ] {
        let volume = wish.map_or(with(), |wish| with().option("populate", wish));
        kubelet.set_up(&volume).mounted();
        assert_eq!(names(&volume), expect, "{wish:?}");
        end(node, &kubelet, &volume);
    }
    for (wish, word) in
        [("none", "`none`"), ("a,,b", "empty"), ("a,x", "`x`"), ("../a", "`../a`"), ("a:path", "`a:path`")]
    {
        let why = kubelet.set_up(&with().option("populate", wish)).refused().to_owned();
        assert!(why.contains(word), "{wish}: {why}");
    }
    for (volume, mode, uid, gid) in [
        (with(), 0o400, 0, 0),
        (with().fs_group(1234), 0o440, 0, 1234),
        (with().option("fileMode", "0444"), 0o444, 0, 0),
        (with().option("uid", "1000").option("gid", "2000").option("fileMode", "0600"), 0o600, 1000, 2000),
    ] {
        kubelet.set_up(&volume).mounted();
        let seen = fs::symlink_metadata(volume.path().join("b")).unwrap();
        assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid(), seen.len()), (mode, uid, gid, 2));
        end(node, &kubelet, &volume);
    }
    kubelet.assert_not_told(b"22222");
}

fn bytes(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let all: Vec<u8> = (0..=255).collect();
    let long = all.repeat(200);
    let values: [(&str, &[u8]); 7] = [
        ("all", &all),
        ("long", &long),
        ("empty", b""),
        ("zero", b"\0"),
        ("line", b"trailing newline\n"),
        ("quotes", b"\"'`$(reboot)\\"),
        ("json", br#"{"status":"Success"}"#),
    ];
    let volume = values.iter().fold(data(&kubelet), |volume, (key, value)| volume.secret(key, value));
    kubelet.set_up(&volume).mounted();
    for (key, value) in values {
        assert!(fs::read(volume.path().join(key)).unwrap() == value, "{key}");
    }
    end(node, &kubelet, &volume);
}

fn too_large(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let large = data(&kubelet).option("size", "4Ki").secret("large", &[b'x'; 5000]);
    let why = kubelet.set_up(&large).refused().to_owned();
    assert!(why.contains("write the secret `large`") && why.contains("No space left on device"), "{why}");
    assert!(why.contains("size"), "what to do: {why}");
    let many = (0..5).fold(data(&kubelet).option("inodes", "3"), |v, n| v.secret(&format!("k{n}"), b"v"));
    let why = kubelet.set_up(&many).refused().to_owned();
    assert!(why.contains("No space left on device"), "{why}");
    assert!(!large.path().exists() && !many.path().exists());
    kubelet.end(large.pod());
    kubelet.end(many.pod());
    node.assert_nothing_left("after secrets that are too large");
}
