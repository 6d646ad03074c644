//! Restarts, orphans, several operations at once, tries that are repeated, containers, and calls that die.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::call::tool;
use harness::kubelet::{Container, Doom, Fate, Outcome, PLUGINS};
use harness::suite::scripted;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::scripts::{FAIL, OK, mounting, tmpfs};

pub fn trials() -> Vec<Trial> {
    vec![
        scripted("a_restart_mounts_for_the_living_and_unmounts_for_the_gone", &[], restart),
        scripted("a_volume_whose_driver_is_lost_is_stuck", &[], stuck),
        scripted("a_restart_ends_what_lives_in_the_kubelets_cgroup", &["bindfs"], daemons_end),
        scripted("orphans_lose_empty_folders_and_nothing_else", &[], orphans),
        scripted("volumes_are_mounted_at_the_same_time", &[], at_the_same_time),
        scripted("one_volume_has_one_operation_at_a_time", &[], one_at_a_time),
        scripted("a_failed_mount_is_tried_again_later_and_later", &[], tried_again),
        scripted("a_container_sees_its_volumes_alone", &[], containers),
        scripted("a_driver_is_killed_after_each_of_its_system_calls", &[], killed_at_each_step),
        scripted("a_system_call_of_a_driver_is_refused", &[], refused_at_a_step),
    ]
}

fn restart(node: &VolumeNode) {
    node.install_script("test/disk", &tmpfs());
    let kubelet = node.kubelet();
    let [living, unmounted, gone] = ["living", "unmounted", "gone"].map(|name| {
        let volume = kubelet.pod("default", name).inline("test/disk", "data").option("key", name);
        kubelet.set_up(&volume).mounted();
        volume
    });
    tool(&["umount", unmounted.path().to_str().unwrap()]);
    kubelet.delete(gone.pod());
    let restart = kubelet.restart();
    let of = |name: &str| {
        let found = restart.set_up.iter().find(|(path, _)| path.to_str() == Some(name));
        found.map(|(_, outcome)| outcome.clone())
    };
    assert_eq!(of(living.path().to_str().unwrap()), Some(Outcome::AlreadyMounted));
    assert_eq!(of(unmounted.path().to_str().unwrap()), Some(Outcome::Mounted));
    assert_eq!(restart.torn_down, [(gone.path(), Outcome::Unmounted)]);
    let unmount = kubelet.calls().into_iter().rfind(|c| c.arguments[0] == "unmount").unwrap();
    assert_eq!(unmount.arguments[1..], [gone.path().to_str().unwrap()], "no option is known");
    assert!(kubelet.collect_orphans().is_empty() && !gone.pod().folder().exists());
}

fn stuck(node: &VolumeNode) {
    node.install_script("test/disk", &tmpfs());
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    kubelet.set_up(&volume).mounted();
    kubelet.delete(volume.pod());
    tool(&["mv", &format!("{PLUGINS}/test~disk"), "/opt/away"]);
    assert_eq!(kubelet.restart().stuck, [volume.path()]);
    let complaints = kubelet.collect_orphans();
    assert!(complaints.len() == 1 && complaints[0].contains("still mounted"), "{complaints:?}");
    tool(&["mv", "/opt/away", &format!("{PLUGINS}/test~disk")]);
    assert_eq!(kubelet.restart().torn_down, [(volume.path(), Outcome::Unmounted)]);
}

fn daemons_end(node: &VolumeNode) {
    fs::create_dir_all("/srv/source").unwrap();
    let mount = format!("bindfs /srv/source \"$2\" >/dev/null 2>&1; {OK}");
    node.install_script("test/fuse", &mounting(&mount));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/fuse", "data");
    kubelet.set_up(&volume).mounted();
    assert!(fs::read_dir(volume.path()).is_ok());
    let restart = kubelet.restart();
    assert_eq!(restart.set_up, [(volume.path(), Outcome::AlreadyMounted)], "of a dead daemon");
    assert!(fs::read_dir(volume.path()).is_err());
}

fn orphans(node: &VolumeNode) {
    node.install_script("test/disk", &mounting(OK));
    let kubelet = node.kubelet();
    let [empty, littered] = ["empty", "littered"].map(|name| {
        let volume = kubelet.pod("default", name).inline("test/disk", "data");
        kubelet.set_up(&volume).mounted();
        volume
    });
    let file = littered.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(kubelet.collect_orphans().is_empty() && empty.path().exists(), "they live");
    kubelet.delete(empty.pod());
    kubelet.delete(littered.pod());
    let complaints = kubelet.collect_orphans();
    assert!(complaints.len() == 1 && complaints[0].contains("directory not empty"), "{complaints:?}");
    assert!(!empty.pod().folder().exists() && file.exists());
}

fn at_the_same_time(node: &VolumeNode) {
    // Each mount waits until the other is there.
    let line = format!(
        ": > \"/run/met.${{2##*/}}\"; until [ -e /run/met.a ] && [ -e /run/met.b ]; do sleep 0.01; done; {OK}"
    );
    node.install_script("test/disk", &mounting(&line));
    let kubelet = node.kubelet();
    let pod = kubelet.pod("default", "web");
    let volumes = ["a", "b"].map(|name| pod.inline("test/disk", name));
    assert_eq!(kubelet.set_up_all(&volumes), [Outcome::Mounted, Outcome::Mounted]);
    assert_eq!(kubelet.tear_down_all(&volumes), [Outcome::Unmounted, Outcome::Unmounted]);
}

fn one_at_a_time(node: &VolumeNode) {
    let line = format!("mkdir /run/alone || exit 1; sleep 0.05; rmdir /run/alone; {OK}");
    node.install_script("test/disk", &mounting(&line));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    let same = vec![volume; 4];
    assert_eq!(kubelet.set_up_all(&same), vec![Outcome::Mounted; 4]);
}

fn tried_again(node: &VolumeNode) {
    node.install_script("test/disk", &mounting(&format!("[ -e /run/ready ] && {OK} || {FAIL}")));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    let tries = kubelet.keep_setting_up(&volume, |n| {
        if n == 3 {
            fs::write("/run/ready", "").unwrap();
        }
    });
    assert_eq!((tries.outcome, tries.count), (Outcome::Mounted, 4));
    assert_eq!(tries.waited, Duration::from_millis(500 + 1000 + 2000));
    kubelet.tear_down(&volume).unmounted();
    fs::remove_file("/run/ready").unwrap();
    let tries = kubelet.keep_setting_up(&volume, |_| {});
    tries.outcome.refused();
    let events = kubelet.events();
    assert!(events.last().unwrap().ends_with("timed out waiting for the condition"), "{events:?}");
}

fn containers(node: &VolumeNode) {
    node.install_script("test/disk", &tmpfs());
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    kubelet.set_up(&volume).mounted();
    let container = kubelet.container(&[&volume]);
    assert_eq!(container.says("ls /mnt"), "data\n");
    container.says("echo hello > /mnt/data/file");
    assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "hello\n");
    let id = container.run_as(1000, &[1234, 5678], "id -u; id -g; id -G; echo > /mnt/data/file");
    assert!(id.stdout.starts_with("1000\n1000\n1000 1234 5678\n") && !id.ok(), "{id:?}");
    assert!(mounts_at(Path::new("/mnt/data")).is_empty(), "its mounts stay inside");
    // The volume leaves the node while the container still has it.
    kubelet.tear_down(&volume).unmounted();
    assert_eq!(container.says("cat /mnt/data/file"), "hello\n");
    let pid = container.pid();
    container.stop();
    assert!(!node.processes().contains(&i32::try_from(pid).unwrap()));
    node.assert_nothing_left("after the container");
    Container::start(&[]).stop();
}

fn killed_at_each_step(node: &VolumeNode) {
    node.install_script("test/disk", &mounting(&format!(": > /run/one; : > /run/two; {OK}")));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    let (one, two) = (Path::new("/run/one"), Path::new("/run/two"));
    let mut states = Vec::new();
    let killed = kubelet.kill_at_each_step("mount", |n| {
        drop(fs::remove_file(one));
        drop(fs::remove_file(two));
        let outcome = kubelet.set_up(&volume);
        states.push((one.exists(), two.exists()));
        if kubelet.fate() == Some(Fate::Spared) {
            outcome.mounted();
        } else {
            assert_eq!(outcome.refused(), "unexpected end of JSON input", "{n}");
            assert!(!volume.path().exists(), "{n}");
        }
    });
    assert_eq!(states.len(), killed + 1);
    assert!(states.len() > 20 && states.is_sorted(), "{states:?}");
    states.dedup();
    assert_eq!(states, [(false, false), (true, false), (true, true)]);
}

#[cfg(target_arch = "x86_64")]
fn refused_at_a_step(node: &VolumeNode) {
    node.install_script("test/file", &mounting(&format!("if : > /run/file; then {OK}; else {FAIL}; fi")));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/file", "data");
    let mut refused = 0;
    for n in 0.. {
        drop(fs::remove_file("/run/file"));
        let among = vec![libc::SYS_openat];
        kubelet.doom_next("mount", Doom::Fail { among, n, errno: libc::EIO });
        let outcome = kubelet.set_up(&volume);
        match kubelet.fate() {
            Some(Fate::Spared) => {
                outcome.mounted();
                break;
            }
            Some(Fate::Refused(257)) => {}
            other => panic!("{other:?}"),
        }
        refused += usize::from(outcome != Outcome::Mounted && !Path::new("/run/file").exists());
        kubelet.tear_down(&volume);
    }
    assert!(refused > 0);
}

#[cfg(not(target_arch = "x86_64"))]
fn refused_at_a_step(_node: &VolumeNode) {
    eprintln!("system calls are made to fail on x86_64 only");
}
