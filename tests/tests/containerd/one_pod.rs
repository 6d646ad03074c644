//! One pod with everything: its address, its host port, its rates, and nothing when it is gone.

use std::net::SocketAddr;
use std::time::Duration;

use harness::container_node::ContainerNode;
use harness::containerd::{Containerd, Cri, Pod, Sandbox};
use harness::flow::{Flow, Place};
use harness::look;
use harness::traffic::{Echo, Protocol, ask};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::networks::{SUBNETS, chain, containerd, whole};

pub fn trials() -> Vec<Trial> {
    vec![
        containerd("a_pod_has_its_network_and_leaves_nothing_routed", |node| {
            alone(node, &whole("routed", &SUBNETS));
        }),
        containerd("a_pod_has_its_network_and_leaves_nothing_bridged", |node| {
            alone(node, &whole("bridge", &SUBNETS));
        }),
        containerd("a_pod_has_its_network_by_the_references_names", by_the_references_names),
    ]
}

const NODE: [&str; 2] = ["192.0.2.1", "2001:db8:ff::1"];

fn by_the_references_names(node: &ContainerNode) {
    node.install(&["--as-reference"]);
    alone(node, &chain(SUBNETS[0]));
}

fn alone(node: &ContainerNode, list: &Value) {
    let outside = node.node.outside();
    node.network("10-pods", list);
    let containerd = Containerd::start(node);
    let kubelet = containerd.kubelet();
    kubelet.wait_for_network();
    let sandbox = kubelet.sandbox(&Pod::named("web").host_port(8080, 80).rates("20M", "10M"));
    let families = list["plugins"][0]["ipam"]["ranges"].as_array().unwrap().len();
    let own: Vec<String> = look::addresses(&sandbox.space, "eth0").into_iter().collect();
    assert_eq!(sandbox.ips.len(), families, "{sandbox:?}");
    for ip in &sandbox.ips {
        assert!(own.iter().any(|a| a.starts_with(&format!("{ip}/"))), "{ip} of {own:?}");
    }
    inside(&kubelet, &sandbox);
    for (ip, node) in sandbox.ips.iter().zip(NODE) {
        let web = Echo::at(&sandbox.space, SocketAddr::new(*ip, 80));
        let door = SocketAddr::new(node.parse().unwrap(), 8080);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            ask(&outside, protocol, door)
                .unwrap_or_else(|e| panic!("by the host port of {}: {e}", web.address));
        }
    }
    held(&sandbox);
    assert!(kubelet.end(&sandbox.id).is_empty());
    assert!(kubelet.list().is_empty());
    node.assert_nothing_left("when the pod is gone");
}

/// A container of the pod sees the address, and reaches itself by it.
fn inside(kubelet: &Cri, sandbox: &Sandbox) {
    let container = kubelet.container(sandbox, "main", &["/bin/sleep", "1000"]);
    let ip = sandbox.ip().to_string();
    let says = |words: &[&str]| kubelet.says(&container, words);
    assert!(says(&["ip", "addr", "show", "dev", "eth0"]).contains(&format!("inet {ip}/")), "{ip}");
    let page = "httpd -p 8081 -h /etc && wget -q -O - http://$0:8081/hostname";
    assert_eq!(says(&["sh", "-c", page, &ip]), "web", "the pod's own server");
}

/// What the pod's author asked for by annotations.
fn held(sandbox: &Sandbox) {
    let queues = look::queues(None);
    let shapers = queues.iter().filter(|q| q["kind"] == "tbf").count();
    assert_eq!(shapers, 2, "one each way: {queues:?}");
    let flow =
        Flow::start(Protocol::Tcp, Place::Node, Place::Inside(&sandbox.space), sandbox.ip(), 20_000_000);
    let rate = flow.rate(Duration::from_millis(500), Duration::from_secs(2));
    assert!((17e6..=23e6).contains(&rate), "{rate} bits a second to the pod");
}
