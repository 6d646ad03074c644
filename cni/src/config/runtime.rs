//! `runtimeConfig`: what the runtime adds for one pod, through the capabilities that the entry
//! declares. Runtimes written in Go send `HostPort` as readily as `hostPort`, so keys count in any
//! letter case, nested ones too.

use serde_json::{Map, Value};

use crate::config::Position;
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
}

pub(super) fn read(reader: &mut Reader<'_>, position: Position, problems: &mut Vec<Problem>) -> Runtime {
    let Some(value) = reader.value("runtimeConfig").map(canonical) else { return Runtime::default() };
    let mut reader = Reader::new(&value, &reader.place("runtimeConfig"), problems);
    // Only an ADD leaves a pod without its port; what CHECK or DEL are told changes nothing.
    if position != Position::Either {
        refuse(&mut reader, "portMappings", "portmap", problems);
        refuse(&mut reader, "bandwidth", "bandwidth", problems);
    }
    Runtime {
        ips: reader.parsed_list("ips", IP_SHAPE, problems),
        ip_ranges: reader.value("ipRanges").cloned(),
        mac: reader.parsed("mac", MAC_SHAPE, problems),
        dns: reader.value("dns").map(|v| read_dns(v, &reader.place("dns"), problems)).unwrap_or_default(),
    }
}

/// Refuses a capability that nobody would serve, unless it asks for nothing.
fn refuse(reader: &mut Reader<'_>, key: &'static str, plugin: &str, problems: &mut Vec<Problem>) {
    if reader.value(key).is_none_or(asks_nothing) {
        return;
    }
    let what = "is asked for by the pod, and nodeplug-cni does not serve it yet";
    let hint = format!(
        "take the capability `{key}` out of nodeplug-cni's entry and put the `{plugin}` plugin after it"
    );
    problems.push(Problem::unsupported(&reader.place(key), what).hint(hint));
}

fn asks_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(asks_nothing),
        // A mapping without a port on the host maps nothing, whatever else it says.
        Value::Object(fields) => match fields.get("hostPort") {
            Some(port) => asks_nothing(port),
            None => fields.values().all(asks_nothing),
        },
    }
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
