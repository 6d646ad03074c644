//! nf_tables against the kernel: each test in a network namespace of its own, checked by what the
//! `nft` command prints.

// What stands around the tests is theirs too; the lints know the functions marked as tests alone.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::unwrap_used)]

use std::net::IpAddr;
use std::process::Command;
use std::thread;

use cni::kernel::nft::{
    Filter, Forward, Found, Ingress, Masquerade, Nft, Passage, PortRules, Trace, comment,
};
use cni::owner::Owner;
use cni::port::{Condition, Protocol};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` in a new network namespace, on a thread of its own; threads that it starts inherit it.
/// Says so where that is not possible, and fails there in CI.
fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    let run = thread::spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => test(),
        Err(e) if std::env::var_os("CI").is_some_and(|v| v == "true") => panic!("no network namespace: {e}"),
        Err(e) => eprintln!("skipped: no network namespace: {e}; run as root"),
    });
    if let Err(panic) = run.join() {
        std::panic::resume_unwind(panic);
    }
}

/// What `nft` says; it is started from this thread and so in its namespace.
fn nft(words: &str) -> String {
    let output = Command::new("nft").args(words.split(' ')).output().expect("the `nft` command is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {words}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn what(keep: &[&str]) -> Masquerade {
    Masquerade { network: "pods".into(), keep: keep.iter().map(|n| n.parse().unwrap()).collect() }
}

fn owner(id: &str) -> Owner {
    Owner { container_id: id.into(), ifname: "eth0".into() }
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|a| a.parse().unwrap()).collect()
}

fn put(
    kernel: &mut Nft,
    what: &Masquerade,
    pod: &[IpAddr],
    owner: &Owner,
    lives: &dyn Fn(&str) -> bool,
) -> node::Result<()> {
    kernel.put(&[masquerade(what, pod)], owner, lives)
}

fn take(kernel: &mut Nft, pod: &[IpAddr], owner: &Owner) -> node::Result<()> {
    kernel.take(&[Trace::Masquerade(pod.to_vec())], owner)
}

fn lacks(kernel: &mut Nft, what: &Masquerade, pod: &[IpAddr], owner: &Owner) -> node::Result<Vec<String>> {
    kernel.lacks(&[masquerade(what, pod)], owner)
}

/// The addresses that elements of `owner` name, each once.
fn found(kernel: &mut Nft, owner: &Owner) -> node::Result<Vec<IpAddr>> {
    let mut all: Vec<IpAddr> = kernel.found_of(owner)?.iter().filter_map(Found::address).collect();
    all.sort_unstable();
    Ok(all)
}

fn masquerade(what: &Masquerade, pod: &[IpAddr]) -> Filter {
    Filter::Masquerade(what.clone(), pod.to_vec())
}

const MASQUERADE: &str = r#"table inet nodeplug {
	set pods4-pods-NAME {
		type ipv4_addr
		elements = { 10.88.0.5 comment "abc:eth0" }
	}

	set pods6-pods-NAME {
		type ipv6_addr
		elements = { fd00::5 comment "abc:eth0" }
	}

	chain masq-pods-NAME {
		type nat hook postrouting priority srcnat; policy accept;
		ip daddr 10.0.0.0/8 return comment "nodeplug 1 of 12"
		ip daddr 10.128.0.0/9 return comment "nodeplug 2 of 12"
		ip6 daddr fd00::/8 return comment "nodeplug 3 of 12"
		ip6 daddr 2001:db8::/33 return comment "nodeplug 4 of 12"
		ip daddr 0.0.0.0/0 return comment "nodeplug 5 of 12"
		ip6 daddr ::/0 return comment "nodeplug 6 of 12"
		ip daddr 224.0.0.0/4 return comment "nodeplug 7 of 12"
		ip daddr 255.255.255.255 return comment "nodeplug 8 of 12"
		ip6 daddr ff00::/8 return comment "nodeplug 9 of 12"
		ip6 daddr fe80::/10 return comment "nodeplug 10 of 12"
		ip saddr @pods4-pods-NAME masquerade fully-random comment "nodeplug 11 of 12"
		ip6 saddr @pods6-pods-NAME masquerade fully-random comment "nodeplug 12 of 12"
	}
}
"#;

#[test]
fn the_ruleset_is_what_nft_prints_and_loads_again() {
    in_a_namespace(|| {
        let what = what(&["10.0.0.0/8", "10.128.0.0/9", "fd00::/8", "2001:db8::/33", "0.0.0.0/0", "::/0"]);
        let name = what.chain().replace("masq-pods-", "");
        let pod = addresses(&["10.88.0.5", "fd00::5"]);
        let mut kernel = Nft::open().unwrap();
        put(&mut kernel, &what, &pod, &owner("abc"), &|_| false).unwrap();
        let listed = nft("list ruleset");
        assert_eq!(listed, MASQUERADE.replace("NAME", &name));
        let file = std::env::temp_dir().join(format!("nodeplug-nft-{}", std::process::id()));
        std::fs::write(&file, &listed).unwrap();
        nft("flush ruleset");
        nft(&format!("-f {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(lacks(&mut kernel, &what, &pod, &owner("abc")).unwrap(), [""; 0]);
    });
}

const SPOOF: &str = r#"table bridge nodeplug {
	set ports {
		type ifname
		elements = { "np0123456789ab" comment "abc:eth0" }
	}

	set macs {
		type ifname . ether_addr
		elements = { "np0123456789ab" . 02:00:00:00:00:09 comment "abc:eth0" }
	}

	chain prerouting {
		type filter hook prerouting priority dstnat; policy accept;
		iifname . ether saddr @macs return comment "nodeplug 1 of 2"
		iifname @ports drop comment "nodeplug 2 of 2"
	}
}
"#;

const FIREWALL: &str = r#"table inet nodeplug {
	set firewall4-pods {
		type ipv4_addr
		elements = { 10.88.0.5 comment "abc:eth0" }
	}

	set firewall6-pods {
		type ipv6_addr
		elements = { fd00::5 comment "abc:eth0" }
	}

	set firewall4-isolated {
		type ipv4_addr
	}

	set firewall6-isolated {
		type ipv6_addr
	}

	set firewall-bridges {
		type ifname
		elements = { "cni0" comment "nodeplug" }
	}

	set firewall-same {
		type ifname . ifname
		elements = { "cni0" . "cni0" comment "nodeplug" }
	}

	chain CNI-ADMIN {
	}

	chain admin-CNI-ADMIN {
		type filter hook forward priority mangle + 9; policy accept;
		jump CNI-ADMIN comment "nodeplug 1 of 1"
	}

	chain firewall-isolation {
		ct state established,related return comment "nodeplug 1 of 9"
		iifname "np*" ip daddr @firewall4-isolated drop comment "nodeplug 2 of 9"
		iifname "np*" ip6 daddr @firewall6-isolated drop comment "nodeplug 3 of 9"
		iifname @firewall-bridges ip daddr @firewall4-isolated drop comment "nodeplug 4 of 9"
		iifname @firewall-bridges ip6 daddr @firewall6-isolated drop comment "nodeplug 5 of 9"
		ip saddr @firewall4-pods ip daddr @firewall4-isolated drop comment "nodeplug 6 of 9"
		ip6 saddr @firewall6-pods ip6 daddr @firewall6-isolated drop comment "nodeplug 7 of 9"
		iifname . oifname @firewall-same return comment "nodeplug 8 of 9"
		iifname @firewall-bridges oifname @firewall-bridges drop comment "nodeplug 9 of 9"
	}

	chain firewall {
		type filter hook forward priority mangle + 10; policy accept;
		meta mark set meta mark & 0xffffefff comment "nodeplug 1 of 8"
		jump firewall-isolation comment "nodeplug 2 of 8"
		ip saddr @firewall4-pods meta mark set meta mark | 0x00001000 comment "nodeplug 3 of 8"
		ip6 saddr @firewall6-pods meta mark set meta mark | 0x00001000 comment "nodeplug 4 of 8"
		ip daddr @firewall4-pods ct state established,related meta mark set meta mark | 0x00001000 comment "nodeplug 5 of 8"
		ip6 daddr @firewall6-pods ct state established,related meta mark set meta mark | 0x00001000 comment "nodeplug 6 of 8"
		ip daddr @firewall4-pods ct status dnat meta mark set meta mark | 0x00001000 comment "nodeplug 7 of 8"
		ip6 daddr @firewall6-pods ct status dnat meta mark set meta mark | 0x00001000 comment "nodeplug 8 of 8"
	}

	chain firewall-end {
		type filter hook forward priority 200; policy accept;
		meta mark set meta mark & 0xffffefff comment "nodeplug 1 of 1"
	}
}
"#;

#[test]
fn the_firewall_is_what_nft_prints_and_loads_again() {
    in_a_namespace(|| {
        let passage = Passage {
            admin_chain: "CNI-ADMIN".into(),
            addresses: addresses(&["10.88.0.5", "fd00::5"]),
            ingress: Ingress::SameBridge("cni0".into()),
        };
        let filters = [Filter::Firewall(passage)];
        let mut kernel = Nft::open().unwrap();
        kernel.put(&filters, &owner("abc"), &|_| false).unwrap();
        let listed = nft("list ruleset");
        assert_eq!(listed, FIREWALL);
        let file = std::env::temp_dir().join(format!("nodeplug-firewall-{}", std::process::id()));
        std::fs::write(&file, &listed).unwrap();
        nft("flush ruleset");
        nft(&format!("-f {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(kernel.lacks(&filters, &owner("abc")).unwrap(), [""; 0]);
        kernel.take(&[filters[0].trace()], &owner("abc")).unwrap();
        assert_eq!(nft("list set inet nodeplug firewall4-pods").matches("10.88").count(), 0);
    });
}

#[test]
fn the_mac_check_is_two_elements_and_goes_with_or_without_the_mac() {
    in_a_namespace(|| {
        let (port, mac, who) = ("np0123456789ab", [2, 0, 0, 0, 0, 9], owner("abc"));
        let mut kernel = Nft::open().unwrap();
        kernel.no_spoof_check(port, None, &who).unwrap();
        for known in [Some(mac), None] {
            kernel.spoof_check(port, mac, &who).unwrap();
            kernel.spoof_check(port, mac, &who).unwrap();
            assert_eq!(nft("list ruleset"), SPOOF);
            assert_eq!(kernel.spoof_missing(port, mac, &who).unwrap(), [""; 0]);
            assert_eq!(kernel.spoof_missing(port, [2, 0, 0, 0, 0, 8], &who).unwrap().len(), 1);
            assert_eq!(kernel.spoof_checked_by(&who).unwrap(), [port]);
            kernel.no_spoof_check(port, known, &owner("other")).unwrap();
            assert_eq!(nft("list ruleset"), SPOOF);
            kernel.no_spoof_check(port, known, &who).unwrap();
            kernel.no_spoof_check(port, known, &who).unwrap();
            assert!(kernel.spoof_owners().unwrap().is_empty());
            assert_eq!(kernel.spoof_missing(port, mac, &who).unwrap().len(), 2);
        }
    });
}

#[test]
fn thirty_two_at_once_make_one_chain_and_lose_no_element() {
    in_a_namespace(|| {
        let pods = |n: u8| vec![IpAddr::from([10, 88, 0, n])];
        for network in ["one", "two"] {
            let what = Masquerade { network: network.into(), keep: vec!["10.0.0.0/8".parse().unwrap()] };
            let gate = std::sync::Barrier::new(32);
            thread::scope(|scope| {
                for n in 0..32 {
                    let (what, gate) = (&what, &gate);
                    scope.spawn(move || {
                        gate.wait();
                        put(&mut Nft::open().unwrap(), what, &pods(n), &owner(&n.to_string()), &|_| false)
                            .unwrap();
                    });
                }
            });
            let listed = nft("list ruleset");
            let name = what.chain().replace("masq-", "");
            for set in ["pods4", "pods6"] {
                let rule = format!("saddr @{set}-{name} masquerade");
                assert_eq!(listed.matches(&rule).count(), 1, "{listed}");
            }
            let mut kernel = Nft::open().unwrap();
            for n in 0..32 {
                assert_eq!(lacks(&mut kernel, &what, &pods(n), &owner(&n.to_string())).unwrap(), [""; 0]);
            }
            assert_eq!(kernel.found().unwrap().len(), 32, "the second network took the addresses over");
        }
    });
}

#[test]
fn adding_and_removing_at_once_ends_with_nothing() {
    in_a_namespace(|| {
        let what = what(&[]);
        thread::scope(|scope| {
            for n in 0..16 {
                let what = &what;
                scope.spawn(move || {
                    let (pod, who) = ([IpAddr::from([10, 88, 1, n])], owner(&n.to_string()));
                    for _ in 0..5 {
                        let mut kernel = Nft::open().unwrap();
                        put(&mut kernel, what, &pod, &who, &|_| false).unwrap();
                        take(&mut kernel, &pod, &who).unwrap();
                        kernel.tidy().unwrap();
                    }
                });
            }
        });
        let mut kernel = Nft::open().unwrap();
        assert!(kernel.found().unwrap().is_empty());
        kernel.tidy().unwrap();
        assert_eq!(nft("list ruleset"), "table inet nodeplug {\n}\n");
    });
}

#[test]
fn an_element_is_its_owners_until_the_address_is_given_to_another() {
    in_a_namespace(|| {
        let (what, pod) = (what(&[]), addresses(&["10.88.0.5", "fd00::5"]));
        let mut kernel = Nft::open().unwrap();
        assert!(!kernel.has_table().unwrap());
        take(&mut kernel, &pod, &owner("a")).unwrap();
        assert!(found(&mut kernel, &owner("a")).unwrap().is_empty());
        put(&mut kernel, &what, &pod, &owner("a"), &|_| false).unwrap();
        assert!(kernel.has_table().unwrap());
        put(&mut kernel, &what, &pod, &owner("b"), &|_| false).unwrap();
        assert_eq!(found(&mut kernel, &owner("b")).unwrap(), pod);
        let lines = lacks(&mut kernel, &what, &pod, &owner("a")).unwrap();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with("belongs to `b:eth0`"), "{lines:?}");
        take(&mut kernel, &pod, &owner("a")).unwrap();
        assert_eq!(found(&mut kernel, &owner("b")).unwrap(), pod);
        take(&mut kernel, &pod, &owner("b")).unwrap();
        take(&mut kernel, &pod, &owner("b")).unwrap();
        assert!(kernel.found().unwrap().is_empty());
    });
}

#[test]
fn a_long_id_is_found_by_its_comment() {
    in_a_namespace(|| {
        let (what, pod) = (what(&[]), addresses(&["10.88.0.5"]));
        let (long, twin) = (owner(&"a".repeat(200)), owner(&format!("{}b", "a".repeat(199))));
        let mut kernel = Nft::open().unwrap();
        put(&mut kernel, &what, &pod, &long, &|_| false).unwrap();
        assert!(nft("list ruleset").contains(&comment(&long)));
        assert_eq!(found(&mut kernel, &long).unwrap(), pod);
        assert!(found(&mut kernel, &twin).unwrap().is_empty());
        take(&mut kernel, &pod, &twin).unwrap();
        assert_eq!(lacks(&mut kernel, &what, &pod, &long).unwrap(), [""; 0]);
        take(&mut kernel, &pod, &long).unwrap();
        assert!(kernel.found().unwrap().is_empty());
    });
}

#[test]
fn other_settings_are_another_chain_and_the_old_one_goes_when_it_is_empty() {
    in_a_namespace(|| {
        let (old, new) = (what(&["10.0.0.0/8"]), what(&["10.0.0.0/9"]));
        let (first, second) = (addresses(&["10.88.0.1"]), addresses(&["10.88.0.2"]));
        let mut kernel = Nft::open().unwrap();
        put(&mut kernel, &old, &first, &owner("a"), &|_| false).unwrap();
        put(&mut kernel, &old, &second, &owner("b"), &|_| false).unwrap();
        // The second vanished without a DEL, and its address goes to a pod of the new settings.
        put(&mut kernel, &new, &second, &owner("c"), &|_| false).unwrap();
        assert_eq!(lacks(&mut kernel, &new, &second, &owner("c")).unwrap(), [""; 0]);
        assert_eq!(lacks(&mut kernel, &old, &first, &owner("a")).unwrap(), [""; 0]);
        assert_eq!(kernel.found().unwrap().len(), 2);
        kernel.tidy().unwrap();
        assert!(nft("list ruleset").contains(&old.chain()));
        take(&mut kernel, &first, &owner("a")).unwrap();
        kernel.tidy().unwrap();
        let listed = nft("list ruleset");
        assert!(!listed.contains(&old.chain()) && listed.contains(&new.chain()), "{listed}");
        put(&mut kernel, &old, &first, &owner("a"), &|_| false).unwrap();
        assert_eq!(lacks(&mut kernel, &old, &first, &owner("a")).unwrap(), [""; 0]);
    });
}

/// Commands, and what CHECK has to say after them.
fn damages(chain: &str, set: &str) -> Vec<(Vec<String>, &'static str)> {
    let base = "type nat hook postrouting priority 100 ;";
    vec![
        (vec!["flush ruleset".into()], "the table `inet nodeplug` is missing"),
        (vec!["delete table inet nodeplug".into()], "the table `inet nodeplug` is missing"),
        (vec![format!("flush chain inet nodeplug {chain}")], "masquerade fully-random` of the chain"),
        (vec![format!("delete element inet nodeplug {set} {{ 10.88.0.5 }}")], "`10.88.0.5` in the set"),
        (vec![format!("add rule inet nodeplug {chain} counter")], "has 8 rules instead of 7"),
        (vec![format!("insert rule inet nodeplug {chain} accept")], "has 8 rules instead of 7"),
        (
            vec![format!("flush chain inet nodeplug {chain}"), format!("delete chain inet nodeplug {chain}")],
            "is missing",
        ),
        (
            vec![
                format!("flush chain inet nodeplug {chain}"),
                format!("delete chain inet nodeplug {chain}"),
                format!("add chain inet nodeplug {chain}"),
            ],
            "of another kind",
        ),
        (
            vec![
                format!("flush chain inet nodeplug {chain}"),
                format!("delete chain inet nodeplug {chain}"),
                format!("add chain inet nodeplug {chain} {{ {} }}", base.replace("100", "99")),
            ],
            "of another kind",
        ),
        (
            vec![format!("flush chain inet nodeplug {chain}"), format!("delete set inet nodeplug {set}")],
            "is missing",
        ),
        (
            vec![
                format!("flush chain inet nodeplug {chain}"),
                format!("delete set inet nodeplug {set}"),
                format!("add set inet nodeplug {set} {{ type ether_addr; }}"),
            ],
            "of another kind",
        ),
    ]
}

#[test]
fn every_damage_is_named_and_repaired() {
    in_a_namespace(|| {
        let what = what(&["10.0.0.0/8"]);
        let (chain, pod, who) = (what.chain(), addresses(&["10.88.0.5"]), owner("abc"));
        let set = chain.replace("masq-", "pods4-");
        let mut kernel = Nft::open().unwrap();
        let handle = |rule: &str| {
            let listed = nft("-a list ruleset");
            let line = listed.lines().find(|l| l.contains(rule)).unwrap().to_owned();
            line.rsplit_once("# handle ").unwrap().1.to_owned()
        };
        let broken = |kernel: &mut Nft, words: &[String], expect: &str| {
            for command in words {
                nft(command);
            }
            let lines = lacks(kernel, &what, &pod, &who).unwrap();
            assert!(lines.iter().any(|l| l.contains(expect)), "{words:?}: {lines:?}");
            put(kernel, &what, &pod, &who, &|_| false).unwrap();
            assert_eq!(lacks(kernel, &what, &pod, &who).unwrap(), [""; 0], "{words:?}");
        };
        put(&mut kernel, &what, &pod, &who, &|_| false).unwrap();
        for (words, expect) in damages(&chain, &set) {
            broken(&mut kernel, &words, expect);
        }
        for (rule, instead) in [
            ("224.0.0.0/4", "ip daddr 224.0.0.0/5 return"),
            ("saddr @pods4", "ip saddr 10.88.0.5 masquerade"),
        ] {
            let words = format!("replace rule inet nodeplug {chain} handle {} {instead}", handle(rule));
            broken(&mut kernel, &[words], "is missing");
        }
        let words = format!("delete rule inet nodeplug {chain} handle {}", handle("10.0.0.0/8"));
        broken(&mut kernel, &[words], "the rule `ip daddr 10.0.0.0/8 return` of the chain");
    });
}

#[test]
fn asking_whether_nf_tables_is_usable_changes_nothing() {
    in_a_namespace(|| {
        let mut kernel = Nft::open().unwrap();
        kernel.usable(&[masquerade(&what(&[]), &[])]).unwrap();
        kernel.spoof_usable().unwrap();
        assert_eq!(nft("list ruleset"), "");
        put(&mut kernel, &what(&[]), &addresses(&["10.88.0.5"]), &owner("a"), &|_| false).unwrap();
        let before = nft("list ruleset");
        kernel.usable(&[masquerade(&what(&[]), &[])]).unwrap();
        assert_eq!(nft("list ruleset"), before);
    });
}

#[test]
fn a_thousand_kept_networks_fit_into_one_transaction() {
    in_a_namespace(|| {
        let keep: Vec<String> = (0..1000).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250)).collect();
        let what = what(&keep.iter().map(String::as_str).collect::<Vec<_>>());
        let pod = addresses(&["10.88.0.5"]);
        let mut kernel = Nft::open().unwrap();
        put(&mut kernel, &what, &pod, &owner("a"), &|_| false).unwrap();
        assert_eq!(lacks(&mut kernel, &what, &pod, &owner("a")).unwrap(), [""; 0]);
    });
}

#[test]
fn every_element_of_a_full_node_is_listed() {
    in_a_namespace(|| {
        let what = what(&[]);
        let mut kernel = Nft::open().unwrap();
        for n in 0..2000_u16 {
            let [a, b] = n.to_be_bytes();
            put(&mut kernel, &what, &[IpAddr::from([10, 88, a, b])], &owner(&format!("{n:064}")), &|_| false)
                .unwrap();
        }
        assert_eq!(kernel.found().unwrap().len(), 2000);
    });
}

fn port_rules() -> PortRules {
    let net = |text: &str| text.parse().unwrap();
    PortRules {
        snat: true,
        masquerade_all: false,
        mark_bit: 13,
        neighbours: vec![net("10.88.0.0/16"), net("fd00::/64")],
        conditions: [
            vec![
                Condition::Destination { net: net("192.0.2.0/25"), is: false },
                Condition::Interface { name: "eth*".into(), is: false },
            ],
            vec![Condition::Source { net: net("fd01::/32"), is: true }],
        ],
    }
}

/// A port for each kind of element: of every address and of one, in both families.
fn forwards(pod: u8) -> Vec<Forward> {
    let cases = [
        ("0.0.0.0", Protocol::Tcp, format!("10.88.0.{pod}:8080")),
        ("192.0.2.1", Protocol::Udp, format!("10.88.0.{pod}:53")),
        ("::", Protocol::Sctp, format!("[fd00::{pod}]:8080")),
        ("2001:db8::1", Protocol::Tcp, format!("[fd00::{pod}]:8081")),
    ];
    let forward = |(host, protocol, to): (&str, Protocol, String)| Forward {
        host: host.parse().unwrap(),
        port: 8000 + u16::from(pod),
        protocol,
        to: to.parse().unwrap(),
    };
    cases.into_iter().map(forward).collect()
}

/// All that a pod can get: its masquerade and its ports.
fn all_of(pod: u8) -> Vec<Filter> {
    let masquerade =
        Filter::Masquerade(what(&[]), addresses(&[&format!("10.88.0.{pod}"), &format!("fd00::{pod}")]));
    vec![masquerade, Filter::Ports(port_rules(), forwards(pod))]
}

fn traces(filters: &[Filter]) -> Vec<Trace> {
    filters.iter().map(Filter::trace).collect()
}

const PORTS: &str = r#"table inet nodeplug {
	map hostports4-NAME {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		elements = { 192.0.2.1 . udp . 8005 comment "abc:eth0" : 10.88.0.5 . 53 }
	}

	map ports4-NAME {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { tcp . 8005 comment "abc:eth0" : 10.88.0.5 . 8080 }
	}

	set hairpin4-NAME {
		type ipv4_addr . inet_proto . inet_service
		elements = { 10.88.0.5 . tcp . 8005 comment "abc:eth0",
			     10.88.0.5 . udp . 8005 comment "abc:eth0" }
	}

	map hostports6-NAME {
		type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
		elements = { 2001:db8::1 . tcp . 8005 comment "abc:eth0" : fd00::5 . 8081 }
	}

	map ports6-NAME {
		type inet_proto . inet_service : ipv6_addr . inet_service
		elements = { sctp . 8005 comment "abc:eth0" : fd00::5 . 8080 }
	}

	set hairpin6-NAME {
		type ipv6_addr . inet_proto . inet_service
		elements = { fd00::5 . tcp . 8005 comment "abc:eth0",
			     fd00::5 . sctp . 8005 comment "abc:eth0" }
	}

	chain loopback {
		type filter hook prerouting priority raw; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 drop comment "nodeplug 1 of 2"
		iifname != "lo" ip saddr 127.0.0.0/8 drop comment "nodeplug 2 of 2"
	}

	chain ports-to-NAME {
		dnat ip to ip daddr . meta l4proto . th dport map @hostports4-NAME comment "nodeplug 1 of 4"
		dnat ip to meta l4proto . th dport map @ports4-NAME comment "nodeplug 2 of 4"
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @hostports6-NAME comment "nodeplug 3 of 4"
		dnat ip6 to meta l4proto . th dport map @ports6-NAME comment "nodeplug 4 of 4"
	}

	chain ports-NAME {
		meta mark & 0x00002000 == 0x00002000 goto ports-to-NAME comment "nodeplug 1 of 9"
		ip saddr . meta l4proto . th dport @hairpin4-NAME meta mark set meta mark | 0x00002000 comment "nodeplug 2 of 9"
		ip6 saddr . meta l4proto . th dport @hairpin6-NAME meta mark set meta mark | 0x00002000 comment "nodeplug 3 of 9"
		ip saddr 10.88.0.0/16 meta mark set meta mark | 0x00002000 comment "nodeplug 4 of 9"
		ip6 saddr fd00::/64 meta mark set meta mark | 0x00002000 comment "nodeplug 5 of 9"
		ip saddr 127.0.0.0/8 meta mark set meta mark | 0x00002000 comment "nodeplug 6 of 9"
		ip6 saddr ::1 meta mark set meta mark | 0x00002000 comment "nodeplug 7 of 9"
		jump ports-to-NAME comment "nodeplug 8 of 9"
		meta mark set meta mark & 0xffffdfff comment "nodeplug 9 of 9"
	}

	chain ports-in-NAME {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr != 192.0.2.0/25 iifname != "eth*" fib daddr type local jump ports-NAME comment "nodeplug 1 of 2"
		ip6 saddr fd01::/32 fib daddr type local jump ports-NAME comment "nodeplug 2 of 2"
	}

	chain ports-out-NAME {
		type nat hook output priority -100; policy accept;
		ip daddr != 192.0.2.0/25 iifname != "eth*" fib daddr type local jump ports-NAME comment "nodeplug 1 of 2"
		ip6 saddr fd01::/32 fib daddr type local jump ports-NAME comment "nodeplug 2 of 2"
	}

	chain ports-leave-NAME {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00002000 == 0x00002000 masquerade fully-random comment "nodeplug 1 of 1"
	}
}
"#;

/// What the names of the layout of ports end in.
fn ports_name() -> String {
    let listed = nft("list ruleset");
    let line = listed.lines().find(|l| l.contains("chain ports-to-")).expect("a layout of ports");
    line.trim().trim_start_matches("chain ports-to-").trim_end_matches(" {").to_owned()
}

fn sorted(text: &str) -> Vec<String> {
    // nft lists a set's elements in an order of the kernel's.
    let mut lines: Vec<String> = text
        .lines()
        .map(|l| l.trim().trim_start_matches("elements = { ").trim_end_matches([',', ' ', '}']).to_owned())
        .collect();
    lines.sort();
    lines
}

#[test]
fn the_ruleset_of_ports_is_what_nft_prints_and_loads_again() {
    in_a_namespace(|| {
        let ports = [Filter::Ports(port_rules(), forwards(5))];
        let mut kernel = Nft::open().unwrap();
        kernel.put(&ports, &owner("abc"), &|_| false).unwrap();
        let listed = nft("list ruleset");
        assert_eq!(sorted(&listed), sorted(&PORTS.replace("NAME", &ports_name())), "{listed}");
        let file = std::env::temp_dir().join(format!("nodeplug-ports-{}", std::process::id()));
        std::fs::write(&file, &listed).unwrap();
        nft("flush ruleset");
        nft(&format!("-f {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(kernel.lacks(&ports, &owner("abc")).unwrap(), [""; 0]);
    });
}

#[test]
fn all_that_a_pod_gets_is_put_and_taken_at_once_or_not_at_all() {
    in_a_namespace(|| {
        let mut kernel = Nft::open().unwrap();
        kernel.put(&all_of(5), &owner("a"), &|_| false).unwrap();
        assert_eq!(kernel.lacks(&all_of(5), &owner("a")).unwrap(), [""; 0]);
        // One of its keys is a living pod's: nothing of the rest comes to be.
        let mut taken = all_of(6);
        taken.push(Filter::Ports(port_rules(), forwards(5)[..1].to_vec()));
        let before = nft("list ruleset");
        let error = kernel.put(&taken, &owner("b"), &|held| held == "a:eth0").unwrap_err();
        assert_eq!(error.kind(), node::Kind::Conflict);
        assert!(error.to_string().contains("`tcp . 8005` in the map `ports4-"), "{error}");
        assert!(
            error.to_string().contains("`a:eth0`") && error.advice().unwrap().contains("hostPort"),
            "{error}"
        );
        assert_eq!(nft("list ruleset"), before);
        // One that is dead leaves it, under other settings, too.
        let other = PortRules { mark_bit: 3, ..port_rules() };
        let ports = [Filter::Ports(other, forwards(5))];
        kernel.put(&ports, &owner("b"), &|_| false).unwrap();
        assert_eq!(kernel.lacks(&ports, &owner("b")).unwrap(), [""; 0]);
        let lines = kernel.lacks(&all_of(5), &owner("a")).unwrap();
        assert!(
            lines.iter().any(|l| l.contains("`tcp . 8005` in the map `ports4-") && l.ends_with("is missing")),
            "{lines:?}"
        );
        kernel.take(&traces(&ports), &owner("b")).unwrap();
        kernel.take(&traces(&all_of(5)), &owner("a")).unwrap();
        kernel.take(&traces(&all_of(5)), &owner("a")).unwrap();
        assert_eq!(kernel.found().unwrap(), []);
        kernel.tidy().unwrap();
        // The guard of loopback stays: what it guards may be open still.
        let left = nft("list ruleset");
        assert!(
            !left.contains("ports") && !left.contains("masq") && left.contains("chain loopback"),
            "{left}"
        );
    });
}

#[test]
fn what_is_found_without_a_record_names_its_owner_and_pod_and_can_be_taken() {
    in_a_namespace(|| {
        let mut kernel = Nft::open().unwrap();
        for pod in [5, 6] {
            kernel.put(&all_of(pod), &owner(&pod.to_string()), &|_| false).unwrap();
        }
        let found = kernel.found_of(&owner("5")).unwrap();
        assert_eq!(found.len(), 2 + 4 + 4, "{found:?}");
        let expect = addresses(&["10.88.0.5", "fd00::5"]);
        for one in &found {
            assert!(one.address().is_some_and(|a| expect.contains(&a)), "{one:?}");
        }
        kernel.take(&[Trace::Found(found)], &owner("5")).unwrap();
        assert_eq!(kernel.found_of(&owner("5")).unwrap(), []);
        assert_eq!(kernel.lacks(&all_of(6), &owner("6")).unwrap(), [""; 0]);
    });
}

/// Commands that damage the layout of ports of this name, and what CHECK has to say after them.
fn damages_of_ports(name: &str) -> Vec<(Vec<String>, String)> {
    let base = "type nat hook prerouting priority -100 ;";
    vec![
        (vec!["flush ruleset".into()], "the table `inet nodeplug` is missing".into()),
        (vec![format!("flush chain inet nodeplug ports-to-{name}")], "map @ports4-".into()),
        (vec![format!("flush chain inet nodeplug ports-{name}")], "jump ports-to-".into()),
        (vec!["flush chain inet nodeplug loopback".into()], "127.0.0.0/8 drop".into()),
        (vec![format!("flush map inet nodeplug ports4-{name}")], "`tcp . 8005` in the map".into()),
        (
            vec![format!("flush set inet nodeplug hairpin6-{name}")],
            "`fd00::5 . sctp . 8005` in the set".into(),
        ),
        (
            vec![
                format!("flush map inet nodeplug ports4-{name}"),
                format!(
                    "add element inet nodeplug ports4-{name} {{ tcp . 8005 comment \"abc:eth0\" : 10.9.9.9 . 1 }}"
                ),
            ],
            "leads elsewhere".into(),
        ),
        (
            // A chain that others call has become one at a hook.
            vec![
                format!("flush chain inet nodeplug ports-in-{name}"),
                format!("flush chain inet nodeplug ports-out-{name}"),
                format!("flush chain inet nodeplug ports-{name}"),
                format!("delete chain inet nodeplug ports-{name}"),
                format!("add chain inet nodeplug ports-{name} {{ {base} }}"),
            ],
            "is of another kind".into(),
        ),
        (
            // And one at a hook a chain that nobody calls.
            vec![
                format!("flush chain inet nodeplug ports-in-{name}"),
                format!("delete chain inet nodeplug ports-in-{name}"),
                format!("add chain inet nodeplug ports-in-{name}"),
            ],
            "is of another kind".into(),
        ),
        (
            // A map that leads to other things.
            vec![
                format!("flush chain inet nodeplug ports-to-{name}"),
                format!("delete map inet nodeplug ports4-{name}"),
                format!(
                    "add map inet nodeplug ports4-{name} {{ type inet_proto . inet_service : ipv4_addr ; }}"
                ),
            ],
            "is of another kind".into(),
        ),
    ]
}

#[test]
fn every_damage_to_the_rules_of_ports_is_named_and_repaired() {
    in_a_namespace(|| {
        let (mut kernel, who, pod) = (Nft::open().unwrap(), owner("abc"), all_of(5));
        kernel.put(&pod, &who, &|_| false).unwrap();
        for (commands, expect) in damages_of_ports(&ports_name()) {
            for command in &commands {
                nft(command);
            }
            let lines = kernel.lacks(&pod, &who).unwrap();
            assert!(lines.iter().any(|l| l.contains(&expect)), "{commands:?}: {lines:?}");
            kernel.put(&pod, &who, &|_| false).unwrap();
            assert_eq!(kernel.lacks(&pod, &who).unwrap(), [""; 0], "{commands:?}");
        }
    });
}

#[test]
fn thirty_two_pods_at_once_keep_every_port() {
    in_a_namespace(|| {
        thread::scope(|scope| {
            for pod in 1..=32_u8 {
                scope.spawn(move || {
                    let mut kernel = Nft::open().unwrap();
                    for _ in 0..3 {
                        kernel.put(&all_of(pod), &owner(&pod.to_string()), &|_| true).unwrap();
                        kernel.take(&traces(&all_of(pod)), &owner(&pod.to_string())).unwrap();
                    }
                    kernel.put(&all_of(pod), &owner(&pod.to_string()), &|_| true).unwrap();
                });
            }
        });
        let mut kernel = Nft::open().unwrap();
        for pod in 1..=32_u8 {
            assert_eq!(kernel.lacks(&all_of(pod), &owner(&pod.to_string())).unwrap(), [""; 0]);
        }
        assert_eq!(nft("list ruleset").matches("chain ports-in-").count(), 1);
    });
}
