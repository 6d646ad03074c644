//! The network configuration: what the operator wrote, checked and typed. Reading never stops at the
//! first mistake: it goes on with the default and adds a [`Problem`], so that `validate` lists them all
//! and DEL can use what is left.

mod attach;
pub mod bandwidth;
pub mod bridge;
pub mod feature;
pub mod firewall;
pub mod log;
pub mod ports;
pub mod problems;
pub mod reader;
mod refused;
pub mod runtime;
pub mod source_routing;
pub mod tuning;
pub mod wanted;

use ipnet::IpNet;
use serde_json::Value;

use crate::config::bridge::Bridge;
use crate::config::feature::{Features, Source};
use crate::config::log::NetLog;
use crate::config::reader::{Problem, Reader};
use crate::config::wanted::{Asked, MAC_SHAPE, Wanted};
use crate::ipam::{self, Ipam};
use crate::mac::Mac;
use crate::name;
use crate::result::Dns;
use crate::role::Role;
use crate::version::Version;

/// One plugin's configuration as the runtime hands it over
/// (CNI spec 1.1.0, section 1, "Plugin configuration objects").
#[derive(Debug, Clone, PartialEq)]
pub struct NetConf {
    /// The version to answer in.
    pub version: Version,
    /// The network's name: an identifier, fit for a file name.
    pub name: String,
    /// `type`: the name that the configuration gives the program.
    pub plugin: String,
    /// The name under which it was called.
    pub role: Role,
    /// What this plugin makes.
    pub attach: Attach,
    /// Where addresses come from.
    pub ipam: Option<Ipam>,
    /// `ipam` as written.
    pub ipam_json: Option<Value>,
    /// `runtimeConfig.ipRanges` with canonical keys: a list of range sets that go before the configured ones.
    pub ip_ranges: Option<Value>,
    /// The MTU in bytes; `None` is the default route's device's, less `encap_overhead`.
    pub mtu: Option<u32>,
    /// Bytes that an encapsulation on the way takes.
    pub encap_overhead: u32,
    /// Whether the pod's traffic to outside takes the node's address.
    pub masquerade: bool,
    /// Where it does not.
    pub non_masquerade: Vec<IpNet>,
    /// Where one line per operation goes.
    pub log: NetLog,
    /// The pod's hardware address, where somebody asked for one.
    pub mac: Option<Mac>,
    /// The addresses that somebody asked for, each once.
    pub wanted: Vec<Wanted>,
    /// The configuration's resolver settings with the runtime's over them.
    pub dns: Dns,
    /// What the pod gets beside its interface.
    pub features: Features,
    /// Whether the capability `portMappings` is declared.
    pub declares_ports: bool,
}

/// What a plugin makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attach {
    /// A veth pair with a host route per address.
    Routed,
    /// A veth pair on a bridge.
    Bridge(Bridge),
    /// Nothing: another plugin made the interface, and its result passes through.
    Chained,
    /// `lo` alone: called as `loopback`.
    Loopback,
    /// Addresses alone: called by another plugin as its IPAM.
    Addresses,
}

/// What is known about where the plugin stands in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// It makes the interface: an ADD without `prevResult`.
    First,
    /// Somebody made it already: an ADD with `prevResult`.
    Chained,
    /// The call does not tell; the keys do.
    Either,
}

/// What to do about a missing `type`.
pub(crate) const TYPE_HINT: &str = "name the plugin's binary";

impl NetConf {
    /// Whether an ADD makes an interface of the pod's own.
    pub fn makes_an_interface(&self) -> bool {
        matches!(self.attach, Attach::Routed | Attach::Bridge(_))
    }

    /// Whether a pod may ask for ports of the host.
    pub fn maps_ports(&self) -> bool {
        self.role == Role::PortMap || self.features.ports.is_some() || self.declares_ports
    }

    /// Whether an ADD leaves something that has to be taken back.
    pub fn leaves_something(&self) -> bool {
        self.attach != Attach::Loopback
    }

    /// Reads `value`, which stands at `at` (empty for the whole of stdin), for a program that was called as
    /// `role`. `asked` is what `CNI_ARGS` wishes.
    pub fn read(
        role: Role,
        value: &Value,
        at: &str,
        position: Position,
        asked: &Asked,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut reader = Reader::new(value, at, problems);
        let plugin = required(&mut reader, "type", TYPE_HINT, problems).unwrap_or_default().to_owned();
        let name = read_name(&mut reader, problems);
        if !role.is_ipam() {
            read_common(&mut reader, role, problems);
        }
        let attach = attach::read(&mut reader, value, (role, &plugin), position, problems);
        let args = wanted::read_args(&mut reader, problems);
        let runtime = runtime::read(&mut reader, problems);
        let mut conf = Self {
            version: Version::of_answer(value),
            name,
            plugin,
            role,
            attach,
            ipam: None,
            ipam_json: None,
            ip_ranges: runtime.ip_ranges,
            mtu: None,
            encap_overhead: 0,
            masquerade: false,
            non_masquerade: Vec::new(),
            log: log::read(&mut reader, problems),
            mac: runtime.mac.or(args.mac).or(asked.mac),
            wanted: wanted::merge([&asked.ips, &args.ips, &runtime.ips]),
            dns: read_dns(&mut reader, runtime.dns, problems),
            features: Features::default(),
            declares_ports: value.pointer("/capabilities/portMappings") == Some(&Value::Bool(true)),
        };
        let makes = conf.makes_an_interface();
        if makes {
            conf.read_shape(&mut reader, problems);
        }
        if makes || conf.attach == Attach::Addresses {
            conf.read_ipam(&mut reader, problems);
        }
        if role.is_ipam() {
            // The rest of the entry belongs to the plugin that asks.
            return conf;
        }
        let whole = runtime.whole.as_ref().map(|value| (value, reader.place("runtimeConfig")));
        let mut source = Source { reader: &mut reader, runtime: whole, role, makes, mac: conf.mac };
        conf.features = Features::read(&mut source, problems);
        refused::report(&mut reader, value, role, problems);
        finish(reader, problems);
        conf
    }

    fn read_shape(&mut self, reader: &mut Reader<'_>, problems: &mut Vec<Problem>) {
        if self.role == Role::Main {
            self.mac = self.mac.or(reader.parsed("mac", MAC_SHAPE, problems));
        }
        self.mtu = reader.number("mtu", 65535, problems).filter(|mtu| *mtu != 0);
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < 68) {
            let what = format!("is {mtu}, and no link takes less than 68");
            problems.push(Problem::wrong(&reader.place("mtu"), what).hint("leave it out to derive it"));
            self.mtu = None;
        }
        self.read_masquerade(reader, problems);
        if self.role != Role::Main {
            return;
        }
        self.encap_overhead = reader.number("encapOverhead", 65535, problems).unwrap_or(0);
        if self.encap_overhead > 0 && self.mtu.is_some() {
            let what = "has no effect beside `mtu`, because it is taken off the derived MTU";
            problems
                .push(Problem::wrong(&reader.place("encapOverhead"), what).hint("leave one of the two out"));
        }
        let nets: Vec<IpNet> =
            reader.parsed_list("nonMasqueradeCIDRs", "a subnet such as 10.0.0.0/8", problems);
        self.non_masquerade = nets.iter().map(IpNet::trunc).collect();
    }

    fn read_masquerade(&mut self, reader: &mut Reader<'_>, problems: &mut Vec<Problem>) {
        self.masquerade = reader.bool("ipMasq", problems).unwrap_or(false);
        match reader.string("ipMasqBackend", problems) {
            None | Some("nftables") => {}
            // The traffic is the same, whoever changes its source.
            Some("iptables") if self.role != Role::Main => {}
            Some("iptables") => problems.push(
                Problem::unsupported(
                    &reader.place("ipMasqBackend"),
                    "is `iptables`, which is not supported here",
                )
                .hint("leave it out: masquerade is made with nftables"),
            ),
            Some(other) => {
                let what = format!("is `{other}`, and only `nftables` is known");
                problems.push(Problem::wrong(&reader.place("ipMasqBackend"), what));
            }
        }
    }

    fn read_ipam(&mut self, reader: &mut Reader<'_>, problems: &mut Vec<Problem>) {
        // `{}`, and `{"type": ""}` as the reference's bridge has it, ask for no addresses.
        let empty = |(key, v): (&String, &Value)| self.role == Role::Bridge && key == "type" && v == "";
        let asks = |v: &&Value| v.as_object().is_none_or(|fields| !fields.iter().all(empty));
        let Some(ipam) = reader.value("ipam").filter(asks) else {
            if let (Role::Bridge, Attach::Bridge(bridge)) = (self.role, &mut self.attach) {
                // For the reference, too, what needs addresses asks for nothing where there are none.
                (bridge.is_gateway, bridge.is_default_gateway, self.masquerade) = (false, false, false);
            }
            return self.check_without_ipam(reader, problems);
        };
        self.ipam = ipam::config::parse(ipam, &reader.place("ipam"), self.ip_ranges.as_ref(), problems);
        self.ipam_json = Some(ipam.clone());
        if matches!(&self.attach, Attach::Bridge(b) if b.disable_container_interface) {
            let place = reader.place("disableContainerInterface");
            let what = "is true, and an interface that stays down can hold no address of `ipam`";
            problems.push(Problem::wrong(&place, what).hint("leave one of the two out"));
        }
    }

    fn check_without_ipam(&self, reader: &Reader<'_>, problems: &mut Vec<Problem>) {
        const NEEDS: &str = "needs addresses, and there is no `ipam`";
        const HINT: &str =
            "add `\"ipam\": {\"type\": \"host-local\", \"ranges\": [[{\"subnet\": \"10.1.0.0/16\"}]]}`";
        let mut missing = |key| problems.push(Problem::wrong(&reader.place(key), NEEDS).hint(HINT));
        match &self.attach {
            Attach::Routed => {
                let what = "is missing, and the routed mode needs addresses";
                problems.push(Problem::wrong(&reader.place("ipam"), what).hint(HINT));
            }
            Attach::Bridge(bridge) => {
                if bridge.is_gateway {
                    missing(if bridge.is_default_gateway { "isDefaultGateway" } else { "isGateway" });
                }
                if self.masquerade {
                    missing("ipMasq");
                }
            }
            Attach::Chained | Attach::Loopback | Attach::Addresses => {}
        }
    }
}

/// A string that has to be there.
pub(crate) fn required<'a>(
    reader: &mut Reader<'a>,
    key: &'static str,
    hint: &str,
    problems: &mut Vec<Problem>,
) -> Option<&'a str> {
    let before = problems.len();
    let text = reader.string(key, problems);
    if text.is_none() && problems.len() == before {
        problems.push(Problem::wrong(&reader.place(key), "is missing").hint(hint));
    }
    text
}

/// The network's name; empty where it is no name.
pub(crate) fn read_name(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> String {
    const HINT: &str = "a network's name is letters, digits, `_`, `.` and `-`, the first a letter or digit";
    let Some(text) = required(reader, "name", HINT, problems) else { return String::new() };
    if let Err(why) = name::identifier(text) {
        let what = format!("{} {why}", name::shown(text));
        problems.push(Problem::wrong(&reader.place("name"), what).hint(HINT));
        return String::new();
    }
    text.to_owned()
}

/// Keys that the specification gives to every plugin and that ask nothing of this one.
fn read_common(reader: &mut Reader<'_>, role: Role, problems: &mut Vec<Problem>) {
    reader.allow(&["cniVersion", "prevResult"]);
    reader.strings("cniVersions", problems);
    for switch in ["disableCheck", "disableGC", "loadOnlyInlinedPlugins"] {
        reader.bool(switch, problems);
    }
    if let Some(value) = reader.value("capabilities") {
        let mut capabilities = Reader::new(value, &reader.place("capabilities"), problems);
        for capability in runtime::CAPABILITIES {
            capabilities.bool(capability, problems);
        }
        // Under the reference's names a capability that nobody serves is the runtime's affair.
        if role == Role::Main {
            capabilities.finish(problems);
        }
    }
}

/// The configuration's settings, each replaced where the runtime has its own.
fn read_dns(reader: &mut Reader<'_>, over: Dns, problems: &mut Vec<Problem>) -> Dns {
    let own = reader.value("dns").map(|v| Dns::read(v, &reader.place("dns"), problems)).unwrap_or_default();
    let either = |over: Vec<String>, own| if over.is_empty() { own } else { over };
    Dns {
        nameservers: either(over.nameservers, own.nameservers),
        domain: over.domain.or(own.domain),
        search: either(over.search, own.search),
        options: either(over.options, own.options),
    }
}

/// Reports unknown keys, except those below `cni.dev/`, which belong to the protocol
/// (CNI spec 1.1.0, section 1: the prefix is reserved).
fn finish(reader: Reader<'_>, problems: &mut Vec<Problem>) {
    let reserved = reader.place("cni.dev/");
    let mut unknown = Vec::new();
    reader.finish(&mut unknown);
    problems.extend(unknown.into_iter().filter(|p| !p.at.starts_with(&reserved)));
}

#[cfg(test)]
mod tests;
