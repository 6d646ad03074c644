//! CHECK sees each kind of damage, GC takes away what nobody holds, STATUS tells the truth.

use std::fs;

use harness::call::tool;
use harness::look;
use harness::node::{LEASES, Namespace, Node};
use harness::runtime::Runtime;
use harness::suite::{any, ours};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{MODES, NAME, full, host_end, id, ips, plain};

pub fn trials() -> Vec<Trial> {
    vec![
        any("check_passes_on_a_pod_that_is_well", check_passes),
        ours("check_of_a_routed_pod_names_the_damage", |node| damages(node, "routed")),
        ours("check_of_a_bridged_pod_names_the_damage", |node| damages(node, "bridge")),
        ours("check_passes_again_after_repair", check_passes_again),
        ours("check_of_an_unknown_pod_fails", check_of_an_unknown_pod_fails),
        ours("gc_takes_away_what_is_not_valid", gc_takes_away_what_is_not_valid),
        ours("gc_keeps_other_networks", gc_keeps_other_networks),
        ours("gc_without_a_list_takes_nothing_away", gc_without_a_list),
        ours("status_is_silent_when_all_is_well", status_is_silent),
    ]
}

fn check_passes(node: &Node) {
    node.install_reference();
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let (pod, id) = (node.pod(), id("well"));
        let result = runtime.added(&id, &pod);
        let answer = runtime.check(&id, &pod, &result);
        assert!(answer.ok() && answer.stdout.trim().is_empty(), "{mode}: {answer:?}");
        assert!(runtime.del(&id, &pod, &result).ok());
    }
}

/// What a test may damage.
struct Victim<'a> {
    pod: &'a Namespace,
    host: String,
    ip4: String,
    ip6: String,
}

/// A name, how it is done, and the words one of which the message must hold.
type Damage = (&'static str, fn(&Victim), fn(&Victim) -> Vec<String>);

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

fn no_masquerade(set: &str, address: &str) {
    let set = look::set_named(set).expect("a set of masqueraded addresses");
    tool(&["nft", "delete", "element", "inet", "nodeplug", &set, "{", address, "}"]);
}

const EVERYWHERE: [Damage; 15] = [
    ("eth0 deleted", |v| drop(v.pod.tool(&["ip", "link", "del", "eth0"])), |_| words(&["eth0"])),
    ("eth0 down", |v| drop(v.pod.tool(&["ip", "link", "set", "eth0", "down"])), |_| words(&["eth0"])),
    ("host end down", |v| drop(tool(&["ip", "link", "set", &v.host, "down"])), |v| vec![v.host.clone()]),
    (
        "IPv4 address deleted",
        |v| drop(v.pod.tool(&["ip", "-4", "addr", "flush", "dev", "eth0"])),
        |v| vec![v.ip4.clone()],
    ),
    (
        "IPv6 address deleted",
        |v| drop(v.pod.tool(&["ip", "-6", "addr", "flush", "dev", "eth0", "scope", "global"])),
        |v| vec![v.ip6.clone()],
    ),
    (
        "IPv4 default route deleted",
        |v| drop(v.pod.tool(&["ip", "route", "del", "default"])),
        |_| words(&["default", "0.0.0.0/0"]),
    ),
    (
        "IPv6 default route deleted",
        |v| drop(v.pod.tool(&["ip", "-6", "route", "del", "default"])),
        |_| words(&["default", "::/0"]),
    ),
    (
        "MTU changed in the pod",
        |v| drop(v.pod.tool(&["ip", "link", "set", "eth0", "mtu", "1300"])),
        |_| words(&["mtu", "MTU"]),
    ),
    (
        "MAC changed",
        |v| drop(v.pod.tool(&["ip", "link", "set", "eth0", "address", "02:aa:bb:cc:dd:ee"])),
        |_| words(&["mac", "MAC", "02:aa:bb:cc:dd:ee", "hardware"]),
    ),
    (
        "our table deleted",
        |_| drop(tool(&["nft", "delete", "table", "inet", "nodeplug"])),
        |_| words(&["masquerade", "nodeplug", "pods4"]),
    ),
    (
        "the table's rules flushed",
        |_| drop(tool(&["nft", "flush", "table", "inet", "nodeplug"])),
        |_| words(&["masquerade", "nodeplug", "postrouting"]),
    ),
    (
        "IPv4 element deleted",
        |v| no_masquerade("pods4", &v.ip4),
        |v| vec!["masquerade".to_owned(), v.ip4.clone()],
    ),
    (
        "IPv6 element deleted",
        |v| no_masquerade("pods6", &v.ip6),
        |v| vec!["masquerade".to_owned(), v.ip6.clone()],
    ),
    (
        "lease removed",
        |v| fs::remove_file(format!("{LEASES}/{NAME}/{}", v.ip4)).expect("the lease's file"),
        |v| vec!["lease".to_owned(), v.ip4.clone()],
    ),
    (
        "lease of somebody else",
        |v| fs::write(format!("{LEASES}/{NAME}/{}", v.ip4), "abc\r\neth0").expect("the lease's file"),
        |v| vec!["lease".to_owned(), v.ip4.clone()],
    ),
];

const ROUTED: [Damage; 6] = [
    ("IPv4 host route deleted", |v| drop(tool(&["ip", "route", "del", &v.ip4])), |v| vec![v.ip4.clone()]),
    (
        "IPv6 host route deleted",
        |v| drop(tool(&["ip", "-6", "route", "del", &v.ip6])),
        |v| vec![v.ip6.clone()],
    ),
    (
        "IPv4 neighbour deleted on the host",
        |v| drop(tool(&["ip", "neigh", "del", &v.ip4, "dev", &v.host])),
        |v| vec!["neigh".to_owned(), v.ip4.clone()],
    ),
    (
        "IPv6 neighbour deleted on the host",
        |v| drop(tool(&["ip", "neigh", "del", &v.ip6, "dev", &v.host])),
        |v| vec!["neigh".to_owned(), v.ip6.clone()],
    ),
    (
        "neighbours deleted in the pod",
        |v| {
            // `ip neigh flush` spares permanent entries unless they are asked for.
            v.pod.tool(&["ip", "-4", "neigh", "flush", "dev", "eth0", "nud", "permanent"]);
        },
        |_| words(&["neigh"]),
    ),
    (
        "MTU changed on the host",
        |v| drop(tool(&["ip", "link", "set", &v.host, "mtu", "1300"])),
        |_| words(&["mtu", "MTU"]),
    ),
];

const BRIDGED: [Damage; 2] = [
    (
        "host end out of the bridge",
        |v| drop(tool(&["ip", "link", "set", &v.host, "nomaster"])),
        |_| words(&["cni0", "bridge"]),
    ),
    (
        "bridge without its IPv4 address",
        |_| drop(tool(&["ip", "-4", "addr", "flush", "dev", "cni0"])),
        |_| words(&["cni0", "10.66.0.1"]),
    ),
];

fn damages(node: &Node, mode: &str) {
    let special: &[Damage] = if mode == "routed" { &ROUTED } else { &BRIDGED };
    let mut wrong = Vec::new();
    for (n, (name, harm, expected)) in EVERYWHERE.iter().chain(special).enumerate() {
        let runtime = Runtime::new(full(mode));
        let (pod, id) = (node.pod(), id(&format!("d{n}")));
        let result = runtime.added(&id, &pod);
        runtime.check(&id, &pod, &result).success();
        let addresses = ips(&result);
        let ip4 = addresses[0].to_string();
        let ip6 = addresses[1].to_string();
        let victim = Victim { pod: &pod, host: host_end(&result), ip4, ip6 };
        harm(&victim);
        let answer = runtime.check(&id, &pod, &result);
        let expected = expected(&victim);
        let named = expected.iter().any(|w| answer.message().contains(w.as_str()));
        if answer.code() != 102 || !named {
            wrong.push(format!("{name}: wants code 102 and one of {expected:?}, gets {answer:?}"));
        }
        let del = runtime.del(&id, &pod, &result);
        assert!(del.ok(), "{mode}, {name}: DEL after the damage: {del:?}");
        if *name == "lease of somebody else" {
            fs::remove_file(format!("{LEASES}/{NAME}/{}", victim.ip4)).expect("somebody else's lease stays");
        }
        look::assert_nothing_left(&format!("{mode}, {name}"));
    }
    assert!(wrong.is_empty(), "{mode}: {wrong:#?}");
}

fn check_passes_again(node: &Node) {
    let runtime = Runtime::new(full("routed"));
    let (pod, id) = (node.pod(), id("repair"));
    let result = runtime.added(&id, &pod);
    let route = pod.tool(&["ip", "route", "show", "default"]);
    pod.tool(&["ip", "route", "del", "default"]);
    runtime.check(&id, &pod, &result).refused(102);
    let mut words = vec!["ip", "route", "add"];
    words.extend(route.split_whitespace());
    pod.tool(&words);
    runtime.check(&id, &pod, &result).success();
    assert!(runtime.del(&id, &pod, &result).ok());
}

fn check_of_an_unknown_pod_fails(node: &Node) {
    let runtime = Runtime::new(plain("routed"));
    let (pod, first) = (node.pod(), id("known"));
    let result = runtime.added(&first, &pod);
    let other = node.pod();
    let answer = runtime.check(&id("unknown"), &other, &result);
    assert!(!answer.ok() && answer.code() > 0, "{answer:?}");
    assert!(runtime.del(&first, &pod, &result).ok());
}

fn gc_takes_away_what_is_not_valid(node: &Node) {
    for mode in MODES {
        for keys in [
            &["cni.dev/valid-attachments"][..],
            &["cni.dev/attachments"],
            &["cni.dev/valid-attachments", "cni.dev/attachments"],
        ] {
            let runtime = Runtime::new(full(mode));
            let pods: Vec<(String, Namespace)> = ["a", "b", "c"].map(|w| (id(w), node.pod())).into();
            let results: Vec<Value> = pods.iter().map(|(id, pod)| runtime.added(id, pod)).collect();
            let answer = runtime.gc(&[(&pods[0].0, "eth0"), (&pods[2].0, "eth0")], keys);
            assert!(answer.ok() && answer.stdout.trim().is_empty(), "{mode} {keys:?}: {answer:?}");
            let gone: Vec<String> = look::leftovers();
            let gone: Vec<_> = gone.iter().filter(|l| l.contains(&pods[1].0)).collect();
            assert!(gone.is_empty(), "{mode} {keys:?}: {gone:?}");
            assert!(!look::links().contains(&host_end(&results[1])), "{mode} {keys:?}: the link stays");
            for n in [0, 2] {
                runtime.check(&pods[n].0, &pods[n].1, &results[n]).success();
            }
            let answer = runtime.gc(&[], keys);
            assert!(answer.ok(), "{mode}: an empty list: {answer:?}");
            look::assert_nothing_left(&format!("{mode}: GC with an empty list"));
        }
    }
}

fn gc_keeps_other_networks(node: &Node) {
    let runtime = Runtime::new(full("routed"));
    let mut other = full("routed");
    other["name"] = json!("others");
    other["ipam"]["ranges"] = json!([[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]);
    let other = Runtime::new(other);
    let (one, two) = (node.pod(), node.pod());
    let first = runtime.added(&id("one"), &one);
    let second = other.added(&id("two"), &two);
    assert!(runtime.gc(&[], &["cni.dev/valid-attachments"]).ok());
    other.check(&id("two"), &two, &second).success();
    assert!(!runtime.check(&id("one"), &one, &first).ok(), "the network's own is collected");
    assert!(other.gc(&[], &["cni.dev/valid-attachments"]).ok());
    look::assert_nothing_left("after both");
}

/// A list that is missing is a mistake of the caller; taking it as empty would cut off every pod.
fn gc_without_a_list(node: &Node) {
    let runtime = Runtime::new(full("routed"));
    let (pod, id) = (node.pod(), id("kept"));
    let result = runtime.added(&id, &pod);
    let answer = runtime.gc(&[], &[]);
    assert!(answer.ok() || answer.code() > 0, "{answer:?}");
    runtime.check(&id, &pod, &result).success();
    assert!(runtime.del(&id, &pod, &result).ok());
}

fn status_is_silent(_node: &Node) {
    for mode in MODES {
        let answer = Runtime::new(full(mode)).status();
        assert!(answer.ok() && answer.stdout.trim().is_empty(), "{mode}: {answer:?}");
        look::assert_nothing_left("after STATUS");
    }
}
