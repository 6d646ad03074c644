//! The nodes below a device, by their subsystems.

use crate::inventory::Node;

use super::links::Told;
use super::nodes;
use super::tree::{Device, natural};
use super::view::View;

/// The nodes of a device, and what is wrong with some.
#[derive(Debug, Default)]
pub struct Below {
    /// Those that can be had.
    pub nodes: Vec<Node>,
    /// Why another can't.
    pub ailing: Option<String>,
}

/// A device with a node, and its subsystem.
pub type Owned<'a> = (&'a Device, &'a str);

/// All that have a node at or below a device, and belong to it as `own` says.
pub fn owned<'a>(device: &'a Device, view: &'a View, own: impl Fn(&Device) -> bool) -> Vec<Owned<'a>> {
    let below = view.nodes().below(device).filter(|one| own(one));
    let mut below: Vec<Owned<'a>> = below.map(|one| (one, one.subsystem().unwrap_or_default())).collect();
    below.sort_by_cached_key(|(device, _)| natural(device.name_bytes()));
    below
}

impl Below {
    /// The nodes of these subsystems. Without any it is not the device that is meant; without some of them its driver
    /// is still at work, or broken.
    pub fn of(owned: &[Owned<'_>], subsystems: &[String], told: Told, view: &View) -> Result<Self, String> {
        let mut below = Self::default();
        let mut missing = Vec::new();
        for subsystem in subsystems {
            let mut of_this = owned.iter().filter(|(_, of)| *of == subsystem.as_str()).peekable();
            if of_this.peek().is_none() {
                missing.push(format!("`{}`", super::clean(subsystem)));
            }
            for (device, _) in of_this {
                below.add(device, told, view);
            }
        }
        let lacks = || format!("nothing of {} is below it", missing.join(" and "));
        if !missing.is_empty() && missing.len() == subsystems.len() {
            return Err(lacks());
        }
        if !missing.is_empty() {
            below.ail(lacks());
        }
        Ok(below)
    }

    /// The nodes of all.
    pub fn all(owned: &[Owned<'_>], told: Told, view: &View) -> Self {
        let mut below = Self::default();
        for (device, _) in owned {
            below.add(device, told, view);
        }
        below
    }

    /// The node of one device.
    pub fn add(&mut self, device: &Device, told: Told, view: &View) {
        match nodes::node(device, told, view) {
            Some(Ok(node)) => self.nodes.push(node),
            Some(Err(why)) => self.ail(why),
            None => {}
        }
    }

    /// Something is wrong; the first such thing is told.
    pub fn ail(&mut self, why: String) {
        self.ailing.get_or_insert(why);
    }
}
