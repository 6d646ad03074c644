//! System calls that fail: each once, and all of those that an older kernel lacks.

use std::fs;

use harness::call::Launch;
use harness::kernel::trace;
use harness::kubelet::{Pod, Volume};
use harness::suite::volume;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{assert_clean, assert_no_secret, assert_whole, lay_out, memory, shared};
use crate::ours::{Call, SECRET, SECRET_BASE64, folder, object};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("a_tmpfs_call_answers_whichever_system_call_fails", &[], |n| refused(n, memory)),
        volume("a_bind_call_answers_whichever_system_call_fails", &[], |n| refused(n, shared)),
        volume("a_kernel_without_mounts_by_descriptor_mounts_all_the_same", &[], old_kernel),
        volume("on_an_old_kernel_a_failure_leaves_nothing", &[], old_kernel_failures),
    ]
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
