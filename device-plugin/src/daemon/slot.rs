//! One resource in the loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Daemon;
use crate::config::{Discovery, Host, Resource};
use crate::discover::{self, Watches};
use crate::kernel::random;
use crate::service::Offer;
use crate::session::{self, Orders};
use crate::watch::Told;

/// A resource, its session, and when it is looked at.
pub(super) struct Slot {
    pub(super) offer: Arc<Offer>,
    pub(super) watches: Watches,
    pub(super) orders: watch::Sender<Orders>,
    session: JoinHandle<()>,
    /// Something changed since the last look began.
    pub(super) dirty: bool,
    /// Since when a look is under way.
    pub(super) looking: Option<Instant>,
    /// That it takes too long was told.
    pub(super) late: bool,
    /// Jobs of the round of checks that is under way.
    pub(super) checking: usize,
    /// Devices that were never checked are being checked.
    pub(super) first_checks: bool,
    /// How many were unhealthy when it was told last.
    pub(super) told_unhealthy: usize,
    pub(super) next_look: Instant,
    /// None where there is nothing to check.
    pub(super) next_check: Option<Instant>,
}

impl Slot {
    pub(super) fn wants(&self, told: &Told) -> bool {
        let subsystem = |wanted: &String| wanted == "*" || told.subsystems.contains(wanted);
        (!told.subsystems.is_empty() && self.watches.subsystems.iter().any(subsystem))
            || self.watches.folders.iter().any(|folder| told.folders.contains(folder))
    }

    /// The next look without an event.
    pub(super) fn schedule_look(&mut self, discovery: &Discovery, blind: bool) {
        let rescan = discovery.rescan.duration();
        let mut wait = rescan + rescan.mul_f64(random::part() / 10.0);
        if let Some(every) = self.watches.every {
            wait = wait.min(every);
        }
        if blind && !self.watches.folders.is_empty() {
            wait = wait.min(super::BLIND);
        }
        self.next_look = Instant::now() + wait;
    }

    pub(super) fn schedule_check(&mut self, wait: Duration) {
        self.next_check = Some(Instant::now() + wait);
    }

    /// Ends the session; its socket is gone afterwards.
    pub(super) async fn end(self) {
        self.orders.send_modify(|orders| orders.stop = true);
        // A session that panicked has ended, too.
        let _ = self.session.await;
    }
}

impl Daemon {
    /// A resource that is offered from now on.
    pub(super) fn slot(&self, resource: Resource) -> Slot {
        let host = self.config.host.clone();
        let watches = merged(&resource, &host);
        let offer = Arc::new(Offer::new(Arc::new(resource), host, self.metrics.clone(), self.turns.clone()));
        let orders = Orders { looks: 0, renewals: 0, poll: self.watch.is_blind(), stop: false };
        let (orders, taken) = watch::channel(orders);
        let session = tokio::spawn(session::run(self.config.kubelet.clone(), offer.clone(), taken));
        Slot {
            offer,
            watches,
            orders,
            session,
            dirty: true,
            looking: None,
            late: false,
            checking: 0,
            first_checks: false,
            told_unhealthy: 0,
            next_look: Instant::now(),
            next_check: None,
        }
    }
}

/// What to watch for all sources of a resource.
pub(super) fn merged(resource: &Resource, host: &Host) -> Watches {
    let mut all = Watches::default();
    for selector in &resource.devices {
        let one = discover::watches(selector, host);
        all.folders.extend(one.folders);
        all.contents.extend(one.contents);
        all.subsystems.extend(one.subsystems);
        all.every = [all.every, one.every].into_iter().flatten().min();
    }
    all.folders.sort();
    all.folders.dedup();
    all.contents.sort();
    all.contents.dedup();
    all.subsystems.sort();
    all.subsystems.dedup();
    all
}
