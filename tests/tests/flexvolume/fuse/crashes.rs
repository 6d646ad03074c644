//! `kill -9` at every step of a mount and an unmount that a program serves, then the kubelet's next call:
//! mounted once by one program, or nothing left.
//!
//! Two kinds of sweep. The driver's own process is killed after each of its system calls: it makes the mount,
//! the record, the locks, and ends the program. And it is killed when it and the children that it forks have
//! made so many system calls together, in strides that share no factor with the length of a loop: a child
//! starts the program, and another one places it. The program itself runs free from its exec on, as it does
//! in real life, and outlives the driver.

use std::fs;

use harness::kernel::tree;
use harness::kubelet::{Kubelet, Outcome, Volume};
use harness::suite::volume;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{assert_no_group, daemons, lay_out, of_profile};
use crate::ours::{Call, folder};
use crate::users::until;

/// Every so many system calls of the tree.
const STRIDE: usize = 7;

/// How often a sweep is made that meets nobody.
const SWEEPS: usize = 6;

pub fn trials() -> Vec<Trial> {
    let tools = &["sshfs", "bindfs"];
    vec![
        volume("a_mount_by_descriptor_killed_anywhere_is_made_by_the_next_try", tools, |n| made(n, "sftp")),
        volume("a_mount_by_folder_killed_anywhere_is_made_by_the_next_try", tools, |n| made(n, "bindfs")),
        volume("a_mount_by_descriptor_killed_anywhere_is_undone_by_unmount", tools, |n| undone(n, "sftp")),
        volume("a_mount_by_folder_killed_anywhere_is_undone_by_unmount", tools, |n| undone(n, "bindfs")),
        volume("an_unmount_by_descriptor_killed_anywhere_is_done_by_the_next", tools, |n| done(n, "sftp")),
        volume("an_unmount_by_folder_killed_anywhere_is_done_by_the_next", tools, |n| done(n, "bindfs")),
        volume("a_mount_by_descriptor_killed_while_its_children_work_converges", tools, |n| amid(n, "sftp")),
        volume("a_mount_by_folder_killed_while_its_children_work_converges", tools, |n| amid(n, "bindfs")),
        volume("a_program_whose_driver_was_killed_is_ended_by_gc", tools, collected),
        volume("a_call_by_descriptor_answers_whichever_system_call_fails", tools, |n| refused(n, "sftp")),
        volume("a_call_by_folder_answers_whichever_system_call_fails", tools, |n| refused(n, "bindfs")),
        volume("a_mount_by_descriptor_killed_is_dead_before_anybody_comes", tools, alone),
    ]
}

fn name(profile: &str) -> &str {
    if profile == "sftp" { "sshfs" } else { profile }
}

#[track_caller]
fn assert_whole(node: &VolumeNode, volume: &Volume, profile: &str, when: &str) {
    assert_eq!(mounts_at(&volume.path()).len(), 1, "{when}");
    assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "of the server\n", "{when}");
    assert_eq!(daemons(node, name(profile)).len(), 1, "{when}");
}

#[track_caller]
fn assert_clean(node: &VolumeNode, volume: &Volume, when: &str) {
    node.assert_nothing_left(when);
    assert_no_group(volume, when);
}

fn prepare(node: &VolumeNode) -> Kubelet {
    lay_out(node, "");
    node.kubelet()
}

fn made(node: &VolumeNode, profile: &str) {
    let kubelet = prepare(node);
    let steps = kubelet.kill_at_each_step("mount", |n| {
        let (volume, when) = (of_profile(&kubelet, profile), format!("mount killed after {n}"));
        let first = kubelet.set_up(&volume);
        let second = kubelet.set_up(&volume);
        let there = matches!(second, Outcome::Mounted | Outcome::AlreadyMounted);
        assert!(there, "{when}: {first:?}, then {second:?}");
        assert_whole(node, &volume, profile, &when);
        kubelet.end(volume.pod());
        assert_clean(node, &volume, &when);
    });
    assert!(steps > 60, "only {steps} steps");
}

fn undone(node: &VolumeNode, profile: &str) {
    let kubelet = prepare(node);
    kubelet.kill_at_each_step("mount", |n| {
        let (volume, when) = (of_profile(&kubelet, profile), format!("mount killed after {n}"));
        let _ = kubelet.set_up(&volume);
        Call::unmount(&volume).succeeds();
        kubelet.end(volume.pod());
        assert_clean(node, &volume, &when);
    });
}

fn done(node: &VolumeNode, profile: &str) {
    let kubelet = prepare(node);
    let steps = kubelet.kill_at_each_step("unmount", |n| {
        let volume = of_profile(&kubelet, profile);
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
        assert_clean(node, &volume, &format!("unmount killed after {n}"));
    });
    assert!(steps > 30, "only {steps} steps");
}

fn amid(node: &VolumeNode, profile: &str) {
    let kubelet = prepare(node);
    let mut n = 1;
    loop {
        let (volume, when) =
            (of_profile(&kubelet, profile), format!("killed after {n} system calls of the tree"));
        folder(&volume);
        let seen = tree::kill_amid(&Call::mount(&volume), n);
        if n % 2 == 0 {
            Call::mount(&volume).succeeds();
            assert_whole(node, &volume, profile, &when);
        }
        Call::unmount(&volume).succeeds();
        fs::remove_dir_all(volume.pod().folder()).unwrap();
        assert_clean(node, &volume, &when);
        if seen.answer.is_some() {
            assert!(n > STRIDE * 20, "only {n} system calls");
            return;
        }
        n += STRIDE;
    }
}

/// The pod was deleted meanwhile: nobody mounts or unmounts any more. The program runs free, so whether it is
/// at work when the driver dies is the machine's choice: where none was, the sweep is made between its steps.
fn collected(node: &VolumeNode) {
    let kubelet = prepare(node);
    let met = (1..=STRIDE).any(|first| collected_from(node, &kubelet, first) > 0);
    assert!(met, "bindfs never ran when the driver was killed");
}

/// One sweep from the `n`-th system call on; how often the program was at work.
fn collected_from(node: &VolumeNode, kubelet: &Kubelet, mut n: usize) -> usize {
    let mut running = 0;
    loop {
        let (volume, when) =
            (of_profile(kubelet, "bindfs"), format!("killed after {n} system calls of the tree"));
        folder(&volume);
        let seen = tree::kill_amid(&Call::mount(&volume), n);
        let mounted = !mounts_at(&volume.path()).is_empty();
        running += usize::from(!mounted && !daemons(node, "bindfs").is_empty());
        let answer = Call::of("volume", &["gc"]).run();
        assert!(answer.ok(), "{when}: {answer:?}");
        if mounted {
            assert_whole(node, &volume, "bindfs", &when);
            Call::unmount(&volume).succeeds();
        }
        fs::remove_dir_all(volume.pod().folder()).unwrap();
        assert_clean(node, &volume, &when);
        if seen.answer.is_some() {
            return running;
        }
        n += STRIDE;
    }
}

/// The mount goes with the driver, and the program with the mount: it reads from a connection that is none. Whether it
/// is met at work before it has ended is the machine's choice: the sweep is made until it was.
fn alone(node: &VolumeNode) {
    let kubelet = prepare(node);
    let met = (0..SWEEPS).any(|_| alone_at_each_step(node, &kubelet) > 0);
    assert!(met, "sshfs never ran when the driver was killed");
}

/// One sweep; how often the program was at work.
fn alone_at_each_step(node: &VolumeNode, kubelet: &Kubelet) -> usize {
    let mut running = 0;
    kubelet.kill_at_each_step("mount", |n| {
        let volume = of_profile(kubelet, "sftp");
        let _ = kubelet.set_up(&volume);
        if mounts_at(&volume.path()).is_empty() {
            running += usize::from(!daemons(node, "sshfs").is_empty());
            until("sshfs has ended by itself", || daemons(node, "sshfs").is_empty());
        }
        Call::unmount(&volume).succeeds();
        kubelet.end(volume.pod());
        assert_clean(node, &volume, &format!("mount killed after {n}"));
    });
    running
}

#[cfg(target_arch = "x86_64")]
fn refused(node: &VolumeNode, profile: &str) {
    let kubelet = prepare(node);
    let outcomes = crate::crashes::refusals::refused_in_turn(
        |_| of_profile(&kubelet, profile),
        1,
        |volume, when| assert_whole(node, volume, profile, when),
        |volume, when| assert_clean(node, volume, when),
    );
    assert!(outcomes[0] > 50 && outcomes[1] > 20, "{outcomes:?}");
}

#[cfg(not(target_arch = "x86_64"))]
fn refused(_: &VolumeNode, _: &str) {
    eprintln!("system calls are made to fail on x86_64 only");
}
