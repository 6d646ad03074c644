//! A device over time.

use std::sync::Arc;
use std::time::Instant;

use super::Found;
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
        let ill = unchecked.then(|| "its checks were not made yet".to_owned());
        Self {
            id,
            found,
            gone_since: None,
            ill,
            unchecked,
            failures: 0,
            successes: resource.health.successes,
        }
    }

    /// It is there. Says whether the list is another one.
    pub(super) fn seen(&mut self, resource: &Resource, found: Found) -> bool {
        let before = self.listed();
        // One that comes back may be another one behind the same name: it is checked like a new one.
        if self.gone_since.take().is_some() {
            *self = Self::new(resource, self.id.clone(), found);
        } else {
            self.found = found;
            if resource.health.checks.is_empty() {
                (self.ill, self.unchecked) = (None, false);
            }
        }
        self.listed() != before
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
    fn listed(&self) -> (bool, Option<u32>) {
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

    /// As it was seen last.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The ID of the first replica.
    pub fn base(&self) -> &str {
        &self.id
    }

    /// The ID of a replica.
    pub fn id(&self, replica: u32) -> String {
        if replica == 0 { self.id.as_ref().to_owned() } else { format!("{}-{replica}", self.id) }
    }
}
