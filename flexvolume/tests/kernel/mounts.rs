//! Mounts by descriptor.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};

use flexvolume::kernel::mount::{
    Attributes, How, Parameter, Propagation, Tree, attach, clone_tree, detach, is_root, make, set_attributes,
    unique_id, user_namespace,
};
use libtest_mimic::Trial;
use node::Kind;
use rustix::fs::{Mode, OFlags, openat};

use crate::scratch::{Scratch, test};

pub fn trials() -> Vec<Trial> {
    vec![
        test("a_tmpfs_is_filled_before_anybody_sees_it", filled_first),
        test("the_kernels_own_words_are_in_the_error", own_words),
        test("a_clone_shares_its_file_system_and_is_another_mount", clones),
        test("a_recursive_read_only_clone_leaves_its_source_writable", read_only_clone),
        test("what_a_mount_forbids_is_added_and_stays", restrictions),
        test("an_id_map_shows_other_owners", id_map),
        test("a_stack_of_mounts_goes_layer_by_layer", stack),
        test("unmounting_nothing_is_no_error", nothing),
        test("a_mount_in_use_is_told_apart_and_goes_lazily", busy),
        test("a_symlink_to_a_mount_is_not_unmounted", not_through_a_symlink),
        test("overlay_takes_its_layers_by_descriptor", layers),
        test("fuse_takes_its_device_by_descriptor", fuse_device),
        test("a_file_is_mounted_onto_a_file", file_mount),
    ]
}

fn text(name: &str, value: &str) -> Parameter {
    Parameter::Text(name.into(), value.into())
}

/// Writes a file at the root of a tree, by its descriptor alone.
pub fn put(tree: &Tree, name: &str, content: &str) -> std::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
    let file = openat(tree, name, flags, Mode::from_raw_mode(0o644))?;
    File::from(file).write_all(content.as_bytes())
}

pub fn tmpfs() -> Tree {
    make("tmpfs", Some("test"), &[], false).unwrap()
}

fn filled_first(s: &Scratch) {
    let parameters = [text("size", "1M"), text("mode", "0750"), Parameter::Flag("noswap".into())];
    let tree = make("tmpfs", Some("pod"), &parameters, false).unwrap();
    put(&tree, "a", "content").unwrap();
    let target = s.folder("v");
    assert!(is_root(tree.as_fd()).unwrap() && !is_root(target.as_fd()).unwrap());
    assert!(s.mounts_at("v").is_empty());
    attach(&tree, target.as_fd()).unwrap();
    let seen = s.mounts_at("v");
    assert_eq!((seen.len(), seen[0].kind.as_str(), seen[0].source.to_str()), (1, "tmpfs", Some("pod")));
    assert!(seen[0].super_options.contains("size=1024k,mode=750"), "{}", seen[0].super_options);
    assert_eq!(fs::read_to_string(s.path("v/a")).unwrap(), "content");
    assert_eq!(unique_id(s.open("v").as_fd()).unwrap(), unique_id(tree.as_fd()).unwrap());
}

fn own_words(_: &Scratch) {
    let cases = [
        (Parameter::Flag("bogus".into()), "make a `tmpfs`: tmpfs: Unknown parameter 'bogus'"),
        (text("size", "x"), "make a `tmpfs`: tmpfs: Bad value for 'size'"),
    ];
    for (parameter, words) in cases {
        let error = make("tmpfs", None, &[parameter], false).unwrap_err();
        assert_eq!(error.chain(), format!("{words}: Invalid argument (os error 22)"));
        assert_eq!((error.kind(), error.errno()), (Kind::Kernel, Some(libc::EINVAL)));
    }
    assert!(
        make("tmpfs", None, &[Parameter::Wish("bogus".into()), Parameter::Wish("noswap".into())], false)
            .is_ok()
    );
    let error = make("nosuchfs", None, &[], false).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (Kind::Unavailable, Some(libc::ENODEV)));
    assert!(error.advice().unwrap().contains("no file system `nosuchfs`"));
    let error = make("ext4", Some("/dev/null"), &[], false).unwrap_err();
    assert!(error.chain().contains("Block device required"), "{}", error.chain());
}

fn clones(s: &Scratch) {
    attach(&tmpfs(), s.folder("one").as_fd()).unwrap();
    let clone = clone_tree(s.open("one").as_fd(), false).unwrap();
    put(&clone, "a", "x").unwrap();
    assert_eq!(fs::read_to_string(s.path("one/a")).unwrap(), "x");
    attach(&clone, s.folder("two").as_fd()).unwrap();
    let (one, two) = (s.mounts_at("one"), s.mounts_at("two"));
    assert_eq!(one[0].device, two[0].device);
    assert_ne!(unique_id(s.open("one").as_fd()).unwrap(), unique_id(clone.as_fd()).unwrap());
    assert!(s.unmount("one", How::Plain));
    assert_eq!(fs::read_to_string(s.path("two/a")).unwrap(), "x");
}

fn read_only_clone(s: &Scratch) {
    attach(&tmpfs(), s.folder("source").as_fd()).unwrap();
    attach(&tmpfs(), s.folder("source/inner").as_fd()).unwrap();
    let clone = clone_tree(s.open("source").as_fd(), true).unwrap();
    let wish =
        Attributes { read_only: true, propagation: Some(Propagation::Private), ..Attributes::default() };
    set_attributes(&clone, &wish, true).unwrap();
    let refused = put(&clone, "a", "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    attach(&clone, s.folder("copy").as_fd()).unwrap();
    for path in ["copy/a", "copy/inner/a"] {
        let refused = fs::write(s.path(path), "x").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS), "{path}");
    }
    for path in ["source/a", "source/inner/a"] {
        fs::write(s.path(path), "x").unwrap();
    }
    let shallow = clone_tree(s.open("source").as_fd(), false).unwrap();
    attach(&shallow, s.folder("shallow").as_fd()).unwrap();
    assert!(s.mounts_at("shallow/inner").is_empty());
}

fn restrictions(s: &Scratch) {
    let tree = tmpfs();
    let first = Attributes { nosuid: true, nodev: true, noatime: true, ..Attributes::default() };
    set_attributes(&tree, &first, false).unwrap();
    let then = Attributes { noexec: true, nosymfollow: true, ..Attributes::default() };
    set_attributes(&tree, &then, true).unwrap();
    attach(&tree, s.folder("v").as_fd()).unwrap();
    let seen = &s.mounts_at("v")[0];
    for option in ["rw", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"] {
        assert!(seen.has(option), "{option}: {}", seen.options);
    }
    for (propagation, expect) in
        [(Propagation::Shared, "shared:"), (Propagation::Slave, "master:"), (Propagation::Private, "")]
    {
        let clone = clone_tree(s.open("v").as_fd(), false).unwrap();
        set_attributes(&tree, &Attributes { propagation: Some(propagation), ..then }, false).unwrap();
        let seen = &s.mounts_at("v")[0];
        // Without a master a slave is private.
        let expect = if propagation == Propagation::Slave { "" } else { expect };
        assert!(seen.propagation.join(" ").starts_with(expect), "{propagation:?}: {:?}", seen.propagation);
        drop(clone);
    }
}

fn id_map(s: &Scratch) {
    let image = s.formatted("ext4", 16 << 20, &["mkfs.ext4", "-q", "-F"]);
    let device = s.mounted(&image, "ext4", "source");
    fs::write(s.path("source/a"), "x").unwrap();
    let users = user_namespace("0 100000 65536", "0 200000 65536").unwrap();
    let tree = clone_tree(s.open("source").as_fd(), false).unwrap();
    let wish = Attributes { idmap: Some(users.as_fd()), nosuid: true, ..Attributes::default() };
    set_attributes(&tree, &wish, false).unwrap();
    attach(&tree, s.folder("mapped").as_fd()).unwrap();
    let seen = fs::metadata(s.path("mapped/a")).unwrap();
    assert_eq!((seen.uid(), seen.gid()), (100_000, 200_000));
    assert_eq!(fs::metadata(s.path("source/a")).unwrap().uid(), 0);
    drop(device);

    let error = user_namespace("0 0", "").unwrap_err();
    assert_eq!(error.errno(), Some(libc::EINVAL));
}

fn stack(s: &Scratch) {
    let target = s.folder("v");
    for name in ["first", "second"] {
        let tree = tmpfs();
        put(&tree, name, "").unwrap();
        attach(&tree, target.as_fd()).unwrap();
    }
    assert_eq!(s.mounts_at("v").len(), 2);
    assert!(s.path("v/second").exists());
    assert!(s.unmount("v", How::Plain));
    assert!(s.path("v/first").exists());
    assert!(s.unmount("v", How::Force));
    assert!(!s.unmount("v", How::Plain));
    fs::remove_dir(s.path("v")).unwrap();
}

fn nothing(s: &Scratch) {
    s.folder("v");
    fs::write(s.path("file"), "").unwrap();
    for how in [How::Plain, How::Force, How::Lazy] {
        for name in ["v", "file", "missing"] {
            assert!(!detach(s.open("").as_fd(), OsStr::new(name), how).unwrap(), "{name} {how:?}");
        }
        for name in ["", ".", "..", "a/b", "/"] {
            let error = detach(s.open("").as_fd(), OsStr::new(name), how).unwrap_err();
            assert_eq!(error.kind(), Kind::Internal, "{name}");
        }
    }
}

fn busy(s: &Scratch) {
    attach(&tmpfs(), s.folder("v").as_fd()).unwrap();
    let mut user = OpenOptions::new().create(true).append(true).open(s.path("v/a")).unwrap();
    let (parent, name) = (s.open(""), OsStr::new("v"));
    for how in [How::Plain, How::Force] {
        let error = detach(parent.as_fd(), name, how).unwrap_err();
        assert_eq!((error.kind(), error.errno()), (Kind::TryAgain, Some(libc::EBUSY)), "{how:?}");
    }
    assert!(detach(parent.as_fd(), name, How::Lazy).unwrap());
    assert!(s.mounts_at("v").is_empty());
    user.write_all(b"still there").unwrap();
}

fn not_through_a_symlink(s: &Scratch) {
    attach(&tmpfs(), s.folder("v").as_fd()).unwrap();
    symlink("v", s.path("link")).unwrap();
    for how in [How::Plain, How::Lazy] {
        assert!(!detach(s.open("").as_fd(), OsStr::new("link"), how).unwrap());
    }
    assert_eq!(s.mounts_at("v").len(), 1);
}

fn layers(s: &Scratch) {
    s.folder("low");
    fs::write(s.path("low/a"), "below").unwrap();
    attach(&tmpfs(), s.folder("up").as_fd()).unwrap();
    let (upper, work) = (s.folder("up/data"), s.folder("up/work"));
    let parameters = [
        Parameter::Descriptor("lowerdir+".into(), s.open("low")),
        Parameter::Descriptor("upperdir".into(), upper),
        Parameter::Descriptor("workdir".into(), work),
    ];
    let tree = make("overlay", Some("overlay"), &parameters, false).unwrap();
    attach(&tree, s.folder("v").as_fd()).unwrap();
    assert_eq!(fs::read_to_string(s.path("v/a")).unwrap(), "below");
    fs::write(s.path("v/a"), "above").unwrap();
    assert_eq!(fs::read_to_string(s.path("low/a")).unwrap(), "below");
    assert_eq!(fs::read_to_string(s.path("up/data/a")).unwrap(), "above");
}

fn fuse_device(s: &Scratch) {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let parameters = [
        Parameter::Descriptor("fd".into(), device.into()),
        text("rootmode", "40000"),
        text("user_id", "0"),
        text("group_id", "0"),
    ];
    let tree = make("fuse", Some("test"), &parameters, false).unwrap();
    attach(&tree, s.folder("v").as_fd()).unwrap();
    assert_eq!(s.mounts_at("v")[0].kind, "fuse");
    // The daemon is gone with its descriptor. Neither question asks it.
    drop(parameters);
    assert!(is_root(tree.as_fd()).unwrap());
    assert!(unique_id(tree.as_fd()).unwrap() > 0);
    assert!(detach(s.open("").as_fd(), OsStr::new("v"), How::Lazy).unwrap());
}

fn file_mount(s: &Scratch) {
    fs::write(s.path("from"), "x").unwrap();
    fs::write(s.path("to"), "").unwrap();
    let open = |name: &str| openat(s.open(""), name, OFlags::PATH, Mode::empty()).unwrap();
    let tree = clone_tree(open("from").as_fd(), false).unwrap();
    attach(&tree, open("to").as_fd()).unwrap();
    assert_eq!(fs::read_to_string(s.path("to")).unwrap(), "x");
    // Whoever holds the tree uses it.
    drop(tree);
    assert!(s.unmount("to", How::Plain));
}
