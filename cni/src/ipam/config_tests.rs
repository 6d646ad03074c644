use super::*;
use serde_json::json;

fn read(ipam: &Value, runtime: Option<&Value>) -> Result<Ipam, Vec<String>> {
    let mut problems = Vec::new();
    let ipam = parse(ipam, "ipam", runtime, &mut problems);
    let hint = |p: &Problem| p.hint.as_ref().map_or_else(String::new, |h| format!(" [{h}]"));
    ipam.ok_or_else(|| problems.iter().map(|p| format!("{}: {}{}", p.at, p.what, hint(p))).collect())
}

fn ours(ipam: &Value, runtime: Option<&Value>) -> HostLocal {
    match read(ipam, runtime) {
        Ok(Ipam::HostLocal(ours)) => ours,
        other => panic!("{other:?}"),
    }
}

fn shown(ours: &HostLocal) -> Vec<String> {
    let show = |r: &Range| format!("{} {}-{} via {}", r.subnet, r.start, r.end, r.gateway);
    ours.sets.iter().map(|s| s.ranges.iter().map(show).collect::<Vec<_>>().join(" | ")).collect()
}

#[test]
fn one_subnet_is_enough_and_the_defaults_are_the_references() {
    let found = ours(&json!({"type": "host-local", "subnet": "10.1.0.0/24"}), None);
    assert_eq!(shown(&found), ["10.1.0.0/24 10.1.0.1-10.1.0.254 via 10.1.0.1"]);
    assert_eq!(found.folder("pods"), PathBuf::from("/var/lib/cni/networks/pods"));
    assert_eq!(found.cooldown, Duration::from_secs(30));
    let six = ours(&json!({"type": "host-local", "subnet": "fd00:1::/120"}), None);
    assert_eq!(shown(&six), ["fd00:1::/120 fd00:1::1-fd00:1::ff via fd00:1::1"]);
}

#[test]
fn sets_come_in_the_order_runtime_then_single_range_then_list() {
    let runtime = json!([[{"Subnet": "10.8.0.0/24", "RANGESTART": "10.8.0.10"}]]);
    let found = ours(
        &json!({
            "type": "host-local", "subnet": "10.1.0.0/24", "gateway": "10.1.0.254", "rangeStart": "::ffff:10.1.0.9",
            "ranges": [[{"subnet": "10.2.0.0/24"}, {"subnet": "10.3.0.0/24"}], [{"subnet": "fd00::/64"}]],
            "exclude": ["10.1.0.9", "10.2.0.0/28"], "cooldownSeconds": 0, "dataDir": "/run/x",
            "resolvConf": "/etc/resolv.conf",
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.3", "mtu": 1400, "advmss": 0,
                        "priority": 5, "table": 0, "scope": 253}],
        }),
        Some(&runtime),
    );
    assert_eq!(
        shown(&found),
        [
            "10.8.0.0/24 10.8.0.10-10.8.0.254 via 10.8.0.1",
            "10.1.0.0/24 10.1.0.9-10.1.0.254 via 10.1.0.254",
            "10.2.0.0/24 10.2.0.1-10.2.0.254 via 10.2.0.1 | 10.3.0.0/24 10.3.0.1-10.3.0.254 via 10.3.0.1",
            "fd00::/64 fd00::1-fd00::ffff:ffff:ffff:ffff via fd00::1",
        ]
    );
    assert_eq!(found.exclude, ["10.1.0.9/32".parse().unwrap(), "10.2.0.0/28".parse().unwrap()]);
    assert_eq!((found.cooldown, found.data_dir), (Duration::ZERO, PathBuf::from("/run/x")));
    let second = found.routes.get(1).unwrap();
    assert_eq!(
        (second.mtu, second.advmss, second.table, second.scope),
        (Some(1400), None, Some(0), Some(253))
    );
}

fn refused(table: &[(Value, &str)]) {
    for (input, expect) in table {
        assert_eq!(read(input, None), Err(vec![(*expect).to_owned()]), "{input}");
    }
}

#[test]
fn a_mistake_in_type_or_subnet_is_named_with_its_place() {
    refused(&[
        (json!(7), "ipam: is a number, not an object"),
        (json!({}), "ipam.type: is missing [write `\"type\": \"host-local\"`]"),
        (json!({"type": 7}), "ipam.type: is `7`, not a string"),
        (
            json!({"type": "../evil"}),
            "ipam.type: `../evil` is not the file name of a plugin [write a name without `/`, such as host-local]",
        ),
        (
            json!({"type": ".."}),
            "ipam.type: `..` is not the file name of a plugin [write a name without `/`, such as host-local]",
        ),
        (
            json!({"type": "host-local"}),
            "ipam: names no range to take addresses from [write `\"subnet\": \"10.1.0.0/24\"` or a list `ranges`]",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.5/24"}),
            "ipam.subnet: `10.1.0.5/24` has host bits set [write `10.1.0.0/24`]",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/31"}),
            "ipam.subnet: `10.1.0.0/31` is too small to allocate from [use a prefix of /30 or shorter]",
        ),
        (
            json!({"type": "host-local", "subnet": "fd00::/127"}),
            "ipam.subnet: `fd00::/127` is too small to allocate from [use a prefix of /126 or shorter]",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "gateway": "10.2.0.1"}),
            "ipam.gateway: `10.2.0.1` is not in `10.1.0.0/24`",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "rangeStart": "fd00::1"}),
            "ipam.rangeStart: `fd00::1` is not in `10.1.0.0/24`",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}),
            "ipam.rangeStart: `10.1.0.9` comes after the range's end `10.1.0.8`",
        ),
        (
            json!({"type": "host-local", "rangeEnd": "10.1.0.8", "ranges": [[{"subnet": "10.3.0.0/24"}]]}),
            "ipam.rangeEnd: stands without a `subnet` [add `subnet` beside it]",
        ),
    ]);
}

#[test]
fn a_mistake_in_the_sets_is_named_with_its_place() {
    refused(&[
        (
            json!({"type": "host-local", "ranges": [{"subnet": "10.1.0.0/24"}]}),
            "ipam.ranges[0]: is not a list of ranges [a range set is a list: [[{\"subnet\": \"10.1.0.0/24\"}]]]",
        ),
        (
            json!({"type": "host-local", "ranges": [[]]}),
            "ipam.ranges[0]: is an empty range set [remove it or add a range]",
        ),
        (
            json!({"type": "host-local", "ranges": [[{}]]}),
            "ipam.ranges[0][0].subnet: is missing [write `\"subnet\": \"10.1.0.0/24\"`]",
        ),
        (json!({"type": "host-local", "ranges": [[7]]}), "ipam.ranges[0][0]: is a number, not an object"),
        (
            json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]}),
            "ipam.ranges[0]: mixes IPv4 and IPv6 in one range set [one address is given from each set: write one set a family]",
        ),
        (
            json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/16"}]]}),
            "ipam.ranges[0][1]: overlaps with `ipam.ranges[0][0]`",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "ranges": [[{"subnet": "10.1.0.0/25"}]]}),
            "ipam.ranges[0]: overlaps with `ipam` [each range set gives an address of its own: keep them apart]",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "exclude": ["x"]}),
            "ipam.exclude[0]: `x` is not an address or a network such as 10.1.0.7 or 10.1.0.0/28 (neither parses)",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "exclude": ["10.1.0.9/28"]}),
            "ipam.exclude[0]: `10.1.0.9/28` is not an address or a network such as 10.1.0.7 or 10.1.0.0/28 (host bits are set: write `10.1.0.0/28` or the address alone)",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "exclude": ["10.0.0.0/8"]}),
            "ipam: no address of 10.1.0.1-10.1.0.254 is left to give",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "dataDir": "x/y"}),
            "ipam.dataDir: `x/y` is relative [write an absolute path]",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "rangestart": "10.1.0.9"}),
            "ipam.rangestart: is not a key that nodeplug-cni knows (its value is `\"10.1.0.9\"`) [did you mean `rangeStart`?]",
        ),
        (
            json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24", "gw": 1}]]}),
            "ipam.ranges[0][0].gw: is not a key that nodeplug-cni knows (its value is `1`) [known here: gateway, rangeEnd, rangeStart, subnet]",
        ),
    ]);
}

#[test]
fn a_mistake_in_routes_or_static_addresses_is_named_with_its_place() {
    refused(&[
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"gw": "10.1.0.1"}]}),
            "ipam.routes[0].dst: is missing [write `\"dst\": \"0.0.0.0/0\"`]",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"dst": "10.1.2.3/16"}]}),
            "ipam.routes[0].dst: `10.1.2.3/16` has host bits set [write `10.1.0.0/16`]",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"dst": "::/0", "gw": "10.1.0.1"}]}),
            "ipam.routes[0].gw: `10.1.0.1` is not of the family of `::/0`",
        ),
        (
            json!({"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"dst": "::/0", "scope": 256}]}),
            "ipam.routes[0].scope: is `256`, not a whole number from 0 to 255",
        ),
        (
            json!({"type": "static", "addresses": [{"address": "10.1.0.5"}]}),
            "ipam.addresses[0].address: `10.1.0.5` is not an address with its prefix such as 10.1.0.5/24 (invalid IP address syntax)",
        ),
        (
            json!({"type": "static", "addresses": [{"gateway": "10.1.0.5"}]}),
            "ipam.addresses[0].address: is missing [write `\"address\": \"10.1.0.5/24\"`]",
        ),
        (
            json!({"type": "static", "addresses": [{"address": "fd00::5/64", "gateway": "10.1.0.5"}]}),
            "ipam.addresses[0].gateway: `10.1.0.5` is not of the family of `fd00::5/64`",
        ),
        (
            json!({"type": "static", "subnet": "10.1.0.0/24"}),
            "ipam.subnet: is not a key that nodeplug-cni knows (its value is `\"10.1.0.0/24\"`) [known here: addresses, dns, routes, type]",
        ),
    ]);
}

#[test]
fn a_mistake_of_the_runtime_is_placed_there() {
    let runtime = json!([[{"Subnet": "10.8.0.5/24"}]]);
    let problems = read(&json!({"type": "host-local", "subnet": "10.1.0.0/24"}), Some(&runtime)).unwrap_err();
    assert_eq!(
        problems,
        ["runtimeConfig.ipRanges[0][0].subnet: `10.8.0.5/24` has host bits set [write `10.8.0.0/24`]"]
    );
}

#[test]
fn a_static_address_keeps_its_host_bits_and_another_type_is_left_alone() {
    let found = read(
        &json!({"type": "static", "addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}],
                "routes": [{"dst": "::/0"}], "dns": {"nameservers": ["10.0.0.10"], "domain": "a.example"}}),
        None,
    );
    let Ok(Ipam::Static(fixed)) = found else { panic!("{found:?}") };
    assert_eq!(fixed.addresses, [("10.1.0.5/24".parse().unwrap(), "10.1.0.1".parse().ok())]);
    assert_eq!((fixed.routes.len(), fixed.dns.domain.as_deref()), (1, Some("a.example")));
    let other = read(&json!({"type": "whereabouts", "range": "10.0.0.0/8"}), None);
    assert_eq!(other, Ok(Ipam::Delegate { plugin: "whereabouts".into() }));
}
