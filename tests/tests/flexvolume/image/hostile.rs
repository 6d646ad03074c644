//! Paths and files with which somebody means harm, or made a mistake.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use harness::call::tool;
use harness::kubelet::Outcome;
use harness::suite::volume;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use super::lay_out;
use crate::media::{end, image, make_image};

const TOOLS: &[&str] = &["mkfs.ext4", "mkfs.xfs", "mksquashfs"];

pub fn trials() -> Vec<Trial> {
    vec![
        volume("without_a_policy_no_image_is_mounted", TOOLS, no_policy),
        volume("an_image_lies_below_its_root_and_is_a_plain_file", TOOLS, plain_files_alone),
        volume("what_is_no_file_system_is_left_alone", TOOLS, no_file_system),
        volume("a_path_that_is_exchanged_meanwhile_leads_nowhere_else", TOOLS, exchanged),
        volume("a_helper_that_hangs_or_fails_leaves_nothing", TOOLS, helpers),
        volume("an_image_for_which_there_is_no_room_is_not_made", TOOLS, no_room),
    ]
}

fn no_policy(node: &VolumeNode) {
    fs::create_dir_all("/srv/images").unwrap();
    make_image("ext4", "/srv/images/a.img");
    let kubelet = node.kubelet();
    let volume = image("web", "/srv/images/a.img");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(why.contains("/etc/nodeplug/flexvolume.yaml") && why.contains("image:"), "{why}");
    node.policy("backends: {image: {roots: [{path: /srv/images, namespaces: [team-*]}]}}");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(why.contains("is not for the namespace `default`"), "{why}");
    node.policy("backends: {image: {roots: [{path: /srv/images, readOnly: true}], fsTypes: [squashfs]}}");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(why.contains("mount ext4 from an image: the node's policy allows squashfs"), "{why}");
    node.assert_nothing_left("without a policy");
}

fn plain_files_alone(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    make_image("ext4", "/srv/outside/a.img");
    fs::create_dir_all("/srv/images/folder").unwrap();
    symlink("/srv/outside/a.img", "/srv/images/link.img").unwrap();
    symlink("/srv/outside", "/srv/images/way").unwrap();
    mknodat(CWD, "/srv/images/fifo", FileType::Fifo, Mode::RWXU, 0).unwrap();
    let disk = rustix::fs::makedev(7, 0);
    mknodat(CWD, "/srv/images/device", FileType::BlockDevice, Mode::RWXU, disk).unwrap();
    let before = fs::read("/srv/outside/a.img").unwrap();
    for (path, expect) in [
        ("/srv/outside/a.img", "lists no root that contains it"),
        ("/srv/images/../outside/a.img", "has the component `..`"),
        ("/srv/images//a.img", "has an empty component"),
        ("/etc/shadow", "which no policy allows"),
        ("/proc/kcore", "which no policy allows"),
        ("/srv/images/link.img", "a symlink or `..` stands in the way"),
        ("/srv/images/way/a.img", "a symlink or `..` stands in the way"),
        ("/srv/images/folder", "it must be a regular file"),
        ("/srv/images/fifo", "it must be a regular file"),
        ("/srv/images/device", "it must be a regular file"),
        ("/srv/images/none/a.img", "No such file or directory"),
        ("/srv/images/none.img", "it is not there"),
        ("relative", "does not start with `/`"),
    ] {
        for create in [false, true] {
            let mut volume = image("web", path);
            if create && path != "/srv/images/none.img" {
                volume = volume.option("create", "ifMissing").option("size", "16Mi");
            }
            let why = kubelet.set_up(&volume).refused().to_owned();
            assert!(why.contains(expect), "{path}: {why}");
            kubelet.end(volume.pod());
        }
    }
    assert!(fs::read("/srv/outside/a.img").unwrap() == before);
    assert_eq!(fs::read_dir("/srv/images").unwrap().count(), 5);
    node.assert_nothing_left("refused");
}

fn no_file_system(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let path = "/srv/images/a.img";
    let refused = |expect: &str| {
        let before = fs::read(path).unwrap();
        for volume in [
            image("web", path),
            image("web", path).option("create", "ifMissing").option("size", "32Mi"),
            image("web", path).option("access", "ro"),
        ] {
            let why = kubelet.set_up(&volume).refused().to_owned();
            assert!(why.contains(expect), "{expect}: {why}");
            kubelet.end(volume.pod());
        }
        assert!(fs::read(path).unwrap() == before, "{expect}: it was written");
        node.assert_nothing_left(expect);
    };
    fs::write(path, "").unwrap();
    refused("there is no file system in it");
    fs::write(path, vec![0; 16 << 20]).unwrap();
    refused("there is no file system in it");
    fs::write(path, "a pod's diary").unwrap();
    refused("there is data on it that is no file system");
    fs::write(path, vec![0; 1 << 20]).unwrap();
    tool(&["mkswap", path]);
    refused("there is swap on it");
    fs::write(path, [b"LUKS\xba\xbe".as_slice(), &[0; 8192]].concat()).unwrap();
    refused("there is LUKS encryption on it");
    make_image("ext4", path);
    tool(&["truncate", "-s", "9M", path]);
    refused("it was cut off");
    fs::remove_file(path).unwrap();
    make_image("xfs", path);
    let why = kubelet.set_up(&image("web", path).fs_type("ext4")).refused().to_owned();
    assert!(why.contains("`fsType` is ext4 and there is xfs on it"), "{why}");
    node.assert_nothing_left("another file system");
}

/// Somebody who can write to the pool exchanges a folder, and a file, for symlinks while mounts are made.
fn exchanged(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    make_image("squashfs", "/srv/images/sub/a.img");
    // On another file system, so that the exchange itself cannot move it.
    fs::write("/srv/content/index.html", "stolen").unwrap();
    fs::create_dir_all("/opt/outside").unwrap();
    tool(&["mksquashfs", "/srv/content", "/opt/outside/a.img", "-quiet", "-no-progress"]);
    symlink("/opt/outside", "/srv/images/other").unwrap();
    symlink("/opt/outside/a.img", "/srv/images/sub/other").unwrap();
    let stop = AtomicBool::new(false);
    let mut seen = [0, 0];
    thread::scope(|scope| {
        for (a, b) in
            [("/srv/images/sub", "/srv/images/other"), ("/srv/images/sub/a.img", "/srv/images/sub/other")]
        {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
                }
            });
        }
        for _ in 0..60 {
            let volume = image("web", "/srv/images/sub/a.img");
            let outcome = kubelet.set_up(&volume);
            if outcome == Outcome::Mounted {
                let found = fs::read_to_string(volume.path().join("index.html")).unwrap();
                if found != "Hello from an image!\n" {
                    stop.store(true, Ordering::Relaxed);
                    panic!("a symlink was followed: {found}");
                }
                seen[0] += 1;
                end(&kubelet, &volume);
            } else {
                outcome.refused();
                seen[1] += 1;
                kubelet.end(volume.pod());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
    node.assert_nothing_left("exchanged");
}

/// Programs in the place of the distribution's.
fn helpers(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let real = fs::canonicalize("/usr/sbin/mkfs.ext4").unwrap();
    let mkfs = Path::new("/srv/mkfs");
    let new = || {
        let volume = image("web", "/srv/images/a.img").option("create", "ifMissing").option("size", "16Mi");
        volume.option("timeout", "4s")
    };
    for (script, expect) in [
        ("echo no such luck >&2; exit 1", "run `mkfs.ext4`: no such luck"),
        ("kill -9 $$", "signal: 9"),
        ("sleep 1000 & sleep 1000", "no answer in time"),
    ] {
        node.write_program(mkfs, &format!("#!/bin/sh\n{script}\n"));
        tool(&["mount", "--bind", mkfs.to_str().unwrap(), real.to_str().unwrap()]);
        let volume = new();
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains(expect), "{script}: {why}");
        tool(&["umount", real.to_str().unwrap()]);
        kubelet.end(volume.pod());
        assert_eq!(fs::read_dir("/srv/images").unwrap().count(), 0, "{script}");
        // Those that the program started in the background were killed with it.
        node.assert_nothing_left(script);
    }
    let volume = new();
    kubelet.set_up(&volume).mounted();
    end(&kubelet, &volume);
    node.assert_nothing_left("with the real one");
}

fn no_room(node: &VolumeNode) {
    lay_out(node);
    node.disk("64M");
    fs::create_dir_all("/srv/disk/images").unwrap();
    node.keep();
    let kubelet = node.kubelet();
    let new = |path: &str| image("web", path).option("create", "ifMissing").option("size", "512Mi");
    let volume = new("/srv/disk/images/a.img").option("allocate", "full");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(
        why.contains("No space left on device") && why.contains("make room where the image lies"),
        "{why}"
    );
    assert_eq!(fs::read_dir("/srv/disk/images").unwrap().count(), 0);
    kubelet.end(volume.pod());
    node.assert_nothing_left("no room");
}
