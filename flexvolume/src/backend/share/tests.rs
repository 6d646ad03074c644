//! From options to the helper's arguments, for both.

use std::path::Path;
use std::time::Instant;

use crate::backend::{Asked, Common, Seen, cifs, nfs};
use crate::name::Backend;
use crate::options::Options;
use crate::plan::Step;
use crate::policy::Policy;
use crate::record::Record;
use crate::target::Target;
use node::Result;

type Pairs<'p> = &'p [(&'p str, &'p str)];

const USER: [(&str, &str); 2] = [
    ("kubernetes.io/secret/username", "Ym9i"),
    // p,w=1 x and a line end
    ("kubernetes.io/secret/password", "cCx3PTEgeAo="),
];

/// The steps' lines, the record's source first.
fn lines(backend: Backend, pairs: Pairs<'_>) -> Result<Vec<String>> {
    lines_by(&Policy::default(), backend, pairs)
}

fn lines_by(policy: &Policy, backend: Backend, pairs: Pairs<'_>) -> Result<Vec<String>> {
    let mut map = serde_json::json!({
        "kubernetes.io/pod.namespace": "shop", "kubernetes.io/pod.name": "web-0",
        "kubernetes.io/pod.uid": "u-1", "kubernetes.io/pvOrVolumeName": "data",
    });
    for (key, value) in pairs {
        map[key] = serde_json::json!(value);
    }
    let options = Options::parse(&map.to_string()).unwrap();
    let root = Path::new("/var/lib/kubelet");
    let path = root.join("pods/u-1/volumes/nodeplug~share/data");
    let target = Target::parse(&path, root).unwrap();
    let (mut reader, pod) = (options.reader(), options.pod());
    let common = Common::read(&options, &pod, policy, &mut reader, Instant::now());
    let asked = Asked { options: &options, pod, target: &target, policy, common };
    let wanted = match backend {
        Backend::Nfs => nfs::wanted(&asked, &mut reader)?,
        _ => cifs::wanted(&asked, &mut reader)?,
    };
    reader.finish()?;
    let wanted = wanted.expect("nothing was noted, so there is a share");
    let mut record = Record::default();
    wanted.describe(&mut record);
    let steps = wanted.steps();
    let lines = steps.iter().map(|step| match step {
        Step::Share(share) => share.arguments(Path::new("M"), None).join(" "),
        other => other.to_string(),
    });
    Ok([record.source].into_iter().chain(lines).collect())
}

const NFS: &str = "nas:/x M -n -o nosuid,nodev,";
const CIFS: &str = "//nas/x M -n -o nosuid,nodev,";

#[test]
fn options_of_nfs_become_the_helpers_arguments() {
    let table: [(Pairs<'_>, &str); 20] = [
        (&[], "vers=4,retry=0"),
        (&[("readOnly", "true")], "nas:/x M -n -o ro,nosuid,nodev,vers=4,retry=0"),
        (&[("kubernetes.io/readwrite", "ro")], "nas:/x M -n -o ro,nosuid,nodev,vers=4,retry=0"),
        (&[("mountOptions", "ro")], "nas:/x M -n -o ro,nosuid,nodev,vers=4,retry=0"),
        (&[("noexec", "true")], "noexec,vers=4,retry=0"),
        (&[("server", "192.0.2.1"), ("share", "/")], "192.0.2.1:/ M -n -o nosuid,nodev,vers=4,retry=0"),
        (&[("server", "2001:db8::1")], "[2001:db8::1]:/x M -n -o nosuid,nodev,vers=4,retry=0"),
        (&[("server", "[fe80::1%eth0]")], "[fe80::1%eth0]:/x M -n -o nosuid,nodev,vers=4,retry=0"),
        (&[("share", "/a b/c,d")], "nas:/a b/c,d M -n -o nosuid,nodev,vers=4,retry=0"),
        (&[("vers", "3"), ("nolock", "true")], "vers=3,retry=0,nolock"),
        (&[("vers", "4.1"), ("proto", "tcp6"), ("port", "2050")], "vers=4.1,retry=0,proto=tcp6,port=2050"),
        (
            &[("sec", "krb5p"), ("timeo", "50"), ("retrans", "2")],
            "vers=4,retry=0,sec=krb5p,timeo=50,retrans=2",
        ),
        (
            &[("nconnect", "4"), ("mountOptions", "hard,noatime,rsize=1m")],
            "vers=4,retry=0,nconnect=4,hard,rsize=1m",
        ),
        (&[("mountOptions", "vers=4.0")], "retry=0,vers=4.0"),
        (&[("mountOptions", "nfsvers=3,soft")], "retry=0,nfsvers=3,soft"),
        (&[("fsType", "nfs4")], "vers=4,retry=0"),
        (&[("kubernetes.io/mounterArgs.FsGroup", "1234")], "vers=4,retry=0"),
        (&[("subDir", "${pod.namespace}/${volume}")], "vers=4,retry=0"),
        (&[("kubernetes.io/secret/password", "eA==")], "vers=4,retry=0"),
        (&[("port", "")], "vers=4,retry=0"),
    ];
    for (pairs, expect) in table {
        let pairs = [&[("server", "nas"), ("share", "/x")], pairs].concat();
        let expect = if expect.contains(" M ") { expect.to_owned() } else { format!("{NFS}{expect}") };
        assert_eq!(lines(Backend::Nfs, &pairs).unwrap()[1..], [expect], "{pairs:?}");
    }
}

#[test]
fn options_of_cifs_become_the_helpers_arguments() {
    let group = ("kubernetes.io/mounterArgs.FsGroup", "1234");
    let table: [(Pairs<'_>, &str); 17] = [
        (&[], "vers=3"),
        (&[("readOnly", "true")], "//nas/x M -n -o ro,nosuid,nodev,vers=3"),
        (
            &[("server", "[2001:db8::1]"), ("share", "x/y z")],
            "//2001:db8::1/x/y z M -n -o nosuid,nodev,vers=3",
        ),
        (
            &[("server", ""), ("share", ""), ("source", "//192.0.2.1/C$/a")],
            "//192.0.2.1/C$/a M -n -o nosuid,nodev,vers=3",
        ),
        (&[("vers", "3.1.1"), ("seal", "true")], "vers=3.1.1,seal"),
        (&[("domain", "DOM"), ("uid", "1000"), ("gid", "5")], "vers=3,domain=DOM,uid=1000,gid=5"),
        (&[group], "vers=3,gid=1234,file_mode=0770,dir_mode=0770"),
        (&[group, ("gid", "5"), ("fileMode", "0640")], "vers=3,gid=5,file_mode=0640,dir_mode=0770"),
        (&[group, ("mountOptions", "gid=5,dir_mode=0750")], "vers=3,file_mode=0770,gid=5,dir_mode=0750"),
        (&[group, ("fsGroupPolicy", "none")], "vers=3"),
        (
            &[group, ("readOnly", "true")],
            "//nas/x M -n -o ro,nosuid,nodev,vers=3,gid=1234,file_mode=0770,dir_mode=0770",
        ),
        (&[("dirMode", "2770")], "vers=3,dir_mode=02770"),
        (
            &[("sec", "ntlmsspi"), ("mountOptions", "mfsymlinks,cache=none,nosuid")],
            "vers=3,sec=ntlmsspi,mfsymlinks,cache=none",
        ),
        (
            &[("sec", "krb5"), ("cruid", "1000"), ("multiuser", "true")],
            "vers=3,sec=krb5,multiuser,cruid=1000",
        ),
        (&[("mountOptions", "vers=2.1")], "vers=2.1"),
        (&[("fsType", "cifs")], "vers=3"),
        (&[("createSubDir", "true"), ("subDir", "a")], "vers=3"),
    ];
    for (pairs, expect) in table {
        let pairs = [&[("server", "nas"), ("share", "x")], &USER[..], pairs].concat();
        let expect = if expect.contains(" M ") { expect.to_owned() } else { format!("{CIFS}{expect}") };
        assert_eq!(lines(Backend::Cifs, &pairs).unwrap()[1..], [expect], "{pairs:?}");
    }
    for (pairs, expect) in [
        ([("guest", "true"), ("readOnly", "")], "vers=3,guest"),
        ([("sec", "none"), ("readOnly", "")], "vers=3,sec=none"),
        ([("sec", "krb5i"), ("cruid", "7")], "vers=3,sec=krb5i,cruid=7"),
        ([("mountOptions", "sec=krb5"), ("cruid", "7")], "vers=3,cruid=7,sec=krb5"),
    ] {
        let pairs = [&[("source", "//nas/x")], &pairs[..]].concat();
        assert_eq!(lines(Backend::Cifs, &pairs).unwrap()[1..], [format!("{CIFS}{expect}")], "{pairs:?}");
    }
}

#[test]
fn a_folder_of_a_share_and_its_group_are_steps() {
    let nas = [("server", "nas"), ("share", "/x"), ("subDir", "${pod.namespace}/${volume}")];
    let group = [("kubernetes.io/mounterArgs.FsGroup", "1234"), ("fsGroupPolicy", "onRootMismatch")];
    let seen = lines(Backend::Nfs, &[&nas[..], &group[..]].concat()).unwrap();
    assert_eq!(seen[0], "nas:/x/shop/data");
    assert_eq!(seen[2..], ["give the group 1234 all of it, unless its root folder has it, in a child"]);
    let seen = lines(Backend::Nfs, &[&nas[..], &group[..], &[("mountOptions", "ro")]].concat()).unwrap();
    assert!(seen[2..].is_empty(), "{seen:?}");
    let root = [("server", "nas"), ("share", "/"), ("subDir", "a")];
    assert_eq!(lines(Backend::Nfs, &root).unwrap()[0], "nas:/a");
}

#[test]
fn a_step_tells_what_it_does_and_no_secret() {
    let share = crate::plan::Share {
        protocol: crate::plan::Protocol::Cifs,
        helper: "/sbin/mount.cifs".into(),
        source: "//nas/x".into(),
        options: vec!["vers=3".into(), "seal".into()],
        credentials: vec![("username", "username".into()), ("password", "password".into())],
        folder: Some(crate::plan::SubFolder {
            path: "a/b".into(),
            create: Some(crate::plan::NewFolder { mode: 0o2770, owner: Some((0, 5)) }),
        }),
    };
    assert_eq!(
        Step::Share(Box::new(share)).to_string(),
        "mount `//nas/x` by `/sbin/mount.cifs` with `vers=3,seal` and [\"username\", \"password\"] of the Secret, \
         its folder `a/b`, made with mode 2770 where it is missing for 0:5"
    );
}

#[test]
fn what_could_mean_something_else_to_a_helper_is_refused() {
    let nfs: [(Pairs<'_>, &str); 20] = [
        (&[("server", "")], "`server` is missing"),
        (&[("share", "")], "`share` is missing"),
        (&[("server", "-o")], "`server` (-o) is not a host's name"),
        (&[("server", "a,b")], "is not a host's name"),
        (&[("server", "nas:2049")], "is not an IPv6 address"),
        (&[("server", "0177.1")], "write all four numbers"),
        (&[("server", "n\nas")], "control character"),
        (&[("share", "x")], "`share` does not start with `/`"),
        (&[("share", "/x/../y")], "`share` has the part `..`"),
        (&[("share", "//x")], "has an empty part"),
        (&[("subDir", "../y")], "`subDir` (../y) has the component `..`"),
        (&[("subDir", "/y")], "starts with `/`"),
        (&[("createSubDir", "true")], "`createSubDir` is nothing without `subDir`"),
        (&[("mode", "0777")], "`mode` is for a folder that `createSubDir` makes"),
        (&[("vers", "2")], "`vers` (2) is not one of its words"),
        (
            &[("vers", "4"), ("mountOptions", "vers=4.1")],
            "`mountOptions` has `vers`, which an option says already",
        ),
        (&[("mountOptions", "addr=10.0.0.1")], "`addr` is refused"),
        (&[("mountOptions", "retry=5")], "`retry` is refused"),
        (&[("fsType", "ext4")], "`fsType` (ext4) is not what a share of nfs has"),
        (&[("guest", "true")], "`guest` is not an option here"),
    ];
    for (pairs, expect) in nfs {
        let pairs = [&[("server", "nas"), ("share", "/x")], pairs].concat();
        let error = lines(Backend::Nfs, &pairs).unwrap_err();
        assert!(error.chain().contains(expect), "{pairs:?}: {}", error.chain());
    }
    let cifs: [(Pairs<'_>, &str); 18] = [
        (&[("source", "//nas/x")], "`source` says what `server` and `share` say"),
        (&[("server", ""), ("share", ""), ("source", "nas/x")], "`source` is not a share"),
        (&[("server", ""), ("share", ""), ("source", "\\\\nas\\x")], "with forward slashes"),
        (&[("server", ""), ("share", ""), ("source", "//nas/x,uid=0")], "`source` has a `,`"),
        (&[("server", ""), ("share", ""), ("source", "//nas/")], "`source` has an empty part"),
        (&[("share", "x,ip=10.0.0.1")], "`share` has a `,`"),
        (&[("share", "x/..")], "has the part `..`"),
        (&[("domain", "D,uid=0")], "`domain` has a comma"),
        (&[("domain", "D"), ("kubernetes.io/secret/domain", "RA==")], "`domain` stands in the Secret, too"),
        (&[("guest", "true")], "`guest` contradicts"),
        (&[("cruid", "5")], "write `sec: krb5` with it"),
        (&[("mode", "0770")], "write `fileMode` and `dirMode`"),
        (&[("vers", "1.0")], "`vers` (1.0) is not one of its words"),
        (&[("mountOptions", "password=hunter2,comma")], "belongs into the Secret"),
        (&[("mountOptions", "guest")], "`guest` is refused"),
        (&[("password", "hunter2")], "put it in the Secret"),
        (
            &[("createSubDir", "true"), ("subDir", "a"), ("readOnly", "true")],
            "makes nothing in a read-only volume",
        ),
        (&[("selinuxContext", "a b\"c")], "does not allow"),
    ];
    for (pairs, expect) in cifs {
        let pairs = [&[("server", "nas"), ("share", "x")], &USER[..], pairs].concat();
        let error = lines(Backend::Cifs, &pairs).unwrap_err();
        assert!(error.chain().contains(expect), "{pairs:?}: {}", error.chain());
        assert!(!error.chain().contains("hunter2"), "{pairs:?}");
    }
}

#[test]
fn a_share_without_a_password_has_to_say_so() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let long = "x".repeat(513);
    let longest = "x".repeat(512);
    let commas = ",".repeat(257);
    let table: [(&[u8], &[u8], Option<&str>); 16] = [
        (b"bob", b"hunter2", None),
        (b"bob\n", b"hunter2\r\n", None),
        (b"DOM\\bob", b" p,w=1 '\"#;% ", None),
        ("jürgen".as_bytes(), "pässword".as_bytes(), None),
        (b"bob", b"\xff\xfe", None),
        (b"bob", longest.as_bytes(), None),
        (b"", b"hunter2", Some("a Secret with `username`:")),
        (b"bob", b"", Some("a Secret with `password`:")),
        (b"bob", b"\n", Some("a Secret with `password`:")),
        (b"", b"", Some("a Secret with `username` and `password`:")),
        (b"bob", b"hunter2\nusername=root", Some("`password` has a line end")),
        (b"bob", b"hunter2\0", Some("`password` has a line end or a zero byte")),
        (b"bob,uid=0", b"hunter2", Some("`username` has a comma")),
        (b"bob\nx", b"hunter2", Some("`username` has a comma or a control character")),
        (b"bob", commas.as_bytes(), Some("where a comma counts as two")),
        (b"bob", long.as_bytes(), Some("`password` is longer than 512 bytes")),
    ];
    for (user, password, expect) in table {
        let (user, password) = (STANDARD.encode(user), STANDARD.encode(password));
        let pairs = [
            ("source", "//nas/x"),
            ("kubernetes.io/secret/username", user.as_str()),
            ("kubernetes.io/secret/password", password.as_str()),
        ];
        match (lines(Backend::Cifs, &pairs), expect) {
            (Ok(seen), None) => assert_eq!(seen[1..], [format!("{CIFS}vers=3")]),
            (Err(error), Some(expect)) => {
                let chain = error.chain();
                assert!(chain.contains(expect) && !chain.contains("hunter2"), "{expect}: {chain}");
                let create = "kubectl create secret generic NAME --type=nodeplug/share";
                assert!(!expect.starts_with("a Secret") || chain.contains(create), "{chain}");
            }
            (seen, expect) => panic!("{user} {password}: {seen:?}, not {expect:?}"),
        }
    }
}

#[test]
fn the_policy_decides_on_servers_and_names_the_helper() {
    let yaml = "backends: {nfs: {servers: ['*.example', '::1'], helper: /opt/mount.nfs}}\n";
    let policy: Policy = serde_saphyr::from_str(yaml).unwrap();
    let pairs = [("server", "NAS.example"), ("share", "/x")];
    lines_by(&policy, Backend::Nfs, &pairs).unwrap();
    lines_by(&policy, Backend::Nfs, &[("server", "[::1]"), ("share", "/x")]).unwrap();
    for server in ["nas.example.org", "192.0.2.1"] {
        let error = lines_by(&policy, Backend::Nfs, &[("server", server), ("share", "/x")]).unwrap_err();
        assert!(error.chain().contains("does not list it"), "{}", error.chain());
    }
    let error = lines_by(&policy, Backend::Cifs, &[("source", "//nas/x"), ("guest", "true")]).unwrap_err();
    assert!(error.chain().contains("off on this node"), "{}", error.chain());
}

#[test]
fn limits_are_the_helpers_options_unless_the_policy_says_otherwise() {
    let yaml = "{allowSuid: [shop], allowDev: [shop], allowSelinuxContext: [shop]}";
    let policy: Policy = serde_saphyr::from_str(yaml).unwrap();
    let pairs = [
        ("server", "nas"),
        ("share", "/x"),
        ("allowSuid", "true"),
        ("selinuxContext", "system_u:object_r:container_file_t:s0:c1,c2"),
    ];
    let seen = lines_by(&policy, Backend::Nfs, &pairs).unwrap();
    let context = "context=\"system_u:object_r:container_file_t:s0:c1,c2\"";
    assert_eq!(seen[1], format!("nas:/x M -n -o nodev,vers=4,retry=0,{context}"));
    let pairs = [("server", "nas"), ("share", "/x"), ("selinuxContext", "a\",suid,\"")];
    let error = lines_by(&policy, Backend::Nfs, &pairs).unwrap_err();
    assert!(error.chain().contains("is not a label"), "{}", error.chain());
}
