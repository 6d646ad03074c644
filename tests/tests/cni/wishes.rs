//! What a configuration or a pod may ask for beside the usual, and what comes of it.

use std::fs;

use harness::call::tool;
use harness::look;
use harness::node::{Namespace, Node};
use harness::runtime::Runtime;
use harness::suite::ours;
use harness::traffic::{Echo, Protocol, ask};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{MODES, NAME, full, host_end, id, ips, network, plain};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("a_pod_of_any_name_gets_its_network", a_pod_of_any_name),
        ours("two_range_sets_of_one_family_give_two_addresses", two_range_sets),
        ours("ranges_of_the_runtime_stand_beside_the_configured", ranges_of_the_runtime),
        ours("a_static_address_finds_its_gateway", a_static_address_finds_its_gateway),
        ours("a_static_address_that_leaves_no_gateway_is_refused", no_gateway_left),
        ours("a_node_that_starts_links_without_ipv6_serves_both_families", a_node_without_ipv6),
        ours("route_options_are_made_and_checked", route_options),
        ours("an_mtu_above_the_bridges_is_refused_or_cut", an_mtu_above_the_bridges),
        ours("a_log_file_gets_one_line_a_call", a_log_file),
    ]
}

/// ADD, CHECK and DEL of one pod; `look` sees it in between.
fn lives(node: &Node, config: Value, when: &str, look: impl Fn(&Namespace, &Value)) {
    let runtime = Runtime::new(config);
    let (pod, id) = (node.pod(), id("wish"));
    let answer = runtime.add(&id, &pod);
    assert!(answer.ok(), "{when}: {answer:?}");
    let result = answer.success();
    let check = runtime.check(&id, &pod, &result);
    assert!(check.ok(), "{when}: CHECK right after ADD: {check:?}");
    look(&pod, &result);
    assert!(runtime.del(&id, &pod, &result).ok(), "{when}");
    look::assert_nothing_left(when);
}

fn a_pod_of_any_name(node: &Node) {
    // A link bears 254 bytes, and a terminal that lists links must not obey them.
    let (space, name) = ("n".repeat(63), "p".repeat(253));
    let long = format!("{space}/{name}");
    let cases = [
        (space.as_str(), name.as_str(), &long[..254]),
        ("default", "we\nb", "default/we?b"),
        ("default", "we\u{1b}[2Jb", "default/we?[2Jb"),
    ];
    for mode in MODES {
        for (n, (space, name, alias)) in cases.into_iter().enumerate() {
            let runtime = Runtime::new(full(mode));
            let (pod, id) = (node.pod(), id(&format!("name{n}")));
            let words = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={space};K8S_POD_NAME={name}");
            let call = |verb: &str, previous: Option<&Value>| {
                runtime.call(verb, &id, pod.name(), previous).env("CNI_ARGS", &words).run()
            };
            let answer = call("ADD", None);
            assert!(answer.ok(), "{mode}, {name:?}: {answer:?}");
            let result = answer.success();
            let link = look::ip(&["-d", "link", "show", "dev", &host_end(&result)]);
            let shown = link[0]["ifalias"].as_str().unwrap_or_default();
            assert_eq!(shown, alias, "{mode}, {name:?}");
            call("CHECK", Some(&result)).success();
            assert!(call("DEL", Some(&result)).ok(), "{mode}, {name:?}");
            look::assert_nothing_left(&format!("{mode}, {name:?}"));
        }
    }
}

fn two_of_a_family(mode: &str) -> Value {
    let mut config = network(mode, &["10.66.0.0/24", "10.67.0.0/24"]);
    config["ipMasq"] = json!(true);
    config["ipam"].as_object_mut().unwrap().remove("routes");
    if mode == "bridge" {
        config["isDefaultGateway"] = json!(true);
    }
    config
}

fn one_default(pod: &Namespace, gateway: &str, when: &str) {
    let routes = look::ip_in(pod, &["-4", "route", "show", "default"]);
    let gateways: Vec<_> = routes.iter().map(|r| r["gateway"].as_str().unwrap_or_default()).collect();
    assert_eq!(gateways, [gateway], "{when}: the first address's gateway leads out");
}

fn two_range_sets(node: &Node) {
    for mode in MODES {
        // The second turn meets the bridge that the first one made.
        for turn in ["first", "second"] {
            let when = format!("{mode}, {turn}");
            lives(node, two_of_a_family(mode), &when, |pod, result| {
                assert_eq!(look::addresses(pod, "eth0").len(), 2, "{when}: {result}");
                assert_eq!(look::leases(NAME).len(), 2, "{when}");
                one_default(pod, "10.66.0.1", &when);
            });
        }
    }
}

fn ranges_of_the_runtime(node: &Node) {
    for mode in MODES {
        let mut config = plain(mode);
        config["capabilities"] = json!({"ipRanges": true});
        config["runtimeConfig"] = json!({"ipRanges": [[{"subnet": "10.68.0.0/24"}]]});
        config["ipMasq"] = json!(true);
        config["ipam"].as_object_mut().unwrap().remove("routes");
        if mode == "bridge" {
            config["isDefaultGateway"] = json!(true);
        }
        lives(node, config, mode, |pod, result| {
            let texts: Vec<String> = ips(result).iter().map(ToString::to_string).collect();
            assert!(texts.len() == 2 && texts[0].starts_with("10.68.0."), "{mode}: {texts:?}");
            assert!(texts[1].starts_with("10.66.0."), "{mode}: {texts:?}");
            one_default(pod, "10.68.0.1", mode);
        });
        if mode == "bridge" {
            tool(&["ip", "link", "del", "cni0"]);
        }
    }
}

fn fixed(mode: &str, address: &str) -> Value {
    let mut config = plain(mode);
    config["ipam"] = json!({"type": "static", "addresses": [{"address": address}]});
    config
}

fn a_static_address_finds_its_gateway(node: &Node) {
    let cases =
        [("fd66::5/64", "fd66::1"), ("fd66:0:0:7::abcd/64", "fd66:0:0:7::1"), ("10.66.0.5/24", "10.66.0.1")];
    for mode in MODES {
        for (address, gateway) in cases {
            let mut config = fixed(mode, address);
            if mode == "bridge" {
                config["isDefaultGateway"] = json!(true);
                config["forceAddress"] = json!(true);
            }
            lives(node, config, &format!("{mode}, {address}"), |pod, result| {
                assert_eq!(result["ips"][0]["gateway"], gateway, "{mode}: {result}");
                let family = if address.contains(':') { "-6" } else { "-4" };
                let routes = look::ip_in(pod, &[family, "route", "show", "default"]);
                assert_eq!(routes.len(), 1, "{mode}: {routes:?}");
                assert_eq!(routes[0]["gateway"], gateway, "{mode}: {routes:?}");
            });
        }
    }
}

fn no_gateway_left(node: &Node) {
    for mode in MODES {
        for address in ["10.66.0.1/24", "fd66::1/64", "10.66.0.5/32", "fd66::5/128"] {
            let runtime = Runtime::new(fixed(mode, address));
            let pod = node.pod();
            let answer = runtime.add(&id("none"), &pod);
            answer.refused(7);
            let told = answer.message();
            assert!(told.contains(address) && told.contains("gateway"), "{mode}, {address}: {told}");
            look::assert_nothing_left(&format!("{mode}, {address}"));
            assert!(look::ip_in(&pod, &["link", "show", "dev", "eth0"]).is_empty(), "{mode}: eth0 stays");
        }
    }
}

fn a_node_without_ipv6(node: &Node) {
    let off = ["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"];
    tool(&off);
    for mode in MODES {
        for in_the_pod in [false, true] {
            let when = format!("{mode}, in the pod too: {in_the_pod}");
            let runtime = Runtime::new(full(mode));
            let (pod, id) = (node.pod(), id("dual"));
            if in_the_pod {
                pod.tool(&off);
            }
            let answer = runtime.add(&id, &pod);
            assert!(answer.ok(), "{when}: {answer:?}");
            let result = answer.success();
            assert_eq!(look::addresses(&pod, "eth0").len(), 2, "{when}");
            let gateway = result["ips"][1]["gateway"].as_str().expect("a gateway");
            let server = Echo::on_node(gateway.parse().expect("an address"));
            let seen = ask(&pod, Protocol::Tcp, server.address);
            assert_eq!(seen, Ok(ips(&result)[1]), "{when}: the gateway answers over IPv6");
            runtime.check(&id, &pod, &result).success();
            assert!(runtime.del(&id, &pod, &result).ok(), "{when}");
            look::assert_nothing_left(&when);
        }
    }
}

fn route_options(node: &Node) {
    let four = [
        json!({"dst": "10.99.0.0/16", "table": 100}),
        json!({"dst": "10.99.0.0/16", "scope": 253}),
        json!({"dst": "10.99.0.0/16", "priority": 77}),
        json!({"dst": "10.99.0.0/16", "mtu": 1400, "advmss": 1300}),
        json!({"dst": "10.99.0.0/16", "table": 0}),
        json!({"dst": "10.99.0.0/16", "table": 100, "scope": 0, "priority": 5, "mtu": 1400, "advmss": 1300}),
    ];
    let six = [
        json!({"dst": "fd99::/64", "table": 100}),
        json!({"dst": "fd99::/64", "scope": 253}),
        json!({"dst": "fd99::/64", "priority": 77, "mtu": 1400, "advmss": 1300}),
        json!({"dst": "fd99::/64", "table": 0}),
    ];
    for mode in MODES {
        for version in ["0.4.0", "1.0.0", "1.1.0"] {
            for route in four.iter().chain(&six) {
                let mut config = full(mode);
                config["cniVersion"] = json!(version);
                config["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, route]);
                let when = format!("{mode} {version} {route}");
                lives(node, config, &when, |pod, _| made(pod, route, &when));
            }
        }
    }
}

/// The kernel's route has what was asked for.
fn made(pod: &Namespace, route: &Value, when: &str) {
    let destination = route["dst"].as_str().expect("a destination");
    let family = if destination.contains(':') { "-6" } else { "-4" };
    let routes = look::ip_in(pod, &["-d", family, "route", "show", "table", "all", destination]);
    assert_eq!(routes.len(), 1, "{when}: {routes:?}");
    let text = routes[0].to_string();
    let metric = |key: &str| routes[0]["metrics"][0][key].as_u64();
    for key in ["mtu", "advmss"] {
        assert_eq!(metric(key), route[key].as_u64(), "{when}: {text}");
    }
    if let Some(priority) = route["priority"].as_u64() {
        assert_eq!(routes[0]["metric"].as_u64(), Some(priority), "{when}: {text}");
    }
    if route["table"] == 100 {
        assert_eq!(routes[0]["table"], "100", "{when}: {text}");
    }
    if route["scope"] == 253 {
        assert!(routes[0].get("gateway").is_none(), "{when}: {text}");
    }
}

fn an_mtu_above_the_bridges(node: &Node) {
    tool(&["ip", "link", "add", "cni0", "type", "bridge"]);
    tool(&["ip", "link", "set", "cni0", "mtu", "1400"]);
    let mut config = plain("bridge");
    config["mtu"] = json!(1500);
    let pod = node.pod();
    let answer = Runtime::new(config.clone()).add(&id("big"), &pod);
    answer.refused(101);
    let told = answer.message();
    assert!(told.contains("1500") && told.contains("1400") && told.contains("cni0"), "{told}");
    assert!(told.contains("ip link set cni0 mtu 1500"), "what to do: {told}");
    look::assert_nothing_left("after the refusal");
    let bridge = look::ip(&["link", "show", "dev", "cni0"]);
    assert_eq!(bridge[0]["mtu"], 1400, "the bridge keeps its own");
    lives(node, plain("bridge"), "derived", |pod, _| {
        assert_eq!(look::mtu(pod, "eth0"), Some(1400), "the derived one is the bridge's");
    });
    config["mtu"] = json!(1300);
    lives(node, config, "smaller", |pod, _| assert_eq!(look::mtu(pod, "eth0"), Some(1300)));
}

fn a_log_file(node: &Node) {
    const LOG: &str = "/run/pods.log";
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(LOG).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with('\n'), "whole lines: {text:?}");
        text.lines().map(|l| serde_json::from_str(l).expect("a line of JSON")).collect()
    };
    let mut config = plain("routed");
    config["logFile"] = json!(LOG);
    let runtime = Runtime::new(config.clone());
    runtime.status().success();
    assert!(lines().is_empty(), "a good STATUS is no news: {:?}", lines());
    let (pod, id) = (node.pod(), id("logged"));
    let result = runtime.added(&id, &pod);
    assert_eq!(lines().len(), 1, "{:?}", lines());
    let add = lines()[0].clone();
    assert_eq!(add["ips"][0], result["ips"][0]["address"], "{add}");
    runtime.status().success();
    assert!(runtime.del(&id, &pod, &result).ok());
    let all = lines();
    assert_eq!(all.len(), 2, "{all:?}");
    for (line, verb) in all.iter().zip(["ADD", "DEL"]) {
        assert_eq!(line["verb"], verb, "{line}");
        assert_eq!(line["pod"], "default/web", "{line}");
        assert_eq!(line["containerID"], id, "{line}");
        assert_eq!(line["network"], NAME, "{line}");
        assert!(line["microseconds"].as_u64().is_some_and(|us| us > 0), "{line}");
        assert!(line["time"].as_u64().is_some_and(|ms| ms > 1_600_000_000_000), "{line}");
        assert!(line.get("error").is_none(), "{line}");
    }
    let there = node.pod();
    there.tool(&["ip", "link", "add", "eth0", "type", "bridge"]);
    assert!(!runtime.add(&id, &there).ok());
    let failed = lines().pop().expect("a line");
    assert!(lines().len() == 3 && failed["error"].is_string(), "{failed}");
    let mut full = config;
    full["ipam"]["ranges"] =
        json!([[{"subnet": "10.66.0.0/24", "rangeStart": "10.66.0.10", "rangeEnd": "10.66.0.10"}]]);
    let full = Runtime::new(full);
    full.added(&id, &pod);
    full.status().refused(50);
    let last = lines().pop().expect("a line");
    assert_eq!(last["verb"], "STATUS", "a bad STATUS is news: {last}");
    assert!(last["error"].is_string(), "{last}");
    assert!(full.del_blind(&id).ok());
    look::assert_nothing_left("after DEL");
}
