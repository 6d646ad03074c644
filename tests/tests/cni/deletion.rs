//! DEL succeeds whatever was lost, and takes everything away.

use std::fs;

use harness::look::{self, Snapshot};
use harness::node::{LEASES, Namespace, Node};
use harness::runtime::{Call, Flavour, Runtime, flavour};
use harness::suite::{any, ours};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{MODES, full, id, plain};

pub fn trials() -> Vec<Trial> {
    vec![
        any("add_then_del_leaves_the_node_as_it_was", add_then_del_leaves_the_node_as_it_was),
        ours("del_needs_no_namespace", del_needs_no_namespace),
        ours("del_needs_no_interface", del_needs_no_interface),
        ours("del_needs_no_configuration_of_the_add", del_needs_no_configuration_of_the_add),
        any("del_twice_succeeds", del_twice_succeeds),
        any("del_of_an_id_never_seen_succeeds", del_of_an_id_never_seen_succeeds),
        ours("del_needs_no_readable_input", del_needs_no_readable_input),
        ours("del_leaves_other_pods_alone", del_leaves_other_pods_alone),
    ]
}

/// What may stay: the base table and the bridge, which an earlier pod made, and notes about addresses
/// that were given out. All the rest is compared.
fn lasting(fact: &str) -> bool {
    let notes = fact.starts_with("file /var/lib/cni/networks/") || fact.starts_with("file /run/xtables");
    let bridge = fact.contains("cni0") || fact.contains("fe80::");
    !(notes || bridge)
}

fn add_then_del_leaves_the_node_as_it_was(node: &Node) {
    node.install_reference();
    for mode in MODES {
        let runtime = Runtime::new(if flavour() == Flavour::Ours { full(mode) } else { plain(mode) });
        let turn = |word: &str| {
            let (pod, id) = (node.pod(), id(word));
            let result = runtime.added(&id, &pod);
            let answer = runtime.del(&id, &pod, &result);
            assert!(answer.ok() && answer.stdout.trim().is_empty(), "{answer:?}");
        };
        turn("first");
        let before = Snapshot::take(lasting);
        turn("second");
        let difference = before.difference(&Snapshot::take(lasting));
        assert!(difference.is_empty(), "{mode}: {difference:#?}");
        look::assert_nothing_left(mode);
    }
}

/// Adds a pod, lets `lose` lose something, and expects the DEL that it gives back to leave nothing.
fn without(node: &Node, what: &str, lose: impl Fn(&Runtime, &str, Namespace, &Value) -> Call) {
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let (pod, id) = (node.pod(), id("gone"));
        let result = runtime.added(&id, &pod);
        let call = lose(&runtime, &id, pod, &result);
        let answer = call.run();
        assert!(answer.ok(), "{mode}, {what}: {answer:?}");
        assert_eq!(answer.stdout.trim(), "", "{mode}, {what}");
        look::assert_nothing_left(&format!("{mode}, {what}"));
        assert!(call.run().ok(), "{mode}, {what}: the second DEL");
    }
}

fn del_needs_no_namespace(node: &Node) {
    without(node, "CNI_NETNS missing", |runtime, id, pod, result| {
        pod.remove();
        runtime.call("DEL", id, "", Some(result)).without("CNI_NETNS")
    });
    without(node, "CNI_NETNS empty, pod alive", |runtime, id, pod, _| {
        // The namespace lives on: a process of the pod may still hold it.
        std::mem::forget(pod);
        runtime.call("DEL", id, "", None)
    });
    without(node, "CNI_NETNS empty, pod gone", |runtime, id, pod, _| {
        pod.remove();
        runtime.call("DEL", id, "", None)
    });
    without(node, "a dead path", |runtime, id, pod, result| {
        let path = pod.name().to_owned();
        pod.remove();
        runtime.call("DEL", id, &path, Some(result))
    });
    without(node, "a plain file", |runtime, id, pod, result| {
        pod.remove();
        fs::write("/run/netns/plain", "").unwrap();
        runtime.call("DEL", id, "/var/run/netns/plain", Some(result))
    });
    without(node, "another pod's namespace path", |runtime, id, pod, _| {
        pod.remove();
        runtime.call("DEL", id, "/proc/self/ns/mnt", None)
    });
}

fn del_needs_no_interface(node: &Node) {
    without(node, "eth0 deleted by hand", |runtime, id, pod, result| {
        pod.tool(&["ip", "link", "del", "eth0"]);
        let call = runtime.call("DEL", id, pod.name(), Some(result));
        std::mem::forget(pod);
        call
    });
    without(node, "no prevResult", |runtime, id, pod, _| {
        let call = runtime.call("DEL", id, pod.name(), None);
        std::mem::forget(pod);
        call
    });
    without(node, "the record lost", |runtime, id, pod, result| {
        fs::remove_dir_all("/var/lib/nodeplug").unwrap();
        let call = runtime.call("DEL", id, pod.name(), Some(result));
        std::mem::forget(pod);
        call
    });
    without(node, "the record unreadable", |runtime, id, pod, result| {
        for name in look::records() {
            fs::write(format!("{}/{name}", harness::node::RECORDS), "{").unwrap();
        }
        let call = runtime.call("DEL", id, pod.name(), Some(result));
        std::mem::forget(pod);
        call
    });
}

fn del_needs_no_configuration_of_the_add(node: &Node) {
    let other = |edit: fn(&mut Value)| {
        move |runtime: &Runtime, id: &str, pod: Namespace, _: &Value| {
            let mut config = runtime.config.clone();
            edit(&mut config);
            let call = Runtime::new(config).call("DEL", id, pod.name(), None);
            std::mem::forget(pod);
            call
        }
    };
    without(node, "another range", other(|c| c["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/16"}]])));
    without(
        node,
        "the other mode",
        other(|c| {
            let mode = if c["mode"] == "bridge" { "routed" } else { "bridge" };
            c["mode"] = json!(mode);
        }),
    );
    without(node, "no ipMasq", other(|c| c["ipMasq"] = json!(false)));
    without(node, "another dataDir", other(|c| c["ipam"]["dataDir"] = json!("/var/lib/elsewhere")));
    without(node, "no ipam", other(|c| drop(c.as_object_mut().unwrap().remove("ipam"))));
    without(node, "an older version", other(|c| c["cniVersion"] = json!("0.4.0")));
}

fn del_twice_succeeds(node: &Node) {
    node.install_reference();
    for mode in MODES {
        let runtime = Runtime::new(plain(mode));
        let (pod, id) = (node.pod(), id("twice"));
        let result = runtime.added(&id, &pod);
        for turn in ["first", "second"] {
            assert!(runtime.del(&id, &pod, &result).ok(), "{mode}: the {turn} DEL");
        }
        assert!(runtime.del_blind(&id).ok(), "{mode}: the DEL after the sandbox is removed");
        look::assert_nothing_left(mode);
    }
}

fn del_of_an_id_never_seen_succeeds(node: &Node) {
    node.install_reference();
    let runtime = Runtime::new(plain("bridge"));
    let pod = node.pod();
    assert!(runtime.call("DEL", &id("never"), pod.name(), None).run().ok());
    assert!(runtime.del_blind(&id("never")).ok());
}

/// The owner stands in the environment, and that is enough.
fn del_needs_no_readable_input(node: &Node) {
    for input in ["", "{", "not json", "[]", "{\"cniVersion\":\"9.9.9\"}"] {
        without(node, &format!("input `{input}`"), |runtime, id, pod, _| {
            let call = runtime.call("DEL", id, pod.name(), None).stdin(input.as_bytes());
            std::mem::forget(pod);
            call
        });
    }
}

fn del_leaves_other_pods_alone(node: &Node) {
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let (one, two) = (node.pod(), node.pod());
        let (first, second) = (id("one"), id("two"));
        let result = runtime.added(&first, &one);
        let other = runtime.added(&second, &two);
        assert!(runtime.del(&first, &one, &result).ok());
        runtime.check(&second, &two, &other).success();
        let leases = fs::read_dir(format!("{LEASES}/{}", crate::networks::NAME)).unwrap().count();
        assert!(leases > 0, "{mode}: the other's leases stay");
        assert!(runtime.del(&second, &two, &other).ok());
        look::assert_nothing_left(mode);
    }
}
