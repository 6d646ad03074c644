//! The node's own instruments: a test that cannot fail proves nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use harness::call::tool;
use harness::kubelet::PLUGINS;
use harness::suite::{scripted, scripted_shared, volume};
use harness::volume_look::{mounts, mounts_at};
use harness::volume_node::{OURS, VolumeNode};
use libtest_mimic::Trial;

use crate::scripts::{INIT, OK, mounting, script, tmpfs};

pub fn trials() -> Vec<Trial> {
    vec![
        scripted("a_node_of_volumes_is_its_own", &[], a_node_is_its_own),
        volume("our_driver_is_installed_under_all_its_names", &[], ours_is_installed),
        scripted("every_kind_of_leftover_is_seen", &["mkfs.ext4"], every_kind_of_leftover_is_seen),
        scripted("a_daemon_of_a_driver_is_seen_in_any_namespace", &[], a_daemon_is_seen),
        scripted("a_reboot_ends_mounts_and_keeps_files", &["mkfs.ext4"], a_reboot),
        scripted("mounts_are_private", &[], mounts_are_private),
        scripted_shared("mounts_are_shared", &[], mounts_are_shared),
    ]
}

fn a_node_is_its_own(node: &VolumeNode) {
    for folder in ["/var/lib/x", "/run/x", "/srv/x", "/opt/x", "/etc/nodeplug", "/usr/libexec/x"] {
        fs::create_dir(folder).unwrap();
        let host = Path::new("/proc").join(std::process::id().to_string()).join("root");
        let outside = host.join(folder.trim_start_matches('/'));
        assert!(!outside.exists(), "{} is on the host", outside.display());
    }
    node.policy("timeout: 1s\n");
    assert!(Path::new("/etc/passwd").exists() && Path::new("/etc/nodeplug/flexvolume.yaml").exists());
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

fn ours_is_installed(node: &VolumeNode) {
    for name in OURS {
        let program = Path::new(PLUGINS).join(format!("nodeplug~{name}")).join(name);
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o7777, 0o755, "{name}");
        assert_eq!(node.kubelet().call(&format!("nodeplug/{name}"), &["--help"]).error, None);
    }
    assert_eq!(fs::read_dir(PLUGINS).unwrap().count(), OURS.len());
}

fn every_kind_of_leftover_is_seen(node: &VolumeNode) {
    let disk = node.disk("32M");
    node.assert_nothing_left("with a disk of the test's own");
    for (place, name) in [("/srv", "in memory"), (disk.to_str().unwrap(), "on the disk")] {
        let image = format!("{place}/image");
        tool(&["truncate", "-s", "1M", &image]);
        let device = tool(&["losetup", "--find", "--show", &image]);
        let left = node.leftovers();
        assert!(left.len() == 1 && left[0].contains(device.trim()), "{name}: {left:?}");
        tool(&["losetup", "-d", device.trim()]);
        node.assert_nothing_left(name);
    }
    tool(&["mount", "-t", "tmpfs", "none", "/srv"]);
    assert_eq!(node.leftovers(), ["mount /srv tmpfs of none"]);
    tool(&["umount", "/srv"]);
    fs::create_dir_all("/run/nodeplug/flexvolume/locks").unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
    fs::write("/run/nodeplug/flexvolume/locks/t-1", "").unwrap();
    assert_eq!(node.leftovers(), ["file /run/nodeplug/flexvolume/locks/t-1"]);
    fs::remove_file("/run/nodeplug/flexvolume/locks/t-1").unwrap();
    let pod = node.kubelet().pod("default", "web");
    let path = pod.inline("test/none", "data").path();
    fs::create_dir_all(&path).unwrap();
    assert_eq!(node.leftovers(), [format!("folder {}", path.display())]);
}

fn a_daemon_is_seen(node: &VolumeNode) {
    // A daemon that leaves the session and the mounts of its driver, and not the cgroup.
    let daemon = "NODEPLUG_VOLUME=v1 setsid unshare -m sleep 1000 >/dev/null 2>&1 &";
    node.install_script("test/daemon", &mounting(&format!("{daemon}\n{OK}")));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/daemon", "data");
    kubelet.set_up(&volume).mounted();
    let left = node.leftovers();
    let seen = left.iter().any(|l| l.contains("sleep 1000") && l.contains("NODEPLUG_VOLUME=v1"));
    assert!(seen, "{left:?}");
    kubelet.delete(volume.pod());
    kubelet.restart();
    assert!(node.processes().is_empty(), "{:?}", node.leftovers());
}

fn a_reboot(node: &VolumeNode) {
    let boot = || fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let (before, disk) = (boot(), node.disk("32M"));
    node.install_script("test/tmpfs", &tmpfs());
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/tmpfs", "data");
    kubelet.set_up(&volume).mounted();
    fs::write("/run/gone", "").unwrap();
    fs::write(disk.join("kept"), "").unwrap();
    fs::write("/var/lib/kept", "").unwrap();
    tool(&["truncate", "-s", "1M", "/srv/image"]);
    tool(&["losetup", "--find", "/srv/image"]);
    node.reboot();
    assert_ne!(boot(), before);
    assert!(!Path::new("/run/gone").exists());
    assert!(disk.join("kept").exists() && Path::new("/var/lib/kept").exists());
    assert!(volume.path().exists() && mounts_at(&volume.path()).is_empty());
    assert_eq!(node.loops().len(), 1, "only the disk's: {:?}", node.loops());
    assert_eq!(kubelet.restart().set_up.len(), 1);
    assert_eq!(mounts_at(&volume.path()).len(), 1);
}

fn mounts_are_private(_node: &VolumeNode) {
    let shared: Vec<_> = mounts().into_iter().filter(|m| !m.propagation.is_empty()).collect();
    assert!(shared.is_empty(), "{shared:?}");
}

fn mounts_are_shared(node: &VolumeNode) {
    node.install_script("test/none", &script(&[("init", INIT)]));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/none", "data");
    fs::create_dir_all(volume.path()).unwrap();
    let container = kubelet.container(&[&volume]);
    tool(&["mount", "-t", "tmpfs", "later", "/srv"]);
    assert!(container.says("cat /proc/self/mountinfo").contains(" - tmpfs later "));
    container.says("mount -t tmpfs inside /srv");
    assert_eq!(mounts_at(Path::new("/srv")).len(), 2, "a container's own mount stays inside");
    let private = mounts().into_iter().filter(|m| m.propagation.is_empty()).count();
    assert_eq!(private, 0);
}
