//! Helpers that hang, servers that die, and mounts that somebody uses: every call still ends in time.

use std::fs;
use std::path::Path;

use harness::call::{tool, try_tool};
use harness::kubelet::{Kubelet, Volume};
use harness::suite::volume;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::users::{User, until};

use super::{BIND, EXPORT, cifs, fails, help, nfs, policy, serve, succeeds};

/// The line of a helper whose server is a program on this node that can die.
const SERVED: &str = "bindfs -o allow_other /srv/export \"$2\"";

pub fn trials() -> Vec<Trial> {
    vec![
        volume("a_helper_that_hangs_is_ended_and_the_next_try_is_free", &[], hanging_helper),
        volume(
            "a_helper_that_cannot_be_ended_keeps_its_locks",
            &["fsfreeze", "mkfs.ext4"],
            helper_that_stays,
        ),
        volume("a_share_whose_server_died_is_unmounted", &["bindfs"], server_died),
        volume("a_share_whose_server_died_is_mounted_anew", &["bindfs"], mounted_anew),
        volume("a_share_whose_server_does_not_answer_is_unmounted", &["bindfs"], silent_server),
        volume(
            "a_share_in_use_whose_server_does_not_answer_is_unmounted_by_force",
            &["bindfs"],
            silent_and_used,
        ),
        volume("a_stale_mount_without_a_record_is_unmounted", &["bindfs"], without_a_record),
        volume("an_unmount_that_does_not_end_is_left_to_the_kernel", &["fsfreeze", "mkfs.ext4"], never_ends),
        volume("a_share_in_use_that_answers_names_its_users", &["bindfs"], used_and_well),
    ]
}

fn named(node: &VolumeNode, name: &str) -> Vec<i32> {
    let comm = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    node.processes().into_iter().filter(|pid| comm(pid).trim() == name).collect()
}

/// The one server of this node gets a signal.
#[track_caller]
fn server(node: &VolumeNode, signal: Signal) {
    let all = named(node, "bindfs");
    assert_eq!(all.len(), 1, "{all:?}");
    kill(Pid::from_raw(all[0]), signal).unwrap();
    if signal == Signal::SIGKILL {
        until("the server's end", || named(node, "bindfs").is_empty());
    }
    if signal == Signal::SIGSTOP {
        let stat = || fs::read_to_string(format!("/proc/{}/stat", all[0])).unwrap();
        until("the server's stop", || stat().contains(") T "));
    }
}

fn hanging_helper(node: &VolumeNode) {
    serve(node, "echo started; sleep infinity");
    let kubelet = node.kubelet();
    for volume in [nfs(&kubelet), cifs(&kubelet)] {
        let why = kubelet.set_up(&volume.clone().option("timeout", "3")).refused().to_owned();
        assert!(why.contains("no answer in time") && why.contains("it wrote: started"), "{why}");
        node.assert_nothing_left("a helper that hung");
        help(node, BIND);
        kubelet.set_up(&volume).mounted();
        kubelet.end(volume.pod());
        help(node, "echo started; sleep infinity");
    }
}

/// A disk on which every write waits where no signal wakes it.
struct Frozen;

impl Frozen {
    fn freeze() -> Self {
        tool(&["fsfreeze", "-f", "/srv/disk"]);
        Self
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(try_tool(&["fsfreeze", "-u", "/srv/disk"]));
    }
}

fn helper_that_stays(node: &VolumeNode) {
    node.disk("16M");
    serve(node, &format!("echo x > /srv/disk/file\n{BIND}"));
    let kubelet = node.kubelet();
    let volume = nfs(&kubelet);
    let frozen = Frozen::freeze();
    let why = kubelet.set_up(&volume.clone().option("timeout", "4")).refused().to_owned();
    assert!(why.contains("no answer in time"), "{why}");
    let stuck = named(node, "helper");
    assert_eq!(stuck.len(), 1, "{stuck:?}");
    for _ in 0..2 {
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains("an earlier call is still in progress"), "{why}");
    }
    fs::create_dir_all(volume.path()).unwrap();
    assert!(fails(&kubelet, &volume, "unmount").contains("still in progress"));
    assert_eq!(named(node, "helper"), stuck, "helpers pile up");
    // Another pod's volume of the same share does not add a helper either; one of another share does not wait.
    let same = nfs(&kubelet).option("timeout", "12");
    let why = kubelet.set_up(&same).refused().to_owned();
    assert!(why.contains("still in progress"), "{why}");
    drop(frozen);
    until("the helper's end", || named(node, "helper").is_empty());
    kubelet.set_up(&volume).mounted();
    kubelet.end(volume.pod());
    node.assert_nothing_left("a helper that came back");
}

/// A share of a server that is well.
fn served(node: &VolumeNode, kubelet: &Kubelet) -> Volume {
    serve(node, SERVED);
    policy(node, "busyWait: 1s\n");
    let volume = nfs(kubelet);
    kubelet.set_up(&volume).mounted();
    assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "of the server\n");
    volume
}

fn server_died(node: &VolumeNode) {
    let kubelet = node.kubelet();
    for used in [false, true] {
        let volume = served(node, &kubelet);
        let user = used.then(|| User::start(&format!("cd {}; exec sleep infinity", volume.path().display())));
        if let Some(user) = &user {
            let cwd = format!("/proc/{}/cwd", user.pid());
            until("the user", || fs::read_link(&cwd).is_ok_and(|cwd| cwd == volume.path()));
        }
        server(node, Signal::SIGKILL);
        until("the end of what was cached", || fs::metadata(volume.path()).is_err());
        if used {
            let message = succeeds(&kubelet, &volume, "unmount");
            assert!(message.contains("its server or daemon is gone (Transport endpoint"), "{message}");
        }
        kubelet.end(volume.pod());
        drop(user);
        node.assert_nothing_left("a server that died");
    }
}

fn mounted_anew(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = served(node, &kubelet);
    assert!(succeeds(&kubelet, &volume, "mount").contains("it is mounted already"));
    server(node, Signal::SIGKILL);
    succeeds(&kubelet, &volume, "mount");
    assert_eq!(mounts_at(&volume.path()).len(), 1);
    assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "of the server\n");
    kubelet.end(volume.pod());
    node.assert_nothing_left("a share that was mounted anew");
}

fn silent_server(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = served(node, &kubelet);
    server(node, Signal::SIGSTOP);
    let message = succeeds(&kubelet, &volume, "mount");
    assert!(message.contains("it is mounted already, and does not answer"), "{message}");
    succeeds(&kubelet, &volume, "unmount");
    assert!(mounts_at(&volume.path()).is_empty());
    server(node, Signal::SIGCONT);
    kubelet.end(volume.pod());
    node.assert_nothing_left("a server that slept");
}

fn silent_and_used(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = served(node, &kubelet);
    server(node, Signal::SIGSTOP);
    // It waits for the server; its working folder is elsewhere, and its path keeps the mount busy.
    let user = User::start(&format!("exec cat {}/other", volume.path().display()));
    let waits = format!("/proc/{}/wchan", user.pid());
    until("the user", || {
        fs::read_to_string(&waits).is_ok_and(|at| at.contains("fuse") || at.contains("request"))
    });
    let message = succeeds(&kubelet, &volume, "unmount");
    assert!(message.contains("its server or daemon did not answer"), "{message}");
    assert!(mounts_at(&volume.path()).is_empty());
    drop(user);
    server(node, Signal::SIGCONT);
    kubelet.end(volume.pod());
    node.assert_nothing_left("a server that slept with a user");
}

fn without_a_record(node: &VolumeNode) {
    serve(node, BIND);
    let kubelet = node.kubelet();
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let volume = nfs(&kubelet);
        fs::create_dir_all(volume.path()).unwrap();
        tool(&["bindfs", EXPORT, &volume.path().display().to_string()]);
        server(node, signal);
        succeeds(&kubelet, &volume, "unmount");
        assert!(mounts_at(&volume.path()).is_empty());
        if signal == Signal::SIGSTOP {
            server(node, Signal::SIGCONT);
        }
        kubelet.end(volume.pod());
        node.assert_nothing_left("a stranger's mount");
    }
}

fn never_ends(node: &VolumeNode) {
    node.disk("64M");
    serve(node, BIND);
    let kubelet = node.kubelet();
    let volume = nfs(&kubelet);
    let path = volume.path().display().to_string();
    fs::create_dir_all(&path).unwrap();
    // What is written here reaches the disk below with the unmount, and the disk takes nothing.
    tool(&["truncate", "-s", "16M", "/srv/disk/inner"]);
    tool(&["mkfs.ext4", "-q", "/srv/disk/inner"]);
    tool(&["mount", "-o", "loop", "/srv/disk/inner", &path]);
    fs::write(volume.path().join("file"), "x".repeat(1 << 20)).unwrap();
    let frozen = Frozen::freeze();
    let message = succeeds(&kubelet, &volume, "unmount");
    assert!(message.contains("did not answer: the kernel ends the mount when it can"), "{message}");
    assert!(mounts_at(&volume.path()).is_empty());
    drop(frozen);
    kubelet.end(volume.pod());
    node.assert_nothing_left("a disk that came back");
    let again = "mount -o loop,ro /srv/disk/inner /mnt && stat -c %s /mnt/file; umount /mnt";
    assert_eq!(tool(&["sh", "-c", again]).trim(), "1048576");
}

fn used_and_well(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = served(node, &kubelet);
    let user = User::start(&format!("exec sleep infinity < {}/file", volume.path().display()));
    let holds = format!("/proc/{}/fd/0", user.pid());
    let file = volume.path().join("file");
    until("the user", || fs::read_link(&holds).is_ok_and(|held| held == file));
    let why = kubelet.tear_down(&volume).refused().to_owned();
    assert!(why.contains(&format!("`sleep` (pid {}), open file", user.pid())), "{why}");
    assert!(why.contains("`busy: lazy`"), "{why}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "of the server\n", "it stays as it was");
    policy(node, "busyWait: 1s\nbusy: lazy\n");
    let message = succeeds(&kubelet, &volume, "unmount");
    assert!(message.contains("it was still in use: it was detached"), "{message}");
    assert!(!Path::new(&file).exists());
    drop(user);
    kubelet.end(volume.pod());
    node.assert_nothing_left("a share that was in use");
}
