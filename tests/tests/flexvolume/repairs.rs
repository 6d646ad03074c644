//! Volumes whose server or daemon died: `list` and `repair`, which a person runs.

use std::fs;
use std::path::Path;

use harness::call::{tool, try_tool};
use harness::kubelet::{Kubelet, Volume};
use harness::suite::volume;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::ours::Call;
use crate::users::{User, until};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("a_repaired_volume_is_exchanged_for_a_new_mount", &["bindfs"], exchanged),
        volume("a_repair_that_fails_leaves_the_dead_mount_where_it_is", &["bindfs"], stays),
        volume("a_repair_tells_of_a_volume_that_is_not_mounted_any_more", &[], bare),
    ]
}

const SOURCE: &str = "/srv/shared";

/// What serves the source on the node itself.
fn serve() -> User {
    fs::create_dir_all("/srv/behind").unwrap();
    fs::create_dir_all(SOURCE).unwrap();
    let server = User::start(&format!("exec bindfs -f -o allow_other /srv/behind {SOURCE}"));
    until("bindfs", || mounts_at(Path::new(SOURCE)).len() == 1);
    server
}

/// A volume of a folder that bindfs serves.
fn served(node: &VolumeNode, kubelet: &Kubelet) -> (Volume, User) {
    node.policy(&format!("busyWait: 1s\nbackends: {{bind: {{roots: [{{path: {SOURCE}}}]}}}}\n"));
    let server = serve();
    fs::write(Path::new("/srv/behind/file"), "kept").unwrap();
    let volume = kubelet.pod("default", "web").inline("nodeplug/bind", "data").option("source", SOURCE);
    kubelet.set_up(&volume).mounted();
    assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "kept");
    (volume, server)
}

/// A person's command; whether all is fine, and its rows.
fn rows(words: &[&str]) -> (bool, Vec<Value>) {
    let words = [words, &["--output", "json"]].concat();
    let answer = Call::of("volume", &words).run();
    let json: Value = serde_json::from_str(&answer.stdout).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
    (json["fine"] == true, json["rows"].as_array().unwrap().clone())
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or_default().to_owned()
}

fn exchanged(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let (volume, server) = served(node, &kubelet);
    drop(server);
    drop(try_tool(&["umount", "-l", SOURCE]));
    let (fine, seen) = rows(&["repair"]);
    assert!(!fine && text(&seen[0], "done").contains("--remount"), "{seen:?}");
    let server = serve();
    let (fine, seen) = rows(&["repair", "--remount"]);
    assert!(fine && text(&seen[0], "done").starts_with("mounted again"), "{seen:?}");
    assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "kept");
    assert_eq!(mounts_at(&volume.path()).len(), 1);
    assert_eq!(rows(&["repair", "--remount"]), (true, Vec::new()));
    kubelet.tear_down(&volume).unmounted();
    kubelet.end(volume.pod());
    drop(server);
    tool(&["umount", "-l", SOURCE]);
    node.assert_nothing_left("a repaired volume");
}

fn stays(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let (volume, server) = served(node, &kubelet);
    let before = mounts_at(&volume.path());
    // The source is dead, too: there is nothing to mount.
    drop(server);
    for _ in 0..2 {
        let (fine, seen) = rows(&["repair", "--remount"]);
        let done = text(&seen[0], "done");
        assert!(!fine && done.contains("again; it stays as it was"), "{seen:?}");
        assert!(text(&seen[0], "health").starts_with("dead: "), "{seen:?}");
        let now = mounts_at(&volume.path());
        assert_eq!(now.iter().map(|m| m.id).collect::<Vec<_>>(), [before[0].id]);
        assert!(fs::write(volume.path().join("stray"), "").is_err());
    }
    kubelet.tear_down(&volume).unmounted();
    kubelet.end(volume.pod());
    tool(&["umount", "-l", SOURCE]);
    node.assert_nothing_left("a repair that failed");
}

fn bare(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
    kubelet.set_up(&volume).mounted();
    tool(&["umount", &volume.path().display().to_string()]);
    for words in [&["repair"][..], &["repair", "--remount"]] {
        let (fine, seen) = rows(words);
        assert!(!fine && text(&seen[0], "done").contains("delete the pod"), "{seen:?}");
        assert!(mounts_at(&volume.path()).is_empty());
    }
    kubelet.tear_down(&volume).unmounted();
    kubelet.end(volume.pod());
    node.assert_nothing_left("a volume that somebody unmounted");
}
