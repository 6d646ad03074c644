use std::path::Path;

use node::Result;

use super::super::tests::{example, said};
use super::super::{Glob, ImageFs, Policy, ProfileOption};

#[test]
fn the_longest_root_decides_alone() {
    let policy = example();
    let bind = |namespace: &str, path: &str, write: bool| {
        let found = policy.bind_root(namespace, Path::new(path), write);
        found.map_or_else(
            |error| error.causes(),
            |(root, rest)| format!("{} + {}", root.path.display(), rest.display()),
        )
    };
    let table = [
        ("team-b", "/srv/shared/x/y", true, "/srv/shared + x/y"),
        ("team-a", "/srv/shared/a/x", true, "/srv/shared/a + x"),
        ("team-a", "/srv/shared/a", true, "/srv/shared/a + "),
        ("team-b", "/srv/shared/a/x", false, "the root `/srv/shared/a` is not for the namespace `team-b`"),
        ("team-b", "/srv/shared/ab", true, "/srv/shared + ab"),
        ("team-b", "/srv/shared/public", false, "/srv/shared/public + "),
        (
            "team-a",
            "/srv/shared/public",
            true,
            "the root `/srv/shared/public` is read-only; ask for `readOnly: true`",
        ),
        ("web", "/srv/shared/x", false, "the root `/srv/shared` is not for the namespace `web`"),
        ("team-a", "/srv/other", false, "the node's policy lists no root that contains it"),
        ("team-a", "/srv", false, "the node's policy lists no root that contains it"),
        (
            "team-b",
            "/srv/shared",
            false,
            "it contains the root `/srv/shared/a`, which the namespace `team-b` may not use so",
        ),
        ("team-a", "/srv/shared", false, "/srv/shared + "),
        (
            "team-a",
            "/srv/shared",
            true,
            "it contains the root `/srv/shared/public`, which the namespace `team-a` may not use so",
        ),
        ("other", "/srv/shared/x", false, "the node's policy does not allow it to the namespace `other`"),
        ("team-a", "/srv/shared/../../etc", false, "it has the component `..`"),
        ("team-a", "srv/shared", false, "it does not start with `/`"),
        ("team-a", "/srv/shared//x", false, "it has an empty component"),
        ("team-a", "/srv/shared/a\nb", false, "it has a control character"),
        (
            "team-a",
            "/proc/self/root",
            false,
            "it is, lies in, or contains the kernel's own files, which no policy allows",
        ),
    ];
    for (namespace, path, write, expect) in table {
        assert_eq!(bind(namespace, path, write), expect, "{namespace} {path} {write}");
    }
}

#[test]
fn what_the_lists_name_is_allowed_and_nothing_else() {
    let policy = example();
    assert!(policy.suid("team-a").is_ok() && policy.suid("team-b").is_err());
    assert!(policy.dev("team-a").is_err() && policy.selinux_context("team-a").is_err());
    assert!(policy.tmpfs("team-a").is_ok() && policy.tmpfs("web").is_err() && policy.tmpfs("x").is_err());
    assert!(policy.image_root("web", Path::new("/var/lib/volumes/a.img"), true).is_ok());
    assert!(policy.overlay_lower("web", Path::new("/srv/layers/a")).is_ok());
    assert!(policy.overlay_lower("web", Path::new("/srv/upper/a")).is_err());
    assert!(policy.overlay_upper("web", Path::new("/srv/upper/a")).is_ok());
    assert!(policy.block("team-a", "/dev/disk/by-id/virtio-data-1").is_ok());
    for device in ["/dev/sda", "/dev/disk/by-id/virtio-data-1/../../../sda", "/etc/passwd", "", "-x"] {
        assert!(policy.block("team-a", device).is_err(), "{device}");
    }
    assert!(policy.block("team-b", "/dev/disk/by-id/virtio-data-1").is_err());
    for (server, allowed) in [
        ("a.storage.example", true),
        ("A.Storage.Example", true),
        ("10.0.0.7", true),
        ("10.0.0.77", false),
        ("storage.example", false),
        ("-o.storage.example", false),
        ("evil,.storage.example", false),
        ("", false),
    ] {
        assert_eq!(policy.nfs("web", server).is_ok(), allowed, "{server}");
    }
    assert!(policy.cifs("web", "fd00::1").is_ok());
    assert!(policy.fuse("team-a", "sshfs").is_ok() && policy.fuse("team-b", "sshfs").is_err());
    assert!(policy.fuse("team-a", "rclone").is_err());
}

#[test]
fn limits_hold_and_defaults_fill_in() {
    let policy = example();
    let tmpfs = policy.tmpfs("team-a").unwrap();
    assert_eq!((tmpfs.size(None).unwrap(), tmpfs.inodes(None).unwrap()), (1 << 20, 100));
    assert_eq!((tmpfs.size(Some(2 << 20)).unwrap(), tmpfs.inodes(Some(7)).unwrap()), (2 << 20, 7));
    let said_size = said(tmpfs.size(Some(64 << 20)));
    assert!(said_size.contains("allow `size` of 64Mi: the node's policy allows at most 2Mi"), "{said_size}");
    assert!(said_size.contains("`tmpfs: {maxSize: 64Mi}` below `backends`"), "{said_size}");
    assert!(
        tmpfs.size(Some(0)).is_err() && tmpfs.inodes(Some(0)).is_err() && tmpfs.inodes(Some(101)).is_err()
    );
    let image = policy.image("web").unwrap();
    assert!(image.size(1 << 30).is_ok() && image.size((1 << 30) + 1).is_err());
    assert!(image.fs_type(ImageFs::Erofs).is_ok());
    assert!(said(image.fs_type(ImageFs::Xfs)).contains("`image: {fsTypes: [ext4, erofs, xfs]}`"));
    assert_eq!(policy.overlay("web").unwrap().size(None).unwrap(), 16 << 20);
    assert!(policy.block("team-a", "/dev/disk/by-id/virtio-data-1").unwrap().may_format().is_err());
    let (root, _) = policy.bind_root("team-a", Path::new("/srv/shared/a"), true).unwrap();
    assert!(root.may_create().is_err());
}

#[test]
fn a_profile_s_values_cannot_smuggle() {
    let policy = example();
    let profile = policy.fuse("team-a", "sshfs").unwrap();
    for (source, allowed) in [
        ("bob@storage.example:/x", true),
        ("bob@storage.example:", true),
        ("bob@evil.example:/x", false),
        ("-oProxyCommand=x@storage.example:", false),
        ("a\nb@storage.example:", false),
        ("", false),
    ] {
        assert_eq!(profile.source(source).is_ok(), allowed, "{source}");
    }
    let text = r#"backends: {fuse: {profiles: {p: {program: /bin/x, sources: ["*"],
        arguments: ["${mountpoint}", "-ofsname=${source},ro"]}}}}"#;
    let embedded = Policy::parse(text).unwrap();
    let embedded = embedded.fuse("a", "p").unwrap();
    assert!(embedded.source("plain words").is_ok());
    assert!(embedded.source("x,allow_other").is_err() && embedded.source("x\\").is_err());
    let port = &profile.options["port"];
    assert_eq!(port.value(None).as_deref(), Ok("22"));
    assert_eq!(port.value(Some("2222")).as_deref(), Ok("2222"));
    for value in ["x", "22,IdentityFile=/etc/shadow", "22 x", "-22", "2\\,2", "2\n", ""] {
        assert!(port.value(Some(value)).is_err(), "{value}");
    }
    let required = ProfileOption { default: None, allow: vec![Glob::new("a*").unwrap()] };
    assert_eq!(required.value(None), Err("is missing; write `a*`".to_owned()));
}

/// The YAML in a hint, as a whole policy.
fn lines_of(hint: &str) -> String {
    let lines = hint.split('`').nth(1).unwrap();
    if hint.contains("below `backends`") { format!("backends: {{{lines}}}") } else { lines.to_owned() }
}

#[test]
fn the_lines_of_a_hint_allow_what_was_refused() {
    type Ask = fn(&Policy) -> Result<()>;
    let asks: [(&str, Ask); 10] = [
        ("", |p| p.bind_root("a", Path::new("/srv/x \"},{y"), true).map(drop)),
        ("", |p| p.image_root("a", Path::new("/srv/x"), true).map(drop)),
        ("", |p| p.overlay_lower("a", Path::new("/srv/x")).map(drop)),
        ("", |p| p.block("a", "/dev/sdb").map(drop)),
        ("namespaces: [b]", |p| p.namespaces_allow("a")),
        ("", |p| p.suid("a")),
        ("backends: {nfs: {servers: [x]}}", |p| p.nfs("a", "y").map(drop)),
        ("backends: {bind: {roots: [{path: /srv/x, namespaces: [b]}]}}", |p| {
            p.bind_root("a", Path::new("/srv/x/y"), true).map(drop)
        }),
        ("backends: {bind: {roots: [{path: /srv/x, readOnly: true}]}}", |p| {
            p.bind_root("a", Path::new("/srv/x/y"), true).map(drop)
        }),
        ("backends: {}", |p| p.tmpfs("a").map(drop)),
    ];
    for (text, ask) in asks {
        let refusal = ask(&Policy::parse(text).unwrap()).unwrap_err();
        let hint = refusal.advice().unwrap();
        assert!(hint.starts_with("an administrator can allow it in /etc/nodeplug/flexvolume.yaml"), "{hint}");
        let allowed = Policy::parse(&lines_of(hint)).unwrap();
        assert!(ask(&allowed).is_ok(), "{hint}");
        if text.is_empty() {
            assert!(allowed.backends.nfs.is_some(), "{hint}");
        }
    }
}
