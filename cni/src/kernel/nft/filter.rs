//! What a pod gets in nf_tables, and what of it is taken out.

use std::fmt;
use std::net::IpAddr;

use node::Result;

use super::element::{Element, comment};
use super::found::Found;
use super::layout::{Family, Layout};
use super::operation::Question;
use super::rule::HeldRule;
use super::{Forward, Masquerade, Nft, Passage, PortRules, check, firewall, masquerade, ports};
use crate::owner::Owner;

/// One thing that a pod gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// What these addresses send leaves with the node's address.
    Masquerade(Masquerade, Vec<IpAddr>),
    /// What goes to these ports of the node goes to the pod.
    Ports(PortRules, Vec<Forward>),
    /// Its way through the host's firewall.
    Firewall(Passage),
}

/// What is known of a [`Filter`] when it has to go: enough to find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace {
    /// The masquerade of these addresses, in whichever network.
    Masquerade(Vec<IpAddr>),
    /// These ports, under whichever settings.
    Ports(Vec<Forward>),
    /// Elements that were found without a record.
    Found(Vec<Found>),
    /// The way through the firewall of these addresses.
    Firewall {
        /// The pod's addresses.
        addresses: Vec<IpAddr>,
        /// The port of a bridge that may be isolated.
        port: Option<String>,
    },
}

impl Filter {
    /// What finds it again.
    pub fn trace(&self) -> Trace {
        match self {
            Self::Masquerade(_, addresses) => Trace::Masquerade(addresses.clone()),
            Self::Ports(_, forwards) => Trace::Ports(forwards.clone()),
            Self::Firewall(passage) => {
                Trace::Firewall { addresses: passage.addresses.clone(), port: passage.host_end() }
            }
        }
    }

    /// The chains, sets and maps that it needs, of the inet family all.
    fn layouts(&self) -> Vec<Layout> {
        match self {
            Self::Masquerade(what, _) => vec![what.layout()],
            Self::Ports(rules, forwards) => rules.layouts(forwards),
            Self::Firewall(passage) => passage.layouts(),
        }
    }

    /// The elements in them: the pod's own, and those that it shares.
    fn elements(&self) -> Vec<Element> {
        match self {
            Self::Masquerade(what, addresses) => what.elements(addresses),
            Self::Ports(rules, forwards) => rules.elements(forwards),
            Self::Firewall(passage) => passage.elements(),
        }
    }

    /// Where else the same keys may be held: in layouts of other networks or older settings, which the
    /// rules `found` tell.
    fn elsewhere(&self, found: &[HeldRule]) -> Vec<Element> {
        match self {
            Self::Masquerade(what, addresses) => what.elsewhere(addresses, found),
            Self::Ports(rules, forwards) => rules.elsewhere(forwards, found),
            // Their sets are the same for every network.
            Self::Firewall(_) => Vec::new(),
        }
    }
}

impl Trace {
    /// Where it may be, of all the sets and maps of our table.
    fn places(&self, sets: &[String]) -> Vec<Element> {
        match self {
            Self::Masquerade(addresses) => masquerade::places(addresses, sets),
            Self::Ports(forwards) => ports::places(forwards, sets),
            Self::Found(found) => found.iter().map(Found::element).collect(),
            Self::Firewall { addresses, .. } => firewall::places(addresses),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Masquerade(addresses) => addresses.is_empty(),
            Self::Ports(forwards) => forwards.is_empty(),
            Self::Found(found) => found.is_empty(),
            Self::Firewall { addresses, port } => addresses.is_empty() && port.is_none(),
        }
    }
}

/// What the layout is called whose chain, set or map has this name, where it is one that goes when it has no
/// elements any more.
pub(super) fn layout_of(name: &str) -> Option<&str> {
    masquerade::layout_of(name).or_else(|| ports::layout_of(name))
}

impl Nft {
    /// Makes `filters` stand for `owner`, all of them or none, in one transaction, whatever stood there
    /// before. An element of another owner is replaced, unless `lives` says of its comment that the owner
    /// does: that is [`Kind::Conflict`](node::Kind::Conflict).
    pub fn put(&mut self, filters: &[Filter], owner: &Owner, lives: &dyn Fn(&str) -> bool) -> Result<()> {
        let own = comment(owner);
        let theirs = |held: &str| held != own && lives(held);
        let elements: Vec<Element> = filters.iter().flat_map(Filter::elements).collect();
        let elsewhere =
            |found: &[HeldRule]| filters.iter().flat_map(|filter| filter.elsewhere(found)).collect();
        self.ensure(&layouts(filters), &elements, &elsewhere, &own, &theirs)?;
        filters.iter().try_for_each(|filter| match filter {
            Filter::Firewall(passage) => self.pass(passage, owner),
            Filter::Masquerade(..) | Filter::Ports(..) => Ok(()),
        })
    }

    /// Takes out what is `owner`'s of `traces`, in one transaction. What is not there is done.
    pub fn take(&mut self, traces: &[Trace], owner: &Owner) -> Result<()> {
        if traces.iter().all(Trace::is_empty) {
            return Ok(());
        }
        let sets = self.sets(Family::Inet)?;
        let places: Vec<Element> = traces.iter().flat_map(|trace| trace.places(&sets)).collect();
        self.remove(&places, &comment(owner))?;
        traces.iter().try_for_each(|trace| match trace {
            Trace::Firewall { port: Some(port), .. } => self.end_isolation(port, owner),
            _ => Ok(()),
        })
    }

    /// What is missing or different of `filters`, one line for each thing; no line means that they stand as
    /// [`Nft::put`] made them.
    pub fn lacks(&mut self, filters: &[Filter], owner: &Owner) -> Result<Vec<String>> {
        let elements: Vec<Element> = filters.iter().flat_map(Filter::elements).collect();
        let mut lines = check::missing(self, &layouts(filters), &elements, &comment(owner))?;
        let found = self.channel.list(&Question::Rules(Family::Inet), HeldRule::read)?;
        let strays = self.there(filters.iter().flat_map(|filter| filter.elsewhere(&found)).collect())?;
        let line =
            |(s, _): &(Element, String)| format!("{s} belongs to another network or to older settings");
        lines.extend(strays.iter().map(line));
        for filter in filters {
            if let Filter::Firewall(passage) = filter {
                lines.extend(self.passage_missing(passage, owner)?);
            }
        }
        Ok(lines)
    }

    /// Whether `filters` could be put here: that nf_tables answers to us, and that it has what their rules
    /// need. Layouts that stand prove it; for others, the kernel is given all of it in a transaction that it
    /// only checks, so that the ruleset stays as it is.
    pub fn usable(&mut self, filters: &[Filter]) -> Result<()> {
        layouts(filters).iter().try_for_each(|layout| check::provable(self, layout))
    }
}

/// The layouts of all filters, each once.
fn layouts(filters: &[Filter]) -> Vec<Layout> {
    let mut all: Vec<Layout> = Vec::new();
    for layout in filters.iter().flat_map(Filter::layouts) {
        if !all.contains(&layout) {
            all.push(layout);
        }
    }
    all
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade(what, addresses) => {
                write!(f, "masquerade {} by the rules of `{}`", listed(addresses), what.network)
            }
            Self::Ports(_, forwards) => write!(f, "map the host's {}", listed(forwards)),
            Self::Firewall(passage) => {
                let (pod, ingress) = (listed(&passage.addresses), &passage.ingress);
                write!(f, "let {pod} through the host's firewall{ingress}")
            }
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade(addresses) => write!(f, "stop masquerading {}", listed(addresses)),
            Self::Ports(forwards) => write!(f, "stop mapping the host's {}", listed(forwards)),
            Self::Firewall { addresses, .. } => {
                write!(f, "let {} through the host's firewall no more", listed(addresses))
            }
            Self::Found(found) => {
                let each: Vec<String> = found.iter().map(|f| f.element().to_string()).collect();
                write!(f, "remove {}", each.join(", "))
            }
        }
    }
}

fn listed<T: fmt::Display>(items: &[T]) -> String {
    let each: Vec<_> = items.iter().map(|a| format!("`{a}`")).collect();
    each.join(", ")
}
