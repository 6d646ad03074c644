use std::path::PathBuf;

use node::Kind;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::render;
use crate::version::Version;

/// A result that uses every field.
fn rich() -> CniResult {
    let sandbox = Some("/var/run/netns/cni-1".to_owned());
    let route = |dst: &str, gw: Option<&str>| Route {
        dst: dst.parse().unwrap(),
        gw: gw.map(|g| g.parse().unwrap()),
        mtu: None,
        advmss: None,
        priority: None,
        table: None,
        scope: None,
    };
    let ip = |address: &str, gateway: &str| Ip {
        interface: Some(1),
        address: address.parse().unwrap(),
        gateway: gateway.parse().ok(),
    };
    CniResult {
        interfaces: vec![
            Interface { name: "np1".into(), mac: Some("02:00:00:00:00:01".into()), ..Interface::default() },
            Interface {
                name: "eth0".into(),
                mac: Some("0a:00:00:00:00:01".into()),
                mtu: Some(1450),
                sandbox,
                socket_path: Some("/run/s.sock".into()),
                pci_id: Some("0000:00:1f.6".into()),
            },
        ],
        ips: vec![ip("10.88.0.7/24", "10.88.0.1"), ip("fd00:88::7/64", "fd00:88::1")],
        routes: vec![
            route("0.0.0.0/0", None),
            Route {
                mtu: Some(1400),
                advmss: Some(1360),
                priority: Some(100),
                table: Some(200),
                scope: Some(253),
                ..route("10.0.0.0/8", Some("10.88.0.2"))
            },
            route("::/0", Some("fd00:88::1")),
        ],
        dns: Dns {
            nameservers: vec!["10.0.0.10".into()],
            domain: Some("cluster.local".into()),
            search: vec!["default.svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        },
    }
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Compares with the golden file; `UPDATE_GOLDEN=1` writes it anew for a person to review.
fn hold(name: &str, text: &str) {
    let path = golden(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{}", path.display());
}

#[test]
fn the_result_of_every_version_is_as_reviewed() {
    for version in Version::ALL {
        let text = render::text(&rich().to_json(version).unwrap());
        hold(&format!("result-{version}.json"), &text);
        let value: Value = serde_json::from_str(&text).unwrap();
        // What an older version leaves out stays out, and nothing else changes.
        let back = CniResult::from_json(&value, Version::NEWEST).unwrap();
        assert_eq!(back, carried(&rich(), version), "{version}");
    }
}

#[test]
fn an_empty_result_still_says_its_version_and_dns() {
    for version in Version::ALL {
        let value = CniResult::default().to_json(version).unwrap();
        assert_eq!(value.to_string(), format!(r#"{{"cniVersion":"{version}","dns":{{}}}}"#));
    }
}

#[test]
fn a_second_address_of_a_family_is_not_dropped_in_silence() {
    let mut result = rich();
    result.ips.push(result.ips[0].clone());
    for version in Version::ALL {
        match result.to_json(version) {
            Ok(_) => assert!(version >= Version::V0_3_0),
            Err(error) => {
                assert!(version < Version::V0_3_0);
                assert_eq!(error.kind(), Kind::Version);
                assert!(error.causes().contains("one address of a family"), "{}", error.chain());
            }
        }
    }
}

#[test]
fn the_results_of_other_plugins_are_read() {
    // As the reference's bridge is recorded to answer, and its loopback, which leaves `version` out.
    let bridge = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"mac": "46:98:b1:1f:e4:47", "name": "refbr0"}, {"name": "eth0", "sandbox": "/n"}],
        "ips": [{"address": "10.88.0.7/24", "gateway": "10.88.0.1", "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0"}], "someone's": {"own": 1}
    });
    let result = CniResult::from_json(&bridge, Version::V0_1_0).unwrap();
    assert_eq!((result.interfaces.len(), result.ips.len(), result.routes.len()), (2, 1, 1));
    assert_eq!(result.interfaces[1].mac, None);
    let loopback = json!({"cniVersion": "0.3.1", "ips": [{"interface": 0, "address": "::1/128"}], "dns": {}});
    assert_eq!(CniResult::from_json(&loopback, Version::V0_3_1).unwrap().ips.len(), 1);
    // Without a version of its own, the enclosing configuration's counts.
    let old = json!({"ip4": {"ip": "10.1.0.7/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.9"}]}});
    let result = CniResult::from_json(&old, Version::V0_2_0).unwrap();
    assert_eq!((result.ips.len(), result.routes[0].gw), (1, Some("10.1.0.9".parse().unwrap())));
    assert!(CniResult::from_json(&old, Version::V1_0_0).unwrap().ips.is_empty());
}

#[test]
fn a_malformed_result_is_told_at_its_place() {
    let table = [
        (json!([]), "it is a list, not an object"),
        (json!({"cniVersion": "3"}), "`cniVersion` `3` is not a version that is spoken here"),
        (json!({"ips": {}}), "`ips` is `{}`, not a list"),
        (json!({"ips": [{}]}), "`ips[0].address` is missing"),
        (
            json!({"ips": [{"address": "10.0.0.1"}]}),
            "`ips[0].address` `10.0.0.1` is not an address with its prefix length",
        ),
        (json!({"ips": [{"address": "10.0.0.1/8", "gateway": 1}]}), "`ips[0].gateway` is `1`, not a string"),
        (
            json!({"ips": [{"address": "10.0.0.1/8", "interface": -1}]}),
            "`ips[0].interface` is `-1`, not a whole number",
        ),
        (
            json!({"interfaces": [{}], "ips": [{"address": "10.0.0.1/8", "interface": 1}]}),
            "`ips[0].interface` points past the 1 interfaces",
        ),
        (
            json!({"cniVersion": "0.4.0", "ips": [{"address": "10.0.0.1/8", "version": "6"}]}),
            "`ips[0].version` does not fit `10.0.0.1/8`",
        ),
        (json!({"interfaces": ["eth0"]}), "`interfaces[0]` is a string, not an object"),
        (json!({"routes": [{"gw": "10.0.0.1"}]}), "`routes[0].dst` is missing"),
        (json!({"routes": [{"dst": "0.0.0.0/0", "scope": 256}]}), "`routes[0].scope` is `256`"),
        (json!({"dns": {"search": "a"}}), "`dns.search` is `\"a\"`, not a list"),
        (
            json!({"cniVersion": "0.2.0", "ip4": {"ip": "::1/128"}}),
            "`ip4.ip` `::1/128` is of the other family",
        ),
        (json!({"cniVersion": "0.2.0", "ip6": {}}), "`ip6.ip` is missing"),
    ];
    for (value, expect) in table {
        let error = CniResult::from_json(&value, Version::V1_1_0).unwrap_err();
        assert_eq!(error.kind(), Kind::Decode);
        assert!(error.causes().contains(expect), "{}", error.chain());
    }
}

/// What of `result` a `version` can say.
fn carried(result: &CniResult, version: Version) -> CniResult {
    let mut out = result.clone();
    if version < Version::V1_1_0 {
        for interface in &mut out.interfaces {
            *interface = Interface { mtu: None, socket_path: None, pci_id: None, ..interface.clone() };
        }
        for route in &mut out.routes {
            *route =
                Route { mtu: None, advmss: None, priority: None, table: None, scope: None, ..route.clone() };
        }
    }
    if version < Version::V0_3_0 {
        out.interfaces.clear();
        out.ips.iter_mut().for_each(|ip| ip.interface = None);
        // Families stand apart, and a route goes with its family's address.
        let four = |net: &IpNet| matches!(net, IpNet::V4(_));
        out.ips.sort_by_key(|ip| !four(&ip.address));
        out.routes.sort_by_key(|route| !four(&route.dst));
        out.routes.retain(|route| out.ips.iter().any(|ip| four(&ip.address) == four(&route.dst)));
    }
    out
}

fn net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(a, p)| IpNet::new(IpAddr::from(a), p).unwrap()),
        (any::<[u16; 8]>(), 0_u8..=128).prop_map(|(a, p)| IpNet::new(IpAddr::from(a), p).unwrap()),
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    net().prop_map(|n| n.addr())
}

/// An absent text and an empty one are the same in every version.
fn text() -> impl Strategy<Value = Option<String>> {
    option::of(".{1,8}")
}

fn interface() -> impl Strategy<Value = Interface> {
    (".{0,8}", text(), option::of(any::<u32>()), text(), text(), text()).prop_map(
        |(name, mac, mtu, sandbox, socket_path, pci_id)| Interface {
            name,
            mac,
            mtu,
            sandbox,
            socket_path,
            pci_id,
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    let number = || option::of(any::<u32>());
    (net(), option::of(address()), number(), number(), number(), number(), option::of(any::<u8>())).prop_map(
        |(dst, gw, mtu, advmss, priority, table, scope)| Route {
            dst,
            gw,
            mtu,
            advmss,
            priority,
            table,
            scope,
        },
    )
}

fn dns() -> impl Strategy<Value = Dns> {
    let list = || prop::collection::vec(".{0,8}", 0..3);
    (list(), text(), list(), list()).prop_map(|(nameservers, domain, search, options)| Dns {
        nameservers,
        domain,
        search,
        options,
    })
}

prop_compose! {
    fn result()(
        interfaces in prop::collection::vec(interface(), 0..4),
        ips in prop::collection::vec((option::of(0_usize..4), net(), option::of(address())), 0..4),
        routes in prop::collection::vec(route(), 0..4),
        dns in dns(),
    ) -> CniResult {
        let count = interfaces.len();
        let ips = ips.into_iter().map(|(i, address, gateway)| Ip {
            interface: i.filter(|i| *i < count),
            address,
            gateway,
        });
        CniResult { interfaces, ips: ips.collect(), routes, dns }
    }
}

proptest! {
    #[test]
    fn what_a_version_can_say_reads_back_the_same(result in result(), index in 0_usize..Version::ALL.len()) {
        let version = Version::ALL[index];
        match result.to_json(version) {
            Ok(value) => {
                let text = render::text(&value);
                let value: Value = serde_json::from_str(&text).unwrap();
                let back = CniResult::from_json(&value, version).unwrap();
                prop_assert_eq!(back, carried(&result, version));
            }
            Err(error) => {
                prop_assert!(version < Version::V0_3_0);
                prop_assert_eq!(error.kind(), Kind::Version);
            }
        }
    }
}
