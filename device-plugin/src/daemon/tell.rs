//! What the daemon says of changes: to people, one line each, and to who reads labels.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::jobs::devices;
use super::slot::Slot;
use super::{Daemon, complain};
use crate::config::{Registration, overlaps};
use crate::features;
use crate::inventory::{Entry, Found, State};
use crate::service::Offer;

/// So many devices are compared with each other after a change; with more, only `discover` does it.
const MOST_COMPARED: usize = 2_000;

impl Daemon {
    pub(super) fn greet(&self) {
        let socket = self.config.kubelet.device_plugins.join("kubelet.sock");
        let direct = self.config.kubelet.registration == Registration::Direct;
        info!(resources = self.slots.len(), "started");
        if direct && !socket.exists() {
            info!(socket = %socket.display(), "the kubelet is not there yet: waiting for it");
        }
    }

    /// Tells of a change: people, and who reads labels.
    pub(super) fn tell(&mut self, offer: &Arc<Offer>, changed: bool) {
        if let Some(slot) = self.slot_of(offer).filter(|_| changed) {
            slot.told_unhealthy = tell(offer, slot.told_unhealthy);
        }
        self.label();
        self.tell_overlaps();
    }

    /// A device of two resources can be had twice, each time for itself alone. One line for each, once.
    fn tell_overlaps(&mut self) {
        let count: usize =
            self.slots.iter().map(|slot| slot.offer.with(|_, inventory| inventory.entries().len())).sum();
        if self.slots.len() < 2 || count > MOST_COMPARED {
            return;
        }
        let all: Vec<(String, Vec<Found>)> = self
            .slots
            .iter()
            .map(|slot| (slot.offer.name().to_string(), devices(&slot.offer, Entry::is_there)))
            .collect();
        let all: Vec<(&str, &[Found])> =
            all.iter().map(|(name, found)| (name.as_str(), found.as_slice())).collect();
        let now: BTreeSet<String> = overlaps(&all).iter().map(ToString::to_string).collect();
        for overlap in now.difference(&self.overlaps) {
            warn!("{overlap}: one pod each may get it; take it out of one of them");
        }
        self.overlaps = now;
    }

    /// Tells node-feature-discovery what there is.
    pub(super) fn label(&self) {
        let Some(path) = &self.config.feature_file else { return };
        let healthy = |slot: &Slot| slot.offer.with(|resource, inventory| inventory.counts(resource).0);
        let text = features::text(self.slots.iter().map(|slot| (slot.offer.name(), healthy(slot))));
        if let Err(error) = features::write(path, &text) {
            complain(&error);
        }
    }
}

/// One line a change; the answer is how many are unhealthy now.
fn tell(offer: &Offer, unhealthy_before: usize) -> usize {
    let (healthy, unhealthy, why, left_out) = offer.with(|resource, inventory| {
        let (healthy, unhealthy) = inventory.counts(resource);
        let of = |state: State| {
            let entry = inventory.entries().map(|(_, entry)| entry).find(|entry| entry.state() == state);
            entry.and_then(|entry| entry.why().map(|why| format!("{}: {why}", entry.found().name)))
        };
        let left_out = Some(inventory.left_out()).filter(|count| *count > 0);
        (healthy, unhealthy, of(State::Unhealthy).or_else(|| of(State::Gone)), left_out)
    });
    if let Some(left_out) = left_out {
        error!(
            resource = %offer.name(),
            left_out,
            "the kubelet takes no list above 4 MiB: offer fewer devices or replicas"
        );
    }
    match why {
        Some(why) if unhealthy > unhealthy_before => {
            warn!(resource = %offer.name(), healthy, unhealthy, why, "devices changed");
        }
        _ => info!(resource = %offer.name(), healthy, unhealthy, "devices changed"),
    }
    unhealthy
}
