use std::path::PathBuf;

use node::{Kind, Result};
use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = r#"
timeout: 60s
namespaces: ["team-*", "web"]
allowSuid: [team-a]
busy: lazy
backends:
  tmpfs: {namespaces: [team-*], defaultSize: 1Mi, maxSize: 2Mi, maxInodes: 100}
  bind:
    roots:
      - {path: /srv/shared, namespaces: ["team-*"], create: true}
      - {path: /srv/shared/a, namespaces: ["team-a"]}
      - {path: /srv/shared/public, readOnly: true}
  image: {roots: [{path: /var/lib/volumes, create: true}], maxSize: 1Gi, fsTypes: [ext4, erofs]}
  overlay: {lower: [{path: /srv/layers}], upper: [{path: /srv/upper, create: true}], maxSize: 16Mi}
  block: {devices: ["/dev/disk/by-id/virtio-data-*"], namespaces: [team-a]}
  nfs: {servers: ["*.storage.example", "10.0.0.[0-9]"]}
  cifs:
  fuse:
    profiles:
      sshfs:
        program: /usr/bin/sshfs
        arguments: ["${source}", "${mountpoint}", "-f", "-o", "port=${option.port},IdentityFile=${secret.ssh-privatekey}"]
        sources: ["*@storage.example:*"]
        options: {port: {default: "22", allow: ["[0-9]*"]}}
        secrets: [ssh-privatekey]
        namespaces: [team-a]
"#;

pub(super) fn example() -> Policy {
    Policy::parse(EXAMPLE).unwrap()
}

pub(super) fn said<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    format!("{} => {}", error.chain(), error.advice().unwrap_or_default())
}

/// Compares with the golden file; `UPDATE_GOLDEN=1` writes it anew for a person to review.
fn hold(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{}", path.display());
}

#[test]
fn the_schema_is_as_reviewed() {
    hold("policy-schema.json", &(serde_json::to_string_pretty(&schema()).unwrap() + "\n"));
}

#[test]
fn what_a_policy_allows_is_told_as_reviewed() {
    hold("policy-explained.txt", &validate::explain(EXAMPLE).unwrap());
    hold("policy-explained-default.txt", &validate::explain("").unwrap());
}

#[test]
fn an_empty_file_is_the_default() {
    for text in ["", "\n", "# nothing\n", "{}", "---\n", "kubeletRoot: /var/lib/kubelet"] {
        assert_eq!(Policy::parse(text).unwrap(), Policy::default(), "{text:?}");
    }
    let default = Policy::default();
    assert!(default.check().is_ok());
    let on = default.backends;
    assert!(on.tmpfs.is_some() && on.nfs.is_some() && on.cifs.is_some());
    assert!(
        on.bind.is_none()
            && on.image.is_none()
            && on.overlay.is_none()
            && on.block.is_none()
            && on.fuse.is_none()
    );
}

#[test]
fn backends_that_are_named_are_on_exactly() {
    let on = Policy::parse("backends: {tmpfs: , cifs: {}}").unwrap().backends;
    let expect = Backends {
        tmpfs: Some(TmpfsPolicy::default()),
        cifs: Some(CifsPolicy::default()),
        ..Backends::none()
    };
    assert_eq!(on, expect);
    assert_eq!(Policy::parse("backends: {}").unwrap().backends, Backends::none());
    for empty in ["backends:\n", "timeout: 5s\nbackends: # none yet\n", "backends: null"] {
        let chain = Policy::parse(empty).unwrap_err().chain();
        assert!(chain.contains("write `backends: {}` for none, or leave it out"), "{chain}");
    }
}

#[test]
fn what_is_written_reads_back() {
    for policy in [Policy::default(), example()] {
        // JSON is YAML.
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(Policy::parse(&text).unwrap(), policy, "{text}");
    }
}

#[test]
fn a_mistake_has_its_place_and_a_suggestion() {
    let table = [
        ("timeuot: 3s", "line 1, column 1: `timeuot` is not a key here; did you mean `timeout`?"),
        (
            "backends:\n  tmpfs:\n    maxsize: 1Gi\n",
            "line 3, column 5: `maxsize` is not a key here; did you mean `maxSize`?",
        ),
        ("backends: {zfs: {}}", "line 1, column 12: `zfs` is not a key here; did you mean `nfs`?"),
        ("busy: lasy", "`lasy` is not a word here; did you mean `lazy`?"),
        (
            "timeout: soon",
            "`soon` is not a time; write whole seconds or minutes, such as 30s or 2m at line 1, column 10",
        ),
        (
            "backends: {tmpfs: {maxSize: 64m}}",
            "`64m` counts thousandths of a byte; write 64Mi at line 1, column 29",
        ),
        ("namespaces: [\"[a\"]", "the pattern `[a` has a `[` without its `]` at line 1, column 14"),
        ("namespaces: team", "line 1"),
        ("backends: {bind: {roots: [{}]}}", "path"),
        ("timeout: 3s\ntimeout: 4s", "line 2"),
        ("a: [", "line 1"),
        ("- a", "line 1"),
        ("--- {}\n--- {}\n", "document"),
        ("\tx: y", "line 1"),
        ("backends: {block: {format: yes}}", "line 1, column 28"),
    ];
    for (text, expect) in table {
        let said = said(Policy::parse(text));
        assert!(said.contains(expect), "{text}: {said}");
        assert!(!said.contains('\n'), "{said}");
    }
}

#[test]
fn a_bomb_is_an_error() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, below) in "bcdefghi".chars().zip("abcdefgh".chars()) {
        let list = vec![format!("*{below}"); 9].join(", ");
        bomb.extend([name.to_string(), format!(": &{name} [{list}]\n")]);
    }
    let deep = format!("namespaces: {}", "[".repeat(100_000));
    let blocks = (0..200).map(|i| " ".repeat(i) + "a:\n").collect::<String>();
    let many = format!("namespaces: [{}]", "a, ".repeat(200_000));
    let aliased = format!("namespaces: &a [x]\nallowSuid: [{}]", "*a, ".repeat(5000));
    for text in [bomb, deep, blocks, many, aliased] {
        assert!(Policy::parse(&text).is_err(), "{}", &text[..40]);
    }
}

#[test]
fn a_contradiction_is_told_with_its_place() {
    let table = [
        ("kubeletRoot: var/lib", "`kubeletRoot` (var/lib) is not absolute"),
        ("kubeletRoot: /", "`kubeletRoot` (/) has an empty component"),
        ("timeout: 101s", "`timeout` (101s) is longer than 100s"),
        ("timeout: 0s", "`0s` is no time at all"),
        ("timeout: 5s", "`busyWait` (5s) is not shorter than `timeout` (5s)"),
        ("namespaces: [Team]", "`namespaces` has `Team`, which no namespace's name can match"),
        (
            "backends: {tmpfs: {maxSize: 1Mi}}",
            "`backends.tmpfs.maxSize` (1Mi) is less than `defaultSize` (64Mi)",
        ),
        ("backends: {tmpfs: {maxInodes: 0}}", "`backends.tmpfs.maxInodes` is 0"),
        (
            "backends: {bind: }",
            "`backends.bind.roots` is empty, so that nothing is allowed; list something or leave out `bind`",
        ),
        ("backends: {bind: {roots: [{path: srv}]}}", "`backends.bind.roots[0].path` (srv) is not absolute"),
        ("backends: {bind: {roots: [{path: /srv/../etc}]}}", "(/srv/../etc) has the component `..`"),
        (
            "backends: {bind: {roots: [{path: /etc/kubernetes}]}}",
            "(/etc/kubernetes) is, lies in, or contains the node's settings",
        ),
        (
            "backends: {image: {roots: [{path: /var/lib}]}}",
            "(/var/lib) is, lies in, or contains the kubelet's folder",
        ),
        (
            "kubeletRoot: /data/kubelet\nbackends: {bind: {roots: [{path: /data}]}}",
            "contains the kubelet's folder",
        ),
        (
            "backends: {bind: {roots: [{path: /srv/x, readOnly: true, create: true}]}}",
            "has both `readOnly` and `create`",
        ),
        ("backends: {image: {roots: [{path: /srv/x}], fsTypes: []}}", "`backends.image.fsTypes` is empty"),
        (
            "backends: {overlay: {lower: [{path: /srv/x, create: true}]}}",
            "has `create`, but layers there are only read",
        ),
        (
            "backends: {overlay: {lower: [{path: /srv/x}], upper: [{path: /srv/y, readOnly: true}]}}",
            "has `readOnly`",
        ),
        (
            "backends: {block: {devices: [sda]}}",
            "`backends.block.devices` has `sda`, which no device can match",
        ),
        ("backends: {block: {devices: [/dev/../sda]}}", "which no device can match"),
        (
            "backends: {nfs: {servers: [\"a/b\"]}}",
            "`backends.nfs.servers` has `a/b`, which no server's name can match",
        ),
        ("backends: {cifs: {helper: mount.cifs}}", "`backends.cifs.helper` (mount.cifs) is not absolute"),
        ("backends: {fuse: }", "`backends.fuse.profiles` is empty"),
    ];
    for (text, expect) in table {
        let said = said(Policy::parse(text));
        assert!(said.contains(expect), "{text}: {said}");
    }
}

#[test]
fn two_contradictions_come_in_one_message() {
    let both = said(Policy::parse("timeout: 200s\nkubeletRoot: x"));
    assert!(both.contains("kubeletRoot") && both.contains("timeout"), "{both}");
}

#[test]
fn a_profile_that_cannot_work_is_refused() {
    let table = [
        ("program: sshfs, arguments: ['${mountpoint}']", "program` (sshfs) is not absolute"),
        ("program: /bin/x, arguments: [a]", "lacks `${mountpoint}`"),
        ("program: /bin/x, arguments: ['${mountpoin}']", "did you mean ${mountpoint}?"),
        ("program: /bin/x, arguments: ['${mountpoint}', '${source}']", "the profile's `sources` allow none"),
        ("program: /bin/x, arguments: ['${mountpoint}${option.p}']", "not among the profile's `options`"),
        (
            "program: /bin/x, arguments: ['${mountpoint}'], environment: {A: '${secret.k}'}",
            "not among the profile's `secrets`",
        ),
        (
            "program: /bin/x, arguments: ['${mountpoint}'], environment: {'A=B': x}",
            "`A=B`, which is not a name",
        ),
        (
            "program: /bin/x, arguments: ['${mountpoint}'], options: {mode: {default: x}}",
            "an option that every volume has",
        ),
        ("program: /bin/x, arguments: ['${mountpoint}'], options: {p: {}}", "neither `default` nor `allow`"),
        ("program: /bin/x, arguments: ['${mountpoint}'], handover: fd", "`fd` is not a word here"),
    ];
    for (profile, expect) in table {
        let said = said(Policy::parse(&format!("backends: {{fuse: {{profiles: {{p: {{{profile}}}}}}}}}")));
        assert!(said.contains(expect), "{profile}: {said}");
    }
}

proptest! {
    #[test]
    fn junk_is_never_more_than_an_error(text in "[a-zA-Z:{}\\[\\]&*,\"' \n-]{0,60}|\\PC{0,30}") {
        let _ = Policy::parse(&text);
    }
}
