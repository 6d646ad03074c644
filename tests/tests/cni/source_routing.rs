//! `sbr`: answers leave by the interface that the question came in by.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use harness::call::{Answer, tool};
use harness::kernel::trace::{self, End};
use harness::look;
use harness::node::{Namespace, Node, REFERENCE, our_binary};
use harness::runtime::{Flavour, Runtime};
use harness::suite::ours;
use harness::traffic::{Echo, Protocol, ask};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{MODES, full, id, ips, network};

const CHAINED: &str = "/var/lib/nodeplug/cni/chained";
/// The pod's addresses on its second interface.
const OWN: [&str; 2] = ["10.77.0.5", "fd77::5"];

pub fn trials() -> Vec<Trial> {
    vec![
        ours("answers_leave_by_the_interface_that_the_question_came_in_by", answers_find_back),
        ours("a_second_interface_of_our_own_is_routed_by_source", of_our_own),
        ours("rules_and_routes_are_the_references_and_each_undoes_the_other", as_the_reference),
        ours("a_rule_or_route_that_is_gone_is_named", missed),
        ours("routing_by_source_killed_at_any_step_leaves_no_rule", killed),
        ours("routing_by_source_that_fails_at_any_step_changes_nothing", failing),
        ours("routing_by_source_that_is_refused_changes_nothing", refused),
        ours("source_routing_of_a_pod_that_is_gone_needs_no_undoing", gone),
    ]
}

fn sbr(keys: &Value) -> Runtime {
    let mut config = json!({"cniVersion": "1.0.0", "name": "second", "type": "sbr"});
    for (key, value) in keys.as_object().expect("keys") {
        config[key] = value.clone();
    }
    Runtime::of(Flavour::Ours, config)
}

/// A call for the pod's second interface.
fn call(runtime: &Runtime, verb: &str, id: &str, netns: &str, previous: Option<&Value>) -> Answer {
    runtime.call(verb, id, netns, previous).env("CNI_IFNAME", "net1").run()
}

/// A pod on two cables, each to a router with a client behind it that the other router does not know. The
/// default route leads to the first.
struct Pod {
    inside: Namespace,
    routers: [Namespace; 2],
    previous: Value,
}

/// The clients, by router and family.
const CLIENTS: [[&str; 2]; 2] = [["198.51.100.1", "2001:db8:a::1"], ["203.0.113.1", "2001:db8:b::1"]];

fn two_cables(node: &Node, name: &str) -> Pod {
    let pod = node.pod();
    let routers = [0, 1].map(|n| node.namespace(&format!("{name}-router{n}")));
    for (n, (router, link)) in routers.iter().zip(["eth0", "net1"]).enumerate() {
        let net = 66 + 11 * n;
        for namespace in [&pod, router] {
            namespace.tool(&["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"]);
            namespace.tool(&["ip", "link", "set", "lo", "up"]);
        }
        pod.tool(&[
            "ip",
            "link",
            "add",
            link,
            "type",
            "veth",
            "peer",
            "name",
            "pod0",
            "netns",
            router.name(),
        ]);
        for (namespace, link, host) in [(&pod, link, 5), (router, "pod0", 1)] {
            namespace.tool(&["ip", "addr", "add", &format!("10.{net}.0.{host}/24"), "dev", link]);
            namespace.tool(&["ip", "addr", "add", &format!("fd{net}::{host}/64"), "dev", link, "nodad"]);
            namespace.tool(&["ip", "link", "set", link, "up"]);
        }
        for client in CLIENTS[n] {
            router.tool(&["ip", "addr", "add", client, "dev", "lo"]);
        }
    }
    pod.tool(&["ip", "route", "add", "default", "via", "10.66.0.1"]);
    pod.tool(&["ip", "-6", "route", "add", "default", "via", "fd66::1"]);
    pod.tool(&["ip", "route", "add", "10.99.0.0/16", "via", "10.77.0.1"]);
    let previous = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "br1"}, {"name": "net1", "sandbox": pod.name()}],
        "ips": [
            {"interface": 1, "address": "10.77.0.5/24", "gateway": "10.77.0.1"},
            {"interface": 1, "address": "fd77::5/64", "gateway": "fd77::1"},
        ],
        "routes": [{"dst": "10.99.0.0/16", "gw": "10.77.0.1"}],
    });
    Pod { inside: pod, routers, previous }
}

impl Pod {
    /// Whether the client behind a router has an answer from the pod's address on that cable.
    fn answers(&self, router: usize, family: usize) -> Result<IpAddr, String> {
        let own = [["10.66.0.5", "fd66::5"], OWN][router][family].parse().expect("an address");
        let client: IpAddr = CLIENTS[router][family].parse().expect("an address");
        let server = Echo::inside(&self.inside, own);
        // The client's own address is the source, as it would be behind the router.
        let prefix = if family == 0 { "10." } else { "fd" };
        let flag = ["-4", "-6"][family];
        let route = look::ip_in(&self.routers[router], &[flag, "route", "show", "dev", "pod0"]);
        assert!(route.iter().any(|r| r["dst"].as_str().is_some_and(|d| d.starts_with(prefix))), "{route:?}");
        let destination = own.to_string();
        let source = client.to_string();
        let set = [flag, "route", "replace", &destination, "dev", "pod0", "src", &source];
        self.routers[router].tool(&[&["ip"], &set[..]].concat());
        ask(&self.routers[router], Protocol::Tcp, server.address)
    }

    /// Rules and routes, but for what lists as it comes.
    fn routing(&self) -> Vec<String> {
        let mut all = Vec::new();
        for flag in ["-4", "-6"] {
            all.extend(self.inside.tool(&["ip", flag, "rule"]).lines().map(|l| format!("rule {l}")));
            let routes = self.inside.tool(&["ip", flag, "route", "show", "table", "all"]);
            // The order in a table says nothing, and the link-local addresses are of the MAC.
            let mut routes: Vec<String> = routes
                .lines()
                .filter(|l| !l.contains("table local"))
                .map(|l| format!("route {}", l.trim()))
                .collect();
            routes.sort();
            all.extend(routes);
        }
        all
    }

    fn rules(&self) -> Vec<String> {
        self.routing()
            .into_iter()
            .filter(|l| l.contains("rule") && l.contains("from 10") || l.contains("from fd"))
            .collect()
    }
}

#[track_caller]
fn nothing_kept(when: &str) {
    for folder in ["sbr", "nodeplug-cni"] {
        let files = fs::read_dir(Path::new(CHAINED).join(folder)).into_iter().flatten().flatten();
        let left: Vec<_> = files.map(|f| f.path()).collect();
        assert!(left.is_empty(), "{when}: {left:?}");
    }
}

fn answers_find_back(node: &Node) {
    node.install(&our_binary(), "sbr");
    let id = id("two");
    for (n, keys) in
        [json!({}), json!({"table": 7, "addSourceHints": true}), json!({"sbr": true})].iter().enumerate()
    {
        let pod = two_cables(node, &format!("n{n}"));
        for family in [0, 1] {
            assert!(pod.answers(0, family).is_ok(), "the first cable has the default route");
            assert!(pod.answers(1, family).is_err(), "without a rule, the answer leaves by the first cable");
        }
        let mut runtime = sbr(keys);
        if keys.get("sbr").is_some() {
            runtime.config["type"] = json!("nodeplug-cni");
        }
        let result = call(&runtime, "ADD", &id, pod.inside.name(), Some(&pod.previous)).success();
        assert_eq!(result["ips"], pod.previous["ips"], "{keys}");
        for router in [0, 1] {
            for family in [0, 1] {
                let seen = pod.answers(router, family);
                let client: IpAddr = CLIENTS[router][family].parse().unwrap();
                assert_eq!(
                    seen,
                    Ok(client),
                    "{keys}: router {router}, family {family}: {:#?}",
                    pod.routing()
                );
            }
        }
        call(&runtime, "CHECK", &id, pod.inside.name(), Some(&result)).success();
        assert_eq!(pod.rules().len(), 2, "{:?}", pod.rules());
        for turn in ["first", "second"] {
            assert!(call(&runtime, "DEL", &id, pod.inside.name(), Some(&result)).ok(), "{turn}");
            assert_eq!(pod.rules(), [""; 0], "{turn}");
        }
        for family in [0, 1] {
            assert!(pod.answers(0, family).is_ok(), "the first cable is as it was");
        }
        nothing_kept(&keys.to_string());
    }
}

/// Our plugin makes both interfaces, and routes the second by source itself, or `sbr` behind it does.
fn of_our_own(node: &Node) {
    node.install(&our_binary(), "sbr");
    let outside = node.outside();
    // A new bridge's link-local address is tentative for a second or two, and asks for no neighbour.
    tool(&["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"]);
    outside.tool(&["ip", "route", "add", "10.0.0.0/8", "via", "192.0.2.1"]);
    outside.tool(&["ip", "-6", "route", "add", "fd00::/8", "via", "2001:db8:ff::1"]);
    for mode in MODES {
        for chained in [false, true] {
            let when = format!("{mode}, chained: {chained}");
            let (pod, id) = (node.pod(), id("both"));
            let first = Runtime::new(full(mode));
            let eth0 = first.added(&id, &pod);
            let mut config = network(mode, &["10.77.0.0/24", "fd77::/64"]);
            config["name"] = json!("second");
            config["ipam"]["routes"] = json!([{"dst": "10.99.0.0/16"}]);
            if mode == "bridge" {
                config["bridge"] = json!("br1");
            }
            if !chained {
                config["sbr"] = json!(true);
            }
            let second = Runtime::new(config);
            let mut net1 = call(&second, "ADD", &id, pod.name(), None).success();
            let behind = sbr(&json!({"cniVersion": "1.1.0"}));
            if chained {
                net1 = call(&behind, "ADD", &id, pod.name(), Some(&net1)).success();
                call(&behind, "CHECK", &id, pod.name(), Some(&net1)).success();
            }
            call(&second, "CHECK", &id, pod.name(), Some(&net1)).success();
            first.check(&id, &pod, &eth0).success();
            for (family, (own, far)) in ips(&net1).iter().zip(["192.0.2.2", "2001:db8:ff::2"]).enumerate() {
                let flag = ["-4", "-6"][family];
                let own = own.to_string();
                let route = look::ip_in(&pod, &[flag, "route", "get", far, "from", &own]);
                assert_eq!(route[0]["dev"], "net1", "{when}: {route:?}");
                let plain = look::ip_in(&pod, &[flag, "route", "get", far]);
                assert_eq!(plain[0]["dev"], "eth0", "{when}: {plain:?}");
                let server = Echo::inside(&pod, own.parse().unwrap());
                let seen = ask(&outside, Protocol::Tcp, server.address);
                assert_eq!(seen, Ok(far.parse().unwrap()), "{when}: {own}");
            }
            let table = pod.tool(&["ip", "route", "show", "table", "100"]);
            assert!(
                table.contains("10.99.0.0/16") && table.contains("default via 10.77.0.1"),
                "{when}: {table}"
            );
            if chained {
                assert!(call(&behind, "DEL", &id, pod.name(), Some(&net1)).ok(), "{when}");
            }
            assert!(call(&second, "DEL", &id, pod.name(), Some(&net1)).ok(), "{when}");
            let rules = [pod.tool(&["ip", "rule"]), pod.tool(&["ip", "-6", "rule"])].concat();
            assert!(!rules.contains("from 10") && !rules.contains("from fd"), "{when}: {rules}");
            // The other interface is as it was, and has its own DEL.
            first.check(&id, &pod, &eth0).success();
            assert!(first.del(&id, &pod, &eth0).ok(), "{when}");
            look::assert_nothing_left(&when);
            nothing_kept(&when);
        }
    }
}

fn as_the_reference(node: &Node) {
    let reference = Path::new(REFERENCE).join("sbr");
    let install = |ours: bool| {
        let program = if ours { our_binary() } else { reference.clone() };
        node.install(&program, "sbr");
    };
    let (runtime, id) = (sbr(&json!({})), id("same"));
    let mut seen = Vec::new();
    for (n, (adds, deletes)) in
        [(true, true), (true, false), (false, true), (false, false)].into_iter().enumerate()
    {
        let when = format!("ours adds: {adds}, ours deletes: {deletes}");
        let pod = two_cables(node, &format!("r{n}"));
        install(adds);
        let mut result = call(&runtime, "ADD", &id, pod.inside.name(), Some(&pod.previous)).success();
        let routing = pod.routing();
        install(true);
        call(&runtime, "CHECK", &id, pod.inside.name(), Some(&result)).success();
        install(deletes);
        assert!(call(&runtime, "DEL", &id, pod.inside.name(), Some(&result)).ok(), "{when}");
        assert_eq!(pod.rules(), [""; 0], "{when}");
        install(true);
        assert!(call(&runtime, "DEL", &id, pod.inside.name(), Some(&result)).ok(), "{when}");
        nothing_kept(&when);
        result["interfaces"][1]["sandbox"] = json!("POD");
        seen.push((result, routing));
    }
    let (ours, theirs) = (&seen[0], &seen[2]);
    assert_eq!(ours, theirs);
    assert!(seen.windows(2).all(|w| w[0] == w[1]), "{seen:#?}");
}

fn missed(node: &Node) {
    node.install(&our_binary(), "sbr");
    let (runtime, id) = (sbr(&json!({})), id("missed"));
    let pod = two_cables(node, "missed");
    let result = call(&runtime, "ADD", &id, pod.inside.name(), Some(&pod.previous)).success();
    let check = || call(&runtime, "CHECK", &id, pod.inside.name(), Some(&result));
    check().success();
    let cases: [(&[&str], &[&str], &str); 4] = [
        (&["rule", "del", "from", OWN[0]], &["rule", "add", "from", OWN[0], "lookup", "100"], OWN[0]),
        (
            &["-6", "rule", "del", "from", OWN[1]],
            &["-6", "rule", "add", "from", OWN[1], "lookup", "101"],
            OWN[1],
        ),
        (
            &["route", "del", "default", "table", "100"],
            &["route", "add", "default", "via", "10.77.0.1", "table", "100"],
            "the default route via 10.77.0.1",
        ),
        (
            &["-6", "route", "del", "default", "table", "101"],
            &["-6", "route", "add", "default", "via", "fd77::1", "table", "101"],
            "the default route via fd77::1",
        ),
    ];
    for (spoil, mend, said) in cases {
        pod.inside.tool(&[&["ip"], spoil].concat());
        let answer = check();
        answer.refused(102);
        assert!(answer.message().contains(said), "{said}: {}", answer.message());
        // Without the other interface's route there is no way to a gateway that was on the link.
        let mended = pod.inside.try_tool(&[&["ip"], mend].concat());
        if !mended.ok() {
            let link: &[&str] = &["dev", "net1", "onlink"];
            pod.inside.tool(&[&["ip"], mend, link].concat());
        }
        check().success();
    }
    assert!(call(&runtime, "DEL", &id, pod.inside.name(), Some(&result)).ok());
}

fn killed(node: &Node) {
    node.install(&our_binary(), "sbr");
    let (runtime, id) = (sbr(&json!({})), id("killed"));
    let pod = two_cables(node, "killed");
    let net1 = || {
        // The routes go with the interface: a new one has them.
        for words in [
            &["ip", "link", "set", "net1", "down"][..],
            &["ip", "addr", "replace", "10.77.0.5/24", "dev", "net1"],
            &["ip", "addr", "replace", "fd77::5/64", "dev", "net1", "nodad"],
            &["ip", "link", "set", "net1", "up"],
            &["ip", "route", "replace", "10.99.0.0/16", "via", "10.77.0.1"],
        ] {
            pod.inside.tool(words);
        }
    };
    for n in 0..2000 {
        net1();
        let add = runtime.call("ADD", &id, pod.inside.name(), Some(&pod.previous)).env("CNI_IFNAME", "net1");
        let end = trace::kill_after(&add, n);
        let answer = call(&runtime, "DEL", &id, pod.inside.name(), None);
        assert!(answer.ok(), "{n}: {answer:?}");
        assert_eq!(pod.rules(), [""; 0], "killed after system call {n}");
        nothing_kept(&format!("killed after system call {n}"));
        if let End::Finished(answer) = end {
            assert!(answer.ok() && n > 20, "{n}: {answer:?}");
            return;
        }
    }
    panic!("a call that never ends");
}

/// What an ADD may meet a refusal at: files and sockets, not memory.
#[cfg(target_arch = "x86_64")]
const AMONG: [i64; 11] = [
    libc::SYS_openat,
    libc::SYS_write,
    libc::SYS_read,
    libc::SYS_linkat,
    libc::SYS_unlink,
    libc::SYS_mkdir,
    libc::SYS_socket,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_setns,
];

#[cfg(target_arch = "x86_64")]
fn failing(node: &Node) {
    node.install(&our_binary(), "sbr");
    let (runtime, id) = (sbr(&json!({})), id("failing"));
    let sorted = |pod: &Pod| {
        let mut all = pod.routing();
        all.sort();
        all
    };
    let mut pod = two_cables(node, "failing");
    let before = sorted(&pod);
    for n in 0..2000 {
        let path = pod.inside.name().to_owned();
        let add = runtime.call("ADD", &id, &path, Some(&pod.previous)).env("CNI_IFNAME", "net1");
        let (answer, failed) = trace::fail_nth(&add, &AMONG, n, libc::EIO);
        let Some(number) = failed else {
            assert!(answer.ok() && n > 10, "{n}: {answer:?}");
            return;
        };
        let when = format!("EIO for system call {number}, the {n}-th: {answer:?}");
        if answer.ok() {
            // Whatever went wrong did no harm: another pod for the next turn.
            call(&runtime, "CHECK", &id, &path, Some(&answer.success())).success();
            assert!(call(&runtime, "DEL", &id, &path, None).ok(), "{when}");
            pod = two_cables(node, &format!("failing{n}"));
        }
        if answer.message().contains("write the answer") {
            // Everything was done, and is taken back as by DEL: the routes go with the interface.
            assert_eq!(pod.rules(), [""; 0], "{when}");
            pod = two_cables(node, &format!("failing{n}"));
        }
        assert_eq!(sorted(&pod), before, "{when}");
        nothing_kept(&when);
    }
    panic!("a call that never ends");
}

#[cfg(not(target_arch = "x86_64"))]
fn failing(_node: &Node) {
    eprintln!("system calls are made to fail on x86_64 only");
}

fn refused(node: &Node) {
    node.install(&our_binary(), "sbr");
    let pod = two_cables(node, "refused");
    let before = pod.routing();
    let add = |keys: &Value, previous: &Value| {
        call(&sbr(keys), "ADD", &id("refused"), pod.inside.name(), Some(previous))
    };
    let mut bare = pod.previous.clone();
    bare["ips"] = json!([]);
    let answer = add(&json!({}), &bare);
    answer.refused(7);
    assert!(answer.message().contains("net1"), "{}", answer.message());
    add(&json!({"table": 254}), &pod.previous).refused(7);
    add(&json!({"tabel": 7}), &pod.previous).refused(2);
    // A route of somebody else's in the named table.
    pod.inside.tool(&["ip", "route", "add", "default", "via", "10.66.0.1", "table", "7"]);
    let answer = add(&json!({"table": 7}), &pod.previous);
    answer.refused(101);
    pod.inside.tool(&["ip", "route", "flush", "table", "7"]);
    let mut after = pod.routing();
    let mut before = before;
    after.sort();
    before.sort();
    assert_eq!(after, before);
    nothing_kept("after the refusals");
    // Without a name, a table that holds anything is passed over.
    pod.inside.tool(&["ip", "route", "add", "default", "via", "10.66.0.1", "table", "100"]);
    let result = add(&json!({}), &pod.previous).success();
    let tables: Vec<String> = pod.rules();
    assert!(
        tables.iter().any(|r| r.ends_with("101")) && tables.iter().any(|r| r.ends_with("102")),
        "{tables:?}"
    );
    assert!(call(&sbr(&json!({})), "DEL", &id("refused"), pod.inside.name(), Some(&result)).ok());
}

fn gone(node: &Node) {
    node.install(&our_binary(), "sbr");
    let (runtime, id) = (sbr(&json!({})), id("gone"));
    for what in ["link", "namespace", "not told"] {
        let pod = two_cables(node, &what.replace(' ', "-"));
        let result = call(&runtime, "ADD", &id, pod.inside.name(), Some(&pod.previous)).success();
        let path = pod.inside.name().to_owned();
        let answer = match what {
            "link" => {
                pod.inside.tool(&["ip", "link", "del", "net1"]);
                let answer = call(&runtime, "DEL", &id, &path, Some(&result));
                assert_eq!(pod.rules(), [""; 0], "the record has the addresses");
                answer
            }
            "namespace" => {
                drop(pod);
                call(&runtime, "DEL", &id, &path, Some(&result))
            }
            _ => {
                drop(pod);
                call(&runtime, "DEL", &id, "", None)
            }
        };
        assert!(answer.ok(), "{what}: {answer:?}");
        nothing_kept(what);
    }
}
