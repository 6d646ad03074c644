//! The distribution's own helpers, as far as a kernel without nfs and cifs lets them: to mount(2).

use harness::kernel::tree::{self, Asked, Tree};
use harness::kubelet::{Kubelet, Volume};
use harness::suite::volume;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{PASSWORD, cifs, nfs};

/// statfs(2) flags of mount(2).
const RO: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOEXEC: u64 = 8;

pub fn trials() -> Vec<Trial> {
    vec![
        volume("mount_nfs_gets_the_options_and_the_kernel_what_it_makes_of_them", &["mount.nfs"], real_nfs),
        volume("mount_cifs_gets_its_password_where_nobody_else_sees_it", &["mount.cifs"], real_cifs),
        volume(
            "mount_cifs_needs_no_password_where_the_share_needs_none",
            &["mount.cifs"],
            without_a_password,
        ),
        volume("mount_cifs_never_asks_a_person_for_a_password", &["mount.cifs"], never_asks),
        volume(
            "a_share_without_its_kernel_module_says_what_to_load",
            &["mount.nfs", "mount.cifs"],
            no_module,
        ),
    ]
}

/// `mount` under trace. The kubelet makes the folder before, and takes it away after a failure.
fn traced(node: &VolumeNode, kubelet: &Kubelet, volume: &Volume) -> Tree {
    std::fs::create_dir_all(volume.path()).unwrap();
    let (path, json) = (volume.path().display().to_string(), volume.mount_json().unwrap());
    let seen = tree::watch(&kubelet.driver_call(volume.driver(), &["mount", &path, &json]));
    std::fs::remove_dir(volume.path()).unwrap();
    node.assert_nothing_left("a failed mount");
    seen
}

/// What the helper asked the kernel for; the driver's own mounts are left out.
fn asked<'t>(seen: &'t Tree, kind: &str) -> &'t Asked {
    let found: Vec<&Asked> = seen.mounts.iter().filter(|m| m.kind == kind).collect();
    assert_eq!(found.len(), 1, "{:?} after {:?}", seen.mounts, seen.answer);
    found[0]
}

fn real_nfs(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let usual = nfs(&kubelet);
    let cases: [(Volume, &str, u64, &str); 5] = [
        (usual.clone(), "127.0.0.1:/export", NOSUID | NODEV, "retry=0,vers=4.2"),
        (usual.clone().read_only(), "127.0.0.1:/export", RO | NOSUID | NODEV, "retry=0,vers=4.2"),
        (
            usual.clone().option("vers", "4.1").option("noexec", "true").option("share", "/a b/c,d"),
            "127.0.0.1:/a b/c,d",
            NOSUID | NODEV | NOEXEC,
            "vers=4.1,retry=0",
        ),
        (
            usual
                .clone()
                .option("timeo", "50")
                .option("nconnect", "4")
                .option("mountOptions", "hard,rsize=1m"),
            "127.0.0.1:/export",
            NOSUID | NODEV,
            "retry=0,timeo=50,nconnect=4,hard,rsize=1m,vers=4.2",
        ),
        (
            usual.option("server", "::1").option("sec", "sys").option("port", "2050"),
            "[::1]:/export",
            NOSUID | NODEV,
            "retry=0,port=2050,sec=sys,vers=4.2",
        ),
    ];
    for (volume, source, flags, data) in cases {
        let seen = traced(node, &kubelet, &volume);
        let mount = asked(&seen, "nfs");
        let address = if source.starts_with('[') { "::1" } else { "127.0.0.1" };
        assert_eq!((mount.source.as_str(), mount.flags), (source, flags));
        assert_eq!(mount.data, format!("{data},addr={address},clientaddr={address}"));
        assert_eq!(mount.target, "/run/nodeplug/flexvolume/stage/mnt");
        assert_eq!(seen.execs.len(), 1, "{:?}", seen.execs);
        assert_eq!(seen.execs[0].arguments[0], "/sbin/mount.nfs");
    }
}

fn real_cifs(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let usual = cifs(&kubelet);
    let quirks: &[u8] = "ä,,b\\;= \u{20ac} ".as_bytes();
    let longest = "xy,".repeat(128);
    let with = |password: &[u8]| usual.clone().secret("password", password);
    let cases: [(Volume, u64, &str, &[u8]); 6] = [
        (usual.clone(), NOSUID | NODEV, "vers=3,user=bob", PASSWORD),
        (
            usual.clone().read_only().secret("domain", b"DOM"),
            RO | NOSUID | NODEV,
            "vers=3,user=bob,domain=DOM",
            PASSWORD,
        ),
        (
            usual.clone().fs_group(1234).option("seal", "true").option("vers", "3.1.1").option("domain", "D"),
            NOSUID | NODEV,
            "vers=3.1.1,seal,file_mode=0770,dir_mode=0770,gid=1234,user=bob,domain=D",
            PASSWORD,
        ),
        (
            with(b"hunter2\n").secret("username", b"DOM\\bob\n"),
            NOSUID | NODEV,
            "vers=3,user=DOM\\bob",
            b"hunter2",
        ),
        (with(quirks), NOSUID | NODEV, "vers=3,user=bob", quirks),
        (with(longest.as_bytes()), NOSUID | NODEV, "vers=3,user=bob", longest.as_bytes()),
    ];
    for (volume, flags, data, password) in cases {
        let seen = traced(node, &kubelet, &volume);
        let mount = asked(&seen, "cifs");
        let password = String::from_utf8(password.to_vec()).unwrap();
        // The helper doubles commas, which the kernel undoes.
        let data =
            format!("ip=127.0.0.1,unc=\\\\127.0.0.1\\share,{data},pass={}", password.replace(',', ",,"));
        assert_eq!((mount.source.as_str(), mount.flags), ("//127.0.0.1/share", flags));
        assert_eq!(mount.data, data);
        assert_eq!(mount.program, "/sbin/mount.cifs");
        nowhere_else(&seen, &password);
        kubelet.assert_not_told(password.as_bytes());
    }
}

/// No program that the driver starts has the password in its words or its environment.
fn nowhere_else(seen: &Tree, password: &str) {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(password);
    assert_eq!(seen.execs.len(), 1, "{:?}", seen.execs);
    for exec in &seen.execs {
        assert_eq!(exec.environment, ["LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        let words = exec.arguments.join("\0");
        assert!(!words.contains(password) && !words.contains(&encoded), "{words}");
        assert!(exec.arguments[5].contains("credentials=/proc/self/fd/"), "{words}");
    }
    let answer = seen.answer.as_ref().unwrap();
    assert!(!answer.stdout.contains(password) && !answer.stdout.contains(&encoded), "{}", answer.stdout);
    for mount in seen.mounts.iter().filter(|m| m.kind != "cifs") {
        assert!(!mount.data.contains(password), "{mount:?}");
    }
}

fn without_a_password(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let bare =
        kubelet.pod("shop", "web-0").inline("nodeplug/cifs", "data").option("source", "//127.0.0.1/share/a");
    let cases = [
        (bare.clone().option("guest", "true"), "vers=3,user=,prefixpath=a,pass="),
        (bare.clone().option("sec", "none"), "vers=3,sec=none,user=root,prefixpath=a,pass="),
        (
            bare.option("sec", "krb5").option("cruid", "1000"),
            "vers=3,sec=krb5,cruid=1000,user=root,prefixpath=a,pass=",
        ),
    ];
    for (volume, data) in cases {
        let seen = traced(node, &kubelet, &volume);
        assert_eq!(asked(&seen, "cifs").data, format!("ip=127.0.0.1,unc=\\\\127.0.0.1\\share,{data}"));
        assert!(!seen.execs[0].arguments[5].contains("credentials"), "{:?}", seen.execs);
    }
}

fn never_asks(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let bare =
        kubelet.pod("shop", "web-0").inline("nodeplug/cifs", "data").option("source", "//127.0.0.1/share");
    for volume in [bare.clone(), bare.clone().secret("username", b"bob"), bare.secret("password", b"\n")] {
        let seen = traced(node, &kubelet, &volume);
        assert!(seen.execs.is_empty(), "{:?}", seen.execs);
        let answer = seen.answer.unwrap().stdout;
        assert!(answer.contains("`kubectl create secret generic NAME --type=nodeplug/cifs"), "{answer}");
    }
}

fn no_module(node: &VolumeNode) {
    let kubelet = node.kubelet();
    for (volume, module) in [(nfs(&kubelet), "nfs"), (cifs(&kubelet), "cifs")] {
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains(&format!("modprobe {module}")) && why.contains("No such device"), "{why}");
        assert!(kubelet.events().last().unwrap().contains("modprobe"), "{:?}", kubelet.events());
        kubelet.assert_not_told(PASSWORD);
        node.assert_nothing_left(module);
    }
}
