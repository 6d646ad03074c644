//! What may take time is done on threads of its own: looks at devices and their checks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::Daemon;
use crate::cdi;
use crate::config::{Host, Resource};
use crate::discover;
use crate::health;
use crate::inventory::{Found, Looked};
use crate::kernel::memory;
use crate::service::Offer;

/// From so many devices on, a look needs memory that is worth giving back.
const MANY: usize = 500;

/// What a job came to. It names its resource by the offer: another one of the same name is not meant.
pub(super) enum Done {
    Looked { offer: Arc<Offer>, looked: Looked, took: Duration },
    Checked { offer: Arc<Offer>, outcomes: Vec<(String, Result<(), String>)> },
}

impl Daemon {
    /// Begins a look at each resource where something changed. One that is being looked at is looked at again
    /// when that is done.
    pub(super) fn look_where_dirty(&mut self) {
        if !self.slots.iter().any(|slot| slot.dirty && !slot.looking) {
            return;
        }
        self.watch_folders();
        let blind = self.watch.is_blind();
        self.order(|orders| orders.poll = blind);
        for slot in self.slots.iter_mut().filter(|slot| slot.dirty && !slot.looking) {
            (slot.dirty, slot.looking) = (false, true);
            slot.schedule_look(&self.config.discovery, blind);
            let (offer, host, done) = (slot.offer.clone(), self.config.host.clone(), self.done.clone());
            spawn_blocking(move || {
                let start = Instant::now();
                let looked = look(&offer.resource(), &host);
                // The loop is gone only when the daemon is.
                let _ = done.send(Done::Looked { offer, looked, took: start.elapsed() });
            });
        }
    }

    pub(super) fn check_where_due(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if slot.checking || slot.next_check.is_none_or(|due| due > now) {
                continue;
            }
            slot.checking = true;
            let (offer, host, done) = (slot.offer.clone(), self.config.host.clone(), self.done.clone());
            spawn_blocking(move || {
                let devices: Vec<Found> = offer.with(|_, inventory| {
                    let present = inventory.entries().filter(|(_, entry)| entry.is_there());
                    present.map(|(_, entry)| entry.found().clone()).collect()
                });
                let (resource, mut round) = (offer.resource(), health::Round::new(&host));
                let outcomes = devices
                    .into_iter()
                    .map(|found| (found.identity.clone(), round.check(&resource, &found)))
                    .collect();
                let _ = done.send(Done::Checked { offer, outcomes });
            });
        }
    }

    pub(super) fn take(&mut self, done: Done) {
        match done {
            Done::Looked { offer, looked, took } => self.looked(&offer, looked, took),
            Done::Checked { offer, outcomes } => self.checked(&offer, outcomes),
        }
        self.part_later();
    }

    fn looked(&mut self, offer: &Arc<Offer>, looked: Looked, took: Duration) {
        let Some(slot) = self.slots.iter_mut().find(|slot| Arc::ptr_eq(&slot.offer, offer)) else { return };
        slot.looking = false;
        self.metrics.looked(offer.name(), took);
        let now = Instant::now();
        let changed = offer.change(|resource, inventory| inventory.saw(resource, looked, now));
        let (checks, unchecked) = offer.with(|resource, inventory| {
            (!resource.health.checks.is_empty(), inventory.entries().any(|(_, entry)| entry.is_unchecked()))
        });
        match (checks, slot.next_check) {
            (false, _) => slot.next_check = None,
            // A device that is new waits for nothing but its check.
            (true, None) => slot.schedule_check(Duration::ZERO),
            (true, Some(_)) if unchecked => slot.schedule_check(Duration::ZERO),
            (true, Some(_)) => {}
        }
        if offer.with(|_, inventory| inventory.entries().len()) > MANY {
            memory::trim();
        }
        // Until the first look is done, the kubelet is told nothing: an empty list would be a lie.
        offer.looked_at();
        if changed {
            tell(offer);
            self.label();
        }
    }

    fn checked(&mut self, offer: &Arc<Offer>, outcomes: Vec<(String, Result<(), String>)>) {
        let Some(slot) = self.slots.iter_mut().find(|slot| Arc::ptr_eq(&slot.offer, offer)) else { return };
        slot.checking = false;
        let every = offer.resource().health.every.duration();
        slot.schedule_check(every);
        let changed = offer.change(|resource, inventory| {
            let mut changed = false;
            for (identity, outcome) in outcomes {
                changed |= inventory.checked(resource, &identity, outcome);
            }
            changed
        });
        if changed {
            tell(offer);
            self.label();
        }
    }
}

/// All sources of a resource. The runtime's specification of the devices is written before anybody hears of them.
fn look(resource: &Resource, host: &Host) -> Looked {
    let mut looked = Looked::default();
    for selector in &resource.devices {
        let one = discover::look(selector, host);
        looked.found.extend(one.found);
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
    let (healthy, unhealthy, why) = offer.with(|resource, inventory| {
        let (healthy, unhealthy) = inventory.counts(resource);
        let why = inventory
            .entries()
            .find_map(|(_, entry)| entry.why().map(|why| format!("{}: {why}", entry.found().name)));
        (healthy, unhealthy, why)
    });
    match why {
        None => info!(resource = %offer.name(), healthy, unhealthy, "devices changed"),
        Some(why) => warn!(resource = %offer.name(), healthy, unhealthy, why, "devices changed"),
    }
}
