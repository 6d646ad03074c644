//! Conditions on what a device hangs on. Many devices share their parents, so each is compared once in a look.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::config::{Glob, ParentMatch};

use super::rejected::Match;
use super::tree::{Device, Sys};

/// What one parent was found to be: how near it came, and what does not hold.
type Verdict = Result<(), (u32, String)>;

/// The parents that a selector asks for.
#[derive(Debug)]
pub struct Parents<'a> {
    wanted: &'a [ParentMatch],
    known: RefCell<HashMap<(usize, PathBuf), Verdict>>,
}

impl<'a> Parents<'a> {
    /// These.
    pub fn new(wanted: &'a [ParentMatch]) -> Self {
        Self { wanted, known: RefCell::default() }
    }

    /// Whether each is somewhere above the device; the reason names the one that came nearest.
    pub fn above(&self, device: &Device, sys: &Sys) -> Result<(), String> {
        (0..).zip(self.wanted).try_for_each(|(number, wanted)| self.one_above(number, wanted, device, sys))
    }

    fn one_above(
        &self,
        number: usize,
        wanted: &ParentMatch,
        device: &Device,
        sys: &Sys,
    ) -> Result<(), String> {
        let mut nearest: Option<(u32, String)> = None;
        for parent in sys.above(device) {
            let mut known = self.known.borrow_mut();
            let key = (number, parent.folder().to_owned());
            match known.entry(key).or_insert_with(|| compare(wanted, &parent, sys)) {
                Ok(()) => return Ok(()),
                Err((near, why)) if nearest.as_ref().is_none_or(|(best, _)| *near > *best) => {
                    nearest = Some((*near, format!("its parent `{}`: {why}", parent.name())));
                }
                Err(_) => {}
            }
        }
        Err(nearest.map_or_else(|| "it has no parent".to_owned(), |(_, why)| why))
    }
}

fn compare(wanted: &ParentMatch, parent: &Device, sys: &Sys) -> Verdict {
    let mut matching = Match::default();
    conditions(&mut matching, wanted, parent, sys);
    matching.verdict()
}

/// The conditions of one parent, on a device that could be it.
pub fn conditions(matching: &mut Match, wanted: &ParentMatch, device: &Device, sys: &Sys) {
    if let Some(subsystem) = &wanted.subsystem {
        matching.check(|| match device.subsystem() {
            Some(found) if found == subsystem => Ok(()),
            Some(found) => Err(format!("subsystem is {found}, not {subsystem}")),
            None => Err(format!("it has no subsystem, and is to have {subsystem}")),
        });
    }
    matching.glob("name", wanted.name.as_ref(), || Ok(device.name()));
    matching.glob("driver", wanted.driver.as_ref(), || driver(device));
    attributes(matching, &wanted.attributes, device, sys);
}

/// The attributes that a device has to have, with their values as far as they were compared.
pub fn attributes(
    matching: &mut Match,
    wanted: &BTreeMap<String, Glob>,
    device: &Device,
    sys: &Sys,
) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (name, glob) in wanted {
        matching.glob(name, Some(glob), || {
            let reading = sys.attribute(device, name);
            values.extend(reading.iter().map(|value| (name.clone(), super::clean(value))));
            reading
        });
    }
    values
}

/// The driver that is bound to a device.
pub fn driver(device: &Device) -> Result<String, String> {
    device.link("driver").ok_or_else(|| "is not bound".to_owned())
}
