//! Block devices: never written over, had by one pod alone or read by many. Loop devices of the test stand
//! for disks, and links of its own for those of udev.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};

use harness::call::tool;
use harness::kubelet::{Outcome, Pod, Volume};
use harness::suite::volume;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::media::{WRITABLE, device, end, give_up, has, kill_after_each_change, mount_of, size, try_again};
use crate::ours::{Call, folder};

const TOOLS: &[&str] = &["mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "e2fsck", "resize2fs"];
const MIB: u64 = 1 << 20;
/// Links to disks, as udev makes them.
const LINKS: &str = "/dev/shm/by-id";

pub fn trials() -> Vec<Trial> {
    vec![
        volume("an_empty_device_is_formatted_once_and_kept", TOOLS, formatted_once),
        volume("a_device_with_anything_on_it_is_never_formatted", TOOLS, never_over_data),
        volume("a_device_is_what_the_policy_lists_and_free", TOOLS, listed_and_free),
        volume("a_device_belongs_to_one_pod_that_writes_or_many_that_read", TOOLS, one_or_many),
        volume("a_device_that_is_larger_now_gets_a_larger_file_system", TOOLS, grown),
        volume("a_kill_while_a_device_is_formatted_harms_no_data", TOOLS, killed),
        volume("a_device_that_is_half_formatted_is_finished", TOOLS, half_formatted),
    ]
}

const POLICY: &str = "
backends:
  block: {devices: [/dev/shm/by-id/data-*], format: true}
";

/// A disk of this size, under the name `data-NAME`.
struct Disk {
    file: String,
    node: String,
    link: String,
}

impl Disk {
    fn new(node: &VolumeNode, name: &str, mebibytes: u64) -> Self {
        node.policy(POLICY);
        if !std::path::Path::new(LINKS).exists() {
            tool(&["mount", "-t", "tmpfs", "none", "/dev/shm"]);
            fs::create_dir(LINKS).unwrap();
        }
        let file = format!("/srv/{name}.disk");
        tool(&["truncate", "-s", &format!("{mebibytes}M"), &file]);
        let device = tool(&["losetup", "--find", "--show", &file]).trim().to_owned();
        let link = format!("{LINKS}/data-{name}");
        symlink(&device, &link).unwrap();
        node.keep();
        Self { file, node: device, link }
    }

    fn volume(&self, pod: &str) -> Volume {
        Pod::new("default", pod).inline("nodeplug/block", "data").option("device", &self.link)
    }

    fn new_volume(&self, pod: &str) -> Volume {
        self.volume(pod).option("format", "ifEmpty")
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        fs::OpenOptions::new().write(true).open(&self.node).unwrap().write_all_at(bytes, offset).unwrap();
        tool(&["blockdev", "--flushbufs", &self.node]);
    }

    fn clear(&self) {
        tool(&["dd", "if=/dev/zero", &format!("of={}", self.node), "bs=1M", "count=16", "status=none"]);
        tool(&["fallocate", "--punch-hole", "--offset", "0", "--length", "2G", &self.file]);
        tool(&["blockdev", "--flushbufs", &self.node]);
    }

    fn resize(&self, mebibytes: u64) {
        tool(&["truncate", "-s", &format!("{mebibytes}M"), &self.file]);
        tool(&["losetup", "--set-capacity", &self.node]);
    }

    fn sum(&self) -> String {
        tool(&["sha256sum", &self.node])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(harness::call::try_tool(&["losetup", "--detach", &self.node]));
    }
}

fn formatted_once(node: &VolumeNode) {
    let kubelet = node.kubelet();
    for (fs_type, _) in WRITABLE {
        let disk = Disk::new(node, fs_type, 320);
        let why = kubelet.set_up(&disk.volume("first")).refused().to_owned();
        assert!(why.contains("there is nothing on it") && why.contains("format: ifEmpty"), "{why}");
        for pod in ["second", "third"] {
            let volume = disk.new_volume(pod).fs_type(fs_type).fs_group(1234).option("discard", "true");
            kubelet.set_up(&volume).mounted();
            let mount = mount_of(&volume);
            assert_eq!((mount.kind.as_str(), mount.source.as_str()), (fs_type, disk.node.as_str()));
            assert!(["rw", "nosuid", "nodev"].iter().all(|o| has(&mount, o)), "{mount:?}");
            let line =
                if pod == "second" { "echo kept > /mnt/data/file" } else { "grep kept /mnt/data/file" };
            let answer = kubelet.container(&[&volume]).run_as(1000, &[1234], line);
            assert!(answer.ok(), "{fs_type} {pod}: {answer:?}");
            end(&kubelet, &volume);
            node.assert_nothing_left(fs_type);
        }
        let why = kubelet.set_up(&disk.volume("fourth").fs_type("erofs")).refused().to_owned();
        assert!(why.contains(&format!("`fsType` is erofs and there is {fs_type} on it")), "{why}");
    }
}

fn never_over_data(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let disk = Disk::new(node, "a", 136);
    let marks: [(u64, &[u8], &str); 8] = [
        (0, b"x", "data on it that is no file system"),
        (3 * MIB, b"x", "data on it that is no file system"),
        (136 * MIB - 1, b"x", "data on it that is no file system"),
        (512, b"EFI PART", "a GPT partition table"),
        (0, b"LUKS\xba\xbe", "LUKS encryption"),
        (0x218, b"LVM2 001", "an LVM physical volume"),
        // A copy of ext4's superblock, and somewhere in the middle.
        (128 * MIB + 0x38, b"\x53\xef", "there is data at byte 134217728"),
        (68 * MIB, b"x", "there is data at byte 71303168"),
    ];
    for (offset, bytes, expect) in marks {
        disk.clear();
        disk.write(offset, bytes);
        let before = disk.sum();
        for fs_type in ["ext4", "xfs"] {
            let volume = disk.new_volume("web").fs_type(fs_type);
            let why = kubelet.set_up(&volume).refused().to_owned();
            assert!(why.contains(expect), "{expect}: {why}");
            kubelet.end(volume.pod());
        }
        assert!(disk.sum() == before, "{expect}: it was written");
        node.assert_nothing_left(expect);
    }
    disk.clear();
    tool(&["mkfs.btrfs", "-q", &disk.node]);
    let before = disk.sum();
    let why = kubelet.set_up(&disk.new_volume("web").fs_type("ext4")).refused().to_owned();
    assert!(why.contains("`fsType` is ext4 and there is btrfs on it") && disk.sum() == before, "{why}");
    node.policy(&POLICY.replace("true", "false"));
    disk.clear();
    let why = kubelet.set_up(&disk.new_volume("web")).refused().to_owned();
    assert!(why.contains("format an empty device") && why.contains("block: {format: true}"), "{why}");
    node.assert_nothing_left("never formatted");
}

fn listed_and_free(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let disk = Disk::new(node, "a", 32);
    tool(&["mkfs.ext4", "-q", &disk.node]);
    let named =
        |name: &str| Pod::new("default", "web").inline("nodeplug/block", "data").option("device", name);
    symlink("/srv/a.disk", format!("{LINKS}/data-file")).unwrap();
    symlink("/dev/null", format!("{LINKS}/data-null")).unwrap();
    symlink("../../null", format!("{LINKS}/data-relative")).unwrap();
    for (name, expect) in [
        (disk.node.as_str(), "the node's policy does not list it"),
        ("/dev/shm/by-id/other", "the node's policy does not list it"),
        ("/dev/shm/by-id/data-a/../../../vda", "has the component `..`"),
        ("/srv/a.disk", "it does not lie in /dev"),
        ("/dev/shm/by-id/data-none", "No such file or directory"),
        ("/dev/shm/by-id/data-file", "which is not in /dev"),
        ("/dev/shm/by-id/data-null", "it is no block device"),
        ("/dev/shm/by-id/data-relative", "it is no block device"),
    ] {
        let volume = named(name);
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains(expect), "{name}: {why}");
        kubelet.end(volume.pod());
    }
    // Mounted by somebody else, here or out of sight.
    fs::create_dir_all("/srv/elsewhere").unwrap();
    tool(&["mount", &disk.node, "/srv/elsewhere"]);
    let why = kubelet.set_up(&disk.volume("web")).refused().to_owned();
    assert!(why.contains("it is mounted at /srv/elsewhere"), "{why}");
    let why = kubelet.set_up(&disk.volume("web").read_only()).refused().to_owned();
    assert!(why.contains("it is mounted at /srv/elsewhere"), "{why}");
    tool(&["umount", "/srv/elsewhere"]);
    let hidden = harness::kubelet::Container::start(&[]);
    tool(&[
        "nsenter",
        "--target",
        &hidden.pid().to_string(),
        "--mount",
        "mount",
        &disk.node,
        "/srv/elsewhere",
    ]);
    let why = kubelet.set_up(&disk.volume("web")).refused().to_owned();
    assert!(why.contains("something else on the node has it"), "{why}");
    hidden.stop();
    // A disk with a part that is somebody's.
    tool(&["losetup", "--detach", &disk.node]);
    let device = tool(&["losetup", "--find", "--show", "--read-only", &disk.file]).trim().to_owned();
    fs::remove_file(&disk.link).unwrap();
    symlink(&device, &disk.link).unwrap();
    node.keep();
    let volume = disk.volume("web");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(why.contains("the device is read-only") && why.contains("readOnly: true"), "{why}");
    let volume = volume.read_only();
    kubelet.set_up(&volume).mounted();
    end(&kubelet, &volume);
    tool(&["losetup", "--detach", &device]);
    node.assert_nothing_left("free");
}

fn one_or_many(node: &VolumeNode) {
    let kubelet = node.kubelet();
    for (fs_type, _) in WRITABLE {
        let disk = Disk::new(node, fs_type, 320);
        let writer = disk.new_volume("writer").fs_type(fs_type);
        kubelet.set_up(&writer).mounted();
        fs::write(writer.path().join("file"), "kept").unwrap();
        for other in [disk.volume("other"), disk.volume("other").read_only()] {
            let why = kubelet.set_up(&other).refused().to_owned();
            assert!(why.contains(&writer.path().display().to_string()), "{why}");
            kubelet.end(other.pod());
        }
        end(&kubelet, &writer);

        let readers: Vec<_> = (0..3).map(|n| disk.volume(&format!("reader-{n}")).read_only()).collect();
        let outcomes = kubelet.set_up_all(&readers);
        assert!(outcomes.iter().all(|o| *o == Outcome::Mounted), "{fs_type}: {outcomes:?}");
        for reader in &readers {
            let mount = mount_of(reader);
            assert!(has(&mount, "ro") && mount.super_options.iter().any(|o| o == "ro"), "{mount:?}");
            assert_eq!(device(&reader.path()), device(&readers[0].path()), "a second file system");
        }
        let why = kubelet.set_up(&disk.volume("writer")).refused().to_owned();
        assert!(why.contains("one pod at a time can write to a device"), "{why}");
        let other = disk.volume("other").read_only().option("mountOptions", "errors=remount-ro");
        if fs_type == "ext4" {
            // The same words as our own: the same settings.
            kubelet.set_up(&other).mounted();
            end(&kubelet, &other);
        } else {
            kubelet.set_up(&other).refused();
        }
        for reader in &readers {
            assert_eq!(fs::read_to_string(reader.path().join("file")).unwrap(), "kept");
            end(&kubelet, reader);
        }
        node.assert_nothing_left(fs_type);
    }
}

fn grown(node: &VolumeNode) {
    let kubelet = node.kubelet();
    for (fs_type, _) in WRITABLE {
        let disk = Disk::new(node, fs_type, 320);
        let claim = |pod: &str| {
            let volume = kubelet.pod("default", pod).persistent("nodeplug/block", "pv-1").fs_type(fs_type);
            volume.option("device", &disk.link).option("format", "ifEmpty")
        };
        let first = claim("first");
        kubelet.set_up(&first).mounted();
        let before = size(&first);
        let why = kubelet.expand(&first, 400 * MIB, 320 * MIB).refused().to_owned();
        assert!(why.contains("has 320Mi, not 400Mi") && why.contains("grow the device first"), "{why}");
        disk.resize(400);
        assert_eq!(kubelet.expand(&first, 400 * MIB, 320 * MIB), Outcome::Expanded);
        assert!(fs_type == "ext4" || size(&first) > before + 50 * MIB, "{fs_type}: {}", size(&first));
        end(&kubelet, &first);
        disk.resize(500);
        let second = claim("second");
        kubelet.set_up(&second).mounted();
        assert!(size(&second) > before + 100 * MIB, "{fs_type}: {}", size(&second));
        end(&kubelet, &second);
        node.assert_nothing_left(fs_type);
    }
}

fn killed(node: &VolumeNode) {
    let disk = Disk::new(node, "a", 32);
    for retry in [true, false] {
        let prepare = || {
            disk.clear();
            let volume = disk.new_volume("web").fs_group(1234);
            folder(&volume);
            (Call::mount(&volume), volume)
        };
        kill_after_each_change("a device is formatted", prepare, |volume, when| {
            if retry {
                try_again(volume, when);
            }
            give_up(node, volume, when);
        });
    }
    // Of one that has data, nothing is lost.
    disk.clear();
    let first = disk.new_volume("first");
    folder(&first);
    Call::mount(&first).succeeds();
    fs::write(first.path().join("file"), "kept").unwrap();
    give_up(node, &first, "prepared");
    let prepare = || {
        let volume = disk.new_volume("web");
        folder(&volume);
        (Call::mount(&volume), volume)
    };
    kill_after_each_change("a device is mounted", prepare, |volume, when| {
        try_again(volume, when);
        assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "kept", "{when}");
        give_up(node, volume, when);
    });
}

/// mkfs writes here and there, and the driver is killed meanwhile; or mkfs fails.
fn half_formatted(node: &VolumeNode) {
    let disk = Disk::new(node, "a", 32);
    let real = fs::canonicalize("/usr/sbin/mkfs.ext4").unwrap().display().to_string();
    for (last, dies) in [("kill -9 $PPID; exec sleep 1000", true), ("exit 1", false)] {
        for retry in [true, false] {
            disk.clear();
            let junk = format!("echo junk | dd of={} bs=1M conv=notrunc status=none seek", disk.node);
            node.write_program("/srv/mkfs".as_ref(), &format!("#!/bin/sh\n{junk}=0\n{junk}=7\n{last}\n"));
            tool(&["mount", "--bind", "/srv/mkfs", &real]);
            let volume = disk.new_volume("web");
            folder(&volume);
            let answer = Call::mount(&volume).run();
            assert_eq!(answer.signal.is_some(), dies, "{last}: {answer:?}");
            tool(&["umount", &real]);
            let when = format!("{last}, retry {retry}");
            if retry {
                try_again(&volume, &when);
            }
            give_up(node, &volume, &when);
            // It can be used, by whoever comes next.
            let next = disk.new_volume("next");
            folder(&next);
            Call::mount(&next).succeeds();
            fs::write(next.path().join("file"), "kept").unwrap();
            give_up(node, &next, &when);
        }
    }
    // Somebody's own file system, made meanwhile, is left alone.
    disk.clear();
    node.write_program(
        "/srv/mkfs".as_ref(),
        &format!("#!/bin/sh\nmkfs.xfs -f -q {} || kill -9 $PPID; exit 1\n", disk.node),
    );
    tool(&["mount", "--bind", "/srv/mkfs", &real]);
    let volume = disk.new_volume("web").fs_type("ext4");
    folder(&volume);
    drop(Call::mount(&volume).run());
    tool(&["umount", &real]);
    tool(&["mkfs.btrfs", "-q", "-f", "--mixed", &disk.node]);
    let before = disk.sum();
    Call::mount(&volume).fails();
    give_up(node, &volume, "another file system");
    assert_eq!(disk.sum(), before);
}
