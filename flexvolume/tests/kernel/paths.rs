//! Paths that a pod's author would like to exchange.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use flexvolume::kernel::mount::attach;
use flexvolume::kernel::path::{
    Want, beneath, create_file, is_kernel_filesystem, is_known, is_local, make_folders, open_root,
    open_straight, real_path, remove_file_beneath,
};
use flexvolume::observe::Part;
use libtest_mimic::Trial;
use node::{Kind, mountinfo};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use crate::mounts::tmpfs;
use crate::scratch::{Scratch, test, tool};

pub fn trials() -> Vec<Trial> {
    vec![
        test("a_symlink_in_any_component_is_refused", any_component),
        test("a_component_exchanged_meanwhile_leads_nowhere_else", exchanged),
        test("devices_and_fifos_are_not_opened", not_opened),
        test("new_folders_are_their_owners_and_old_ones_stay", owners),
        test("the_kernels_own_file_systems_have_names", kernels_own),
        test("what_is_the_nodes_own_is_off_limits_under_every_name", off_limits),
        test("a_path_is_where_the_file_is_now", real),
        test("a_path_without_symlinks_is_known_and_opened_as_it_stands", straight),
        test("mounts_with_odd_names_are_found_exactly", odd_names),
    ]
}

fn any_component(s: &Scratch) {
    s.folder("outside/b/c");
    fs::write(s.path("outside/b/c/file"), "secret").unwrap();
    fs::write(s.path("outside/file"), "secret").unwrap();
    let components = ["a", "a/b", "a/b/c", "a/b/c/file"];
    let outside = ["outside", "outside/b", "outside/b/c", "outside/file"];
    for (component, to) in components.iter().zip(outside) {
        let absolute = s.path(to).to_str().unwrap().to_owned();
        let up = "../".repeat(component.matches('/').count() + 1);
        for link in [absolute, format!("{up}{to}"), "/proc/self/root".into(), "loop".into()] {
            let root = s.folder("root");
            s.folder("root/a/b/c");
            fs::write(s.path("root/a/b/c/file"), "mine").unwrap();
            fs::rename(s.path("root").join(component), s.path("root/was")).unwrap();
            symlink(&link, s.path("root").join(component)).unwrap();
            for want in [Want::Any, Want::Read, Want::Write, Want::Folder] {
                let error = beneath(root.as_fd(), Path::new("a/b/c/file"), want).unwrap_err();
                assert_eq!(error.kind(), Kind::Config, "{component} -> {link} as {want:?}");
                assert_eq!(error.errno(), Some(libc::ELOOP), "{component} -> {link} as {want:?}");
            }
            if *component != "a/b/c/file" {
                let error = make_folders(root.as_fd(), Path::new("a/b/c/d"), 0o755, None).unwrap_err();
                assert_eq!(error.errno(), Some(libc::ELOOP), "{component} -> {link}");
                let file = Path::new("a/b/c/new");
                assert_eq!(create_file(root.as_fd(), file, 0o600).unwrap_err().errno(), Some(libc::ELOOP));
                let file = Path::new("a/b/c/file");
                assert_eq!(remove_file_beneath(root.as_fd(), file).unwrap_err().errno(), Some(libc::ELOOP));
            }
            fs::remove_dir_all(s.path("root")).unwrap();
        }
    }
    assert!(s.path("outside/file").exists() && s.path("outside/b/c/file").exists());
}

fn off_limits(s: &Scratch) {
    let why = |name: &str, recursive: bool| {
        let part = if recursive { Part::WithMountsBelow } else { Part::Itself };
        let kubelet = s.path("kubelet");
        flexvolume::observe::off_limits(s.open(name).as_fd(), &kubelet, part, mountinfo::read().unwrap())
            .unwrap()
    };
    for folder in ["disk/kubelet/pods", "disk/data", "etc", "jail/proc", "jail/data"] {
        s.folder(folder);
    }
    symlink(s.path("disk/kubelet"), s.path("kubelet")).unwrap();
    tool(&["mount", "--bind", "/etc", s.path("etc").to_str().unwrap()]);
    tool(&["mount", "-t", "proc", "proc", s.path("jail/proc").to_str().unwrap()]);
    for (name, recursive, part) in [
        ("disk", false, "the kubelet's folder"),
        ("disk/kubelet", false, "the kubelet's folder"),
        ("disk/kubelet/pods", false, "the kubelet's folder"),
        ("etc", false, "the node's settings"),
        ("jail", true, "a `proc` of the kernel is mounted at"),
        ("jail/proc", false, "a `proc` of the kernel"),
    ] {
        let text = why(name, recursive).unwrap_or_default();
        assert!(text.contains(part), "{name}: {text}");
    }
    for (name, recursive) in [("disk/data", true), ("jail", false), ("jail/data", true)] {
        assert_eq!(why(name, recursive), None, "{name}");
    }
}

fn straight(s: &Scratch) {
    s.folder("a/b");
    fs::write(s.path("a/file"), "x").unwrap();
    symlink("a", s.path("link")).unwrap();
    symlink("b", s.path("a/last")).unwrap();
    for (name, known, folder) in
        [("a/b", true, true), ("a/file", true, false), ("link/b", false, false), ("a/last", false, false)]
    {
        // Whatever is there was looked at, so that the kernel knows it.
        let _ = fs::metadata(s.path(name));
        assert_eq!(is_known(&s.path(name)), known, "{name}");
        let opened = open_straight(&s.path(name));
        assert_eq!(opened.is_some(), folder, "{name}");
        assert!(opened.is_none_or(|opened| real_path(opened.as_fd()).unwrap() == s.path(name)), "{name}");
    }
    assert!(open_straight(&s.path("a/b/..")).is_none() && open_straight(Path::new("tmp")).is_none());
}

fn exchanged(s: &Scratch) {
    let root = s.folder("root");
    s.folder("root/a");
    s.folder("outside");
    fs::write(s.path("root/a/file"), "mine").unwrap();
    fs::write(s.path("outside/file"), "secret").unwrap();
    symlink("../outside", s.path("root/evil")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let (a, evil) = (s.path("root/a"), s.path("root/evil"));
                renameat_with(CWD, a, CWD, evil, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..3000 {
            if let Ok(file) = beneath(root.as_fd(), Path::new("a/file"), Want::Read) {
                let mut text = String::new();
                File::from(file).read_to_string(&mut text).unwrap();
                assert_eq!(text, "mine");
            }
            let _ = make_folders(root.as_fd(), Path::new("a/made"), 0o755, None);
            let _ = create_file(root.as_fd(), Path::new("a/new"), 0o600);
            let _ = remove_file_beneath(root.as_fd(), Path::new("a/file2"));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(s.path("outside")).unwrap().count(), 1);
}

fn not_opened(s: &Scratch) {
    let root = s.folder("root");
    let modes = Mode::from_raw_mode(0o666);
    mknodat(&root, "fifo", FileType::Fifo, modes, 0).unwrap();
    mknodat(&root, "null", FileType::CharacterDevice, modes, rustix::fs::makedev(1, 3)).unwrap();
    for name in ["fifo", "null", "."] {
        for want in [Want::Read, Want::Write] {
            let error = beneath(root.as_fd(), Path::new(name), want).unwrap_err();
            assert_eq!(error.advice(), Some("it must be a regular file"), "{name}");
        }
        beneath(root.as_fd(), Path::new(name), Want::Any).unwrap();
    }
}

fn owners(s: &Scratch) {
    let root = s.folder("root");
    s.folder("root/old");
    make_folders(root.as_fd(), Path::new("old/new/deep"), 0o2770, Some((1000, 2000))).unwrap();
    for (path, expect) in
        [("old", (0, 0, 0o755)), ("old/new", (1000, 2000, 0o2770)), ("old/new/deep", (1000, 2000, 0o2770))]
    {
        let seen = fs::metadata(s.path("root").join(path)).unwrap();
        assert_eq!((seen.uid(), seen.gid(), seen.mode() & 0o7777), expect, "{path}");
    }
}

fn kernels_own(s: &Scratch) {
    for (path, expect) in [
        ("/proc/sys", Some("proc")),
        ("/sys/block", Some("sysfs")),
        ("/dev", Some("devtmpfs")),
        ("/dev/pts", Some("devpts")),
        ("/", None),
        ("/mnt", None),
    ] {
        let seen = is_kernel_filesystem(open_root(Path::new(path)).unwrap().as_fd()).unwrap();
        assert_eq!(seen, expect, "{path}");
    }
    assert!(is_local(s.open("").as_fd()).unwrap());
    assert!(!is_local(open_root(Path::new("/proc")).unwrap().as_fd()).unwrap());
    for kind in ["cgroup2", "debugfs", "tracefs", "securityfs", "bpf", "pstore", "mqueue", "binfmt_misc"] {
        let parameters: &[_] = &[];
        let Ok(tree) = flexvolume::kernel::mount::make(kind, None, parameters, false) else { continue };
        assert_eq!(is_kernel_filesystem(tree.as_fd()).unwrap(), Some(kind));
    }
    assert_eq!(is_kernel_filesystem(s.open("").as_fd()).unwrap(), None);
}

fn real(s: &Scratch) {
    let folder = s.folder("a");
    assert_eq!(real_path(folder.as_fd()).unwrap(), s.path("a"));
    fs::rename(s.path("a"), s.path("b (deleted)")).unwrap();
    assert_eq!(real_path(folder.as_fd()).unwrap(), s.path("b (deleted)"));
    fs::remove_dir(s.path("b (deleted)")).unwrap();
    assert_eq!(real_path(folder.as_fd()).unwrap_err().kind(), Kind::Mismatch);
    let (pipe, _other) = std::io::pipe().unwrap();
    assert_eq!(real_path(pipe.as_fd()).unwrap_err().kind(), Kind::Mismatch);
    assert_eq!(open_root(Path::new("relative")).unwrap_err().kind(), Kind::Config);
}

fn odd_names(s: &Scratch) {
    for name in ["a b", "tab\there", "line\nbreak", "back\\slash", "hash#", "a", "ab"] {
        attach(&tmpfs(), s.folder(name).as_fd()).unwrap();
        assert_eq!(s.mounts_at(name).len(), 1, "{name:?}");
    }
    attach(&tmpfs(), s.folder("a/deep").as_fd()).unwrap();
    let mounts = mountinfo::read().unwrap();
    assert_eq!(mountinfo::below(&mounts, &s.path("a")).count(), 1);
    assert_eq!(mountinfo::top(&mounts, &s.path("")).unwrap().source, "scratch");
}
