//! `kill -9` at every step of a mount and an unmount, then the kubelet's next call: mounted once, or nothing
//! left.
//!
//! Two kinds of sweep. The driver's own process is killed after each of its system calls: all that outlives
//! it (the record, the mount at the volume's folder, the locks) it does itself. And it is killed when it,
//! its child and the helper have made the n-th system call together, in strides that share no factor with
//! the length of a loop: the child and the helper change a private namespace, which goes with them, and a
//! folder on the share, which is made again.

use std::fs;

use harness::kernel::tree;
use harness::kubelet::{Kubelet, Outcome, Volume};
use harness::suite::volume;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{BIND, cifs, nfs, serve, succeeds};

/// Every so many system calls of the whole tree.
const STRIDE: usize = 7;

pub fn trials() -> Vec<Trial> {
    vec![
        volume("a_mount_of_a_share_killed_at_any_step_is_made_by_the_next", &[], made_by_the_next),
        volume("a_mount_of_a_share_killed_at_any_step_is_undone_by_unmount", &[], undone_by_unmount),
        volume("an_unmount_of_a_share_killed_at_any_step_is_done_by_the_next", &[], done_by_the_next),
        volume("a_mount_of_a_share_killed_while_its_helper_works_converges", &[], helper_at_work),
        volume("an_unmount_of_a_share_killed_while_its_child_works_converges", &[], child_at_work),
    ]
}

/// A volume whose mount does all that a share's can.
fn whole(kubelet: &Kubelet) -> Volume {
    let volume = cifs(kubelet).option("subDir", "a/b").option("createSubDir", "true");
    volume.fs_group(1234)
}

fn made_by_the_next(node: &VolumeNode) {
    serve(node, BIND);
    let kubelet = node.kubelet();
    let volume = whole(&kubelet);
    let steps = kubelet.kill_at_each_step("mount", |n| {
        let first = kubelet.set_up(&volume);
        let second = kubelet.set_up(&volume);
        let there = matches!(second, Outcome::Mounted | Outcome::AlreadyMounted);
        assert!(there, "step {n}: {first:?}, then {second:?}");
        assert_eq!(mounts_at(&volume.path()).len(), 1, "step {n}");
        kubelet.tear_down(&volume).unmounted();
        node.assert_nothing_left(&format!("killed after {n} system calls"));
    });
    assert!(steps > 40, "only {steps} steps");
    kubelet.end(volume.pod());
}

fn undone_by_unmount(node: &VolumeNode) {
    serve(node, BIND);
    let kubelet = node.kubelet();
    let volume = whole(&kubelet);
    kubelet.kill_at_each_step("mount", |n| {
        let _ = kubelet.set_up(&volume);
        // The kubelet takes the folder away where it can, and then makes no call: this is as if it could not.
        fs::create_dir_all(volume.path()).unwrap();
        succeeds(&kubelet, &volume, "unmount");
        fs::remove_dir(volume.path()).unwrap();
        node.assert_nothing_left(&format!("killed after {n} system calls"));
    });
}

fn done_by_the_next(node: &VolumeNode) {
    serve(node, BIND);
    let kubelet = node.kubelet();
    let volume = nfs(&kubelet);
    let steps = kubelet.kill_at_each_step("unmount", |n| {
        kubelet.set_up(&volume).mounted();
        let first = kubelet.tear_down(&volume);
        if first != Outcome::Unmounted {
            let second = kubelet.tear_down(&volume);
            assert_eq!(second, Outcome::Unmounted, "step {n}: {first:?}");
        }
        node.assert_nothing_left(&format!("killed after {n} system calls"));
    });
    assert!(steps > 20, "only {steps} steps");
    kubelet.end(volume.pod());
}

/// Kills `verb` at each stride of the tree's system calls, then does `round`.
fn sweep_tree(kubelet: &Kubelet, volume: &Volume, verb: &str, before: impl Fn(), round: impl Fn(usize)) {
    let (path, json) = (volume.path().display().to_string(), volume.mount_json().unwrap());
    let words = if verb == "mount" { vec![verb, &path, &json] } else { vec![verb, &path] };
    let call = kubelet.driver_call(volume.driver(), &words);
    let mut n = 1;
    loop {
        before();
        let seen = tree::kill_after(&call, n);
        round(n);
        if seen.answer.is_some() {
            assert!(n > STRIDE * 10, "only {n} system calls");
            return;
        }
        n += STRIDE;
    }
}

fn helper_at_work(node: &VolumeNode) {
    serve(node, BIND);
    let kubelet = node.kubelet();
    let volume = whole(&kubelet);
    let fresh = || fs::create_dir_all(volume.path()).unwrap();
    sweep_tree(&kubelet, &volume, "mount", fresh, |n| {
        if n % 2 == 0 {
            succeeds(&kubelet, &volume, "mount");
            assert_eq!(mounts_at(&volume.path()).len(), 1, "system call {n}");
        }
        succeeds(&kubelet, &volume, "unmount");
        fs::remove_dir(volume.path()).unwrap();
        node.assert_nothing_left(&format!("killed after {n} system calls of the tree"));
    });
}

fn child_at_work(node: &VolumeNode) {
    serve(node, BIND);
    let kubelet = node.kubelet();
    let volume = nfs(&kubelet);
    let mounted = || {
        fs::create_dir_all(volume.path()).unwrap();
        succeeds(&kubelet, &volume, "mount");
    };
    sweep_tree(&kubelet, &volume, "unmount", mounted, |n| {
        succeeds(&kubelet, &volume, "unmount");
        fs::remove_dir(volume.path()).unwrap();
        node.assert_nothing_left(&format!("killed after {n} system calls of the tree"));
    });
}
