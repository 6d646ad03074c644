//! The pods' way through a host that drops what it forwards: who passes, who does not, and what is left
//! when they are gone.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use harness::call::{Answer, tool};
use harness::look;
use harness::node::{Namespace, Node, RECORDS, REFERENCE, our_binary};
use harness::runtime::{Flavour, Runtime};
use harness::suite::ours;
use harness::traffic::{Echo, Protocol, ask};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::crashes::sweep;
use crate::networks::{NAME, NODE, OUTSIDE, id, ips, network};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("routed_pods_pass_a_host_that_drops", |node| pods_pass(node, Way::Own("routed"))),
        ours("bridged_pods_pass_a_host_that_drops", |node| pods_pass(node, Way::Own("bridge"))),
        ours("another_plugins_pods_pass_a_host_that_drops", |node| pods_pass(node, Way::Chained)),
        ours("the_operators_drop_comes_first", the_operators_drop_comes_first),
        ours("the_operators_chain_outlives_repairs", the_operators_chain_outlives_repairs),
        ours("iptables_and_nft_list_all_as_before", tools_list_all),
        ours("a_reject_at_a_chains_end_is_passed_as_a_policy_is", a_reject_at_the_end),
        ours("rules_of_an_owned_table_are_not_touched_and_told", an_owned_table),
        ours("same_bridge_keeps_the_pods_of_other_bridges_out", same_bridge),
        ours("isolated_pods_on_a_bridge_are_reached_by_no_pod", |node| isolated(node, &["bridge"])),
        ours("isolated_routed_pods_are_reached_by_no_pod", |node| isolated(node, &["routed"])),
        ours("isolated_pods_are_reached_from_no_other_network", isolated_from_open_pods),
        ours("isolated_pods_of_another_plugin_are_reached_by_no_pod", isolated_chained),
        ours("same_bridge_is_refused_where_there_is_no_bridge", same_bridge_without_a_bridge),
        ours("the_references_firewall_lives_beside", beside_the_reference),
        ours("a_flushed_firewall_is_told_and_made_again", flushed),
        ours("many_adds_at_once_make_each_shared_rule_once", many_at_once),
        ours("a_pods_way_goes_without_its_record", without_its_record),
        ours("firewall_keys_that_cannot_be_are_refused", refusals),
        ours("an_add_with_a_firewall_killed_at_any_step_is_undone_by_del", |node| killed(node, "ADD")),
        ours("a_del_with_a_firewall_killed_at_any_step_is_finished_by_the_next", |node| killed(node, "DEL")),
        ours("gc_takes_a_stale_pods_way_and_the_bridges_of_none", gc_takes_all),
    ]
}

/// How a pod comes to its interface and its way through the firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// One call for both, in this mode.
    Own(&'static str),
    /// The reference's bridge, and our firewall behind it.
    Chained,
}

/// A network of pods.
struct Net<'a> {
    node: &'a Node,
    maker: Runtime,
    behind: Option<Runtime>,
}

struct Pod {
    space: Namespace,
    id: String,
    result: Value,
    ips: Vec<IpAddr>,
}

impl<'a> Net<'a> {
    fn new(node: &'a Node, way: Way, keys: &Value) -> Self {
        Self::on(node, way, network(mode_of(way), &["10.66.0.0/24", "fd66::/64"]), keys)
    }

    /// `config` with the firewall's `keys`; null asks for no firewall at all.
    fn on(node: &'a Node, way: Way, mut config: Value, keys: &Value) -> Self {
        if way == Way::Chained {
            node.install_reference();
            node.install(&our_binary(), "firewall");
            tool(&["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1"]);
            // Its IPv6 addresses would first be looked for on the wire.
            tool(&["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"]);
            let mut behind = json!({"cniVersion": "1.0.0", "name": config["name"], "type": "firewall"});
            laid_over(&mut behind, keys);
            let behind = keys.is_object().then(|| Runtime::of(Flavour::Ours, behind));
            return Self { node, maker: Runtime::of(Flavour::Reference, config), behind };
        }
        if keys.is_object() {
            config["firewall"] = json!(true);
            laid_over(&mut config, keys);
        }
        Self { node, maker: Runtime::of(Flavour::Ours, config), behind: None }
    }

    fn pod(&self, word: &str) -> Pod {
        let (space, id) = (self.node.pod(), id(word));
        space.tool(&["ip", "link", "set", "lo", "up"]);
        space.tool(&["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"]);
        let result = self.maker.added(&id, &space);
        if let Some(behind) = &self.behind {
            behind.call("ADD", &id, space.name(), Some(&result)).run().success();
        }
        let ips = ips(&result);
        Pod { space, id, result, ips }
    }

    fn check(&self, pod: &Pod) -> Answer {
        self.behind.as_ref().unwrap_or(&self.maker).check(&pod.id, &pod.space, &pod.result)
    }

    #[track_caller]
    fn gone(&self, pods: &[&Pod]) {
        for pod in pods {
            for runtime in self.behind.iter().chain([&self.maker]) {
                let answer = runtime.del(&pod.id, &pod.space, &pod.result);
                assert!(answer.ok(), "DEL: {answer:?}");
            }
        }
    }
}

fn mode_of(way: Way) -> &'static str {
    match way {
        Way::Own(mode) => mode,
        Way::Chained => "bridge",
    }
}

fn laid_over(config: &mut Value, keys: &Value) {
    for (key, value) in keys.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
}

/// What drops on the host.
const HOSTS: [&[&str]; 3] = [&["iptables"], &["native"], &["iptables", "native"]];

fn close(host: &[&str]) {
    for firewall in host {
        if *firewall == "iptables" {
            tool(&["iptables", "-P", "FORWARD", "DROP"]);
            tool(&["ip6tables", "-P", "FORWARD", "DROP"]);
        } else {
            nft("add table inet host; \
                 add chain inet host forward { type filter hook forward priority filter; policy drop; }");
        }
    }
}

#[track_caller]
fn nft(words: &str) -> String {
    tool(&["nft", words])
}

/// The machine outside knows the way to the pods.
fn outside(node: &Node) -> Namespace {
    let outside = node.outside();
    outside.tool(&["ip", "route", "add", "10.66.0.0/16", "via", "192.0.2.1"]);
    outside.tool(&["ip", "-6", "route", "add", "fd66::/16", "via", "2001:db8:ff::1"]);
    outside
}

/// Who reaches whom, asked all at once: a refusal takes its time.
fn reached(asks: &[(&Namespace, SocketAddr)]) -> Vec<bool> {
    thread::scope(|scope| {
        let all: Vec<_> = asks
            .iter()
            .map(|(from, to)| scope.spawn(move || ask(from, Protocol::Tcp, *to).is_ok()))
            .collect();
        all.into_iter().map(|one| one.join().expect("an ask")).collect()
    })
}

fn reaches(from: &Namespace, to: SocketAddr) -> bool {
    ask(from, Protocol::Tcp, to).is_ok()
}

/// Nothing of pods is left, wherever records lie.
#[track_caller]
fn nothing_left(when: &str) {
    look::assert_nothing_left(when);
    let left = chained_records();
    assert!(left.is_empty(), "{when}: records of the chained plugin: {left:?}");
}

fn chained_records() -> Vec<OsString> {
    let folder = Path::new(RECORDS).with_file_name("chained").join("firewall");
    fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.file_name()).collect()
}

fn pods_pass(node: &Node, way: Way) {
    let outside = outside(node);
    let far = OUTSIDE.map(|ip| Echo::inside(&outside, ip));
    for host in HOSTS {
        close(host);
        // The test can fail: without the feature nothing passes.
        let net = Net::new(node, way, &json!(null));
        let (one, two) = (net.pod("one"), net.pod("two"));
        let (there, back) = (served(&two), served(&one));
        let mut asks: Vec<_> = far.iter().map(|far| (&one.space, far.address)).collect();
        asks.extend(back.iter().map(|pod| (&outside, pod.address)));
        if mode_of(way) == "routed" {
            asks.extend(there.iter().map(|pod| (&one.space, pod.address)));
        }
        assert_eq!(reached(&asks), vec![false; asks.len()], "{way:?} {host:?}: without the feature");
        net.gone(&[&one, &two]);

        let net = Net::new(node, way, &json!({}));
        let (one, two) = (net.pod("one"), net.pod("two"));
        for family in [0, 1] {
            let what = |words: &str| format!("{way:?} {host:?} {}: {words}", ["IPv4", "IPv6"][family]);
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let seen = ask(&one.space, protocol, far[family].address);
                assert_eq!(seen, Ok(one.ips[family]), "{}", what("to outside, and the reply"));
                let there = Echo::inside(&two.space, two.ips[family]);
                let seen = ask(&one.space, protocol, there.address);
                assert_eq!(seen, Ok(one.ips[family]), "{}", what("from pod to pod"));
            }
            let pod = Echo::inside(&one.space, one.ips[family]);
            assert!(!reaches(&outside, pod.address), "{}", what("from outside, unasked"));
            let port = translated_to(pod.address);
            let seen = ask(&outside, Protocol::Tcp, port);
            assert_eq!(seen, Ok(OUTSIDE[family]), "{}", what("from outside, by a port of the host"));
            nft("delete table inet ports");
        }
        for pod in [&one, &two] {
            net.check(pod).success();
            net.gone(&[pod]);
        }
        nothing_left(&format!("{way:?} {host:?}"));
        nft("flush ruleset");
    }
}

/// A server at each of the pod's addresses.
fn served(pod: &Pod) -> Vec<Echo> {
    pod.ips.iter().map(|ip| Echo::inside(&pod.space, *ip)).collect()
}

/// A port of the host that leads to `to`, as whoever makes one would make it.
fn translated_to(to: SocketAddr) -> SocketAddr {
    let family = usize::from(to.is_ipv6());
    let (word, host) = (["ip", "ip6"][family], NODE[family]);
    nft(&format!(
        "add table inet ports; \
         add chain inet ports prerouting {{ type nat hook prerouting priority dstnat; }}; \
         add rule inet ports prerouting {word} daddr {host} tcp dport 8080 dnat {word} to {to}"
    ));
    SocketAddr::new(host, 8080)
}

fn the_operators_drop_comes_first(node: &Node) {
    let outside = outside(node);
    let far = OUTSIDE.map(|ip| Echo::inside(&outside, ip));
    close(&["iptables", "native"]);
    for admin in ["CNI-ADMIN", "SITE-ADMIN"] {
        let net = Net::new(node, Way::Own("routed"), &json!({"iptablesAdminChainName": admin}));
        let pod = net.pod("one");
        for family in [0, 1] {
            let (word, table) = (["ip", "ip6"][family], ["iptables", "ip6tables"][family]);
            let (ip, far) = (pod.ips[family].to_string(), far[family].address);
            assert!(reaches(&pod.space, far), "{admin} {word}: before");
            tool(&[table, "-A", admin, "-s", &ip, "-j", "DROP"]);
            assert!(!reaches(&pod.space, far), "{admin} {word}: dropped by {table}");
            tool(&[table, "-F", admin]);
            assert!(reaches(&pod.space, far), "{admin} {word}: between");
            nft(&format!("add rule inet nodeplug {admin} {word} saddr {ip} drop"));
            assert!(!reaches(&pod.space, far), "{admin} {word}: dropped by nft");
            nft(&format!("flush chain inet nodeplug {admin}"));
            assert!(reaches(&pod.space, far), "{admin} {word}: after");
        }
        net.gone(&[&pod]);
    }
    nothing_left("after all");
}

fn the_operators_chain_outlives_repairs(node: &Node) {
    close(&["iptables"]);
    let net = Net::new(node, Way::Own("bridge"), &json!({}));
    let first = net.pod("first");
    nft("add rule inet nodeplug CNI-ADMIN ip saddr 10.1.0.7 drop");
    tool(&["iptables", "-A", "CNI-ADMIN", "-s", "10.1.0.7", "-j", "DROP"]);
    nft("flush chain inet nodeplug firewall");
    tool(&["iptables", "-F", "CNI-FORWARD"]);
    net.check(&first).refused(102);
    let second = net.pod("second");
    for pod in [&first, &second] {
        net.check(pod).success();
    }
    let own = nft("list chain inet nodeplug CNI-ADMIN");
    assert!(own.contains("ip saddr 10.1.0.7 drop"), "{own}");
    let theirs = tool(&["iptables", "-S", "CNI-ADMIN"]);
    assert!(theirs.contains("-A CNI-ADMIN -s 10.1.0.7/32 -j DROP"), "{theirs}");
    net.gone(&[&first, &second]);
}

fn tools_list_all(node: &Node) {
    close(&["iptables", "native"]);
    let net = Net::new(node, Way::Own("bridge"), &json!({}));
    let pod = net.pod("one");
    let expect = [
        "-P FORWARD DROP",
        "-N CNI-ADMIN",
        "-N CNI-FORWARD",
        "-A FORWARD -m comment --comment \"CNI firewall plugin rules\" -j CNI-FORWARD",
        "-A CNI-FORWARD -m comment --comment \"CNI firewall plugin admin overrides\" -j CNI-ADMIN",
        "-A CNI-FORWARD -m mark --mark 0x1000/0x1000 -m comment --comment nodeplug -j ACCEPT",
    ];
    for table in ["iptables", "ip6tables"] {
        let listed = tool(&[table, "-S"]);
        let lines: Vec<&str> =
            listed.lines().filter(|l| !l.contains("INPUT") && !l.contains("OUTPUT")).collect();
        assert_eq!(lines, expect, "{table}");
        let saved = tool(&[&format!("{table}-save")]);
        assert!(saved.contains(expect[5]), "{table}-save: {saved}");
        // The words that the reference looks for.
        let comment = ["-m", "comment", "--comment", "CNI firewall plugin rules"];
        tool(&[&[table, "-C", "FORWARD"], &comment[..], &["-j", "CNI-FORWARD"]].concat());
    }
    let ruleset = nft("list ruleset");
    for line in ["meta mark & 0x00001000 == 0x00001000 accept comment \"nodeplug\"", "chain CNI-ADMIN"] {
        assert!(ruleset.contains(line), "{line}: {ruleset}");
    }
    // What iptables makes of a saved ruleset are the same rules in other words.
    for table in ["iptables", "ip6tables"] {
        let file = format!("/run/{table}");
        fs::write(&file, tool(&[&format!("{table}-save")])).unwrap();
        tool(&["sh", "-c", &format!("{table}-restore < {file}")]);
    }
    net.check(&pod).success();
    let second = net.pod("two");
    let rules = tool(&["iptables", "-S", "CNI-FORWARD"]);
    assert_eq!(rules.lines().count(), 3, "{rules}");
    net.gone(&[&pod, &second]);
}

/// firewalld's way to close a chain.
fn a_reject_at_the_end(node: &Node) {
    let outside = outside(node);
    let far = OUTSIDE.map(|ip| Echo::inside(&outside, ip));
    nft("add table inet firewalld; \
         add chain inet firewalld filter_FORWARD \
         { type filter hook forward priority filter + 10; policy accept; }; \
         add rule inet firewalld filter_FORWARD tcp dport 1 accept; \
         add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited");
    let net = Net::new(node, Way::Own("routed"), &json!(null));
    let pod = net.pod("without");
    let asks: Vec<_> = far.iter().map(|far| (&pod.space, far.address)).collect();
    assert_eq!(reached(&asks), [false, false], "without the feature");
    net.gone(&[&pod]);
    let net = Net::new(node, Way::Own("routed"), &json!({}));
    let pod = net.pod("with");
    let asks: Vec<_> = far.iter().map(|far| (&pod.space, far.address)).collect();
    assert_eq!(reached(&asks), [true, true], "with the feature");
    net.gone(&[&pod]);
}

/// A process that owns a table as firewalld does, until it is dropped.
struct Owner(Child);

impl Owner {
    fn of(commands: &str, table: &str) -> Self {
        use std::io::Write;
        let mut child = Command::new("nft")
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("start nft");
        writeln!(child.stdin.as_mut().expect("its input"), "{commands}").expect("write to nft");
        let start = Instant::now();
        while !nft("list tables").contains(table) {
            assert!(start.elapsed() < Duration::from_secs(20), "the table never comes");
            thread::sleep(Duration::from_millis(20));
        }
        Self(child)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn an_owned_table(node: &Node) {
    let chain = "chain filter_FORWARD { type filter hook forward priority filter + 10; policy drop; }";
    let _owner = Owner::of(&format!("table inet firewalld {{ flags owner; {chain}; }}"), "inet firewalld");
    let net = Net::new(node, Way::Own("bridge"), &json!({}));
    let space = node.pod();
    let answer = net.maker.add(&id("one"), &space);
    answer.refused(100);
    for word in ["filter_FORWARD", "inet firewalld", "zone `trusted`"] {
        assert!(answer.message().contains(word), "{word}: {answer:?}");
    }
    nothing_left("after the refusal");
}

/// Two bridges of one policy.
fn same_bridge(node: &Node) {
    let outside = outside(node);
    let far = Echo::inside(&outside, OUTSIDE[0]);
    let keys = json!({"ingressPolicy": "same-bridge"});
    let nets = ["foo", "bar", "open"].map(|name| {
        let keys = if name == "open" { json!({}) } else { keys.clone() };
        Net::on(node, Way::Own("bridge"), on_bridge(name), &keys)
    });
    let pods: Vec<[Pod; 2]> =
        nets.iter().enumerate().map(|(n, net)| ["a", "b"].map(|w| net.pod(&format!("{w}{n}")))).collect();
    let [[foo1, foo2], [bar1, bar2], [open1, _]] = pods.as_slice() else { panic!("three networks") };
    for family in [0, 1] {
        let at = |pod: &Pod| Echo::inside(&pod.space, pod.ips[family]);
        let (one, two, third) = (at(foo2), at(bar2), at(open1));
        let asks = [
            (&foo1.space, one.address),
            (&bar1.space, two.address),
            (&foo1.space, two.address),
            (&bar1.space, one.address),
            (&foo1.space, third.address),
            (&open1.space, one.address),
            (&outside, one.address),
        ];
        // As with the reference's plugin, the policy holds between the bridges that have it.
        let expect = [true, true, false, false, true, true, true];
        assert_eq!(reached(&asks), expect, "family {family}");
    }
    assert!(reaches(&foo1.space, far.address), "to outside");
    // A port of the host leads back to the same bridge.
    let server = Echo::inside(&foo2.space, foo2.ips[0]);
    let port = translated_to(server.address);
    assert!(reaches(&foo1.space, port), "by a port of the host");
    assert!(!reaches(&bar1.space, port), "by a port of the host from another bridge");
    for (net, pods) in nets.iter().zip(&pods) {
        for pod in pods {
            net.check(pod).success();
            net.gone(&[pod]);
        }
    }
    nothing_left("after all");
}

/// A network on a bridge of its own: 10.66.N.0/24 and fd66:N::/64.
fn on_bridge(name: &str) -> Value {
    let n = name.bytes().next().unwrap_or_default();
    let mut config = network("bridge", &[&format!("10.66.{n}.0/24"), &format!("fd66:{n:x}::/64")]);
    config["name"] = json!(name);
    config["bridge"] = json!(name);
    config
}

fn isolated(node: &Node, modes: &[&'static str]) {
    for mode in modes {
        let outside = outside(node);
        let far = OUTSIDE.map(|ip| Echo::inside(&outside, ip));
        let open = Net::new(node, Way::Own(mode), &json!(null));
        let (one, two) = (open.pod("one"), open.pod("two"));
        let (at_one, at_two) = (served(&one), served(&two));
        let asks: Vec<_> =
            (0..2).flat_map(|f| [(&one.space, at_two[f].address), (&two.space, at_one[f].address)]).collect();
        assert_eq!(reached(&asks), [true; 4], "{mode}: without the policy");
        open.gone(&[&one, &two]);

        let closed = Net::new(node, Way::Own(mode), &json!({"ingressPolicy": "isolated"}));
        let (one, two) = (closed.pod("one"), closed.pod("two"));
        let (at_one, at_two) = (served(&one), served(&two));
        let asks: Vec<_> =
            (0..2).flat_map(|f| [(&one.space, at_two[f].address), (&two.space, at_one[f].address)]).collect();
        assert_eq!(reached(&asks), [false; 4], "{mode}: with the policy");
        let asks: Vec<_> =
            (0..2).flat_map(|f| [(&one.space, far[f].address), (&outside, at_one[f].address)]).collect();
        assert_eq!(reached(&asks), [true; 4], "{mode}: to and from outside");
        assert!(served(&one).iter().all(|s| harness::traffic::ask_here(Protocol::Tcp, s.address).is_ok()));
        for pod in [&one, &two] {
            closed.check(pod).success();
            closed.gone(&[pod]);
        }
        nothing_left(mode);
    }
}

/// Pods of another network, with and without the feature, routed and on a bridge.
fn isolated_from_open_pods(node: &Node) {
    let closed = Net::new(node, Way::Own("routed"), &json!({"ingressPolicy": "isolated"}));
    let on_closed_bridge =
        Net::on(node, Way::Own("bridge"), on_bridge("shut"), &json!({"ingressPolicy": "isolated"}));
    let open_bridge = Net::on(node, Way::Own("bridge"), on_bridge("open"), &json!({}));
    let mut routed = network("routed", &["10.66.1.0/24", "fd66:1::/64"]);
    routed["name"] = json!("others");
    let plain = Net::on(node, Way::Own("routed"), routed, &json!(null));
    let targets = [(&closed, closed.pod("closed")), (&on_closed_bridge, on_closed_bridge.pod("shut"))];
    let others = [(&open_bridge, open_bridge.pod("open")), (&plain, plain.pod("plain"))];
    for family in [0, 1] {
        let at: Vec<Echo> = targets.iter().map(|(_, p)| Echo::inside(&p.space, p.ips[family])).collect();
        let back: Vec<Echo> = others.iter().map(|(_, p)| Echo::inside(&p.space, p.ips[family])).collect();
        let mut asks = Vec::new();
        for (_, other) in &others {
            asks.extend(at.iter().map(|to| (&other.space, to.address)));
        }
        asks.push((&targets[0].1.space, at[1].address));
        asks.push((&targets[1].1.space, at[0].address));
        assert_eq!(reached(&asks), [false; 6], "family {family}: to the isolated");
        let mut asks = Vec::new();
        for (_, target) in &targets {
            asks.extend(back.iter().map(|to| (&target.space, to.address)));
        }
        assert_eq!(reached(&asks), [true; 4], "family {family}: from the isolated, and the replies");
    }
    for (net, pod) in targets.iter().chain(&others) {
        net.gone(&[pod]);
    }
    nothing_left("after all");
}

fn isolated_chained(node: &Node) {
    let net = Net::new(node, Way::Chained, &json!({"ingressPolicy": "isolated"}));
    let open = Net::new(node, Way::Chained, &json!(null));
    let (one, two, three) = (net.pod("one"), net.pod("two"), open.pod("three"));
    let (at_one, at_two, at_three) = (served(&one), served(&two), served(&three));
    for family in [0, 1] {
        let asks = [
            (&one.space, at_two[family].address),
            (&two.space, at_one[family].address),
            (&three.space, at_one[family].address),
            (&one.space, at_three[family].address),
        ];
        assert_eq!(reached(&asks), [false; 4], "family {family}");
    }
    net.check(&one).success();
    let host = look::elements().iter().filter(|e| e.contains("veth")).count();
    assert_eq!(host, 2, "a port for each isolated pod: {:?}", look::elements());
    net.gone(&[&one, &two]);
    open.gone(&[&three]);
    nothing_left("after all");
}

fn same_bridge_without_a_bridge(node: &Node) {
    let net = Net::new(node, Way::Own("routed"), &json!({"ingressPolicy": "same-bridge"}));
    let answer = net.maker.add(&id("one"), &node.pod());
    answer.refused(7);
    assert!(answer.message().contains("same-bridge") && answer.message().contains("isolated"), "{answer:?}");
    nothing_left("after the refusal");
}

/// Both on one node, in either order: each finds the other's chains and leaves them.
fn beside_the_reference(node: &Node) {
    let outside = outside(node);
    let far = OUTSIDE.map(|ip| Echo::inside(&outside, ip));
    for ours_first in [true, false] {
        close(&["iptables"]);
        let net = Net::new(node, Way::Own("routed"), &json!({}));
        let mut theirs = Net::on(node, Way::Chained, on_bridge("theirs"), &json!(null));
        node.install(&Path::new(REFERENCE).join("firewall"), "reference-firewall");
        let config = json!({"cniVersion": "1.0.0", "name": "theirs", "type": "reference-firewall",
                            "backend": "iptables", "ingressPolicy": "same-bridge"});
        theirs.behind = Some(Runtime::of(Flavour::Ours, config));
        let (one, two);
        if ours_first {
            one = net.pod("ours");
            two = theirs.pod("theirs");
        } else {
            two = theirs.pod("theirs");
            one = net.pod("ours");
        }
        for family in [0, 1] {
            let asks = [(&one.space, far[family].address), (&two.space, far[family].address)];
            assert_eq!(reached(&asks), [true, true], "ours first {ours_first}, family {family}");
        }
        net.check(&one).success();
        theirs.check(&two).success();
        for table in ["iptables", "ip6tables"] {
            let listed = tool(&[table, "-S"]);
            let count = |line: &str| listed.lines().filter(|l| l.ends_with(line)).count();
            assert_eq!((count("-j CNI-FORWARD"), count("-j CNI-ADMIN")), (1, 1), "{listed}");
        }
        theirs.gone(&[&two]);
        net.check(&one).success();
        net.gone(&[&one]);
        nothing_left("after both");
        nft("flush ruleset");
    }
}

/// What restarts and flushes take away, and the words of which CHECK has one.
const LOSSES: [(&str, &[&str], &str); 9] = [
    ("iptables -F", &["iptables", "-F"], "`FORWARD` of `ip filter`"),
    ("ip6tables -F", &["ip6tables", "-F", "FORWARD"], "`FORWARD` of `ip6 filter`"),
    ("CNI-FORWARD flushed", &["iptables", "-F", "CNI-FORWARD"], "`CNI-FORWARD` of `ip filter`"),
    ("the native chain flushed", &["nft", "flush chain inet host forward"], "`forward` of `inet host`"),
    ("our chain flushed", &["nft", "flush chain inet nodeplug firewall"], "`firewall`"),
    ("our last chain flushed", &["nft", "flush chain inet nodeplug firewall-end"], "`firewall-end`"),
    ("our table deleted", &["nft", "delete table inet nodeplug"], "nodeplug"),
    ("our sets emptied", &["nft", "flush set inet nodeplug firewall4-pods"], "10.66.0."),
    ("all flushed", &["nft", "flush ruleset"], "nodeplug"),
];

fn flushed(node: &Node) {
    let outside = outside(node);
    let far = OUTSIDE.map(|ip| Echo::inside(&outside, ip));
    for way in [Way::Own("routed"), Way::Chained] {
        close(&["iptables", "native"]);
        let net = Net::new(node, way, &json!({}));
        for (loss, words, expect) in LOSSES {
            let pod = net.pod("before");
            net.check(&pod).success();
            tool(words);
            let answer = net.check(&pod);
            answer.refused(102);
            assert!(answer.message().contains(expect), "{way:?}, {loss}: {answer:?}");
            // The host's firewall comes back, ours with the next ADD.
            if loss == "all flushed" {
                close(&["iptables", "native"]);
            }
            let later = net.pod("after");
            net.check(&later).success();
            let asks: Vec<_> = far.iter().map(|far| (&later.space, far.address)).collect();
            assert_eq!(reached(&asks), [true, true], "{way:?}, {loss}");
            net.gone(&[&pod, &later]);
            nothing_left(loss);
        }
        nft("flush ruleset");
    }
}

fn many_at_once(node: &Node) {
    close(&["iptables", "native"]);
    let net = Net::new(node, Way::Own("routed"), &json!({}));
    let pods: Vec<(String, Namespace)> = (0..16).map(|n| (id(&format!("p{n}")), node.pod())).collect();
    let answers: Vec<Answer> = thread::scope(|scope| {
        let calls: Vec<_> = pods.iter().map(|(id, pod)| scope.spawn(|| net.maker.add(id, pod))).collect();
        calls.into_iter().map(|c| c.join().unwrap()).collect()
    });
    for (answer, (id, pod)) in answers.iter().zip(&pods) {
        net.maker.check(id, pod, &answer.success()).success();
    }
    for chain in ["ip filter FORWARD", "ip6 filter FORWARD", "inet host forward"] {
        let listed = nft(&format!("list chain {chain}"));
        assert_eq!(listed.matches("comment").count(), 1, "{listed}");
    }
    for family in ["ip", "ip6"] {
        let listed = nft(&format!("list chain {family} filter CNI-FORWARD"));
        assert_eq!(listed.matches("comment").count(), 2, "{listed}");
    }
    for (id, _) in &pods {
        assert!(net.maker.del_blind(id).ok());
    }
    nothing_left("after all");
}

fn without_its_record(node: &Node) {
    for mode in ["routed", "bridge"] {
        let net = Net::new(node, Way::Own(mode), &json!({"ingressPolicy": "isolated"}));
        let (lost, kept) = (net.pod("lost"), net.pod("kept"));
        fs::remove_file(Path::new(RECORDS).join(format!("{}:eth0", lost.id))).expect("the record's file");
        net.gone(&[&lost]);
        let left: Vec<String> = look::elements().into_iter().filter(|e| e.contains(&lost.id)).collect();
        assert!(left.is_empty(), "{mode}: {left:?}");
        net.check(&kept).success();
        net.gone(&[&kept]);
        nothing_left(mode);
    }
}

/// The chained call alone, behind a pod of the reference's; then DEL without namespace or result.
fn killed(node: &Node, command: &str) {
    close(&["iptables", "native"]);
    let net = Net::new(node, Way::Chained, &json!({"ingressPolicy": "isolated"}));
    let maker = Net { behind: None, maker: net.maker.clone(), node };
    let (pod, firewall) = (maker.pod("killed"), net.behind.as_ref().expect("the firewall"));
    let call = |command: &str| firewall.call(command, &pod.id, pod.space.name(), Some(&pod.result));
    sweep(
        || {
            if command == "DEL" {
                call("ADD").run().success();
            }
            ((), call(command))
        },
        |(), when| {
            let answer = firewall.del_blind(&pod.id);
            assert!(answer.ok(), "{command} {when}: {answer:?}");
            let left = look::elements();
            assert!(left.is_empty(), "{command} {when}: {left:?}");
            assert!(chained_records().is_empty(), "{command} {when}: {:?}", chained_records());
        },
    );
    maker.gone(&[&pod]);
}

fn gc_takes_all(node: &Node) {
    for way in [Way::Own("bridge"), Way::Chained] {
        let net = Net::new(node, way, &json!({"ingressPolicy": "same-bridge"}));
        let (stale, kept) = (net.pod("stale"), net.pod("kept"));
        let firewall = net.behind.as_ref().unwrap_or(&net.maker);
        let bridges = || nft("list set inet nodeplug firewall-bridges").contains("cni0");
        let keys = ["cni.dev/valid-attachments"];
        assert!(firewall.gc(&[(&kept.id, "eth0")], &keys).ok(), "{way:?}");
        let left = look::elements();
        assert!(!left.iter().any(|e| e.contains(&stale.id)), "{way:?}: {left:?}");
        assert!(bridges(), "{way:?}: a bridge with a pod keeps its policy");
        net.check(&kept).success();
        assert!(firewall.gc(&[], &keys).ok(), "{way:?}");
        assert!(!bridges(), "{way:?}: a bridge without pods has none");
        net.gone(&[&stale, &kept]);
        nothing_left(&format!("{way:?}"));
    }
}

fn refusals(node: &Node) {
    let cases = [
        (json!({"backend": "firewalld"}), 2, "`backend`"),
        (json!({"firewalldZone": "trusted"}), 2, "`firewalldZone`"),
        (json!({"ingressPolicy": "shut"}), 7, "`ingressPolicy`"),
        (json!({"backend": "ipset"}), 7, "`backend`"),
        (json!({"iptablesAdminChainName": "FORWARD"}), 7, "`iptablesAdminChainName`"),
    ];
    let before = look::rules();
    for way in [Way::Own("routed"), Way::Chained] {
        for (keys, code, place) in &cases {
            let net = Net::new(node, way, keys);
            let space = node.pod();
            let runtime = net.behind.as_ref().unwrap_or(&net.maker);
            let previous = json!({"cniVersion": "1.0.0", "interfaces": [], "ips": []});
            let previous = net.behind.as_ref().map(|_| &previous);
            let answer = runtime.call("ADD", &id("one"), space.name(), previous).run();
            answer.refused(*code);
            assert!(answer.message().contains(place), "{way:?} {keys}: {answer:?}");
        }
    }
    assert_eq!(look::rules(), before, "nothing is made");
    nothing_left(NAME);
}
