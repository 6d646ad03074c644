//! A changed configuration, all or nothing. What it leaves as it was keeps its socket and its stream.

use std::sync::Arc;
use std::time::Duration;

use node::{Error, Kind, Result};
use tracing::{error, info};

use super::Daemon;
use super::slot::merged;
use crate::config::{self, Config, Resource};

/// What becomes of the resources.
#[derive(Debug, Default, PartialEq)]
struct Changes {
    /// Names of those that go.
    removed: Vec<String>,
    /// Those that are new.
    added: Vec<Resource>,
    /// Those of the same name that are otherwise.
    changed: Vec<Resource>,
}

impl Changes {
    /// Pure.
    fn between(old: &[Resource], new: &[Resource]) -> Self {
        let mut changes = Self::default();
        for resource in old {
            if !new.iter().any(|other| other.name == resource.name) {
                changes.removed.push(resource.name.as_str().to_owned());
            }
        }
        for resource in new {
            match old.iter().find(|other| other.name == resource.name) {
                None => changes.added.push(resource.clone()),
                Some(before) if before != resource => changes.changed.push(resource.clone()),
                Some(_) => {}
            }
        }
        changes
    }
}

impl Daemon {
    /// Reads the file again where it is another one. One that can't be read or taken changes nothing, and is told of
    /// once.
    pub(super) async fn reload(&mut self) {
        let text = match config::read(&self.path) {
            Ok(text) => text,
            Err(e) => return self.refuse(e.chain(), &e),
        };
        if text == self.text {
            if self.refused.take().is_some() {
                self.metrics.reloaded(true);
                info!("the configuration is again what is in force");
            }
            return;
        }
        match Config::parse(&text).and_then(|config| self.takes(config)) {
            Ok(config) => {
                self.text = text;
                self.refused = None;
                self.take_over(config).await;
                self.metrics.reloaded(true);
            }
            Err(e) => self.refuse(text, &e),
        }
    }

    /// Where the kubelet and the node's files are is settled when the daemon starts.
    fn takes(&self, config: Config) -> Result<Config> {
        let same = [
            ("kubelet", config.kubelet == self.config.kubelet),
            ("host", config.host == self.config.host),
            ("http", config.http == self.config.http),
        ];
        match same.into_iter().find(|(_, same)| !same) {
            None => Ok(config),
            Some((key, _)) => Err(Error::caused(
                Kind::Config,
                "take the changed configuration",
                format!("`{key}` cannot change while the daemon runs"),
            )
            .hint("restart the daemon")),
        }
    }

    fn refuse(&mut self, what: String, e: &Error) {
        if self.refused.as_ref() == Some(&what) {
            return;
        }
        self.refused = Some(what);
        self.metrics.reloaded(false);
        error!(hint = e.advice(), "the configuration stays as it was: {}", e.chain());
    }

    async fn take_over(&mut self, config: Config) {
        let changes = Changes::between(&self.config.resources, &config.resources);
        if let Some(former) =
            self.config.feature_file.as_ref().filter(|_| self.config.feature_file != config.feature_file)
            && let Err(error) = node::store::remove(former)
        {
            super::complain(&error);
        }
        self.config = config;
        for slot in self.slots.iter().filter(|slot| changes.removed.contains(&slot.offer.name().to_string()))
        {
            slot.orders.send_modify(|orders| orders.stop = true);
        }
        for name in &changes.removed {
            self.remove(name).await;
        }
        for resource in &changes.changed {
            self.change(resource);
        }
        for resource in changes.added.clone() {
            self.slots.push(self.slot(resource));
        }
        let count = |what: &[Resource]| what.len();
        info!(
            added = count(&changes.added),
            changed = count(&changes.changed),
            removed = changes.removed.len(),
            "the configuration was read"
        );
        self.announce();
        self.look_where_dirty(false);
    }

    async fn remove(&mut self, name: &str) {
        let Some(at) = self.slots.iter().position(|slot| slot.offer.name().as_str() == name) else { return };
        let slot = self.slots.remove(at);
        let offer = slot.offer.clone();
        slot.end().await;
        self.metrics.forget(offer.name());
        info!(
            resource = %offer.name(),
            hint = "the node goes on to show it with a capacity of 0; take it off with `kubectl patch node NAME \
                    --subresource=status --type=json` and a `remove` of its capacity",
            "no longer offered"
        );
    }

    fn change(&mut self, resource: &Resource) {
        let Some(at) = self.slots.iter().position(|slot| slot.offer.name() == &resource.name) else { return };
        let watches = merged(resource, &self.config.host);
        let Some(slot) = self.slots.get_mut(at) else { return };
        let options = slot.offer.options();
        slot.offer.reconfigure(Arc::new(resource.clone()));
        // The kubelet asks for the options only when a resource is registered.
        if slot.offer.options() != options {
            slot.orders.send_modify(|orders| orders.renewals += 1);
        }
        slot.watches = watches;
        slot.dirty = true;
        slot.next_check = None;
        if !resource.health.checks.is_empty() {
            slot.schedule_check(Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_new_gone_or_another_one() {
        let of = |text: &str| Config::parse(text).unwrap().resources;
        let old = of("resources: [{name: a/a, devices: [{count: 1}]}, {name: a/b, devices: [{count: 1}]}, \
                      {name: a/c, devices: [{count: 1}]}]");
        let new = of("resources: [{name: a/d, devices: [{count: 1}]}, {name: a/b, devices: [{count: 2}]}, \
                      {name: a/c, devices: [{count: 1}]}]");
        let changes = Changes::between(&old, &new);
        let names = |of: &[Resource]| of.iter().map(|r| r.name.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(changes.removed, ["a/a"]);
        assert_eq!(
            (names(&changes.added), names(&changes.changed)),
            (vec!["a/d".into()], vec!["a/b".into()])
        );
        assert_eq!(Changes::between(&old, &old), Changes::default());
    }
}
