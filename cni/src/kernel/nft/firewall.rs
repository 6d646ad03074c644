//! The pods' way through the host's firewall: which packets get the mark that its chains accept (see
//! [`host`](super::host)), and which go nowhere because of a pod's `ingressPolicy`.
//!
//! A pod is an element for each address, and another where it is isolated. What its bridge is asked about
//! is an element that all pods of the bridge share; it has no owner, and goes with [`Nft::tidy`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use node::Result;

use super::element::{Element, Held, Value, comment};
use super::host::{MARK, MARKED};
use super::layout::{Chain, Family, Hook, IFNAME, IPV4, IPV6, Layout, Set, TABLE, Type};
use super::operation::Question;
use super::rule::{Part, Rule, Side};
use super::{Nft, Trace, check};
use crate::kernel::link;
use crate::owner::Owner;

const CHAIN: &str = "firewall";
const ISOLATION: &str = "firewall-isolation";
const END: &str = "firewall-end";
/// The chain at the hook that calls the operator's: `admin-CNI-ADMIN`.
const ADMIN: &str = "admin-";
/// The addresses that pass, and those of pods that no other pod reaches.
const PODS: [&str; 2] = ["firewall4-pods", "firewall6-pods"];
const ISOLATED: [&str; 2] = ["firewall4-isolated", "firewall6-isolated"];
/// The bridges of pods that are not open to all, and those, twice, whose own pods reach each other.
const BRIDGES: &str = "firewall-bridges";
const SAME: &str = "firewall-same";
/// Ports of bridges, in the bridge's own table.
const PORTS: &str = "isolated-ports";
const FORWARD: &str = "forward";
/// Host ends of pods (see [`Owner::host_ifname`]), as an interface name for nft.
const HOST_ENDS: &str = "np*";
const LIKE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// What lets a pod through, and whom it keeps out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// The operator's chain, made empty where it is missing and asked first.
    pub admin_chain: String,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Who may open a connection to it.
    pub ingress: Ingress,
}

/// Who may open a connection to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingress {
    /// Everybody whom the host lets.
    Open,
    /// Nobody behind another bridge with such pods. The bridge's name.
    SameBridge(String),
    /// No pod of this node.
    Isolated {
        /// The bridge that it is on.
        bridge: Option<String>,
        /// Its port there.
        port: Option<String>,
    },
}

impl Passage {
    /// The chains, sets and rules, of the inet family all.
    pub(super) fn layouts(&self) -> Vec<Layout> {
        vec![admin(&self.admin_chain), layout()]
    }

    /// The elements, those that are shared among them.
    pub(super) fn elements(&self) -> Vec<Element> {
        let mut elements = addresses(PODS, &self.addresses);
        let mut shared = |set: &str, parts: &[Value]| {
            elements.push(Element::new(Family::Inet, set.to_owned(), parts).shared());
        };
        match &self.ingress {
            Ingress::Open => {}
            Ingress::SameBridge(bridge) => {
                shared(BRIDGES, &[Value::Interface(bridge)]);
                shared(SAME, &[Value::Interface(bridge), Value::Interface(bridge)]);
            }
            Ingress::Isolated { bridge, .. } => {
                if let Some(bridge) = bridge {
                    shared(BRIDGES, &[Value::Interface(bridge)]);
                }
                elements.extend(addresses(ISOLATED, &self.addresses));
            }
        }
        elements
    }

    /// Where a port that no frame passes may be looked for.
    pub(super) fn host_end(&self) -> Option<String> {
        match &self.ingress {
            Ingress::Isolated { port, .. } => port.clone(),
            _ => None,
        }
    }

    /// The bridge's port that no frame passes.
    pub(super) fn port(&self) -> Option<&str> {
        match &self.ingress {
            Ingress::Isolated { bridge: Some(_), port } => port.as_deref(),
            _ => None,
        }
    }
}

/// Where the addresses of a pod may be.
pub(super) fn places(addresses_of_pod: &[IpAddr]) -> Vec<Element> {
    [PODS, ISOLATED].into_iter().flat_map(|sets| addresses(sets, addresses_of_pod)).collect()
}

fn addresses(sets: [&str; 2], all: &[IpAddr]) -> Vec<Element> {
    let [four, six] = sets;
    let set = |a: &IpAddr| if a.is_ipv4() { four } else { six };
    all.iter().map(|a| Element::address(set(a).to_owned(), *a)).collect()
}

/// The operator's chain, which is his own, and what asks it before any other chain of ours. What it drops
/// stays dropped; what it accepts has still to pass the others.
fn admin(name: &str) -> Layout {
    let ask = Hook::filter(libc::NF_INET_FORWARD, MARKED.0 - 1);
    Layout {
        family: Family::Inet,
        kind: ADMIN,
        sets: Vec::new(),
        chains: vec![
            Chain { free: true, ..Chain::called(name, Vec::new()) },
            Chain::base(format!("{ADMIN}{name}"), ask, vec![Rule::new().jump(name)]),
        ],
    }
}

fn layout() -> Layout {
    let [four, six] = PODS;
    let [isolated_four, isolated_six] = ISOLATED;
    let (from, to) = MARKED;
    let forward = |priority| Hook::filter(libc::NF_INET_FORWARD, priority);
    Layout {
        family: Family::Inet,
        kind: CHAIN,
        sets: vec![
            Set::of(IPV4, four),
            Set::of(IPV6, six),
            Set::of(IPV4, isolated_four),
            Set::of(IPV6, isolated_six),
            Set::of(IFNAME, BRIDGES),
            Set::of(Type::all(&[IFNAME, IFNAME]), SAME),
        ],
        chains: vec![
            Chain::called(ISOLATION, isolation()),
            Chain::base(CHAIN, forward(from), marking()),
            Chain::base(END, forward(to), vec![Rule::new().unmark(MARK)]),
        ],
    }
}

/// What pods send, the replies that they get, and what a port or a service of the host leads to them. All
/// else stays what it is to the host's own rules.
fn marking() -> Vec<Rule> {
    // A mark that somebody else gave opens nothing.
    let mut rules = vec![Rule::new().unmark(MARK), Rule::new().jump(ISOLATION)];
    let each = || LIKE.into_iter().zip(PODS);
    let pods = |side, like, set| Rule::new().within(&[Part::Address(side, like)], set);
    rules.extend(each().map(|(like, set)| pods(Side::From, like, set).mark(MARK)));
    rules.extend(each().map(|(like, set)| pods(Side::To, like, set).established().mark(MARK)));
    rules.extend(each().map(|(like, set)| pods(Side::To, like, set).translated().mark(MARK)));
    rules
}

/// Who may not open a connection. Between bridges as the reference's plugin has it, whose rules hold
/// between bridges that both have a policy; an isolated pod is reached by no pod that is known.
fn isolation() -> Vec<Rule> {
    let mut rules = vec![Rule::new().established().go_back()];
    let to = |rule: Rule, (like, set)| rule.within(&[Part::Address(Side::To, like)], set).drop();
    let each = || LIKE.into_iter().zip(ISOLATED);
    let (input, output) = (Part::Interface(Side::From), Part::Interface(Side::To));
    // The interface that a packet came by cannot be made up, but that of a foreign pod is not known.
    rules.extend(each().map(|set| to(Rule::new().interface(Side::From, HOST_ENDS, true), set)));
    rules.extend(each().map(|set| to(Rule::new().within(&[input], BRIDGES), set)));
    rules.extend(each().zip(PODS).map(|((like, set), pods)| {
        to(Rule::new().within(&[Part::Address(Side::From, like)], pods), (like, set))
    }));
    rules.push(Rule::new().within(&[input, output], SAME).go_back());
    rules.push(Rule::new().within(&[input], BRIDGES).within(&[output], BRIDGES).drop());
    rules
}

/// Frames that a bridge would hand from port to port without asking the host: `br_netfilter` need not be on.
fn port_layout() -> Layout {
    let port = |side| Rule::new().within(&[Part::Interface(side)], PORTS).drop();
    Layout {
        family: Family::Bridge,
        kind: FORWARD,
        sets: vec![Set::of(IFNAME, PORTS)],
        chains: vec![Chain::base(
            FORWARD,
            Hook::filter(libc::NF_BR_FORWARD, 0),
            vec![port(Side::From), port(Side::To)],
        )],
    }
}

impl Nft {
    /// What follows the elements of the inet table: the port's isolation, and the host's own chains.
    pub(super) fn pass(&mut self, passage: &Passage, owner: &Owner) -> Result<()> {
        if let Some(port) = passage.port() {
            let port = [Element::port(PORTS, port)];
            self.ensure(&[port_layout()], &port, &|_| Vec::new(), &comment(owner), &|_| false)?;
        }
        self.open_host(&passage.admin_chain)
    }

    /// Ends the isolation of a bridge's port, where it is `owner`'s.
    pub(super) fn end_isolation(&mut self, port: &str, owner: &Owner) -> Result<()> {
        self.remove(&[Element::port(PORTS, port)], &comment(owner))
    }

    /// What [`Nft::pass`] would have to make.
    pub(super) fn passage_missing(&mut self, passage: &Passage, owner: &Owner) -> Result<Vec<String>> {
        let mut lines = match passage.port() {
            Some(port) => {
                check::missing(self, &[port_layout()], &[Element::port(PORTS, port)], &comment(owner))?
            }
            None => Vec::new(),
        };
        lines.extend(self.host_missing(&passage.admin_chain)?);
        Ok(lines)
    }

    /// What of the rules that all pods share is missing, ours and the one in each chain of the host that
    /// drops, one line for each thing. On a node that never had such a pod everything is.
    pub fn firewall_missing(&mut self, admin_chain: &str) -> Result<Vec<String>> {
        let mut lines = check::missing(self, &[admin(admin_chain), layout()], &[], "")?;
        lines.extend(self.host_missing(admin_chain)?);
        Ok(lines)
    }

    /// Every isolated port of a bridge with its element's comment (see [`comment`]). Reads every element:
    /// for when the records are lost.
    pub fn isolated_ports(&mut self) -> Result<Vec<(String, String)>> {
        let held = self.channel.list(&Question::Elements(Family::Bridge, PORTS), Held::read)?;
        Ok(held.into_iter().map(|h| (h.comment.clone(), h.port())).collect())
    }

    /// What of it is isolated, where no record tells.
    pub fn isolated_of(&mut self, owner: &Owner) -> Result<Vec<Trace>> {
        let comment = comment(owner);
        let ports = self.isolated_ports()?.into_iter().filter(|(c, _)| *c == comment);
        Ok(ports.map(|(_, port)| Trace::Firewall { addresses: Vec::new(), port: Some(port) }).collect())
    }

    /// The elements of bridges that are gone, or all of them where no pod is left.
    pub(super) fn forget_bridges(&mut self) -> Result<Vec<Element>> {
        let mut left = false;
        for set in PODS {
            let pods = self.channel.list(&Question::Elements(Family::Inet, set), Held::read)?;
            left |= !pods.is_empty();
        }
        let mut gone = Vec::new();
        for set in [SAME, BRIDGES] {
            let held = self.channel.list(&Question::Elements(Family::Inet, set), Held::read)?;
            for bridge in held {
                if !left || link::index(&bridge.port())?.is_none() {
                    gone.push(Element::found(Family::Inet, set.to_owned(), &bridge));
                }
            }
        }
        Ok(gone)
    }
}

/// Whether an element with this comment is shared by pods.
pub(super) fn is_shared(comment: &str) -> bool {
    comment == TABLE
}

impl fmt::Display for Ingress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => Ok(()),
            Self::SameBridge(bridge) => write!(f, ", and no pods of other bridges than `{bridge}` to it"),
            Self::Isolated { .. } => f.write_str(", and no other pod to it"),
        }
    }
}
