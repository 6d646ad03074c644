//! `kill -9` at every step of a mount and an unmount of an overlay, then the kubelet's next call: mounted once,
//! or nothing left.
//!
//! The driver's own process is killed after each of its system calls. And it is killed when it and its child
//! have made so many system calls together, every one of them: the child makes the overlay itself, and an
//! upper layer that it leaves behind would be refused to the next try.

use std::fs;

use harness::call::tool;
use harness::kernel::tree;
use harness::kubelet::{Kubelet, Outcome, Pod, Volume};
use harness::suite::volume;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{both, lay_out};
use crate::ours::{Call, folder};

pub fn trials() -> Vec<Trial> {
    let tools = &["mkfs.ext4"];
    vec![
        volume("an_overlay_mount_killed_anywhere_is_made_by_the_next_try", tools, made_by_the_next),
        volume("an_overlay_mount_killed_anywhere_is_undone_by_unmount", tools, undone_by_unmount),
        volume("an_overlay_unmount_killed_anywhere_is_done_by_the_next", tools, done_by_the_next),
        volume("an_overlay_s_call_answers_whichever_system_call_fails", tools, refused),
        volume("an_overlay_mount_killed_while_its_child_works_converges", tools, child_at_work),
    ]
}

/// An image and a folder below, a folder on disk above, for a group.
fn whole(kubelet: &Kubelet) -> Volume {
    let volume = both(kubelet, "web").option("lower", "/srv/layers/app,/srv/layers/ext4").fs_group(1234);
    volume.option("upper", "/srv/upper/${pod.namespace}/${pod.name}")
}

fn prepare(node: &VolumeNode) -> Kubelet {
    lay_out(node);
    tool(&["truncate", "-s", "1M", "/srv/layers/ext4"]);
    tool(&["mkfs.ext4", "-q", "/srv/layers/ext4"]);
    node.kubelet()
}

#[track_caller]
fn assert_whole(volume: &Volume, when: &str) {
    assert_eq!(mounts_at(&volume.path()).len(), 1, "{when}");
    assert_eq!(super::owner(volume.path()), (7, 1234, 0o2771), "{when}");
    assert_eq!(fs::read_to_string(volume.path().join("which")).unwrap(), "app", "{when}");
    fs::write(volume.path().join("written"), "").unwrap();
}

/// Each round begins without an upper layer.
fn forget() {
    drop(fs::remove_dir_all("/srv/upper/shop"));
}

fn made_by_the_next(node: &VolumeNode) {
    let kubelet = prepare(node);
    let steps = kubelet.kill_at_each_step("mount", |n| {
        let (volume, when) = (whole(&kubelet), format!("mount killed after {n}"));
        let first = kubelet.set_up(&volume);
        let second = kubelet.set_up(&volume);
        let there = matches!(second, Outcome::Mounted | Outcome::AlreadyMounted);
        assert!(there, "{when}: {first:?}, then {second:?}");
        assert_whole(&volume, &when);
        kubelet.end(volume.pod());
        node.assert_nothing_left(&when);
        forget();
    });
    assert!(steps > 80, "only {steps} steps");
}

fn undone_by_unmount(node: &VolumeNode) {
    let kubelet = prepare(node);
    kubelet.kill_at_each_step("mount", |n| {
        let (volume, when) = (whole(&kubelet), format!("mount killed after {n}"));
        let _ = kubelet.set_up(&volume);
        Call::unmount(&volume).succeeds();
        kubelet.end(volume.pod());
        node.assert_nothing_left(&when);
        forget();
    });
}

fn done_by_the_next(node: &VolumeNode) {
    let kubelet = prepare(node);
    let steps = kubelet.kill_at_each_step("unmount", |n| {
        let volume = whole(&kubelet);
        kubelet.set_up(&volume).mounted();
        let first = kubelet.tear_down(&volume);
        if first != Outcome::Unmounted {
            let second = kubelet.tear_down(&volume);
            assert!(
                matches!(second, Outcome::Unmounted | Outcome::NotThere),
                "step {n}: {first:?}, {second:?}"
            );
        }
        kubelet.end(volume.pod());
        node.assert_nothing_left(&format!("unmount killed after {n}"));
    });
    assert!(steps > 20, "only {steps} steps");
}

fn child_at_work(node: &VolumeNode) {
    let kubelet = prepare(node);
    for n in 1.. {
        let (volume, when) = (whole(&kubelet), format!("killed after {n} system calls of the tree"));
        folder(&volume);
        let seen = tree::kill_after(&Call::mount(&volume), n);
        if n % 2 == 0 {
            Call::mount(&volume).succeeds();
            assert_whole(&volume, &when);
        }
        Call::unmount(&volume).succeeds();
        fs::remove_dir_all(volume.pod().folder()).unwrap();
        node.assert_nothing_left(&when);
        forget();
        if seen.answer.is_some() {
            assert!(n > 120, "only {n} system calls");
            break;
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn refused(node: &VolumeNode) {
    let kubelet = prepare(node);
    let clean = |_: &Volume, when: &str| {
        node.assert_nothing_left(when);
        forget();
    };
    // One layer: each is opened and looked at in the same way.
    let of = |_: &Pod| whole(&kubelet).option("lower", "/srv/layers/ext4");
    let mounted = |volume: &Volume, when: &str| {
        assert_eq!((mounts_at(&volume.path()).len(), super::owner(volume.path()).1), (1, 1234), "{when}");
    };
    let outcomes = crate::crashes::refusals::refused_in_turn(of, 1, mounted, clean);
    assert!(outcomes[0] > 50 && outcomes[1] > 20, "{outcomes:?}");
}

#[cfg(not(target_arch = "x86_64"))]
fn refused(_: &VolumeNode) {
    eprintln!("system calls are made to fail on x86_64 only");
}
