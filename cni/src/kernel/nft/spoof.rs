//! The MAC check of bridge ports: two elements for each pod, rules made once.

use node::Result;

use crate::owner::Owner;

use super::element::{Element, Held, comment};
use super::layout::{Family, Layout};
use super::operation::Question;
use super::{Nft, check};

impl Nft {
    /// Lets the bridge's port `port` send from `mac` and from no other.
    pub fn spoof_check(&mut self, port: &str, mac: [u8; 6], owner: &Owner) -> Result<()> {
        self.ensure(&Layout::spoof_check(), &Layout::spoof_elements(port, mac), &[], &comment(owner), &|_| {
            false
        })
    }

    /// Takes the check of `port` back, where it is `owner`'s. Without the MAC the sets are read whole.
    pub fn no_spoof_check(&mut self, port: &str, mac: Option<[u8; 6]>, owner: &Owner) -> Result<()> {
        let comment = comment(owner);
        let elements = if let Some(mac) = mac {
            Layout::spoof_elements(port, mac).to_vec()
        } else {
            let held = self.spoof_held()?.into_iter();
            held.filter(|(_, h)| h.port() == port).map(|(set, h)| element(set, &h)).collect()
        };
        self.remove(&elements, &comment)
    }

    /// What is missing or different of the check of `port`, one line for each thing.
    pub fn spoof_missing(&mut self, port: &str, mac: [u8; 6], owner: &Owner) -> Result<Vec<String>> {
        check::missing(self, &Layout::spoof_check(), &Layout::spoof_elements(port, mac), &comment(owner))
    }

    /// Whether the MAC check can be made here, by the same proof as [`Nft::usable`].
    pub fn spoof_usable(&mut self) -> Result<()> {
        check::provable(self, &Layout::spoof_check())
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
        for set in Layout::spoof_sets() {
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
