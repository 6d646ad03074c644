//! `runtimeConfig`: what the runtime adds for one pod, through the capabilities that the entry
//! declares. Runtimes written in Go send `HostPort` as readily as `hostPort`, so keys count in any
//! letter case, nested ones too.

use serde_json::{Map, Value};

use crate::config::reader::{Problem, Reader};
use crate::config::wanted::{IP_SHAPE, MAC_SHAPE, Wanted};
use crate::mac::Mac;
use crate::result::Dns;

/// The capabilities that an entry may declare
/// (CNI conventions, "dynamic plugin specific fields").
pub(super) const CAPABILITIES: [&str; 10] = [
    "ips",
    "ipRanges",
    "mac",
    "dns",
    "portMappings",
    "bandwidth",
    "aliases",
    "infinibandGUID",
    "deviceID",
    "cgroupPath",
];

/// Keys inside of capabilities.
const NESTED: [&str; 19] = [
    "hostPort",
    "containerPort",
    "protocol",
    "hostIP",
    "ingressRate",
    "ingressBurst",
    "egressRate",
    "egressBurst",
    "subnet",
    "rangeStart",
    "rangeEnd",
    "gateway",
    "exclude",
    "servers",
    "nameservers",
    "searches",
    "search",
    "options",
    "domain",
];

/// What the runtime said.
#[derive(Debug, Default)]
pub(super) struct Runtime {
    pub(super) ips: Vec<Wanted>,
    pub(super) ip_ranges: Option<Value>,
    pub(super) mac: Option<Mac>,
    pub(super) dns: Dns,
    /// All of it, with canonical keys, for the features.
    pub(super) whole: Option<Value>,
}

pub(super) fn read(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Runtime {
    let Some(value) = reader.value("runtimeConfig").map(canonical) else { return Runtime::default() };
    let mut reader = Reader::new(&value, &reader.place("runtimeConfig"), problems);
    let mut runtime = Runtime {
        ips: reader.parsed_list("ips", IP_SHAPE, problems),
        ip_ranges: reader.value("ipRanges").cloned(),
        mac: reader.parsed("mac", MAC_SHAPE, problems),
        dns: reader.value("dns").map(|v| read_dns(v, &reader.place("dns"), problems)).unwrap_or_default(),
        whole: None,
    };
    runtime.whole = Some(value);
    runtime
}

/// The capability's words are `servers` and `searches`; those of the configuration's `dns` pass too.
fn read_dns(value: &Value, at: &str, problems: &mut Vec<Problem>) -> Dns {
    let mut dns = Dns::read(value, at, problems);
    let mut reader = Reader::new(value, at, &mut Vec::new());
    dns.nameservers.extend(reader.strings("servers", problems));
    dns.search.extend(reader.strings("searches", problems));
    dns
}

/// `value` with every key that is a known one in another letter case renamed to it. Where both
/// spellings stand, the canonical one counts.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut out = Map::new();
            for (key, value) in fields {
                let names = CAPABILITIES.iter().chain(&NESTED);
                let name = names.copied().find(|n| n.eq_ignore_ascii_case(key)).unwrap_or(key);
                if name == key || !out.contains_key(name) {
                    out.insert(name.to_owned(), canonical(value));
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}
