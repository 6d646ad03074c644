//! The node's policy: believed only when nobody but root could have written it, and in nobody's way when a
//! pod ends.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use harness::call::tool;
use harness::kubelet::{Kubelet, Outcome, Volume};
use harness::suite::volume;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::ours::{Call, folder, memory};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("without_a_policy_memory_is_capped_and_the_node_is_closed", &[], missing),
        volume("a_policy_that_others_could_have_written_is_refused_with_the_command", &[], owners),
        volume("a_policy_that_is_no_plain_file_is_refused_at_once", &["mkfifo"], no_file),
        volume("a_policy_with_a_mistake_names_it_and_allows_nothing", &[], mistakes),
        volume("a_policy_that_is_a_bomb_does_not_go_off", &[], bombs),
        volume("an_empty_policy_is_the_default", &[], empty),
        volume("no_broken_policy_keeps_a_pod_from_ending", &[], ending),
        volume("a_root_that_the_policy_no_longer_names_is_unmounted", &[], other_root),
        volume("the_calls_that_mount_nothing_read_no_policy", &[], other_calls),
        volume("a_policy_counts_from_the_next_mount_on", &[], next_mount),
    ]
}

const FILE: &str = "/etc/nodeplug/flexvolume.yaml";

fn data(kubelet: &Kubelet) -> Volume {
    kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data").option("size", "64Ki")
}

/// The mount is refused, and the reason has all of these words.
#[track_caller]
fn refused(kubelet: &Kubelet, words: &[&str], when: &str) {
    let volume = data(kubelet);
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(words.iter().all(|word| why.contains(word)), "{when}: {words:?}: {why}");
    assert!(!volume.path().exists(), "{when}");
    kubelet.end(volume.pod());
}

#[track_caller]
fn allowed(kubelet: &Kubelet, when: &str) {
    let volume = data(kubelet);
    assert_eq!(kubelet.set_up(&volume), Outcome::Mounted, "{when}");
    kubelet.end(volume.pod());
}

fn missing(node: &VolumeNode) {
    let kubelet = node.kubelet();
    allowed(&kubelet, "no folder");
    fs::create_dir("/etc/nodeplug").unwrap();
    allowed(&kubelet, "an empty folder");
    for backend in ["bind", "image", "overlay", "block", "fuse"] {
        let pod = kubelet.pod("default", "web");
        let volume = pod.inline(&format!("nodeplug/{backend}"), "data");
        let volume =
            volume.option("source", "/srv/x").option("path", "/srv/x/y.img").option("fsType", "ext4");
        let volume = volume.option("device", "/dev/sda").option("profile", "sshfs").option("lower", "/srv/x");
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains("is off on this node") || why.contains("is not an option"), "{backend}: {why}");
        kubelet.end(&pod);
    }
    node.assert_nothing_left("without a policy");
}

fn owners(node: &VolumeNode) {
    let kubelet = node.kubelet();
    node.policy("timeout: 20s\n");
    allowed(&kubelet, "root's");
    let mode = |path: &str, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let folder = "/etc/nodeplug";
    for (path, usual) in [(FILE, 0o644), (folder, 0o755)] {
        for bad in [0o020, 0o002, 0o022] {
            mode(path, usual | bad);
            refused(&kubelet, &["trust the node's policy", &format!("chmod go-w {path}")], path);
        }
        mode(path, usual);
        allowed(&kubelet, path);
        chown(path, Some(1000), Some(0)).unwrap();
        refused(&kubelet, &["belongs to the user 1000", &format!("chown root:root {path}")], path);
        tool(&["chown", "root:root", path]);
        // A group that may only read is nobody's business.
        chown(path, Some(0), Some(1000)).unwrap();
        allowed(&kubelet, path);
        chown(path, Some(0), Some(0)).unwrap();
    }
    mode(FILE, 0o600);
    mode(folder, 0o700);
    allowed(&kubelet, "root's alone");
    node.assert_nothing_left("after owners");
}

fn no_file(node: &VolumeNode) {
    let kubelet = node.kubelet();
    fs::create_dir("/etc/nodeplug").unwrap();
    symlink("/srv/policy.yaml", FILE).unwrap();
    refused(&kubelet, &["symlink is not followed"], "a symlink to nothing");
    fs::write("/srv/policy.yaml", "").unwrap();
    refused(&kubelet, &["symlink is not followed"], "a symlink");
    fs::remove_file(FILE).unwrap();
    fs::create_dir(FILE).unwrap();
    refused(&kubelet, &["not a plain file"], "a folder");
    fs::remove_dir(FILE).unwrap();
    // Nobody writes to it: opening it must not wait.
    tool(&["mkfifo", FILE]);
    refused(&kubelet, &["not a plain file"], "a fifo");
    fs::remove_file(FILE).unwrap();
    symlink("/dev/zero", FILE).unwrap();
    refused(&kubelet, &["symlink"], "a device");
    fs::remove_file(FILE).unwrap();
    fs::remove_dir("/etc/nodeplug").unwrap();
    fs::create_dir("/srv/nodeplug").unwrap();
    symlink("/srv/nodeplug", "/etc/nodeplug").unwrap();
    refused(&kubelet, &["symlink is not followed"], "a symlinked folder");
    fs::remove_file("/etc/nodeplug").unwrap();
    fs::write("/etc/nodeplug", "").unwrap();
    refused(&kubelet, &["/etc/nodeplug"], "a file in the folder's place");
    node.assert_nothing_left("after no files");
}

/// What is in the file, and what is said of it.
const MISTAKES: &[(&str, &[&str])] = &[
    ("timout: 5s\n", &["line 1", "`timout`", "did you mean `timeout`?"]),
    ("backends: {tmpfs: {maxsize: 1Mi}}\n", &["`maxsize`", "did you mean `maxSize`?"]),
    ("backends: {tempfs: {}}\n", &["`tempfs`", "did you mean `tmpfs`?"]),
    ("backends: {floppy: {}}\n", &["`floppy`", "known are"]),
    ("frobnicate: true\n", &["`frobnicate`", "known are"]),
    ("namespaces: default\n", &["line 1"]),
    ("namespaces: [Default]\n", &["`Default`"]),
    ("timeout: soon\n", &["soon"]),
    ("timeout: 0s\n", &["line 1"]),
    ("timeout: 200s\n", &["longer than 100s"]),
    ("timeout: -1\n", &["-1"]),
    ("busy: maybe\n", &["`maybe`"]),
    ("busyWait: 100s\n", &["busyWait"]),
    ("kubeletRoot: var/lib/kubelet\n", &["kubeletRoot", "not absolute"]),
    ("kubeletRoot: /\n", &["kubeletRoot"]),
    ("backends: {tmpfs: {maxSize: 1Mi, defaultSize: 2Mi}}\n", &["less than `defaultSize`"]),
    ("backends: {tmpfs: {maxSize: -1}}\n", &["-1"]),
    ("backends: {tmpfs: {maxInodes: 0}}\n", &["maxInodes"]),
    ("backends: {bind: {roots: []}}\n", &["backends.bind.roots"]),
    ("backends: {bind: {roots: [{path: /srv/a, owner: x}]}}\n", &["`owner`"]),
    ("backends: {bind: {roots: [{namespaces: [x]}]}}\n", &["path"]),
    ("backends: {bind: {roots: [{path: /srv/a, readOnly: true, create: true}]}}\n", &["readOnly", "create"]),
    ("allowSuid: yes\n", &["line 1"]),
    ("timeout: 5s\ntimeout: 6s\n", &["line 2"]),
    ("- a\n- b\n", &["line 1"]),
    ("just words\n", &["line 1"]),
    ("timeout: [\n", &["line"]),
    ("timeout: \"5s\n", &["line"]),
    ("timeout: 20s\n---\ntimeout: 30s\n", &["policy"]),
    ("timeout: !!binary aGk=\n", &["policy"]),
    ("timeout: *nothing\n", &["policy"]),
    ("{\"timeout\": 20s, \"a\"}", &["policy"]),
];

fn mistakes(node: &VolumeNode) {
    let kubelet = node.kubelet();
    for (text, words) in MISTAKES {
        node.policy(text);
        let mut all = vec!["the node's policy", "validate"];
        all.extend_from_slice(words);
        refused(&kubelet, &all, text);
        let answer = Call::of("volume", &["validate"]).run();
        assert!(
            answer.exit == Some(1) && words.iter().all(|word| answer.stderr.contains(word)),
            "{text}: {answer:?}"
        );
    }
    for bytes in [&b"\xff\xfe"[..], b"timeout: 20s\0\n"] {
        fs::write(FILE, bytes).unwrap();
        refused(&kubelet, &["flexvolume.yaml"][usize::from(bytes[0] == b't')..], "bytes");
    }
    node.assert_nothing_left("after mistakes");
}

fn bombs(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let line = |n: u32| {
        let list = if n == 0 { "x, ".repeat(10) } else { format!("*a{}, ", n - 1).repeat(10) };
        format!("a{n}: &a{n} [{list}]\n")
    };
    let laughs: String = (0..9).map(line).collect();
    let nested = format!("backends: {}{}\n", "{tmpfs: ".repeat(5000), "}".repeat(5000));
    let lists = format!("namespaces: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let large = format!("# {}\n", "x".repeat(1 << 20));
    let many = format!("namespaces: [{}]\n", "a, ".repeat(200_000));
    let stars = format!("namespaces: [\"{}b\"]\n", "*a".repeat(200));
    for (name, text) in
        [("laughs", &laughs), ("nested", &nested), ("lists", &lists), ("large", &large), ("many", &many)]
    {
        node.policy(text);
        refused(&kubelet, &[if name == "large" { "/etc/nodeplug/flexvolume.yaml" } else { "policy" }], name);
    }
    // A pattern that some matchers take for ever over.
    node.policy(&stars);
    let pod = kubelet.pod(&"a".repeat(63), "web");
    kubelet.set_up(&pod.inline("nodeplug/tmpfs", "data")).refused();
    node.assert_nothing_left("after bombs");
}

fn empty(node: &VolumeNode) {
    let kubelet = node.kubelet();
    for text in [
        "",
        "\n",
        "# nothing\n",
        "---\n",
        "{}\n",
        "\u{feff}timeout: 20s\n",
        "timeout: 20s\r\nbusyWait: 1s\r\n",
    ] {
        node.policy(text);
        allowed(&kubelet, text);
        let answer = Call::of("volume", &["validate"]).run();
        assert!(answer.ok(), "{text:?}: {answer:?}");
    }
    // Without the key there are defaults; with it, exactly what it names.
    node.policy("backends: {}\n");
    refused(&kubelet, &["is off on this node"], "no backends");
    node.assert_nothing_left("after empty ones");
}

fn ending(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let breaks: [(&str, fn()); 8] = [
        ("removed", || fs::remove_file(FILE).unwrap()),
        ("broken", || fs::write(FILE, "][").unwrap()),
        ("another's", || chown(FILE, Some(1), Some(1)).unwrap()),
        ("everybody's", || fs::set_permissions(FILE, fs::Permissions::from_mode(0o666)).unwrap()),
        ("a folder", || {
            fs::remove_file(FILE).unwrap();
            fs::create_dir(FILE).unwrap();
        }),
        ("a fifo", || {
            fs::remove_dir(FILE).unwrap();
            tool(&["mkfifo", FILE]);
        }),
        ("closed to the driver's own namespace", || {
            fs::remove_file(FILE).unwrap();
            fs::write(FILE, "namespaces: [nobody]\n").unwrap();
        }),
        ("without the backend", || fs::write(FILE, "backends: {nfs: {}}\n").unwrap()),
    ];
    for (name, broken) in breaks {
        if Path::new(FILE).is_dir() || !Path::new(FILE).exists() || name == "a fifo" {
            drop(fs::remove_dir(FILE));
        }
        drop(fs::remove_file(FILE));
        node.policy("backends: {tmpfs: {}, bind: {roots: [{path: /srv/shared}]}}\n");
        fs::create_dir_all("/srv/shared").unwrap();
        let volumes = [
            data(&kubelet),
            kubelet.pod("default", "web").inline("nodeplug/bind", "data").option("source", "/srv/shared"),
        ];
        for volume in &volumes {
            kubelet.set_up(volume).mounted();
        }
        match name {
            "a fifo" => {
                fs::remove_file(FILE).unwrap();
                tool(&["mkfifo", FILE]);
            }
            _ => broken(),
        }
        for volume in &volumes {
            assert_eq!(kubelet.tear_down(volume), Outcome::Unmounted, "{name}");
            kubelet.end(volume.pod());
        }
        node.assert_nothing_left(name);
    }
}

/// The kubelet's root was another one when the volume was mounted.
fn other_root(node: &VolumeNode) {
    node.policy("kubeletRoot: /srv/kubelet\n");
    let volume = memory("web");
    let path = Path::new("/srv/kubelet").join(volume.path().strip_prefix("/var/lib/kubelet").unwrap());
    fs::create_dir_all(&path).unwrap();
    let path = path.to_str().unwrap();
    Call::of("tmpfs", &["mount", path, &volume.mount_json().unwrap()]).succeeds();
    fs::remove_file(FILE).unwrap();
    let list = Call::of("volume", &["list"]).run();
    assert!(list.ok() && list.stdout.contains("fine"), "{list:?}");
    Call::of("tmpfs", &["unmount", path]).succeeds();
    assert!(mounts_at(Path::new(path)).is_empty());
    // One that was never ours is none of ours.
    tool(&["mount", "-t", "tmpfs", "theirs", path]);
    Call::of("tmpfs", &["unmount", path]).fails();
    assert_eq!(mounts_at(Path::new(path)).len(), 1);
    tool(&["umount", path]);
    node.assert_nothing_left("with another root");
}

fn other_calls(node: &VolumeNode) {
    node.policy("][");
    for arguments in [
        vec!["init"],
        vec!["getvolumename", "{}"],
        vec!["attach", "{}", "node"],
        vec!["isattached", "{}", "node"],
        vec!["detach", "data", "node"],
        vec!["waitforattach", "", "{}"],
        vec!["mountdevice", "/x", "", "{}"],
        vec!["unmountdevice", "/x"],
        vec!["expandvolume", "{}", "/x", "2", "1"],
    ] {
        Call::of("volume", &arguments).succeeds();
    }
    node.assert_nothing_left("after other calls");
}

fn next_mount(node: &VolumeNode) {
    let kubelet = node.kubelet();
    node.policy("namespaces: [default]\n");
    let volume = data(&kubelet);
    kubelet.set_up(&volume).mounted();
    node.policy("namespaces: [other]\n");
    let why = Call::mount(&volume).fails();
    assert!(why.contains("`default`"), "{why}");
    assert_eq!(mounts_at(&volume.path()).len(), 1, "what is mounted stays");
    assert_eq!(kubelet.restart().set_up, [(volume.path(), Outcome::AlreadyMounted)]);
    kubelet.end(volume.pod());
    let late = memory("late");
    folder(&late);
    Call::mount(&late).fails();
    fs::remove_dir_all(late.pod().folder()).unwrap();
    node.assert_nothing_left("after another policy");
}
