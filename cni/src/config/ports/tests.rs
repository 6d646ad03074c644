//! What a runtime and an operator may write about host ports.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::*;
use crate::config::wanted::Asked;
use crate::config::{NetConf, Position, problems};

/// The ports of a chained portmap entry with these keys and these mappings.
fn read(keys: &Value, mappings: &Value) -> (Option<HostPorts>, Vec<Problem>) {
    let mut value = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "portmap", "capabilities": {"portMappings": true},
        "runtimeConfig": {"portMappings": mappings},
    });
    for (key, given) in keys.as_object().unwrap() {
        value[key] = given.clone();
    }
    let mut problems = Vec::new();
    let conf = NetConf::read(Role::PortMap, &value, "", Position::Chained, &Asked::default(), &mut problems);
    (conf.features.ports, problems)
}

fn good(keys: &Value, mappings: &Value) -> Option<HostPorts> {
    let (ports, problems) = read(keys, mappings);
    assert!(problems.is_empty(), "{problems:?}");
    ports
}

/// The first problem as one line, and whether it is about a key that is not supported.
fn bad(keys: &Value, mappings: &Value) -> (String, bool) {
    let (_, problems) = read(keys, mappings);
    let first = problems.first().expect("a problem");
    (problems::line(first), first.unsupported)
}

#[test]
fn what_containerd_sends_is_read() {
    let sent = json!([
        {"HostPort": 18080, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": ""},
        {"hostPort": 53, "containerPort": 1053, "protocol": "UDP", "hostIP": "192.0.2.1"},
        {"hostPort": 0, "containerPort": 9000, "protocol": "tcp"},
        {"containerPort": 9001},
        {"hostPort": 53, "containerPort": 1053, "protocol": "udp", "hostIP": "fd00::1"},
        {"hostPort": 18080, "containerPort": 8080},
        {"hostPort": 3868, "containerPort": 3868, "protocol": "Sctp", "hostIP": "::"},
    ]);
    let ports = good(&json!({}), &sent).unwrap();
    let shown: Vec<String> = ports.mappings.iter().map(|m| format!("{m} to {}", m.container_port)).collect();
    assert_eq!(
        shown,
        [
            "18080/tcp to 8080",
            "192.0.2.1:53/udp to 1053",
            "[fd00::1]:53/udp to 1053",
            "[::]:3868/sctp to 3868"
        ]
    );
    let defaults = (ports.snat, ports.masquerade_all, ports.mark_bit);
    assert_eq!(defaults, (true, false, 13));
    assert_eq!(good(&json!({}), &json!([])), None);
    assert_eq!(good(&json!({}), &json!([{"hostPort": 0, "containerPort": 80, "hostIP": ""}])), None);
}

#[test]
fn a_mapping_is_for_the_families_of_its_host_address() {
    let at = |ip: &str| Mapping {
        host_ip: ip.parse().ok(),
        host_port: 80,
        container_port: 80,
        protocol: Protocol::Tcp,
    };
    let (four, six): (IpAddr, IpAddr) = ("10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap());
    let shown = |ip: &str, pod| at(ip).host(pod).map(|h| h.to_string()).unwrap_or_default();
    for (ip, v4, v6) in [
        ("", "0.0.0.0", "::"),
        ("0.0.0.0", "0.0.0.0", ""),
        ("::", "", "::"),
        ("192.0.2.1", "192.0.2.1", ""),
        ("fd00::1", "", "fd00::1"),
    ] {
        assert_eq!((shown(ip, four).as_str(), shown(ip, six).as_str()), (v4, v6), "{ip}");
    }
}

#[test]
fn what_cannot_be_mapped_is_told_at_its_place() {
    let at = "runtimeConfig.portMappings[0]";
    let cases = [
        (json!({"hostPort": 70000, "containerPort": 80}), "hostPort` is `70000`, not a whole number"),
        (json!({"hostPort": -1, "containerPort": 80}), "hostPort` is `-1`"),
        (json!({"hostPort": 80, "containerPort": 70000}), "containerPort` is `70000`"),
        (json!({"hostPort": 80}), "containerPort` is missing, and port 80 of the host"),
        (json!({"hostPort": 80, "containerPort": 0}), "containerPort` is missing"),
        (json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"}), "protocol` is `icmp`"),
        (json!({"hostPort": 80, "containerPort": 80, "hostIP": "eth0"}), "hostIP` `eth0` is not an address"),
    ];
    for (mapping, expect) in cases {
        let (line, unsupported) = bad(&json!({}), &json!([mapping]));
        assert!(line.starts_with(&format!("`{at}.{expect}")), "{line}");
        assert!(!unsupported, "{line}");
    }
    let (line, _) = bad(
        &json!({}),
        &json!([{"hostPort": 80, "containerPort": 80}, {
        "hostPort": 80, "containerPort": 81, "hostIP": "192.0.2.1"}]),
    );
    assert!(
        line.contains("wants 192.0.2.1:80/tcp for port 81 of the pod, and an earlier one has 80/tcp"),
        "{line}"
    );
}

#[test]
fn conditions_are_read_in_the_words_of_iptables_and_of_nft() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let cases = [
        (
            json!(["!", "-d", "192.0.2.0/24"]),
            vec![Condition::Destination { net: net("192.0.2.0/24"), is: false }],
        ),
        (
            json!(["-s", "10.9.8.7", "!", "-i", "eth+"]),
            vec![
                Condition::Source { net: net("10.9.8.7/32"), is: true },
                Condition::Interface { name: "eth*".into(), is: false },
            ],
        ),
        (
            json!(["ip saddr != 10.1.2.3/8", "iifname \"eth0\""]),
            vec![
                Condition::Source { net: net("10.0.0.0/8"), is: false },
                Condition::Interface { name: "eth0".into(), is: true },
            ],
        ),
        (
            json!(["ip", "daddr", "192.0.2.1"]),
            vec![Condition::Destination { net: net("192.0.2.1/32"), is: true }],
        ),
    ];
    let mapping = json!([{"hostPort": 80, "containerPort": 80}]);
    for (words, expect) in cases {
        let ports = good(&json!({"conditionsV4": words}), &mapping).unwrap();
        assert_eq!(ports.conditions_v4, expect, "{words}");
    }
    let six = good(&json!({"conditionsV6": ["-s", "fd00::/8"]}), &mapping).unwrap();
    assert_eq!(six.conditions_v6, [Condition::Source { net: net("fd00::/8"), is: true }]);
    let refused = [
        (
            json!({"conditionsV4": ["-m", "mark"]}),
            "`conditionsV4` has `-m`, which is not supported here",
            true,
        ),
        (json!({"conditionsV4": ["ip", "ttl", "1"]}), "`conditionsV4` has `ip ttl`", true),
        (
            json!({"conditionsV4": ["-s", "fd00::/8"]}),
            "`conditionsV4` has `fd00::/8`, which is no IPv4 network",
            false,
        ),
        (json!({"conditionsV4": ["ip6", "saddr", "fd00::/8"]}), "which belongs into `conditionsV6`", false),
        (json!({"conditionsV4": ["!", "-s"]}), "ends where a network should stand", false),
        (json!({"conditionsV4": ["-i", "a/b"]}), "no name of an interface", false),
    ];
    for (keys, expect, unsupported) in refused {
        let (line, told) = bad(&keys, &mapping);
        assert!(line.contains(expect) && told == unsupported, "{line}");
    }
}

#[test]
fn the_references_other_keys_count_and_what_is_not_served_says_what_to_use() {
    let mapping = json!([{"hostPort": 80, "containerPort": 80}]);
    let keys = json!({"snat": true, "masqAll": true, "markMasqBit": 0, "backend": "iptables"});
    let ports = good(&keys, &mapping).unwrap();
    assert_eq!((ports.snat, ports.masquerade_all, ports.mark_bit), (true, true, 0));
    let without = good(&json!({"snat": false, "masqAll": true, "backend": "nftables"}), &mapping).unwrap();
    assert_eq!((without.snat, without.masquerade_all), (false, false));
    let (line, unsupported) = bad(&json!({"externalSetMarkChain": "KUBE-MARK-MASQ"}), &mapping);
    assert!(unsupported && line.starts_with("`externalSetMarkChain` is `KUBE-MARK-MASQ`"), "{line}");
    for (keys, expect) in [
        (json!({"backend": "ipvs"}), "`backend` is `ipvs`"),
        (json!({"markMasqBit": 32}), "`markMasqBit` is `32`"),
        (json!({"snat": "no"}), "`snat` is `\"no\"`"),
    ] {
        let (line, unsupported) = bad(&keys, &mapping);
        assert!(line.starts_with(expect) && !unsupported, "{line}");
    }
    let (line, unsupported) = bad(&json!({"masqall": true}), &mapping);
    assert!(unsupported && line.starts_with("`masqall` is not a key"), "{line}");
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    let keys = json!({"conditionsV4": ["!", "-i", "eth0", "-s", "10.0.0.0/8"], "masqAll": true});
    let mapping = json!([{"hostPort": 80, "containerPort": 81, "hostIP": "192.0.2.1", "protocol": "udp"}]);
    let ports = good(&keys, &mapping).unwrap();
    let text = serde_json::to_string(&ports).unwrap();
    assert_eq!(serde_json::from_str::<HostPorts>(&text).unwrap(), ports, "{text}");
}
