//! Mounts below a source, and those that come later.

use std::fs;
use std::path::Path;

use harness::call::tool;
use harness::suite::{volume, volume_shared};
use harness::volume_look::{Mount, mounts_at};
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::{data, end, lay_out, only_mount, refused};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("what_is_mounted_below_comes_along_where_asked", &[], recursive),
        volume_shared("what_is_mounted_below_later_stays_out_unless_asked", &[], later),
        volume_shared("on_a_node_that_shares_a_volume_is_mounted_once", &[], once),
        volume_shared("what_a_container_mounts_does_not_reach_the_node", &[], inside_out),
    ]
}

fn recursive(node: &VolumeNode) {
    lay_out(node);
    tool(&["mount", "-t", "tmpfs", "below", "/srv/shared/sub"]);
    tool(&[
        "sh",
        "-c",
        "echo below > /srv/shared/sub/marker; cp /usr/bin/id /srv/shared/sub/id; chmod 4755 /srv/shared/sub/id",
    ]);
    node.keep();
    let kubelet = node.kubelet();
    let plain = data(&kubelet);
    kubelet.set_up(&plain).mounted();
    assert_eq!(fs::read_to_string(plain.path().join("sub/marker")).unwrap(), "inside sub");
    end(node, &kubelet, &plain);
    let all = data(&kubelet).option("recursive", "true");
    kubelet.set_up(&all).mounted();
    assert_eq!(fs::read_to_string(all.path().join("sub/marker")).unwrap(), "below\n");
    let container = kubelet.container(&[&all]);
    let suid = container.run_as(1000, &[], "/mnt/data/sub/id -u");
    assert_eq!(suid.stdout.trim(), "1000", "its suid bits do not count either");
    drop(container);
    end(node, &kubelet, &all);
    let read_only = data(&kubelet).option("recursive", "true").read_only().option("noexec", "true");
    kubelet.set_up(&read_only).mounted();
    for path in [read_only.path(), read_only.path().join("sub")] {
        let mounts = mounts_at(&path);
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(mounts[0].options.iter().any(|o| o == option), "{option}: {mounts:?}");
        }
    }
    let container = kubelet.container(&[&read_only]);
    let written = container.run("echo x > /mnt/data/sub/marker");
    assert!(written.stderr.contains("Read-only file system"), "{written:?}");
    drop(container);
    end(node, &kubelet, &read_only);
    assert_eq!(mounts_at(Path::new("/srv/shared/sub")).len(), 1, "the node's own mount stays");
}

fn later(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let private = data(&kubelet);
    let slave = data(&kubelet).option("propagation", "rslave");
    let said = data(&kubelet).option("propagation", "private").option("recursive", "true");
    for volume in [&private, &slave, &said] {
        kubelet.set_up(volume).mounted();
    }
    // What is put onto a shared mount is shared, in a group of its own; a master is whom it hears from.
    let group = |mounts: Vec<Mount>| mounts[0].propagation.clone();
    let source = group(mounts_at(Path::new("/srv")));
    let heard = source[0].replace("shared:", "master:");
    assert!(group(mounts_at(&slave.path())).contains(&heard));
    for volume in [&private, &said] {
        let seen = group(mounts_at(&volume.path()));
        assert!(!seen.contains(&heard) && !seen.contains(&source[0]), "{seen:?} {source:?}");
    }
    let container = kubelet.container(&[&slave]);
    tool(&["mount", "-t", "tmpfs", "later", "/srv/shared/sub"]);
    fs::write("/srv/shared/sub/marker", "later").unwrap();
    let marker =
        |volume: &harness::kubelet::Volume| fs::read_to_string(volume.path().join("sub/marker")).unwrap();
    assert_eq!((marker(&private).as_str(), marker(&said).as_str()), ("inside sub", "inside sub"));
    assert_eq!(marker(&slave), "later");
    assert_eq!(container.says("cat /mnt/data/sub/marker"), "later");
    drop(container);
    tool(&["umount", "/srv/shared/sub"]);
    assert_eq!(marker(&slave), "inside sub");
    // One that is still there when the volume goes.
    tool(&["mount", "-t", "tmpfs", "later", "/srv/shared/sub"]);
    for volume in [&private, &slave, &said] {
        kubelet.end(volume.pod());
    }
    assert_eq!(mounts_at(Path::new("/srv/shared/sub")).len(), 1, "the node's own mount stays");
    tool(&["umount", "/srv/shared/sub"]);
    node.assert_nothing_left("after three volumes");
    for bad in ["shared", "rshared", "slave", "unbindable", ""] {
        let volume = data(&kubelet).option("propagation", bad);
        if bad.is_empty() {
            kubelet.set_up(&volume).mounted();
            end(node, &kubelet, &volume);
        } else {
            refused(node, &kubelet, &volume, &["`propagation`"]);
        }
    }
}

fn once(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    for volume in [data(&kubelet), data(&kubelet).option("propagation", "rslave").option("recursive", "true")]
    {
        // A container that was there before: mounts of the node arrive in it, and leave it.
        let early = harness::kubelet::Container::start(&[]);
        kubelet.set_up(&volume).mounted();
        only_mount(&volume);
        let path = volume.path();
        let count = || {
            early
                .says(&format!("grep -c ' {} ' /proc/self/mountinfo || true", path.display()))
                .trim()
                .to_owned()
        };
        assert_eq!(count(), "1");
        kubelet.tear_down(&volume).unmounted();
        assert_eq!(count(), "0");
        drop(early);
        end(node, &kubelet, &volume);
    }
}

fn inside_out(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let volume = data(&kubelet).option("propagation", "rslave").option("recursive", "true");
    kubelet.set_up(&volume).mounted();
    let container = kubelet.container(&[&volume]);
    container.says("mount -t tmpfs inside /mnt/data/sub && echo evil > /mnt/data/sub/marker");
    assert_eq!(fs::read_to_string("/srv/shared/sub/marker").unwrap(), "inside sub");
    assert_eq!(fs::read_to_string(volume.path().join("sub/marker")).unwrap(), "inside sub");
    drop(container);
    // A privileged pod whose mounts do reach the volume on the node (`Bidirectional`).
    let below = volume.path().join("sub");
    tool(&["mount", "-t", "tmpfs", "inside", below.to_str().unwrap()]);
    assert_eq!(fs::read_to_string("/srv/shared/sub/marker").unwrap(), "inside sub");
    let outcome = kubelet.tear_down(&volume);
    outcome.unmounted();
    end(node, &kubelet, &volume);
}
