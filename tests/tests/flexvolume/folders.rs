//! Folders of the node: what a root of the policy has beside the data of pods.

use std::fs;

use harness::call::tool;
use harness::suite::volume;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![volume("a_folder_beside_the_nodes_own_is_mounted_or_made", &[], beside_the_nodes_own)]
}

/// A disk for everything: the runtime's folder is mounted from the one that pods have theirs in.
fn beside_the_nodes_own(node: &VolumeNode) {
    for folder in ["/srv/data/runtime/x", "/srv/data/old", "/var/lib/docker"] {
        fs::create_dir_all(folder).unwrap();
    }
    tool(&["mount", "--bind", "/srv/data/runtime", "/var/lib/docker"]);
    node.keep();
    node.policy("backends: {bind: {roots: [{path: /srv/data, create: true}]}}\n");
    let kubelet = node.kubelet();
    let of = |source: &str, create: &str| {
        let volume = kubelet.pod("default", "web").inline("nodeplug/bind", "data").option("source", source);
        volume.option("create", create)
    };
    for (source, create) in [("old", "none"), ("old", "dir"), ("new", "dir"), ("deep/er", "dir")] {
        let volume = of(&format!("/srv/data/{source}"), create);
        kubelet.set_up(&volume).mounted();
        kubelet.tear_down(&volume).unmounted();
        kubelet.end(volume.pod());
    }
    for (source, create) in
        [("", "none"), ("/runtime", "none"), ("/runtime/x", "dir"), ("/runtime/a/b", "dir")]
    {
        let volume = of(&format!("/srv/data{source}"), create);
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains("/var/lib/docker") && why.contains("no policy can allow it"), "{source}: {why}");
        kubelet.end(volume.pod());
    }
    assert!(!fs::exists("/srv/data/runtime/a").unwrap());
    node.assert_nothing_left("folders");
}
