//! What of the host's own rules drops the pods' packets: for people who look.

use node::Result;

use super::Nft;
use super::host::{CNI_FORWARD, FAMILIES, HeldHostRule, PLUGIN_RULES, Place, Wanted};
use super::layout::Family;

/// A forward chain of the host's that drops what none of its rules accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropper {
    /// `the chain `forward` of `inet filter``.
    pub place: String,
    /// Its policy drops; otherwise its last rule does.
    pub by_policy: bool,
    /// The rule is there that lets the pods' packets by.
    pub opened: bool,
    /// Other rules of it may accept them.
    pub may_accept: bool,
}

impl Nft {
    /// The host's forward chains that drop. Reads the rules of each: for people.
    pub fn droppers(&mut self) -> Result<Vec<Dropper>> {
        let mut found = Vec::new();
        for family in FAMILIES {
            for base in self.forward_chains(family)? {
                let rules = self.rules_of(&base.place)?;
                let stopped = rules.last().is_some_and(HeldHostRule::stops_all);
                if !base.drops && !stopped {
                    continue;
                }
                let jump = Wanted::Jump(CNI_FORWARD.to_owned(), PLUGIN_RULES);
                let opened = if base.is_iptables() {
                    let beside = Place { chain: CNI_FORWARD.to_owned(), ..base.place.clone() };
                    let inside = self.rules_of(&beside)?;
                    rules.iter().any(|r| jump.is(r)) && inside.iter().any(|r| Wanted::Accept.is(r))
                } else {
                    rules.iter().any(|r| Wanted::Accept.is(r))
                };
                let may_accept = rules.iter().any(|r| !jump.is(r) && r.may_accept());
                found.push(Dropper {
                    place: base.place.to_string(),
                    by_policy: base.drops,
                    opened,
                    may_accept,
                });
            }
        }
        Ok(found)
    }

    /// Whether kube-proxy's rules are there.
    pub fn has_kube_proxy(&mut self) -> Result<bool> {
        let nat = |family| Place { family, table: "nat".into(), chain: "KUBE-SERVICES".into() };
        let own = |family| Place { family, table: "kube-proxy".into(), chain: "services".into() };
        for place in [nat(Family::Ip), own(Family::Ip), nat(Family::Ip6), own(Family::Ip6)] {
            if self.has_chain(&place)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
