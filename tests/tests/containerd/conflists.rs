//! The network's file comes, changes and goes while the runtime runs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use harness::container_node::ContainerNode;
use harness::containerd::{Containerd, Cri, Pod, asks_for_status};
use harness::traffic::{Echo, Protocol, ask};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{SUBNETS, containerd, whole};

pub fn trials() -> Vec<Trial> {
    vec![
        containerd("a_node_is_ready_when_its_conflist_is_there", ready),
        containerd("a_conflist_that_is_too_new_for_the_runtime_leaves_nothing", too_new),
        containerd("a_conflist_changes_under_running_pods", changed),
    ]
}

/// Where this containerd looks. Nothing else on the node tells of it.
const PLUGINS: &str = "/opt/pods/bin";
const NETWORKS: &str = "/etc/cni/pods.d";

/// A pod that comes too early stays with the runtime until there is a network, by which it can be stopped. `install`
/// asks nobody for the runtime's folders, nor for what it understands.
fn ready(node: &ContainerNode) {
    let outside = node.node.outside();
    let containerd = Containerd::with_folders(node, PLUGINS, NETWORKS);
    let kubelet = containerd.kubelet();
    let why = kubelet.network().unwrap_err();
    assert!(why.contains("cni plugin not initialized"), "{why}");
    kubelet.set_pod_cidr(SUBNETS[0]).unwrap();
    let refused = kubelet.run(&Pod::named("early")).unwrap_err();
    assert!(refused.message().contains("cni plugin not initialized"), "{refused}");
    let report = node.person(&["install", "--pod-cidr", "10.66.0.0/24,fd66::/64", "-o", "json"]).success();
    kubelet.wait_for_network();
    let list = fs::read_to_string(Path::new(NETWORKS).join("10-nodeplug.conflist")).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["cniVersion"], if asks_for_status() { "1.1.0" } else { "1.0.0" }, "{report:#}");
    assert!(Path::new(PLUGINS).join("nodeplug-cni").is_file(), "{report:#}");
    let sandbox = kubelet.sandbox(&Pod::named("web").host_port(8080, 80));
    assert_eq!(sandbox.ips.len(), 2, "{sandbox:?}");
    let _web = Echo::at(&sandbox.space, SocketAddr::new(sandbox.ip(), 80));
    ask(&outside, Protocol::Tcp, "192.0.2.1:8080".parse().unwrap()).unwrap();
    assert!(kubelet.end(&sandbox.id).is_empty());
    assert!(kubelet.end_all().is_empty());
    node.assert_nothing_left("when the pods are gone");
}

/// A containerd before 2 takes such a conflist, calls the node ready, and refuses each result. README warns of it.
fn too_new(node: &ContainerNode) {
    let mut list = whole("routed", &SUBNETS);
    list["cniVersion"] = json!("1.1.0");
    node.network("10-pods", &list);
    let containerd = Containerd::start(node);
    let kubelet = containerd.kubelet();
    kubelet.wait_for_network();
    match kubelet.run(&Pod::named("web")) {
        Ok(id) => assert!(asks_for_status() && kubelet.end(&id).is_empty(), "a containerd that speaks 1.1.0"),
        Err(e) => assert!(e.message().contains("unsupported CNI result version \"1.1.0\""), "{e}"),
    }
    assert!(kubelet.end_all().is_empty());
    node.assert_nothing_left("after pods that were refused");
}

/// Other ranges, the other mode, another name: what is new gets the new network, and what is old goes without a trace.
fn changed(node: &ContainerNode) {
    let containerd = Containerd::start(node);
    let kubelet = containerd.kubelet();
    let mut other = whole("bridge", &["10.68.0.0/16"]);
    other["name"] = json!("others");
    other["plugins"][0]["bridge"] = json!("cni1");
    let lists = [
        whole("routed", &SUBNETS),
        whole("routed", &["10.67.0.0/16"]),
        whole("bridge", &["10.69.0.0/16"]),
        other,
    ];
    let begin = ["10.66.", "10.67.", "10.69.", "10.68."];
    let mut sandboxes = Vec::new();
    for ((n, list), begin) in (0..).zip(&lists).zip(begin) {
        replace(node, &kubelet, n, list);
        let sandbox =
            kubelet.sandbox(&Pod::named(&format!("web{n}")).host_port(8080 + n, 80).rates("90M", "90M"));
        assert!(sandbox.ip().to_string().starts_with(begin), "{sandbox:?}");
        sandboxes.push(sandbox);
    }
    // Those of all networks reach each other through the node.
    for (from, to) in sandboxes.iter().zip(sandboxes.iter().rev()) {
        let server = Echo::inside(&to.space, to.ip());
        ask(&from.space, Protocol::Tcp, server.address).unwrap();
    }
    for sandbox in &sandboxes {
        let refused = kubelet.end(&sandbox.id);
        assert!(refused.is_empty(), "{refused:?}");
    }
    // libcni looks for its results under the name of the network that is configured now.
    let mut left = node.leftovers();
    left.retain(|what| !what.starts_with("result pods-"));
    assert!(left.is_empty(), "{left:#?}");
}

/// A file of another name in the place of the one before, and the runtime has noticed: it shows what it has read.
fn replace(node: &ContainerNode, kubelet: &Cri, n: u16, list: &Value) {
    if n > 0 {
        node.forget_network(&format!("{}-pods", n - 1));
    }
    node.network(&format!("{n}-pods"), list);
    let subnet = list["plugins"][0]["ipam"]["ranges"][0][0]["subnet"].as_str().unwrap();
    kubelet.wait_for_configuration(subnet);
}
