//! What a resource has: devices as sources find them, and what becomes of them over time. Pure: it takes what
//! was seen and says what the kubelet is to know.
//!
//! A device that was listed once stays listed. The kubelet crashes where one vanishes from the list while a pod
//! is being given it, and takes one that is not listed for healthy; so a device that is gone is an unhealthy one,
//! until nobody can hold it any more.

mod entry;
mod found;
pub mod id;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use proto::EncodedList;
use proto::deviceplugin::{Device, NumaNode, TopologyInfo};

use crate::config::Resource;

pub use entry::{Entry, State};
pub use found::{Chosen, DeviceNumber, Found, Looked, Node, Rejected};
pub use id::{counted_weight, id, weight};

/// The devices of one resource.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Boxed, since a map's nodes are half empty.
    entries: BTreeMap<Arc<str>, Box<Entry>>,
    /// By the ID of the first replica.
    identities: BTreeMap<Arc<str>, Arc<str>>,
    /// IDs that pods hold and nobody found, and since when they are listed.
    strays: BTreeMap<String, Instant>,
    /// The bytes of the list at its worst.
    weight: usize,
    left_out: usize,
}

/// What is known of who holds devices.
#[derive(Debug, Clone, Copy)]
pub enum Holding<'a> {
    /// The kubelet said that these IDs are held, and no others.
    Told(&'a BTreeSet<String>),
    /// Nobody tells: what a pod was given since the daemon started may be held.
    Unknown,
}

impl Holding<'_> {
    fn any(self, entry: &Entry, mut replicas: Range<u32>) -> bool {
        match self {
            Self::Told(ids) => replicas.any(|n| ids.contains(&entry.id(n))),
            Self::Unknown => entry.was_given(),
        }
    }

    fn id(self, id: &str) -> bool {
        match self {
            Self::Told(ids) => ids.contains(id),
            Self::Unknown => true,
        }
    }
}

impl Inventory {
    /// Takes a look's devices for what is there at `now`; says whether the list is another one. Where a source could
    /// not be looked at, what is missing is not gone, but can't be had.
    pub fn saw(&mut self, resource: &Resource, looked: Looked, now: Instant) -> bool {
        self.left_out = 0;
        let mut changed = self.replicate(resource.replicas, now);
        let mut seen = BTreeSet::new();
        for found in looked.found {
            match self.meet(resource, found.compact(), &mut changed) {
                Some(identity) => drop(seen.insert(identity)),
                None => self.left_out += 1,
            }
        }
        for (identity, entry) in &mut self.entries {
            if !seen.contains(identity) {
                changed |= match &looked.failed {
                    Some(why) => entry.is_uncertain(why),
                    None => entry.vanished(now),
                };
            }
        }
        // What was found is not astray any more.
        let found: Vec<String> = self.strays.keys().filter(|id| self.choose(id).is_some()).cloned().collect();
        self.strays.retain(|id, _| !found.contains(id));
        changed
    }

    /// Nobody can say whether any of them is there. Says whether the list is another one.
    pub fn doubt(&mut self, why: &str) -> bool {
        let mut changed = false;
        for entry in self.entries.values_mut() {
            changed |= entry.is_uncertain(why);
        }
        changed
    }

    /// Brings the replicas of all devices to their number, as far as the list can take them.
    fn replicate(&mut self, replicas: u32, now: Instant) -> bool {
        let mut changed = false;
        for entry in self.entries.values_mut() {
            let more = entry.weight_of(entry.listed()..replicas);
            if self.weight + more > proto::MESSAGE_LIMIT {
                self.left_out += 1;
                continue;
            }
            self.weight += more;
            entry.weighs(entry.weight() + more);
            changed |= entry.replicate(replicas, now);
        }
        changed
    }

    /// None where the list has no room for a device that is new.
    fn meet(&mut self, resource: &Resource, found: Found, changed: &mut bool) -> Option<Arc<str>> {
        let known = self.entries.get_key_value(found.identity.as_str()).map(|(identity, _)| identity.clone());
        if let Some(identity) = known {
            *changed |= self.entries.get_mut(&identity)?.seen(resource, found);
            return Some(identity);
        }
        let identity: Arc<str> = found.identity.as_str().into();
        let id: Arc<str> = id(resource.name.as_str(), &found.identity, 0).into();
        let mut entry = Entry::new(resource, id.clone(), found);
        let weight = entry.weight_of(0..resource.replicas);
        if self.weight + weight > proto::MESSAGE_LIMIT {
            return None;
        }
        entry.weighs(weight);
        self.weight += weight;
        self.identities.insert(id, identity.clone());
        self.entries.insert(identity.clone(), Box::new(entry));
        *changed = true;
        Some(identity)
    }

    /// Takes IDs that pods hold: those that nobody found are listed all the same, as unhealthy ones. The kubelet takes
    /// a held device that is not listed for healthy, and what it was before this daemon started is told by nobody else.
    /// Says whether the list is another one.
    pub fn remember(&mut self, held: &BTreeSet<String>, now: Instant) -> bool {
        let mut changed = false;
        for id in held {
            if self.choose(id).is_none() && !self.strays.contains_key(id) {
                self.strays.insert(id.clone(), now);
                changed = true;
            }
        }
        changed
    }

    /// A pod is given these.
    pub fn give(&mut self, ids: &[String]) {
        for id in ids {
            let identity = self.choose(id).map(|(chosen, _)| chosen.found.identity.clone());
            if let Some(entry) = identity.and_then(|identity| self.entries.get_mut(identity.as_str())) {
                entry.give();
            }
        }
    }

    /// Takes the outcome of a device's checks; says whether the list is another one.
    pub fn checked(&mut self, resource: &Resource, identity: &str, outcome: Result<(), String>) -> bool {
        self.entries.get_mut(identity).is_some_and(|entry| entry.checked(&resource.health, outcome))
    }

    /// Lets go what was gone before `then` and is held by nobody, and replicas that were too many then; says whether
    /// the list is another one.
    pub fn part(&mut self, resource: &Resource, then: Instant, held: &Holding<'_>) -> bool {
        let mut changed = false;
        let (entries, identities, weight) = (&mut self.entries, &mut self.identities, &mut self.weight);
        entries.retain(|_, entry| {
            let due = |since: Option<Instant>| since.is_some_and(|since| since <= then);
            let surplus = resource.replicas..entry.listed();
            if due(entry.gone_since()) && !held.any(entry, 0..entry.listed()) {
                *weight = weight.saturating_sub(entry.weight());
                identities.remove(entry.base());
                changed = true;
                return false;
            }
            if due(entry.surplus_since()) && !held.any(entry, surplus.clone()) {
                let less = entry.weight_of(surplus);
                *weight = weight.saturating_sub(less);
                entry.weighs(entry.weight().saturating_sub(less));
                changed |= entry.drop_surplus(resource.replicas);
            }
            true
        });
        let before = self.strays.len();
        self.strays.retain(|id, since| *since > then || held.id(id));
        changed || self.strays.len() != before
    }

    /// Whether anything is listed that is gone, or too many.
    pub fn has_gone(&self) -> bool {
        let gone = |entry: &Entry| entry.state() == State::Gone || entry.surplus_since().is_some();
        !self.strays.is_empty() || self.entries.values().any(|entry| gone(entry))
    }

    /// How many devices of the last look are not listed, since the kubelet takes no longer list.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The devices, by their identity.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(identity, entry)| (identity.as_ref(), entry.as_ref()))
    }

    /// How many devices the kubelet knows: healthy, and unhealthy ones.
    pub fn counts(&self, resource: &Resource) -> (usize, usize) {
        let (mut healthy, mut all) = (0, 0);
        for entry in self.entries.values() {
            let listed = usize::try_from(entry.listed()).unwrap_or(usize::MAX);
            let meant = usize::try_from(resource.replicas).unwrap_or(usize::MAX);
            all += listed;
            healthy += if entry.is_healthy() { listed.min(meant) } else { 0 };
        }
        (healthy, all - healthy + self.strays.len())
    }

    /// The list, as the kubelet is to know it. It is encoded device by device: ten thousand of them are never there as
    /// messages.
    pub fn list(&self, resource: &Resource) -> EncodedList {
        let devices = self.entries.values().flat_map(|entry| {
            let near = |node| TopologyInfo { nodes: vec![NumaNode { id: i64::from(node) }] };
            (0..entry.listed()).map(move |n| {
                let healthy = entry.is_healthy() && n < resource.replicas;
                let health = if healthy { proto::HEALTHY } else { proto::UNHEALTHY }.to_owned();
                Device { id: entry.id(n), health, topology: entry.found().numa.map(near) }
            })
        });
        let strays = self.strays.keys().map(|id| Device {
            id: id.clone(),
            health: proto::UNHEALTHY.to_owned(),
            topology: None,
        });
        EncodedList::of(devices.chain(strays))
    }

    /// The device that has this ID.
    pub fn choose<'a>(&'a self, id: &'a str) -> Option<(Chosen<'a>, &'a Entry)> {
        // The first replica's ID has no number.
        let (identity, replica) = if let Some(identity) = self.identities.get(id) {
            (identity, 0)
        } else {
            let (base, number) = id.rsplit_once('-')?;
            (self.identities.get(base)?, number.parse().ok().filter(|n| *n > 0)?)
        };
        let entry = self.entries.get(identity)?;
        (replica < entry.listed()).then_some((Chosen { id, found: entry.found(), replica }, entry))
    }

    /// Whether nothing was ever seen.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests;
