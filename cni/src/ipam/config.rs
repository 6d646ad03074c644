//! The `ipam` object, read and checked: every mistake with its place, every default filled in, so that
//! nobody checks again.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::ranges::{Range, RangeSet, last_usable, step};
use super::{COOLDOWN, DATA_DIR, HostLocal, Ipam, Static, cooling};
use crate::config::reader::{Problem, Reader};
use crate::result::{Dns, Route};

const ADDRESS: &str = "an address such as 10.1.0.1 or fd00::1";
const NETWORK: &str = "a network such as 10.1.0.0/16 or fd00::/64";
const RANGE_KEYS: [&str; 4] = ["subnet", "rangeStart", "rangeEnd", "gateway"];

/// Reads `ipam`, which stands at `at`. `runtime_ranges` is runtimeConfig.ipRanges, whose keys come in any letter case; its
/// sets go before the configuration's. `None` where a problem was found.
pub fn parse(
    ipam: &Value,
    at: &str,
    runtime_ranges: Option<&Value>,
    problems: &mut Vec<Problem>,
) -> Option<Ipam> {
    let before = problems.len();
    let mut reader = Reader::new(ipam, at, problems);
    if problems.len() > before {
        return None;
    }
    let ipam = match reader.string("type", problems) {
        None => {
            if problems.len() == before {
                problems.push(
                    Problem::wrong(&reader.place("type"), "is missing")
                        .hint("write `\"type\": \"host-local\"`"),
                );
            }
            return None;
        }
        Some("host-local") => Some(Ipam::HostLocal(host_local(reader, at, runtime_ranges, problems))),
        Some("static") => Some(Ipam::Static(fixed(reader, problems))),
        Some(other) if plain(other) => Some(Ipam::Delegate { plugin: other.to_owned() }),
        Some(other) => {
            let what = format!("`{other}` is not the file name of a plugin");
            problems.push(
                Problem::wrong(&reader.place("type"), what)
                    .hint("write a name without `/`, such as host-local"),
            );
            None
        }
    };
    ipam.filter(|_| problems.len() == before)
}

/// Whether `name` stays in the folder that it is looked up in.
fn plain(name: &str) -> bool {
    let odd = |c: char| c == '/' || c.is_control();
    name != "." && name != ".." && !name.contains(odd)
}

fn host_local(
    mut reader: Reader<'_>,
    at: &str,
    runtime_ranges: Option<&Value>,
    problems: &mut Vec<Problem>,
) -> HostLocal {
    let before = problems.len();
    let runtime_ranges = runtime_ranges.map(in_our_case);
    let mut sets = Vec::new();
    if let Some(value) = &runtime_ranges {
        let wrapped = Value::Object(Map::from_iter([("ipRanges".to_owned(), value.clone())]));
        sets.extend(range_sets(&mut Reader::new(&wrapped, "runtimeConfig", problems), "ipRanges", problems));
    }
    if let Some(range) = legacy_range(&mut reader, problems) {
        sets.push((at.to_owned(), RangeSet { ranges: vec![range] }));
    }
    sets.extend(range_sets(&mut reader, "ranges", problems));
    if sets.is_empty() && problems.len() == before {
        let problem = Problem::wrong(at, "names no range to take addresses from");
        problems.push(problem.hint("write `\"subnet\": \"10.1.0.0/24\"` or a list `ranges`"));
    }
    refuse_overlaps(&sets, problems);
    let exclude = excluded(&mut reader, problems);
    for (place, set) in sets.iter().filter(|(_, set)| set.usable(&exclude) == 0) {
        problems.push(Problem::wrong(place, format!("no address of {set} is left to give")));
    }
    let longest = u32::try_from(cooling::LONGEST.as_secs()).unwrap_or(u32::MAX);
    let ours = HostLocal {
        sets: sets.into_iter().map(|(_, set)| set).collect(),
        exclude,
        routes: routes(&mut reader, problems),
        resolv_conf: absolute(&mut reader, "resolvConf", problems),
        data_dir: absolute(&mut reader, "dataDir", problems).unwrap_or_else(|| PathBuf::from(DATA_DIR)),
        cooldown: reader
            .number("cooldownSeconds", longest, problems)
            .map_or(COOLDOWN, |seconds| Duration::from_secs(seconds.into())),
    };
    reader.finish(problems);
    ours
}

/// The one range of an old configuration, whose keys stand in `ipam` itself.
fn legacy_range(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Option<Range> {
    let [subnet, others @ ..] = RANGE_KEYS;
    if reader.value(subnet).is_some() {
        return range(reader, problems);
    }
    for key in others {
        if reader.value(key).is_some() {
            let place = reader.place(key);
            problems.push(Problem::wrong(&place, "stands without a `subnet`").hint("add `subnet` beside it"));
        }
    }
    None
}

/// The sets of the list at `key`, each with its place. A set with a problem is left out.
fn range_sets(
    reader: &mut Reader<'_>,
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Vec<(String, RangeSet)> {
    let mut sets = Vec::new();
    for (place, value) in reader.list(key, problems).unwrap_or_default() {
        let Some(items) = value.as_array() else {
            let problem = Problem::wrong(&place, "is not a list of ranges");
            problems.push(problem.hint("a range set is a list: [[{\"subnet\": \"10.1.0.0/24\"}]]"));
            continue;
        };
        let before = problems.len();
        let mut ranges = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let mut one = Reader::new(item, &format!("{place}[{index}]"), problems);
            if item.is_object() {
                ranges.extend(range(&mut one, problems));
            }
            one.finish(problems);
        }
        if items.is_empty() {
            problems.push(Problem::wrong(&place, "is an empty range set").hint("remove it or add a range"));
        }
        if problems.len() == before {
            sets.extend(one_family(&place, ranges, problems).map(|set| (place, set)));
        }
    }
    sets
}

fn one_family(place: &str, ranges: Vec<Range>, problems: &mut Vec<Problem>) -> Option<RangeSet> {
    let four = ranges.iter().filter(|r| r.start.is_ipv4()).count();
    if four != 0 && four != ranges.len() {
        let problem = Problem::wrong(place, "mixes IPv4 and IPv6 in one range set");
        problems.push(problem.hint("one address is given from each set: write one set a family"));
        return None;
    }
    for (index, one) in ranges.iter().enumerate() {
        if let Some(other) = ranges.iter().take(index).position(|r| r.overlaps(one)) {
            let what = format!("overlaps with `{place}[{other}]`");
            problems.push(Problem::wrong(&format!("{place}[{index}]"), what));
        }
    }
    Some(RangeSet { ranges })
}

/// Fills in and checks one range as the reference does it.
fn range(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Option<Range> {
    let before = problems.len();
    let place = reader.place("subnet");
    let subnet: Option<IpNet> = reader.parsed("subnet", NETWORK, problems);
    let [start, end, gateway] =
        ["rangeStart", "rangeEnd", "gateway"].map(|key| address(reader, key, problems));
    if subnet.is_none() && problems.len() == before {
        problems.push(Problem::wrong(&place, "is missing").hint("write `\"subnet\": \"10.1.0.0/24\"`"));
    }
    let subnet = subnet?;
    if subnet.trunc() != subnet {
        let problem = Problem::wrong(&place, format!("`{subnet}` has host bits set"));
        problems.push(problem.hint(format!("write `{}`", subnet.trunc())));
    } else if subnet.prefix_len() > subnet.max_prefix_len() - 2 {
        let problem = Problem::wrong(&place, format!("`{subnet}` is too small to allocate from"));
        problems.push(problem.hint(format!("use a prefix of /{} or shorter", subnet.max_prefix_len() - 2)));
    }
    let named = [("rangeStart", start), ("rangeEnd", end), ("gateway", gateway)];
    for (key, found) in named.into_iter().filter_map(|(key, a)| Some((key, a?))) {
        if !subnet.contains(&found) {
            problems.push(Problem::wrong(&reader.place(key), format!("`{found}` is not in `{subnet}`")));
        }
    }
    if problems.len() > before {
        return None;
    }
    let first = step(subnet.network(), 1)?;
    let range = Range {
        subnet,
        start: start.unwrap_or(first),
        end: end.unwrap_or_else(|| last_usable(subnet)),
        gateway: gateway.unwrap_or(first),
    };
    if range.start > range.end {
        let what = format!("`{}` comes after the range's end `{}`", range.start, range.end);
        problems.push(Problem::wrong(&reader.place("rangeStart"), what));
    }
    (problems.len() == before).then_some(range)
}

/// An address; one of IPv4 written as IPv6 counts as IPv4, as it does for the reference.
fn address(reader: &mut Reader<'_>, key: &'static str, problems: &mut Vec<Problem>) -> Option<IpAddr> {
    reader.parsed(key, ADDRESS, problems).map(|a: IpAddr| a.to_canonical())
}

fn refuse_overlaps(sets: &[(String, RangeSet)], problems: &mut Vec<Problem>) {
    for (index, (place, set)) in sets.iter().enumerate() {
        if let Some((other, _)) = sets.iter().take(index).find(|(_, s)| s.overlaps(set)) {
            let problem = Problem::wrong(place, format!("overlaps with `{other}`"));
            problems.push(problem.hint("each range set gives an address of its own: keep them apart"));
        }
    }
}

/// `10.1.0.7` or `10.1.0.0/28`.
struct Exclusion(IpNet);

impl FromStr for Exclusion {
    type Err = BadExclusion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = || text.parse().map(|a: IpAddr| IpNet::from(a.to_canonical())).ok();
        let net = text.parse().ok().or_else(address).ok_or(BadExclusion::Neither)?;
        if net.trunc() == net { Ok(Self(net)) } else { Err(BadExclusion::HostBits(net.trunc())) }
    }
}

enum BadExclusion {
    Neither,
    HostBits(IpNet),
}

impl fmt::Display for BadExclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Neither => f.write_str("neither parses"),
            Self::HostBits(net) => write!(f, "host bits are set: write `{net}` or the address alone"),
        }
    }
}

fn excluded(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Vec<IpNet> {
    let shape = "an address or a network such as 10.1.0.7 or 10.1.0.0/28";
    let list: Vec<Exclusion> = reader.parsed_list("exclude", shape, problems);
    list.into_iter().map(|e| e.0).collect()
}

/// A path. The working directory is the runtime's, so a relative one would mean nothing here.
fn absolute(reader: &mut Reader<'_>, key: &'static str, problems: &mut Vec<Problem>) -> Option<PathBuf> {
    let path = PathBuf::from(reader.string(key, problems)?);
    if !path.is_absolute() {
        let problem = Problem::wrong(&reader.place(key), format!("`{}` is relative", path.display()));
        problems.push(problem.hint("write an absolute path"));
    }
    Some(path)
}

/// The list `routes` of an `ipam` object (CNI spec 1.1.0, section 5, "Success": routes).
fn routes(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Vec<Route> {
    let mut routes = Vec::new();
    for (place, value) in reader.list("routes", problems).unwrap_or_default() {
        let mut one = Reader::new(value, &place, problems);
        if value.is_object() {
            routes.extend(route(&mut one, problems));
        }
        one.finish(problems);
    }
    routes
}

fn route(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Option<Route> {
    let before = problems.len();
    let dst: Option<IpNet> = reader.parsed("dst", NETWORK, problems);
    let gw = address(reader, "gw", problems);
    // The reference leaves a zero of these three out of its result: it means "not set".
    let mut metric = |key| reader.number(key, u32::MAX, problems).filter(|n| *n != 0);
    let [mtu, advmss, priority] = ["mtu", "advmss", "priority"].map(&mut metric);
    let table = reader.number("table", u32::MAX, problems);
    let scope = reader.number("scope", 255, problems).and_then(|n| u8::try_from(n).ok());
    let place = reader.place("dst");
    let Some(dst) = dst else {
        if problems.len() == before {
            problems.push(Problem::wrong(&place, "is missing").hint("write `\"dst\": \"0.0.0.0/0\"`"));
        }
        return None;
    };
    if dst.trunc() != dst {
        let problem = Problem::wrong(&place, format!("`{dst}` has host bits set"));
        problems.push(problem.hint(format!("write `{}`", dst.trunc())));
    }
    if let Some(gw) = gw.filter(|gw| gw.is_ipv4() != dst.addr().is_ipv4()) {
        let what = format!("`{gw}` is not of the family of `{dst}`");
        problems.push(Problem::wrong(&reader.place("gw"), what));
    }
    Some(Route { dst, gw, mtu, advmss, priority, table, scope })
}

fn fixed(mut reader: Reader<'_>, problems: &mut Vec<Problem>) -> Static {
    let mut addresses = Vec::new();
    for (place, value) in reader.list("addresses", problems).unwrap_or_default() {
        let mut one = Reader::new(value, &place, problems);
        if value.is_object() {
            addresses.extend(fixed_address(&mut one, problems));
        }
        one.finish(problems);
    }
    let ours = Static { addresses, routes: routes(&mut reader, problems), dns: dns(&mut reader, problems) };
    reader.finish(problems);
    ours
}

fn fixed_address(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Option<(IpNet, Option<IpAddr>)> {
    let before = problems.len();
    let shape = "an address with its prefix such as 10.1.0.5/24";
    let net: Option<IpNet> = reader.parsed("address", shape, problems);
    let gateway = address(reader, "gateway", problems);
    let Some(net) = net else {
        if problems.len() == before {
            let place = reader.place("address");
            problems.push(Problem::wrong(&place, "is missing").hint("write `\"address\": \"10.1.0.5/24\"`"));
        }
        return None;
    };
    if let Some(gateway) = gateway.filter(|g| g.is_ipv4() != net.addr().is_ipv4()) {
        let what = format!("`{gateway}` is not of the family of `{net}`");
        problems.push(Problem::wrong(&reader.place("gateway"), what));
    }
    Some((net, gateway))
}

fn dns(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Dns {
    let Some(value) = reader.value("dns") else { return Dns::default() };
    let mut one = Reader::new(value, &reader.place("dns"), problems);
    let dns = Dns {
        nameservers: one.strings("nameservers", problems),
        domain: one.string("domain", problems).map(str::to_owned),
        search: one.strings("search", problems),
        options: one.strings("options", problems),
    };
    one.finish(problems);
    dns
}

/// `value` with the keys of ranges spelled as the configuration spells them: runtimes write
/// `Subnet` where their own structure has no JSON names.
fn in_our_case(value: &Value) -> Value {
    let spelled = |key: &str| {
        let known = RANGE_KEYS.iter().find(|k| k.eq_ignore_ascii_case(key));
        known.map_or_else(|| key.to_owned(), |k| (*k).to_owned())
    };
    match value {
        Value::Array(items) => items.iter().map(in_our_case).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (spelled(k), in_our_case(v))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
