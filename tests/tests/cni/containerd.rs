//! The calls that containerd makes, replayed in their order.

use std::collections::HashMap;
use std::path::Path;

use harness::call::{Answer, tool};
use harness::look;
use harness::node::{Namespace, Node};
use harness::runtime::{Call, Flavour, Runtime, compact, flavour};
use harness::suite::{any, ours};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{id, ips, plain};

const CALLS: &str = include_str!("../fixtures/cni-calls-containerd.jsonl");

pub fn trials() -> Vec<Trial> {
    vec![
        any("recorded_calls_succeed_in_their_order", recorded_calls_succeed_in_their_order),
        ours("every_version_gets_its_own_shape", every_version_gets_its_own_shape),
        any("version_lists_what_is_spoken", version_lists_what_is_spoken),
        ours("loopback_is_set_up_as_the_reference_does", loopback_is_set_up_as_the_reference_does),
        ours("a_result_of_another_plugin_passes_through", a_result_of_another_plugin_passes_through),
        ours("results_name_the_pod_and_the_mtu", results_name_the_pod_and_the_mtu),
    ]
}

/// A recorded call of the bridge becomes ours in bridge mode. portmap stays the reference's, fed with
/// our result, where Debian's build speaks the version.
fn recorded_calls_succeed_in_their_order(node: &Node) {
    node.install_reference();
    if flavour() == Flavour::Reference {
        node.install(Path::new("/usr/lib/cni/loopback"), "loopback");
    }
    let mut pods: HashMap<String, Namespace> = HashMap::new();
    let mut results: HashMap<String, Value> = HashMap::new();
    for line in CALLS.lines() {
        let recorded: Value = serde_json::from_str(line).expect("a recorded call");
        let version = &recorded["stdin"]["cniVersion"];
        if version == "1.1.0" && (recorded["plugin"] == "portmap" || flavour() == Flavour::Reference) {
            continue;
        }
        let netns = recorded["env"]["CNI_NETNS"].as_str().expect("a path");
        if let Some(name) = netns.strip_prefix("/var/run/netns/") {
            pods.entry(name.to_owned()).or_insert_with(|| node.namespace(name));
        }
        let id = recorded["env"]["CNI_CONTAINERID"].as_str().expect("an id").to_owned();
        let answer = replay(&recorded, results.get(&id));
        assert!(answer.ok(), "{} of {}: {answer:?}", recorded["env"]["CNI_COMMAND"], recorded["plugin"]);
        if recorded["env"]["CNI_COMMAND"] != "ADD" {
            assert_eq!(answer.stdout.trim(), "", "only ADD answers: {recorded}");
            continue;
        }
        let result = answer.success();
        same_shape(&result, &recorded["stdout"]);
        if recorded["plugin"] == "bridge" {
            results.insert(id, result);
        }
    }
    let kept = results.len();
    let expected = if flavour() == Flavour::Ours { 2 } else { 1 };
    assert_eq!(kept, expected, "pods that were added");
    // The last recorded DEL is web2's; web's second sandbox still runs.
    let left = look::leases("refnet");
    assert_eq!(left.len(), 1, "leases: {left:?}");
}

fn replay(recorded: &Value, previous: Option<&Value>) -> Answer {
    let mut stdin = recorded["stdin"].clone();
    let mut plugin = recorded["plugin"].as_str().expect("a plugin").to_owned();
    if plugin == "bridge" && flavour() == Flavour::Ours {
        plugin = "nodeplug-cni".to_owned();
        stdin["type"] = json!(plugin);
        stdin["mode"] = json!("bridge");
    }
    if let (Some(previous), true) = (previous, stdin["prevResult"].is_object()) {
        let mut previous = harness::runtime::as_previous(previous);
        previous["cniVersion"] = stdin["cniVersion"].clone();
        stdin["prevResult"] = previous;
    }
    let env = recorded["env"].as_object().expect("an environment");
    let env = env.iter().map(|(k, v)| (k.clone(), v.as_str().expect("text").to_owned()));
    Call { plugin, env: env.collect(), stdin: compact(stdin) }.run()
}

/// Values differ from node to node; names of keys, counts and what is fixed do not.
fn same_shape(result: &Value, recorded: &Value) {
    assert_eq!(result["cniVersion"], recorded["cniVersion"], "{result}");
    let count = |v: &Value, key: &str| v[key].as_array().map_or(0, Vec::len);
    for key in ["interfaces", "ips", "routes"] {
        assert_eq!(count(result, key), count(recorded, key), "{key} of {result}, recorded {recorded}");
    }
    let last = |v: &Value| v["interfaces"].as_array().and_then(|l| l.last().cloned()).unwrap_or_default();
    assert_eq!(last(result)["name"], last(recorded)["name"], "{result}");
    assert_eq!(last(result)["sandbox"], last(recorded)["sandbox"], "{result}");
    assert_eq!(result["ips"][0]["interface"], recorded["ips"][0]["interface"], "{result}");
    assert_eq!(result["ips"][0]["gateway"], recorded["ips"][0]["gateway"], "{result}");
}

fn every_version_gets_its_own_shape(node: &Node) {
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let mut config = plain("routed");
        config["cniVersion"] = json!(version);
        let runtime = Runtime::new(config);
        let (pod, id) = (node.pod(), id(version));
        let result = runtime.added(&id, &pod);
        assert_eq!(result["cniVersion"], version, "{result}");
        match version {
            "0.1.0" | "0.2.0" => {
                let ip = result["ip4"]["ip"].as_str().unwrap_or_default();
                assert!(ip.starts_with("10.66.0."), "{version}: {result}");
                assert!(result.get("ips").is_none() && result.get("interfaces").is_none(), "{result}");
            }
            "0.3.0" | "0.3.1" | "0.4.0" => assert_eq!(result["ips"][0]["version"], "4", "{result}"),
            _ => assert!(result["ips"][0].get("version").is_none(), "{version}: {result}"),
        }
        let eth0 = &result["interfaces"][1];
        let has_mtu = eth0["mtu"].as_u64().is_some();
        assert_eq!(has_mtu, version == "1.1.0", "mtu came with 1.1.0: {version}: {result}");
        if !matches!(version, "0.1.0" | "0.2.0" | "0.3.0" | "0.3.1") {
            runtime.check(&id, &pod, &result).success();
        }
        assert!(runtime.del(&id, &pod, &result).ok(), "DEL of {version}");
        look::assert_nothing_left(version);
    }
}

fn version_lists_what_is_spoken(node: &Node) {
    node.install_reference();
    let runtime = Runtime::new(plain("bridge"));
    let call = runtime.call("VERSION", "", "", None);
    let call = ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS", "CNI_PATH"]
        .into_iter()
        .fold(call, Call::without);
    let answer = call.stdin(br#"{"cniVersion":"1.0.0"}"#).run().success();
    let spoken = answer["supportedVersions"].as_array().expect("a list").clone();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        assert!(spoken.contains(&json!(version)), "{version} in {answer}");
    }
    let newest = spoken.contains(&json!("1.1.0"));
    assert_eq!(newest, flavour() == Flavour::Ours, "{answer}");
    assert!(answer["cniVersion"].is_string(), "{answer}");
}

fn loopback_is_set_up_as_the_reference_does(node: &Node) {
    let config = json!({"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"});
    let runtime = Runtime::new(config.clone());
    let (pod, id) = (node.pod(), id("lo"));
    let call = |command: &str| runtime.call(command, &id, pod.name(), None).env("CNI_IFNAME", "lo");
    let result = call("ADD").run().success();
    node.install(Path::new("/usr/lib/cni/loopback"), "loopback");
    let other = node.pod();
    let reference = runtime.call("ADD", &id, other.name(), None).env("CNI_IFNAME", "lo").run().success();
    let text = result.to_string().replace(pod.name(), other.name());
    let mut same: Value = serde_json::from_str(&text).unwrap();
    // Required by this version of the specification, and left out by the reference's loopback.
    same["ips"].as_array_mut().unwrap().iter_mut().for_each(|ip| {
        ip.as_object_mut().unwrap().remove("version");
    });
    assert_eq!(same, reference);
    node.install(&harness::node::our_binary(), "loopback");
    let mut newer = config;
    newer["cniVersion"] = json!("1.0.0");
    let newer = Runtime::new(newer);
    let check = |p: &Value| newer.call("CHECK", &id, pod.name(), Some(p)).env("CNI_IFNAME", "lo").run();
    let mut previous = result.clone();
    previous["cniVersion"] = json!("1.0.0");
    previous["ips"].as_array_mut().unwrap().iter_mut().for_each(|ip| {
        ip.as_object_mut().unwrap().remove("version");
    });
    check(&previous).success();
    pod.tool(&["ip", "link", "set", "lo", "down"]);
    check(&previous).refused(102);
    pod.tool(&["ip", "link", "set", "lo", "up"]);
    assert!(call("DEL").run().ok());
    assert!(call("DEL").env("CNI_NETNS", "").run().ok(), "the second DEL");
    assert!(look::records().is_empty(), "loopback keeps no record");
}

/// With a prevResult and nothing to do, the plugin is a link of a chain and changes nothing.
fn a_result_of_another_plugin_passes_through(node: &Node) {
    let config = json!({"cniVersion": "1.0.0", "name": "chain", "type": "nodeplug-cni"});
    let runtime = Runtime::new(config);
    let pod = node.pod();
    let previous = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": pod.name()}],
        "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["10.9.0.53"]},
    });
    let answer = runtime.call("ADD", &id("chain"), pod.name(), Some(&previous)).run().success();
    assert_eq!(answer, previous);
    look::assert_nothing_left("after a pass-through");
}

fn results_name_the_pod_and_the_mtu(node: &Node) {
    let _outside = node.outside();
    tool(&["ip", "link", "set", "up0", "mtu", "1420"]);
    for mode in crate::networks::MODES {
        let runtime = Runtime::new(plain(mode));
        let (pod, id) = (node.pod(), id(mode));
        let result = runtime.added(&id, &pod);
        assert_eq!(look::mtu(&pod, "eth0"), Some(1420), "{mode}: the MTU follows the default route's");
        let interfaces = result["interfaces"].as_array().unwrap();
        assert_eq!(interfaces.last().unwrap()["mtu"], 1420, "{mode}: {result}");
        let host = crate::networks::host_end(&result);
        let link = look::ip(&["-d", "link", "show", "dev", &host]);
        assert_eq!(link[0]["ifalias"], "default/web", "{mode}: {link:?}");
        assert_eq!(look::addresses(&pod, "eth0").len(), ips(&result).len(), "{mode}");
        assert!(runtime.del(&id, &pod, &result).ok());
    }
}
