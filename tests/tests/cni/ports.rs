//! Host ports: who reaches a pod by a port of the node, from where and under which address; whose a port is; and
//! what is left when it goes. As the main plugin's capability, and behind the reference's bridge.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use harness::call::{Answer, tool, try_tool};
use harness::kernel::trace;
use harness::look;
use harness::node::{Namespace, Node, RECORDS, our_binary};
use harness::runtime::{Flavour, Runtime};
use harness::suite::ours;
use harness::traffic::{Echo, Protocol, ask, ask_here};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::crashes::{Ruins, killed_adds, sweep};
use crate::networks::{MODES, NAME, NODE, OUTSIDE, full, id, ips};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("a_host_port_is_reached_from_everywhere_by_a_routed_pod", |node| everywhere(node, Way::Routed)),
        ours("a_host_port_is_reached_from_everywhere_on_our_bridge", |node| everywhere(node, Way::Bridge)),
        ours("a_host_port_is_reached_from_everywhere_behind_the_references_bridge", |node| {
            everywhere(node, Way::Chained);
        }),
        ours("a_host_ip_takes_that_address_alone", a_host_ip_takes_that_address_alone),
        ours("without_snat_every_source_stays_and_loopback_is_the_hosts", without_snat),
        ours("with_masq_all_every_connection_comes_from_the_node", with_masq_all),
        ours("conditions_choose_whose_packets_are_taken", conditions),
        ours("what_is_not_for_the_node_passes", what_is_not_for_the_node_passes),
        ours("loopback_stays_closed_to_the_network_and_to_pods", loopback_stays_closed),
        ours("a_second_pod_is_told_who_has_the_port", a_second_pod_is_told_who_has_the_port),
        ours("a_port_is_free_again_whatever_del_was_not_told", a_port_is_free_again),
        ours("after_a_flush_check_tells_and_the_next_add_puts_the_rules_back", after_a_flush),
        ours("a_conversation_over_udp_follows_the_port", a_conversation_follows_the_port),
        ours("a_conversation_follows_the_port_on_a_node_of_many_addresses", |node| {
            many_addresses();
            a_conversation_follows_the_port(node);
        }),
        ours("no_connection_but_those_to_the_port_is_forgotten", only_those_to_the_port),
        ours("no_connection_but_those_to_the_port_is_forgotten_by_a_list", |node| {
            many_addresses();
            only_those_to_the_port(node);
        }),
        ours("the_kernel_is_told_which_connections_are_meant", kernel_is_told),
        ours("a_conversation_past_the_node_goes_on", a_conversation_past_the_node),
        ours("a_conversation_past_a_node_of_many_addresses_goes_on", |node| {
            many_addresses();
            a_conversation_past_the_node(node);
        }),
        ours("a_port_that_cannot_be_mapped_is_refused_before_anything_is_made", refused_before),
        ours("an_add_with_ports_killed_at_any_step_is_undone_by_del", killed_at_any_step),
        ours("a_chained_add_of_ports_killed_at_any_step_is_undone", |n| killed_behind_another(n, "ADD")),
        ours("a_chained_del_of_ports_killed_at_any_step_is_finished", |n| killed_behind_another(n, "DEL")),
        ours("ports_of_an_earlier_boot_are_free", ports_of_an_earlier_boot),
    ]
}

const PORT: u16 = 18080;
const INSIDE: u16 = 8080;
const GATEWAY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 66, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 1))];
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Who makes the interface, and who maps the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Routed,
    Bridge,
    Chained,
}

struct Pod {
    space: Namespace,
    id: String,
    ips: Vec<IpAddr>,
    /// Plugins in the order of ADD, with their results.
    calls: Vec<(Runtime, Value)>,
}

impl Pod {
    /// Servers on the pod's port, both families, TCP and UDP.
    fn serve(&self) -> Vec<Echo> {
        self.ips.iter().map(|ip| Echo::at(&self.space, (*ip, INSIDE).into())).collect()
    }

    #[track_caller]
    fn check(&self) -> Answer {
        let (runtime, result) = self.calls.last().expect("an ADD");
        runtime.check(&self.id, &self.space, result)
    }

    #[track_caller]
    fn del(self) {
        for (runtime, result) in self.calls.iter().rev() {
            let answer = runtime.del(&self.id, &self.space, result);
            assert!(answer.ok(), "DEL: {answer:?}");
        }
    }
}

/// Each protocol on the usual port.
fn usual() -> Value {
    json!([
        {"HostPort": PORT, "ContainerPort": INSIDE, "Protocol": "TCP", "HostIP": ""},
        {"HostPort": PORT, "ContainerPort": INSIDE, "Protocol": "udp", "HostIP": ""},
    ])
}

/// The usual port at one address of the node.
fn at(ip: &str) -> Value {
    json!([{"hostPort": PORT, "containerPort": INSIDE, "protocol": "tcp", "hostIP": ip}])
}

fn with_ports(mut config: Value, mappings: &Value, keys: &Value) -> Value {
    config["capabilities"] = json!({"portMappings": true});
    config["runtimeConfig"] = json!({"portMappings": mappings});
    for (key, value) in keys.as_object().expect("an object of keys") {
        config[key] = value.clone();
    }
    config
}

/// The runtimes of a network whose pods get these ports.
fn runtimes(node: &Node, way: Way, mappings: &Value, keys: &Value) -> Vec<Runtime> {
    match way {
        Way::Routed => vec![Runtime::of(Flavour::Ours, with_ports(full("routed"), mappings, keys))],
        Way::Bridge => vec![Runtime::of(Flavour::Ours, with_ports(full("bridge"), mappings, keys))],
        Way::Chained => {
            node.install_reference();
            node.install(&our_binary(), "portmap");
            let mut bridge = full("bridge");
            bridge["hairpinMode"] = json!(true);
            // Its masquerade is not what is tested, and its DEL fails where rules were flushed.
            bridge["ipMasq"] = json!(false);
            let portmap = json!({"cniVersion": "1.0.0", "name": NAME, "type": "portmap"});
            let portmap = with_ports(portmap, mappings, keys);
            vec![Runtime::of(Flavour::Reference, bridge), Runtime::of(Flavour::Ours, portmap)]
        }
    }
}

/// A pod, or the answer of the plugin that refused it.
fn try_pod(node: &Node, runtimes: &[Runtime], word: &str) -> Result<Pod, Box<Answer>> {
    let (space, id) = (node.pod(), id(word));
    space.tool(&["ip", "link", "set", "lo", "up"]);
    for scope in ["all", "default"] {
        let off = format!("net.ipv6.conf.{scope}.accept_dad=0");
        space.tool(&["sysctl", "-qw", &off]);
        tool(&["sysctl", "-qw", &off]);
    }
    let mut calls: Vec<(Runtime, Value)> = Vec::new();
    for runtime in runtimes {
        let previous = calls.last().map(|(_, result)| result);
        let answer = runtime.call("ADD", &id, space.name(), previous).run();
        if !answer.ok() {
            for (runtime, result) in calls.iter().rev() {
                runtime.del(&id, &space, result);
            }
            return Err(Box::new(answer));
        }
        calls.push((runtime.clone(), answer.success()));
    }
    let ips = ips(&calls.last().expect("a plugin").1);
    if runtimes.len() > 1 {
        // The reference's IPv6 addresses are first looked for on the wire.
        std::thread::sleep(Duration::from_millis(2500));
    }
    Ok(Pod { space, id, ips, calls })
}

#[track_caller]
fn pod(node: &Node, way: Way, word: &str, mappings: &Value, keys: &Value) -> Pod {
    let made = try_pod(node, &runtimes(node, way, mappings, keys), word);
    made.unwrap_or_else(|answer| panic!("{way:?} {word}: {answer:?}"))
}

#[track_caller]
fn seen(answer: &Result<IpAddr, String>, expected: IpAddr, what: &str) {
    assert_eq!(answer, &Ok(expected), "{what}");
}

#[track_caller]
fn nobody(answer: &Result<IpAddr, String>, what: &str) {
    assert!(answer.is_err(), "{what}: answered, seen as {answer:?}");
}

fn everywhere(node: &Node, way: Way) {
    let outside = node.outside();
    if way != Way::Routed {
        // Where frames on a bridge pass the rules for packets, an answer has the address ::1 again before the
        // kernel drops whatever bears it: there ::1 leads nowhere.
        try_tool(&["sysctl", "-qw", "net.bridge.bridge-nf-call-ip6tables=0"]);
    }
    let one = pod(node, way, "one", &usual(), &json!({}));
    let two = pod(node, way, "two", &json!([]), &json!({}));
    assert_eq!(one.ips.len(), 2, "both families: {:?}", one.ips);
    let servers = one.serve();
    for protocol in PROTOCOLS {
        for family in [0, 1] {
            let what = |words: &str| format!("{way:?} {protocol:?} {}: {words}", ["IPv4", "IPv6"][family]);
            let port = SocketAddr::new(NODE[family], PORT);
            let own = SocketAddr::new(GATEWAY[family], PORT);
            seen(
                &ask(&outside, protocol, port),
                OUTSIDE[family],
                &what("from outside, under its own address"),
            );
            seen(&ask_here(protocol, port), NODE[family], &what("from the host by its address"));
            let looped = ask_here(protocol, SocketAddr::new(LOOPBACK[family], PORT));
            seen(&looped, GATEWAY[family], &what("from the host by its loopback address"));
            // A neighbour on the bridge would get the pod's answer past the node.
            let neighbour = if way == Way::Routed { two.ips[family] } else { GATEWAY[family] };
            seen(&ask(&two.space, protocol, port), neighbour, &what("from another pod"));
            seen(&ask(&two.space, protocol, own), neighbour, &what("from another pod by its gateway"));
            seen(&ask(&one.space, protocol, port), GATEWAY[family], &what("from the pod itself"));
        }
    }
    let check = one.check();
    assert!(check.ok(), "{way:?}: {check:?}");
    assert_eq!(look::claims().len(), 4, "two protocols, two families: {:?}", look::claims());
    one.del();
    for family in [0, 1] {
        nobody(&ask(&outside, Protocol::Tcp, (NODE[family], PORT).into()), "after DEL");
    }
    drop(servers);
    two.del();
    look::assert_nothing_left(&format!("{way:?}"));
}

fn a_host_ip_takes_that_address_alone(node: &Node) {
    let outside = node.outside();
    tool(&["ip", "addr", "add", "192.0.2.3/24", "dev", "up0"]);
    let other = IpAddr::from([192, 0, 2, 3]);
    for mode in [Way::Routed, Way::Bridge] {
        let one = pod(node, mode, "one", &at("192.0.2.1"), &json!({}));
        let servers = one.serve();
        let ask_at = |ip: IpAddr| ask(&outside, Protocol::Tcp, (ip, PORT).into());
        seen(&ask_at(NODE[0]), OUTSIDE[0], "its address");
        nobody(&ask_at(other), "another address of the node");
        nobody(&ask_at(NODE[1]), "the other family");
        nobody(&ask_here(Protocol::Tcp, (LOOPBACK[0], PORT).into()), "loopback");
        // The same port at another address leads to another pod, and one of its own to the other family.
        let two = pod(node, mode, "two", &at("192.0.2.3"), &json!({}));
        let three = pod(node, mode, "three", &at("2001:db8:ff::1"), &json!({}));
        drop(servers);
        let servers = two.serve();
        seen(&ask_at(other), OUTSIDE[0], "the second pod's address");
        nobody(&ask_at(NODE[0]), "the first pod, which serves no more");
        drop(servers);
        let servers = three.serve();
        seen(&ask_at(NODE[1]), OUTSIDE[1], "the third pod's address");
        drop(servers);
        for pod in [one, two, three] {
            let check = pod.check();
            assert!(check.ok(), "{mode:?}: {check:?}");
            pod.del();
        }
        let local = pod(node, mode, "local", &at("127.0.0.1"), &json!({}));
        let servers = local.serve();
        seen(&ask_here(Protocol::Tcp, (LOOPBACK[0], PORT).into()), GATEWAY[0], "loopback alone");
        nobody(&ask_at(NODE[0]), "not by the node's address");
        drop(servers);
        local.del();
        look::assert_nothing_left(&format!("{mode:?}"));
    }
}

fn without_snat(node: &Node) {
    let outside = node.outside();
    let one = pod(node, Way::Routed, "one", &usual(), &json!({"snat": false}));
    let servers = one.serve();
    let of_the_host: Vec<Echo> = LOOPBACK.iter().map(|ip| Echo::on_node_at((*ip, PORT).into())).collect();
    for protocol in PROTOCOLS {
        for family in [0, 1] {
            let what = format!("{protocol:?} {family}");
            seen(&ask(&outside, protocol, (NODE[family], PORT).into()), OUTSIDE[family], &what);
            let looped = ask_here(protocol, (LOOPBACK[family], PORT).into());
            seen(&looped, LOOPBACK[family], &format!("{what}: the host's own server"));
        }
    }
    let setting = format!("net.ipv4.conf.{}.route_localnet", look::host_ends().concat());
    assert_eq!(tool(&["sysctl", "-n", &setting]).trim(), "0");
    drop((servers, of_the_host));
    assert!(one.check().ok(), "{:?}", one.check());
    one.del();
    look::assert_nothing_left("without snat");
}

fn with_masq_all(node: &Node) {
    let outside = node.outside();
    for (turn, bit) in [0, 13, 31].into_iter().enumerate() {
        let keys = json!({"masqAll": true, "markMasqBit": bit});
        let one = pod(node, Way::Routed, &format!("one{turn}"), &usual(), &keys);
        let servers = one.serve();
        for protocol in PROTOCOLS {
            for family in [0, 1] {
                let answer = ask(&outside, protocol, (NODE[family], PORT).into());
                seen(&answer, GATEWAY[family], &format!("{protocol:?} {family}, bit {bit}"));
            }
        }
        let local = Echo::on_node(NODE[0]);
        seen(
            &ask(&outside, Protocol::Tcp, local.address),
            OUTSIDE[0],
            "the host's own server sees everybody",
        );
        drop(servers);
        assert!(one.check().ok(), "{:?}", one.check());
        one.del();
    }
    look::assert_nothing_left("with masqAll");
}

fn conditions(node: &Node) {
    let outside = node.outside();
    let cases = [
        (json!({"conditionsV4": ["!", "-s", "192.0.2.0/24"]}), [false, true]),
        (json!({"conditionsV4": ["-s", "192.0.2.0/25", "-i", "up+"]}), [true, true]),
        (json!({"conditionsV4": ["!", "-i", "up0"], "conditionsV6": ["!", "-i", "other"]}), [false, true]),
        (
            json!({"conditionsV6": ["ip6", "saddr", "!=", "2001:db8:ff::2"], "backend": "nftables"}),
            [true, false],
        ),
        (json!({"conditionsV6": ["ip6 daddr 2001:db8:ff::/64 iifname != \"eth0\""]}), [true, true]),
    ];
    for (turn, (keys, expected)) in cases.into_iter().enumerate() {
        let one = pod(node, Way::Routed, &format!("one{turn}"), &usual(), &keys);
        let servers = one.serve();
        for family in [0, 1] {
            let answer = ask(&outside, Protocol::Tcp, (NODE[family], PORT).into());
            assert_eq!(answer.is_ok(), expected[family], "{keys} family {family}: {answer:?}");
        }
        drop(servers);
        let check = one.check();
        assert!(check.ok(), "{keys}: {check:?}");
        one.del();
    }
    look::assert_nothing_left("conditions");
}

const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));

/// A machine to which the node leads whoever is outside.
fn beyond(node: &Node, outside: &Namespace) -> Namespace {
    let beyond = node.namespace("beyond");
    tool(&["ip", "link", "add", "up1", "type", "veth", "peer", "name", "eth0", "netns", beyond.name()]);
    tool(&["ip", "addr", "add", "198.51.100.1/24", "dev", "up1"]);
    tool(&["ip", "link", "set", "up1", "up"]);
    for words in [
        ["ip", "addr", "add", "198.51.100.2/24", "dev", "eth0"].as_slice(),
        &["ip", "link", "set", "eth0", "up"],
        &["ip", "route", "add", "default", "via", "198.51.100.1"],
    ] {
        beyond.tool(words);
    }
    outside.tool(&["ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1"]);
    beyond
}

/// GHSA-jv3w-x3r3-g6rm: a packet that the node routes to another machine's same port is none of the pod's.
fn what_is_not_for_the_node_passes(node: &Node) {
    let outside = node.outside();
    let beyond = beyond(node, &outside);
    for way in [Way::Routed, Way::Bridge] {
        // Nobody serves in the pod: what came there would find no answer.
        let one = pod(node, way, "one", &usual(), &json!({}));
        let server = Echo::at(&beyond, (FAR, PORT).into());
        for protocol in PROTOCOLS {
            let what = format!("{way:?} {protocol:?}");
            seen(&ask(&outside, protocol, server.address), OUTSIDE[0], &what);
            let from_pod = ask(&one.space, protocol, server.address);
            seen(&from_pod, IpAddr::from([198, 51, 100, 1]), &format!("{what}, from the pod"));
            seen(
                &ask_here(protocol, server.address),
                IpAddr::from([198, 51, 100, 1]),
                &format!("{what}, from the host"),
            );
        }
        one.del();
    }
    look::assert_nothing_left("not for the node");
}

/// Turns a namespace into an attacker that sends to 127.0.0.9 of the node.
fn attack(from: &Namespace, gateway: &str, to: SocketAddr) -> Result<IpAddr, String> {
    for setting in ["all", "eth0"] {
        from.tool(&["sysctl", "-qw", &format!("net.ipv4.conf.{setting}.route_localnet=1")]);
    }
    from.try_tool(&["ip", "addr", "del", "127.0.0.1/8", "dev", "lo"]);
    from.try_tool(&["ip", "route", "add", "127.0.0.9/32", "via", gateway, "dev", "eth0", "onlink"]);
    ask(from, Protocol::Udp, to)
}

fn loopback_stays_closed(node: &Node) {
    let outside = node.outside();
    for way in [Way::Routed, Way::Bridge] {
        let one = pod(node, way, "one", &usual(), &json!({}));
        let two = pod(node, way, "two", &json!([]), &json!({}));
        let secret = Echo::on_node_at("127.0.0.9:0".parse().expect("an address"));
        for (who, space, gateway) in [
            ("outside", &outside, "192.0.2.1"),
            ("the pod", &one.space, "10.66.0.1"),
            ("a pod", &two.space, "10.66.0.1"),
        ] {
            nobody(&attack(space, gateway, secret.address), &format!("{way:?}: {who} reaches 127.0.0.9"));
        }
        // The same attack by the pod's link works without the guard: the kernel's own is off there.
        tool(&["nft", "flush", "chain", "inet", "nodeplug", "loopback"]);
        let open = attack(&one.space, "10.66.0.1", secret.address);
        assert!(open.is_ok(), "{way:?}: the attack is none: {open:?}");
        let told = one.check().message();
        assert!(told.contains("the rule `iifname != \"lo\" ip daddr 127.0.0.0/8 drop`"), "{told}");
        // The next pod puts the guard back.
        let mappings = json!([{"hostPort": PORT + 1, "containerPort": INSIDE}]);
        let three = pod(node, way, "three", &mappings, &json!({}));
        nobody(&attack(&one.space, "10.66.0.1", secret.address), &format!("{way:?}: the guard is back"));
        three.del();
        one.del();
        two.del();
        look::assert_nothing_left(&format!("{way:?}"));
    }
}

fn a_second_pod_is_told_who_has_the_port(node: &Node) {
    for way in [Way::Routed, Way::Bridge, Way::Chained] {
        for (first, second) in [
            (usual(), usual()),
            (at(""), at("192.0.2.1")),
            (at("192.0.2.1"), at("")),
            (at("0.0.0.0"), at("127.0.0.1")),
            (at("fd66::1"), at("::")),
        ] {
            let what = format!("{way:?}: {first} and then {second}");
            let one = pod(node, way, "one", &first, &json!({}));
            let before = look::elements();
            let refused = try_pod(node, &runtimes(node, way, &second, &json!({})), "two");
            let answer = refused.err().unwrap_or_else(|| panic!("{what}: nobody says no"));
            answer.refused(101);
            let told = answer.message();
            assert!(told.contains("default/web") && told.contains(&PORT.to_string()), "{what}: {told}");
            assert_eq!(look::elements(), before, "{what}");
            assert!(one.check().ok(), "{what}: {:?}", one.check());
            one.del();
            look::assert_nothing_left(&what);
            pod(node, way, "two", &second, &json!({})).del();
            look::assert_nothing_left(&format!("{what}: free again"));
            if way == Way::Chained {
                break;
            }
        }
    }
}

fn a_port_is_free_again(node: &Node) {
    for way in [Way::Routed, Way::Bridge, Way::Chained] {
        for keeps in ["the configuration", "the namespace", "nothing", "no record"] {
            let what = format!("{way:?}: DEL knows {keeps}");
            let one = pod(node, way, "one", &usual(), &json!({}));
            if keeps == "no record" {
                // What a chained plugin added tells of itself only where the whole memory is gone.
                let lost = if way == Way::Chained { "/var/lib/nodeplug/cni" } else { RECORDS };
                fs::remove_dir_all(lost).expect("records to lose");
            }
            for (runtime, _) in one.calls.iter().rev() {
                let mut forgetful = runtime.clone();
                let config = forgetful.config.as_object_mut().expect("a configuration");
                config.remove("runtimeConfig");
                let netns = if keeps == "the namespace" { one.space.name() } else { "" };
                let mut call = forgetful.call("DEL", &one.id, netns, None);
                if keeps == "nothing" && runtime.flavour() == Flavour::Ours {
                    call = call.stdin(b"");
                }
                let answer = call.run();
                assert!(answer.ok(), "{what}: {answer:?}");
                assert!(call.run().ok(), "{what}: the second DEL");
            }
            drop(one);
            assert_eq!(look::claims(), [""; 0], "{what}");
            let ours: Vec<String> = look::elements()
                .into_iter()
                .filter(|e| e.contains("ports") || e.contains("hairpin"))
                .collect();
            assert_eq!(ours, [""; 0], "{what}");
            pod(node, way, "two", &usual(), &json!({})).del();
        }
    }
}

fn after_a_flush(node: &Node) {
    let outside = node.outside();
    for way in [Way::Routed, Way::Chained] {
        let one = pod(node, way, "one", &usual(), &json!({}));
        let servers = one.serve();
        let ask_it = || ask(&outside, Protocol::Tcp, (NODE[0], PORT).into());
        tool(&["nft", "flush", "ruleset"]);
        nobody(&ask_it(), "after a flush");
        let told = one.check();
        told.refused(102);
        assert!(told.message().contains("the table `inet nodeplug` is missing"), "{told:?}");
        // Its port stays its own, although nf_tables knows of nothing.
        let other = try_pod(node, &runtimes(node, way, &usual(), &json!({})), "other");
        other.err().expect("a conflict").refused(101);
        let mappings = json!([{"hostPort": PORT + 1, "containerPort": INSIDE}]);
        let two = pod(node, way, "two", &mappings, &json!({}));
        // The next ADD noticed, and put back what the first pod had.
        assert!(one.check().ok(), "{way:?}: {:?}", one.check());
        seen(&ask_it(), OUTSIDE[0], "the first pod's port");
        drop(servers);
        let servers = two.serve();
        seen(
            &ask(&outside, Protocol::Tcp, (NODE[0], PORT + 1).into()),
            OUTSIDE[0],
            "the base rules are back",
        );
        drop(servers);
        // Somebody who takes an element or a claim away is noticed.
        let damage = |words: &[&str], expect: &str| {
            tool(words);
            let told = two.check();
            told.refused(102);
            assert!(told.message().contains(expect), "{words:?}: {told:?}");
        };
        let map = map_named("ports4-");
        let key = format!("{{ tcp . {} }}", PORT + 1);
        damage(&["nft", "delete", "element", "inet", "nodeplug", &map, &key], "is missing");
        damage(
            &["rm", "-r", &format!("/var/lib/nodeplug/cni/ports/tcp-{}", PORT + 1)],
            "claim to the host's port",
        );
        one.del();
        two.del();
        look::assert_nothing_left(&format!("{way:?}"));
    }
}

fn map_named(start: &str) -> String {
    let rules = look::rules();
    let mut names = rules.iter().filter_map(|item| item["map"]["name"].as_str());
    names.find(|n| n.starts_with(start)).expect("a map").to_owned()
}

fn connections() -> String {
    ["ipv4", "ipv6"].map(|family| try_tool(&["conntrack", "-L", "-p", "udp", "-f", family]).stdout).concat()
}

/// Asks again from the same port, as a client does that keeps its socket.
fn again(socket: &UdpSocket) -> Option<String> {
    let mut bytes = [0; 64];
    for _ in 0..5 {
        drop(socket.send(b"who am I"));
        if let Ok(n) = socket.recv(&mut bytes) {
            return Some(String::from_utf8_lossy(&bytes[..n]).into_owned());
        }
    }
    None
}

fn a_conversation_follows_the_port(node: &Node) {
    let outside = node.outside();
    for family in [0, 1] {
        let mine = SocketAddr::new(OUTSIDE[family], 40000);
        let port = SocketAddr::new(NODE[family], PORT);
        let socket = outside.within(move || {
            let socket = UdpSocket::bind(mine).expect("a socket outside");
            socket.connect(port).expect("a peer");
            socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a patience");
            socket
        });
        let host = Echo::on_node_at(port);
        assert_eq!(again(&socket), Some(OUTSIDE[family].to_string()), "the host serves");
        drop(host);
        for word in ["one", "two"] {
            let one = pod(node, Way::Routed, word, &usual(), &json!({}));
            let servers = one.serve();
            let what = format!("{word}, family {family}");
            assert_eq!(again(&socket), Some(OUTSIDE[family].to_string()), "{what}: {}", connections());
            let address = one.ips[family].to_string();
            assert!(connections().contains(&address), "{what}: {}", connections());
            drop(servers);
            one.del();
            assert!(!connections().contains(&address), "{what}: {}", connections());
        }
        let host = Echo::on_node_at(port);
        assert_eq!(again(&socket), Some(OUTSIDE[family].to_string()), "the host serves again");
        drop(host);
    }
    look::assert_nothing_left("a conversation");
}

/// So many that whose a connection is takes a look at each.
fn many_addresses() {
    for n in 1..=40 {
        tool(&["ip", "addr", "add", &format!("203.0.113.{n}/32"), "dev", "lo"]);
        tool(&["ip", "addr", "add", &format!("2001:db8:fe::{n:x}/128"), "dev", "lo"]);
    }
}

/// A connection that the kernel remembers: protocol, where it was sent to, who answers; `None` where that is the same.
type Entry<'a> = (&'a str, &'a str, u16, Option<(&'a str, u16)>);

/// Puts the connections there, and gives those that are left after `work`.
fn left_of(entries: &[Entry<'_>], work: impl FnOnce()) -> Vec<bool> {
    tool(&["conntrack", "-F"]);
    for (index, (protocol, to, port, by)) in entries.iter().enumerate() {
        let from = if to.contains(':') { "2001:db8:aa::9" } else { "203.0.113.200" };
        let (answers, at) = by.unwrap_or((to, *port));
        let (source, port, at) = ((30_000 + index).to_string(), port.to_string(), at.to_string());
        let mut words = vec!["conntrack", "-I", "-p", protocol, "-t", "300", "-s", from, "-d", to];
        words.extend(["--sport", &source, "--dport", &port, "-r", answers, "-q", from]);
        words.extend(["--reply-port-src", &at, "--reply-port-dst", &source]);
        match *protocol {
            "tcp" => words.extend(["--state", "ESTABLISHED"]),
            "sctp" => words.extend(["--state", "ESTABLISHED", "--orig-vtag", "1", "--reply-vtag", "2"]),
            _ => {}
        }
        tool(&words);
    }
    work();
    let all = ["ipv4", "ipv6"].map(|family| try_tool(&["conntrack", "-L", "-f", family]).stdout).concat();
    (0..entries.len()).map(|index| all.contains(&format!(" sport={} ", 30_000 + index))).collect()
}

fn only_those_to_the_port(node: &Node) {
    let _outside = node.outside();
    let mapping = |protocol: &str, ip: &str| json!({"hostPort": PORT, "containerPort": INSIDE, "protocol": protocol, "hostIP": ip});
    let (v4, v6, other) = ("192.0.2.1", "2001:db8:ff::1", Some(("10.66.0.99", INSIDE)));
    let entries: [Entry<'_>; 14] = [
        ("udp", v4, PORT, None),
        ("udp", v4, PORT, other),
        ("udp", "127.0.0.1", PORT, None),
        ("udp", v6, PORT, None),
        ("sctp", v4, PORT, None),
        ("sctp", v6, PORT, None),
        // Another port; a server behind the node; of loopback's many addresses; one whose handshake tells.
        ("udp", v4, PORT + 1, None),
        ("udp", v6, PORT + 1, None),
        ("sctp", v4, PORT + 1, None),
        ("sctp", v6, PORT + 1, None),
        ("udp", "198.51.100.2", PORT, None),
        ("udp", "2001:db8:bb::2", PORT, None),
        ("udp", "127.0.0.53", PORT, None),
        ("tcp", v4, PORT, None),
    ];
    let everywhere = json!([mapping("udp", ""), mapping("sctp", "")]);
    let mut one = None;
    let left = left_of(&entries, || one = Some(pod(node, Way::Routed, "one", &everywhere, &json!({}))));
    assert_eq!(left, [[false; 6].as_slice(), &[true; 8]].concat(), "ADD");
    let one = one.expect("a pod");
    let [ip4, ip6] = [one.ips[0].to_string(), one.ips[1].to_string()];
    let entries: [Entry<'_>; 8] = [
        ("udp", v4, PORT, Some((&ip4, INSIDE))),
        ("udp", v6, PORT, Some((&ip6, INSIDE))),
        ("sctp", v4, PORT, Some((&ip4, INSIDE))),
        // Another pod's, by another port, to another of the pod's.
        ("udp", v4, PORT, other),
        ("udp", v4, PORT + 1, Some((&ip4, INSIDE))),
        ("udp", v6, PORT + 1, Some((&ip6, INSIDE))),
        ("sctp", v4, PORT + 1, Some((&ip4, INSIDE))),
        ("udp", v4, PORT, Some((&ip4, INSIDE + 1))),
    ];
    let left = left_of(&entries, || one.del());
    assert_eq!(left, [[false; 3].as_slice(), &[true; 5]].concat(), "DEL");
    // At one address: those to another are the host's, or another pod's.
    let entries: [Entry<'_>; 3] =
        [("udp", v4, PORT, None), ("udp", "127.0.0.1", PORT, None), ("udp", "192.0.2.7", PORT, None)];
    let mut two = None;
    let there = json!([mapping("udp", v4)]);
    let left = left_of(&entries, || two = Some(pod(node, Way::Routed, "two", &there, &json!({}))));
    assert_eq!(left, [false, true, true], "ADD at one address");
    let two = two.expect("a pod");
    let ip4 = two.ips[0].to_string();
    let entries: [Entry<'_>; 2] =
        [("udp", v4, PORT, Some((&ip4, INSIDE))), ("udp", "127.0.0.1", PORT, Some((&ip4, INSIDE)))];
    assert_eq!(left_of(&entries, || two.del()), [false, true], "DEL at one address");
    look::assert_nothing_left("connections");
}

/// The first kernel that deletes connections by a filter.
const FILTERS: (u32, u32) = (6, 12);

/// The list of all connections is never asked for: it takes as long as all the rest.
fn kernel_is_told(node: &Node) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's version");
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let told = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= FILTERS;
    let _outside = node.outside();
    let (pod, id) = (node.pod(), id("told"));
    let mapping =
        json!([{"hostPort": PORT, "containerPort": INSIDE, "protocol": "udp", "hostIP": "0.0.0.0"}]);
    let runtime = Runtime::of(Flavour::Ours, with_ports(full("routed"), &mapping, &json!({})));
    for command in ["ADD", "DEL"] {
        let (mut lists, mut deletes) = (0, 0);
        let answer = trace::watch(&runtime.call(command, &id, pod.name(), None), |entry| {
            if entry.number == libc::SYS_sendto {
                match entry.bytes(1, 6)[4..] {
                    // IPCTNL_MSG_CT_GET and …_DELETE of NFNL_SUBSYS_CTNETLINK.
                    [1, 1] => lists += 1,
                    [2, 1] => deletes += 1,
                    _ => {}
                }
            }
        });
        assert!(answer.ok(), "{command}: {answer:?}");
        assert_eq!((lists == 0, deletes), (told, 1), "{command}: {lists} lists");
    }
    look::assert_nothing_left("an ADD and a DEL that were watched");
}

/// The port is the node's where it is sent to an address of the node, and nobody's else.
fn a_conversation_past_the_node(node: &Node) {
    let outside = node.outside();
    let beyond = beyond(node, &outside);
    let _server = Echo::at(&beyond, (FAR, PORT).into());
    tool(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    // The node tracks connections as soon as it has rules for a pod.
    let other = json!([{"hostPort": PORT + 1, "containerPort": INSIDE, "protocol": "udp"}]);
    let first = pod(node, Way::Routed, "first", &other, &json!({}));
    let socket = outside.within(|| {
        let socket = UdpSocket::bind(SocketAddr::new(OUTSIDE[0], 40000)).expect("a socket outside");
        socket.connect(SocketAddr::new(FAR, PORT)).expect("a peer");
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a patience");
        socket
    });
    let number = || {
        let all = tool(&["conntrack", "-L", "-p", "udp", "-o", "id"]);
        let line = all.lines().find(|line| line.contains(&format!("dst={FAR} ")));
        line.and_then(|line| line.split("id=").nth(1)).unwrap_or_else(|| panic!("none in {all}")).to_owned()
    };
    assert_eq!(again(&socket), Some(OUTSIDE[0].to_string()));
    let before = number();
    let one = pod(node, Way::Routed, "one", &usual(), &json!({}));
    assert_eq!(number(), before, "after ADD");
    one.del();
    assert_eq!(number(), before, "after DEL");
    first.del();
    look::assert_nothing_left("a conversation past the node");
}

fn refused_before(node: &Node) {
    let good = json!({"hostPort": PORT, "containerPort": INSIDE});
    let cases = [
        (json!([{"hostPort": 70000, "containerPort": 80}]), json!({}), 7, "portMappings[0].hostPort"),
        (json!([good, {"hostPort": 81}]), json!({}), 7, "portMappings[1].containerPort"),
        (json!([{"hostPort": 80, "containerPort": 80, "protocol": "dccp"}]), json!({}), 7, "dccp"),
        (json!([{"hostPort": 80, "containerPort": 80, "hostIP": "eth0"}]), json!({}), 7, "eth0"),
        (json!([good, {"hostPort": PORT, "containerPort": 81}]), json!({}), 7, "18080/tcp"),
        (json!([good]), json!({"backend": "ipvs"}), 7, "ipvs"),
        (json!([good]), json!({"markMasqBit": 32}), 7, "markMasqBit"),
        (json!([good]), json!({"externalSetMarkChain": "KUBE-MARK-MASQ"}), 2, "markMasqBit"),
        (json!([good]), json!({"conditionsV4": ["-m", "mark"]}), 2, "`-m`"),
        (json!([good]), json!({"masqall": true}), 2, "masqAll"),
        (at("127.0.0.1"), json!({"snat": false}), 7, "snat"),
    ];
    for (mappings, keys, code, told) in cases {
        for way in [Way::Bridge, Way::Chained] {
            // `backend` is the firewall's key in the main plugin's entry, too.
            if way == Way::Bridge && keys.get("backend").is_some() {
                continue;
            }
            let answer = try_pod(node, &runtimes(node, way, &mappings, &keys), "bad").err();
            let answer = answer.unwrap_or_else(|| panic!("{way:?} {mappings} {keys}: nobody says no"));
            answer.refused(code);
            assert!(answer.message().contains(told), "{way:?} {mappings} {keys}: {}", answer.message());
            look::assert_nothing_left(&format!("{way:?} {mappings} {keys}"));
        }
    }
}

fn killed_at_any_step(node: &Node) {
    let mut ruins = Ruins::default();
    for mode in MODES {
        let runtime = Runtime::of(Flavour::Ours, with_ports(full(mode), &usual(), &json!({})));
        killed_adds(node, &runtime, mode, &mut ruins);
    }
    ruins.none();
}

/// As a chained plugin, ADD or DEL killed at each step; the next DEL is told nothing.
fn killed_behind_another(node: &Node, command: &str) {
    let [bridge, portmap]: [Runtime; 2] =
        runtimes(node, Way::Chained, &usual(), &json!({})).try_into().expect("two plugins");
    let (pod, id) = (node.pod(), id("killed"));
    let first = bridge.added(&id, &pod);
    let call = |command: &str| portmap.call(command, &id, pod.name(), Some(&first));
    sweep(
        || {
            if command == "DEL" {
                call("ADD").run().success();
            }
            ((), call(command))
        },
        |(), when| {
            let answer = portmap.del_blind(&id);
            assert!(answer.ok(), "{command} {when}: {answer:?}");
            let left = [look::elements(), look::claims(), look::chained_records()].concat();
            assert!(left.is_empty(), "{command} {when}: {left:?}");
        },
    );
    assert!(bridge.del(&id, &pod, &first).ok());
}

fn ports_of_an_earlier_boot(node: &Node) {
    let one = pod(node, Way::Routed, "one", &usual(), &json!({}));
    std::mem::forget(one);
    node.reboot();
    let two = pod(node, Way::Routed, "two", &usual(), &json!({}));
    two.del();
    look::assert_nothing_left("after a reboot");
}
