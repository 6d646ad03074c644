//! Another IPAM plugin holds the addresses: it is asked for them back whatever became of the configuration.

use std::fs;
use std::path::Path;

use harness::look;
use harness::node::{Node, PLUGINS, REFERENCE};
use harness::runtime::Runtime;
use harness::suite::ours;
use harness::traffic::{Echo, Protocol, ask};
use libtest_mimic::Trial;
use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};

use crate::networks::{MODES, NAME, full, id, ips, plain};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("a_delegate_without_routes_leaves_them_to_the_mode", without_routes),
        ours("del_asks_the_delegate_of_the_add_after_the_type_changed", after_a_change),
        ours("del_asks_the_delegate_of_the_add_without_input", without_input),
        ours("del_of_an_id_never_seen_needs_no_delegate", never_seen),
    ]
}

fn delegated(mode: &str) -> Value {
    let mut config = plain(mode);
    config["cniVersion"] = json!("1.0.0");
    config["ipam"]["type"] = json!("other-local");
    config
}

fn install(node: &Node) {
    node.install(&Path::new(REFERENCE).join("host-local"), "other-local");
}

fn without_routes(node: &Node) {
    install(node);
    let mut config = full("routed");
    config["cniVersion"] = json!("1.0.0");
    config["ipam"]["type"] = json!("other-local");
    config["ipam"].as_object_mut().unwrap().remove("routes");
    let runtime = Runtime::new(config);
    let (one, two) = (node.pod(), node.pod());
    let (first, second) = (id("one"), id("two"));
    let result = runtime.added(&first, &one);
    let other = runtime.added(&second, &two);
    for (family, destination) in [("-4", "0.0.0.0/0"), ("-6", "::/0")] {
        let routes = look::ip_in(&one, &[family, "route", "show", "default"]);
        assert_eq!(routes.len(), 1, "{family}: {routes:?}");
        assert!(routes[0]["gateway"].is_string(), "{family}: {routes:?}");
        let told = result["routes"].as_array().cloned().unwrap_or_default();
        assert!(told.iter().any(|r| r["dst"] == destination), "{destination} in {result}");
    }
    for address in ips(&other) {
        let server = Echo::inside(&two, address);
        let seen = ask(&one, Protocol::Tcp, server.address);
        assert!(seen.is_ok_and(|from| ips(&result).contains(&from)), "{address} is reached");
    }
    runtime.check(&first, &one, &result).success();
    assert!(runtime.del(&first, &one, &result).ok());
    assert!(runtime.del(&second, &two, &other).ok());
    look::assert_nothing_left("after both");
}

fn after_a_change(node: &Node) {
    install(node);
    for mode in MODES {
        for blind in [false, true] {
            let when = format!("{mode}, blind: {blind}");
            let mut config = delegated(mode);
            // Where the delegate keeps its leases only the configuration of the ADD tells.
            config["ipam"]["dataDir"] = json!("/var/lib/elsewhere");
            let folder = Path::new("/var/lib/elsewhere").join(NAME);
            let runtime = Runtime::new(config);
            let (pod, id) = (node.pod(), id("moved"));
            let result = runtime.added(&id, &pod);
            assert_eq!(look::leases_in(&folder).len(), 1, "{when}");
            let mut now = plain(mode);
            now["cniVersion"] = json!("1.0.0");
            let now = Runtime::new(now);
            let answer = if blind { now.del_blind(&id) } else { now.del(&id, &pod, &result) };
            assert!(answer.ok(), "{when}: {answer:?}");
            let held = look::leases_in(&folder);
            assert!(held.is_empty(), "{when}: the delegate still holds {held:?}");
            look::assert_nothing_left(&when);
        }
    }
}

fn without_input(node: &Node) {
    install(node);
    for mode in MODES {
        let runtime = Runtime::new(delegated(mode));
        let (pod, id) = (node.pod(), id("silent"));
        runtime.added(&id, &pod);
        assert_eq!(look::leases(NAME).len(), 1, "{mode}");
        let answer = runtime.call("DEL", &id, pod.name(), None).stdin(b"").run();
        assert!(answer.ok(), "{mode}: {answer:?}");
        look::assert_nothing_left(mode);
    }
}

/// A pod that was never added holds nothing; one that was waits until its plugin is there again.
fn never_seen(node: &Node) {
    for mode in MODES {
        let runtime = Runtime::new(delegated(mode));
        let (pod, never) = (node.pod(), id("never"));
        assert!(runtime.call("DEL", &never, pod.name(), None).run().ok(), "{mode}");
        let blind = runtime.del_blind(&never);
        assert!(blind.ok(), "{mode}: {blind:?}");
        install(node);
        let known = id("known");
        runtime.added(&known, &pod);
        let program = Path::new(PLUGINS).join("other-local");
        umount2(&program, MntFlags::MNT_DETACH).expect("take the program away");
        fs::remove_file(&program).expect("remove the file that it covered");
        let refused = runtime.del_blind(&known);
        assert!(!refused.ok() && refused.message().contains("other-local"), "{mode}: {refused:?}");
        assert_eq!(look::records().len(), 1, "{mode}: the record stays");
        install(node);
        assert!(runtime.del_blind(&known).ok(), "{mode}");
        look::assert_nothing_left(mode);
        umount2(&program, MntFlags::MNT_DETACH).expect("take the program away");
        fs::remove_file(&program).expect("remove the file that it covered");
    }
}
