//! `kill -9` after every system call, and every system call refused, of mounts and unmounts: whatever comes
//! next, the volume is there once and whole, or nothing is left.

pub mod refusals;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use harness::call::tool;
use harness::kernel::trace::{self, End};
use harness::kubelet::{Outcome, Pod, Volume};
use harness::suite::{volume, volume_shared};
use harness::volume_look::{files, mounts_at};
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::ours::{Call, SECRET, SECRET_BASE64, STATE, folder, program};

/// How long a killed call's child may take to die.
const DYING: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let mut all = own();
    all.extend(refusals::trials());
    all
}

fn own() -> Vec<Trial> {
    vec![
        volume("a_tmpfs_mount_killed_anywhere_is_made_by_the_next_try", &[], |n| retried(n, memory)),
        volume("a_bind_mount_killed_anywhere_is_made_by_the_next_try", &[], |n| retried(n, shared)),
        volume_shared("a_mount_killed_on_a_node_that_shares_is_made_by_the_next_try", &[], |n| {
            retried(n, memory);
        }),
        volume("a_tmpfs_mount_killed_anywhere_is_taken_away_by_unmount", &[], |n| given_up(n, memory)),
        volume("a_bind_mount_killed_anywhere_is_taken_away_by_unmount", &[], |n| given_up(n, shared)),
        volume("a_tmpfs_mount_killed_anywhere_is_cleaned_up_by_gc", &[], |n| collected(n, memory)),
        volume("a_bind_mount_killed_anywhere_is_cleaned_up_by_gc", &[], |n| collected(n, shared)),
        volume("a_tmpfs_unmount_killed_anywhere_is_finished_by_the_next", &[], |n| {
            unmounted_again(n, memory);
        }),
        volume("a_bind_unmount_killed_anywhere_is_finished_by_the_next", &[], |n| unmounted_again(n, shared)),
        volume("an_unmount_killed_anywhere_is_cleaned_up_by_gc", &[], unmount_collected),
        volume("a_record_of_an_earlier_boot_is_no_volume", &[], reboot),
    ]
}

const POLICY: &str = "
backends:
  tmpfs: {}
  bind: {roots: [{path: /srv/shared, create: true}]}
";

/// A tmpfs with secrets, for a group.
fn memory(pod: &Pod) -> Volume {
    let volume = pod.inline("nodeplug/tmpfs", "data").option("size", "1Mi").fs_group(1234);
    volume.secret("password", SECRET.as_bytes()).secret("empty", b"")
}

/// A folder that is made, given to a group, and shown under other owners.
fn shared(pod: &Pod) -> Volume {
    let volume = pod.inline("nodeplug/bind", "data").option("source", "/srv/shared").fs_group(1234);
    let volume = volume.option("subPath", "${pod.namespace}/${pod.name}").option("create", "dir");
    volume.option("fsGroupPolicy", "recursive").option("idmap", "0:100000:65536").option("noexec", "true")
}

fn lay_out(node: &VolumeNode) {
    node.policy(POLICY);
    tool(&["mkdir", "-p", "/srv/shared"]);
    fs::write("/srv/shared/other", "not to be touched").unwrap();
}

/// Exactly one mount, and all that belongs to it.
#[track_caller]
fn assert_whole(volume: &Volume, when: &str) {
    let mounts = mounts_at(&volume.path());
    assert_eq!(mounts.len(), 1, "{when}: {mounts:?}");
    let options = &mounts[0].options;
    assert!(["nosuid", "nodev"].iter().all(|o| options.iter().any(|x| x == o)), "{when}: {options:?}");
    let about = fs::metadata(volume.path()).unwrap();
    if volume.driver() == "nodeplug/tmpfs" {
        assert_eq!((about.gid(), about.mode() & 0o7777), (1234, 0o2770), "{when}");
        assert_eq!(fs::read_to_string(volume.path().join("password")).unwrap(), SECRET, "{when}");
        assert_eq!(fs::read_to_string(volume.path().join("empty")).unwrap(), "", "{when}");
        let size = mounts[0].super_options.iter().any(|o| o == "size=1024k");
        assert!(size, "{when}: {:?}", mounts[0].super_options);
    } else {
        assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (100_000, 101_234, 0o2770), "{when}");
        assert!(options.iter().any(|o| o == "noexec"), "{when}: {options:?}");
        assert_eq!(mounts[0].propagation, Vec::<String>::new(), "{when}");
    }
}

/// The state holds no secret, whatever was killed.
#[track_caller]
fn assert_no_secret(when: &str) {
    for file in files(STATE.as_ref()) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(SECRET) && !text.contains(SECRET_BASE64), "{when}: {}", file.display());
    }
}

#[track_caller]
fn assert_clean(node: &VolumeNode, when: &str) {
    node.assert_nothing_left(when);
    assert_eq!(fs::read_to_string("/srv/shared/other").unwrap(), "not to be touched");
    let other = fs::metadata("/srv/shared/other").unwrap();
    assert_eq!((other.gid(), other.mode() & 0o7777), (0, 0o644), "{when}");
    drop(fs::remove_dir_all("/srv/shared/default"));
}

fn retried(node: &VolumeNode, of: fn(&Pod) -> Volume) {
    lay_out(node);
    let kubelet = node.kubelet();
    let mut seen = (0, 0);
    kubelet.kill_at_each_step("mount", |n| {
        let volume = of(&kubelet.pod("default", "web"));
        let when = format!("mount killed after {n}");
        kubelet.set_up(&volume);
        assert_no_secret(&when);
        match kubelet.set_up(&volume) {
            Outcome::Mounted => seen.0 += 1,
            Outcome::AlreadyMounted => seen.1 += 1,
            other => panic!("{when}: {other:?}"),
        }
        assert_whole(&volume, &when);
        kubelet.tear_down(&volume).unmounted();
        kubelet.end(volume.pod());
        assert_clean(node, &when);
    });
    assert!(seen.0 > 20 && seen.1 > 1, "{seen:?}");
}

fn given_up(node: &VolumeNode, of: fn(&Pod) -> Volume) {
    lay_out(node);
    let kubelet = node.kubelet();
    kubelet.kill_at_each_step("mount", |n| {
        let volume = of(&kubelet.pod("default", "web"));
        let when = format!("mount killed after {n}");
        kubelet.set_up(&volume);
        // The kubelet has removed the folder where it could; unmount is told the path all the same.
        Call::unmount(&volume).succeeds();
        Call::unmount(&volume).succeeds();
        kubelet.end(volume.pod());
        assert_clean(node, &when);
    });
}

fn collected(node: &VolumeNode, of: fn(&Pod) -> Volume) {
    lay_out(node);
    let kubelet = node.kubelet();
    let mut mounted = 0;
    kubelet.kill_at_each_step("mount", |n| {
        let volume = of(&kubelet.pod("default", "web"));
        let when = format!("mount killed after {n}");
        kubelet.set_up(&volume);
        let answer = Call::of("volume", &["gc"]).run();
        assert!(answer.ok(), "{when}: {answer:?}");
        if mounts_at(&volume.path()).is_empty() {
            // A child of the killed call holds its lock until it is dead, and gc takes no lock that is held.
            let start = Instant::now();
            while !files(STATE.as_ref()).is_empty() && start.elapsed() < DYING {
                assert!(Call::of("volume", &["gc"]).run().ok(), "{when}");
                thread::sleep(Duration::from_millis(5));
            }
            let left = files(STATE.as_ref());
            assert!(left.is_empty(), "{when}: {left:?}");
        } else {
            mounted += 1;
            assert_whole(&volume, &when);
            kubelet.tear_down(&volume).unmounted();
        }
        kubelet.end(volume.pod());
        assert_clean(node, &when);
    });
    assert!(mounted > 1);
}

fn unmounted_again(node: &VolumeNode, of: fn(&Pod) -> Volume) {
    lay_out(node);
    let kubelet = node.kubelet();
    kubelet.kill_at_each_step("unmount", |n| {
        let volume = of(&kubelet.pod("default", "web"));
        let when = format!("unmount killed after {n}");
        Call::mount(&{
            folder(&volume);
            volume.clone()
        })
        .succeeds();
        kubelet.tear_down(&volume);
        assert!(mounts_at(&volume.path()).len() <= 1, "{when}");
        if n % 2 == 0 {
            let again = kubelet.tear_down(&volume);
            assert!(matches!(again, Outcome::Unmounted | Outcome::NotThere), "{when}: {again:?}");
        } else {
            // The kubelet was restarted, too: it walks the folders that are there.
            kubelet.delete(volume.pod());
            let restart = kubelet.restart();
            assert!(restart.torn_down.iter().all(|(_, o)| *o == Outcome::Unmounted), "{when}: {restart:?}");
        }
        kubelet.end(volume.pod());
        assert_clean(node, &when);
    });
}

fn unmount_collected(node: &VolumeNode) {
    lay_out(node);
    for of in [memory, shared] {
        for n in 0.. {
            let volume = of(&Pod::new("default", "web"));
            let when = format!("unmount killed after {n}");
            folder(&volume);
            Call::mount(&volume).succeeds();
            let end = trace::kill_after(&Call::unmount(&volume), n);
            let answer = Call::of("volume", &["gc"]).run();
            assert!(answer.ok(), "{when}: {answer:?}");
            if mounts_at(&volume.path()).is_empty() {
                assert!(files(STATE.as_ref()).is_empty(), "{when}: {:?}", files(STATE.as_ref()));
            } else {
                Call::unmount(&volume).succeeds();
            }
            fs::remove_dir_all(volume.pod().folder()).unwrap();
            assert_clean(node, &when);
            if matches!(end, End::Finished(_)) {
                break;
            }
        }
    }
}

/// Some nodes keep /run on a disk: then the records of an earlier boot are still there.
fn reboot(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let (living, gone) = (memory(&kubelet.pod("default", "living")), shared(&kubelet.pod("default", "gone")));
    for volume in [&living, &gone] {
        kubelet.set_up(volume).mounted();
    }
    kubelet.delete(gone.pod());
    tool(&["cp", "-a", STATE, "/var/lib/kept"]);
    node.reboot();
    tool(&["mkdir", "-p", "/run/nodeplug"]);
    tool(&["cp", "-a", "/var/lib/kept", STATE]);
    tool(&["mkdir", "-p", "/srv/shared"]);
    let list = Call::of("volume", &["list", "--output", "json"]).run();
    assert!(list.ok() && list.json.as_ref().unwrap()["rows"].as_array().unwrap().is_empty(), "{list:?}");
    let restart = kubelet.restart();
    assert_eq!(restart.set_up, [(living.path(), Outcome::Mounted)]);
    assert_eq!(restart.torn_down, [(gone.path(), Outcome::Unmounted)]);
    assert_whole(&living, "after a reboot");
    kubelet.end(living.pod());
    kubelet.end(gone.pod());
    node.assert_nothing_left("after a reboot");
    assert!(Path::new(&program("tmpfs")).exists());
}
