use serde_json::json;

use super::*;

fn read(value: &Value, position: Position) -> (NetConf, Vec<String>) {
    read_asked(value, position, &Asked::default())
}

fn read_asked(value: &Value, position: Position, asked: &Asked) -> (NetConf, Vec<String>) {
    let mut found = Vec::new();
    let conf = NetConf::read(Role::Main, value, "", position, asked, &mut found);
    (conf, found.iter().map(problems::line).collect())
}

/// A routed configuration with `more` laid over it; null takes a key away.
fn routed(more: &Value) -> Value {
    over(
        json!({"cniVersion": "1.1.0", "name": "n", "type": "nodeplug-cni", "ipam": {"type": "host-local", "subnet": "10.1.0.0/16"}}),
        more,
    )
}

fn bridge(more: &Value) -> Value {
    over(routed(&json!({"mode": "bridge"})), more)
}

fn over(mut base: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

#[test]
fn the_shortest_configuration_is_routed_with_every_default() {
    let (conf, problems) = read(&routed(&json!({})), Position::First);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(conf.attach, Attach::Routed);
    assert_eq!((conf.mtu, conf.encap_overhead, conf.masquerade), (None, 0, false));
    assert_eq!((conf.version, conf.name.as_str()), (Version::V1_1_0, "n"));
    assert_eq!(conf.ipam_json, Some(json!({"type": "host-local", "subnet": "10.1.0.0/16"})));
}

#[test]
fn a_configuration_with_everything_reads_without_a_problem() {
    let value = bridge(&json!({
        "cniVersions": ["1.0.0", "1.1.0"], "disableCheck": false, "disableGC": true,
        "loadOnlyInlinedPlugins": false, "capabilities": {"ips": true, "portMappings": true},
        "dns": {"nameservers": ["10.0.0.2"], "domain": "a.b", "search": ["b"], "options": ["ndots:5"]},
        "args": {"cni": {"ips": ["10.1.0.7/16"], "mac": "0a:00:00:00:00:02", "labels": [{"key": "a"}]}, "x": 1},
        "cni.dev/anything": [1], "prevResult": null,
        "mtu": 1400, "ipMasq": true, "ipMasqBackend": "nftables", "nonMasqueradeCIDRs": ["10.1.2.3/8", "fd00::/8"],
        "logFile": "/var/log/cni.log", "bridge": "br1", "isDefaultGateway": true, "forceAddress": true,
        "promiscMode": true, "portIsolation": true, "macspoofchk": true, "enabledad": true,
        "disableContainerInterface": false
    }));
    let (conf, problems) = read(&value, Position::First);
    assert!(problems.is_empty(), "{problems:?}");
    let Attach::Bridge(b) = &conf.attach else { panic!("{:?}", conf.attach) };
    assert_eq!(b.name, "br1");
    assert!(b.is_gateway && b.is_default_gateway && b.promiscuous && !b.hairpin && b.mac_spoof_check);
    assert_eq!(conf.non_masquerade, ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse::<IpNet>().unwrap()]);
    assert_eq!(conf.dns.domain.as_deref(), Some("a.b"));
    assert_eq!(conf.mac.unwrap().to_string(), "0a:00:00:00:00:02");
    assert_eq!(conf.wanted, ["10.1.0.7/16".parse().unwrap()]);
}

#[test]
fn under_the_references_names_its_defaults_and_keys_count() {
    let read = |role: Role, more: &Value| {
        let mut value = json!({"cniVersion": "1.0.0", "name": "a", "type": role.name(),
            "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut problems = Vec::new();
        let conf = NetConf::read(role, &value, "", Position::First, &Asked::default(), &mut problems);
        (conf, problems)
    };
    let (conf, problems) =
        read(Role::Bridge, &json!({"ipMasqBackend": "iptables", "ipMasq": true, "logFile": "/x"}));
    assert_eq!(problems, []);
    let Attach::Bridge(bridge) = &conf.attach else { panic!() };
    assert!(!bridge.hairpin && conf.masquerade);
    for none in [json!({}), json!({"type": ""})] {
        let (conf, problems) =
            read(Role::Bridge, &json!({"isDefaultGateway": true, "ipMasq": true, "ipam": none}));
        assert_eq!(problems, []);
        let Attach::Bridge(bridge) = &conf.attach else { panic!() };
        assert!(!bridge.is_gateway && !conf.masquerade && conf.ipam.is_none(), "no addresses, no gateway");
    }
    let (conf, problems) =
        read(Role::HostLocal, &json!({"anything": 1, "capabilities": {"x": true}, "mtu": "?"}));
    assert_eq!((conf.attach, problems), (Attach::Addresses, vec![]), "the rest is the main plugin's");
    for (role, more, what) in [
        (Role::Bridge, json!({"mode": "bridge"}), "`mode` is `\"bridge\"`, a key of `nodeplug-cni`"),
        (
            Role::PointToPoint,
            json!({"encapOverhead": 50}),
            "`encapOverhead` is `50`, a key of `nodeplug-cni`",
        ),
        (Role::PointToPoint, json!({"bridge": "cni0"}), "`bridge` is not a key that nodeplug-cni knows"),
        (Role::Bridge, json!({"vlan": 7}), "`vlan` is `7`, and VLANs"),
        (
            Role::HostLocal,
            json!({"ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "x": 1}}),
            "`ipam.x` is not",
        ),
    ] {
        let (_, problems) = read(role, &more);
        let lines: Vec<_> = problems.iter().map(problems::line).collect();
        assert!(lines.len() == 1 && lines[0].starts_with(what) && problems[0].unsupported, "{lines:?}");
    }
}

#[test]
fn hairpin_is_on_unless_the_bridge_is_promiscuous() {
    let table = [
        (json!({}), true, 0),
        (json!({"hairpinMode": false}), false, 0),
        (json!({"promiscMode": true}), false, 0),
        (json!({"promiscMode": true, "hairpinMode": false}), false, 0),
        (json!({"promiscMode": true, "hairpinMode": true}), true, 1),
    ];
    for (more, hairpin, wrong) in table {
        let (conf, problems) = read(&bridge(&more), Position::First);
        let Attach::Bridge(b) = conf.attach else { panic!() };
        assert_eq!((b.hairpin, problems.len()), (hairpin, wrong), "{more} {problems:?}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table is read line by line")]
fn each_mistake_is_told_at_its_place() {
    let table = [
        (routed(&json!({"name": null})), "`name` is missing"),
        (routed(&json!({"name": "../x"})), "`name` `../x` does not start with a letter or digit"),
        (
            routed(&json!({"name": "a/b"})),
            "`name` `a/b` holds '/', and only letters, digits, `_`, `.` and `-` may stand in it",
        ),
        (routed(&json!({"type": 7})), "`type` is `7`, not a string"),
        (routed(&json!({"mode": "ipvlan"})), "`mode` is `ipvlan`, and only `routed` and `bridge` are known"),
        (routed(&json!({"ipam": null})), "`ipam` is missing, and the routed mode needs addresses"),
        (routed(&json!({"ipam": {}})), "`ipam` is missing, and the routed mode needs addresses"),
        (routed(&json!({"ipam": {"ranges": []}})), "`ipam.type` is missing"),
        (routed(&json!({"ipam": "host-local"})), "`ipam` is a string, not an object"),
        (routed(&json!({"mtu": 67})), "`mtu` is 67, and no link takes less than 68"),
        (routed(&json!({"mtu": 65536})), "`mtu` is `65536`, not a whole number from 0 to 65535"),
        (
            routed(&json!({"mtu": 1400, "encapOverhead": 50})),
            "`encapOverhead` has no effect beside `mtu`, because it is taken off the derived MTU",
        ),
        (
            routed(&json!({"ipMasqBackend": "iptables"})),
            "`ipMasqBackend` is `iptables`, which is not supported here",
        ),
        (routed(&json!({"ipMasqBackend": "pf"})), "`ipMasqBackend` is `pf`, and only `nftables` is known"),
        (
            routed(&json!({"nonMasqueradeCIDRs": ["x"]})),
            "`nonMasqueradeCIDRs[0]` `x` is not a subnet such as 10.0.0.0/8 (invalid IP address syntax)",
        ),
        (routed(&json!({"logFile": "log"})), "`logFile` is `log`, not an absolute path, `journal` or `none`"),
        (routed(&json!({"logMaxSize": "1Ki"})), "`logMaxSize` is 1024 bytes, and 64Ki are the least"),
        (routed(&json!({"logMaxSize": 0})), "`logMaxSize` is 0 bytes, and 64Ki are the least"),
        (routed(&json!({"logMaxSize": -1})), "`logMaxSize` -1 is no number of bytes"),
        (
            routed(&json!({"logMaxSize": "8MB"})),
            "`logMaxSize` \"8MB\" has an unknown unit; write 8Mi (or 8M)",
        ),
        (routed(&json!({"logMaxSize": []})), "`logMaxSize` [] is not a size, such as 8Mi"),
        (
            routed(&json!({"isGateway": true})),
            "`isGateway` means something only with `\"mode\": \"bridge\"`, and the mode here is `routed`",
        ),
        (routed(&json!({"vlan": 7})), "`vlan` is `7`, and VLANs on the bridge are not supported"),
        (
            bridge(&json!({"vlanTrunk": [{"id": 1}]})),
            "`vlanTrunk` is `[{\"id\":1}]`, and VLANs on the bridge are not supported",
        ),
        (
            routed(&json!({"kernelpath": "/x"})),
            "`kernelpath` is `\"/x\"`, a key of the reference's `host-device` plugin that is not supported here",
        ),
        (
            routed(&json!({"ipMask": true})),
            "`ipMask` is not a key that nodeplug-cni knows (its value is `true`)",
        ),
        (bridge(&json!({"bridge": "a/b"})), "`bridge` `a/b` holds '/', which no link's name may"),
        (
            bridge(&json!({"ipam": null, "isGateway": true})),
            "`isGateway` needs addresses, and there is no `ipam`",
        ),
        (bridge(&json!({"ipam": null, "ipMasq": true})), "`ipMasq` needs addresses, and there is no `ipam`"),
        (
            bridge(&json!({"disableContainerInterface": true})),
            "`disableContainerInterface` is true, and an interface that stays down can hold no address of `ipam`",
        ),
        (
            routed(&json!({"capabilities": {"portmappings": true}})),
            "`capabilities.portmappings` is not a key that nodeplug-cni knows (its value is `true`)",
        ),
        (
            routed(&json!({"args": {"cni": {"mac": "01:00:00:00:00:01"}}})),
            "`args.cni.mac` `01:00:00:00:00:01` is not a hardware address such as 0a:58:0a:01:00:07 (it is a multicast address)",
        ),
        (
            routed(&json!({"runtimeConfig": {"IPs": ["x"]}})),
            "`runtimeConfig.ips[0]` `x` is not an address such as 10.1.0.7 or 10.1.0.7/16 (not an IPv4 or IPv6 address)",
        ),
        (
            json!([]),
            "it is a list, not an object; `type` is missing; `name` is missing; `ipam` is missing, and the routed mode needs addresses",
        ),
    ];
    for (value, expect) in table {
        assert_eq!(read(&value, Position::First).1.join("; "), expect, "{value}");
    }
}

#[test]
fn a_bridge_without_addresses_is_layer_two_alone() {
    let (conf, problems) =
        read(&bridge(&json!({"ipam": null, "disableContainerInterface": true})), Position::First);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(conf.ipam, None);
}

#[test]
fn a_chained_entry_makes_no_interface_and_may_not_ask_for_one() {
    let bare = routed(&json!({"ipam": null, "logFile": "/l", "ipMasq": false}));
    for position in [Position::Chained, Position::Either] {
        let (conf, problems) = read(&bare, position);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(conf.attach, Attach::Chained);
    }
    let (conf, problems) = read(&routed(&json!({"mode": "routed"})), Position::Chained);
    assert_eq!(conf.attach, Attach::Chained);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("`mode` stands in a chained entry"), "{problems:?}");
    // CHECK and DEL carry the whole chain's result, so there the keys tell.
    assert_eq!(read(&routed(&json!({})), Position::Either).0.attach, Attach::Routed);
}

#[test]
fn loopback_asks_for_nothing_but_its_name() {
    let (conf, problems) =
        read(&json!({"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"}), Position::First);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!((conf.attach, conf.version), (Attach::Loopback, Version::V0_3_1));
}

#[test]
fn the_runtimes_mac_goes_before_the_configurations_and_that_before_cni_args() {
    let asked = Asked { ips: Vec::new(), mac: "0a:00:00:00:00:03".parse().ok() };
    let args = json!({"cni": {"mac": "0a:00:00:00:00:02"}});
    let runtime = json!({"MAC": "0a:00:00:00:00:01"});
    let table = [
        (json!({"args": args, "runtimeConfig": runtime}), "0a:00:00:00:00:01"),
        (json!({"args": args}), "0a:00:00:00:00:02"),
        (json!({}), "0a:00:00:00:00:03"),
    ];
    for (more, expect) in table {
        let (conf, _) = read_asked(&routed(&more), Position::First, &asked);
        assert_eq!(conf.mac.unwrap().to_string(), expect);
    }
}

#[test]
fn wanted_addresses_come_from_all_three_ways_each_once() {
    let asked = Asked { ips: vec!["10.1.0.7".parse().unwrap()], mac: None };
    let value = routed(&json!({
        "args": {"cni": {"ips": ["10.1.0.7/16", "fd00::7"]}}, "runtimeConfig": {"Ips": ["FD00::7/64", "10.1.0.8"]}
    }));
    let (conf, problems) = read_asked(&value, Position::First, &asked);
    assert!(problems.is_empty(), "{problems:?}");
    let shown: Vec<_> = conf.wanted.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.1.0.7/16", "fd00::7/64", "10.1.0.8"]);
}

#[test]
fn runtime_config_keys_count_in_any_letter_case_nested_ones_too() {
    let value = routed(&json!({
        "dns": {"nameservers": ["1.1.1.1"], "search": ["own"], "domain": "own"},
        "runtimeConfig": {
            "IPRANGES": [[{"Subnet": "10.2.0.0/24", "RANGESTART": "10.2.0.9", "rangeEnd": "10.2.0.11"}]],
            "DNS": {"Servers": ["10.0.0.2"], "Searches": [], "Options": ["ndots:5"]},
            "PortMappings": [], "Bandwidth": {"IngressRate": 0}, "Aliases": ["a"], "cgrouppath": "/k", "other": 1
        }
    }));
    let (conf, problems) = read(&value, Position::First);
    assert!(problems.is_empty(), "{problems:?}");
    let range = json!([[{"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.9", "rangeEnd": "10.2.0.11"}]]);
    assert_eq!(conf.ip_ranges, Some(range));
    assert_eq!(conf.dns.nameservers, ["10.0.0.2"]);
    assert_eq!(conf.dns.search, ["own"]);
    assert_eq!(conf.dns.options, ["ndots:5"]);
}

#[test]
fn a_mapping_of_the_runtime_is_the_main_plugins_too() {
    let mapping = json!([{"HostPort": 18080, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": ""}]);
    let value = routed(&json!({"snat": false, "runtimeConfig": {"portMappings": mapping}}));
    let (conf, problems) = read(&value, Position::First);
    assert!(problems.is_empty(), "{problems:?}");
    let ports = conf.features.ports.unwrap();
    assert_eq!((ports.mappings.len(), ports.snat), (1, false));
}

#[test]
fn the_log_is_the_usual_one_unless_a_configuration_of_any_name_says_otherwise() {
    use node::log::{Log, Place};
    let log = |json: &Value| NetLog::salvaged(json.to_string().as_bytes());
    assert_eq!(log(&json!({})).log, Log::usual("cni.log"));
    assert_eq!(log(&json!({"logFile": "x", "logMaxSize": "x"})).log, Log::usual("cni.log"));
    assert_eq!(NetLog::salvaged(b"{").log, Log::usual("cni.log"));
    for size in [json!(1_048_576), json!("1Mi"), json!("1048576")] {
        let named = log(&json!({"logFile": "/x", "logMaxSize": size}));
        assert!(named.is_named);
        assert_eq!(named.log, Log { place: Place::File("/x".into()), most: 1 << 20 });
    }
    for role in [Role::Bridge, Role::HostLocal, Role::Loopback, Role::Tuning] {
        let value = json!({"logFile": "journal", "logMaxSize": "1Mi"});
        let mut problems = Vec::new();
        let conf = NetConf::read(role, &value, "", Position::Either, &Asked::default(), &mut problems);
        assert_eq!((conf.log.log.place, conf.log.log.most), (Place::Journal, 1 << 20), "{role:?}");
        assert!(!problems.iter().any(|p| p.at.starts_with("log")), "{role:?}: {problems:?}");
    }
}

#[test]
fn problems_become_one_error_that_the_first_leads() {
    let unsupported = Problem::unsupported("vlan", "is `7`").hint("take it out");
    let wrong = Problem::wrong("mtu", "is 1");
    let one = problems::verdict(std::slice::from_ref(&unsupported)).unwrap_err();
    assert_eq!(
        (one.kind(), one.chain().as_str()),
        (node::Kind::UnsupportedField, "read the configuration: `vlan` is `7`")
    );
    let both = problems::verdict(&[unsupported, wrong]).unwrap_err();
    assert_eq!(both.kind(), node::Kind::Config);
    assert_eq!(both.chain(), "read the configuration: `vlan` is `7`: and 1 more: `mtu` is 1");
    assert_eq!(both.advice(), Some("take it out"));
    assert!(problems::verdict(&[]).is_ok());
}
