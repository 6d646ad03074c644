//! Every error code, each with its cause.

use std::path::Path;
use std::process::Command;

use harness::call;
use harness::look;
use harness::node::{Node, PLUGINS};
use harness::runtime::{Call, Runtime};
use harness::suite::{any, ours};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{id, plain};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("code_1_is_a_version_not_spoken", code_1),
        ours("code_2_is_a_field_not_supported_and_names_it", code_2),
        ours("code_3_is_a_namespace_that_is_not_there", code_3),
        ours("code_4_names_all_that_is_missing_at_once", code_4),
        ours("code_5_is_a_file_that_cannot_be_written", code_5),
        ours("code_6_is_input_that_is_no_json", code_6),
        ours("code_7_is_a_configuration_that_cannot_be", code_7),
        ours("code_8_is_a_path_that_is_no_namespace", code_8),
        ours("code_100_is_the_kernel_saying_no", code_100),
        ours("code_101_is_an_interface_that_is_there_already", code_101),
        any("a_person_without_a_command_gets_words_on_stderr", no_command),
        ours("an_error_comes_in_the_version_that_was_asked", in_version),
    ]
}

#[track_caller]
fn refused(call: &Call, code: u64, names: &[&str]) {
    let answer = call.run();
    answer.refused(code);
    for name in names {
        assert!(answer.message().contains(name), "`{name}` in `{}`", answer.message());
    }
    look::assert_nothing_left("after a refusal");
}

fn add_of(node: &Node, config: Value) -> (harness::node::Namespace, Call) {
    let pod = node.pod();
    let call = Runtime::new(config).call("ADD", &id("e"), pod.name(), None);
    (pod, call)
}

fn code_1(node: &Node) {
    for version in ["9.9.9", "0.0.1", "1.2.0"] {
        let mut config = plain("routed");
        config["cniVersion"] = json!(version);
        let (_pod, call) = add_of(node, config);
        refused(&call, 1, &[version]);
    }
}

fn code_2(node: &Node) {
    let keys = [
        ("ipMasqBackend", json!("iptables")),
        ("vlan", json!(100)),
        ("vlanTrunk", json!([{"id": 5}])),
        ("preserveDefaultVlan", json!(true)),
    ];
    for (key, value) in keys {
        let mut config = plain("bridge");
        config[key] = value;
        let (_pod, call) = add_of(node, config);
        refused(&call, 2, &[key]);
    }
}

fn code_3(_node: &Node) {
    let runtime = Runtime::new(plain("routed"));
    let path = "/var/run/netns/cni-not-there";
    refused(&runtime.call("ADD", &id("e"), path, None), 3, &[path]);
}

fn code_4(node: &Node) {
    let (_pod, call) = add_of(node, plain("routed"));
    let bare = call.clone().without("CNI_CONTAINERID").without("CNI_NETNS").without("CNI_IFNAME");
    refused(&bare, 4, &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]);
    refused(&call.clone().env("CNI_COMMAND", "EXPLODE"), 4, &["CNI_COMMAND"]);
    for wrong in ["-abc", "a/b", "a b", "ü"] {
        refused(&call.clone().env("CNI_CONTAINERID", wrong), 4, &["CNI_CONTAINERID"]);
    }
    for wrong in ["a-name-of-16-byte", "a/b", "a:b", "a b", ".", ".."] {
        refused(&call.clone().env("CNI_IFNAME", wrong), 4, &["CNI_IFNAME"]);
    }
}

fn code_5(node: &Node) {
    std::fs::write("/run/a-file", "").unwrap();
    let mut config = plain("routed");
    config["ipam"]["dataDir"] = json!("/run/a-file");
    let (_pod, call) = add_of(node, config);
    refused(&call, 5, &["/run/a-file"]);
}

fn code_6(node: &Node) {
    let (_pod, call) = add_of(node, plain("routed"));
    for wrong in ["", "{", "null", "[]", "{\"cniVersion\":", "\u{feff}{}", "7"] {
        refused(&call.clone().stdin(wrong.as_bytes()), 6, &[]);
    }
}

fn code_7(node: &Node) {
    let cases: [(&str, Value, &str); 8] = [
        ("mode", json!("teleport"), "mode"),
        ("mtu", json!(-1), "mtu"),
        ("name", json!("../etc"), "name"),
        ("ipam", json!({"type": "host-local", "ranges": [[{"subnet": "10.66.0.0/33"}]]}), "10.66.0.0/33"),
        ("ipam", json!({"type": "host-local", "ranges": [[{"subnet": "10.66.0.0/31"}]]}), "10.66.0.0/31"),
        ("ipam", json!({"type": "host-local"}), "range"),
        (
            "ipam",
            json!({"type": "host-local", "ranges": [[{"subnet": "10.66.0.0/24", "rangeStart": "10.9.0.1"}]]}),
            "10.9.0.1",
        ),
        ("nonMasqueradeCIDRs", json!(["here"]), "nonMasqueradeCIDRs"),
    ];
    for (key, value, names) in cases {
        let mut config = plain("routed");
        config[key] = value;
        let (_pod, call) = add_of(node, config);
        refused(&call, 7, &[names]);
    }
}

fn code_8(node: &Node) {
    let runtime = Runtime::new(plain("routed"));
    std::fs::write("/run/netns/a-file", "").unwrap();
    for path in ["/var/run/netns/a-file", "/var/run/netns", "/proc/self/ns/mnt", "/dev/null"] {
        refused(&runtime.call("ADD", &id("e"), path, None), 8, &[path]);
    }
    // The plugin is called on this thread's node, so this is its own.
    let own = format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid());
    refused(&runtime.call("ADD", &id("e"), &own, None), 8, &[&own]);
    assert!(node.pod().tool(&["ip", "-j", "link"]).contains("lo"), "a namespace after these is usable");
}

/// Root without `CAP_NET_ADMIN`: the kernel refuses the first link.
fn code_100(node: &Node) {
    let (_pod, call) = add_of(node, plain("routed"));
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
    command.arg(Path::new(PLUGINS).join("nodeplug-cni")).env_clear().envs(call.env.iter().cloned());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let answer = call::run(&mut command, &call.stdin);
    answer.refused(100);
    look::assert_nothing_left("after the kernel said no");
}

fn code_101(node: &Node) {
    for mode in crate::networks::MODES {
        let runtime = Runtime::new(plain(mode));
        let (pod, id) = (node.pod(), id(mode));
        let result = runtime.added(&id, &pod);
        let again = runtime.add(&id, &pod);
        again.refused(101);
        runtime.check(&id, &pod, &result).success();
        assert_eq!(look::leases(crate::networks::NAME).len(), 1, "{mode}: the first ADD keeps its lease");
        assert!(runtime.del(&id, &pod, &result).ok());
        pod.tool(&["ip", "link", "add", "eth0", "type", "bridge"]);
        runtime.add(&id, &pod).refused(101);
        look::assert_nothing_left("after somebody else's eth0 was met");
        assert!(pod.tool(&["ip", "link", "show", "eth0"]).contains("eth0"), "somebody else's eth0 stays");
    }
}

fn no_command(node: &Node) {
    node.install_reference();
    let call = Runtime::new(plain("bridge")).call("", "", "", None).without("CNI_COMMAND");
    let answer = call.stdin(b"").run();
    assert!(answer.ok(), "{answer:?}");
    assert_eq!(answer.stdout, "", "nothing but an answer goes to standard output");
    assert!(!answer.stderr.is_empty(), "words for a person");
}

fn in_version(_node: &Node) {
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let mut config = plain("routed");
        config["cniVersion"] = json!(version);
        let runtime = Runtime::new(config);
        let answer = runtime.call("ADD", &id("e"), "/var/run/netns/none", None).run();
        answer.refused(3);
        assert_eq!(answer.json.unwrap()["cniVersion"], version);
    }
}
