//! `kill -9` after every system call, and every system call refused, of mounts and unmounts: whatever comes
//! next, the volume is there once and whole, or nothing is left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use harness::call::{Launch, tool};
use harness::kernel::trace::{self, End};
use harness::kubelet::{Outcome, Pod, Volume};
use harness::suite::{volume, volume_shared};
use harness::volume_look::{files, mounts_at};
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::ours::{Call, SECRET, SECRET_BASE64, STATE, folder, object, program};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("a_tmpfs_mount_killed_anywhere_is_made_by_the_next_try", &[], |n| retried(n, memory)),
        volume("a_bind_mount_killed_anywhere_is_made_by_the_next_try", &[], |n| retried(n, shared)),
        volume_shared("a_mount_killed_on_a_node_that_shares_is_made_by_the_next_try", &[], |n| {
            retried(n, memory)
        }),
        volume("a_tmpfs_mount_killed_anywhere_is_taken_away_by_unmount", &[], |n| given_up(n, memory)),
        volume("a_bind_mount_killed_anywhere_is_taken_away_by_unmount", &[], |n| given_up(n, shared)),
        volume("a_tmpfs_mount_killed_anywhere_is_cleaned_up_by_gc", &[], |n| collected(n, memory)),
        volume("a_bind_mount_killed_anywhere_is_cleaned_up_by_gc", &[], |n| collected(n, shared)),
        volume("a_tmpfs_unmount_killed_anywhere_is_finished_by_the_next", &[], |n| {
            unmounted_again(n, memory)
        }),
        volume("a_bind_unmount_killed_anywhere_is_finished_by_the_next", &[], |n| unmounted_again(n, shared)),
        volume("an_unmount_killed_anywhere_is_cleaned_up_by_gc", &[], unmount_collected),
        volume("a_tmpfs_call_answers_whichever_system_call_fails", &[], |n| refused(n, memory)),
        volume("a_bind_call_answers_whichever_system_call_fails", &[], |n| refused(n, shared)),
        volume("a_kernel_without_mounts_by_descriptor_mounts_all_the_same", &[], old_kernel),
        volume("on_an_old_kernel_a_failure_leaves_nothing", &[], old_kernel_failures),
        volume("a_record_of_an_earlier_boot_is_no_volume", &[], reboot),
    ]
}

const POLICY: &str = "
backends:
  tmpfs: {}
  bind: {roots: [{path: /srv/shared, create: true}]}
";

/// A tmpfs with secrets, for a group.
fn memory(pod: &Pod) -> Volume {
    let volume = pod.inline("nodeplug/tmpfs", "data").option("size", "1Mi").fs_group(1234);
    volume.secret("password", SECRET.as_bytes()).secret("empty", b"")
}

/// A folder that is made, given to a group, and shown under other owners.
fn shared(pod: &Pod) -> Volume {
    let volume = pod.inline("nodeplug/bind", "data").option("source", "/srv/shared").fs_group(1234);
    let volume = volume.option("subPath", "${pod.namespace}/${pod.name}").option("create", "dir");
    volume.option("fsGroupPolicy", "recursive").option("idmap", "0:100000:65536").option("noexec", "true")
}

fn lay_out(node: &VolumeNode) {
    node.policy(POLICY);
    tool(&["mkdir", "-p", "/srv/shared"]);
    fs::write("/srv/shared/other", "not to be touched").unwrap();
}

/// Exactly one mount, and all that belongs to it.
#[track_caller]
fn assert_whole(volume: &Volume, when: &str) {
    let mounts = mounts_at(&volume.path());
    assert_eq!(mounts.len(), 1, "{when}: {mounts:?}");
    let options = &mounts[0].options;
    assert!(["nosuid", "nodev"].iter().all(|o| options.iter().any(|x| x == o)), "{when}: {options:?}");
    let about = fs::metadata(volume.path()).unwrap();
    if volume.driver() == "nodeplug/tmpfs" {
        assert_eq!((about.gid(), about.mode() & 0o7777), (1234, 0o2770), "{when}");
        assert_eq!(fs::read_to_string(volume.path().join("password")).unwrap(), SECRET, "{when}");
        assert_eq!(fs::read_to_string(volume.path().join("empty")).unwrap(), "", "{when}");
        let size = mounts[0].super_options.iter().any(|o| o == "size=1024k");
        assert!(size, "{when}: {:?}", mounts[0].super_options);
    } else {
        assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (100_000, 101_234, 0o2770), "{when}");
        assert!(options.iter().any(|o| o == "noexec"), "{when}: {options:?}");
        assert_eq!(mounts[0].propagation, Vec::<String>::new(), "{when}");
    }
}

/// The state holds no secret, whatever was killed.
#[track_caller]
fn assert_no_secret(when: &str) {
    for file in files(STATE.as_ref()) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(SECRET) && !text.contains(SECRET_BASE64), "{when}: {}", file.display());
    }
}

#[track_caller]
fn assert_clean(node: &VolumeNode, when: &str) {
    node.assert_nothing_left(when);
    assert_eq!(fs::read_to_string("/srv/shared/other").unwrap(), "not to be touched");
    let other = fs::metadata("/srv/shared/other").unwrap();
    assert_eq!((other.gid(), other.mode() & 0o7777), (0, 0o644), "{when}");
    drop(fs::remove_dir_all("/srv/shared/default"));
}

fn retried(node: &VolumeNode, of: fn(&Pod) -> Volume) {
    lay_out(node);
    let kubelet = node.kubelet();
    let mut seen = (0, 0);
    kubelet.kill_at_each_step("mount", |n| {
        let volume = of(&kubelet.pod("default", "web"));
        let when = format!("mount killed after {n}");
        kubelet.set_up(&volume);
        assert_no_secret(&when);
        match kubelet.set_up(&volume) {
            Outcome::Mounted => seen.0 += 1,
            Outcome::AlreadyMounted => seen.1 += 1,
            other => panic!("{when}: {other:?}"),
        }
        assert_whole(&volume, &when);
        kubelet.tear_down(&volume).unmounted();
        kubelet.end(volume.pod());
        assert_clean(node, &when);
    });
    assert!(seen.0 > 20 && seen.1 > 1, "{seen:?}");
}

fn given_up(node: &VolumeNode, of: fn(&Pod) -> Volume) {
    lay_out(node);
    let kubelet = node.kubelet();
    kubelet.kill_at_each_step("mount", |n| {
        let volume = of(&kubelet.pod("default", "web"));
        let when = format!("mount killed after {n}");
        kubelet.set_up(&volume);
        // The kubelet has removed the folder where it could; unmount is told the path all the same.
        Call::unmount(&volume).succeeds();
        Call::unmount(&volume).succeeds();
        kubelet.end(volume.pod());
        assert_clean(node, &when);
    });
}

fn collected(node: &VolumeNode, of: fn(&Pod) -> Volume) {
    lay_out(node);
    let kubelet = node.kubelet();
    let mut mounted = 0;
    kubelet.kill_at_each_step("mount", |n| {
        let volume = of(&kubelet.pod("default", "web"));
        let when = format!("mount killed after {n}");
        kubelet.set_up(&volume);
        let answer = Call::of("volume", &["gc"]).run();
        assert!(answer.ok(), "{when}: {answer:?}");
        if mounts_at(&volume.path()).is_empty() {
            let left = files(STATE.as_ref());
            assert!(left.is_empty(), "{when}: {left:?}");
        } else {
            mounted += 1;
            assert_whole(&volume, &when);
            kubelet.tear_down(&volume).unmounted();
        }
        kubelet.end(volume.pod());
        assert_clean(node, &when);
    });
    assert!(mounted > 1);
}

fn unmounted_again(node: &VolumeNode, of: fn(&Pod) -> Volume) {
    lay_out(node);
    let kubelet = node.kubelet();
    kubelet.kill_at_each_step("unmount", |n| {
        let volume = of(&kubelet.pod("default", "web"));
        let when = format!("unmount killed after {n}");
        Call::mount(&{
            folder(&volume);
            volume.clone()
        })
        .succeeds();
        kubelet.tear_down(&volume);
        assert!(mounts_at(&volume.path()).len() <= 1, "{when}");
        if n % 2 == 0 {
            let again = kubelet.tear_down(&volume);
            assert!(matches!(again, Outcome::Unmounted | Outcome::NotThere), "{when}: {again:?}");
        } else {
            // The kubelet was restarted, too: it walks the folders that are there.
            kubelet.delete(volume.pod());
            let restart = kubelet.restart();
            assert!(restart.torn_down.iter().all(|(_, o)| *o == Outcome::Unmounted), "{when}: {restart:?}");
        }
        kubelet.end(volume.pod());
        assert_clean(node, &when);
    });
}

fn unmount_collected(node: &VolumeNode) {
    lay_out(node);
    for of in [memory, shared] {
        for n in 0.. {
            let volume = of(&Pod::new("default", "web"));
            let when = format!("unmount killed after {n}");
            folder(&volume);
            Call::mount(&volume).succeeds();
            let end = trace::kill_after(&Call::unmount(&volume), n);
            let answer = Call::of("volume", &["gc"]).run();
            assert!(answer.ok(), "{when}: {answer:?}");
            if mounts_at(&volume.path()).is_empty() {
                assert!(files(STATE.as_ref()).is_empty(), "{when}: {:?}", files(STATE.as_ref()));
            } else {
                Call::unmount(&volume).succeeds();
            }
            fs::remove_dir_all(volume.pod().folder()).unwrap();
            assert_clean(node, &when);
            if matches!(end, End::Finished(_)) {
                break;
            }
        }
    }
}

/// Where `main` begins, in system calls: what the C library needs before it cannot be answered for.
#[cfg(target_arch = "x86_64")]
fn beginning(call: &impl Launch, among: &[i64]) -> (usize, usize) {
    let (mut at, mut main) = (0, None);
    trace::watch(call, |entry| {
        if entry.number == libc::SYS_poll && main.is_none() {
            main = Some(at);
        }
        at += usize::from(among.contains(&entry.number));
    });
    (main.expect("the first system call of main"), at)
}

#[cfg(target_arch = "x86_64")]
fn refused(node: &VolumeNode, of: fn(&Pod) -> Volume) {
    lay_out(node);
    let outcomes = refused_in_turn(of, 2, assert_whole, |_, when| assert_clean(node, when));
    assert!(outcomes[0] > 50 && outcomes[1] > 20, "{outcomes:?}");
}

/// Refuses every system call of the driver's own process, one in a run, `rounds` times by another errno, in a
/// mount and in an unmount. Each is answered; a success is `whole`, a failure mounts nothing, and an unmount
/// leaves all `clean`. How many failed, and how many succeeded all the same.
#[cfg(target_arch = "x86_64")]
pub fn refused_in_turn(
    of: impl Fn(&Pod) -> Volume,
    rounds: usize,
    whole: impl Fn(&Volume, &str),
    clean: impl Fn(&Volume, &str),
) -> [usize; 2] {
    let errnos =
        [libc::ENOSPC, libc::EPERM, libc::ENOMEM, libc::EIO, libc::EMFILE, libc::EINTR, libc::ENOSYS];
    // These never fail, or there would be nobody left to say so.
    let sure = [
        libc::SYS_exit_group,
        libc::SYS_umask,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_geteuid,
        libc::SYS_kill,
    ];
    let all: Vec<i64> = (0..600).filter(|n| !sure.contains(n)).collect();
    let mut outcomes = [0, 0];
    for unmount in [false, true] {
        let volume = of(&Pod::new("default", "web"));
        let (mount, take) = (Call::mount(&volume), Call::unmount(&volume));
        let prepare = || {
            folder(&volume);
            if unmount {
                mount.succeeds();
            }
        };
        let call = if unmount { &take } else { &mount };
        prepare();
        let (first, last) = beginning(call, &all);
        take.succeeds();
        for n in first..last {
            for round in 0..rounds {
                let errno = errnos[(n + round * 3) % errnos.len()];
                prepare();
                let (answer, failed) = trace::fail_nth(call, &all, n, errno);
                let when = format!("{} with system call {n} ({failed:?}) refused by {errno}", call.verb());
                assert_no_secret(&when);
                if failed == Some(libc::SYS_write.cast_unsigned()) && answer.stdout.is_empty() {
                    // The answer itself could not be written.
                    assert!(answer.ok(), "{when}: {answer:?}");
                } else {
                    let json = object(&when, &answer);
                    let told = json.to_string();
                    assert!(!told.contains(SECRET) && !told.contains(SECRET_BASE64), "{when}: {told}");
                    let success = json["status"] == "Success";
                    outcomes[usize::from(success)] += 1;
                    let mounted = !mounts_at(&volume.path()).is_empty();
                    if success {
                        assert_eq!(mounted, !unmount, "{when}: {told}");
                    } else if !unmount {
                        assert!(!mounted, "{when}: a failure that leaves a mount: {told}");
                    }
                    if mounted && !unmount {
                        whole(&volume, &when);
                    }
                }
                take.succeeds();
                fs::remove_dir_all(volume.pod().folder()).unwrap();
                clean(&volume, &when);
            }
        }
    }
    outcomes
}

#[cfg(not(target_arch = "x86_64"))]
fn refused(_: &VolumeNode, _: fn(&Pod) -> Volume) {
    eprintln!("system calls are made to fail on x86_64 only");
}

/// What each older kernel does not know (the manual page of each).
#[cfg(target_arch = "x86_64")]
pub const OLDER: [(&str, &[i64]); 4] = [
    ("before 5.12", &[libc::SYS_mount_setattr]),
    ("before 5.8", &[libc::SYS_mount_setattr, libc::SYS_faccessat2]),
    (
        "before 5.6",
        &[libc::SYS_mount_setattr, libc::SYS_openat2, libc::SYS_pidfd_getfd, libc::SYS_close_range],
    ),
    (
        "before 5.2",
        &[
            libc::SYS_mount_setattr,
            libc::SYS_openat2,
            libc::SYS_close_range,
            libc::SYS_pidfd_open,
            libc::SYS_clone3,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
        ],
    ),
];

/// [`shared`] without an id map, which no such kernel has.
#[cfg(target_arch = "x86_64")]
fn plainly_shared(pod: &Pod) -> Volume {
    shared(pod).without("idmap")
}

#[cfg(target_arch = "x86_64")]
fn old_kernel(node: &VolumeNode) {
    lay_out(node);
    for (kernel, lacking) in OLDER {
        for (of, read_only) in [
            (memory as fn(&Pod) -> Volume, false),
            (plainly_shared, false),
            (memory, true),
            (plainly_shared, true),
        ] {
            let pod = Pod::new("default", "web");
            let volume = if read_only { of(&pod).read_only() } else { of(&pod) };
            let when = format!("{kernel} {} {read_only}", volume.driver());
            folder(&volume);
            let answer = trace::fail_all(&Call::mount(&volume), lacking, libc::ENOSYS);
            let json = object(&when, &answer);
            assert_eq!(json["status"], "Success", "{when}: {json}");
            let mounts = mounts_at(&volume.path());
            assert_eq!(mounts.len(), 1, "{when}");
            for option in ["nosuid", "nodev", if read_only { "ro" } else { "rw" }] {
                assert!(
                    mounts[0].options.iter().any(|o| o == option),
                    "{when}: {option}: {:?}",
                    mounts[0].options
                );
            }
            if lacking.contains(&libc::SYS_fsopen) {
                let message = json["message"].as_str().unwrap();
                assert!(message.contains("this kernel has no"), "{when}: {message}");
            }
            if volume.driver() == "nodeplug/tmpfs" {
                assert_eq!(fs::read_to_string(volume.path().join("password")).unwrap(), SECRET, "{when}");
            }
            let answer = trace::fail_all(&Call::unmount(&volume), lacking, libc::ENOSYS);
            assert_eq!(object(&when, &answer)["status"], "Success", "{when}: {answer:?}");
            fs::remove_dir_all(volume.pod().folder()).unwrap();
            assert_clean(node, &when);
        }
    }
}

/// On a kernel where the mount is seen from the beginning, what fails later takes it away.
#[cfg(target_arch = "x86_64")]
fn old_kernel_failures(node: &VolumeNode) {
    lay_out(node);
    // An id map needs mount_setattr(2); a secret larger than the volume needs room.
    let large = "s".repeat(90_000);
    let pod = Pod::new("default", "web");
    let volumes = [
        shared(&pod),
        pod.inline("nodeplug/tmpfs", "data").option("size", "64Ki").secret("large", large.as_bytes()),
    ];
    for volume in volumes {
        folder(&volume);
        let answer = trace::fail_all(&Call::mount(&volume), OLDER[3].1, libc::ENOSYS);
        let json = object(volume.driver(), &answer);
        assert_eq!(json["status"], "Failure", "{json}");
        assert!(
            mounts_at(&volume.path()).is_empty(),
            "{}: the next try would take it for whole",
            volume.driver()
        );
        Call::unmount(&volume).succeeds();
        fs::remove_dir_all(pod.folder()).unwrap();
        assert_clean(node, volume.driver());
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn old_kernel(_: &VolumeNode) {
    eprintln!("system calls are made to fail on x86_64 only");
}

#[cfg(not(target_arch = "x86_64"))]
fn old_kernel_failures(_: &VolumeNode) {
    eprintln!("system calls are made to fail on x86_64 only");
}

/// Some nodes keep /run on a disk: then the records of an earlier boot are still there.
fn reboot(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let (living, gone) = (memory(&kubelet.pod("default", "living")), shared(&kubelet.pod("default", "gone")));
    for volume in [&living, &gone] {
        kubelet.set_up(volume).mounted();
    }
    kubelet.delete(gone.pod());
    tool(&["cp", "-a", STATE, "/var/lib/kept"]);
    node.reboot();
    tool(&["mkdir", "-p", "/run/nodeplug"]);
    tool(&["cp", "-a", "/var/lib/kept", STATE]);
    tool(&["mkdir", "-p", "/srv/shared"]);
    let list = Call::of("volume", &["list", "--output", "json"]).run();
    assert!(list.ok() && list.json.as_ref().unwrap()["rows"].as_array().unwrap().is_empty(), "{list:?}");
    let restart = kubelet.restart();
    assert_eq!(restart.set_up, [(living.path(), Outcome::Mounted)]);
    assert_eq!(restart.torn_down, [(gone.path(), Outcome::Unmounted)]);
    assert_whole(&living, "after a reboot");
    kubelet.end(living.pod());
    kubelet.end(gone.pod());
    node.assert_nothing_left("after a reboot");
    assert!(Path::new(&program("tmpfs")).exists());
}
