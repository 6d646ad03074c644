//! `unmount` of whatever is at a volume's folder: in use, in layers, with mounts below, or not a folder at
//! all.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use harness::call::tool;
use harness::kubelet::{Kubelet, Outcome, Volume};
use harness::suite::{volume, volume_shared};
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::ours::Call;
use crate::users::{User, until};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("a_volume_in_use_names_its_users_and_stays", &[], in_use),
        volume("a_volume_whose_user_leaves_in_time_is_unmounted", &[], in_time),
        volume("a_volume_in_use_is_detached_where_the_policy_says_so", &[], detached),
        volume("a_policy_that_cannot_be_read_keeps_no_pod_from_ending", &[], unreadable_policy),
        volume("every_layer_at_the_folder_is_unmounted", &[], layers),
        volume("mounts_below_the_volume_go_with_it", &[], below),
        volume_shared("mounts_below_the_volume_go_with_it_where_mounts_are_shared", &[], below),
        volume("a_mount_below_that_is_in_use_is_named", &[], used_below),
        volume("a_mount_below_is_not_looked_for_behind_a_symlink", &[], below_behind_a_symlink),
        volume("a_bind_with_all_its_mounts_goes_and_leaves_its_source", &[], recursive_bind),
        volume_shared("a_bind_with_all_its_mounts_leaves_a_shared_source", &[], recursive_bind),
        volume("a_symlink_in_the_folders_place_is_not_followed", &[], symlink_in_place),
        volume("what_is_behind_a_symlink_above_the_folder_is_not_touched", &[], symlink_above),
        volume("a_volume_that_was_moved_behind_a_symlink_is_named", &[], moved_behind_a_symlink),
        volume("what_lies_in_the_folder_itself_is_named_and_stays", &[], data_in_the_folder),
    ]
}

/// A tmpfs that is mounted, on a node that waits a second for its users.
fn mounted(node: &VolumeNode, kubelet: &Kubelet, more: &str) -> Volume {
    node.policy(&format!("busyWait: 1s\n{more}"));
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
    kubelet.set_up(&volume).mounted();
    volume
}

/// Somebody on the node whose working folder is this one.
fn user_in(folder: &Path) -> User {
    let user = User::start(&format!("cd {} && exec sleep infinity", folder.display()));
    let (cwd, comm) = (format!("/proc/{}/cwd", user.pid()), format!("/proc/{}/comm", user.pid()));
    until("the user", || {
        fs::read_link(&cwd).is_ok_and(|cwd| cwd == folder)
            && fs::read_to_string(&comm).is_ok_and(|comm| comm == "sleep\n")
    });
    user
}

#[track_caller]
fn message(kubelet: &Kubelet, volume: &Volume) -> String {
    let path = volume.path().display().to_string();
    let answer = kubelet.call(volume.driver(), &["unmount", &path]).one_object();
    assert_eq!(answer["status"], "Success", "{answer}");
    answer["message"].as_str().unwrap_or_default().to_owned()
}

fn in_use(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = mounted(node, &kubelet, "");
    let users = [user_in(&volume.path()), user_in(&volume.path())];
    let why = kubelet.tear_down(&volume).refused().to_owned();
    for user in &users {
        assert!(why.contains(&format!("`sleep` (pid {}), working folder", user.pid())), "{why}");
    }
    assert!(why.contains("Device or resource busy") || why.contains("in use"), "{why}");
    assert_eq!(mounts_at(&volume.path()).len(), 1);
    drop(users);
    kubelet.end(volume.pod());
    node.assert_nothing_left("users that left");
}

fn in_time(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = mounted(node, &kubelet, "");
    node.policy("busyWait: 60s\n");
    let user = user_in(&volume.path());
    std::thread::scope(|scope| {
        let unmount = scope.spawn(|| kubelet.tear_down(&volume));
        // The driver has the volume's lock as long as it is at it.
        until("the call", || {
            !harness::volume_look::files(Path::new("/run/nodeplug/flexvolume/locks")).is_empty()
        });
        drop(user);
        assert_eq!(unmount.join().unwrap(), Outcome::Unmounted);
    });
    kubelet.end(volume.pod());
    node.assert_nothing_left("a user that left");
}

fn detached(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = mounted(node, &kubelet, "busy: lazy\n");
    let user = user_in(&volume.path());
    assert!(message(&kubelet, &volume).contains("it was still in use: it was detached"));
    assert!(mounts_at(&volume.path()).is_empty());
    drop(user);
    kubelet.end(volume.pod());
    node.assert_nothing_left("a user that left later");
}

fn unreadable_policy(node: &VolumeNode) {
    let kubelet = node.kubelet();
    for policy in ["nonsense: [\n", "busyWait: never\n", "kubeletRoot: /elsewhere\n"] {
        let volume = mounted(node, &kubelet, "");
        node.policy(policy);
        kubelet.tear_down(&volume).unmounted();
        kubelet.end(volume.pod());
        node.assert_nothing_left(policy);
    }
}

fn layers(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = mounted(node, &kubelet, "");
    let path = volume.path().display().to_string();
    fs::create_dir("/srv/other").unwrap();
    tool(&["mount", "-t", "tmpfs", "second", &path]);
    tool(&["mount", "--bind", "/srv/other", &path]);
    assert_eq!(mounts_at(&volume.path()).len(), 3);
    kubelet.tear_down(&volume).unmounted();
    kubelet.end(volume.pod());
    node.assert_nothing_left("three layers");
}

fn below(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = mounted(node, &kubelet, "");
    let path = volume.path();
    for (folder, layers) in [("a", 1), ("a/deep", 2), ("a b", 1)] {
        fs::create_dir_all(path.join(folder)).unwrap();
        for _ in 0..layers {
            tool(&["mount", "-t", "tmpfs", "below", &path.join(folder).display().to_string()]);
        }
    }
    fs::write(path.join("file"), "").unwrap();
    tool(&["mount", "--bind", "/etc/hostname", &path.join("file").display().to_string()]);
    let said = message(&kubelet, &volume);
    for point in ["`data/a/deep`", "`data/a`", "`data/a b`", "`data/file`"] {
        assert!(said.contains(point), "{said}");
    }
    assert!(fs::read_to_string("/etc/hostname").is_ok());
    kubelet.end(volume.pod());
    node.assert_nothing_left("mounts below");
}

fn used_below(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = mounted(node, &kubelet, "");
    let inner = volume.path().join("inner");
    fs::create_dir(&inner).unwrap();
    tool(&["mount", "-t", "tmpfs", "below", &inner.display().to_string()]);
    let user = user_in(&inner);
    let why = kubelet.tear_down(&volume).refused().to_owned();
    assert!(why.contains(&format!("`sleep` (pid {})", user.pid())), "{why}");
    assert!(why.contains("a mount at `data/inner`"), "{why}");
    drop(user);
    kubelet.tear_down(&volume).unmounted();
    kubelet.end(volume.pod());
    node.assert_nothing_left("a mount below that was used");
}

fn below_behind_a_symlink(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = mounted(node, &kubelet, "");
    let (path, host) = (volume.path(), Path::new("/srv/host"));
    fs::create_dir_all(host.join("b")).unwrap();
    tool(&["mount", "-t", "tmpfs", "host", &host.join("b").display().to_string()]);
    node.keep();
    // The pod mounts something at a/b, and puts a symlink in the place of a.
    fs::create_dir_all(path.join("a/b")).unwrap();
    tool(&["mount", "-t", "tmpfs", "below", &path.join("a/b").display().to_string()]);
    fs::rename(path.join("a"), path.join("moved")).unwrap();
    symlink(host, path.join("a")).unwrap();
    assert!(message(&kubelet, &volume).contains("`data/moved/b`"));
    assert_eq!(mounts_at(&host.join("b")).len(), 1, "the node's own mount is gone");
    kubelet.end(volume.pod());
    node.assert_nothing_left("a symlink");
}

fn recursive_bind(node: &VolumeNode) {
    let source = Path::new("/srv/shared");
    fs::create_dir_all(source.join("inner")).unwrap();
    tool(&["mount", "-t", "tmpfs", "inner", &source.join("inner").display().to_string()]);
    fs::write(source.join("inner/file"), "kept\n").unwrap();
    node.keep();
    node.policy("backends: {bind: {roots: [{path: /srv/shared}]}}\n");
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("nodeplug/bind", "data");
    let volume = volume.option("source", "/srv/shared").option("recursive", "true");
    kubelet.set_up(&volume).mounted();
    assert!(volume.path().join("inner/file").exists());
    kubelet.tear_down(&volume).unmounted();
    assert_eq!(fs::read_to_string(source.join("inner/file")).unwrap(), "kept\n");
    kubelet.end(volume.pod());
    node.assert_nothing_left("a recursive bind");
}

/// Another mount of the node, and a symlink to it.
fn other_mount(node: &VolumeNode, link: &Path, inside: &str) {
    fs::create_dir("/srv/host").unwrap();
    tool(&["mount", "-t", "tmpfs", "host", "/srv/host"]);
    fs::create_dir_all(Path::new("/srv/host").join(inside)).unwrap();
    fs::write("/srv/host/file", "").unwrap();
    node.keep();
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink("/srv/host", link).unwrap();
}

#[track_caller]
fn assert_untouched() {
    assert_eq!(mounts_at(Path::new("/srv/host")).len(), 1);
    assert!(Path::new("/srv/host/file").exists());
}

fn symlink_in_place(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
    other_mount(node, &volume.path(), "");
    kubelet.tear_down(&volume).unmounted();
    assert_untouched();
    assert!(fs::symlink_metadata(volume.path()).is_err(), "the kubelet removes the symlink");
    kubelet.end(volume.pod());
    node.assert_nothing_left("a symlink");
}

fn symlink_above(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
    other_mount(node, volume.path().parent().unwrap(), "data");
    fs::write("/srv/host/data/file", "").unwrap();
    tool(&["mount", "-t", "tmpfs", "foreign", "/srv/host/data"]);
    node.keep();
    message(&kubelet, &volume);
    assert_untouched();
    assert_eq!(mounts_at(Path::new("/srv/host/data")).len(), 1);
    fs::remove_file(volume.path().parent().unwrap()).unwrap();
    kubelet.end(volume.pod());
    node.assert_nothing_left("a symlink above");
}

fn moved_behind_a_symlink(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = mounted(node, &kubelet, "");
    fs::rename("/var/lib/kubelet/pods", "/var/lib/kubelet/moved").unwrap();
    symlink("moved", "/var/lib/kubelet/pods").unwrap();
    let why = Call::unmount(&volume).fails();
    let real = volume.path().display().to_string().replace("/pods/", "/moved/");
    assert!(why.contains(&format!("run `umount {real}`")), "{why}");
    tool(&["umount", &real]);
    Call::unmount(&volume).succeeds();
    fs::remove_file("/var/lib/kubelet/pods").unwrap();
    fs::rename("/var/lib/kubelet/moved", "/var/lib/kubelet/pods").unwrap();
    kubelet.end(volume.pod());
    node.assert_nothing_left("folders that were moved");
}

fn data_in_the_folder(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
    fs::create_dir_all(volume.path()).unwrap();
    for name in ["one", "two", "three"] {
        fs::write(volume.path().join(name), "kept").unwrap();
    }
    kubelet.set_up(&volume).mounted();
    let why = kubelet.tear_down(&volume).refused().to_owned();
    assert!(why.contains("and 2 more lies in the folder itself"), "{why}");
    assert_eq!(fs::read_to_string(volume.path().join("one")).unwrap(), "kept");
    for name in ["one", "two", "three"] {
        fs::remove_file(volume.path().join(name)).unwrap();
    }
    kubelet.tear_down(&volume).unmounted();
    kubelet.end(volume.pod());
    node.assert_nothing_left("data in the folder");
}
