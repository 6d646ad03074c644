//! Images: made, written, grown, checked, and had by one pod alone.

mod crashes;
mod hostile;
mod shared;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use harness::call::tool;
use harness::suite::volume;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::media::{WRITABLE, end, has, image, mount_of, size};
use crate::ours::{Call, folder};

const TOOLS: &[&str] = &["mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "e2fsck", "resize2fs", "debugfs"];
const MIB: u64 = 1 << 20;

pub fn trials() -> Vec<Trial> {
    let own = vec![
        volume("an_image_is_made_and_found_again_by_the_next_pod", TOOLS, made_and_found_again),
        volume("an_image_has_its_space_and_its_own_options", TOOLS, options),
        volume("a_read_only_image_takes_no_write_anywhere", TOOLS, read_only),
        volume("an_image_belongs_to_one_pod_whatever_it_is_called", TOOLS, one_pod_alone),
        volume("of_many_pods_that_want_one_image_one_gets_it", TOOLS, race),
        volume("an_image_grows_at_its_next_mount_and_never_shrinks", TOOLS, grows_at_the_next_mount),
        volume("a_claim_grows_while_it_is_mounted", TOOLS, grows_while_mounted),
        volume("an_image_goes_with_its_pod_where_the_pod_says_so", TOOLS, goes_with_its_pod),
        volume("an_ext4_with_errors_is_repaired_or_refused", TOOLS, repaired),
        volume("a_volume_is_given_to_its_group_once", TOOLS, given_once),
    ];
    own.into_iter().chain(shared::trials()).chain(hostile::trials()).chain(crashes::trials()).collect()
}

const POLICY: &str = "
backends:
  image:
    roots:
      - {path: /srv/images, create: true}
      - {path: /srv/disk/images, create: true}
      - {path: /srv/golden, readOnly: true}
    maxSize: 1Gi
";

fn lay_out(node: &VolumeNode) {
    node.policy(POLICY);
    for path in ["/srv/images", "/srv/golden"] {
        fs::create_dir_all(path).unwrap();
    }
}

fn made_and_found_again(node: &VolumeNode) {
    lay_out(node);
    node.disk("512M");
    fs::create_dir_all("/srv/disk/images").unwrap();
    node.keep();
    let kubelet = node.kubelet();
    for pool in ["/srv/images", "/srv/disk/images"] {
        for (fs_type, least) in WRITABLE {
            let first = kubelet.pod("default", "web-0").inline("nodeplug/image", "data").fs_group(1234);
            let first = first.option("pool", pool).option("name", "${pod.namespace}.${pod.name}.img");
            let first = first.option("create", "ifMissing").option("size", least).fs_type(fs_type);
            kubelet.set_up(&first).mounted();
            let mount = mount_of(&first);
            assert_eq!(mount.kind, fs_type);
            assert!(["nosuid", "nodev", "rw"].iter().all(|o| has(&mount, o)), "{mount:?}");
            let loops = node.loops();
            let ours: Vec<_> = loops.iter().filter(|l| l.name == mount.source).collect();
            assert!(ours.len() == 1 && ours[0].autoclear && !ours[0].read_only, "{loops:?}");
            let container = kubelet.container(&[&first]);
            let answer =
                container.run_as(1000, &[1234], "echo kept > /mnt/data/file && stat -c %g /mnt/data/file");
            assert_eq!((answer.exit, answer.stdout.trim()), (Some(0), "1234"), "{fs_type}: {answer:?}");
            container.stop();
            end(&kubelet, &first);
            node.assert_nothing_left(fs_type);
            let file = format!("{pool}/default.web-0.img");
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
            assert_eq!(fs::read_dir(pool).unwrap().count(), 1, "a leftover beside the image");

            let second = image("web-1", &file);
            kubelet.set_up(&second).mounted();
            assert_eq!(kubelet.container(&[&second]).says("cat /mnt/data/file"), "kept\n");
            end(&kubelet, &second);
            node.assert_nothing_left(fs_type);
            fs::remove_file(&file).unwrap();
        }
    }
}

fn options(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let volume = image("web", "/srv/images/a.img").option("create", "ifMissing").option("size", "32Mi");
    let volume = volume.option("allocate", "full").option("mkfsOptions", "-N 2048 -O ^has_journal");
    let volume = volume.option("mountOptions", "noatime,init_itable=20").option("discard", "true");
    let volume = volume.option("mode", "0751").option("uid", "7").option("gid", "8").option("noexec", "true");
    kubelet.set_up(&volume).mounted();
    let mount = mount_of(&volume);
    assert!(["noatime", "noexec"].iter().all(|o| has(&mount, o)), "{mount:?}");
    for option in ["init_itable=20", "discard", "errors=remount-ro"] {
        assert!(mount.super_options.iter().any(|o| o == option), "{option}: {mount:?}");
    }
    let root = fs::metadata(volume.path()).unwrap();
    assert_eq!((root.uid(), root.gid(), root.mode() & 0o7777), (7, 8, 0o751));
    let file = fs::metadata("/srv/images/a.img").unwrap();
    assert_eq!(file.len(), 32 * MIB);
    assert!(file.blocks() * 512 >= 32 * MIB, "it has {} blocks", file.blocks());
    assert!(rustix::fs::statvfs(volume.path()).unwrap().f_files <= 2048);
    let (total, free) = kubelet.metrics(&volume).expect("an image's driver tells its size");
    assert!(total <= 32 * MIB && free > 16 * MIB, "{total} {free}");
    end(&kubelet, &volume);
    node.assert_nothing_left("with options");
}

fn read_only(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    for (fs_type, least) in WRITABLE {
        let path = format!("/srv/images/{fs_type}.img");
        let new =
            |pod| image(pod, &path).fs_type(fs_type).option("create", "ifMissing").option("size", least);
        let volume = new("first").read_only();
        kubelet.set_up(&volume).mounted();
        let mount = mount_of(&volume);
        assert!(has(&mount, "ro") && mount.super_options.iter().any(|o| o == "ro"), "{mount:?}");
        assert!(node.loops().iter().all(|l| l.read_only), "{:?}", node.loops());
        let container = kubelet.container(&[&volume]);
        assert!(!container.run("touch /mnt/data/x").ok());
        assert!(!container.run("mount -o remount,rw /mnt/data && touch /mnt/data/x").ok());
        container.stop();
        end(&kubelet, &volume);
        node.assert_nothing_left(fs_type);

        let writer = new("second");
        kubelet.set_up(&writer).mounted();
        fs::write(writer.path().join("x"), "x").unwrap();
        end(&kubelet, &writer);
        // By the option, alone.
        let reader = image("third", &path).option("readOnly", "true").option("access", "rw");
        kubelet.set_up(&reader).mounted();
        assert_eq!(fs::read_to_string(reader.path().join("x")).unwrap(), "x");
        assert!(fs::write(reader.path().join("x"), "y").is_err());
        let why = kubelet.set_up(&image("fourth", &path).option("access", "rw")).refused().to_owned();
        assert!(why.contains("it is in use by /dev/loop"), "{why}");
        end(&kubelet, &reader);
        node.assert_nothing_left(fs_type);
    }
}

fn one_pod_alone(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let path = "/srv/images/a.img";
    let first = image("first", path).option("create", "ifMissing").option("size", "16Mi");
    kubelet.set_up(&first).mounted();
    fs::hard_link(path, "/srv/images/b.img").unwrap();
    let at = first.path().display().to_string();
    for (name, other) in [
        ("the same", image("second", path)),
        ("a hard link", image("second", "/srv/images/b.img")),
        ("to read it", image("second", path).option("access", "ro")),
    ] {
        let why = kubelet.set_up(&other).refused().to_owned();
        assert!(why.contains("it is in use by /dev/loop") && why.contains(&at), "{name}: {why}");
    }
    end(&kubelet, &first);
    // Somebody else's loop device is somebody else's use.
    let device = tool(&["losetup", "--find", "--show", path]);
    let second = image("second", "/srv/images/b.img");
    let why = kubelet.set_up(&second).refused().to_owned();
    assert!(why.contains(device.trim()), "{why}");
    tool(&["losetup", "-d", device.trim()]);
    kubelet.set_up(&second).mounted();
    end(&kubelet, &second);
    node.assert_nothing_left("alone");
}

fn race(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let path = "/srv/images/a.img";
    for round in 0..4 {
        let link = format!("/srv/images/link-{round}");
        let mut volumes: Vec<_> = (0..4).map(|n| image(&format!("web-{n}"), path)).collect();
        if round == 0 {
            let new = |v: harness::kubelet::Volume| v.option("create", "ifMissing").option("size", "16Mi");
            volumes = volumes.into_iter().map(new).collect();
        } else {
            // Under two names at once.
            fs::hard_link(path, &link).unwrap();
            volumes.extend((4..8).map(|n| image(&format!("web-{n}"), &link)));
        }
        let outcomes = kubelet.set_up_all(&volumes);
        let mounted: Vec<_> = outcomes.iter().filter(|o| **o == harness::kubelet::Outcome::Mounted).collect();
        // Two that ask at the very same moment may both be turned away.
        assert!(mounted.len() == 1 || (round > 0 && mounted.is_empty()), "round {round}: {outcomes:?}");
        assert!(node.loops().len() <= 1, "{:?}", node.loops());
        for (volume, outcome) in volumes.iter().zip(&outcomes) {
            if *outcome == harness::kubelet::Outcome::Mounted {
                end(&kubelet, volume);
            } else {
                outcome.refused();
                kubelet.end(volume.pod());
            }
        }
        node.assert_nothing_left("after the race");
    }
}

fn grows_at_the_next_mount(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    for (fs_type, least) in WRITABLE {
        let path = format!("/srv/images/{fs_type}.img");
        let new = |pod, size: &str| image(pod, &path).fs_type(fs_type).option("size", size);
        let first = new("first", least).option("create", "ifMissing");
        kubelet.set_up(&first).mounted();
        let before = size(&first);
        fs::write(first.path().join("file"), "kept").unwrap();
        end(&kubelet, &first);
        let second = new("second", "400Mi");
        kubelet.set_up(&second).mounted();
        assert!(size(&second) > before + 50 * MIB, "{fs_type}: {} after {before}", size(&second));
        assert_eq!(fs::read_to_string(second.path().join("file")).unwrap(), "kept");
        let grown = size(&second);
        end(&kubelet, &second);
        for smaller in [new("third", "20Mi"), image("third", &path)] {
            kubelet.set_up(&smaller).mounted();
            assert_eq!((size(&smaller), fs::metadata(&path).unwrap().len()), (grown, 400 * MIB));
            end(&kubelet, &smaller);
        }
        let why = kubelet.set_up(&new("fourth", "2Gi")).refused().to_owned();
        assert!(why.contains("at most 1Gi") && why.contains("maxSize: 2Gi"), "{why}");
        assert_eq!(fs::metadata(&path).unwrap().len(), 400 * MIB);
        node.assert_nothing_left(fs_type);
    }
}

fn grows_while_mounted(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    for (fs_type, least) in WRITABLE {
        let path = format!("/srv/images/{fs_type}.img");
        let claim = || {
            let volume = kubelet.pod("default", "web").persistent("nodeplug/image", "pv-1").fs_type(fs_type);
            volume.option("path", &path).option("create", "ifMissing").option("size", least)
        };
        let volume = claim();
        kubelet.set_up(&volume).mounted();
        let before = size(&volume);
        let expanded = harness::kubelet::Outcome::Expanded;
        let new = 400 * MIB;
        assert_eq!(kubelet.expand(&volume, new, before), expanded);
        assert_eq!(fs::metadata(&path).unwrap().len(), new);
        let object = expand(&volume, new);
        let message = object["message"].as_str().unwrap_or_default().to_owned();
        if size(&volume) == before {
            assert_eq!(fs_type, "ext4", "it does not grow while it is mounted: {message}");
            assert!(
                message.contains("CAP_SYS_RESOURCE") && message.contains("at the next mount"),
                "{message}"
            );
        } else {
            assert!(size(&volume) > before + 50 * MIB, "{fs_type}: {} after {before}", size(&volume));
            assert_eq!(message, "");
        }
        // Less is never taken away, and more than is allowed is not given.
        assert_eq!(kubelet.expand(&volume, 20 * MIB, new), expanded);
        let why = kubelet.expand(&volume, 2 << 30, new).refused().to_owned();
        assert!(why.contains("at most 1Gi"), "{why}");
        assert_eq!(fs::metadata(&path).unwrap().len(), new);
        fs::write(volume.path().join("file"), vec![1; 1 << 20]).unwrap();
        end(&kubelet, &volume);
        let again = claim();
        kubelet.set_up(&again).mounted();
        assert!(size(&again) > before + 50 * MIB, "{fs_type}: {} after {before}", size(&again));
        assert_eq!(fs::metadata(again.path().join("file")).unwrap().len(), MIB);
        end(&kubelet, &again);
        node.assert_nothing_left(fs_type);
    }
    not_grown(node);
}

/// What is not mounted, or has nothing to grow.
fn not_grown(node: &VolumeNode) {
    node.policy("backends: {tmpfs: {}, image: {roots: [{path: /srv/images, create: true}], maxSize: 1Gi}}");
    let pod = harness::kubelet::Pod::new("default", "web");
    let memory = pod.persistent("nodeplug/volume", "pv-2").option("backend", "tmpfs");
    folder(&memory);
    Call::mount(&memory).succeeds();
    let object = expand(&memory, MIB);
    assert_eq!(object["message"], "a volume of the backend `tmpfs` has nothing to grow");
    Call::unmount(&memory).succeeds();
    let path = memory.path().display().to_string();
    let why = Call::of("volume", &["expandfs", "{}", "", &path, "1", "0"]).fails();
    assert!(why.contains("it is not mounted"), "{why}");
    fs::remove_dir_all(memory.pod().folder()).unwrap();
    let other = image("reader", "/srv/images/ext4.img").option("access", "ro");
    folder(&other);
    Call::mount(&other).succeeds();
    assert_eq!(expand(&other, 1 << 29)["message"], "the volume is read-only, so it stays as it is");
    Call::unmount(&other).succeeds();
    fs::remove_dir_all(other.pod().folder()).unwrap();
    node.assert_nothing_left("what did not grow");
}

fn expand(volume: &harness::kubelet::Volume, new: u64) -> serde_json::Value {
    let (path, new) = (volume.path().display().to_string(), new.to_string());
    Call::of("volume", &["expandfs", &volume.json(), "", &path, &new, "0"]).succeeds()
}

fn goes_with_its_pod(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let path = Path::new("/srv/images/default-web.img");
    let volume = kubelet.pod("default", "web").inline("nodeplug/image", "data").option("size", "16Mi");
    let volume = volume.option("pool", "/srv/images").option("name", "${pod.namespace}-${pod.name}.img");
    let volume = volume.option("create", "ifMissing").option("retain", "delete");
    kubelet.set_up(&volume).mounted();
    fs::write(volume.path().join("file"), "x").unwrap();
    // Unmounted by hand, and mounted by the kubelet's next look: the pod has not ended.
    tool(&["umount", volume.path().to_str().unwrap()]);
    kubelet.set_up(&volume).mounted();
    assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "x");
    assert!(path.exists());
    end(&kubelet, &volume);
    assert!(!path.exists(), "the image is still there");
    node.assert_nothing_left("gone with its pod");

    // Somebody else's loop device keeps it.
    kubelet.set_up(&volume).mounted();
    let device = tool(&["losetup", "--find", "--show", "--read-only", path.to_str().unwrap()]);
    let why = kubelet.tear_down(&volume).refused().to_owned();
    assert!(why.contains(device.trim()) && path.exists(), "{why}");
    tool(&["losetup", "-d", device.trim()]);
    end(&kubelet, &volume);
    assert!(!path.exists(), "the image is still there");
    node.assert_nothing_left("gone later");
}

fn repaired(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let path = "/srv/images/a.img";
    let debug = |line: &str| drop(tool(&["debugfs", "-w", "-R", line, path]));
    let first = image("first", path).option("create", "ifMissing").option("size", "16Mi");
    kubelet.set_up(&first).mounted();
    fs::write(first.path().join("file"), "kept").unwrap();
    end(&kubelet, &first);
    let state = || tool(&["dumpe2fs", "-h", path]);

    // The kernel met an error, and what is wrong is easily put right.
    debug("set_super_value state 3");
    debug("set_super_value free_blocks_count 7");
    let left = image("left", path).option("fsck", "never");
    kubelet.set_up(&left).mounted();
    end(&kubelet, &left);
    assert!(state().contains("clean with errors"), "{}", state());
    let second = image("second", path);
    kubelet.set_up(&second).mounted();
    assert_eq!(fs::read_to_string(second.path().join("file")).unwrap(), "kept");
    end(&kubelet, &second);
    assert!(!state().contains("with errors"), "{}", state());

    // What needs a decision is not decided here.
    debug("clri <2>");
    debug("set_super_value state 3");
    let third = image("third", path);
    let why = kubelet.set_up(&third).refused().to_owned();
    assert!(why.contains("run `e2fsck`") && why.contains("e2fsck -f /srv/images/a.img"), "{why}");
    kubelet.end(third.pod());
    node.assert_nothing_left("refused");
}

fn given_once(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let path = "/srv/images/a.img";
    let first = image("first", path).option("create", "ifMissing").option("size", "16Mi");
    kubelet.set_up(&first).mounted();
    fs::write(first.path().join("file"), "x").unwrap();
    end(&kubelet, &first);
    let group =
        |volume: &harness::kubelet::Volume, name: &str| fs::metadata(volume.path().join(name)).unwrap().gid();
    let given = image("second", path).fs_group(1234).option("mode", "0700");
    kubelet.set_up(&given).mounted();
    assert_eq!((group(&given, "."), group(&given, "file")), (1234, 1234));
    std::os::unix::fs::chown(given.path().join("file"), None, Some(5)).unwrap();
    end(&kubelet, &given);
    // The root folder says that it was done.
    kubelet.set_up(&given).mounted();
    assert_eq!((group(&given, "."), group(&given, "file")), (1234, 5));
    end(&kubelet, &given);
    for (policy, expect) in [("none", (1234, 5)), ("root", (99, 5)), ("recursive", (99, 99))] {
        let volume = image("third", path).fs_group(99).option("fsGroupPolicy", policy);
        kubelet.set_up(&volume).mounted();
        assert_eq!((group(&volume, "."), group(&volume, "file")), expect, "{policy}");
        end(&kubelet, &volume);
    }
    node.assert_nothing_left("given");
}
