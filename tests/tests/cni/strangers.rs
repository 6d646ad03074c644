//! What another attachment holds is never taken: not its address, not its interface, not its rules.

use std::net::IpAddr;

use harness::look;
use harness::node::{Namespace, Node};
use harness::runtime::{Call, Runtime};
use harness::suite::ours;
use harness::traffic::{Echo, Protocol, ask, ask_here};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{MODES, NAME, NODE, OUTSIDE, full, host_end, id, ips};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("an_address_of_an_overlapping_network_is_not_taken_by_args", |node| {
            overlap(node, |runtime, id, pod, address| {
                let mut config = runtime.config.clone();
                config["args"] = json!({"cni": {"ips": [address.to_string()]}});
                Runtime::new(config).call("ADD", id, pod.name(), None)
            });
        }),
        ours("an_address_of_an_overlapping_network_is_not_taken_by_cni_args", |node| {
            overlap(node, |runtime, id, pod, address| {
                let call = runtime.call("ADD", id, pod.name(), None);
                call.env("CNI_ARGS", &format!("IgnoreUnknown=1;IP={address}"))
            });
        }),
        ours("a_static_address_is_not_given_twice", a_static_address_is_not_given_twice),
        ours("a_bridged_pods_masquerade_is_not_taken", a_bridged_pods_masquerade_is_not_taken),
        ours("del_of_an_id_never_seen_spares_the_pod_in_that_namespace", del_of_a_stranger),
    ]
}

/// A pod whose network works, as the test's measure of harm.
struct Neighbour<'a> {
    runtime: &'a Runtime,
    id: String,
    pod: &'a Namespace,
    result: Value,
}

impl Neighbour<'_> {
    /// Route, masquerade and traffic of each address are as its ADD made them.
    #[track_caller]
    fn is_well(&self, outside: &[Echo; 2], when: &str) {
        for address in ips(&self.result) {
            let family = usize::from(address.is_ipv6());
            let flag = ["-4", "-6"][family];
            let host = host_end(&self.result);
            let routes = look::ip(&[flag, "route", "show", &address.to_string()]);
            let devices: Vec<&Value> = routes.iter().map(|r| &r["dev"]).collect();
            assert_eq!(devices, [&json!(host)], "{when}: the route to {address}");
            let own = format!("\"{address}\"");
            let masqueraded = look::elements().iter().filter(|e| e.contains(&own)).count();
            assert_eq!(masqueraded, 1, "{when}: {:?}", look::elements());
            let server = Echo::inside(self.pod, address);
            assert!(ask_here(Protocol::Tcp, server.address).is_ok(), "{when}: the node reaches {address}");
            let seen = ask(self.pod, Protocol::Tcp, outside[family].address);
            assert_eq!(seen, Ok(NODE[family]), "{when}: {address} reaches outside, masqueraded");
        }
        self.runtime.check(&self.id, self.pod, &self.result).success();
    }
}

/// A pod of network `others` asks, in its own words, for the address of a pod of network `pods`.
fn overlap(node: &Node, asking: fn(&Runtime, &str, &Namespace, IpAddr) -> Call) {
    let outside = node.outside();
    let server = OUTSIDE.map(|ip| Echo::inside(&outside, ip));
    let runtime = Runtime::new(full("routed"));
    let mut config = full("routed");
    config["name"] = json!("others");
    config["ipam"]["ranges"] = json!([[{"subnet": "10.66.0.0/16"}]]);
    config["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
    let others = Runtime::new(config);
    let (one, two) = (node.pod(), node.pod());
    let (first, second) = (id("first"), id("second"));
    let result = runtime.added(&first, &one);
    let neighbour = Neighbour { runtime: &runtime, id: first.clone(), pod: &one, result };
    let address = ips(&neighbour.result)[0];
    let before = look::leftovers();
    neighbour.is_well(&server, "before");

    let call = asking(&others, &second, &two, address);
    let answer = call.run();
    answer.refused(101);
    assert!(answer.message().contains(&address.to_string()), "the address is named: {answer:?}");
    same(&before, "after the refusal");
    assert!(look::addresses(&two, "eth0").is_empty(), "nothing in the second pod");
    neighbour.is_well(&server, "after the refusal");
    assert!(others.call("DEL", &second, two.name(), None).run().ok());
    same(&before, "after the DEL of the refused");
    neighbour.is_well(&server, "after the DEL of the refused");
    assert!(runtime.del(&first, &one, &neighbour.result).ok());
    look::assert_nothing_left("after both");
}

/// The bridge's and the uplink's neighbours come and go by themselves.
#[track_caller]
fn same(before: &[String], when: &str) {
    let fixed = |all: &[String]| -> Vec<String> {
        let mut all: Vec<String> = all.iter().filter(|f| !f.starts_with("neighbour")).cloned().collect();
        all.sort();
        all
    };
    assert_eq!(fixed(&look::leftovers()), fixed(before), "{when}");
}

fn a_static_address_is_not_given_twice(node: &Node) {
    let outside = node.outside();
    let server = OUTSIDE.map(|ip| Echo::inside(&outside, ip));
    for (address, destination) in [("10.66.0.9", "0.0.0.0/0"), ("fd66::9", "::/0")] {
        let mut config = full("routed");
        let prefix = if address.contains(':') { 64 } else { 24 };
        config["ipam"] = json!({
            "type": "static",
            "addresses": [{"address": format!("{address}/{prefix}")}],
            "routes": [{"dst": destination}],
        });
        let runtime = Runtime::new(config);
        let (one, two) = (node.pod(), node.pod());
        let (first, second) = (id("first"), id("second"));
        let result = runtime.added(&first, &one);
        let neighbour = Neighbour { runtime: &runtime, id: first.clone(), pod: &one, result };
        let before = look::leftovers();
        let answer = runtime.add(&second, &two);
        answer.refused(101);
        assert!(answer.message().contains(address), "the address is named: {answer:?}");
        same(&before, "after the refusal");
        neighbour.is_well(&server, "after the refusal");
        assert!(runtime.del_blind(&second).ok());
        same(&before, "after the DEL of the refused");
        neighbour.is_well(&server, "after the DEL of the refused");
        assert!(runtime.del(&first, &one, &neighbour.result).ok());
        look::assert_nothing_left("after both");
        assert_eq!(ips(&runtime.added(&second, &two)), [address.parse::<IpAddr>().unwrap()]);
        assert!(runtime.del_blind(&second).ok());
        look::assert_nothing_left("after the second");
    }
}

/// A namespace path may be reused, or handed over wrongly: the interface in it has an owner all the same.
fn del_of_a_stranger(node: &Node) {
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let (pod, living) = (node.pod(), id("living"));
        let result = runtime.added(&living, &pod);
        for previous in [None, Some(&result)] {
            assert!(runtime.call("DEL", &id("stranger"), pod.name(), previous).run().ok(), "{mode}");
            runtime.check(&living, &pod, &result).success();
            assert_eq!(look::leases(NAME).len(), 2, "{mode}: both leases stay");
        }
        assert!(runtime.del(&living, &pod, &result).ok());
        look::assert_nothing_left(mode);
    }
}

/// On a bridge nothing refuses the second owner of a static address but the masquerade that it would take.
fn a_bridged_pods_masquerade_is_not_taken(node: &Node) {
    let mut config = full("bridge");
    let address = json!([{"address": "10.66.0.9/16", "gateway": "10.66.0.1"}]);
    config["ipam"] = json!({"type": "static", "addresses": address});
    let runtime = Runtime::new(config);
    let (one, two) = (node.pod(), node.pod());
    let (first, second) = (id("first"), id("second"));
    let result = runtime.added(&first, &one);
    let before = look::elements();
    assert_eq!(before.len(), 1, "{before:?}");

    let answer = runtime.add(&second, &two);
    answer.refused(101);
    assert!(answer.message().contains("10.66.0.9") && answer.message().contains(&first), "{answer:?}");
    assert_eq!(look::elements(), before);
    assert!(runtime.call("DEL", &second, two.name(), None).run().ok());
    assert_eq!(look::elements(), before);
    runtime.check(&first, &one, &result).success();
    assert!(runtime.del(&first, &one, &result).ok());
    look::assert_nothing_left("after both");
}
