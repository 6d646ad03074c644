//! Mounts without descriptors, as on old kernels.

use std::fs;
use std::os::fd::AsFd;

use flexvolume::kernel::mount::{
    Attributes, How, Parameter, Propagation, attach, classic, is_root, make, user_namespace,
};
use libtest_mimic::Trial;
use node::{Context, Kind, mountinfo};

use crate::mounts::{put, tmpfs};
use crate::scratch::{Scratch, test};

pub fn trials() -> Vec<Trial> {
    vec![
        test("classic_makes_at_the_target_itself", at_the_target),
        test("classic_binds_and_restricts_everything_below", bound),
        test("classic_knows_what_it_cannot_do", limits),
        test("classic_is_for_kernels_that_lack_the_call", missing),
    ]
}

fn at_the_target(s: &Scratch) {
    let target = s.folder("a b");
    let parameters =
        [Parameter::Text("size".into(), "1M".into()), Parameter::Text("mode".into(), "0700".into())];
    let mut tree = classic::make("tmpfs", Some("pod"), &parameters, false, target.as_fd()).unwrap();
    assert!(tree.is_placed() && is_root(tree.as_fd()).unwrap());
    put(&tree, "a", "x").unwrap();
    assert_eq!(fs::read_to_string(s.path("a b/a")).unwrap(), "x");
    attach(&tree, target.as_fd()).unwrap();
    let seen = s.mounts_at("a b");
    assert_eq!((seen.len(), seen[0].source.to_str()), (1, Some("pod")));
    assert!(seen[0].super_options.contains("size=1024k,mode=700"), "{}", seen[0].super_options);
    tree.keep();
    drop(tree);
    assert!(s.unmount("a b", How::Plain));

    let tree = classic::make("tmpfs", None, &[], true, target.as_fd()).unwrap();
    assert_eq!(put(&tree, "a", "x").unwrap_err().raw_os_error(), Some(libc::EROFS));
    drop(tree);
    assert!(s.mounts_at("a b").is_empty(), "what was not kept goes");
    let error = classic::make("tmpfs", None, &[Parameter::Flag("bogus".into())], true, s.folder("x").as_fd());
    assert_eq!(error.unwrap_err().errno(), Some(libc::EINVAL));
    assert!(s.mounts_at("x").is_empty());
}

fn bound(s: &Scratch) {
    let source = tmpfs();
    attach(&source, s.folder("source").as_fd()).unwrap();
    attach(&tmpfs(), s.folder("source/in ner").as_fd()).unwrap();
    fs::write(s.path("source/in ner/a"), "x").unwrap();
    let tree = classic::bind(s.open("source").as_fd(), s.folder("v").as_fd(), true).unwrap();
    let keep = Attributes { noexec: true, ..Attributes::default() };
    classic::set_attributes(&tree, &keep, false).unwrap();
    let wish = Attributes {
        read_only: true,
        nosuid: true,
        nodev: true,
        noatime: true,
        nosymfollow: true,
        propagation: Some(Propagation::Shared),
        ..Attributes::default()
    };
    classic::set_attributes(&tree, &wish, true).unwrap();
    let all = ["ro", "nosuid", "nodev", "noatime", "nosymfollow"];
    for (path, extra) in [("v", true), ("v/in ner", false)] {
        let seen = &s.mounts_at(path)[0];
        assert!(all.iter().all(|o| seen.has(o)), "{path}: {}", seen.options);
        assert_eq!(seen.has("noexec"), extra, "{path}: {}", seen.options);
        assert!(seen.propagation[0].starts_with("shared:"), "{path}: {:?}", seen.propagation);
    }
    assert_eq!(fs::read_to_string(s.path("v/in ner/a")).unwrap(), "x");
    fs::write(s.path("source/in ner/a"), "y").unwrap();
    let plain = classic::bind(s.open("source").as_fd(), s.folder("w").as_fd(), false).unwrap();
    assert!(plain.is_placed());
    assert_eq!(mountinfo::below(&mountinfo::read().unwrap(), &s.path("w")).count(), 0);
}

fn limits(s: &Scratch) {
    let comma = Parameter::Text("mpol".into(), "interleave:0,1".into());
    let target = s.folder("v");
    let error = classic::make("tmpfs", None, &[comma], false, target.as_fd()).unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    let tree = classic::make("tmpfs", None, &[], false, target.as_fd()).unwrap();
    let users = user_namespace("0 1 1", "0 1 1").unwrap();
    let wish = Attributes { idmap: Some(users.as_fd()), ..Attributes::default() };
    assert_eq!(classic::set_attributes(&tree, &wish, false).unwrap_err().kind(), Kind::Unavailable);
    let gone = s.folder("gone");
    fs::remove_dir(s.path("gone")).unwrap();
    let error = classic::make("tmpfs", None, &[], false, gone.as_fd()).unwrap_err();
    assert_eq!(error.kind(), Kind::Mismatch);
}

fn missing(_: &Scratch) {
    let absent = std::io::Error::from_raw_os_error(libc::ENOSYS);
    let error = Err::<(), _>(absent).doing(Kind::Kernel, || "make a `tmpfs`".into()).unwrap_err();
    assert!(classic::is_missing(&error));
    let other = make("tmpfs", None, &[Parameter::Flag("bogus".into())], false).unwrap_err();
    assert!(!classic::is_missing(&other));
}
