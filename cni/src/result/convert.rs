//! The result in each version's words. What an older version cannot say is left out, except a second
//! address of a family, which 0.2.0 and older cannot hold and which must not vanish in silence.

use std::fmt::Display;
use std::str::FromStr;

use ipnet::IpNet;
use node::{Error, Kind, Result};
use serde_json::{Map, Value};

use crate::config::problems;
use crate::config::reader::{Problem, Reader};
use crate::result::{CniResult, Dns, Interface, Ip, Route};
use crate::version::Version;

const ADDRESS: &str = "an address with its prefix length";

type Object = Map<String, Value>;

impl CniResult {
    /// The result as `version` writes it, keys in the order in which the reference prints them.
    pub fn to_json(&self, version: Version) -> Result<Value> {
        let mut out = Object::new();
        out.insert("cniVersion".into(), version.as_str().into());
        if version < Version::V0_3_0 {
            self.put_families(&mut out, version)?;
        } else {
            put_list(&mut out, "interfaces", self.interfaces.iter().map(|i| interface_to(i, version)));
            put_list(&mut out, "ips", self.ips.iter().map(|ip| ip_to(ip, version)));
            put_list(&mut out, "routes", self.routes.iter().map(|r| route_to(r, version)));
        }
        out.insert("dns".into(), self.dns.to_json());
        Ok(Value::Object(out))
    }

    /// Reads a result of `version`, or of the version that it names itself. Keys that this program does
    /// not know pass, because another plugin of the chain may have put them there.
    pub fn from_json(value: &Value, version: Version) -> Result<Self> {
        let mut problems = Vec::new();
        let mut reader = Reader::new(value, "", &mut problems);
        let shape = "a version that is spoken here";
        let version = reader.parsed("cniVersion", shape, &mut problems).unwrap_or(version);
        let mut result = Self::default();
        if version < Version::V0_3_0 {
            result.take_family(&mut reader, "ip4", &mut problems);
            result.take_family(&mut reader, "ip6", &mut problems);
        } else {
            result.take_lists(&mut reader, &mut problems);
        }
        if let Some(dns) = reader.value("dns") {
            result.dns = Dns::read(dns, "dns", &mut problems);
        }
        match problems.first().map(problems::line) {
            None => Ok(result),
            Some(first) => Err(Error::caused(Kind::Decode, format!("read a result of CNI {version}"), first)),
        }
    }

    fn put_families(&self, out: &mut Object, version: Version) -> Result<()> {
        for (key, four) in [("ip4", true), ("ip6", false)] {
            let mut ips = self.ips.iter().filter(|ip| is_four(&ip.address) == four);
            let Some(ip) = ips.next() else { continue };
            if let Some(second) = ips.next() {
                return Err(Error::caused(
                    Kind::Version,
                    format!("answer in CNI {version}"),
                    format!(
                        "that version holds one address of a family, and the pod has `{}` and `{}`",
                        ip.address, second.address
                    ),
                )
                .hint("set `cniVersion` to 0.3.0 or newer, or take one range set of each family"));
            }
            let mut family = Object::new();
            family.insert("ip".into(), ip.address.to_string().into());
            put(&mut family, "gateway", ip.gateway.map(|g| g.to_string()));
            let routes = self.routes.iter().filter(|r| is_four(&r.dst) == four);
            put_list(&mut family, "routes", routes.map(|r| route_to(r, version)));
            out.insert(key.into(), family.into());
        }
        Ok(())
    }

    fn take_family(&mut self, reader: &mut Reader<'_>, key: &'static str, problems: &mut Vec<Problem>) {
        let Some(value) = reader.value(key) else { return };
        let mut family = Reader::new(value, key, problems);
        let address: Option<IpNet> = demanded(&mut family, "ip", ADDRESS, problems);
        let gateway = family.parsed("gateway", "an address", problems);
        match address {
            Some(address) if is_four(&address) != (key == "ip4") => {
                problems
                    .push(Problem::wrong(&family.place("ip"), format!("`{address}` is of the other family")));
            }
            Some(address) => self.ips.push(Ip { interface: None, address, gateway }),
            None => {}
        }
        for (place, route) in family.list("routes", problems).unwrap_or_default() {
            self.routes.extend(route_from(route, &place, problems));
        }
    }

    fn take_lists(&mut self, reader: &mut Reader<'_>, problems: &mut Vec<Problem>) {
        for (place, value) in reader.list("interfaces", problems).unwrap_or_default() {
            self.interfaces.push(interface_from(value, &place, problems));
        }
        for (place, value) in reader.list("ips", problems).unwrap_or_default() {
            let Some(ip) = ip_from(value, &place, problems) else { continue };
            // An IPAM plugin's result lists no interfaces, so there is nothing to point past.
            if ip.interface.is_some_and(|i| !self.interfaces.is_empty() && i >= self.interfaces.len()) {
                let what = format!("points past the {} interfaces", self.interfaces.len());
                problems.push(Problem::wrong(&format!("{place}.interface"), what));
            }
            self.ips.push(ip);
        }
        for (place, value) in reader.list("routes", problems).unwrap_or_default() {
            self.routes.extend(route_from(value, &place, problems));
        }
    }
}

impl Dns {
    /// Reads `{nameservers, domain, search, options}` at `at`, leaving other keys alone.
    pub fn read(value: &Value, at: &str, problems: &mut Vec<Problem>) -> Self {
        let mut reader = Reader::new(value, at, problems);
        Self {
            nameservers: reader.strings("nameservers", problems),
            domain: reader.string("domain", problems).map(str::to_owned),
            search: reader.strings("search", problems),
            options: reader.strings("options", problems),
        }
    }

    fn to_json(&self) -> Value {
        let mut out = Object::new();
        put_list(&mut out, "nameservers", self.nameservers.iter().cloned().map(Value::from));
        put(&mut out, "domain", self.domain.clone());
        put_list(&mut out, "search", self.search.iter().cloned().map(Value::from));
        put_list(&mut out, "options", self.options.iter().cloned().map(Value::from));
        out.into()
    }
}

fn interface_to(interface: &Interface, version: Version) -> Value {
    let newest = version >= Version::V1_1_0;
    let mut out = Object::new();
    out.insert("name".into(), interface.name.clone().into());
    put(&mut out, "mac", interface.mac.clone());
    put(&mut out, "mtu", interface.mtu.filter(|_| newest));
    put(&mut out, "sandbox", interface.sandbox.clone());
    put(&mut out, "socketPath", interface.socket_path.clone().filter(|_| newest));
    put(&mut out, "pciID", interface.pci_id.clone().filter(|_| newest));
    out.into()
}

fn interface_from(value: &Value, at: &str, problems: &mut Vec<Problem>) -> Interface {
    let mut reader = Reader::new(value, at, problems);
    let mut text = |key, problems: &mut Vec<Problem>| reader.string(key, problems).map(str::to_owned);
    Interface {
        name: text("name", problems).unwrap_or_default(),
        mac: text("mac", problems),
        sandbox: text("sandbox", problems),
        socket_path: text("socketPath", problems),
        pci_id: text("pciID", problems),
        mtu: reader.number("mtu", u32::MAX, problems),
    }
}

fn ip_to(ip: &Ip, version: Version) -> Value {
    let mut out = Object::new();
    if version < Version::V1_0_0 {
        out.insert("version".into(), if is_four(&ip.address) { "4" } else { "6" }.into());
    }
    put(&mut out, "interface", ip.interface);
    out.insert("address".into(), ip.address.to_string().into());
    put(&mut out, "gateway", ip.gateway.map(|g| g.to_string()));
    out.into()
}

fn ip_from(value: &Value, at: &str, problems: &mut Vec<Problem>) -> Option<Ip> {
    let mut reader = Reader::new(value, at, problems);
    let interface = reader.number("interface", u32::MAX, problems).and_then(|i| usize::try_from(i).ok());
    let gateway = reader.parsed("gateway", "an address", problems);
    let address: IpNet = demanded(&mut reader, "address", ADDRESS, problems)?;
    // The reference's own loopback plugin leaves `version` out where 0.3.1 demands it.
    let version = reader.string("version", problems);
    if version.is_some_and(|v| v != if is_four(&address) { "4" } else { "6" }) {
        problems.push(Problem::wrong(&reader.place("version"), format!("does not fit `{address}`")));
    }
    Some(Ip { interface, address, gateway })
}

fn route_to(route: &Route, version: Version) -> Value {
    let newest = version >= Version::V1_1_0;
    let mut out = Object::new();
    out.insert("dst".into(), route.dst.to_string().into());
    put(&mut out, "gw", route.gw.map(|g| g.to_string()));
    put(&mut out, "mtu", route.mtu.filter(|_| newest));
    put(&mut out, "advmss", route.advmss.filter(|_| newest));
    put(&mut out, "priority", route.priority.filter(|_| newest));
    put(&mut out, "table", route.table.filter(|_| newest));
    put(&mut out, "scope", route.scope.filter(|_| newest));
    out.into()
}

fn route_from(value: &Value, at: &str, problems: &mut Vec<Problem>) -> Option<Route> {
    let mut reader = Reader::new(value, at, problems);
    let dst = demanded(&mut reader, "dst", "a subnet such as 0.0.0.0/0", problems);
    Some(Route {
        gw: reader.parsed("gw", "an address", problems),
        mtu: reader.number("mtu", u32::MAX, problems),
        advmss: reader.number("advmss", u32::MAX, problems),
        priority: reader.number("priority", u32::MAX, problems),
        table: reader.number("table", u32::MAX, problems),
        scope: reader.number("scope", 255, problems).and_then(|s| u8::try_from(s).ok()),
        dst: dst?,
    })
}

/// A value that has to be there.
fn demanded<T: FromStr<Err: Display>>(
    reader: &mut Reader<'_>,
    key: &'static str,
    shape: &str,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let before = problems.len();
    let value = reader.parsed(key, shape, problems);
    if value.is_none() && problems.len() == before {
        problems.push(Problem::wrong(&reader.place(key), "is missing"));
    }
    value
}

fn is_four(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

fn put(out: &mut Object, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        out.insert(key.to_owned(), value.into());
    }
}

fn put_list(out: &mut Object, key: &str, values: impl Iterator<Item = Value>) {
    let list: Vec<Value> = values.collect();
    if !list.is_empty() {
        out.insert(key.to_owned(), list.into());
    }
}
