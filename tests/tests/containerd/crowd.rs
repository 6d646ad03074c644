//! Many pods, several at a time.

use std::collections::BTreeSet;
use std::net::IpAddr;

use harness::container_node::ContainerNode;
use harness::containerd::{Containerd, Pod, Sandbox, at_once};
use harness::traffic::{Echo, Protocol, ask_again};
use libtest_mimic::Trial;

use crate::networks::{SUBNETS, containerd, whole};

pub fn trials() -> Vec<Trial> {
    vec![
        containerd("fifty_pods_at_once_reach_each_other_routed", |node| fifty(node, "routed")),
        containerd("fifty_pods_at_once_reach_each_other_bridged", |node| fifty(node, "bridge")),
    ]
}

/// How many the kubelet starts at the same time here.
pub const AT_ONCE: usize = 8;

/// Pods with a host port each, and rates for some.
pub fn pods(count: u16) -> Vec<Pod> {
    let pod = |n: u16| {
        let pod = Pod::named(&format!("web{n}")).host_port(10_000 + n, 80);
        if n.is_multiple_of(4) { pod.rates("100M", "100M") } else { pod }
    };
    (0..count).map(pod).collect()
}

fn fifty(node: &ContainerNode, mode: &str) {
    node.network("10-pods", &whole(mode, &SUBNETS));
    let containerd = Containerd::start(node);
    let kubelet = containerd.kubelet();
    kubelet.wait_for_network();
    let sandboxes = at_once(AT_ONCE, &pods(50), |pod| kubelet.sandbox(pod));
    let ips: BTreeSet<IpAddr> = sandboxes.iter().flat_map(|s| s.ips.clone()).collect();
    assert_eq!(ips.len(), 100, "each has an address of each family, and nobody else has it: {ips:?}");
    let pairs: Vec<(&Sandbox, &Sandbox)> = sandboxes.iter().zip(sandboxes.iter().rev()).collect();
    at_once(AT_ONCE, &pairs, |(from, to)| {
        for (own, ip) in from.ips.iter().zip(&to.ips) {
            let server = Echo::inside(&to.space, *ip);
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                assert_eq!(
                    ask_again(&from.space, protocol, server.address).as_ref(),
                    Ok(own),
                    "{:?}",
                    from.pod
                );
            }
        }
    });
    let refused = at_once(AT_ONCE, &sandboxes, |sandbox| kubelet.end(&sandbox.id)).concat();
    assert!(refused.is_empty(), "{refused:?}");
    assert!(kubelet.list().is_empty());
    node.assert_nothing_left("when all pods are gone");
}
