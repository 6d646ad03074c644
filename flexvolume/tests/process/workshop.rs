//! What a child makes in its own mount namespace arrives here, and nothing else of it does.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use flexvolume::kernel::helper::{Helper, run};
use flexvolume::kernel::workshop::{Made, apart, build};
use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::{WaitPidFlag, waitpid};
use node::store::Lock;
use node::{Context, Error, Kind, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::{LONG, SHORT, act, folder, trial, until, volume};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_tree_made_in_a_child_is_attached_here", a_tree),
        trial("a_tree_is_attached_below_a_shared_mount", below_a_shared_mount),
        trial("a_bound_folder_is_a_tree_too", a_bound_folder),
        trial("a_helper_mounts_in_the_workshop", a_helper),
        trial("nothing_of_the_workshop_is_seen_here", nothing_is_seen),
        trial("a_childs_error_is_the_same_here", the_same_error),
        trial("a_child_that_takes_too_long_is_ended", too_long),
        trial("a_child_has_no_descriptor_but_those_it_keeps", descriptors),
        trial("a_child_apart_brings_its_bytes", bytes),
        trial("a_child_that_cannot_end_keeps_its_lock", keeps_its_lock),
    ]
}

fn copy(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).map_err(std::io::Error::from).doing(Kind::Kernel, || "copy a mount".into())
}

fn a_tmpfs(bench: &Path) -> Result<Made> {
    assert_eq!(fs::read_dir(bench).unwrap().count(), 0);
    mount(Some("made"), bench, Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .doing(Kind::Kernel, || "mount a tmpfs".into())?;
    fs::write(bench.join("file"), "content").doing(Kind::Io, || "write".into())?;
    Ok((copy(bench)?, b"word".to_vec()))
}

fn attach(tree: &OwnedFd, target: &Path) {
    let opened = rustix::fs::open(target, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", &opened, "", flags).unwrap();
}

fn no_child_is_left() {
    let left = waitpid(None, Some(WaitPidFlag::WNOHANG));
    assert_eq!(left, Err(nix::errno::Errno::ECHILD));
}

fn a_tree() {
    let (stage, target) = (folder(), folder());
    let (tree, word) = build(&stage, Instant::now() + LONG, &[], |bench, _| a_tmpfs(bench)).unwrap();
    assert_eq!(word, b"word");
    assert!(!target.join("file").exists());
    attach(&tree, &target);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "content");
    drop(tree);
    umount2(&target, MntFlags::UMOUNT_NOFOLLOW).unwrap();
    assert!(!target.join("file").exists());
    no_child_is_left();
}

fn below_a_shared_mount() {
    let (stage, shared, other) = (folder(), volume(), folder());
    mount(None::<&str>, &shared, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
    mount(Some(&shared), &other, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    fs::create_dir(shared.join("target")).unwrap();
    // The child's namespace has the shared mount as a slave: the tree must not care.
    let (tree, _) = build(&stage, Instant::now() + LONG, &[], |bench, _| a_tmpfs(bench)).unwrap();
    attach(&tree, &shared.join("target"));
    drop(tree);
    assert_eq!(fs::read_to_string(shared.join("target/file")).unwrap(), "content");
    assert_eq!(fs::read_to_string(other.join("target/file")).unwrap(), "content", "it propagates");
    umount2(&shared.join("target"), MntFlags::UMOUNT_NOFOLLOW).unwrap();
    assert!(!other.join("target/file").exists());
    umount2(&other, MntFlags::empty()).unwrap();
    umount2(&shared, MntFlags::empty()).unwrap();
}

fn a_bound_folder() {
    let (stage, source, target) = (folder(), folder(), folder());
    fs::write(source.join("file"), "bound").unwrap();
    let work = |bench: &Path, _| {
        mount(Some(&source), bench, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .doing(Kind::Kernel, || "bind".into())?;
        Ok((copy(bench)?, Vec::new()))
    };
    let (tree, _) = build(&stage, Instant::now() + LONG, &[], work).unwrap();
    attach(&tree, &target);
    drop(tree);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "bound");
    umount2(&target, MntFlags::UMOUNT_NOFOLLOW).unwrap();
}

fn a_helper() {
    let (stage, target) = (folder(), folder());
    let work = |bench: &Path, deadline| {
        let words: Vec<OsString> = vec!["-t".into(), "tmpfs".into(), "helped".into(), bench.into()];
        let outcome = run(&Helper::new(Path::new("/bin/mount"), &words, deadline))?;
        assert!(outcome.status.success(), "{outcome:?}");
        Ok((copy(bench)?, Vec::new()))
    };
    let (tree, _) = build(&stage, Instant::now() + LONG, &[], work).unwrap();
    attach(&tree, &target);
    drop(tree);
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(mountinfo.matches(" helped ").count(), 1);
    umount2(&target, MntFlags::UMOUNT_NOFOLLOW).unwrap();
}

fn nothing_is_seen() {
    let stage = folder();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let work = |bench: &Path, _| {
        let made = a_tmpfs(bench)?;
        fs::write(bench.parent().unwrap().join("left"), "").unwrap();
        Ok(made)
    };
    drop(build(&stage, Instant::now() + LONG, &[], work).unwrap());
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    assert_eq!(fs::read_dir(&stage).unwrap().count(), 0);
}

fn the_same_error() {
    let work = |_: &Path, _| -> Result<Made> {
        let cause = std::io::Error::from_raw_os_error(libc::ENODEV);
        Err(Error::caused(Kind::Config, "mount `nfs`", cause).hint("load the module `nfs`"))
    };
    let error = build(&folder(), Instant::now() + LONG, &[], work).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (Kind::Config, Some(libc::ENODEV)));
    assert_eq!(error.chain(), "mount `nfs`: No such device (os error 19)");
    assert_eq!(error.advice(), Some("load the module `nfs`"));
    no_child_is_left();
}

fn too_long() {
    let work = |_: &Path, deadline: Instant| -> Result<Made> {
        assert!(deadline > Instant::now());
        loop {
            thread::sleep(LONG);
        }
    };
    let error = build(&folder(), Instant::now() + SHORT, &[], work).unwrap_err();
    assert_eq!(error.kind(), Kind::TryAgain);
    assert_eq!(error.chain(), "wait for a child's answer: no answer in time, so it was ended");
    no_child_is_left();
}

fn descriptors() {
    let kept = fs::File::open("/dev/null").unwrap();
    let list = |keep: &[std::os::fd::BorrowedFd<'_>]| {
        let bytes = apart(Instant::now() + LONG, keep, || {
            let list = fs::read_dir("/proc/self/fd").unwrap().map(|e| e.unwrap().path());
            Ok(list.filter(|p| fs::read_link(p).is_ok_and(|t| t == Path::new("/dev/null"))).count())
                .map(|n| n.to_string().into_bytes())
        });
        String::from_utf8(bytes.unwrap()).unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(list(&[kept.as_fd()]), list(&[]) + 1);
}

fn bytes() {
    assert_eq!(apart(Instant::now() + LONG, &[], || Ok(vec![7; 60_000])).unwrap(), vec![7; 60_000]);
    let error = apart(Instant::now() + LONG, &[], || Ok(vec![7; 70_000])).unwrap_err();
    assert_eq!((error.kind(), error.chain().as_str()), (Kind::Internal, "send 70000 bytes from a child"));
}

fn keeps_its_lock() {
    let (point, path) = (folder(), folder().join("lock"));
    let mut server = act(&["deaf-server", point.to_str().unwrap()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let lock = Lock::within(&path, Duration::ZERO).unwrap();
    let ask = || fs::metadata(&point).map(|_| Vec::new()).doing(Kind::Io, || "look".into());
    let error = apart(Instant::now() + SHORT, &[lock.as_fd()], ask).unwrap_err();
    assert_eq!(error.kind(), Kind::TryAgain);
    assert!(error.chain().ends_with("it keeps its lock"), "{}", error.chain());
    drop(lock);
    assert_eq!(Lock::within(&path, Duration::ZERO).unwrap_err().kind(), Kind::TryAgain);
    server.kill().unwrap();
    server.wait().unwrap();
    Lock::within(&path, LONG).unwrap().remove().unwrap();
    umount2(&point, MntFlags::MNT_DETACH).unwrap();
    until("the child's end", || waitpid(None, Some(WaitPidFlag::WNOHANG)).is_err());
}
