//! Memory with a size, as the pod sees it.

mod life;
mod secrets;

use std::fs;
use std::os::unix::fs::MetadataExt;

use harness::kubelet::{Kubelet, Outcome, Volume};
use harness::suite::volume;
use harness::volume_look::{Mount, mounts_at};
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;
use rustix::fs::statvfs;

use crate::ours::SECRET;

/// What is added to a volume.
type Wish = fn(Volume) -> Volume;

pub fn trials() -> Vec<Trial> {
    let mut all = own();
    all.extend(life::trials());
    all.extend(secrets::trials());
    all
}

fn own() -> Vec<Trial> {
    vec![
        volume("a_tmpfs_is_as_large_as_asked_and_no_larger", &[], sizes),
        volume("a_tmpfs_that_the_policy_caps_is_refused_above", &[], caps),
        volume("a_tmpfs_holds_so_many_files_and_no_more", &[], inodes),
        volume("the_root_folder_has_its_mode_and_owner", &[], modes),
        volume("the_pods_group_writes_and_nobody_else", &[], group),
        volume("a_read_only_tmpfs_has_its_secrets_and_takes_nothing", &[], read_only),
        volume(
            "programs_suid_bits_and_devices_work_only_where_allowed",
            &["cp", "id", "mknod"],
            restrictions,
        ),
        volume("huge_pages_and_swap_are_as_asked", &[], huge),
        volume("mount_options_of_a_tmpfs_are_those_of_the_list", &[], mount_options),
    ]
}

fn data(kubelet: &Kubelet) -> Volume {
    kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data").option("size", "1Mi")
}

#[track_caller]
fn only_mount(volume: &Volume) -> Mount {
    let mut all = mounts_at(&volume.path());
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[track_caller]
fn end(node: &VolumeNode, kubelet: &Kubelet, volume: &Volume) {
    kubelet.end(volume.pod());
    node.assert_nothing_left(volume.pod().name.as_str());
}

fn sizes(node: &VolumeNode) {
    let kubelet = node.kubelet();
    // Asked for; in whole pages.
    let table = [
        (None, 64 << 20),
        (Some("64Ki"), 64 << 10),
        (Some("1Mi"), 1 << 20),
        (Some("1.5Mi"), 3 << 19),
        (Some("100k"), 102_400),
        (Some("1e6"), 1_003_520),
        (Some("2097152"), 2 << 20),
        (Some("1"), 4096),
        (Some("256Mi"), 256 << 20),
    ];
    for (size, bytes) in table {
        let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
        let volume = size.map_or(volume.clone(), |size| volume.option("size", size));
        kubelet.set_up(&volume).mounted();
        let seen = statvfs(volume.path()).unwrap();
        assert_eq!(seen.f_blocks * seen.f_frsize, bytes, "{size:?}");
        if bytes <= 4 << 20 {
            let container = kubelet.container(&[&volume]);
            let full = container.run(&format!("head -c {} /dev/zero > /mnt/data/file", bytes + 1));
            assert!(!full.ok() && full.stderr.contains("No space left on device"), "{size:?}: {full:?}");
            assert_eq!(fs::metadata(volume.path().join("file")).unwrap().len(), bytes, "{size:?}");
        }
        end(node, &kubelet, &volume);
    }
    for (size, expect) in [
        ("0", "is nothing"),
        ("-1", "cannot be less than nothing"),
        ("64m", "thousandths"),
        ("1 Mi", "`size`"),
        ("lots", "`size`"),
        ("1e99", "`size`"),
        ("50%", "`size`"),
        ("1Mi,mode=0777", "`size`"),
        ("١", "`size`"),
    ] {
        let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data").option("size", size);
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(
            why.contains("size") && (expect == "-" || why.contains(expect) || why.contains("`size`")),
            "{size}: {why}"
        );
        end(node, &kubelet, &volume);
    }
}

fn caps(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let asks = |size: &str| data(&kubelet).option("size", size);
    let why = kubelet.set_up(&asks("257Mi")).refused().to_owned();
    assert!(why.contains("at most 256Mi") && why.contains("maxSize"), "{why}");
    node.policy(
        "backends: {tmpfs: {defaultSize: 128Ki, maxSize: 512Ki, maxInodes: 10, namespaces: [\"default\"]}}\n",
    );
    let volume = data(&kubelet).without("size");
    kubelet.set_up(&volume).mounted();
    let seen = statvfs(volume.path()).unwrap();
    assert_eq!((seen.f_blocks * seen.f_frsize, seen.f_files), (128 << 10, 10));
    end(node, &kubelet, &volume);
    let why = kubelet.set_up(&asks("513Ki")).refused().to_owned();
    assert!(why.contains("at most 512Ki"), "{why}");
    let why = kubelet.set_up(&asks("1Ki").option("inodes", "11")).refused().to_owned();
    assert!(why.contains("from 1 to 10"), "{why}");
    let other = kubelet.pod("other", "web").inline("nodeplug/tmpfs", "data").option("size", "1Ki");
    let why = kubelet.set_up(&other).refused().to_owned();
    assert!(why.contains("namespace") && why.contains("`other`"), "{why}");
    node.assert_nothing_left("after refusals");
}

fn inodes(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = data(&kubelet).option("inodes", "5");
    kubelet.set_up(&volume).mounted();
    let container = kubelet.container(&[&volume]);
    // The root folder is one of them.
    let made = container
        .run("for i in 1 2 3 4 5 6; do touch /mnt/data/$i 2> /dev/null || break; done; ls /mnt/data | wc -l");
    assert_eq!(made.stdout.trim(), "4", "{made:?}");
    drop(container);
    end(node, &kubelet, &volume);
    for bad in ["0", "-1", "many", "4294967296", "+5"] {
        let why = kubelet.set_up(&data(&kubelet).option("inodes", bad)).refused().to_owned();
        assert!(why.contains("`inodes`"), "{bad}: {why}");
    }
    node.assert_nothing_left("after refusals");
}

fn modes(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let table: [(&str, Wish, u32, u32, u32); 8] = [
        ("nothing", |v| v, 0o770, 0, 0),
        ("mode", |v| v.option("mode", "0755"), 0o755, 0, 0),
        ("sticky", |v| v.option("mode", "1777"), 0o1777, 0, 0),
        ("owner", |v| v.option("uid", "1000").option("gid", "2000"), 0o770, 1000, 2000),
        ("group", |v| v.fs_group(1234), 0o2770, 0, 1234),
        ("mode and group", |v| v.fs_group(1234).option("mode", "0700"), 0o2700, 0, 1234),
        ("group of its own", |v| v.fs_group(1234).option("gid", "5"), 0o2770, 0, 5),
        ("no group", |v| v.fs_group(1234).option("fsGroupPolicy", "none"), 0o770, 0, 0),
    ];
    for (name, wish, mode, uid, gid) in table {
        let volume = wish(data(&kubelet));
        kubelet.set_up(&volume).mounted();
        let seen = fs::metadata(volume.path()).unwrap();
        assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid()), (mode, uid, gid), "{name}");
        end(node, &kubelet, &volume);
    }
    for (key, bad) in [
        ("mode", "rwx"),
        ("mode", "8"),
        ("mode", "10000"),
        ("uid", "-1"),
        ("gid", "4294967295"),
        ("uid", "root"),
    ] {
        let why = kubelet.set_up(&data(&kubelet).option(key, bad)).refused().to_owned();
        assert!(why.contains(&format!("`{key}` ({bad})")), "{why}");
    }
    node.assert_nothing_left("after refusals");
}

fn group(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = data(&kubelet).fs_group(1234).secret("password", SECRET.as_bytes());
    kubelet.set_up(&volume).mounted();
    let container = kubelet.container(&[&volume]);
    let member = container.run_as(
        1000,
        &[1234],
        "echo x > /mnt/data/new && mkdir /mnt/data/sub && cat /mnt/data/password",
    );
    assert!(member.ok() && member.stdout == SECRET, "{member:?}");
    for name in ["new", "sub"] {
        assert_eq!(fs::metadata(volume.path().join(name)).unwrap().gid(), 1234, "{name}");
    }
    for line in ["echo x > /mnt/data/other", "cat /mnt/data/password", "ls /mnt/data"] {
        let stranger = container.run_as(1000, &[4321], line);
        assert!(!stranger.ok() && stranger.stderr.contains("Permission denied"), "{line}: {stranger:?}");
    }
    // Its members read the Secret and do not change it.
    let change = container.run_as(1000, &[1234], "echo x > /mnt/data/password");
    assert!(!change.ok(), "{change:?}");
    drop(container);
    end(node, &kubelet, &volume);
}

fn read_only(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let ways: [(&str, Wish); 4] = [
        ("the pod's", |v| v.read_only()),
        ("the option", |v| v.option("readOnly", "true")),
        ("the pod's over the option", |v| v.read_only().option("readOnly", "false")),
        ("a mount option", |v| v.option("mountOptions", "ro")),
    ];
    for (name, way) in ways {
        let volume = way(data(&kubelet).fs_group(1234).secret("password", SECRET.as_bytes()));
        kubelet.set_up(&volume).mounted();
        assert!(only_mount(&volume).options.contains(&"ro".to_owned()), "{name}");
        let container = kubelet.container(&[&volume]);
        let member = container.run_as(1000, &[1234], "cat /mnt/data/password; echo x > /mnt/data/new");
        assert_eq!(member.stdout, SECRET, "{name}");
        assert!(member.stderr.contains("Read-only file system"), "{name}: {member:?}");
        let root = container
            .run("echo x > /mnt/data/new; chmod 777 /mnt/data; mount -o remount,rw /mnt/data 2>/dev/null");
        assert!(root.stderr.contains("Read-only file system"), "{name}: {root:?}");
        drop(container);
        end(node, &kubelet, &volume);
    }
    let why = kubelet.set_up(&data(&kubelet).option("readOnly", "yes")).refused().to_owned();
    assert!(why.contains("`readOnly` (yes)"), "{why}");
    node.assert_nothing_left("after a refusal");
}

fn restrictions(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let trial = "cd /mnt/data && cp /usr/bin/id id && chmod 4755 id && mknod null c 1 3 && chmod 666 null";
    let probes = |volume: &Volume| {
        kubelet.set_up(volume).mounted();
        let container = kubelet.container(&[volume]);
        container.says(trial);
        let runs = container.run_as(1000, &[], "/mnt/data/id -u");
        let device = container.run("echo x > /mnt/data/null");
        drop(container);
        end(node, &kubelet, volume);
        (runs.stdout.trim().to_owned(), device.ok())
    };
    let open = || data(&kubelet).option("mode", "0777");
    assert_eq!(probes(&open()), ("1000".to_owned(), false), "neither suid bits nor devices");
    assert_eq!(probes(&open().option("noexec", "true")), (String::new(), false), "nor programs");
    assert_eq!(probes(&open().option("mountOptions", "noexec")), (String::new(), false));
    for key in ["allowSuid", "allowDev"] {
        let why = kubelet.set_up(&open().option(key, "true")).refused().to_owned();
        assert!(why.contains("does not allow it") && why.contains(key), "{why}");
        assert!(!probes(&open().option(key, "false")).1, "{key}");
    }
    node.policy("allowSuid: [default]\nallowDev: [other]\n");
    assert_eq!(probes(&open().option("allowSuid", "true")), ("0".to_owned(), false));
    kubelet.set_up(&open().option("allowDev", "true")).refused();
    node.policy("allowSuid: [default]\nallowDev: [\"def*\"]\n");
    assert_eq!(
        probes(&open().option("allowSuid", "true").option("allowDev", "true")),
        ("0".to_owned(), true)
    );
    // What is not asked for is not there though it is allowed.
    assert_eq!(probes(&open()), ("1000".to_owned(), false));
    assert_eq!(probes(&open().option("allowSuid", "true").option("mountOptions", "nosuid")).0, "1000");
}

fn huge(node: &VolumeNode) {
    let kubelet = node.kubelet();
    for (key, value, seen) in [
        ("huge", "within_size", "huge=within_size"),
        ("huge", "never", ""),
        ("noswap", "true", "noswap"),
        ("noswap", "false", ""),
    ] {
        let volume = data(&kubelet).option(key, value);
        match kubelet.set_up(&volume) {
            Outcome::Mounted => {
                let options = only_mount(&volume).super_options;
                assert!(seen.is_empty() || options.iter().any(|o| o == seen), "{key}={value}: {options:?}");
            }
            // A kernel without it says so itself.
            Outcome::Refused(why) => {
                assert!(why.contains(key) && why.contains("tmpfs: "), "{key}={value}: {why}");
            }
            other => panic!("{key}={value}: {other:?}"),
        }
        end(node, &kubelet, &volume);
    }
    let why = kubelet.set_up(&data(&kubelet).option("huge", "yes")).refused().to_owned();
    assert!(why.contains("`huge` (yes)"), "{why}");
    let why = kubelet
        .set_up(&data(&kubelet).option("selinuxContext", "system_u:object_r:container_file_t:s0"))
        .refused()
        .to_owned();
    assert!(why.contains("allowSelinuxContext"), "{why}");
    node.assert_nothing_left("after refusals");
}

fn mount_options(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = data(&kubelet).option("mountOptions", "noatime, nodiratime,nosymfollow ,inode32");
    kubelet.set_up(&volume).mounted();
    let options = only_mount(&volume).options;
    for wanted in ["noatime", "nodiratime", "nosymfollow", "nosuid", "nodev"] {
        assert!(options.iter().any(|o| o == wanted), "{wanted}: {options:?}");
    }
    let container = kubelet.container(&[&volume]);
    let followed = container.run("ln -s /etc/passwd /mnt/data/link && cat /mnt/data/link");
    assert!(!followed.ok() && followed.stdout.is_empty(), "{followed:?}");
    drop(container);
    end(node, &kubelet, &volume);
    for bad in [
        "size=1Gi",
        "mode=0777",
        "suid",
        "dev",
        "exec",
        "remount",
        "bind",
        "uid=0",
        "mpol=interleave",
        "quota",
        ",",
        "noatime,,ro",
        "noatime,noatime",
        "-o",
        "ro=1",
        "x-systemd.automount",
    ] {
        let why = kubelet.set_up(&data(&kubelet).option("mountOptions", bad)).refused().to_owned();
        assert!(why.contains("mountOptions"), "{bad}: {why}");
    }
    node.assert_nothing_left("after refusals");
}
