//! Several volumes, several calls, restarts, and the end.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::thread;

use harness::call::tool;
use harness::kubelet::{Outcome, Volume};
use harness::suite::{volume, volume_shared};
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{data, end, only_mount};
use crate::ours::{Call, SECRET, folder};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("a_persistent_tmpfs_is_mounted_for_its_pod", &[], persistent),
        volume("a_kubelet_that_restarts_finds_its_tmpfs", &[], restart),
        volume("sixty_four_volumes_at_once_are_all_there", &[], at_once),
        volume_shared("many_volumes_at_once_on_a_node_that_shares", &[], at_once),
        volume("one_volume_asked_for_many_times_at_once_is_there_once", &[], same_at_once),
        volume("one_volume_mounted_and_unmounted_at_once_converges", &[], contended),
        volume("a_tmpfs_tells_its_size_to_the_kubelet", &[], metrics),
        volume_shared("a_sub_path_of_a_tmpfs_is_seen_alone", &[], sub_path),
        volume("a_volume_in_use_is_not_unmounted_and_its_user_is_named", &[], busy),
    ]
}

fn persistent(node: &VolumeNode) {
    let kubelet = node.kubelet();
    for driver in ["nodeplug/tmpfs", "nodeplug/volume"] {
        let volume = kubelet
            .pod("default", "web")
            .persistent(driver, "pv-0001")
            .option("size", "1Mi")
            .fs_type("tmpfs");
        let volume = if driver.ends_with("volume") { volume.option("backend", "tmpfs") } else { volume };
        kubelet.set_up(&volume).mounted();
        assert!(volume.path().ends_with(format!("{}/pv-0001", driver.replace('/', "~"))));
        assert_eq!(only_mount(&volume).kind, "tmpfs");
        // Growing is not its affair, and nobody is told that it failed.
        kubelet.expand(&volume, 2 << 20, 1 << 20);
        end(node, &kubelet, &volume);
    }
}

fn restart(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let [living, lost, gone, dropped] = ["living", "lost", "gone", "dropped"].map(|name| {
        let volume =
            kubelet.pod("default", name).inline("nodeplug/tmpfs", "data").secret("k", SECRET.as_bytes());
        kubelet.set_up(&volume).mounted();
        fs::write(volume.path().join("mine"), name).unwrap();
        volume
    });
    for volume in [&lost, &dropped] {
        tool(&["umount", volume.path().to_str().unwrap()]);
    }
    kubelet.delete(gone.pod());
    kubelet.delete(dropped.pod());
    let second = node.kubelet();
    assert!(!second.look_up("nodeplug/tmpfs").unwrap().attach);
    let restart = kubelet.restart();
    let of = |volume: &Volume| {
        let all = restart.set_up.iter().chain(&restart.torn_down);
        all.filter(|(path, _)| *path == volume.path()).map(|(_, o)| o.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(&living), [Outcome::AlreadyMounted]);
    assert_eq!(of(&lost), [Outcome::Mounted]);
    assert_eq!(of(&gone), [Outcome::Unmounted]);
    assert_eq!(of(&dropped), [Outcome::Unmounted]);
    assert_eq!(fs::read_to_string(living.path().join("mine")).unwrap(), "living");
    assert_eq!(fs::read_to_string(lost.path().join("k")).unwrap(), SECRET);
    // Asked again by a kubelet that cannot tell: what is there stays.
    let said = Call::mount(&living).succeeds()["message"].as_str().unwrap().to_owned();
    assert!(said.contains("mounted already"), "{said}");
    assert_eq!(fs::read_to_string(living.path().join("mine")).unwrap(), "living");
    for volume in [&living, &lost, &gone, &dropped] {
        kubelet.end(volume.pod());
    }
    node.assert_nothing_left("after a restart");
}

fn at_once(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let pods: Vec<_> = (0..16).map(|n| kubelet.pod("default", &format!("web-{n}"))).collect();
    let volumes: Vec<Volume> = pods
        .iter()
        .flat_map(|pod| (0..4).map(|n| pod.inline("nodeplug/tmpfs", &format!("data-{n}"))))
        .map(|volume| volume.option("size", "64Ki").secret("name", b"x").fs_group(7))
        .collect();
    let outcomes = kubelet.set_up_all(&volumes);
    assert!(outcomes.iter().all(|o| *o == Outcome::Mounted), "{outcomes:?}");
    for volume in &volumes {
        only_mount(volume);
        fs::write(volume.path().join("mine"), volume.path().to_str().unwrap()).unwrap();
    }
    for volume in &volumes {
        assert_eq!(fs::read_to_string(volume.path().join("mine")).unwrap(), volume.path().to_str().unwrap());
    }
    let outcomes = kubelet.tear_down_all(&volumes);
    assert!(outcomes.iter().all(|o| *o == Outcome::Unmounted), "{outcomes:?}");
    for pod in &pods {
        kubelet.end(pod);
    }
    node.assert_nothing_left("after 64 volumes");
}

/// Not the kubelet's way; two kubelets, or a call that somebody makes by hand.
fn same_at_once(node: &VolumeNode) {
    let kubelet = node.kubelet();
    for round in 0..8 {
        let volume = data(&kubelet).secret("k", SECRET.as_bytes());
        folder(&volume);
        let call = Call::mount(&volume);
        let answers: Vec<_> = thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| call.object())).collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(answers.iter().all(|a| a["status"] == "Success"), "{round}: {answers:?}");
        only_mount(&volume);
        Call::unmount(&volume).succeeds();
        fs::remove_dir_all(volume.pod().folder()).unwrap();
        node.assert_nothing_left("after eight calls");
    }
}

fn contended(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = data(&kubelet).secret("k", SECRET.as_bytes());
    folder(&volume);
    thread::scope(|scope| {
        for n in 0..6 {
            let call = if n % 2 == 0 { Call::mount(&volume) } else { Call::unmount(&volume) };
            scope.spawn(move || {
                for _ in 0..15 {
                    let answer = call.object();
                    let message = answer["message"].as_str().unwrap_or_default();
                    assert!(answer["status"] == "Success" || message.contains("in progress"), "{answer}");
                }
            });
        }
    });
    Call::mount(&volume).succeeds();
    only_mount(&volume);
    assert_eq!(fs::read_to_string(volume.path().join("k")).unwrap(), SECRET);
    Call::unmount(&volume).succeeds();
    fs::remove_dir_all(volume.pod().folder()).unwrap();
    node.assert_nothing_left("after a quarrel");
}

fn metrics(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = data(&kubelet);
    kubelet.set_up(&volume).mounted();
    fs::write(volume.path().join("half"), vec![1; 512 << 10]).unwrap();
    assert_eq!(kubelet.metrics(&volume), Some((1 << 20, 512 << 10)));
    end(node, &kubelet, &volume);
}

fn sub_path(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = data(&kubelet).fs_group(1234).secret("k", SECRET.as_bytes());
    kubelet.set_up(&volume).mounted();
    fs::create_dir(volume.path().join("sub")).unwrap();
    let container = kubelet.container_of_sub_path(&volume, "sub");
    assert_eq!(container.says("ls -a /mnt/data | wc -l").trim(), "2", "no secret in sight");
    container.says("echo x > /mnt/data/file");
    assert_eq!(fs::metadata(volume.path().join("sub/file")).unwrap().gid(), 1234);
    container.stop();
    end(node, &kubelet, &volume);
}

fn busy(node: &VolumeNode) {
    node.policy("busyWait: 1s\n");
    let kubelet = node.kubelet();
    let volume = data(&kubelet);
    kubelet.set_up(&volume).mounted();
    let file = fs::File::create(volume.path().join("open")).unwrap();
    let mut holder = Command::new("sleep").arg("600").stdin(file).spawn().unwrap();
    let why = kubelet.tear_down(&volume).refused().to_owned();
    assert!(why.contains(&format!("`sleep` (pid {})", holder.id())) && why.contains("open file"), "{why}");
    only_mount(&volume);
    node.policy("busyWait: 1s\nbusy: lazy\n");
    kubelet.tear_down(&volume).unmounted();
    holder.kill().and_then(|()| holder.wait()).unwrap();
    end(node, &kubelet, &volume);
}
