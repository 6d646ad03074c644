//! What happens around `unmount`.

use std::fs;

use harness::call::tool;
use harness::kubelet::{Kubelet, Outcome, Volume};
use harness::suite::scripted;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::scripts::{FAIL, INIT, OK, TMPFS, UNMOUNT, mounting, script, tmpfs};

pub fn trials() -> Vec<Trial> {
    vec![
        scripted("a_folder_that_is_missing_needs_no_call", &[], missing_folder),
        scripted("a_folder_that_is_not_mounted_gets_a_call", &[], not_mounted),
        scripted("a_file_that_is_left_keeps_the_folder", &[], file_left),
        scripted("a_second_mount_keeps_the_folder", &[], second_mount),
        scripted("a_failed_unmount_is_told_to_the_log_alone", &[], failure),
        scripted("a_driver_may_remove_the_folder", &[], removed_by_the_driver),
        scripted("a_dead_daemon_is_mounted_for_mount_and_there_for_unmount", &["bindfs"], dead_daemon),
        scripted("a_dead_mount_that_stays_fails_the_unmount", &["bindfs"], dead_mount_stays),
        scripted("sub_paths_go_before_the_volume", &[], sub_paths),
    ]
}

fn prepared(node: &VolumeNode, driver: &str, script: &str) -> (Kubelet, Volume) {
    node.install_script(driver, script);
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline(driver, "data");
    kubelet.set_up(&volume).mounted();
    (kubelet, volume)
}

fn missing_folder(node: &VolumeNode) {
    node.install_script("test/disk", &tmpfs());
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    assert_eq!(kubelet.tear_down(&volume), Outcome::NotThere);
    assert_eq!(kubelet.verbs("test/disk"), ["init"]);
}

fn not_mounted(node: &VolumeNode) {
    let (kubelet, volume) = prepared(node, "test/disk", &mounting(OK));
    kubelet.tear_down(&volume).unmounted();
    assert_eq!(kubelet.verbs("test/disk"), ["init", "mount", "unmount"]);
}

fn file_left(node: &VolumeNode) {
    let (kubelet, volume) = prepared(node, "test/disk", &mounting(OK));
    fs::write(volume.path().join("file"), "").unwrap();
    let why = format!("remove {}: directory not empty", volume.path().display());
    assert_eq!(kubelet.tear_down(&volume).refused(), why);
    assert_eq!(kubelet.tear_down(&volume).refused(), why, "for ever");
}

fn second_mount(node: &VolumeNode) {
    let once = format!("umount \"$2\"; {OK}");
    let twice = format!("mount -t tmpfs scripted \"$2\"; {TMPFS}");
    let script = script(&[("init", INIT), ("mount", &twice), ("unmount", &once)]);
    let (kubelet, volume) = prepared(node, "test/disk", &script);
    let why = format!("remove {}: device or resource busy", volume.path().display());
    assert_eq!(kubelet.tear_down(&volume).refused(), why);
    kubelet.tear_down(&volume).unmounted();
}

fn failure(node: &VolumeNode) {
    let script = script(&[("init", INIT), ("mount", TMPFS), ("unmount", FAIL)]);
    let (kubelet, volume) = prepared(node, "test/disk", &script);
    let outcome = kubelet.tear_down(&volume);
    assert_eq!(outcome.refused(), "unmount command failed, status: Failure, reason: no disk");
    assert_eq!(kubelet.events(), Vec::<String>::new());
    assert!(kubelet.log().last().unwrap().contains("UnmountVolume.TearDown failed"));
}

fn removed_by_the_driver(node: &VolumeNode) {
    let removes = format!("umount \"$2\"; rmdir \"$2\"; {OK}");
    let script = script(&[("init", INIT), ("mount", TMPFS), ("unmount", &removes)]);
    let (kubelet, volume) = prepared(node, "test/disk", &script);
    kubelet.tear_down(&volume).unmounted();
}

fn dead(node: &VolumeNode, unmount: &str) -> (Kubelet, Volume) {
    fs::create_dir_all("/srv/source").unwrap();
    let mount = format!("bindfs /srv/source \"$2\" >/dev/null 2>&1; {OK}");
    let script = script(&[("init", INIT), ("mount", &mount), ("unmount", unmount)]);
    let (kubelet, volume) = prepared(node, "test/fuse", &script);
    let daemons = node.processes();
    assert_eq!(daemons.len(), 1, "{:?}", node.leftovers());
    tool(&["kill", "-9", &daemons[0].to_string()]);
    while fs::metadata(volume.path()).is_ok() {
        std::thread::yield_now();
    }
    (kubelet, volume)
}

fn dead_daemon(node: &VolumeNode) {
    let (kubelet, volume) = dead(node, &format!("umount \"$2\"; {OK}"));
    assert_eq!(kubelet.set_up(&volume), Outcome::AlreadyMounted, "nobody calls the driver");
    kubelet.tear_down(&volume).unmounted();
    assert_eq!(kubelet.verbs("test/fuse"), ["init", "mount", "unmount"]);
    let log = kubelet.log().join("\n");
    assert!(
        log.contains("Error checking path: stat") && log.contains("transport endpoint is not connected"),
        "{log}"
    );
}

fn dead_mount_stays(node: &VolumeNode) {
    let (kubelet, volume) = dead(node, OK);
    let why = kubelet.tear_down(&volume).refused().to_owned();
    assert!(why.starts_with("error checking if path exists: stat "), "{why}");
    assert_eq!(mounts_at(&volume.path()).len(), 1);
}

fn sub_paths(node: &VolumeNode) {
    let umount =
        format!("[ -z \"$(ls -A \"${{2%/volumes/*}}/volume-subpaths\")\" ] && {{ {UNMOUNT}; }} || {FAIL}");
    let script = script(&[("init", INIT), ("mount", TMPFS), ("unmount", &umount)]);
    let (kubelet, volume) = prepared(node, "test/disk", &script);
    let container = kubelet.container_of_sub_path(&volume, "a/b");
    container.says("echo hello > /mnt/data/file");
    assert_eq!(fs::read_to_string(volume.path().join("a/b/file")).unwrap(), "hello\n");
    assert_eq!(container.says("ls /mnt/data"), "file\n");
    let bound = volume.pod().folder().join("volume-subpaths/data/main/0");
    assert_eq!(mounts_at(&bound).len(), 1);
    container.stop();
    kubelet.end(volume.pod());
    assert!(mounts_at(&bound).is_empty());
}
