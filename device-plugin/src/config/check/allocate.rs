//! Mistakes in what a container gets.

use std::collections::BTreeSet;

use super::Mistakes;
use crate::allocate::template::{self, Piece, Variable};
use crate::cdi;
use crate::config::{Cdi, NodeOptions, Preference, Resource, Selector};

impl Mistakes {
    pub(super) fn allocate(&mut self, resource: &Resource) {
        let allocate = &resource.allocate;
        self.node_options("allocate.node", &allocate.node);
        for (index, device) in allocate.devices.iter().enumerate() {
            let at = format!("allocate.devices[{index}]");
            self.path(&format!("{at}.hostPath"), &device.host_path);
            if let Some(path) = &device.container_path {
                self.path(&format!("{at}.containerPath"), path);
            }
        }
        for (index, mount) in allocate.mounts.iter().enumerate() {
            let at = format!("allocate.mounts[{index}]");
            self.path_text(&format!("{at}.hostPath"), &mount.host_path, template::CONTAINER);
            self.path_text(&format!("{at}.containerPath"), &mount.container_path, template::CONTAINER);
        }
        for (name, text) in &allocate.env {
            let at = format!("allocate.env.{}", name.escape_debug());
            if name.is_empty() || name.contains('=') || name.chars().any(char::is_control) {
                self.note(&at, "is no name of a variable");
            }
            self.text(&at, text, template::CONTAINER);
        }
        for (name, text) in &allocate.annotations {
            let at = format!("allocate.annotations.{}", name.escape_debug());
            if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
                self.note(&at, "is no name of an annotation");
            }
            self.text(&at, text, template::CONTAINER);
        }
        self.fixed_paths(resource);
        self.cdi(resource);
    }

    /// A device node's path and what may be done with it.
    pub(super) fn node_options(&mut self, at: &str, node: &NodeOptions) {
        if let Some(path) = &node.container_path {
            self.path_text(&format!("{at}.containerPath"), path, template::NODE);
        }
    }

    /// Two things at one place of the container.
    fn fixed_paths(&mut self, resource: &Resource) {
        let mut known = BTreeSet::new();
        let node = resource.allocate.node.container_path.iter().cloned();
        let devices = resource.allocate.devices.iter().map(|device| {
            device.container_path.as_ref().unwrap_or(&device.host_path).to_string_lossy().into_owned()
        });
        let mounts = resource.allocate.mounts.iter().map(|mount| mount.container_path.clone());
        for path in node.chain(devices).chain(mounts) {
            if !known.insert(path.clone()) {
                let what = format!(
                    "has `{}` twice in the container; give one of them another path",
                    path.escape_debug()
                );
                self.note("allocate", what);
            }
        }
    }

    fn cdi(&mut self, resource: &Resource) {
        match &resource.allocate.cdi {
            None => {}
            Some(Cdi::Use { name }) => {
                let at = "allocate.cdi.use.name";
                self.text(at, name, template::CONTAINER);
                let shape = name.split_once('=').and_then(|(kind, _)| kind.split_once('/'));
                if shape.is_none() {
                    self.note(at, format!("(`{}`) is not `vendor/class=name`", name.escape_debug()));
                }
            }
            Some(Cdi::Write { .. }) => {
                if let Err(why) = cdi::kind(resource) {
                    self.note("allocate.cdi.write.kind", format!("is needed: {why}"));
                }
                if resource.devices.iter().all(counted) {
                    self.note("allocate.cdi.write", "has no files to write of: the devices are only counted");
                }
                if node_paths(resource).any(|path| has(path, Variable::Index)) {
                    let what = "is written before there is a container, so that `${index}` is not known; write `${name}`";
                    self.note("allocate.cdi.write", what);
                }
            }
        }
    }
}

/// What works and is hardly meant.
pub(super) fn oddities(resource: &Resource) -> Vec<String> {
    let mut odd = Vec::new();
    let fixed = |path: &String| !template::varies(path);
    if let Some(path) = resource.allocate.node.container_path.as_ref().filter(|path| fixed(path)) {
        odd.push(format!(
            "all devices are `{path}` in the container, so that one which asks for two is refused; `${{index}}` or \
             `${{name}}` keeps them apart"
        ));
    }
    if resource.health.before_start && resource.health.checks.is_empty() {
        odd.push("`health.beforeStart` has no checks to make".to_owned());
    }
    if resource.replicas == 1 && matches!(resource.prefer, Some(Preference::Packed | Preference::Spread)) {
        odd.push("`prefer` chooses between replicas, and there is one of each device".to_owned());
    }
    if resource.devices.iter().all(counted)
        && matches!(resource.prefer, Some(Preference::Numa | Preference::SameParent))
    {
        odd.push("`prefer` goes by where devices are, and these are only counted".to_owned());
    }
    odd.into_iter().map(|what| format!("`{}`: {what}", resource.name)).collect()
}

/// Whether nothing is behind its devices.
fn counted(selector: &Selector) -> bool {
    matches!(selector, Selector::Count(_) | Selector::File(_) | Selector::Command(_) | Selector::Sensor(_))
}

/// The paths in the container that are written for nodes.
fn node_paths(resource: &Resource) -> impl Iterator<Item = &str> {
    let members = resource.devices.iter().flat_map(|selector| match selector {
        Selector::Group(group) => group.members.as_slice(),
        _ => &[],
    });
    let options = std::iter::once(&resource.allocate.node).chain(members.map(|member| &member.node));
    options.filter_map(|node| node.container_path.as_deref())
}

fn has(text: &str, variable: Variable<'_>) -> bool {
    template::pieces(text, template::CONTAINER)
        .is_ok_and(|pieces| pieces.contains(&Piece::Variable(variable)))
}
