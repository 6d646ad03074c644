//! What a program does to its volume, and what becomes of it.

use std::fs;
use std::path::Path;

use harness::call::tool;
use harness::kernel::trace;
use harness::kubelet::{Outcome, Pod};
use harness::suite::{volume, volume_shared};
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid as Number;

use super::{assert_no_group, daemon, daemons, lay_out, of_profile};
use crate::ours::{Call, folder, object};
use crate::users::{User, until};

pub fn trials() -> Vec<Trial> {
    let tools = &["sshfs", "bindfs", "rclone"];
    vec![
        volume("a_program_that_mounts_a_folder_serves_a_pod", tools, by_folder),
        volume("a_program_that_takes_a_descriptor_serves_a_pod", tools, by_descriptor),
        volume("a_volume_whose_program_died_is_made_anew_or_unmounted", tools, dead),
        volume("a_program_serves_as_long_as_its_volume_is_in_use", &["sshfs"], in_use),
        volume("a_volume_whose_program_stands_still_is_unmounted", &["sshfs", "bindfs"], standing_still),
        volume("on_an_older_kernel_a_program_serves_all_the_same", &["sshfs", "bindfs"], older_kernels),
        volume("a_program_that_does_not_want_to_end_is_killed", &["sshfs"], stubborn),
        volume("a_program_keeps_no_other_volume_s_mount", tools, |n| keeps_nothing(n, false)),
        volume_shared("a_program_keeps_no_mount_of_a_node_that_shares", tools, |n| keeps_nothing(n, true)),
        volume("a_group_gets_the_root_folder_where_the_pod_asks", &["sshfs"], group),
        volume("volumes_of_one_profile_have_a_program_each", &["sshfs"], many),
    ]
}

fn by_folder(node: &VolumeNode) {
    lay_out(node, "");
    let kubelet = node.kubelet();
    for (profile, kind) in [("bindfs", "fuse"), ("rclone", "fuse.rclone")] {
        let volume = of_profile(&kubelet, profile).fs_group(1234);
        kubelet.set_up(&volume).mounted();
        let mounts = mounts_at(&volume.path());
        assert_eq!((mounts.len(), mounts[0].kind.as_str()), (1, kind), "{mounts:?}");
        assert!(["nosuid", "nodev"].iter().all(|o| mounts[0].options.iter().any(|x| x == o)), "{mounts:?}");
        let pid = daemon(node, profile);
        assert_eq!(super::stat(pid, 6), pid.to_string(), "it leads a session");
        let inside = kubelet.container(&[&volume]);
        assert_eq!(inside.says("cat /mnt/data/file"), "of the server\n");
        inside.says(&format!("echo {profile} > /mnt/data/{profile}"));
        assert_eq!(fs::read_to_string(format!("/srv/shared/a/{profile}")).unwrap(), format!("{profile}\n"));
        inside.stop();
        assert_eq!(kubelet.restart().set_up, [(volume.path(), Outcome::AlreadyMounted)]);
        assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "of the server\n");
        kubelet.tear_down(&volume).unmounted();
        assert!(daemons(node, profile).is_empty());
        kubelet.end(volume.pod());
        node.assert_nothing_left(profile);
        assert_no_group(&volume, "afterwards");
    }
}

fn by_descriptor(node: &VolumeNode) {
    lay_out(node, "");
    let kubelet = node.kubelet();
    let volume = of_profile(&kubelet, "sftp").option("mountOptions", "noatime,max_read=65536");
    kubelet.set_up(&volume).mounted();
    let mount = &mounts_at(&volume.path())[0];
    assert!(mount.options.iter().any(|o| o == "noatime"), "{mount:?}");
    for option in ["default_permissions", "allow_other", "max_read=65536"] {
        assert!(mount.super_options.iter().any(|o| o == option), "{option}: {mount:?}");
    }
    fs::write(volume.path().join("new"), "x").unwrap();
    assert_eq!(fs::read_to_string("/srv/shared/a/new").unwrap(), "x");
    // Whoever asks again is told that it is there.
    let told = Call::mount(&volume).succeeds();
    assert_eq!(told["message"], "it is mounted already");
    kubelet.end(volume.pod());
    node.assert_nothing_left("afterwards");
}

/// The kubelet takes a dead mount for a mount, so that only a person, or an unmount, comes by.
fn dead(node: &VolumeNode) {
    lay_out(node, "");
    let kubelet = node.kubelet();
    for (profile, name) in [("sftp", "sshfs"), ("bindfs", "bindfs")] {
        let volume = of_profile(&kubelet, profile);
        kubelet.set_up(&volume).mounted();
        let first = daemon(node, name);
        kill(Number::from_raw(first), Signal::SIGKILL).unwrap();
        let gone = || fs::read_dir(volume.path()).is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN));
        until("the mount is dead", gone);
        assert_eq!(kubelet.set_up(&volume), Outcome::AlreadyMounted);
        Call::mount(&volume).succeeds();
        assert_ne!(daemon(node, name), first);
        assert_eq!(mounts_at(&volume.path()).len(), 1);
        assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "of the server\n");

        kill(Number::from_raw(daemon(node, name)), Signal::SIGKILL).unwrap();
        until("the mount is dead again", gone);
        kubelet.tear_down(&volume).unmounted();
        kubelet.end(volume.pod());
        node.assert_nothing_left(profile);
        assert_no_group(&volume, "afterwards");
    }
}

/// An unmount that fails takes nothing from who still reads.
fn in_use(node: &VolumeNode) {
    lay_out(node, "");
    let kubelet = node.kubelet();
    let volume = of_profile(&kubelet, "sftp");
    kubelet.set_up(&volume).mounted();
    let pid = daemon(node, "sshfs");
    let user = User::start(&format!("exec sleep 1000 < {}/file", volume.path().display()));
    let link = format!("/proc/{}/fd/0", user.pid());
    until("the file is open", || fs::read_link(&link).is_ok_and(|file| file.ends_with("file")));
    let why = kubelet.tear_down(&volume).refused().to_owned();
    assert!(why.contains("in use") || why.contains("busy"), "{why}");
    assert_eq!(daemon(node, "sshfs"), pid);
    assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "of the server\n");
    drop(user);
    kubelet.tear_down(&volume).unmounted();
    kubelet.end(volume.pod());
    node.assert_nothing_left("afterwards");
    assert_no_group(&volume, "afterwards");
}

fn standing_still(node: &VolumeNode) {
    lay_out(node, "");
    let kubelet = node.kubelet();
    for (profile, name) in [("sftp", "sshfs"), ("bindfs", "bindfs")] {
        let volume = of_profile(&kubelet, profile);
        kubelet.set_up(&volume).mounted();
        kill(Number::from_raw(daemon(node, name)), Signal::SIGSTOP).unwrap();
        // A kubelet would wait for ever before the call: it asks what is mounted for its status.
        Call::unmount(&volume).succeeds();
        assert!(daemons(node, name).is_empty());
        kubelet.end(volume.pod());
        node.assert_nothing_left(profile);
        assert_no_group(&volume, "afterwards");
    }
}

/// What a mount by descriptor needs, older kernels have in other words. A program that mounts a folder needs
/// open_tree(2) to get its mount out of where nobody sees it.
#[cfg(target_arch = "x86_64")]
fn older_kernels(node: &VolumeNode) {
    lay_out(node, "");
    let kubelet = node.kubelet();
    for (kernel, lacking) in crate::crashes::refusals::OLDER {
        for profile in ["sftp", "bindfs"] {
            let (volume, when) = (of_profile(&kubelet, profile), format!("{profile} {kernel}"));
            folder(&volume);
            let answer = trace::fail_all(&Call::mount(&volume), lacking, libc::ENOSYS);
            let answer = object(&when, &answer);
            let able = answer["status"] == "Success";
            // The workshop's child is not traced: it has the kernel that is there.
            assert!(able || profile == "bindfs", "{when}: {answer}");
            assert_eq!(mounts_at(&volume.path()).len(), usize::from(able), "{when}: {answer}");
            if able {
                let mounts = mounts_at(&volume.path());
                assert!(
                    ["nosuid", "nodev"].iter().all(|o| mounts[0].options.iter().any(|x| x == o)),
                    "{mounts:?}"
                );
                assert_eq!(
                    fs::read_to_string(volume.path().join("file")).unwrap(),
                    "of the server\n",
                    "{when}"
                );
            }
            let answer = trace::fail_all(&Call::unmount(&volume), lacking, libc::ENOSYS);
            assert_eq!(object(&when, &answer)["status"], "Success", "{when}: {answer:?}");
            fs::remove_dir_all(volume.pod().folder()).unwrap();
            node.assert_nothing_left(&when);
            assert_no_group(&volume, "afterwards");
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn older_kernels(_: &VolumeNode) {
    eprintln!("system calls are made to fail on x86_64 only");
}

/// A shell that takes no notice of SIGTERM, and has the real program below it.
const STUBBORN: &str = r#"
      stubborn:
        program: /opt/stubborn
        arguments: ["${mountpoint}", "${secret.token}"]
        secrets: [token]
        environment: {TOKEN: "${secret.token}"}
"#;

fn stubborn(node: &VolumeNode) {
    lay_out(node, STUBBORN);
    // What it started finds the secret, too, by the path that its parent was given.
    let script = "#!/bin/sh\ntrap '' TERM\n(sh -c 'cat \"$0\" \"$TOKEN\"' \"$2\") > /srv/shared/seen\n\
                  stat -Lc '%a %u' \"$2\" >> /srv/shared/seen\n\
                  sshfs host:/srv/shared/a \"$1\" -f -o ssh_command=/opt/sftp\nwhile :; do sleep 1000; done\n";
    node.write_program(Path::new("/opt/stubborn"), script);
    let kubelet = node.kubelet();
    let volume = of_profile(&kubelet, "stubborn").secret("token", b"hunter2-4711\n");
    kubelet.set_up(&volume).mounted();
    assert_eq!(fs::read_to_string("/srv/shared/seen").unwrap(), "hunter2-4711\nhunter2-4711\n600 0\n");
    super::assert_nowhere("hunter2-4711");
    assert_eq!(daemons(node, "stubborn").len(), 1);
    kubelet.tear_down(&volume).unmounted();
    for name in ["stubborn", "sshfs", "sleep"] {
        assert!(daemons(node, name).is_empty(), "{name} still runs");
    }
    kubelet.end(volume.pod());
    node.assert_nothing_left("afterwards");
    assert_no_group(&volume, "afterwards");
}

/// A program lives in a mount namespace of its own. Where the node does not share its mounts, copies of them
/// stay there; but never one of a pod's volume, whose disk would stay in use.
fn keeps_nothing(node: &VolumeNode, shared: bool) {
    lay_out(node, "");
    let kubelet = node.kubelet();
    let before = Pod::new("shop", "before").inline("nodeplug/tmpfs", "before");
    kubelet.set_up(&before).mounted();
    tool(&["mkdir", "-p", "/srv/other"]);
    tool(&["mount", "-t", "tmpfs", "other", "/srv/other"]);
    let volumes = ["sftp", "bindfs"].map(|profile| of_profile(&kubelet, profile));
    for volume in &volumes {
        kubelet.set_up(volume).mounted();
    }
    let after = Pod::new("shop", "after").inline("nodeplug/tmpfs", "after");
    kubelet.set_up(&after).mounted();
    tool(&["umount", "/srv/other"]);
    kubelet.tear_down(&after).unmounted();
    for name in ["sshfs", "bindfs"] {
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", daemon(node, name))).unwrap();
        assert!(!mounts.contains("/before") && !mounts.contains("/after"), "{name}: {mounts}");
        assert_eq!(mounts.contains("/srv/other"), !shared, "{name}: {mounts}");
    }
    assert_eq!(mounts_at(&before.path()).len(), 1, "what a program lets go of stays on the node");
    for volume in volumes.iter().chain([&before, &after]) {
        kubelet.end(volume.pod());
    }
    node.assert_nothing_left("afterwards");
}

fn group(node: &VolumeNode) {
    lay_out(node, "");
    let group = |path: &Path| std::os::unix::fs::MetadataExt::gid(&fs::metadata(path).unwrap());
    let kubelet = node.kubelet();
    let volume = of_profile(&kubelet, "sftp").fs_group(1234);
    kubelet.set_up(&volume).mounted();
    assert_eq!(group(Path::new("/srv/shared/a")), 0, "nothing unless the pod asks");
    assert_eq!(group(&volume.path()), 1234, "but the profile may show it");
    kubelet.tear_down(&volume).unmounted();
    let volume = volume.option("fsGroupPolicy", "root");
    kubelet.set_up(&volume).mounted();
    assert_eq!(group(Path::new("/srv/shared/a")), 1234);
    assert_eq!(group(Path::new("/srv/shared/a/file")), 0);
    kubelet.end(volume.pod());
    node.assert_nothing_left("afterwards");
}

fn many(node: &VolumeNode) {
    lay_out(node, "");
    let kubelet = node.kubelet();
    let volumes: Vec<_> = (0..6).map(|_| of_profile(&kubelet, "sftp")).collect();
    let outcomes = kubelet.set_up_all(&volumes);
    assert!(outcomes.iter().all(|o| *o == Outcome::Mounted), "{outcomes:?}");
    assert_eq!(daemons(node, "sshfs").len(), 6);
    kubelet.tear_down(&volumes[0]).unmounted();
    assert_eq!(daemons(node, "sshfs").len(), 5);
    for volume in &volumes[1..] {
        assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "of the server\n");
    }
    for volume in &volumes {
        kubelet.end(volume.pod());
        folder(volume);
        Call::unmount(volume).succeeds();
        fs::remove_dir_all(volume.pod().folder()).unwrap();
        assert_no_group(volume, "afterwards");
    }
    node.assert_nothing_left("afterwards");
}
