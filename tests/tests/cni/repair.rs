//! What others do to a node: nf_tables flushed, paths that lead elsewhere by the time of DEL, and more than
//! a socket holds at once.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::call::{self, tool, try_tool};
use harness::look;
use harness::node::{Namespace, Node, PLUGINS, our_binary};
use harness::runtime::{Flavour, Runtime};
use harness::suite::ours;
use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::networks::{full, host_end, id};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("status_puts_back_what_a_flush_took", |node| flushed(node, by_status)),
        ours("repair_puts_back_what_a_flush_took_and_says_so", |node| flushed(node, by_hand)),
        ours("a_flush_that_was_noticed_and_not_mended_is_mended_later", noticed),
        ours("repair_leaves_the_dead_alone", dead),
        ours("what_is_left_of_chained_pods_is_mended_by_ipam_check", left_of_chained),
        ours("hundreds_of_ports_come_and_go", many_ports),
        ours("del_touches_no_namespace_but_the_pods", another_namespace),
        ours("a_setting_that_no_pod_can_write_leaves_no_pod_behind", unwritable),
    ]
}

fn ports(first: u16, count: u16) -> Value {
    let one = |n| json!({"hostPort": first + n, "containerPort": 80, "protocol": "tcp"});
    (0..count).map(one).collect()
}

/// A network whose pods get these ports and pass the host's firewall.
fn network(ports: &Value) -> Runtime {
    let mut config = full("routed");
    config["firewall"] = json!(true);
    config["capabilities"] = json!({"portMappings": true});
    config["runtimeConfig"] = json!({"portMappings": ports});
    Runtime::of(Flavour::Ours, config)
}

#[track_caller]
fn repair(words: &[&str]) -> String {
    let answer = call::run(Command::new(format!("{PLUGINS}/nodeplug-cni")).args(words), b"");
    assert!(answer.ok(), "{words:?}: {answer:?}");
    answer.stdout
}

fn by_status() {
    let answer = network(&json!([])).status();
    assert!(answer.ok(), "STATUS mends: {answer:?}");
}

fn by_hand() {
    let shown = call::run(Command::new(format!("{PLUGINS}/nodeplug-cni")).args(["repair", "--dry-run"]), b"");
    assert_eq!(shown.exit, Some(1), "a dry run finds the damage: {shown:?}");
    assert!(shown.stdout.contains("2 damaged"), "{shown:?}");
    assert!(repair(&["repair"]).contains("2 mended"));
    assert!(repair(&["repair"]).contains("2 whole"));
}

fn flushed(node: &Node, mend: fn()) {
    let (one, two) = (network(&ports(8080, 2)), network(&ports(9090, 1)));
    let (first, second) = (node.pod(), node.pod());
    let a = one.added(&id("first"), &first);
    let b = two.added(&id("second"), &second);
    let before = look::elements();
    for what in [["nft", "flush", "ruleset", ""], ["nft", "delete", "table", "inet nodeplug"]] {
        let words: Vec<&str> = what.into_iter().filter(|w| !w.is_empty()).collect();
        tool(&words);
        assert!(!one.check(&id("first"), &first, &a).ok(), "CHECK misses it");
        mend();
        one.check(&id("first"), &first, &a).success();
        two.check(&id("second"), &second, &b).success();
        assert_eq!(sorted(look::elements()), sorted(before.clone()), "{words:?}");
    }
    assert!(one.del(&id("first"), &first, &a).ok());
    assert!(two.del(&id("second"), &second, &b).ok());
    look::assert_nothing_left("after both");
}

fn sorted(mut all: Vec<String>) -> Vec<String> {
    all.sort();
    all
}

/// The ADD that noticed was killed before it mended the others.
fn noticed(node: &Node) {
    let (one, pod) = (network(&ports(8080, 1)), node.pod());
    let result = one.added(&id("first"), &pod);
    tool(&["nft", "flush", "ruleset"]);
    let (two, other) = (network(&ports(9090, 1)), node.pod());
    let second = two.added(&id("second"), &other);
    one.check(&id("first"), &pod, &result).success();
    // As such a kill leaves it: a table that looks whole, and the note.
    let elements = "flush set inet nodeplug firewall4-pods";
    tool(&["nft", elements]);
    std::fs::write("/var/lib/nodeplug/cni/flushed", "").expect("the note");
    assert!(!one.check(&id("first"), &pod, &result).ok());
    by_status();
    one.check(&id("first"), &pod, &result).success();
    assert!(!std::path::Path::new("/var/lib/nodeplug/cni/flushed").exists());
    assert!(one.del(&id("first"), &pod, &result).ok());
    assert!(two.del(&id("second"), &other, &second).ok());
    look::assert_nothing_left("after both");
}

fn dead(node: &Node) {
    let (one, pod) = (network(&ports(8080, 1)), node.pod());
    let result = one.added(&id("first"), &pod);
    let link = host_end(&result);
    pod.remove();
    // The kernel takes a namespace's links down behind the back of who removed it.
    let start = Instant::now();
    while try_tool(&["ip", "link", "show", "dev", &link]).ok() {
        assert!(start.elapsed() < Duration::from_secs(20), "`{link}` stays");
        thread::sleep(Duration::from_millis(5));
    }
    tool(&["nft", "flush", "ruleset"]);
    assert!(repair(&["repair"]).contains("1 gone"));
    assert!(look::elements().is_empty(), "{:?}", look::elements());
    let pod = node.pod();
    assert!(one.del(&id("first"), &pod, &result).ok());
    look::assert_nothing_left("after DEL");
}

/// The runtime went back to the reference's plugins, and never calls ours again.
fn left_of_chained(node: &Node) {
    node.install_reference();
    for name in ["portmap", "firewall"] {
        node.install(&our_binary(), name);
    }
    let mut config = full("bridge");
    config["ipMasq"] = json!(false);
    let bridge = Runtime::of(Flavour::Reference, config);
    let pod = node.pod();
    let mut result = bridge.added(&id("left"), &pod);
    for plugin in ["portmap", "firewall"] {
        let mut config = json!({"cniVersion": "1.0.0", "name": "pods", "type": plugin});
        if plugin == "portmap" {
            config["capabilities"] = json!({"portMappings": true});
            config["runtimeConfig"] = json!({"portMappings": ports(8080, 1)});
        }
        let runtime = Runtime::of(Flavour::Ours, config);
        result = runtime.call("ADD", &id("left"), pod.name(), Some(&result)).run().success();
    }
    assert!(bridge.del(&id("left"), &pod, &result).ok());
    assert_eq!(look::chained_records().len(), 2);
    for record in look::chained_records() {
        age(&record);
    }
    repair(&["ipam", "check", "--fix"]);
    assert!(look::chained_records().is_empty(), "{:?}", look::chained_records());
    assert!(look::elements().is_empty(), "{:?}", look::elements());
    look::assert_nothing_left("after the check");
}

/// Makes a record older than an ADD may take.
fn age(record: &str) {
    let path = format!("/var/lib/nodeplug/cni/chained/{record}");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut value: Value = serde_json::from_str(&text).expect("a record");
    value["since"] = json!(value["since"].as_u64().expect("seconds") - 3600);
    std::fs::write(&path, value.to_string()).expect("write the record");
}

fn many_ports(node: &Node) {
    let (runtime, pod) = (network(&ports(10_000, 400)), node.pod());
    let result = runtime.added(&id("many"), &pod);
    runtime.check(&id("many"), &pod, &result).success();
    assert!(look::elements().len() >= 1600, "two families, a map and a set: {}", look::elements().len());
    let answer = runtime.del(&id("many"), &pod, &result);
    assert!(answer.ok(), "{answer:?}");
    look::assert_nothing_left("after DEL");
}

/// A runtime that names namespaces by process: the process's number is another one's by the time of DEL.
fn another_namespace(node: &Node) {
    node.install(&our_binary(), "tuning");
    let (first, second) = (by_veth(node), by_veth(node));
    let config = json!({"cniVersion": "1.0.0", "name": "pods", "type": "tuning", "mtu": 1400});
    let runtime = Runtime::of(Flavour::Ours, config);
    let result = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": first.name()}],
        "ips": [{"interface": 0, "address": "10.66.0.5/24"}],
    });
    runtime.call("ADD", &id("moved"), first.name(), Some(&result)).run().success();
    assert_eq!(mtu(&first), "1400");
    second.tool(&["ip", "link", "set", "eth0", "mtu", "1300"]);
    umount2(&first.path, MntFlags::MNT_DETACH).expect("take the first namespace from its path");
    mount(Some(&second.path), &first.path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .expect("another one");
    let answer = runtime.call("DEL", &id("moved"), "", None).run();
    assert!(answer.ok(), "{answer:?}");
    assert_eq!(mtu(&second), "1300", "the other pod's interface is as it was");
    assert!(look::chained_records().is_empty());
}

fn by_veth(node: &Node) -> Namespace {
    let pod = node.pod();
    pod.tool(&["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "x0"]);
    pod
}

fn mtu(pod: &Namespace) -> String {
    let shown = pod.tool(&["ip", "-o", "link", "show", "dev", "eth0"]);
    let mut words = shown.split_whitespace().skip_while(|w| *w != "mtu");
    words.nth(1).expect("an mtu").to_owned()
}

fn unwritable(node: &Node) {
    node.install(&our_binary(), "tuning");
    let pod = by_veth(node);
    let sysctl = json!({"net.netfilter.nf_conntrack_max": "4096"});
    let config = json!({"cniVersion": "1.0.0", "name": "pods", "type": "tuning", "sysctl": sysctl});
    let runtime = Runtime::of(Flavour::Ours, config);
    let result = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": pod.name()}],
        "ips": [],
    });
    let answer = runtime.call("ADD", &id("fixed"), pod.name(), Some(&result)).run();
    assert_eq!(answer.exit, Some(1), "{answer:?}");
    assert!(answer.message().contains("nf_conntrack_max"), "{answer:?}");
    for _ in 0..2 {
        let answer = runtime.call("DEL", &id("fixed"), pod.name(), None).run();
        assert!(answer.ok(), "{answer:?}");
    }
    assert!(look::chained_records().is_empty());
}
