//! What a resource has: devices as sources find them, and what becomes of them over time. Pure: it takes what
//! was seen and says what the kubelet is to know.
//!
//! A device that was listed once stays listed. The kubelet crashes where one vanishes from the list while a pod
//! is being given it, and takes one that is not listed for healthy; so a device that is gone is an unhealthy one,
//! until nobody can hold it any more.

mod entry;
mod found;
pub mod id;

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry as MapEntry};
use std::sync::Arc;
use std::time::Instant;

use proto::EncodedList;
use proto::deviceplugin::{Device, NumaNode, TopologyInfo};

use crate::allocate::Chosen;
use crate::config::Resource;

pub use entry::{Entry, State};
pub use found::{DeviceNumber, Found, Looked, Node, Rejected};
pub use id::{counted_weight, id, weight};

/// The devices of one resource.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Boxed, since a map's nodes are half empty.
    entries: BTreeMap<Arc<str>, Box<Entry>>,
    /// By the ID of the first replica.
    identities: BTreeMap<Arc<str>, Arc<str>>,
}

impl Inventory {
    /// Takes a look's devices for what is there at `now`; says whether the list is another one. Where a source could
    /// not be looked at, what is missing is not gone, but can't be had.
    pub fn saw(&mut self, resource: &Resource, looked: Looked, now: Instant) -> bool {
        let mut changed = false;
        let seen: BTreeSet<Arc<str>> =
            looked.found.into_iter().map(|device| self.meet(resource, device, &mut changed)).collect();
        for (identity, entry) in &mut self.entries {
            if !seen.contains(identity) {
                changed |= match &looked.failed {
                    Some(why) => entry.is_uncertain(why),
                    None => entry.vanished(now),
                };
            }
        }
        changed
    }

    fn meet(&mut self, resource: &Resource, found: Found, changed: &mut bool) -> Arc<str> {
        let known = self.entries.get_key_value(found.identity.as_str()).map(|(identity, _)| identity.clone());
        let identity = known.unwrap_or_else(|| found.identity.as_str().into());
        match self.entries.entry(identity.clone()) {
            MapEntry::Occupied(mut entry) => *changed |= entry.get_mut().seen(resource, found),
            MapEntry::Vacant(place) => {
                let id: Arc<str> = id(resource.name.as_str(), &found.identity, 0).into();
                self.identities.insert(id.clone(), identity.clone());
                place.insert(Box::new(Entry::new(resource, id, found)));
                *changed = true;
            }
        }
        identity
    }

    /// Takes the outcome of a device's checks; says whether the list is another one.
    pub fn checked(&mut self, resource: &Resource, identity: &str, outcome: Result<(), String>) -> bool {
        self.entries.get_mut(identity).is_some_and(|entry| entry.checked(&resource.health, outcome))
    }

    /// Lets go what was gone before `then` and is held by nobody (`is_held` of an ID); says whether the list is
    /// another one.
    pub fn part(&mut self, resource: &Resource, then: Instant, is_held: &dyn Fn(&str) -> bool) -> bool {
        let before = self.entries.len();
        let (entries, identities) = (&mut self.entries, &mut self.identities);
        entries.retain(|_, entry| {
            let may_go = entry.gone_since().is_some_and(|since| since <= then)
                && !(0..resource.replicas).any(|n| is_held(&entry.id(n)));
            if may_go {
                identities.remove(entry.base());
            }
            !may_go
        });
        self.entries.len() != before
    }

    /// Whether anything is listed that is gone.
    pub fn has_gone(&self) -> bool {
        self.entries.values().any(|entry| entry.state() == State::Gone)
    }

    /// The devices, by their identity.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(identity, entry)| (identity.as_ref(), entry.as_ref()))
    }

    /// How many devices the kubelet knows: healthy, and unhealthy ones.
    pub fn counts(&self, resource: &Resource) -> (usize, usize) {
        let replicas = usize::try_from(resource.replicas).unwrap_or(usize::MAX);
        let healthy = self.entries.values().filter(|entry| entry.is_healthy()).count();
        (healthy.saturating_mul(replicas), (self.entries.len() - healthy).saturating_mul(replicas))
    }

    /// The list, as the kubelet is to know it. It is encoded device by device: ten thousand of them are never there as
    /// messages.
    pub fn list(&self, resource: &Resource) -> EncodedList {
        EncodedList::of(self.entries.values().flat_map(|entry| {
            let health = if entry.is_healthy() { proto::HEALTHY } else { proto::UNHEALTHY };
            let near = |node| TopologyInfo { nodes: vec![NumaNode { id: i64::from(node) }] };
            (0..resource.replicas).map(move |n| Device {
                id: entry.id(n),
                health: health.to_owned(),
                topology: entry.found().numa.map(near),
            })
        }))
    }

    /// The device that has this ID.
    pub fn choose<'a>(&'a self, resource: &Resource, id: &'a str) -> Option<(Chosen<'a>, &'a Entry)> {
        // The first replica's ID has no number.
        let (identity, replica) = if let Some(identity) = self.identities.get(id) {
            (identity, 0)
        } else {
            let (base, number) = id.rsplit_once('-')?;
            let replica = number.parse().ok().filter(|n| (1..resource.replicas).contains(n))?;
            (self.identities.get(base)?, replica)
        };
        let entry = self.entries.get(identity)?;
        Some((Chosen { id, found: entry.found(), replica }, entry))
    }

    /// Whether nothing was ever seen.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests;
