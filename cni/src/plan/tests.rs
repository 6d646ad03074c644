//! Plans as people read them, and the law that DEL takes back exactly what ADD did.

use serde_json::{Value, json};

use super::step::Step;
use super::target::Target;
use super::wish::{Granted, mtu, wish};
use super::{Given, feature, unmake};
use crate::attachment::Attachment;
use crate::config::wanted::Asked;
use crate::config::{Attach, NetConf, Position};
use crate::ipam::leases::Choice;
use crate::kernel::link::Link;
use crate::mac::Mac;
use crate::observe::{FORWARD_4, Links, Observed};
use crate::owner::Owner;
use crate::role::Role;
use node::step::Step as _;

fn conf(extra: &Value) -> NetConf {
    let mut value = json!({
        "cniVersion": "1.1.0", "name": "pods", "type": "nodeplug-cni", "ipMasq": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]]}
    });
    value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let mut problems = Vec::new();
    let conf = NetConf::read(Role::Main, &value, "", Position::First, &Asked::default(), &mut problems);
    assert_eq!(problems, []);
    conf
}

fn owner() -> Owner {
    Owner { container_id: "abc".into(), ifname: "eth0".into() }
}

fn granted() -> Granted {
    let given = |address: &str, gateway: &str| Given {
        address: address.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
    };
    Granted {
        addresses: vec![given("10.88.0.5/24", "10.88.0.1"), given("fd00:88::5/64", "fd00:88::1")],
        networks: vec!["10.88.0.0/24".parse().unwrap(), "fd00:88::/64".parse().unwrap()],
        ..Granted::default()
    }
}

fn steps(conf: &NetConf, granted: &Granted, seen: &Observed) -> Vec<Step> {
    wish(
        conf,
        &owner(),
        Some("default/web"),
        mtu(conf, &Links { default_mtu: Some(1450), bridge: None }),
        granted,
        seen,
    )
    .unwrap()
    .steps()
}

/// The same with a port of TCP at every address, and one of UDP at one.
fn with_ports(extra: &Value) -> Value {
    let mut extra = extra.clone();
    extra["capabilities"] = json!({"portMappings": true});
    extra["runtimeConfig"] = json!({"portMappings": [
        {"HostPort": 18080, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": ""},
        {"HostPort": 53, "ContainerPort": 1053, "Protocol": "udp", "HostIP": "192.0.2.1"},
    ]});
    extra
}

fn lines(steps: &[Step]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

#[test]
fn a_pod_of_ptp_reaches_its_subnet_by_the_gateway() {
    let value = json!({"cniVersion": "1.0.0", "name": "pods", "type": "ptp",
        "ipam": {"type": "host-local", "subnet": "10.88.0.0/24"}});
    let (role, mut problems) = (Role::PointToPoint, Vec::new());
    let conf = NetConf::read(role, &value, "", Position::First, &Asked::default(), &mut problems);
    assert_eq!(problems, []);
    let mut granted = granted();
    granted.addresses.truncate(1);
    let made = lines(&steps(&conf, &granted, &Observed::default()));
    let inside: Vec<&str> = made.iter().filter_map(|l| l.strip_prefix("in the pod: ")).collect();
    assert_eq!(
        inside,
        [
            "make no link-local address on `eth0`",
            "add the address `10.88.0.5/24` to `eth0` without its subnet's route",
            "bring `eth0` up",
            "add the route `10.88.0.1/32` on `eth0`",
            "tell `eth0` that `10.88.0.1` is at 02:78:bf:6d:5b:9a",
            "add the route `10.88.0.0/24 via 10.88.0.1` on `eth0`",
        ],
        "{made:#?}"
    );
}

#[test]
fn a_routed_pod_is_made_in_this_order() {
    let seen = Observed { not_forwarding: vec![FORWARD_4], ..Observed::default() };
    assert_eq!(
        lines(&steps(&conf(&json!({})), &granted(), &seen)),
        [
            "set `net/ipv4/ip_forward` to 1",
            "create the veth `np2178bf6dfa7e` with `eth0` in the pod and MTU 1450",
            "name the pod `default/web` on `np2178bf6dfa7e`",
            "make no link-local address on `np2178bf6dfa7e`",
            "bring `np2178bf6dfa7e` up",
            "in the pod: see that IPv6 is on for `eth0`",
            "in the pod: make no link-local address on `eth0`",
            "in the pod: add the address `10.88.0.5/32` to `eth0`",
            "in the pod: add the address `fd00:88::5/128` to `eth0`",
            "in the pod: add the address `fe80::858:aff:fe58:5/64` to `eth0`",
            "in the pod: bring `eth0` up",
            "in the pod: add the route `10.88.0.1/32` on `eth0`",
            "in the pod: tell `eth0` that `10.88.0.1` is at 02:78:bf:6d:5b:9a",
            "in the pod: add the route `fd00:88::1/128` on `eth0`",
            "in the pod: tell `eth0` that `fd00:88::1` is at 02:78:bf:6d:5b:9a",
            "in the pod: add the route `default via 10.88.0.1` on `eth0`",
            "in the pod: add the route `default via fd00:88::1` on `eth0`",
            "see that IPv6 is on for `np2178bf6dfa7e`",
            "add the address `10.88.0.1/32` to `np2178bf6dfa7e`",
            "add the route `10.88.0.5/32` on `np2178bf6dfa7e`",
            "tell `np2178bf6dfa7e` that `10.88.0.5` is at 0a:58:0a:58:00:05",
            "add the address `fd00:88::1/128` to `np2178bf6dfa7e`",
            "add the route `fd00:88::5/128` on `np2178bf6dfa7e`",
            "tell `np2178bf6dfa7e` that `fd00:88::5` is at 0a:58:0a:58:00:05",
            "masquerade `10.88.0.5`, `fd00:88::5` by the rules of `pods`",
        ]
    );
}

#[test]
fn a_pod_on_a_bridge_is_made_in_this_order() {
    let conf = conf(
        &json!({"mode": "bridge", "isDefaultGateway": true, "portIsolation": true, "macspoofchk": true}),
    );
    assert_eq!(
        lines(&steps(&conf, &granted(), &Observed::default())),
        [
            "create the bridge `cni0` with MAC 02:ad:f0:3f:f7:78 and MTU 1450",
            "see that IPv6 is on for `cni0`",
            "add the address `10.88.0.1/24` to `cni0`",
            "add the address `fd00:88::1/64` to `cni0`",
            "create the veth `np2178bf6dfa7e` with `eth0` in the pod and MTU 1450 on the bridge `cni0`",
            "name the pod `default/web` on `np2178bf6dfa7e` and set the port `np2178bf6dfa7e`: hairpin true, isolated true",
            "make no link-local address on `np2178bf6dfa7e`",
            "bring `np2178bf6dfa7e` up",
            "tell `cni0` that `10.88.0.5` is at 0a:58:0a:58:00:05",
            "tell `cni0` that `fd00:88::5` is at 0a:58:0a:58:00:05",
            "in the pod: set `net/ipv6/conf/eth0/accept_ra` to 0",
            "in the pod: see that IPv6 is on for `eth0`",
            "in the pod: make no link-local address on `eth0`",
            "in the pod: add the address `10.88.0.5/24` to `eth0`",
            "in the pod: add the address `fd00:88::5/64` to `eth0`",
            "in the pod: add the address `fe80::858:aff:fe58:5/64` to `eth0`",
            "in the pod: bring `eth0` up",
            "in the pod: add the route `default via 10.88.0.1` on `eth0`",
            "in the pod: add the route `default via fd00:88::1` on `eth0`",
            "let only `0a:58:0a:58:00:05` send by `np2178bf6dfa7e`",
            "masquerade `10.88.0.5`, `fd00:88::5` by the rules of `pods`",
        ]
    );
}

#[test]
fn the_way_through_the_firewall_goes_with_all_that_is_filtered() {
    let cases = [
        (json!({"firewall": true}), "let `10.88.0.5`, `fd00:88::5` through the host's firewall"),
        (
            json!({"ingressPolicy": "same-bridge", "mode": "bridge"}),
            "let `10.88.0.5`, `fd00:88::5` through the host's firewall, and no pods of other bridges than `cni0` to it",
        ),
        (
            json!({"ingressPolicy": "isolated"}),
            "let `10.88.0.5`, `fd00:88::5` through the host's firewall, and no other pod to it",
        ),
    ];
    for (mut extra, expect) in cases {
        extra["ipMasq"] = json!(false);
        let lines = lines(&steps(&conf(&extra), &granted(), &Observed::default()));
        assert_eq!(lines.iter().filter(|l| l.contains("firewall")).collect::<Vec<_>>(), [expect]);
    }
}

#[test]
fn del_takes_back_exactly_what_add_did() {
    let on_bridge = json!({"mode": "bridge", "isGateway": true, "macspoofchk": true});
    let isolated = json!({"ingressPolicy": "isolated"});
    let isolated_on_bridge =
        json!({"mode": "bridge", "isGateway": true, "macspoofchk": true, "ingressPolicy": "isolated"});
    for (extra, bridge) in [
        (json!({}), None),
        (on_bridge.clone(), Some("cni0")),
        (json!({"firewall": true}), None),
        (with_ports(&json!({"firewall": true})), None),
        (with_ports(&on_bridge), Some("cni0")),
        (isolated, None),
        (isolated_on_bridge, Some("cni0")),
    ] {
        let conf = conf(&extra);
        let granted = granted();
        let mut record = Attachment {
            boot: "b".into(),
            since: 0,
            network: "pods".into(),
            owner: owner(),
            version: "1.1.0".into(),
            netns: "/n".into(),
            pod: None,
            addresses: granted.addresses.iter().map(|g| g.address.addr()).collect(),
            networks: granted.networks.clone(),
            mtu: 1450,
            leases: Some("/d/pods".into()),
            delegate: Some("other".into()),
            delegate_ipam: None,
            masquerade: true,
            only_mac: bridge.map(|_| "0a:58:0a:58:00:05".parse().unwrap()),
            bridge: bridge.map(str::to_owned),
            ..Attachment::default()
        };
        feature::note(&conf.features, &mut record);
        let mut done = vec![Step::Record(Box::new(record.clone()))];
        done.extend(granted.addresses.iter().enumerate().map(|(set, g)| Step::Reserve {
            folder: "/d/pods".into(),
            choice: Choice { address: g.address, gateway: g.gateway, set },
            owner: owner(),
        }));
        done.push(Step::Delegated { plugin: "other".into() });
        done.extend(steps(&conf, &granted, &Observed::default()));
        let undone: Vec<Step> = done.iter().rev().filter_map(Step::inverse).collect();
        assert_eq!(lines(&unmake(&record)), lines(&undone));
        assert_eq!(unmake(&record), undone);
    }
}

#[test]
fn ports_are_claimed_before_anything_is_made_and_opened_when_their_filter_stands() {
    let all = lines(&steps(&conf(&with_ports(&json!({}))), &granted(), &Observed::default()));
    assert_eq!(
        all.first().unwrap(),
        "claim the host's `0.0.0.0:18080/tcp`, `[::]:18080/tcp`, `192.0.2.1:53/udp`"
    );
    let at = all.iter().position(|l| l.starts_with("masquerade")).unwrap();
    assert_eq!(
        all[at..],
        [
            "masquerade `10.88.0.5`, `fd00:88::5` by the rules of `pods`; map the host's `0.0.0.0:18080/tcp to \
             10.88.0.5:8080`, `[::]:18080/tcp to [fd00:88::5]:8080`, `192.0.2.1:53/udp to 10.88.0.5:1053`",
            "let the host's loopback addresses leave by `np2178bf6dfa7e`",
            "forget connections to the host's `192.0.2.1:53/udp`",
        ]
    );
    let bridge = with_ports(&json!({"mode": "bridge", "isGateway": true}));
    let all = lines(&steps(&conf(&bridge), &granted(), &Observed::default()));
    assert!(all.contains(&"let the host's loopback addresses leave by `cni0`".to_owned()), "{all:?}");
}

#[test]
fn a_port_that_leads_nowhere_is_refused() {
    let mut only_four = granted();
    only_four.addresses.truncate(1);
    for (extra, ip, granted, told) in [
        (json!({}), "fd00::1", only_four.clone(), "has no address of its family"),
        (json!({"snat": false}), "127.0.0.1", granted(), "where `snat` is false"),
        (json!({}), "", Granted::default(), "has no address of its family"),
    ] {
        let mut extra = extra;
        extra["runtimeConfig"] =
            json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": ip}]});
        let conf = conf(&extra);
        let target =
            Target { addresses: granted.addresses.iter().map(|g| g.address).collect(), ..Target::default() };
        let error = feature::judge(&conf.features, &target).unwrap_err();
        assert_eq!(error.kind(), node::Kind::Config);
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[test]
fn a_bridge_with_another_gateway_is_refused_with_the_command_that_mends_it() {
    let conf = conf(&json!({"mode": "bridge", "isGateway": true}));
    let link = Link {
        name: "cni0".into(),
        kind: Some("bridge".into()),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        up: true,
        mtu: 1500,
        ..Link::default()
    };
    let address = |net: &str| crate::kernel::address::Address {
        net: net.parse().unwrap(),
        tentative: false,
        duplicate: false,
    };
    let mut seen = Observed {
        bridge: Some(link),
        bridge_addresses: vec![address("10.77.0.1/24"), address("fe80::1/64")],
        ..Observed::default()
    };
    let error = wish(&conf, &owner(), None, 1500, &granted(), &seen).unwrap_err();
    assert_eq!(
        error.to_string(),
        "give the bridge `cni0` the address `10.88.0.1/24`, where it has `10.77.0.1/24`"
    );
    assert!(error.advice().unwrap().starts_with("`ip address del 10.77.0.1/24 dev cni0`"));
    seen.bridge_addresses = vec![address("10.88.0.1/24"), address("fd00:99::1/64")];
    let lines = lines(&steps(&conf, &granted(), &seen));
    assert_eq!(lines.first().unwrap(), "fix the MAC of `cni0` at 02:00:00:00:00:01");
    assert_eq!(lines.get(1).unwrap(), "see that IPv6 is on for `cni0`");
    assert_eq!(lines.get(2).unwrap(), "add the address `fd00:88::1/64` to `cni0`");
}

#[test]
fn another_default_route_beside_is_default_gateway_is_refused() {
    let conf = conf(&json!({"mode": "bridge", "isDefaultGateway": true}));
    let Attach::Bridge(_) = conf.attach else { panic!("not a bridge") };
    let mut granted = granted();
    let mut route = super::wish::bare("0.0.0.0/0".parse().unwrap());
    route.gw = Some("10.88.0.254".parse().unwrap());
    granted.routes = Some(vec![route]);
    let error = wish(&conf, &owner(), None, 1500, &granted, &Observed::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "make `10.88.0.1` the default gateway, where `ipam.routes` has `10.88.0.254`"
    );
}
