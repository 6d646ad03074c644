//! The pod's group gets its volume.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use flexvolume::kernel::mount::{attach, clone_tree};
use flexvolume::kernel::own::{Scope, give};
use libtest_mimic::Trial;
use node::Kind;
use rustix::fs::{FileType, Mode, mkdirat, mknodat, openat};

use crate::mounts::{put, tmpfs};
use crate::scratch::{Scratch, test};

pub fn trials() -> Vec<Trial> {
    vec![
        test("everything_gets_the_group_and_folders_keep_it", everything),
        test("a_read_only_volume_is_only_readable", readable),
        test("the_scope_says_how_far", scopes),
        test("nothing_outside_the_volume_is_given_away", outside),
        test("a_file_loses_its_suid_and_devices_stay", special),
        test("a_tree_deeper_than_descriptors_go_is_walked", deep),
        test("a_deadline_ends_the_walk", deadline),
    ]
}

const GROUP: u32 = 4321;

fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

fn make(s: &Scratch, path: &str, mode: u32) {
    s.folder(Path::new(path).parent().unwrap().to_str().unwrap());
    fs::write(s.path(path), "").unwrap();
    fs::set_permissions(s.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

fn seen(s: &Scratch, path: &str) -> (u32, u32) {
    let seen = fs::symlink_metadata(s.path(path)).unwrap();
    (seen.gid(), seen.mode() & 0o7777)
}

fn everything(s: &Scratch) {
    make(s, "v/a/b/file", 0o600);
    make(s, "v/program", 0o755);
    symlink("a", s.path("v/link")).unwrap();
    fs::set_permissions(s.path("v/a"), fs::Permissions::from_mode(0o1700)).unwrap();
    let root = s.open("v");
    // The second time there is nothing to do.
    for _ in 0..2 {
        give(root.as_fd(), GROUP, Scope::Recursive, false, soon()).unwrap();
        for (path, mode) in [
            ("v", 0o2775),
            ("v/a", 0o3770),
            ("v/a/b", 0o2775),
            ("v/a/b/file", 0o660),
            ("v/program", 0o775),
            ("v/link", 0o777),
        ] {
            assert_eq!(seen(s, path), (GROUP, mode), "{path}");
        }
    }
}

fn readable(s: &Scratch) {
    make(s, "v/a/file", 0o600);
    fs::set_permissions(s.path("v/a"), fs::Permissions::from_mode(0o700)).unwrap();
    give(s.open("v").as_fd(), GROUP, Scope::Recursive, true, soon()).unwrap();
    assert_eq!(seen(s, "v/a/file"), (GROUP, 0o640));
    assert_eq!(seen(s, "v/a"), (GROUP, 0o2750));
}

fn scopes(s: &Scratch) {
    make(s, "v/a/file", 0o600);
    let root = s.open("v");
    let root = root.as_fd();
    give(root, GROUP, Scope::Root, false, soon()).unwrap();
    assert_eq!((seen(s, "v"), seen(s, "v/a")), ((GROUP, 0o2775), (0, 0o755)));
    give(root, GROUP, Scope::OnRootMismatch, false, soon()).unwrap();
    assert_eq!(seen(s, "v/a/file"), (0, 0o600));
    for mismatch in [0o2755, 0o775] {
        fs::set_permissions(s.path("v"), fs::Permissions::from_mode(mismatch)).unwrap();
        give(root, GROUP, Scope::OnRootMismatch, false, soon()).unwrap();
        assert_eq!(seen(s, "v/a/file"), (GROUP, 0o660), "{mismatch:o}");
        chown(s.path("v/a/file"), None, Some(0)).unwrap();
    }
    give(root, GROUP + 1, Scope::OnRootMismatch, false, soon()).unwrap();
    assert_eq!(seen(s, "v/a/file"), (GROUP + 1, 0o660));
}

fn outside(s: &Scratch) {
    make(s, "outside/file", 0o600);
    s.folder("v/a");
    let (folder, file) = (s.path("outside"), s.path("outside/file"));
    symlink(&folder, s.path("v/a/folder")).unwrap();
    symlink(&file, s.path("v/file")).unwrap();
    symlink("../../outside", s.path("v/a/up")).unwrap();
    // Another file system, and another mount of the same one.
    let other = tmpfs();
    put(&other, "file", "").unwrap();
    attach(&other, s.folder("v/other").as_fd()).unwrap();
    attach(&clone_tree(s.open("outside").as_fd(), false).unwrap(), s.folder("v/same").as_fd()).unwrap();
    make(s, "v/one", 0o600);
    let (from, to) = (s.open("outside"), s.open("v"));
    let open = |folder, name| openat(folder, name, rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    attach(&clone_tree(open(&from, "file").as_fd(), false).unwrap(), open(&to, "one").as_fd()).unwrap();
    give(s.open("v").as_fd(), GROUP, Scope::Recursive, false, soon()).unwrap();
    for (path, expect) in [
        ("outside", (0, 0o755)),
        ("outside/file", (0, 0o600)),
        ("v/other/file", (0, 0o644)),
        ("v/same", (0, 0o755)),
        ("v/one", (0, 0o600)),
        ("v/a/folder", (GROUP, 0o777)),
        ("v/file", (GROUP, 0o777)),
        ("v/a", (GROUP, 0o2775)),
    ] {
        assert_eq!(seen(s, path), expect, "{path}");
    }
}

fn special(s: &Scratch) {
    make(s, "v/suid", 0o6755);
    make(s, "v/kept", 0o4660);
    lchown(s.path("v/kept"), None, Some(GROUP)).unwrap();
    fs::set_permissions(s.path("v/kept"), fs::Permissions::from_mode(0o4660)).unwrap();
    let root = s.open("v");
    let mode = Mode::from_raw_mode(0o600);
    mknodat(&root, "fifo", FileType::Fifo, mode, 0).unwrap();
    mknodat(&root, "null", FileType::CharacterDevice, mode, rustix::fs::makedev(1, 3)).unwrap();
    give(root.as_fd(), GROUP, Scope::Recursive, false, soon()).unwrap();
    for (path, expect) in [
        ("v/suid", (GROUP, 0o775)),
        // It was the group's already: the pod may have set it itself.
        ("v/kept", (GROUP, 0o4660)),
        ("v/fifo", (GROUP, 0o660)),
        ("v/null", (0, 0o600)),
    ] {
        assert_eq!(seen(s, path), expect, "{path}");
    }
}

fn deep(s: &Scratch) {
    // Deeper than this process may open files, as far as a test can go.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let depth = limit.unwrap_or(u64::MAX).saturating_add(100).min(25_000);
    let mut here = s.folder("v");
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    for _ in 0..depth {
        mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = openat(&here, "d", flags, Mode::empty()).unwrap();
    }
    give(s.open("v").as_fd(), GROUP, Scope::Recursive, false, soon()).unwrap();
    let seen = rustix::fs::fstat(&here).unwrap();
    assert_eq!((seen.st_gid, seen.st_mode & 0o7777), (GROUP, 0o2770));
}

fn deadline(s: &Scratch) {
    for n in 0..10 {
        make(s, &format!("v/a/{n}"), 0o600);
    }
    let error = give(s.open("v").as_fd(), GROUP, Scope::Recursive, false, Instant::now()).unwrap_err();
    assert_eq!(error.kind(), Kind::TryAgain);
    // The root is the last to change, so that the next look finds the work undone.
    assert_eq!(seen(s, "v"), (0, 0o755));
    give(s.open("v").as_fd(), GROUP, Scope::OnRootMismatch, false, soon()).unwrap();
    assert_eq!(seen(s, "v/a/9"), (GROUP, 0o660));
}
