//! `kill -9` right after every change that a call makes: the next try makes the volume, or an unmount leaves
//! nothing, and an image is there whole or not at all.

use std::fs;
use std::path::Path;

use harness::kubelet::{Pod, Volume};
use harness::suite::volume;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{POLICY, lay_out};
use crate::media::{
    content, end, give_up, image, kill_after_each_change, make_image, mount_of, size, try_again,
};
use crate::ours::{Call, folder};

const TOOLS: &[&str] = &["mkfs.ext4", "mkfs.xfs", "mksquashfs", "debugfs", "resize2fs"];
const IMAGE: &str = "/srv/images/a.img";

pub fn trials() -> Vec<Trial> {
    vec![
        volume("a_kill_while_an_image_is_made_leaves_it_whole_or_not_at_all", TOOLS, made),
        volume("a_kill_while_an_image_is_repaired_and_grown_harms_nothing", TOOLS, grown),
        volume("a_kill_while_an_image_goes_with_its_pod_is_finished_later", TOOLS, deleted),
        volume("a_kill_while_an_image_is_shared_leaves_the_others_theirs", TOOLS, shared),
        volume("a_kill_while_memory_is_laid_over_an_image_leaves_nothing", TOOLS, overlaid),
        volume("a_kill_while_a_claim_grows_is_made_good_by_the_next_try", TOOLS, expanded),
    ]
}

fn new(delete: bool) -> Volume {
    let volume = Pod::new("default", "web").inline("nodeplug/image", "data").option("path", IMAGE);
    let volume = volume.option("create", "ifMissing").option("size", "16Mi").fs_group(1234);
    if delete { volume.option("retain", "delete") } else { volume }
}

/// The pool has the image at most, and that one is whole.
#[track_caller]
fn assert_pool(when: &str) {
    let names: Vec<_> = fs::read_dir("/srv/images").unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| n == "a.img"), "{when}: {names:?}");
    if Path::new(IMAGE).exists() {
        let checked = harness::call::try_tool(&["e2fsck", "-f", "-n", IMAGE]);
        assert!(checked.ok(), "{when}: {checked:?}");
        fs::remove_file(IMAGE).unwrap();
    }
}

fn made(node: &VolumeNode) {
    lay_out(node);
    for retry in [true, false] {
        let prepare = || {
            let volume = new(false);
            folder(&volume);
            (Call::mount(&volume), volume)
        };
        kill_after_each_change("an image is made", prepare, |volume, when| {
            if retry {
                try_again(volume, when);
                fs::write(volume.path().join("file"), "x").unwrap();
            }
            give_up(node, volume, when);
            assert_pool(when);
        });
    }
}

fn grown(node: &VolumeNode) {
    lay_out(node);
    for retry in [true, false] {
        let prepare = || {
            let first = new(false);
            folder(&first);
            Call::mount(&first).succeeds();
            fs::write(first.path().join("file"), "kept").unwrap();
            Call::unmount(&first).succeeds();
            fs::remove_dir_all(first.pod().folder()).unwrap();
            let volume = image("second", IMAGE).option("size", "32Mi");
            folder(&volume);
            (Call::mount(&volume), volume)
        };
        kill_after_each_change("an image grows", prepare, |volume, when| {
            if retry {
                try_again(volume, when);
                assert!(size(volume) > 20 << 20, "{when}: {}", size(volume));
                assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "kept", "{when}");
            }
            give_up(node, volume, when);
            assert!(Path::new(IMAGE).exists(), "{when}");
            // resize2fs itself was killed: its file system is repaired by the next mount.
            let last = image("last", IMAGE).option("size", "32Mi");
            folder(&last);
            Call::mount(&last).succeeds();
            assert_eq!(fs::read_to_string(last.path().join("file")).unwrap(), "kept", "{when}");
            give_up(node, &last, when);
            assert_pool(when);
        });
    }
}

fn deleted(node: &VolumeNode) {
    lay_out(node);
    for verb in ["mount", "unmount"] {
        let prepare = || {
            let volume = new(true);
            folder(&volume);
            if verb == "mount" {
                return (Call::mount(&volume), volume);
            }
            Call::mount(&volume).succeeds();
            (Call::unmount(&volume), volume)
        };
        kill_after_each_change(verb, prepare, |volume, when| {
            give_up(node, volume, when);
            assert!(!Path::new(IMAGE).exists(), "{when}: the image is still there");
            assert_pool(when);
        });
    }
}

fn shared(node: &VolumeNode) {
    lay_out(node);
    node.disk("64M");
    node.keep();
    let kubelet = node.kubelet();
    // The first pod mounts it, a second one copies the mount; erofs on a disk has no loop device.
    for (path, fs_type) in [("/srv/golden/a.img", "squashfs"), ("/srv/disk/images/a.img", "erofs")] {
        content("/srv/content");
        make_image(fs_type, path);
        for others in [false, true] {
            let other = image("other", path);
            if others {
                kubelet.set_up(&other).mounted();
                node.keep();
            }
            for verb in ["mount", "unmount"] {
                for retry in [true, false] {
                    let prepare = || {
                        let volume = image("web", path);
                        folder(&volume);
                        if verb == "mount" {
                            return (Call::mount(&volume), volume);
                        }
                        Call::mount(&volume).succeeds();
                        (Call::unmount(&volume), volume)
                    };
                    let name = format!("{fs_type}, others {others}");
                    kill_after_each_change(&name, prepare, |volume, when| {
                        if retry && verb == "mount" {
                            try_again(volume, when);
                        }
                        let answer = Call::unmount(volume).run();
                        assert!(answer.stdout.contains("Success"), "{when}: {answer:?}");
                        assert!(mounts_at(&volume.path()).is_empty(), "{when}");
                        fs::remove_dir_all(volume.pod().folder()).unwrap();
                        if others {
                            assert_eq!(mount_of(&other).kind, fs_type, "{when}");
                            fs::read_to_string(other.path().join("index.html")).unwrap();
                        } else {
                            node.assert_nothing_left(when);
                        }
                    });
                }
            }
            if others {
                end(&kubelet, &other);
                node.assert_nothing_left("all gone");
            }
        }
    }
}

fn expanded(node: &VolumeNode) {
    lay_out(node);
    let claim = || {
        let volume = Pod::new("default", "web").persistent("nodeplug/image", "pv-1").fs_type("xfs");
        volume.option("path", IMAGE).option("create", "ifMissing").option("size", "300Mi")
    };
    let grow = |volume: &Volume| {
        let path = volume.path().display().to_string();
        Call::of("volume", &["expandfs", &volume.json(), "", &path, "419430400", "0"])
    };
    let prepare = || {
        let volume = claim();
        folder(&volume);
        Call::mount(&volume).succeeds();
        (grow(&volume), volume)
    };
    kill_after_each_change("expandfs", prepare, |volume, when| {
        grow(volume).succeeds();
        assert!(size(volume) > 330 << 20, "{when}: {}", size(volume));
        give_up(node, volume, when);
        fs::remove_file(IMAGE).unwrap();
    });
}

fn overlaid(node: &VolumeNode) {
    lay_out(node);
    node.policy(&format!("{POLICY}  tmpfs: {{}}\n"));
    let path = "/srv/golden/a.img";
    make_image("squashfs", path);
    for retry in [true, false] {
        let prepare = || {
            let volume = image("web", path).option("overlay", "tmpfs").option("overlaySize", "1Mi");
            folder(&volume);
            (Call::mount(&volume), volume)
        };
        kill_after_each_change("memory over an image", prepare, |volume, when| {
            if retry {
                try_again(volume, when);
                fs::write(volume.path().join("index.html"), "mine").unwrap();
            }
            give_up(node, volume, when);
        });
    }
}
