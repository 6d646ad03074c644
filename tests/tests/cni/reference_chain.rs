//! A conflist that was written for the reference's plugins, unchanged, on theirs, on ours under their names, and on
//! mixtures of both: the same results, the same traffic, and nothing left of a pod.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use harness::chain::{Chain, NAMES, Plugins};
use harness::look::{self, Snapshot};
use harness::node::{Namespace, Node};
use harness::runtime::{Flavour, flavour};
use harness::suite::{any, ours};
use harness::traffic::{Echo, Protocol, ask, ask_here};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{NODE, OUTSIDE, id, ips};

pub fn trials() -> Vec<Trial> {
    vec![
        any("a_conflist_of_the_reference_does_what_it_says", |_| the_reference()),
        any("a_conflist_of_the_reference_runs_on_ours", |_| same_as_the_reference("all")),
        any("a_conflist_runs_with_our_bridge_among_the_references", |_| same_as_the_reference("bridge")),
        any("a_conflist_runs_with_the_references_bridge_among_ours", |_| same_as_the_reference("no bridge")),
        any("a_conflist_runs_with_our_ipam_among_the_references", |_| same_as_the_reference("ipam")),
        any("a_conflist_runs_with_the_references_ipam_among_ours", |_| same_as_the_reference("no ipam")),
        any("a_conflist_runs_on_ours_and_the_references_by_turns", |_| same_as_the_reference("turns")),
        ours("pods_of_the_reference_are_checked_and_deleted_by_ours", |node| {
            // Without a record of its own, a CHECK of ours looks for what ours would have made in their place.
            handed_over(node, "none", "all", &["portmap", "firewall"]);
        }),
        ours("pods_of_a_mixture_are_checked_and_deleted_by_ours", |node| {
            handed_over(node, "turns", "all", &[]);
        }),
        ours("what_the_reference_cannot_delete_of_ours_goes_with_gc", given_back),
    ]
}

/// Names of mixtures, and which plugins of each are ours.
const MIXTURES: [(&str, &[&str]); 7] = [
    ("none", &[]),
    ("all", &NAMES),
    ("bridge", &["bridge"]),
    ("no bridge", &["host-local", "tuning", "portmap", "bandwidth", "firewall"]),
    ("ipam", &["host-local"]),
    ("no ipam", &["bridge", "tuning", "portmap", "bandwidth", "firewall"]),
    ("turns", &["bridge", "portmap", "firewall"]),
];

fn is_ours(mixture: &str, plugin: &str) -> bool {
    let (_, ours) = MIXTURES.iter().find(|(name, _)| *name == mixture).expect("a mixture's name");
    flavour() == Flavour::Ours && ours.contains(&plugin)
}

/// What the reference's documentation shows, both families.
fn conflist() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "10.66.0.0/24"}], [{"subnet": "fd66::/64"}]],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            },
            {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400},
            {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
            {"type": "bandwidth", "capabilities": {"bandwidth": true}},
            {"type": "firewall"},
        ],
    })
}

/// The port of the node, and the pod's behind it.
const PORTS: (u16, u16) = (8080, 9090);
/// To the pod and from it, in bits a second.
const RATES: (u64, u64) = (20_000_000, 10_000_000);

fn offered() -> Value {
    let one = |protocol: &str| json!({"hostPort": PORTS.0, "containerPort": PORTS.1, "protocol": protocol});
    json!({
        "portMappings": [one("tcp"), one("udp")],
        "bandwidth": {
            "ingressRate": RATES.0, "ingressBurst": 1_000_000, "egressRate": RATES.1, "egressBurst": 1_000_000,
        },
    })
}

fn chain(mixture: &str) -> Chain {
    let plugins = Plugins::mixed(mixture, |plugin| is_ours(mixture, plugin));
    Chain::new(conflist(), &plugins).offering(offered())
}

/// What a conflist came to.
#[derive(Debug, Clone)]
struct Seen {
    /// The result, without names and addresses that differ from ADD to ADD.
    result: Value,
    /// Who was seen by whom, or "no answer", and what the pod is like.
    facts: BTreeMap<String, String>,
    /// What was there after the first pods and not before, or the other way round, and does not belong to the network.
    left: Vec<String>,
}

static THEIRS: LazyLock<Seen> = LazyLock::new(|| seen("none"));

/// Runs the conflist on a node of its own.
fn seen(mixture: &'static str) -> Seen {
    let run = thread::spawn(move || on_node(&Node::enter(), mixture));
    run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn on_node(node: &Node, mixture: &str) -> Seen {
    let outside = node.outside();
    let chain = chain(mixture);
    let before = snapshot();
    let round = |round: &str, work: &dyn Fn(&Pod, &Pod) -> BTreeMap<String, String>| {
        let one = Pod::new(node, &chain, &id(round));
        // The port is the first one's. Without a bandwidth the reference's CHECK dies of a null pointer.
        let without = chain.offering(json!({"bandwidth": chain.offered["bandwidth"]}));
        let two = Pod::new(node, &without, &id(&format!("{round}2")));
        let facts = work(&one, &two);
        for pod in [&two, &one] {
            pod.deleted_by(mixture, &pod.chain);
        }
        let result = normal(&one.result);
        drop((one, two));
        (facts, result, snapshot())
    };
    let (facts, result, after) = round("first", &|one, two| facts(&outside, one, two));
    let (_, _, later) = round("later", &|_, _| BTreeMap::new());
    let more = after.difference(&later);
    assert!(more.is_empty(), "{mixture}: each pod leaves something: {more:#?}");
    Seen { result, facts, left: left(&before, &after) }
}

struct Pod {
    chain: Chain,
    space: Namespace,
    id: String,
    result: Value,
    ips: Vec<IpAddr>,
}

impl Pod {
    fn new(node: &Node, chain: &Chain, id: &str) -> Self {
        let space = node.pod();
        // The loopback plugin has run before.
        space.tool(&["ip", "link", "set", "lo", "up"]);
        let result = chain.added(id, &space);
        Self { chain: chain.clone(), ips: ips(&result), space, id: id.to_owned(), result }
    }

    /// The reference's IPv6 addresses, the host's among them, are first looked for on the wire.
    fn settled(&self) {
        let tentative = ["-6", "addr", "show", "tentative"];
        let here = || look::ip(&tentative).into_iter().chain(look::ip_in(&self.space, &tentative));
        while here().any(|link| link["ifname"].is_string()) {
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The name of its veth on the node.
    fn host_end(&self) -> Value {
        let other = |name: &str| name == "cni0" || name.starts_with("bwp");
        let mut all = self.result["interfaces"].as_array().expect("interfaces").iter();
        let end = all.find(|i| i["sandbox"].is_null() && !i["name"].as_str().is_some_and(other));
        end.expect("a host end")["name"].clone()
    }

    /// Both DELs of a pod's end.
    #[track_caller]
    fn deleted_by(&self, whose: &str, chain: &Chain) {
        chain.del(&self.id, &self.space, &self.result).unwrap_or_else(|e| panic!("{whose}: DEL: {e:?}"));
        chain.del_blind(&self.id).unwrap_or_else(|e| panic!("{whose}: second DEL: {e:?}"));
    }
}

const NOBODY: &str = "no answer";
const IN_ORDER: &str = "in order";

/// Whose address is seen at the other end of each way, and what the pod is like.
fn facts(outside: &Namespace, one: &Pod, two: &Pod) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    for pod in [one, two] {
        pod.settled();
    }
    for (family, word) in ["IPv4", "IPv6"].iter().enumerate() {
        let inside = Echo::at(&one.space, SocketAddr::new(one.ips[family], PORTS.1));
        let far = Echo::inside(outside, OUTSIDE[family]);
        let node = SocketAddr::new(NODE[family], PORTS.0);
        let own = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()][family];
        let own = SocketAddr::new(own, PORTS.0);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut fact = |way: &str, answer: Result<IpAddr, String>| {
                let seen = answer.map_or_else(|_| NOBODY.to_owned(), |ip| ip.to_string());
                facts.insert(format!("{word} {protocol:?} {way}"), seen);
            };
            fact("to outside", ask(&one.space, protocol, far.address));
            fact("from another pod", ask(&two.space, protocol, inside.address));
            fact("from outside by the host port", ask(outside, protocol, node));
            fact("from the host by the host port", ask_here(protocol, node));
            fact("from the host by the host port of localhost", ask_here(protocol, own));
            fact("from another pod by the host port", ask(&two.space, protocol, node));
            fact("from itself by the host port", ask(&one.space, protocol, node));
        }
    }
    let mut fact = |what: &str, value: String| facts.insert(what.to_owned(), value);
    fact("mtu", format!("{:?}", look::mtu(&one.space, "eth0")));
    fact("sysctl", one.space.tool(&["sysctl", "-n", "net.core.somaxconn"]).trim().to_owned());
    fact("addresses", format!("{:?}", look::addresses(&one.space, "eth0")));
    for family in ["-4", "-6"] {
        let routes = look::ip_in(&one.space, &[family, "route", "show", "default"]);
        let gateways: Vec<_> = routes.iter().map(|r| r["gateway"].clone()).collect();
        fact(&format!("default {family}"), format!("{gateways:?}"));
    }
    for (plugin, answer) in one.chain.checks(&one.id, &one.space, &one.result) {
        fact(&format!("CHECK by {plugin}"), if answer.ok() { IN_ORDER.to_owned() } else { answer.message() });
    }
    fact("rates", format!("{:?}", rates(one)));
    facts
}

/// The rates that queues hold, in bits a second.
fn rates(pod: &Pod) -> Vec<u64> {
    let mut queues = look::queues(None);
    queues.extend(look::queues(Some(&pod.space)));
    let mut rates: Vec<u64> =
        queues.iter().filter_map(|q| q["options"]["rate"].as_u64()).map(|r| r * 8).collect();
    rates.sort_unstable();
    rates
}

/// A result without hardware addresses, the names of host ends, and the device by which the reference shapes what a
/// pod sends.
fn normal(result: &Value) -> Value {
    let mut result = result.clone();
    let interfaces = result["interfaces"].as_array_mut().expect("interfaces");
    interfaces.retain(|i| !i["name"].as_str().unwrap_or_default().starts_with("bwp"));
    for interface in interfaces {
        let known = ["cni0", "eth0"].contains(&interface["name"].as_str().unwrap_or_default());
        interface.as_object_mut().expect("an interface").remove("mac");
        if !known {
            interface["name"] = json!("HOST");
        }
        if interface["sandbox"].is_string() {
            interface["sandbox"] = json!("POD");
        }
    }
    result
}

/// Everything on the node but addresses that cool down: each goes by itself after a while.
fn snapshot() -> Snapshot {
    Snapshot::whole(|fact| !fact.contains("/.nodeplug/cooling/"))
}

/// What pods left.
fn left(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    before.difference(after).into_iter().filter(|fact| !of_the_network(fact)).collect()
}

/// Whether the network as a whole needs it, or has it of itself: it stays when the last pod goes, and holds nothing of
/// any pod.
fn of_the_network(fact: &str) -> bool {
    let Some(fact) = fact.strip_prefix("+ ") else { return false };
    let (kind, rest) = fact.split_once(' ').unwrap_or((fact, ""));
    match kind {
        // The bridge and the uplink, and what the kernel adds for each link of a router.
        "link" | "address" | "qdisc" => rest.starts_with("cni0 "),
        "route" => [r#""dev":"cni0""#, r#""dev":"up0""#].iter().any(|link| rest.contains(link)),
        "file" => SHARED_FILES.contains(&rest),
        "iptables" | "ip6tables" => SHARED_CHAINS.contains(&rest) || SHARED_RULES.contains(&rest),
        // The rules of iptables are seen by its own eyes, above.
        "nft" => {
            let of_iptables = ["filter", "nat"].iter().any(|table| {
                rest.contains(&format!(r#""table":"{table}""#))
                    || rest.starts_with(r#"{"table""#) && rest.contains(&format!(r#""name":"{table}""#))
            });
            of_iptables || rest.contains(r#""nodeplug""#) && !rest.contains(r#""elem""#)
        }
        _ => false,
    }
}

/// The turn of the addresses, locks, and what tells one boot from the next.
const SHARED_FILES: [&str; 9] = [
    "/var/lib/cni/networks/pods/last_reserved_ip.0",
    "/var/lib/cni/networks/pods/last_reserved_ip.1",
    "/var/lib/cni/networks/pods/lock",
    "/var/lib/cni/networks/pods/.nodeplug/state",
    "/var/lib/nodeplug/cni/boot",
    "/var/lib/nodeplug/cni/lock",
    "/var/lib/nodeplug/cni/ports/lock",
    "/var/lib/nodeplug/cni/reapers",
    "/var/lib/nodeplug/cni/repair",
];
/// Chains of iptables that are there once for all pods.
const SHARED_CHAINS: [&str; 12] = [
    "filter :INPUT ACCEPT",
    "filter :FORWARD ACCEPT",
    "filter :OUTPUT ACCEPT",
    "filter :CNI-ADMIN -",
    "filter :CNI-FORWARD -",
    "nat :PREROUTING ACCEPT",
    "nat :INPUT ACCEPT",
    "nat :OUTPUT ACCEPT",
    "nat :POSTROUTING ACCEPT",
    "nat :CNI-HOSTPORT-DNAT -",
    "nat :CNI-HOSTPORT-MASQ -",
    "nat :CNI-HOSTPORT-SETMARK -",
];
/// The rules that lead to them, and what those chains hold for all pods.
const SHARED_RULES: [&str; 7] = [
    r#"filter -A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD"#,
    r#"filter -A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN"#,
    "nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    "nat -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    r#"nat -A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ"#,
    r#"nat -A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000"#,
    "nat -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE",
];

/// What the conflist asks for, on the plugins that it was written for: what the mixtures are held against is right.
fn the_reference() {
    let theirs = &*THEIRS;
    assert!(theirs.left.is_empty(), "{:#?}", theirs.left);
    let expected: BTreeMap<&str, [&str; 2]> = BTreeMap::from([
        ("to outside", ["192.0.2.1", "2001:db8:ff::1"]),
        ("from another pod", ["10.66.0.3", "fd66::3"]),
        ("from outside by the host port", ["192.0.2.2", "2001:db8:ff::2"]),
        ("from the host by the host port", ["192.0.2.1", "2001:db8:ff::1"]),
        // The reference does not reach a pod by ::1: the kernel takes no packet from it on another link.
        ("from the host by the host port of localhost", ["10.66.0.1", NOBODY]),
        ("from another pod by the host port", ["10.66.0.1", "fd66::1"]),
        ("from itself by the host port", ["10.66.0.1", "fd66::1"]),
    ]);
    for (way, seen) in expected {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for (family, seen) in ["IPv4", "IPv6"].iter().zip(seen) {
                let what = format!("{family} {protocol:?} {way}");
                assert_eq!(theirs.facts.get(&what).map(String::as_str), Some(seen), "{what}");
            }
        }
    }
    let both = format!("[{0}, {0}, {1}, {1}]", RATES.1, RATES.0);
    for (what, value) in [("mtu", "Some(1400)"), ("sysctl", "500"), ("rates", &both)] {
        assert_eq!(theirs.facts.get(what).map(String::as_str), Some(value), "{what}");
    }
}

fn same_as_the_reference(mixture: &'static str) {
    let (theirs, ours) = (&*THEIRS, seen(mixture));
    assert_eq!(ours.result, theirs.result, "{mixture}");
    let mut others = Vec::new();
    for (what, value) in &theirs.facts {
        let seen = ours.facts.get(what).expect("the same facts");
        let checker = what.strip_prefix("CHECK by ");
        let fine = match checker {
            Some(plugin) if is_ours(mixture, plugin) => seen == IN_ORDER,
            Some(_) => seen == IN_ORDER || value != IN_ORDER,
            // Where the reference gets no answer, an answer is welcome.
            None => seen == value || value == NOBODY,
        };
        if !fine {
            others.push(format!("{what}: {seen}, and by the reference {value}"));
        }
    }
    assert!(others.is_empty(), "{mixture}: {others:#?}");
    assert!(ours.left.is_empty(), "{mixture}: left: {:#?}", ours.left);
}

/// Pods of one set of plugins get CHECK and DEL by another one. The CHECK of the plugins in `refuse` is a no.
fn handed_over(node: &Node, by: &str, to: &str, refuse: &[&str]) {
    let (makers, others) = (chain(by), chain(to));
    // What the others delete must be the pod's alone.
    let port = json!([{"hostPort": PORTS.0 + 1, "containerPort": PORTS.1, "protocol": "tcp"}]);
    let offered = json!({"portMappings": port, "bandwidth": makers.offered["bandwidth"]});
    let neighbour = Pod::new(node, &makers.offering(offered), &id("neighbour"));
    neighbour.settled();
    let before = snapshot();
    for blind in [false, true] {
        let pod = Pod::new(node, &makers, &id("pod"));
        for (plugin, answer) in others.checks(&pod.id, &pod.space, &pod.result) {
            assert_eq!(answer.ok(), !refuse.contains(&plugin.as_str()), "CHECK by {plugin}: {answer:?}");
        }
        if !blind {
            others.del(&pod.id, &pod.space, &pod.result).unwrap_or_else(|e| panic!("DEL: {e:?}"));
        }
        others.del_blind(&pod.id).unwrap_or_else(|e| panic!("second DEL: {e:?}"));
        let end = pod.host_end();
        let stands = || look::ip(&["link", "show"]).iter().any(|l| l["ifname"] == end);
        assert!(blind || !stands(), "{by} to {to}: {end} is left");
        drop(pod);
        // The kernel takes the links of a namespace that has gone in its own time.
        while stands() {
            thread::sleep(Duration::from_millis(50));
        }
        let mut left = left(&before, &snapshot());
        // Nothing but the ADD's result says which addresses the reference's firewall accepts, so its own blind DEL
        // leaves these, too.
        let named_by_result = "tables filter -A CNI-FORWARD -";
        left.retain(|fact| !blind || is_ours(by, "firewall") || !fact.contains(named_by_result));
        assert!(left.is_empty(), "{by} to {to}, blind: {blind}: {left:#?}");
    }
}

/// The reference deletes what it finds by its own names; the rest goes with the next GC.
fn given_back(node: &Node) {
    let before = snapshot();
    let (ours, theirs) = (chain("all"), chain("none"));
    let pod = Pod::new(node, &ours, &id("pod"));
    // It stops at the masquerade chain of its own that was never there, when the interface has gone. A runtime tries
    // again, and then it finds no address to look for.
    drop(theirs.del(&pod.id, &pod.space, &pod.result));
    pod.deleted_by("none", &theirs);
    drop(pod);
    for (plugin, answer) in ours.collect() {
        assert!(answer.ok(), "GC by {plugin}: {answer:?}");
    }
    let left = left(&before, &snapshot());
    assert!(left.is_empty(), "{left:#?}");
}
