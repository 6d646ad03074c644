//! What pods hold, as the kubelet tells it: held devices that nobody found are listed, and what is gone leaves the list
//! when nobody holds it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use node::{Error, Result};
use tracing::warn;

use super::Daemon;
use super::jobs::Done;
use crate::holders::{self, Held};
use crate::inventory::Holding;

/// How long what is gone stays listed where nobody tells who holds it, and no pod was given it since the start.
const UNTOLD: Duration = Duration::from_hours(24);

impl Daemon {
    /// Asks the kubelet who holds devices. It may take its time.
    pub(super) fn ask_who_holds(&mut self) {
        self.part = None;
        if std::mem::replace(&mut self.asking, true) {
            return;
        }
        let (socket, done) = (self.config.kubelet.pod_resources.clone(), self.done.clone());
        tokio::spawn(async move {
            let held = holders::ask(&socket).await;
            let _ = done.send(Done::Asked { held });
        });
    }

    /// Lists what pods hold and nobody found, and lets go what nobody holds.
    pub(super) fn part(&mut self, held: Result<Option<Held>>) {
        self.asking = false;
        let now = Instant::now();
        let before = |long: Duration| now.checked_sub(long);
        match held {
            Ok(Some(held)) => {
                self.said.clear();
                let (nothing, then) =
                    (BTreeSet::new(), before(self.config.discovery.forget_after.duration()));
                for slot in &self.slots {
                    let ours = held.get(slot.offer.name().as_str()).unwrap_or(&nothing);
                    slot.offer.change(|_, inventory| inventory.remember(ours, now));
                    if let Some(then) = then {
                        slot.offer.part(then, &Holding::Told(ours));
                    }
                }
                self.remembered = true;
            }
            Ok(None) => {
                let Some(then) = before(UNTOLD) else { return };
                for slot in &self.slots {
                    slot.offer.part(then, &Holding::Unknown);
                }
            }
            Err(error) => self.complain_once(&error),
        }
    }

    fn complain_once(&mut self, error: &Error) {
        let chain = error.chain();
        if self.said != chain {
            warn!(
                hint = error
                    .advice()
                    .unwrap_or("start the kubelet: until it answers, what is gone stays listed"),
                "{chain}"
            );
            self.said = chain;
        }
    }

    pub(super) fn part_later(&mut self) {
        let gone = self.slots.iter().any(|slot| slot.offer.with(|_, inventory| inventory.has_gone()));
        if gone && self.part.is_none() && !self.asking {
            self.part = Some(Instant::now() + self.config.discovery.forget_after.duration());
        }
    }
}
