//! What the manager knows: which endpoint serves a resource, what of it is healthy, and who holds what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::deviceplugin::{ContainerAllocateResponse, Device, DevicePluginOptions, ListAndWatchResponse};

use super::plugins::Client;

/// How long a resource without a plugin is remembered.
const GRACE: Duration = Duration::from_mins(5);

/// Where a resource's calls go.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// None after a restart, until the plugin registers again.
    pub(super) client: Option<Arc<Client>>,
    pub(super) options: DevicePluginOptions,
    pub(super) stopped: Option<Instant>,
}

/// What a container holds of one resource.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// The devices by NUMA node; -1 for those without.
    pub devices: BTreeMap<i64, BTreeSet<String>>,
    /// The plugin's answer, as it was when they were allocated.
    pub answer: ContainerAllocateResponse,
}

impl Held {
    /// The devices of all NUMA nodes.
    pub fn ids(&self) -> BTreeSet<String> {
        self.devices.values().flatten().cloned().collect()
    }
}

/// What the manager has of a resource now.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// The devices of the last list by ID: twins have collapsed.
    pub devices: BTreeMap<String, Device>,
    /// Those that can be had.
    pub healthy: BTreeSet<String>,
    /// Those that can't.
    pub unhealthy: BTreeSet<String>,
    /// The stream that the last list came by.
    pub stream: u64,
    /// When this last changed or was confirmed.
    pub at: Option<Instant>,
    /// How many lists came by this stream.
    pub lists: usize,
}

impl Offer {
    /// All devices, as the node's status shows them.
    pub fn capacity(&self) -> usize {
        self.healthy.len() + self.unhealthy.len()
    }

    /// Those that the scheduler may give away.
    pub fn allocatable(&self) -> usize {
        self.healthy.len()
    }
}

/// A container of a pod, by the pod's uid and its own name.
pub(super) type Place = (String, String);

#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) endpoints: BTreeMap<String, Endpoint>,
    pub(super) offers: BTreeMap<String, Offer>,
    pub(super) held: BTreeMap<Place, BTreeMap<String, Held>>,
    /// What is held, and what is being allocated.
    pub(super) taken: BTreeMap<String, BTreeSet<String>>,
}

impl Memory {
    /// PluginConnected: from now on this client serves the resource.
    pub(super) fn connected(&mut self, client: &Arc<Client>, options: DevicePluginOptions) {
        let endpoint = Endpoint { client: Some(client.clone()), options, stopped: None };
        self.endpoints.insert(client.resource.clone(), endpoint);
    }

    /// PluginDisconnected: all that is healthy is not any more, and the resource's calls go nowhere. It asks
    /// for the name alone.
    pub(super) fn disconnected(&mut self, resource: &str) {
        let Some(endpoint) = self.endpoints.get_mut(resource) else { return };
        endpoint.stopped = Some(Instant::now());
        let offer = self.offers.entry(resource.to_owned()).or_default();
        let healthy = std::mem::take(&mut offer.healthy);
        offer.unhealthy.extend(healthy);
        offer.at = Some(Instant::now());
    }

    /// A list takes the place of everything before it. Twins collapse, the last one counts.
    pub(super) fn listed(&mut self, resource: &str, stream: u64, list: &ListAndWatchResponse) {
        let before = self.offers.get(resource).filter(|o| o.stream == stream).map_or(0, |o| o.lists);
        let mut offer = Offer { stream, lists: before + 1, ..Offer::default() };
        for device in &list.devices {
            offer.devices.insert(device.id.clone(), device.clone());
            // Exactly this word, and every other is the contrary. A twin may be in both sets, as there.
            let set = if device.health == proto::HEALTHY { &mut offer.healthy } else { &mut offer.unhealthy };
            set.insert(device.id.clone());
        }
        offer.at = Some(Instant::now());
        self.offers.insert(resource.to_owned(), offer);
    }

    /// GetCapacity: a resource whose plugin went long ago is gone.
    pub(super) fn forget_stopped(&mut self) {
        let old = |e: &Endpoint| e.stopped.is_some_and(|at| at.elapsed() > GRACE);
        let gone: Vec<String> =
            self.endpoints.iter().filter(|(_, e)| old(e)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.endpoints.remove(&name);
            self.offers.remove(&name);
        }
    }

    /// What is taken is what is held: allocations that failed give theirs back.
    pub(super) fn count_taken(&mut self) {
        let mut taken: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (resource, held) in self.held.values().flatten() {
            taken.entry(resource.clone()).or_default().extend(held.ids());
        }
        self.taken = taken;
    }
}
