//! Calls at random, from a fixed seed: arguments that are nearly right, in every order.

use std::fs;
use std::path::Path;

use harness::call::tool;
use harness::kubelet::Pod;
use harness::suite::volume;
use harness::volume_look::mounts;
use harness::volume_node::{OURS, VolumeNode};
use libtest_mimic::Trial;
use serde_json::{Map, Value};

use crate::ours::Call;

pub fn trials() -> Vec<Trial> {
    vec![volume("two_thousand_calls_at_random_get_one_object_each_and_touch_nothing_else", &[], noise)]
}

/// As many as take a few seconds.
const CALLS: usize = 2000;

/// Marsaglia's xorshift: any will do that says the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

const KEYS: &[&str] = &[
    "backend",
    "size",
    "inodes",
    "mode",
    "uid",
    "gid",
    "populate",
    "fileMode",
    "huge",
    "noswap",
    "source",
    "subPath",
    "create",
    "recursive",
    "propagation",
    "idmap",
    "readOnly",
    "mountOptions",
    "fsGroupPolicy",
    "noexec",
    "allowSuid",
    "allowDev",
    "timeout",
    "selinuxContext",
    "fsType",
    "path",
    "server",
    "share",
    "device",
    "profile",
    "lower",
    "upper",
    "password",
    "",
    "x",
    "kubernetes.io/readwrite",
    "kubernetes.io/fsType",
    "kubernetes.io/pod.uid",
    "kubernetes.io/pod.namespace",
    "kubernetes.io/pod.name",
    "kubernetes.io/secret/k",
    "kubernetes.io/secret/../k",
    "kubernetes.io/mounterArgs.FsGroup",
    "kubernetes.io/fsGroup",
    "kubernetes.io/pvOrVolumeName",
];

const VALUES: &[&str] = &[
    "",
    "true",
    "false",
    "tmpfs",
    "bind",
    "image",
    "overlay",
    "block",
    "nfs",
    "cifs",
    "fuse",
    "0",
    "1",
    "-1",
    "64Ki",
    "1Mi",
    "1e3",
    "0.5",
    "99999999999999999999",
    "0770",
    "7777",
    "rwx",
    "/srv/shared",
    "/srv/shared/sub",
    "/srv/shared/../outside",
    "/srv/shared/link",
    "/",
    "/proc",
    "/etc",
    "/dev/null",
    "sub",
    "..",
    "a/b",
    "${pod.name}",
    "${volume}",
    "dir",
    "none",
    "recursive",
    "root",
    "private",
    "rslave",
    "0:100000:65536",
    "noatime",
    "ro",
    "suid",
    ",",
    "noatime,nosymfollow",
    "1234",
    "4294967295",
    "2s",
    "0s",
    "k",
    "aGk=",
    "!",
    "rw",
    "default",
    "127.0.0.1",
    "ext4",
    "\u{0}",
    "\n",
    "ä",
    "\u{202e}",
    "within_size",
];

const PATHS: &[&str] = &[
    "",
    "/",
    "/srv/outside",
    "/etc",
    "/var/lib/kubelet",
    "/var/lib/kubelet/pods",
    "/var/lib/kubelet/pods/u/volumes/d/v",
    "/var/lib/kubelet/pods/../../x",
    "relative",
    "-rf",
    "\n",
];

const VERBS: &[&str] = &[
    "init",
    "mount",
    "mount",
    "mount",
    "mount",
    "mount",
    "mount",
    "unmount",
    "unmount",
    "expandfs",
    "expandvolume",
    "getvolumename",
    "attach",
    "isattached",
    "detach",
    "waitforattach",
    "mountdevice",
    "unmountdevice",
];

/// Options that are nearly right: mostly those of a tmpfs or a bind mount, with up to three changes.
fn options(dice: &mut Dice, pod: &Pod) -> String {
    let base = [
        pod.inline("nodeplug/tmpfs", "data").option("size", "64Ki").secret("k", b"v"),
        pod.inline("nodeplug/bind", "data").option("source", "/srv/shared"),
        pod.inline("nodeplug/bind", "data").option("source", "/srv/shared").option("subPath", "sub"),
        pod.inline("nodeplug/tmpfs", "data"),
    ];
    let chosen = dice.below(base.len());
    let json = base[chosen].mount_json().unwrap();
    let mut map: Map<String, Value> = serde_json::from_str(&json).unwrap();
    if dice.below(6) > 0 {
        map.insert("backend".to_owned(), if chosen.is_multiple_of(3) { "tmpfs" } else { "bind" }.into());
    }
    for _ in 0..dice.below(3) {
        let (key, value) = (dice.one(KEYS), dice.one(VALUES));
        match dice.below(12) {
            0 => drop(map.remove(key)),
            1 => drop(map.insert(key.to_owned(), dice.below(100).into())),
            2 => drop(map.insert(key.to_owned(), Value::Null)),
            _ => drop(map.insert(key.to_owned(), value.into())),
        }
    }
    let mut text = Value::Object(map).to_string();
    match dice.below(20) {
        0 => text.truncate(dice.below(text.len()) / 2),
        1 => text.push_str("{}"),
        2 => text = format!("[{text}]"),
        _ => {}
    }
    text
}

fn arguments(dice: &mut Dice, pod: &Pod, verb: &str) -> Vec<String> {
    let own = pod.inline("nodeplug/tmpfs", "data").path().display().to_string();
    let folder = if dice.below(8) == 0 { dice.one(PATHS).to_owned() } else { own };
    let json = options(dice, pod);
    let mut words = match verb {
        "mount" => vec![folder, json],
        "unmount" | "unmountdevice" => vec![folder],
        "expandfs" => vec![json, String::new(), folder, dice.one(VALUES).to_owned(), "1".to_owned()],
        "expandvolume" => vec![json, folder, dice.one(VALUES).to_owned(), "1".to_owned()],
        "waitforattach" => vec![dice.one(VALUES).to_owned(), json],
        "mountdevice" => vec![folder, "/dev/x".to_owned(), json],
        "init" => vec![],
        _ => vec![json, "node".to_owned()],
    };
    match dice.below(25) {
        0 => words.truncate(dice.below(words.len() + 1)),
        1 => words.push(dice.one(VALUES).to_owned()),
        2 => words.reverse(),
        _ => {}
    }
    words.insert(0, verb.to_owned());
    // An argument ends at a zero, and so cannot hold one.
    words.iter().map(|word| word.replace('\0', "\\0")).collect()
}

/// Everything that a pod must not change, with its owner and permissions.
fn world() -> String {
    tool(&[
        "sh",
        "-c",
        "find /srv/outside /etc/nodeplug /opt /var/lib/harness -xdev -printf '%p %U %G %m %s %T@\\n' 2>/dev/null | grep -v boot_id; ls /srv /var/lib /var/lib/kubelet /etc",
    ])
}

fn noise(node: &VolumeNode) {
    node.policy("timeout: 6s\nbusyWait: 1s\nbackends: {tmpfs: {maxSize: 1Mi, defaultSize: 64Ki}, bind: {roots: [{path: /srv/shared, create: true}]}}\n");
    for made in ["/srv/shared/sub", "/srv/outside/sub"] {
        fs::create_dir_all(made).unwrap();
    }
    std::os::unix::fs::symlink("/srv/outside", "/srv/shared/link").unwrap();
    let (mut dice, before, bare) = (Dice(0x5eed_4711), world(), mounts().len());
    let pod = Pod::new("default", "web");
    let path = pod.inline("nodeplug/tmpfs", "data").path();
    fs::create_dir_all(&path).unwrap();
    let (mut successes, mut mounted) = (0, 0);
    for n in 0..CALLS {
        let verb = dice.one(VERBS);
        let driver = if dice.below(5) > 0 { "volume" } else { dice.one(&OURS) };
        let words = arguments(&mut dice, &pod, verb);
        let answer = Call::of(driver, &words).object();
        let told = format!("call {n}: {driver} {words:?}: {answer}");
        assert_ne!(answer["status"], "Not supported", "{told}");
        let now = mounts();
        assert!(now.len() <= bare + 1, "{told}");
        let here = now.iter().filter(|m| m.path == path).count();
        assert!(now.len() == bare + here, "{told}");
        if answer["status"] == "Success" {
            successes += 1;
            match words[0].as_str() {
                "mount" if words.get(1).is_some_and(|w| Path::new(w) == path) => {
                    mounted += 1;
                    assert_eq!(here, 1, "{told}");
                }
                "unmount" if words.get(1).is_some_and(|w| Path::new(w) == path) => {
                    assert_eq!(here, 0, "{told}");
                }
                _ => {}
            }
        }
        if here > 0 && dice.below(3) > 0 {
            Call::of("volume", &["unmount", path.to_str().unwrap()]).succeeds();
        }
        if n % 250 == 0 {
            assert_eq!(world(), before, "{told}");
        }
    }
    assert!(successes > 300 && mounted > 100, "{successes} successes, {mounted} mounts");
    Call::of("volume", &["unmount", path.to_str().unwrap()]).succeeds();
    assert_eq!(world(), before);
    fs::remove_dir_all(pod.folder()).unwrap();
    node.assert_nothing_left("after noise");
}
