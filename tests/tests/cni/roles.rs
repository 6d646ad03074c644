//! Under the reference's names: the same configuration gives the same result, and a pod sees the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use harness::look;
use harness::node::{Namespace, Node, REFERENCE, our_binary};
use harness::runtime::Runtime;
use harness::suite::ours;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{NAME, id, ips};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("a_bridge_is_as_the_references", |node| each(node, "bridge", &bridges())),
        ours("a_ptp_is_as_the_references", |node| each(node, "ptp", &pairs())),
        ours("a_key_that_is_lacking_is_refused_by_name", lacking),
        ours("our_bridge_and_ptp_ask_any_ipam_plugin", delegated),
        ours("pods_of_the_reference_are_checked_and_deleted", theirs),
        ours("pods_of_ours_are_checked_and_deleted_by_the_reference", ours_by_theirs),
    ]
}

fn install(node: &Node, ours: bool) {
    for name in ["bridge", "ptp", "host-local", "static"] {
        let from = if ours { our_binary() } else { Path::new(REFERENCE).join(name) };
        node.install(&from, name);
    }
}

fn host_local(subnets: &[&str], routes: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|s| json!([{ "subnet": s }])).collect();
    let routes: Vec<Value> = routes.iter().map(|r| json!({ "dst": r })).collect();
    json!({"type": "host-local", "ranges": ranges, "routes": routes})
}

const FOUR: &[&str] = &["10.66.0.0/24"];
const BOTH: &[&str] = &["10.66.0.0/24", "fd66::/64"];
const OUT: &[&str] = &["0.0.0.0/0", "::/0"];

/// What stands beside `type` and `bridge`.
/// The resolver settings of an IPAM plugin are missing: Debian's `bridge` drops them, newer ones pass them on.
fn bridges() -> Vec<Value> {
    vec![
        json!({}),
        json!({"ipam": {}}),
        json!({"isGateway": true, "ipMasq": true, "ipam": {}}),
        json!({"mtu": 1400, "hairpinMode": true, "ipam": {"type": ""}}),
        json!({"ipam": host_local(FOUR, &[])}),
        json!({"ipam": host_local(FOUR, &["0.0.0.0/0"])}),
        json!({"isGateway": true, "ipam": host_local(FOUR, &["0.0.0.0/0", "10.9.0.0/16"])}),
        json!({"isGateway": true, "ipMasq": true, "ipMasqBackend": "iptables", "mtu": 1400,
            "ipam": host_local(BOTH, OUT)}),
        json!({"isDefaultGateway": true, "ipam": host_local(BOTH, &[])}),
        json!({"isDefaultGateway": true, "hairpinMode": true, "ipam": host_local(BOTH, &["10.9.0.0/16"])}),
        json!({"isDefaultGateway": true, "ipam": {"type": "host-local", "subnet": "10.66.0.0/24",
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.66.0.9"}]}}),
        json!({"isGateway": true, "promiscMode": true, "dns": {"nameservers": ["10.0.0.10"], "search": ["a.example"]},
            "ipam": host_local(FOUR, OUT)}),
        json!({"isGateway": true, "forceAddress": true, "ipam": {"type": "static",
            "addresses": [{"address": "10.66.0.5/24"}, {"address": "fd66::5/64", "gateway": "fd66::9"}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "fd99::/64"}]}}),
        json!({"isGateway": true, "args": {"cni": {"mac": "0a:00:00:00:00:07"}}, "ipam": host_local(BOTH, OUT)}),
    ]
}

fn pairs() -> Vec<Value> {
    vec![
        json!({"ipam": host_local(FOUR, &[])}),
        json!({"ipam": host_local(FOUR, &["0.0.0.0/0", "10.9.0.0/16"])}),
        json!({"ipMasq": true, "mtu": 1400, "dns": {"nameservers": ["10.0.0.10"]}, "ipam": host_local(BOTH, OUT)}),
        json!({"ipam": {"type": "host-local", "subnet": "10.66.0.0/24", "gateway": "10.66.0.7",
            "routes": [{"dst": "0.0.0.0/0"}]}}),
        json!({"ipam": {"type": "static", "addresses": [{"address": "10.66.0.5/24", "gateway": "10.66.0.1"}],
            "routes": [{"dst": "0.0.0.0/0"}], "dns": {"domain": "a.example", "nameservers": ["10.0.0.10"]}}}),
    ]
}

fn network(plugin: &str, version: &str, more: &Value) -> Value {
    let mut config = json!({"cniVersion": version, "name": NAME, "type": plugin});
    if plugin == "bridge" {
        config["bridge"] = json!("cni0");
    }
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// The reference makes a pod, then ours does, on a node that is as before.
fn each(node: &Node, plugin: &str, cases: &[Value]) {
    for more in cases {
        for version in ["0.3.1", "0.4.0", "1.0.0"] {
            let when = format!("{plugin} {version} {more}");
            let runtime = Runtime::new(network(plugin, version, more));
            let [theirs, ours] = [false, true].map(|ours| one(node, &runtime, ours, &when));
            assert_eq!(ours.0, theirs.0, "the result: {when}");
            assert_eq!(ours.1, theirs.1, "what there is: {when}");
        }
    }
}

/// The result and all that a pod or the node's operator can see of it.
fn one(node: &Node, runtime: &Runtime, ours: bool, when: &str) -> (Value, BTreeSet<String>) {
    node.reboot();
    drop(fs::remove_dir_all("/var/lib/cni"));
    install(node, ours);
    let (pod, id) = (node.pod(), id("same"));
    let answer = runtime.add(&id, &pod);
    assert!(answer.ok(), "{when}, ours: {ours}: {answer:?}");
    let result = answer.success();
    let seen = seen(&pod);
    // The reference's CHECK finds no route without a gateway, and asks a plugin without a name where a
    // bridge has no `ipam`.
    if ours && runtime.config["cniVersion"] != "0.3.1" {
        let check = runtime.check(&id, &pod, &result);
        assert!(check.ok(), "{when}, ours: {ours}: {check:?}");
    }
    assert!(runtime.del(&id, &pod, &result).ok(), "{when}, ours: {ours}");
    if ours {
        look::assert_nothing_left(when);
    }
    (named_alike(result, &pod), seen)
}

/// A result without what differs from one ADD to the next.
fn named_alike(mut result: Value, pod: &Namespace) -> Value {
    for interface in result["interfaces"].as_array_mut().unwrap() {
        let mac = interface["mac"].as_str().unwrap_or_default().len();
        interface["mac"] = json!(mac);
        let inside = interface["sandbox"] == pod.name();
        if inside {
            interface["sandbox"] = json!("the pod's");
        }
        let name = interface["name"].as_str().unwrap();
        if name.starts_with("veth") || name.starts_with("np") {
            interface["name"] = json!("the host end");
        }
    }
    result
}

fn seen(pod: &Namespace) -> BTreeSet<String> {
    let mut seen: BTreeSet<String> =
        look::addresses(pod, "eth0").into_iter().map(|a| format!("pod {a}")).collect();
    let of = |v: &Value, key: &str| v[key].as_str().unwrap_or("-").to_owned();
    for family in ["-4", "-6"] {
        for r in look::ip_in(pod, &[family, "route", "show", "dev", "eth0"]) {
            // A /64 of link-local addresses and multicast come with the link.
            if !of(&r, "dst").starts_with("fe80") {
                seen.insert(format!("pod route {} via {}", of(&r, "dst"), of(&r, "gateway")));
            }
        }
        for r in look::ip(&[family, "route", "show"]) {
            let dev = if of(&r, "dev") == "cni0" { "cni0" } else { "the host end" };
            // Our own address of a host end needs no route beside that of the local table.
            if !of(&r, "dst").starts_with("fe80") && r["dst"] != "fd66::1" {
                seen.insert(format!("node route {} via {} on {dev}", of(&r, "dst"), of(&r, "gateway")));
            }
        }
    }
    for link in look::ip_in(pod, &["-d", "link", "show", "dev", "eth0"]) {
        seen.insert(format!("pod eth0 mtu {} {}", link["mtu"], link["operstate"]));
    }
    for link in look::ip(&["-d", "addr"]) {
        let name = of(&link, "ifname");
        if name == "lo" {
            continue;
        }
        let port = &link["linkinfo"]["info_slave_data"];
        let shown = if name == "cni0" { "cni0" } else { "the host end" };
        seen.insert(format!(
            "node {shown} mtu {} {} promisc {} hairpin {} isolated {}",
            link["mtu"], link["operstate"], link["promiscuity"], port["hairpin"], port["isolated"]
        ));
        for a in link["addr_info"].as_array().into_iter().flatten().filter(|a| a["scope"] != "link") {
            seen.insert(format!("node {shown} {}/{}", of(a, "local"), a["prefixlen"]));
        }
    }
    for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        seen.insert(format!("{name} {}", fs::read_to_string(format!("/proc/sys/{name}")).unwrap().trim()));
    }
    seen
}

fn lacking(node: &Node) {
    install(node, true);
    let base = json!({"isGateway": true, "ipam": host_local(FOUR, &[])});
    for (plugin, key, value, hint) in [
        ("bridge", "vlan", json!(7), "VLAN"),
        ("bridge", "vlanTrunk", json!([{"id": 7}]), "VLAN"),
        ("bridge", "preserveDefaultVlan", json!(false), "VLAN"),
        ("bridge", "mode", json!("bridge"), "nodeplug-cni"),
        ("ptp", "nonMasqueradeCIDRs", json!(["10.0.0.0/8"]), "nodeplug-cni"),
        ("ptp", "encapOverhead", json!(50), "nodeplug-cni"),
        ("bridge", "isgateway", json!(true), "isGateway"),
    ] {
        let mut config = network(plugin, "1.0.0", &base);
        if plugin == "ptp" {
            config.as_object_mut().unwrap().remove("isGateway");
        }
        config[key] = value;
        let runtime = Runtime::new(config);
        let (pod, id) = (node.pod(), id("no"));
        let answer = runtime.add(&id, &pod);
        answer.refused(2);
        assert!(answer.message().contains(key) && answer.message().contains(hint), "{key}: {answer:?}");
        assert!(look::links().iter().all(|l| l == "lo"), "{key}: before anything is made");
        assert!(runtime.del(&id, &pod, &json!({"cniVersion": "1.0.0"})).ok());
    }
    look::assert_nothing_left("what was refused");
}

fn delegated(node: &Node) {
    install(node, true);
    node.install(&Path::new(REFERENCE).join("host-local"), "other-local");
    for plugin in ["bridge", "ptp"] {
        let mut ipam = host_local(BOTH, OUT);
        ipam["type"] = json!("other-local");
        let runtime = Runtime::new(network(plugin, "1.0.0", &json!({ "ipam": ipam })));
        let (pod, id) = (node.pod(), id("asked"));
        let result = runtime.added(&id, &pod);
        assert_eq!((ips(&result).len(), look::leases(NAME).len()), (2, 2), "{plugin}");
        runtime.check(&id, &pod, &result).success();
        assert!(runtime.del(&id, &pod, &result).ok());
        look::assert_nothing_left(plugin);
    }
}

fn theirs(node: &Node) {
    for plugin in ["bridge", "ptp"] {
        for breakage in ["", "addr flush dev eth0", "route flush dev eth0 proto boot", "link del eth0"] {
            let mut config = network(plugin, "1.0.0", &json!({"ipam": host_local(FOUR, &["0.0.0.0/0"])}));
            if plugin == "bridge" {
                config["isGateway"] = json!(true);
            }
            let runtime = Runtime::new(config);
            let (pod, id) = (node.pod(), id("theirs"));
            install(node, false);
            let result = runtime.added(&id, &pod);
            install(node, true);
            let check = runtime.check(&id, &pod, &result);
            assert!(check.ok(), "{plugin}: {check:?}");
            if !breakage.is_empty() {
                let words: Vec<&str> = std::iter::once("ip").chain(breakage.split(' ')).collect();
                pod.tool(&words);
                runtime.check(&id, &pod, &result).refused(102);
            }
            assert!(runtime.del(&id, &pod, &result).ok(), "{plugin} {breakage}");
            look::assert_nothing_left(&format!("{plugin} {breakage}"));
        }
    }
}

/// The reference's DEL finds no record of ours: our next GC does.
fn ours_by_theirs(node: &Node) {
    for plugin in ["bridge", "ptp"] {
        let more = json!({"ipMasq": true, "ipam": host_local(BOTH, OUT)});
        let mut config = network(plugin, "1.0.0", &more);
        if plugin == "bridge" {
            config["isGateway"] = json!(true);
        }
        let runtime = Runtime::new(config.clone());
        let (pod, id) = (node.pod(), id("ours"));
        install(node, true);
        let result = runtime.added(&id, &pod);
        install(node, false);
        let check = runtime.check(&id, &pod, &result);
        assert!(check.ok(), "{plugin}: {check:?}");
        // The reference stumbles over the masquerade that it did not make, and only then; runtimes try again.
        let first = runtime.del(&id, &pod, &result);
        assert!(first.ok() || first.message().contains("tables"), "{plugin}: {first:?}");
        let answer = runtime.del(&id, &pod, &result);
        assert!(answer.ok(), "{plugin}: {answer:?}");
        assert!(look::leases(NAME).is_empty(), "{plugin}");
        assert!(look::host_ends().is_empty(), "{plugin}");
        install(node, true);
        config["cniVersion"] = json!("1.1.0");
        assert!(Runtime::new(config).gc(&[], &["cni.dev/valid-attachments"]).ok(), "{plugin}");
        look::assert_nothing_left(plugin);
    }
}
