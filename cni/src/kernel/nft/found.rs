//! Our elements as they are found with no record to go by: for DEL after a loss, and for GC.

use std::net::IpAddr;

use node::Result;

use super::element::{Element, Held, comment};
use super::layout::Family;
use super::operation::Question;
use super::{Forward, ports};
use super::{Nft, firewall};
use crate::owner::Owner;

/// An element of ours in `table inet nodeplug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The set or map that holds it.
    pub set: String,
    /// Its comment: see [`comment`].
    pub comment: String,
    held: Held,
}

impl Found {
    /// The pod's address that it is about, where it names one.
    pub fn address(&self) -> Option<IpAddr> {
        let bytes = if self.held.data.is_empty() { &self.held.key } else { &self.held.data };
        // A family's sets and maps bear its number before the dash: `pods4-`, `ports6-`.
        let kind = self.set.split('-').next().unwrap_or_default();
        if kind.ends_with('4') {
            bytes.first_chunk::<4>().copied().map(IpAddr::from)
        } else if kind.ends_with('6') {
            bytes.first_chunk::<16>().copied().map(IpAddr::from)
        } else {
            None
        }
    }

    /// The port of the node that it leads from.
    pub fn forward(&self) -> Option<Forward> {
        ports::forward_of(&self.set, &self.held)
    }

    pub(super) fn element(&self) -> Element {
        Element::found(Family::Inet, self.set.clone(), &self.held)
    }
}

impl Nft {
    /// Every element of ours that names an owner. Reads them all: for when records are lost.
    pub fn found(&mut self) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for set in self.sets(Family::Inet)? {
            let held = self.channel.list(&Question::Elements(Family::Inet, &set), Held::read)?;
            let named =
                held.into_iter().filter(|h| !h.comment.is_empty() && !firewall::is_shared(&h.comment));
            all.extend(named.map(|held| Found { set: set.clone(), comment: held.comment.clone(), held }));
        }
        Ok(all)
    }

    /// Those that name `owner`.
    pub fn found_of(&mut self, owner: &Owner) -> Result<Vec<Found>> {
        let comment = comment(owner);
        Ok(self.found()?.into_iter().filter(|found| found.comment == comment).collect())
    }
}
