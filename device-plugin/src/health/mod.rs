//! Whether a device that is there can be had: its checks, in their own time.

mod sensor;

use std::collections::BTreeMap;

use crate::allocate::template::{self, Variable};
use crate::allocate::{Device, behind};
use crate::config::{Check, Glob, Host, Resource, Span};
use crate::inventory::{Found, id};
use crate::kernel::child;

pub use sensor::{Labelled, temperatures};
pub(crate) use sensor::{available_memory, disk, total_memory};

/// An attribute of sysfs is at most a page.
const LONGEST_ATTRIBUTE: u64 = 4 << 10;

/// Makes a resource's checks of one device, one after another; the error is the first that does not hold, in a
/// person's words. It may take as long as its commands' time-outs.
pub fn check(resource: &Resource, host: &Host, found: &Found) -> Result<(), String> {
    Round::new(host).check(resource, found)
}

/// The checks of many devices at about the same time: what is the whole node's is measured once.
#[derive(Debug)]
pub struct Round<'a> {
    host: &'a Host,
    /// What a sensor's limits said, by how they are written.
    measured: BTreeMap<String, Result<(), String>>,
}

impl<'a> Round<'a> {
    /// With nothing measured yet.
    pub fn new(host: &'a Host) -> Self {
        Self { host, measured: BTreeMap::new() }
    }

    /// As [`check`].
    pub fn check(&mut self, resource: &Resource, found: &Found) -> Result<(), String> {
        let id = id(resource.name.as_str(), &found.identity, 0);
        let device = Device { resource, id: &id, found, index: None };
        resource.health.checks.iter().try_for_each(|check| self.one(check, &device))
    }

    fn one(&mut self, check: &Check, device: &Device<'_>) -> Result<(), String> {
        match check {
            Check::Exists(path) => self.exists(&path.to_string_lossy(), device),
            Check::Attribute { name, matches } => attribute(name, matches, device.found),
            Check::Command { run, timeout } => command(run, *timeout, device),
            Check::Sensor(sensor) => {
                let host = self.host;
                let measured = self.measured.entry(format!("{sensor:?}"));
                measured.or_insert_with(|| sensor::holds(sensor, host)).clone()
            }
        }
    }

    fn exists(&self, path: &str, device: &Device<'_>) -> Result<(), String> {
        let path = device.path(path)?;
        behind(self.host, path.as_ref()).map(|_| ()).map_err(|e| format!("`{path}` is not there: {e}"))
    }
}

/// Whether an attribute of the device matches.
fn attribute(name: &str, matches: &Glob, found: &Found) -> Result<(), String> {
    let folder =
        found.sysfs.as_ref().ok_or_else(|| format!("it is not in sysfs, so that it has no `{name}`"))?;
    let value = sensor::read(&folder.join(name), LONGEST_ATTRIBUTE)
        .map_err(|e| format!("`{name}` can't be read: {e}"))?;
    if matches.matches(&value) {
        return Ok(());
    }
    Err(format!("`{name}` is `{}` and not `{matches}`", value.escape_debug()))
}

/// Whether a command ends with 0.
fn command(run: &[String], timeout: Span, device: &Device<'_>) -> Result<(), String> {
    let fill = |text: &String| template::fill(text, &mut |v| device.value(v));
    let run = run.iter().map(fill).collect::<Result<Vec<_>, _>>()?;
    let path = device.value(Variable::Path).unwrap_or_default();
    let environment = [
        ("NODEPLUG_DEVICE_ID", device.id),
        ("NODEPLUG_DEVICE_NAME", device.found.name.as_str()),
        ("NODEPLUG_DEVICE_PATH", path.as_str()),
    ];
    // A NUL would end an argument early; a device's own words can't be trusted to have none.
    let plain = |text: &str| template::plain(text.to_owned()).map(|_| ());
    environment.iter().try_for_each(|(_, value)| plain(value))?;
    let outcome = child::run(&run, &environment, timeout.duration())?;
    if outcome.status.success() {
        return Ok(());
    }
    Err(format!("`{}` {}", run.first().map_or("", String::as_str), child::ending(&outcome)))
}

#[cfg(test)]
mod tests;
