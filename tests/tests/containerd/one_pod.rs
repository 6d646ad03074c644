//! One pod with everything: its address, its host port, its rates, and nothing when it is gone.

use std::net::SocketAddr;
use std::time::Duration;

use harness::container_node::ContainerNode;
use harness::containerd::{Containerd, Cri, Pod, Sandbox};
use harness::flow::{Flow, Place};
use harness::look::{self, Snapshot};
use harness::node::Namespace;
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
    held(&sandbox, &outside);
    is_seen(node);
    is_well(node);
    assert!(kubelet.end(&sandbox.id).is_empty());
    assert!(kubelet.list().is_empty());
    node.assert_nothing_left("when the pod is gone");
    is_told(node, &sandbox);
    // What pods share stays with the first; the next brings nothing that stays.
    let before = shared();
    let next = kubelet.sandbox(&Pod::named("db").host_port(8081, 81).rates("30M", "30M"));
    assert!(kubelet.end(&next.id).is_empty());
    node.assert_nothing_left("when the next pod is gone");
    let difference = before.difference(&shared());
    assert!(difference.is_empty(), "{difference:#?}");
}

/// Each kind of thing that a pod could leave is found while the pod lives: finding none later means something.
fn is_seen(node: &ContainerNode) {
    let found = node.leftovers();
    for kind in [
        "link ",
        "route ",
        "element ",
        "lease ",
        "record ",
        "claim ",
        "network namespace ",
        "mount ",
        "result ",
        "cgroup ",
        "process ",
    ] {
        assert!(found.iter().any(|what| what.starts_with(kind)), "no {kind}in {found:#?}");
    }
}

/// All rules, chains, queues, routes and files, those of the runtime itself and of moments left out.
fn shared() -> Snapshot {
    let own = |fact: &str| {
        // The addresses that were used last wait for their turn.
        !fact.starts_with("file /run/") && !fact.contains("fe80::") && !fact.contains("/.nodeplug/cooling/")
    };
    Snapshot::whole(own)
}

/// With a pod that runs, the doctor finds this runtime and nothing wrong.
fn is_well(node: &ContainerNode) {
    let answer = node.person(&["doctor", "-o", "json"]);
    let report = answer.success();
    assert!(report["problems"] == 0 && answer.stdout.contains("containerd"), "{report:#}");
}

/// The log has both calls of the pod, and the kubelet's own name of it.
fn is_told(node: &ContainerNode, sandbox: &Sandbox) {
    let told = node.person(&["trace", "default/web", "-o", "json"]).success();
    let lines = told["lines"].as_array().unwrap();
    for verb in ["ADD", "DEL"] {
        assert!(lines.iter().any(|line| line["verb"] == verb), "no {verb} in {told:#}");
    }
    for line in lines {
        assert_eq!(line["podUID"], "uid-of-web", "{line}");
        assert_eq!(line["containerID"], sandbox.id, "{line}");
    }
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
fn held(sandbox: &Sandbox, outside: &Namespace) {
    let queues = look::queues(None);
    let shapers = queues.iter().filter(|q| q["kind"] == "tbf").count();
    assert_eq!(shapers, 2, "one each way: {queues:?}");
    let (pod, away) = (Place::Inside(&sandbox.space), Place::Inside(outside));
    flows("to the pod", &Flow::start(Protocol::Tcp, Place::Node, pod, sandbox.ip(), 20_000_000), 20e6);
    let beyond = "192.0.2.2".parse().unwrap();
    flows("from the pod", &Flow::start(Protocol::Tcp, pod, away, beyond, 10_000_000), 10e6);
}

/// At this rate, in one of three looks: a busy machine may be slower, and catches up after that.
fn flows(what: &str, flow: &Flow, expected: f64) {
    let looks = (0..3).map(|_| flow.rate(Duration::from_millis(500), Duration::from_secs(2)));
    let mut seen = Vec::new();
    for rate in looks {
        if (expected * 0.85..=expected * 1.15).contains(&rate) {
            return;
        }
        seen.push(rate);
    }
    panic!("{seen:?} bits a second {what} in place of {expected}");
}
