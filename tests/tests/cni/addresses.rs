//! One address, one owner: at the same time, after the last one, across binaries.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::thread;

use harness::look;
use harness::node::{LEASES, Namespace, Node, REFERENCE};
use harness::runtime::{Flavour, Runtime, flavour};
use harness::suite::{any, ours};
use harness::traffic::{Echo, Protocol, ask};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{MODES, NAME, id, ips, network, plain};

pub fn trials() -> Vec<Trial> {
    vec![
        any("concurrent_adds_get_addresses_of_their_own", concurrent_adds),
        any("an_exhausted_range_recovers_with_the_next_del", an_exhausted_range_recovers),
        any("a_freed_address_rests_before_it_is_given_again", a_freed_address_rests),
        ours("a_short_range_gives_addresses_that_should_rest", a_short_range_gives_resting_addresses),
        ours("an_excluded_address_is_never_given", an_excluded_address_is_never_given),
        any("an_address_can_be_asked_for", an_address_can_be_asked_for),
        ours("the_reference_and_ours_share_one_store", the_reference_and_ours_share_one_store),
        ours("an_empty_lease_file_of_a_crash_is_free", an_empty_lease_file_is_free),
        ours("another_ipam_plugin_is_asked_by_exec", another_ipam_plugin_is_asked),
        ours("another_ipam_plugin_gets_del_when_the_add_fails", another_ipam_plugin_gets_del),
    ]
}

fn small(mode: &str, count: u8) -> Value {
    let mut config = plain(mode);
    let end = format!("10.66.0.{}", 10 + count - 1);
    let range = json!({"subnet": "10.66.0.0/24", "rangeStart": "10.66.0.10", "rangeEnd": end});
    config["ipam"]["ranges"] = json!([[range]]);
    config
}

fn concurrent_adds(node: &Node) {
    node.install_reference();
    for mode in MODES {
        let runtime = Runtime::new(network(mode, &["10.66.0.0/24"]));
        let pods: Vec<(String, Namespace)> = (0..64).map(|n| (id(&format!("c{n}")), node.pod())).collect();
        let answers: Vec<_> = thread::scope(|scope| {
            let calls = pods.iter().map(|(id, pod)| scope.spawn(|| runtime.add(id, pod)));
            let calls: Vec<_> = calls.collect();
            calls.into_iter().map(|c| c.join().unwrap()).collect()
        });
        let given: BTreeSet<IpAddr> = answers.iter().map(|a| ips(&a.success())[0]).collect();
        assert_eq!(given.len(), 64, "{mode}: an address was shared");
        assert_eq!(look::leases(NAME).len(), 64, "{mode}");
        let answers: Vec<_> = thread::scope(|scope| {
            let calls =
                pods.iter().map(|(id, pod)| scope.spawn(|| runtime.call("DEL", id, pod.name(), None).run()));
            let calls: Vec<_> = calls.collect();
            calls.into_iter().map(|c| c.join().unwrap()).collect()
        });
        assert!(answers.iter().all(harness::call::Answer::ok), "{mode}: {answers:?}");
        look::assert_nothing_left(mode);
    }
}

fn an_exhausted_range_recovers(node: &Node) {
    node.install_reference();
    let ours = flavour() == Flavour::Ours;
    for mode in MODES {
        let mut config = small(mode, 3);
        config["ipam"]["cooldownSeconds"] = json!(30);
        let runtime = Runtime::new(config);
        let pods: Vec<(String, Namespace)> = ["a", "b", "c"].map(|w| (id(w), node.pod())).into();
        if ours {
            runtime.status().success();
        }
        for (id, pod) in &pods {
            runtime.added(id, pod);
        }
        let (late, more) = (node.pod(), id("late"));
        let refused = runtime.add(&more, &late);
        assert!(!refused.ok(), "{mode}: a fourth of three: {refused:?}");
        if ours {
            refused.refused(11);
            runtime.status().refused(50);
        }
        assert_eq!(look::leases(NAME).len(), 3, "{mode}: the refused one holds nothing");
        assert!(runtime.del_blind(&pods[0].0).ok());
        // The reference leaves its link in the namespace where an ADD failed.
        let late = if ours { late } else { node.pod() };
        let result = runtime.added(&more, &late);
        if ours {
            runtime.status().refused(50);
        }
        assert!(runtime.del(&more, &late, &result).ok());
        if ours {
            runtime.status().success();
        }
        for (id, pod) in &pods {
            assert!(runtime.call("DEL", id, pod.name(), None).run().ok());
        }
        if ours {
            look::assert_nothing_left(mode);
        }
    }
}

/// The store is made to believe that the freed address is the next in turn.
fn next_in_turn(address: IpAddr) {
    let IpAddr::V4(v4) = address else { panic!("{address} is not IPv4") };
    let before = std::net::Ipv4Addr::from(u32::from(v4) - 1);
    fs::write(format!("{LEASES}/{NAME}/last_reserved_ip.0"), before.to_string()).unwrap();
}

fn a_freed_address_rests(node: &Node) {
    node.install_reference();
    let turn = |seconds: u64| {
        let mut config = plain("bridge");
        config["ipam"]["cooldownSeconds"] = json!(seconds);
        let runtime = Runtime::new(config);
        let (pod, first) = (node.pod(), id("first"));
        let result = runtime.added(&first, &pod);
        let address = ips(&result)[0];
        assert!(runtime.del(&first, &pod, &result).ok());
        move |wait: u64| {
            thread::sleep(std::time::Duration::from_millis(wait));
            next_in_turn(address);
            let result = runtime.added(&first, &pod);
            assert!(runtime.del(&first, &pod, &result).ok());
            ips(&result)[0] == address
        }
    };
    assert!(turn(0)(0), "without a cool-down the next in turn is given");
    if flavour() == Flavour::Ours {
        assert!(!turn(30)(0), "within the cool-down another is given");
        let brief = turn(2);
        assert!(brief(3100), "after the cool-down the next in turn is given");
    }
    look::assert_nothing_left("after the cool-downs");
}

fn a_short_range_gives_resting_addresses(node: &Node) {
    let mut config = small("routed", 2);
    config["ipam"]["cooldownSeconds"] = json!(3600);
    let runtime = Runtime::new(config);
    for turn in 0..6 {
        let (pod, id) = (node.pod(), id(&format!("t{turn}")));
        let answer = runtime.add(&id, &pod);
        assert!(answer.ok(), "turn {turn}: {answer:?}");
        assert!(runtime.del_blind(&id).ok());
    }
}

fn an_excluded_address_is_never_given(node: &Node) {
    let mut config = small("routed", 6);
    config["ipam"]["exclude"] = json!(["10.66.0.10/31", "10.66.0.13"]);
    let runtime = Runtime::new(config);
    let pods: Vec<(String, Namespace)> = ["a", "b", "c"].map(|w| (id(w), node.pod())).into();
    let given: BTreeSet<_> = pods.iter().map(|(id, pod)| ips(&runtime.added(id, pod))[0]).collect();
    let expected = ["10.66.0.12", "10.66.0.14", "10.66.0.15"].map(|ip| ip.parse().unwrap());
    assert_eq!(given, BTreeSet::from(expected));
    runtime.add(&id("d"), &node.pod()).refused(11);
}

fn an_address_can_be_asked_for(node: &Node) {
    node.install_reference();
    let runtime = Runtime::new(plain("bridge"));
    let (pod, id) = (node.pod(), id("asked"));
    let call = runtime.call("ADD", &id, pod.name(), None);
    let result = call.env("CNI_ARGS", "IgnoreUnknown=1;IP=10.66.0.77").run().success();
    assert_eq!(ips(&result), ["10.66.0.77".parse::<IpAddr>().unwrap()]);
    let other = node.pod();
    let taken = runtime.call("ADD", &crate::networks::id("late"), other.name(), None);
    let answer = taken.env("CNI_ARGS", "IgnoreUnknown=1;IP=10.66.0.77").run();
    assert!(!answer.ok(), "an address of another: {answer:?}");
    assert!(runtime.call("DEL", &crate::networks::id("late"), other.name(), None).run().ok());
    assert!(runtime.del(&id, &pod, &result).ok());
    look::assert_nothing_left("after DEL");
}

/// An operator swaps the binary on a live node, and back.
fn the_reference_and_ours_share_one_store(node: &Node) {
    node.install_reference();
    let mut config = plain("bridge");
    config["cniVersion"] = json!("1.0.0");
    let reference = Runtime::of(Flavour::Reference, config.clone());
    let ours = Runtime::of(Flavour::Ours, config);
    let add = |runtime: &Runtime, word: &str| {
        let (pod, id) = (node.pod(), id(word));
        let result = runtime.added(&id, &pod);
        (id, pod, result)
    };
    let before = [add(&reference, "r1"), add(&reference, "r2"), add(&reference, "r3")];
    let after = [add(&ours, "o1"), add(&ours, "o2"), add(&ours, "o3")];
    let back = [add(&reference, "b1"), add(&reference, "b2")];
    let all = before.iter().chain(&after).chain(&back);
    let given: BTreeSet<IpAddr> = all.map(|(_, _, result)| ips(result)[0]).collect();
    assert_eq!(given.len(), 8, "an address was shared: {:?}", look::leases(NAME));
    assert_eq!(look::leases(NAME).len(), 8, "one lease each: {:?}", look::leases(NAME));

    let server = Echo::inside(&before[0].1, ips(&before[0].2)[0]);
    let answer = ask(&after[0].1, Protocol::Tcp, server.address);
    assert_eq!(answer, Ok(ips(&after[0].2)[0]), "pods of both binaries reach each other");

    for (id, pod, result) in &before {
        let answer = ours.del(id, pod, result);
        assert!(answer.ok(), "ours takes the reference's pod away: {answer:?}");
        assert!(look::addresses(pod, "eth0").is_empty(), "eth0 goes with it");
    }
    for (id, pod, result) in &after {
        let answer = reference.del(id, pod, result);
        assert!(answer.ok(), "the reference takes our pod away: {answer:?}");
    }
    let left: BTreeSet<IpAddr> = look::leases(NAME).into_iter().map(|(ip, _)| ip).collect();
    assert_eq!(left, back.iter().map(|(_, _, result)| ips(result)[0]).collect());
    // What the reference cannot know of, our record, goes with the second DEL or the GC.
    for (id, _, _) in before.iter().chain(&after) {
        assert!(ours.del_blind(id).ok());
    }
    for (id, _, _) in &back {
        assert!(ours.del_blind(id).ok(), "a DEL without namespace frees a lease of the reference");
    }
    assert!(look::leases(NAME).is_empty() && look::records().is_empty(), "{:?}", look::leftovers());
}

/// The reference, killed between making and writing a lease, leaves this and never gives it back.
fn an_empty_lease_file_is_free(node: &Node) {
    let runtime = Runtime::new(small("routed", 2));
    fs::create_dir_all(format!("{LEASES}/{NAME}")).unwrap();
    fs::write(format!("{LEASES}/{NAME}/10.66.0.10"), "").unwrap();
    let (one, two) = (node.pod(), node.pod());
    let given = [runtime.added(&id("a"), &one), runtime.added(&id("b"), &two)];
    let given: BTreeSet<IpAddr> = given.iter().map(|r| ips(r)[0]).collect();
    assert_eq!(given.len(), 2);
}

fn other_local(mode: &str) -> Value {
    let mut config = plain(mode);
    config["cniVersion"] = json!("1.0.0");
    let subnet = json!([[{"subnet": "10.66.0.0/24"}]]);
    let routes = json!([{"dst": "0.0.0.0/0"}]);
    config["ipam"] = json!({"type": "other-local", "ranges": subnet, "routes": routes});
    config
}

fn another_ipam_plugin_is_asked(node: &Node) {
    node.install(&Path::new(REFERENCE).join("host-local"), "other-local");
    for mode in MODES {
        let runtime = Runtime::new(other_local(mode));
        let (pod, id) = (node.pod(), id("delegated"));
        let result = runtime.added(&id, &pod);
        let leases = look::leases(NAME);
        assert_eq!(leases.iter().map(|(ip, _)| *ip).collect::<Vec<_>>(), ips(&result), "{mode}");
        runtime.check(&id, &pod, &result).success();
        assert!(runtime.del(&id, &pod, &result).ok());
        look::assert_nothing_left(mode);
        let result = runtime.added(&id, &pod);
        assert_eq!(ips(&result).len(), 1);
        assert!(runtime.del_blind(&id).ok());
        look::assert_nothing_left(&format!("{mode}, without namespace"));
    }
}

fn another_ipam_plugin_gets_del(node: &Node) {
    node.install(&Path::new(REFERENCE).join("host-local"), "other-local");
    for mode in MODES {
        let runtime = Runtime::new(other_local(mode));
        let pod = node.pod();
        pod.tool(&["ip", "link", "add", "eth0", "type", "bridge"]);
        let answer = runtime.add(&id("failing"), &pod);
        assert!(!answer.ok(), "{mode}: eth0 is somebody else's: {answer:?}");
        look::assert_nothing_left(mode);
        let mut missing = other_local(mode);
        missing["ipam"]["type"] = json!("not-there");
        let answer = Runtime::new(missing).add(&id("failing"), &node.pod());
        assert!(!answer.ok() && answer.message().contains("not-there"), "{answer:?}");
        look::assert_nothing_left(mode);
    }
}
