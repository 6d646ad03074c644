//! What may take time is done on threads of its own: looks at devices and their checks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::Daemon;
use super::slot::{Slot, merged};
use crate::cdi;
use crate::config::{Host, Resource, Selector, overlaps};
use crate::discover::{self, Watches};
use crate::health;
use crate::holders::Held;
use crate::inventory::{Found, Looked};
use crate::kernel::memory;
use crate::service::Offer;

/// From so many devices on, a look needs memory that is worth giving back.
const MANY: usize = 500;

/// So many devices are compared with each other after a change; with more, only `discover` does it.
const MOST_COMPARED: usize = 2_000;

/// What a job came to. It names its resource by the offer, and how that was configured: another one of the same name
/// is not meant.
pub(super) enum Done {
    Looked { offer: Arc<Offer>, resource: Arc<Resource>, looked: Looked, watches: Watches, took: Duration },
    Checked { offer: Arc<Offer>, resource: Arc<Resource>, outcomes: Vec<(String, Result<(), String>)> },
    Asked { held: node::Result<Option<Held>> },
}

/// How many jobs of a kind there are at a time. What waits for programs holds up no look at the kernel's own files,
/// and nothing holds up the kubelet's calls, which have threads of their own.
pub(super) struct Workers {
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

/// Jobs of a kind at a time.
const EACH: usize = 4;

impl Default for Workers {
    fn default() -> Self {
        Self { quick: Arc::new(Semaphore::new(EACH)), slow: Arc::new(Semaphore::new(EACH)) }
    }
}

impl Workers {
    /// Does the work on a thread of its own when it is its turn, and sends what it came to.
    fn begin(
        &self,
        slow: bool,
        done: mpsc::UnboundedSender<Done>,
        work: impl FnOnce() -> Done + Send + 'static,
    ) {
        let turns = if slow { self.slow.clone() } else { self.quick.clone() };
        tokio::spawn(async move {
            let turn = turns.acquire_owned().await;
            spawn_blocking(move || {
                // The loop is gone only when the daemon is.
                let _ = done.send(work());
                drop(turn);
            });
        });
    }
}

impl Daemon {
    /// Begins a look at each resource where something changed. One that is being looked at is looked at again
    /// when that is done. `anew`: the folders are watched anew, too.
    pub(super) fn look_where_dirty(&mut self, anew: bool) {
        if !self.slots.iter().any(|slot| slot.dirty && !slot.looking) {
            return;
        }
        self.watch_folders(anew);
        let blind = self.watch.is_blind();
        for slot in self.slots.iter_mut().filter(|slot| slot.dirty && !slot.looking) {
            slot.orders.send_if_modified(|orders| std::mem::replace(&mut orders.poll, blind) != blind);
            (slot.dirty, slot.looking) = (false, true);
            slot.schedule_look(&self.config.discovery, blind);
            let (offer, host) = (slot.offer.clone(), self.config.host.clone());
            let resource = offer.resource();
            let slow = resource.devices.iter().any(|selector| matches!(selector, Selector::Command(_)));
            self.workers.begin(slow, self.done.clone(), move || {
                let start = Instant::now();
                let looked = look(&resource, &host);
                let took = start.elapsed();
                let watches = merged(&resource, &host);
                Done::Looked { offer, resource, looked, watches, took }
            });
        }
    }

    pub(super) fn check_where_due(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if slot.checking || slot.next_check.is_none_or(|due| due > now) {
                continue;
            }
            slot.checking = true;
            let (offer, host) = (slot.offer.clone(), self.config.host.clone());
            self.workers.begin(true, self.done.clone(), move || {
                let devices: Vec<Found> = offer.with(|_, inventory| {
                    let present = inventory.entries().filter(|(_, entry)| entry.is_there());
                    present.map(|(_, entry)| entry.found().clone()).collect()
                });
                let (resource, mut round) = (offer.resource(), health::Round::new(&host));
                let outcomes = devices
                    .into_iter()
                    .map(|found| (found.identity.clone(), round.check(&resource, &found)))
                    .collect();
                Done::Checked { offer, resource, outcomes }
            });
        }
    }

    pub(super) fn take(&mut self, done: Done) {
        match done {
            Done::Looked { offer, resource, looked, watches, took } => {
                self.metrics.looked(offer.name(), took);
                self.looked(&offer, &resource, looked, watches);
            }
            Done::Checked { offer, resource, outcomes } => self.checked(&offer, &resource, outcomes),
            Done::Asked { held } => self.part(held),
        }
        self.part_later();
    }

    fn slot_of(&mut self, offer: &Arc<Offer>) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| Arc::ptr_eq(&slot.offer, offer))
    }

    fn looked(&mut self, offer: &Arc<Offer>, resource: &Arc<Resource>, looked: Looked, watches: Watches) {
        let Some(slot) = self.slot_of(offer) else { return };
        slot.looking = false;
        // The configuration is another one by now: what was found is not meant any more.
        if !Arc::ptr_eq(resource, &offer.resource()) {
            slot.dirty = true;
            return;
        }
        // What to watch depends on what is there: a folder that is new may have got something before it was watched.
        if slot.watches != watches {
            slot.watches = watches;
            slot.dirty = true;
        }
        let now = Instant::now();
        let changed = offer.change(|resource, inventory| inventory.saw(resource, looked, now));
        let (unchecked, count) = offer.with(|_, inventory| {
            (inventory.entries().any(|(_, entry)| entry.is_unchecked()), inventory.entries().len())
        });
        if resource.health.checks.is_empty() {
            slot.next_check = None;
        } else if unchecked || slot.next_check.is_none() {
            // A device that is new waits for nothing but its check.
            slot.schedule_check(Duration::ZERO);
        }
        if count > MANY {
            memory::trim();
        }
        // Until the first look is done, the kubelet is told nothing: an empty list would be a lie.
        offer.looked_at();
        if changed {
            self.tell(offer);
        }
    }

    fn checked(
        &mut self,
        offer: &Arc<Offer>,
        resource: &Arc<Resource>,
        outcomes: Vec<(String, Result<(), String>)>,
    ) {
        let Some(slot) = self.slot_of(offer) else { return };
        slot.checking = false;
        if !Arc::ptr_eq(resource, &offer.resource()) {
            slot.schedule_check(Duration::ZERO);
            return;
        }
        let changed = offer.change(|resource, inventory| {
            let mut changed = false;
            for (identity, outcome) in outcomes {
                changed |= inventory.checked(resource, &identity, outcome);
            }
            changed
        });
        // A device that came meanwhile was not among them.
        let unchecked = offer.with(|_, inventory| inventory.entries().any(|(_, entry)| entry.is_unchecked()));
        slot.schedule_check(if unchecked { Duration::ZERO } else { resource.health.every.duration() });
        if changed {
            self.tell(offer);
        }
    }
}

impl Daemon {
    /// Tells of a change: people, and who reads labels.
    fn tell(&mut self, offer: &Offer) {
        tell(offer);
        self.label();
        self.tell_overlaps();
    }

    /// A device of two resources can be had twice, each time for itself alone. One line for each, once.
    fn tell_overlaps(&mut self) {
        let devices = |slot: &Slot| -> Vec<Found> {
            slot.offer.with(|_, inventory| {
                let present = inventory.entries().filter(|(_, entry)| entry.is_there());
                present.map(|(_, entry)| entry.found().clone()).collect()
            })
        };
        let count: usize =
            self.slots.iter().map(|slot| slot.offer.with(|_, inventory| inventory.entries().len())).sum();
        if self.slots.len() < 2 || count > MOST_COMPARED {
            return;
        }
        let all: Vec<(String, Vec<Found>)> =
            self.slots.iter().map(|slot| (slot.offer.name().to_string(), devices(slot))).collect();
        let all: Vec<(&str, &[Found])> =
            all.iter().map(|(name, found)| (name.as_str(), found.as_slice())).collect();
        for overlap in overlaps(&all) {
            let text = overlap.to_string();
            if !self.overlaps.contains(&text) {
                warn!("{text}: one pod each may get it; take it out of one of them");
                self.overlaps.insert(text);
            }
        }
    }
}

/// All sources of a resource. The runtime's specification of the devices is written before anybody hears of them.
fn look(resource: &Resource, host: &Host) -> Looked {
    let mut looked = Looked::default();
    let mut known = BTreeSet::new();
    for selector in &resource.devices {
        let one = discover::look(selector, host);
        // A device that several sources find is one; the first says what it is.
        looked.found.extend(one.found.into_iter().filter(|found| known.insert(found.identity.clone())));
        looked.failed = looked.failed.or(one.failed);
    }
    if looked.failed.is_none() {
        let found: Vec<&Found> = looked.found.iter().collect();
        if let Err(error) = cdi::write(host, resource, &found) {
            let why = error.chain();
            looked.found.iter_mut().for_each(|device| device.ailing = Some(why.clone()));
        }
    }
    looked
}

/// One line a change.
fn tell(offer: &Offer) {
    let (healthy, unhealthy, why, left_out) = offer.with(|resource, inventory| {
        let (healthy, unhealthy) = inventory.counts(resource);
        let why = inventory
            .entries()
            .find_map(|(_, entry)| entry.why().map(|why| format!("{}: {why}", entry.found().name)));
        let left_out = Some(inventory.left_out()).filter(|count| *count > 0);
        (healthy, unhealthy, why, left_out)
    });
    if let Some(left_out) = left_out {
        error!(resource = %offer.name(), left_out, "the kubelet takes no list above 4 MiB: offer fewer devices or replicas");
    }
    match why {
        None => info!(resource = %offer.name(), healthy, unhealthy, "devices changed"),
        Some(why) => warn!(resource = %offer.name(), healthy, unhealthy, why, "devices changed"),
    }
}
