//! A device over time.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::{Found, weight};
use crate::config::{Health, Resource};

/// What is to be said of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can be had.
    Healthy,
    /// It is there and can't be had.
    Unhealthy,
    /// It was there.
    Gone,
}

/// A device that was seen at least once.
#[derive(Debug)]
pub struct Entry {
    id: Arc<str>,
    found: Found,
    gone_since: Option<Instant>,
    /// How many replicas the kubelet knows, and since when that is more than there are to be.
    listed: u32,
    surplus_since: Option<Instant>,
    /// Its bytes in the kubelet's list, at their worst when it was first seen.
    weight: usize,
    /// A pod was given it since the daemon started.
    given: bool,
    /// What its checks say, after hysteresis; the reason where they don't hold.
    ill: Option<String>,
    unchecked: bool,
    failures: u32,
    successes: u32,
}

impl Entry {
    /// A device with checks is ill until they were made.
    pub(super) fn new(resource: &Resource, id: Arc<str>, found: Found) -> Self {
        let unchecked = !resource.health.checks.is_empty();
        Self {
            id,
            found,
            gone_since: None,
            listed: resource.replicas,
            surplus_since: None,
            weight: 0,
            given: false,
            ill: unchecked.then(|| "its checks were not made yet".to_owned()),
            unchecked,
            failures: 0,
            successes: resource.health.successes,
        }
    }

    /// It is there. Says whether the list is another one.
    pub(super) fn seen(&mut self, resource: &Resource, found: Found) -> bool {
        let before = self.shown();
        // One that comes back may be another one behind the same name: it is checked like a new one.
        if self.gone_since.take().is_some() {
            let new = Self::new(resource, self.id.clone(), found);
            let Self { listed, surplus_since, weight, given, .. } = *self;
            *self = Self { listed, surplus_since, weight, given, ..new };
        } else {
            self.found = found;
            if resource.health.checks.is_empty() {
                (self.ill, self.unchecked) = (None, false);
            }
        }
        self.shown() != before
    }

    /// There are to be so many replicas. Those that are too many stay listed, as what is gone does. Says whether the
    /// list is another one.
    pub(super) fn replicate(&mut self, replicas: u32, now: Instant) -> bool {
        if replicas < self.listed {
            self.surplus_since.get_or_insert(now);
            return false;
        }
        self.surplus_since = None;
        let more = replicas > self.listed;
        self.listed = replicas;
        more
    }

    /// The replicas that are too many leave the list. Says whether that made it another one.
    pub(super) fn drop_surplus(&mut self, replicas: u32) -> bool {
        let surplus = self.listed > replicas;
        self.listed = self.listed.min(replicas);
        self.surplus_since = None;
        surplus
    }

    /// It is not there. Says whether the list is another one.
    pub(super) fn vanished(&mut self, now: Instant) -> bool {
        let before = self.is_healthy();
        self.gone_since.get_or_insert(now);
        before
    }

    /// Nobody could look whether it is there. Says whether the list is another one.
    pub(super) fn is_uncertain(&mut self, why: &str) -> bool {
        let before = self.is_healthy();
        self.found.ailing = Some(why.to_owned());
        before
    }

    /// Its checks were made.
    pub(super) fn checked(&mut self, health: &Health, outcome: Result<(), String>) -> bool {
        let before = self.is_healthy();
        self.unchecked = false;
        match outcome {
            Ok(()) => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1);
                if self.successes >= health.successes {
                    self.ill = None;
                }
            }
            Err(why) => {
                self.successes = 0;
                self.failures = self.failures.saturating_add(1);
                if self.ill.is_some() || self.failures >= health.failures {
                    self.ill = Some(why);
                }
            }
        }
        self.is_healthy() != before
    }

    /// What the kubelet sees of it, its name aside.
    fn shown(&self) -> (bool, Option<u32>) {
        (self.is_healthy(), self.found.numa)
    }

    /// Whether it can be had.
    pub fn is_healthy(&self) -> bool {
        self.state() == State::Healthy
    }

    /// What is to be said of it.
    pub fn state(&self) -> State {
        if self.gone_since.is_some() {
            State::Gone
        } else if self.why().is_some() {
            State::Unhealthy
        } else {
            State::Healthy
        }
    }

    /// Whether it was there at the last look.
    pub fn is_there(&self) -> bool {
        self.gone_since.is_none()
    }

    /// Whether it waits for its first check.
    pub fn is_unchecked(&self) -> bool {
        self.is_there() && self.unchecked
    }

    /// Why it can't be had.
    pub fn why(&self) -> Option<&str> {
        if self.gone_since.is_some() {
            return Some("it is not there any more");
        }
        self.found.ailing.as_deref().or(self.ill.as_deref())
    }

    /// Since when it is gone.
    pub fn gone_since(&self) -> Option<Instant> {
        self.gone_since
    }

    /// Since when it has more replicas than there are to be.
    pub fn surplus_since(&self) -> Option<Instant> {
        self.surplus_since
    }

    /// How many replicas the kubelet knows.
    pub fn listed(&self) -> u32 {
        self.listed
    }

    /// As it was seen last.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The ID of the first replica.
    pub fn base(&self) -> &str {
        &self.id
    }

    /// The bytes of these replicas in the kubelet's list, at their worst.
    pub(super) fn weight_of(&self, replicas: Range<u32>) -> usize {
        replicas.map(|n| weight(self.id(n).len(), self.found.numa)).sum()
    }

    /// What it weighs in the list, as it was added there.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn weighs(&mut self, weight: usize) {
        self.weight = weight;
    }

    /// A pod was given it.
    pub(super) fn give(&mut self) {
        self.given = true;
    }

    /// Whether a pod was given it since the daemon started.
    pub fn was_given(&self) -> bool {
        self.given
    }

    /// The ID of a replica.
    pub fn id(&self, replica: u32) -> String {
        if replica == 0 { self.id.as_ref().to_owned() } else { format!("{}-{replica}", self.id) }
    }
}
