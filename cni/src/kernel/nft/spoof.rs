//! The MAC check of bridge ports: two elements for each pod, rules made once.

use node::Result;

use crate::owner::Owner;

use super::element::{Element, Held, comment};
use super::layout::{Chain, ETHER, Family, Hook, IFNAME, Layout, RAW, Set, Type};
use super::operation::Question;
use super::rule::{Part, Rule, Side};
use super::{Nft, check};

const CHAIN: &str = "prerouting";
const PORTS: &str = "ports";
const MACS: &str = "macs";

/// A frame from a watched port needs the MAC given to that port.
pub(super) fn layout() -> Layout {
    let from = Part::Interface(Side::From);
    Layout {
        family: Family::Bridge,
        kind: CHAIN,
        sets: vec![Set::of(IFNAME, PORTS), Set::of(Type::all(&[IFNAME, ETHER]), MACS)],
        chains: vec![Chain::base(
            CHAIN,
            Hook::filter(libc::NF_BR_PRE_ROUTING, RAW),
            vec![
                // With the MAC that was given to the port it goes on.
                Rule::new().within(&[from, Part::EtherSource], MACS).go_back(),
                Rule::new().within(&[from], PORTS).drop(),
            ],
        )],
    }
}

/// The elements that let `port` send from `mac` alone.
fn elements(port: &str, mac: [u8; 6]) -> Vec<Element> {
    vec![Element::port(PORTS, port), Element::port_mac(MACS, port, mac)]
}

impl Nft {
    /// Lets the bridge's port `port` send from `mac` and from no other.
    pub fn spoof_check(&mut self, port: &str, mac: [u8; 6], owner: &Owner) -> Result<()> {
        self.ensure(&[layout()], &elements(port, mac), &|_| Vec::new(), &comment(owner), &|_| false)
    }

    /// Takes the check of `port` back, where it is `owner`'s. Without the MAC the sets are read whole.
    pub fn no_spoof_check(&mut self, port: &str, mac: Option<[u8; 6]>, owner: &Owner) -> Result<()> {
        let comment = comment(owner);
        let elements = if let Some(mac) = mac {
            elements(port, mac)
        } else {
            let held = self.spoof_held()?.into_iter();
            held.filter(|(_, h)| h.port() == port).map(|(set, h)| element(set, &h)).collect()
        };
        self.remove(&elements, &comment)
    }

    /// What is missing or different of the check of `port`, one line for each thing.
    pub fn spoof_missing(&mut self, port: &str, mac: [u8; 6], owner: &Owner) -> Result<Vec<String>> {
        check::missing(self, &[layout()], &elements(port, mac), &comment(owner))
    }

    /// Whether the MAC check can be made here, by the same proof as [`Nft::usable`].
    pub fn spoof_usable(&mut self) -> Result<()> {
        check::provable(self, &layout())
    }

    /// The ports whose elements name `owner`. Reads every element: for when the records are lost.
    pub fn spoof_checked_by(&mut self, owner: &Owner) -> Result<Vec<String>> {
        let comment = comment(owner);
        let all = self.spoof_owners()?;
        Ok(all.into_iter().filter(|(c, _)| *c == comment).map(|(_, port)| port).collect())
    }

    /// Every watched port with its element's comment (see [`comment`]). Reads every element.
    pub fn spoof_owners(&mut self) -> Result<Vec<(String, String)>> {
        let held = self.spoof_held()?.into_iter();
        let mut all: Vec<(String, String)> = held.map(|(_, h)| (h.comment.clone(), h.port())).collect();
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    fn spoof_held(&mut self) -> Result<Vec<(&'static str, Held)>> {
        let mut all = Vec::new();
        for set in [PORTS, MACS] {
            let held = self.channel.list(&Question::Elements(Family::Bridge, set), Held::read)?;
            all.extend(held.into_iter().map(|h| (set, h)));
        }
        Ok(all)
    }
}

fn element(set: &str, held: &Held) -> Element {
    match held.mac() {
        Some(mac) => Element::port_mac(set, &held.port(), mac),
        None => Element::port(set, &held.port()),
    }
}
