//! Who reaches whom, and under which address: both modes, both families, TCP and UDP.

use std::net::{IpAddr, SocketAddr};

use harness::call::tool;
use harness::look;
use harness::node::{Namespace, Node};
use harness::runtime::{Flavour, Runtime};
use harness::suite::{any, ours};
use harness::traffic::{Echo, Protocol, ask, ask_here};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{NODE, OUTSIDE, full, id, ips, network};

pub fn trials() -> Vec<Trial> {
    vec![
        any("routed_pods_reach_each_other_the_host_and_outside", |node| everybody(node, "routed")),
        any("bridged_pods_reach_each_other_the_host_and_outside", |node| everybody(node, "bridge")),
        any("routed_pods_are_reached_by_route", |node| by_route(node, "routed")),
        any("bridged_pods_are_reached_by_route", |node| by_route(node, "bridge")),
        ours("routed_pods_keep_their_address_in_spared_networks", |node| spared(node, "routed")),
        ours("bridged_pods_keep_their_address_in_spared_networks", |node| spared(node, "bridge")),
        ours("a_reused_address_is_reached_at_once", a_reused_address_is_reached_at_once),
    ]
}

struct Pod {
    space: Namespace,
    id: String,
    result: Value,
    ips: Vec<IpAddr>,
}

fn pod(node: &Node, runtime: &Runtime, word: &str) -> Pod {
    let (space, id) = (node.pod(), id(word));
    // The loopback plugin has run before.
    space.tool(&["ip", "link", "set", "lo", "up"]);
    let result = runtime.added(&id, &space);
    let ips = ips(&result);
    if runtime.flavour() == Flavour::Reference {
        // Its IPv6 addresses, the host's among them, are first looked for on the wire.
        std::thread::sleep(std::time::Duration::from_millis(2500));
    }
    Pod { space, id, result, ips }
}

#[track_caller]
fn seen(answer: &Result<IpAddr, String>, expected: IpAddr, what: &str) {
    assert_eq!(answer, &Ok(expected), "{what}");
}

fn everybody(node: &Node, mode: &str) {
    let outside = node.outside();
    let runtime = Runtime::new(full(mode));
    prepare(node, &runtime);
    let (one, two) = (pod(node, &runtime, "one"), pod(node, &runtime, "two"));
    assert_eq!((one.ips.len(), two.ips.len()), (2, 2), "both families: {} {}", one.result, two.result);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for family in [0, 1] {
            let what = |words: &str| format!("{mode} {protocol:?} {}: {words}", ["IPv4", "IPv6"][family]);
            let at_two = Echo::inside(&two.space, two.ips[family]);
            let there = ask(&one.space, protocol, at_two.address);
            seen(&there, one.ips[family], &what("pod to pod, under its own address"));
            let from_host = ask_here(protocol, at_two.address);
            assert!(from_host.is_ok(), "{}: {from_host:?}", what("host to pod"));
            let at_one = Echo::inside(&one.space, one.ips[family]);
            seen(&ask(&two.space, protocol, at_one.address), two.ips[family], &what("and back"));
            seen(&ask(&one.space, protocol, at_one.address), one.ips[family], &what("pod to itself"));
            let at_host = Echo::on_node(NODE[family]);
            let host = ask(&one.space, protocol, at_host.address);
            assert!(host.is_ok(), "{}: {host:?}", what("pod to host"));
            let far = Echo::inside(&outside, OUTSIDE[family]);
            seen(&ask(&one.space, protocol, far.address), NODE[family], &what("pod to outside, masqueraded"));
        }
    }
    gone(&runtime, &[one, two]);
}

/// Without masquerade and with a route outside, both sides see true addresses.
fn by_route(node: &Node, mode: &str) {
    let outside = node.outside();
    outside.tool(&["ip", "route", "add", "10.66.0.0/24", "via", "192.0.2.1"]);
    outside.tool(&["ip", "-6", "route", "add", "fd66::/64", "via", "2001:db8:ff::1"]);
    let runtime = Runtime::new(network(mode, &["10.66.0.0/24", "fd66::/64"]));
    prepare(node, &runtime);
    let one = pod(node, &runtime, "one");
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for family in [0, 1] {
            let what = format!("{mode} {protocol:?}");
            let inside = Echo::inside(&one.space, one.ips[family]);
            seen(&ask(&outside, protocol, inside.address), OUTSIDE[family], &what);
            let far = Echo::inside(&outside, OUTSIDE[family]);
            seen(&ask(&one.space, protocol, far.address), one.ips[family], &what);
        }
    }
    gone(&runtime, &[one]);
}

fn spared(node: &Node, mode: &str) {
    let outside = node.outside();
    outside.tool(&["ip", "route", "add", "10.66.0.0/24", "via", "192.0.2.1"]);
    outside.tool(&["ip", "-6", "route", "add", "fd66::/64", "via", "2001:db8:ff::1"]);
    // A second address outside that is not spared.
    outside.tool(&["ip", "addr", "add", "198.51.100.2/32", "dev", "eth0"]);
    let mut config = full(mode);
    config["nonMasqueradeCIDRs"] = json!(["192.0.2.0/24", "2001:db8:ff::/64"]);
    let runtime = Runtime::new(config);
    let one = pod(node, &runtime, "one");
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for family in [0, 1] {
            let far = Echo::inside(&outside, OUTSIDE[family]);
            let what = format!("{mode} {protocol:?}: the pod's own address");
            seen(&ask(&one.space, protocol, far.address), one.ips[family], &what);
        }
        let elsewhere = Echo::inside(&outside, IpAddr::from([198, 51, 100, 2]));
        let what = format!("{mode} {protocol:?}: masqueraded");
        seen(&ask(&one.space, protocol, elsewhere.address), NODE[0], &what);
    }
    gone(&runtime, &[one]);
}

/// The next owner of an address must not inherit the host's memory of the one before.
fn a_reused_address_is_reached_at_once(node: &Node) {
    for mode in crate::networks::MODES {
        let mut config = network(mode, &["10.66.0.0/24", "fd66::/64"]);
        let only = json!([
            [{"subnet": "10.66.0.0/24", "rangeStart": "10.66.0.9", "rangeEnd": "10.66.0.9"}],
            [{"subnet": "fd66::/64", "rangeStart": "fd66::9", "rangeEnd": "fd66::9"}],
        ]);
        config["ipam"]["ranges"] = only;
        let runtime = Runtime::new(config);
        for turn in ["first", "second", "third"] {
            let one = pod(node, &runtime, turn);
            for family in [0, 1] {
                let server = Echo::inside(&one.space, one.ips[family]);
                let answer = ask_here(Protocol::Tcp, server.address);
                assert!(answer.is_ok(), "{mode} {turn}: {answer:?}");
            }
            gone(&runtime, &[one]);
        }
    }
}

/// What a node brings by itself when the reference is driven: it turns forwarding on only for the
/// families of gateways that it makes.
fn prepare(node: &Node, runtime: &Runtime) {
    if runtime.flavour() == Flavour::Reference {
        node.install_reference();
        tool(&["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1"]);
    }
}

fn gone(runtime: &Runtime, pods: &[Pod]) {
    for pod in pods {
        let answer = runtime.del(&pod.id, &pod.space, &pod.result);
        assert!(answer.ok(), "DEL: {answer:?}");
        let address = SocketAddr::new(pod.ips[0], 9);
        assert!(ask_here(Protocol::Tcp, address).is_err(), "{address} still answers");
    }
    look::assert_nothing_left("after DEL");
}
