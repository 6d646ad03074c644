//! What may take time is done on threads of its own: looks at devices and their checks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::slot::{Slot, merged};
use super::{Daemon, LATE};
use crate::cdi;
use crate::config::{Host, Measure, Resource, Selector};
use crate::discover::{self, Watches};
use crate::health;
use crate::holders::Held;
use crate::inventory::{Entry, Found, Looked};
use crate::kernel::memory;
use crate::service::Offer;

/// From so many devices on, a look needs memory that is worth giving back.
const MANY: usize = 500;

/// What a job came to. It names its resource by the offer, and how that was configured: another one of the same name
/// is not meant.
pub(super) enum Done {
    Looked {
        offer: Arc<Offer>,
        resource: Arc<Resource>,
        looked: Looked,
        watches: Watches,
        took: Duration,
    },
    Checked {
        offer: Arc<Offer>,
        resource: Arc<Resource>,
        first: bool,
        outcomes: Vec<(String, Result<(), String>)>,
    },
    Asked {
        held: node::Result<Option<Held>>,
    },
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
        if !self.slots.iter().any(|slot| slot.dirty && slot.looking.is_none()) {
            return;
        }
        self.watch_folders(anew);
        let blind = self.watch.is_blind();
        for slot in self.slots.iter_mut().filter(|slot| slot.dirty && slot.looking.is_none()) {
            slot.orders.send_if_modified(|orders| std::mem::replace(&mut orders.poll, blind) != blind);
            (slot.dirty, slot.looking) = (false, Some(Instant::now()));
            slot.schedule_look(&self.config.discovery, blind);
            let (offer, host) = (slot.offer.clone(), self.config.host.clone());
            let resource = offer.resource();
            let slow = resource.devices.iter().any(may_hang);
            self.workers.begin(slow, self.done.clone(), move || {
                let start = Instant::now();
                let looked = look(&resource, &host);
                let took = start.elapsed();
                let watches = merged(&resource, &host);
                Done::Looked { offer, resource, looked, watches, took }
            });
        }
    }

    /// A look that hangs has nothing to say of its devices: they can't be had until it ends.
    pub(super) fn tell_of_late_looks(&mut self, now: Instant) {
        for slot in &mut self.slots {
            let late = slot.looking.is_some_and(|since| now.saturating_duration_since(since) >= LATE);
            if late && !slot.late {
                slot.late = true;
                let why = format!("its source has not answered for {}s", LATE.as_secs());
                warn!(
                    resource = %slot.offer.name(),
                    hint = "look for a server or a disk that does not answer, or a command that hangs",
                    "{why}"
                );
                slot.offer.change(|_, inventory| inventory.doubt(&why));
                slot.offer.looked_at();
            }
        }
    }

    pub(super) fn check_where_due(&mut self, now: Instant) {
        for at in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(at) else { return };
            if slot.checking > 0 || slot.next_check.is_none_or(|due| due > now) {
                continue;
            }
            let devices = devices(&slot.offer, Entry::is_there);
            if devices.is_empty() {
                slot.schedule_check(slot.offer.resource().health.every.duration());
                continue;
            }
            // A device that is slow to answer holds up a quarter of the others.
            let share = devices.len().div_ceil(EACH).max(1);
            for part in devices.chunks(share) {
                slot.checking += 1;
                begin_checks(&self.workers, &self.done, &self.config.host, slot, part.to_vec(), false);
            }
        }
    }

    /// A device that is new waits for its own check, and for no round of the others'.
    fn check_what_is_new(&mut self, offer: &Arc<Offer>) {
        let Some(slot) = self.slots.iter_mut().find(|slot| Arc::ptr_eq(&slot.offer, offer)) else { return };
        let devices = devices(offer, Entry::is_unchecked);
        if slot.first_checks || devices.is_empty() {
            return;
        }
        slot.first_checks = true;
        begin_checks(&self.workers, &self.done, &self.config.host, slot, devices, true);
    }

    pub(super) fn take(&mut self, done: Done) {
        match done {
            Done::Looked { offer, resource, looked, watches, took } => {
                self.metrics.looked(offer.name(), took);
                self.looked(&offer, &resource, looked, watches);
            }
            Done::Checked { offer, resource, first, outcomes } => {
                self.checked(&offer, &resource, first, outcomes);
            }
            Done::Asked { held } => self.part(held),
        }
        self.part_later();
    }

    pub(super) fn slot_of(&mut self, offer: &Arc<Offer>) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| Arc::ptr_eq(&slot.offer, offer))
    }

    fn looked(&mut self, offer: &Arc<Offer>, resource: &Arc<Resource>, looked: Looked, watches: Watches) {
        let Some(slot) = self.slot_of(offer) else {
            // It is not offered any more, and the look may have written its specification once more.
            self.announce();
            return;
        };
        (slot.looking, slot.late) = (None, false);
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
        if resource.health.checks.is_empty() {
            slot.next_check = None;
        } else if slot.next_check.is_none() {
            slot.schedule_check(resource.health.every.duration());
        }
        let now = Instant::now();
        let changed = offer.change(|resource, inventory| inventory.saw(resource, looked, now));
        let count = offer.with(|_, inventory| inventory.entries().len());
        if count > MANY {
            memory::trim();
        }
        // Until the first look is done, the kubelet is told nothing: an empty list would be a lie.
        let first = offer.looked_at();
        if first && count == 0 {
            let hint = format!("run `nodeplug-device-plugin explain {}` to see why", offer.name());
            warn!(resource = %offer.name(), hint, "no device was found yet");
        }
        if changed || first {
            self.tell(offer, changed);
        }
        self.check_what_is_new(offer);
    }

    fn checked(
        &mut self,
        offer: &Arc<Offer>,
        resource: &Arc<Resource>,
        first: bool,
        outcomes: Vec<(String, Result<(), String>)>,
    ) {
        let Some(slot) = self.slot_of(offer) else { return };
        if first {
            slot.first_checks = false;
        } else {
            slot.checking -= usize::from(slot.checking > 0);
            if slot.checking == 0 {
                slot.schedule_check(offer.resource().health.every.duration());
            }
        }
        if Arc::ptr_eq(resource, &offer.resource()) {
            let changed = offer.change(|resource, inventory| {
                outcomes.into_iter().fold(false, |changed, (identity, outcome)| {
                    inventory.checked(resource, &identity, outcome) || changed
                })
            });
            if changed {
                self.tell(offer, true);
            }
        }
        // Some came meanwhile, or are checked by other rules by now.
        self.check_what_is_new(offer);
    }
}

/// The devices of which the condition holds.
pub(super) fn devices(offer: &Offer, condition: impl Fn(&Entry) -> bool) -> Vec<Found> {
    offer.with(|_, inventory| {
        let those = inventory.entries().filter(|(_, entry)| condition(entry));
        those.map(|(_, entry)| entry.found().clone()).collect()
    })
}

/// Checks these devices one after another.
fn begin_checks(
    workers: &Workers,
    done: &mpsc::UnboundedSender<Done>,
    host: &Host,
    slot: &Slot,
    devices: Vec<Found>,
    first: bool,
) {
    let (offer, host, resource) = (slot.offer.clone(), host.clone(), slot.offer.resource());
    workers.begin(true, done.clone(), move || {
        let mut round = health::Round::new(&host);
        let outcomes = devices
            .into_iter()
            .map(|found| {
                let outcome = round.check(&resource, &found);
                (found.identity, outcome)
            })
            .collect();
        Done::Checked { offer, resource, first, outcomes }
    });
}

/// Whether a look may wait for a program, a server or a disk: everything but the kernel's own files.
fn may_hang(selector: &Selector) -> bool {
    match selector {
        Selector::Command(_) | Selector::File(_) => true,
        Selector::Sensor(sensor) => matches!(sensor.of, Measure::DiskTotal(_) | Measure::DiskFree(_)),
        Selector::Path(path) => {
            let elsewhere = path.glob.iter().any(|glob| !glob.as_str().starts_with("/dev/"));
            elsewhere || path.below.as_ref().is_some_and(|below| !below.starts_with("/dev"))
        }
        Selector::Usb(_)
        | Selector::Pci(_)
        | Selector::Sysfs(_)
        | Selector::Net(_)
        | Selector::Block(_)
        | Selector::Char(_)
        | Selector::Group(_)
        | Selector::Count(_) => false,
    }
}

/// All sources of a resource. The runtime's specification of the devices is written before anybody hears of them.
fn look(resource: &Resource, host: &Host) -> Looked {
    let mut looked = discover::look_all(resource, host);
    if looked.failed.is_none() {
        let found: Vec<&Found> = looked.found.iter().collect();
        if let Err(error) = cdi::write(host, resource, &found) {
            let why = error.chain();
            looked.found.iter_mut().for_each(|device| device.ailing = Some(why.clone()));
        }
    }
    looked
}
