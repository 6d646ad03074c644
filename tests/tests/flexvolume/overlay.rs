//! Overlays: layers of the node under one that a pod writes.

mod crashes;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use harness::call::tool;
use harness::kernel::trace;
use harness::kubelet::{Kubelet, Volume};
use harness::suite::{volume, volume_shared};
use harness::volume_look::{files, mounts_at};
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::ours::{Call, STATE, folder, object};

pub fn trials() -> Vec<Trial> {
    let own = vec![
        volume("an_overlay_in_memory_is_the_pod_s_alone_and_limited", &[], in_memory),
        volume("images_are_layers_as_folders_are", &["mkfs.erofs", "mksquashfs", "mkfs.ext4"], images),
        volume("an_upper_layer_on_disk_is_kept", &[], on_disk),
        volume("an_upper_layer_has_one_volume_at_a_time", &[], one_at_a_time),
        volume("an_overlay_keeps_to_its_limits_and_its_group", &[], limits),
        volume("layers_beyond_the_policy_and_wrong_ones_are_refused", &["mkfs.ext4"], refused),
        volume("on_an_older_kernel_an_overlay_is_whole_or_refused", &[], older_kernels),
        volume("an_image_that_somebody_writes_to_is_no_layer", &["mkfs.ext4"], written),
        volume_shared("an_overlay_on_a_node_that_shares_its_mounts_leaves_nothing", &[], in_memory),
    ];
    own.into_iter().chain(crashes::trials()).collect()
}

const POLICY: &str = "
backends:
  overlay:
    lower: [{path: /srv/layers}]
    upper: [{path: /srv/upper, create: true}, {path: /srv/fixed}]
    maxSize: 4Mi
";

/// Two layers of folders, of which the upper one hides a file of the lower one.
fn lay_out(node: &VolumeNode) {
    node.policy(POLICY);
    tool(&["mkdir", "-p", "/srv/layers/app", "/srv/layers/ba:se/etc", "/srv/upper", "/srv/fixed"]);
    fs::write("/srv/layers/app/which", "app").unwrap();
    fs::write("/srv/layers/ba:se/which", "base").unwrap();
    fs::write("/srv/layers/ba:se/etc/settings", "of the base").unwrap();
    tool(&["chmod", "2751", "/srv/layers/app"]);
    tool(&["chown", "7:8", "/srv/layers/app"]);
}

/// A pod's volume of both.
fn both(kubelet: &Kubelet, name: &str) -> Volume {
    let volume = kubelet.pod("shop", name).inline("nodeplug/overlay", "data");
    volume.option("lower", "/srv/layers/app,\n/srv/layers/ba:se\n")
}

fn owner(path: impl AsRef<Path>) -> (u32, u32, u32) {
    let about = fs::metadata(path).unwrap();
    (about.uid(), about.gid(), about.mode() & 0o7777)
}

fn in_memory(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let (one, other) = (both(&kubelet, "one"), both(&kubelet, "other").option("size", "1Mi"));
    kubelet.set_up(&one).mounted();
    kubelet.set_up(&other).mounted();
    let mounts = mounts_at(&one.path());
    assert_eq!((mounts.len(), mounts[0].kind.as_str()), (1, "overlay"));
    assert!(["nosuid", "nodev", "rw"].iter().all(|o| mounts[0].options.iter().any(|x| x == o)), "{mounts:?}");
    // The root folder looks as the topmost layer's does.
    assert_eq!(owner(one.path()), (7, 8, 0o2751));

    let inside = kubelet.container(&[&one]);
    assert_eq!(inside.says("cat /mnt/data/which /mnt/data/etc/settings"), "appof the base");
    inside.says("echo changed > /mnt/data/etc/settings; rm /mnt/data/which; echo new > /mnt/data/new");
    assert_eq!(inside.says("cd /mnt/data; cat etc/settings; ls"), "changed\netc\nnew\n");
    assert!(!inside.run("head -c 5000000 /dev/zero > /mnt/data/large").ok(), "more than 4 MiB");
    inside.stop();
    let inside = kubelet.container(&[&other]);
    assert_eq!(
        inside.says("cat /mnt/data/which /mnt/data/etc/settings; ls /mnt/data"),
        "appof the baseetc\nwhich\n"
    );
    assert!(!inside.run("head -c 1200000 /dev/zero > /mnt/data/large").ok(), "more than 1 MiB");
    inside.stop();
    assert_eq!(fs::read_to_string("/srv/layers/ba:se/etc/settings").unwrap(), "of the base");
    assert_eq!(fs::read_to_string("/srv/layers/app/which").unwrap(), "app");
    assert_eq!(kubelet.metrics(&other).map(|(size, _)| size), Some(1 << 20));

    for volume in [one, other] {
        kubelet.tear_down(&volume).unmounted();
        folder(&volume);
        Call::unmount(&volume).succeeds();
        kubelet.end(volume.pod());
    }
    node.assert_nothing_left("after both");
    assert_eq!(fs::read_dir("/srv/upper").unwrap().count(), 0);
}

fn images(node: &VolumeNode) {
    lay_out(node);
    fs::create_dir("/srv/image").unwrap();
    fs::write("/srv/image/inside", "of the image").unwrap();
    tool(&["mkfs.erofs", "/srv/layers/erofs", "/srv/image"]);
    tool(&["mksquashfs", "/srv/image", "/srv/layers/squashfs", "-quiet", "-no-progress"]);
    tool(&["truncate", "-s", "4M", "/srv/layers/ext4"]);
    tool(&["mkfs.ext4", "-q", "-d", "/srv/image", "/srv/layers/ext4"]);
    let kubelet = node.kubelet();
    for image in ["erofs", "squashfs", "ext4"] {
        let before = fs::read(format!("/srv/layers/{image}")).unwrap();
        let lower = format!("/srv/layers/app,/srv/layers/{image},/srv/layers/ba:se");
        let volume = both(&kubelet, "web").option("lower", &lower);
        kubelet.set_up(&volume).mounted();
        assert!(node.loops().iter().all(|l| l.autoclear && l.read_only), "{:?}", node.loops());
        let inside = kubelet.container(&[&volume]);
        let seen =
            inside.says("cd /mnt/data; cat which inside etc/settings; echo more >> inside; cat inside");
        assert_eq!(seen, "appof the imageof the baseof the imagemore\n", "{image}");
        inside.stop();
        kubelet.tear_down(&volume).unmounted();
        kubelet.end(volume.pod());
        node.assert_nothing_left(image);
        assert!(fs::read(format!("/srv/layers/{image}")).unwrap() == before, "{image} was written to");
    }
}

fn on_disk(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let volume = both(&kubelet, "web").option("upper", "/srv/upper/${pod.namespace}/${pod.name}");
    kubelet.set_up(&volume).mounted();
    assert_eq!(
        owner("/srv/upper/shop/web"),
        (0, 0, 0o700),
        "what a pod writes there is root's alone to find"
    );
    fs::write(volume.path().join("kept"), "kept").unwrap();
    fs::remove_file(volume.path().join("which")).unwrap();
    kubelet.tear_down(&volume).unmounted();
    node.assert_nothing_left("after the first pod");

    let again = both(&kubelet, "web").option("upper", "/srv/upper/shop/web").option("mode", "0700");
    kubelet.set_up(&again).mounted();
    assert_eq!(owner(again.path()), (7, 8, 0o700), "what is asked for is set, and the rest stays");
    assert_eq!(fs::read_to_string(again.path().join("kept")).unwrap(), "kept");
    assert!(!again.path().join("which").exists());
    kubelet.tear_down(&again).unmounted();

    // Over other layers the kernel would show a mixture: it refuses.
    let other =
        both(&kubelet, "web").option("upper", "/srv/upper/shop/web").option("lower", "/srv/layers/ba:se/etc");
    let why = kubelet.set_up(&other).refused().to_owned();
    assert!(why.contains("the upper layer was made over other lower layers"), "{why}");
    for volume in [volume, again, other] {
        kubelet.end(volume.pod());
    }
    node.assert_nothing_left("after all");
    assert_eq!(fs::read_to_string("/srv/upper/shop/web/upper/kept").unwrap(), "kept");
}

fn one_at_a_time(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let (one, other) = (both(&kubelet, "one"), both(&kubelet, "other"));
    let [one, other] = [one, other].map(|volume| volume.option("upper", "/srv/upper/same"));
    kubelet.set_up(&one).mounted();
    let why = kubelet.set_up(&other).refused().to_owned();
    assert!(why.contains("the pod `one` of `shop` has it") && why.contains("${pod.name}"), "{why}");
    // Without a record the kernel knows all the same.
    let records = files(&Path::new(STATE).join("volumes"));
    assert_eq!(records.len(), 1, "{records:?}");
    let record = fs::read(&records[0]).unwrap();
    fs::remove_file(&records[0]).unwrap();
    let why = kubelet.set_up(&other).refused().to_owned();
    assert!(why.contains("another overlay has this upper layer"), "{why}");
    assert!(mounts_at(&other.path()).is_empty());
    fs::write(&records[0], record).unwrap();
    // Both at once: one of them.
    kubelet.tear_down(&one).unmounted();
    let outcomes = kubelet.set_up_all(&[one.clone(), other.clone()]);
    assert_eq!(
        outcomes.iter().filter(|o| matches!(o, harness::kubelet::Outcome::Mounted)).count(),
        1,
        "{outcomes:?}"
    );
    for volume in [one, other] {
        kubelet.end(volume.pod());
    }
    node.assert_nothing_left("after both");
}

fn limits(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let volume =
        both(&kubelet, "web").fs_group(1234).option("noexec", "true").option("mountOptions", "noatime");
    kubelet.set_up(&volume).mounted();
    let mount = &mounts_at(&volume.path())[0];
    assert!(["noexec", "noatime"].iter().all(|o| mount.options.iter().any(|x| x == o)), "{mount:?}");
    // The root folder is the group's, and nothing was copied up for it.
    assert_eq!(owner(volume.path()), (7, 1234, 0o2771));
    assert_eq!(owner(volume.path().join("which")).1, 0);
    let inside = kubelet.container(&[&volume]);
    assert!(inside.run_as(1000, &[1234], "echo x > /mnt/data/mine").ok());
    assert!(!inside.run_as(1000, &[1000], "echo x > /mnt/data/other").ok());
    inside.stop();
    kubelet.tear_down(&volume).unmounted();
    let read_only = both(&kubelet, "web").fs_group(1234).read_only();
    kubelet.set_up(&read_only).mounted();
    let inside = kubelet.container(&[&read_only]);
    assert_eq!(inside.says("cat /mnt/data/which"), "app");
    assert!(!inside.run("echo x > /mnt/data/which").ok());
    inside.stop();
    assert_eq!(owner(read_only.path()).1, 8);
    for volume in [volume, read_only] {
        kubelet.end(volume.pod());
    }
    node.assert_nothing_left("after both");
}

fn refused(node: &VolumeNode) {
    lay_out(node);
    fs::create_dir("/srv/elsewhere").unwrap();
    symlink("/srv/elsewhere", "/srv/layers/link").unwrap();
    symlink("/srv/elsewhere", "/srv/upper/link").unwrap();
    fs::write("/srv/layers/text", "no image").unwrap();
    tool(&["mkfifo", "/srv/layers/fifo"]);
    tool(&["mkdir", "/srv/layers/kernel"]);
    tool(&["mount", "-t", "sysfs", "sysfs", "/srv/layers/kernel"]);
    node.keep();
    let kubelet = node.kubelet();
    let table: [(&str, &str, &str); 14] = [
        ("lower", "/etc", "which no policy allows"),
        ("lower", "/srv/elsewhere", "lists no root that contains it"),
        ("lower", "/srv/layers/../elsewhere", "it has the component `..`"),
        ("lower", "/srv/layers/link", "a symlink or `..` stands in the way"),
        ("lower", "/srv/layers/link/x", "a symlink or `..` stands in the way"),
        ("lower", "/srv/layers/none", "No such file"),
        ("lower", "/srv/layers/text", "no file system that is known here is in it"),
        ("lower", "/srv/layers/fifo", "it is neither a folder nor a file"),
        ("lower", "/srv/layers/kernel", "a `sysfs` of the kernel is mounted there"),
        ("lower", "/srv/layers/app,/srv/layers/app", "none may be given twice"),
        ("upper", "/srv/upper/link/x", "a symlink or `..` stands in the way"),
        ("upper", "/srv/fixed/new", "add `create: true` to the root `/srv/fixed`"),
        ("upper", "/srv/upper/${pod.nam}", "did you mean ${pod.name}?"),
        ("mountOptions", "lowerdir=/etc", "lowerdir"),
    ];
    for (option, value, expect) in table {
        let volume = both(&kubelet, "web").option(option, value);
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains(expect), "{option} {value}: {why}");
        kubelet.end(volume.pod());
        node.assert_nothing_left(value);
    }
    assert_eq!(fs::read_dir("/srv/elsewhere").unwrap().count(), 0);
    node.policy("");
    let volume = both(&kubelet, "web");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(
        why.contains("`overlay: {lower: [{path: \"/srv/layers/app\"") || why.contains("overlay"),
        "{why}"
    );
    kubelet.end(volume.pod());
}

fn written(node: &VolumeNode) {
    lay_out(node);
    tool(&["truncate", "-s", "4M", "/srv/layers/ext4"]);
    tool(&["mkfs.ext4", "-q", "/srv/layers/ext4"]);
    let device = tool(&["losetup", "--find", "--show", "/srv/layers/ext4"]);
    node.keep();
    let kubelet = node.kubelet();
    let volume = both(&kubelet, "web").option("lower", "/srv/layers/ext4");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(why.contains(&format!("{} is there to write to it", device.trim())), "{why}");
    tool(&["losetup", "-d", device.trim()]);
    kubelet.set_up(&volume).mounted();
    kubelet.end(volume.pod());
    node.assert_nothing_left("afterwards");
}

#[cfg(target_arch = "x86_64")]
fn older_kernels(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    for (kernel, lacking) in crate::crashes::refusals::OLDER {
        let volume = both(&kubelet, "web").option("upper", "/srv/upper/x");
        folder(&volume);
        let answer = object(kernel, &trace::fail_all(&Call::mount(&volume), lacking, libc::ENOSYS));
        let mounts = mounts_at(&volume.path());
        if lacking.contains(&libc::SYS_open_tree) {
            let message = answer["message"].as_str().unwrap();
            assert!(message.contains("need Linux 5.2"), "{message}");
            assert!(mounts.is_empty());
        } else {
            assert_eq!((answer["status"].as_str(), mounts.len()), (Some("Success"), 1), "{kernel}: {answer}");
            assert!(
                ["nosuid", "nodev"].iter().all(|o| mounts[0].options.iter().any(|x| x == o)),
                "{mounts:?}"
            );
        }
        let answer = trace::fail_all(&Call::unmount(&volume), lacking, libc::ENOSYS);
        assert_eq!(object(kernel, &answer)["status"], "Success", "{kernel}: {answer:?}");
        fs::remove_dir_all(volume.pod().folder()).unwrap();
        node.assert_nothing_left(kernel);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn older_kernels(_: &VolumeNode) {
    eprintln!("system calls are made to fail on x86_64 only");
}
