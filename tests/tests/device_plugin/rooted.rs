//! Files of the node that are seen below `host.root`.

use std::fs;
use std::os::unix::fs::symlink;

use harness::device_node::DeviceNode;
use harness::suite::device;
use libtest_mimic::Trial;

use crate::SERIAL;

pub fn trials() -> Vec<Trial> {
    vec![
        device("a_path_outside_dev_is_found_below_the_node_s_root", &[], found),
        device("a_folder_below_the_node_s_root_that_comes_later_is_found", &[], later),
        device("a_link_out_of_a_source_s_folder_is_refused", &[], stray),
    ]
}

const ROOT: &str = "/run/node/root";
/// Nothing but the kernel's word tells of a change.
const TEXT: &str = "host: {dev: /run/node/dev, sys: /run/node/sys, cdi: /run/cdi, root: /run/node/root}\n\
                    discovery: {rescan: 1h}\n\
                    resources: [{name: example.com/serial, devices: [{path: {glob: [/opt/keys/*], kinds: [file]}}]}]\n";

fn key(name: &str) {
    fs::create_dir_all(format!("{ROOT}/opt/keys")).unwrap();
    fs::write(format!("{ROOT}/opt/keys/{name}"), name).unwrap();
}

fn found(node: &DeviceNode) {
    let kubelet = node.kubelet();
    key("a");
    node.configure_real(TEXT);
    let _daemon = node.daemon();
    let first = kubelet.wait_for_healthy(SERIAL, 1).healthy;
    let (pod, answer) = kubelet.allocate(SERIAL, 1);
    let [mount] = answer.mounts.try_into().expect("one mount");
    assert_eq!((mount.host_path.as_str(), mount.container_path.as_str()), ("/opt/keys/a", "/opt/keys/a"));
    assert!(answer.devices.is_empty());
    kubelet.end(&pod);
    key("b");
    let both = kubelet.wait_for_healthy(SERIAL, 2).healthy;
    assert!(both.is_superset(&first));
    fs::remove_file(format!("{ROOT}/opt/keys/a")).unwrap();
    let offer = kubelet.wait_for_healthy(SERIAL, 1);
    assert_eq!(offer.unhealthy, first);
}

fn later(node: &DeviceNode) {
    let kubelet = node.kubelet();
    fs::create_dir_all(ROOT).unwrap();
    node.configure_real(TEXT);
    let _daemon = node.daemon();
    kubelet.wait_for_healthy(SERIAL, 0);
    key("a");
    kubelet.wait_for_healthy(SERIAL, 1);
    fs::remove_dir_all(format!("{ROOT}/opt")).unwrap();
    kubelet.wait_for_healthy(SERIAL, 0);
    key("a");
    kubelet.wait_for_healthy(SERIAL, 1);
}

/// A link that whoever may write into the folder makes must not hand out what is elsewhere.
fn stray(node: &DeviceNode) {
    let kubelet = node.kubelet();
    key("a");
    fs::create_dir_all(format!("{ROOT}/etc")).unwrap();
    fs::write(format!("{ROOT}/etc/shadow"), "secret").unwrap();
    let link = |target: &str, name: &str| symlink(target, format!("{ROOT}/opt/keys/{name}")).unwrap();
    link("../../etc/shadow", "relative");
    link("/etc/shadow", "absolute");
    link("/run/node/root/etc/shadow", "seen");
    link("/run/node/etc/device-plugin.yaml", "outside");
    node.configure_real(TEXT);
    let _daemon = node.daemon();
    let offer = kubelet.wait_for_healthy(SERIAL, 1);
    assert_eq!(offer.capacity(), 1, "{offer:?}");
    let (_, answer) = kubelet.allocate(SERIAL, 1);
    assert_eq!(answer.mounts[0].host_path, "/opt/keys/a");
    let answer = node.command(&["explain", SERIAL]);
    for name in ["relative", "absolute", "seen", "outside"] {
        assert!(answer.stdout.contains(&format!("/opt/keys/{name}")), "it is told of: {answer:?}");
    }
}
