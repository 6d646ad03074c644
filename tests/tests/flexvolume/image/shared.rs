//! Images that many pods read: hashed, mounted once, counted by the kernel.

use std::fs;

use harness::call::tool;
use harness::kubelet::Outcome;
use harness::suite::{volume, volume_shared};
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{POLICY, lay_out};
use crate::media::{device, end, has, image, make_image, mount_of};
use crate::ours::Call;

const TOOLS: &[&str] = &["mkfs.erofs", "mksquashfs", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "sha256sum"];
const ALL: [&str; 5] = ["erofs", "squashfs", "ext4", "xfs", "btrfs"];

pub fn trials() -> Vec<Trial> {
    vec![
        volume("an_image_that_many_pods_read_is_mounted_once", TOOLS, mounted_once),
        volume_shared("on_a_node_that_shares_an_image_is_mounted_once_too", TOOLS, mounted_once),
        volume("an_erofs_image_on_a_disk_needs_no_loop_device", TOOLS, without_loop_device),
        volume("a_changed_image_is_another_image", TOOLS, changed),
        volume("an_image_with_another_hash_is_refused", TOOLS, hashed),
        volume("pods_with_other_settings_get_a_mount_of_their_own", TOOLS, other_settings),
        volume("many_pods_at_once_share_one_mount", TOOLS, at_once),
        volume("a_journal_that_cannot_be_replayed_is_told", TOOLS, journal),
        volume("a_pod_writes_over_an_image_and_not_into_it", TOOLS, overlaid),
    ]
}

fn hash(path: &str) -> String {
    tool(&["sha256sum", path]).split(' ').next().unwrap().to_owned()
}

fn mounted_once(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    for fs_type in ALL {
        let path = format!("/srv/golden/{fs_type}.img");
        make_image(fs_type, &path);
        let before = fs::read(&path).unwrap();
        let sum = hash(&path);
        let volumes: Vec<_> =
            (0..3).map(|n| image(&format!("web-{n}"), &path).option("sha256", &sum)).collect();
        for volume in &volumes {
            kubelet.set_up(volume).mounted();
            let mount = mount_of(volume);
            assert_eq!(mount.kind, fs_type);
            assert!(["ro", "nosuid", "nodev"].iter().all(|o| has(&mount, o)), "{mount:?}");
            assert_eq!(device(&volume.path()), device(&volumes[0].path()), "a second file system");
        }
        assert_eq!(node.loops().len(), 1, "{:?}", node.loops());
        assert!(node.loops()[0].read_only && node.loops()[0].autoclear);
        let container = kubelet.container(&[&volumes[1]]);
        if fs_type != "xfs" {
            assert_eq!(container.says("cat /mnt/data/index.html"), "Hello from an image!\n");
        }
        assert!(!container.run("touch /mnt/data/x").ok());
        container.stop();
        // While it is read, nobody writes to it.
        let writer = "/srv/images/link.img";
        fs::rename(&path, writer).unwrap();
        if !["erofs", "squashfs"].contains(&fs_type) {
            let why = kubelet.set_up(&image("writer", writer)).refused().to_owned();
            assert!(why.contains("in use by /dev/loop"), "{why}");
        }
        fs::rename(writer, &path).unwrap();
        // The first one goes first, and the others still have it.
        for volume in &volumes {
            assert_eq!(mounts_at(&volume.path()).len(), 1);
            end(&kubelet, volume);
        }
        node.assert_nothing_left(fs_type);
        assert!(fs::read(&path).unwrap() == before, "the image of {fs_type} was changed");
    }
}

fn without_loop_device(node: &VolumeNode) {
    lay_out(node);
    node.disk("64M");
    node.keep();
    let kubelet = node.kubelet();
    let path = "/srv/disk/images/a.erofs";
    make_image("erofs", path);
    let before = node.loops().len();
    let volumes: Vec<_> = (0..2).map(|n| image(&format!("web-{n}"), path)).collect();
    for volume in &volumes {
        kubelet.set_up(volume).mounted();
        assert_eq!(fs::read_to_string(volume.path().join("index.html")).unwrap(), "Hello from an image!\n");
        assert_eq!(device(&volume.path()), device(&volumes[0].path()), "a second file system");
    }
    // CONFIG_EROFS_FS_BACKED_BY_FILE is off in some kernels.
    let plain = tool(&["sh", "-c", "zcat /proc/config.gz 2>/dev/null || true"]);
    if plain.contains("CONFIG_EROFS_FS_BACKED_BY_FILE=y") {
        assert_eq!(node.loops().len(), before, "{:?}", node.loops());
    }
    for volume in volumes.iter().rev() {
        end(&kubelet, volume);
    }
    node.assert_nothing_left("without a loop device");
}

fn changed(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let path = "/srv/golden/a.img";
    make_image("squashfs", path);
    let first = image("first", path);
    kubelet.set_up(&first).mounted();
    // Another image of the same name, as `cp` and `mv` put it there.
    fs::write("/srv/content/index.html", "Hello again!\n").unwrap();
    tool(&["mksquashfs", "/srv/content", "/srv/golden/new", "-quiet", "-no-progress"]);
    fs::rename("/srv/golden/new", path).unwrap();
    let second = image("second", path);
    kubelet.set_up(&second).mounted();
    let read = |v: &harness::kubelet::Volume| fs::read_to_string(v.path().join("index.html")).unwrap();
    assert_eq!((read(&first).as_str(), read(&second).as_str()), ("Hello from an image!\n", "Hello again!\n"));
    end(&kubelet, &first);
    end(&kubelet, &second);
    node.assert_nothing_left("changed");
}

fn hashed(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let path = "/srv/golden/a.img";
    make_image("squashfs", path);
    let sum = hash(path);
    let wrong = sum.replace(|c: char| c.is_ascii_digit(), "f");
    let volume = image("web", path).option("sha256", &wrong);
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(why.contains(&format!("it is {sum}")) && why.contains("put the right image there"), "{why}");
    let volume = image("web", path).option("sha256", "abc");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(why.contains("is not 64 hex digits"), "{why}");
    node.assert_nothing_left("refused");
    // One pod's trust in a mount is nothing to a pod that wants a hash.
    let trusting = image("trusting", path);
    kubelet.set_up(&trusting).mounted();
    let volume = image("web", path).option("sha256", &wrong);
    kubelet.set_up(&volume).refused();
    let volume = image("web", path).option("sha256", &sum.to_uppercase());
    kubelet.set_up(&volume).mounted();
    end(&kubelet, &volume);
    end(&kubelet, &trusting);
    node.assert_nothing_left("hashed");
}

fn other_settings(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    for fs_type in ALL {
        let path = format!("/srv/golden/{fs_type}.img");
        make_image(fs_type, &path);
        let first = image("first", &path).option("noexec", "true");
        let second = image("second", &path);
        kubelet.set_up(&first).mounted();
        kubelet.set_up(&second).mounted();
        assert!(has(&mount_of(&first), "noexec") && !has(&mount_of(&second), "noexec"), "{fs_type}");
        end(&kubelet, &first);
        end(&kubelet, &second);
        node.assert_nothing_left(fs_type);
    }
}

fn at_once(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let path = "/srv/golden/a.img";
    make_image("squashfs", path);
    let sum = hash(path);
    for _ in 0..3 {
        let volumes: Vec<_> =
            (0..12).map(|n| image(&format!("web-{n}"), path).option("sha256", &sum)).collect();
        let outcomes = kubelet.set_up_all(&volumes);
        assert!(outcomes.iter().all(|o| *o == Outcome::Mounted), "{outcomes:?}");
        assert_eq!(node.loops().len(), 1, "{:?}", node.loops());
        let outcomes = kubelet.tear_down_all(&volumes);
        assert!(outcomes.iter().all(|o| *o == Outcome::Unmounted), "{outcomes:?}");
        for volume in &volumes {
            kubelet.end(volume.pod());
        }
        node.assert_nothing_left("at once");
    }
}

fn journal(node: &VolumeNode) {
    lay_out(node);
    let path = "/srv/golden/a.img";
    make_image("ext4", path);
    // As after a power cut.
    tool(&["debugfs", "-w", "-R", "feature needs_recovery", path]);
    let volume = image("web", path);
    crate::ours::folder(&volume);
    let object = Call::mount(&volume).succeeds();
    let message = object["message"].as_str().unwrap_or_default();
    assert!(message.contains("its journal was not replayed"), "{object}");
    Call::unmount(&volume).succeeds();
    fs::remove_dir_all(volume.pod().folder()).unwrap();
    node.assert_nothing_left("with a journal");
}

fn overlaid(node: &VolumeNode) {
    node.policy(&format!("{POLICY}  tmpfs: {{}}\n"));
    fs::create_dir_all("/srv/golden").unwrap();
    let kubelet = node.kubelet();
    for fs_type in ["erofs", "squashfs", "ext4"] {
        let path = format!("/srv/golden/{fs_type}.img");
        make_image(fs_type, &path);
        let (before, sum) = (fs::read(&path).unwrap(), hash(&path));
        let plain = image("plain", &path).option("sha256", &sum);
        let over = |n: u32| {
            let volume = image(&format!("web-{n}"), &path).option("sha256", &sum).option("overlay", "tmpfs");
            volume.option("overlaySize", "4Mi").fs_group(1234)
        };
        // Before, beside and after one that reads it as it is.
        for others in [vec![], vec![&plain]] {
            for other in &others {
                kubelet.set_up(other).mounted();
            }
            let volumes: Vec<_> = (0..3).map(over).collect();
            for volume in &volumes {
                kubelet.set_up(volume).mounted();
                let mount = mount_of(volume);
                assert_eq!(mount.kind, "overlay");
                assert!(["rw", "nosuid", "nodev"].iter().all(|o| has(&mount, o)), "{mount:?}");
            }
            let most = if fs_type == "erofs" { 3 } else { 1 };
            assert!(node.loops().len() <= most, "{:?}", node.loops());
            let container = kubelet.container(&[&volumes[0]]);
            let line = "echo mine > /mnt/data/index.html && touch /mnt/data/new";
            let answer = container.run_as(0, &[1234], line);
            assert!(answer.ok(), "{answer:?}");
            assert_eq!(container.says("cat /mnt/data/index.html"), "mine\n");
            assert!(!container.run("dd if=/dev/zero of=/mnt/data/large bs=1M count=8").ok(), "it has no end");
            container.stop();
            for other in volumes[1..].iter().chain(others.iter().copied()) {
                let seen = fs::read_to_string(other.path().join("index.html")).unwrap();
                assert_eq!(seen, "Hello from an image!\n", "{fs_type}");
            }
            for volume in volumes.iter().chain(others.iter().copied()) {
                end(&kubelet, volume);
            }
            node.assert_nothing_left(fs_type);
        }
        assert!(fs::read(&path).unwrap() == before, "the image of {fs_type} was changed");
    }
}
