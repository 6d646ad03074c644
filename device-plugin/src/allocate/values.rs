//! What the variables stand for, for one device.

use std::path::Path;

use super::given::text;
use super::template::{self, Variable};
use crate::config::{NodeOptions, Permissions, Resource};
use crate::inventory::{Found, Node};

/// A device with all that texts may say of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device<'a> {
    /// Its resource.
    pub(crate) resource: &'a Resource,
    /// Its ID.
    pub(crate) id: &'a str,
    /// The device.
    pub(crate) found: &'a Found,
    /// Which of the container's devices it is; none where there is no container yet.
    pub(crate) index: Option<usize>,
}

impl Device<'_> {
    /// A value for one device, as it is.
    pub(crate) fn value(&self, variable: Variable<'_>) -> Result<String, String> {
        match variable {
            Variable::Id => Ok(self.id.to_owned()),
            Variable::Path => self.first().map(|node| text(&node.path)),
            Variable::ContainerPath => self.first().and_then(|node| self.container_path(node)),
            Variable::Name => Ok(self.found.name.clone()),
            Variable::Index => {
                self.index.map(|n| n.to_string()).ok_or_else(|| "`${index}` is not known here".to_owned())
            }
            Variable::Resource => Ok(self.resource.name.to_string()),
            Variable::Attribute(name) => self.attribute(name),
        }
    }

    /// A value for one device, for a path: what is no path itself is at most a part of one component.
    pub(crate) fn path_value(&self, variable: Variable<'_>) -> Result<String, String> {
        match variable {
            Variable::Path | Variable::ContainerPath | Variable::Resource => self.value(variable),
            _ => self.value(variable).and_then(template::component),
        }
    }

    /// The text as a path.
    pub(crate) fn path(&self, text: &str) -> Result<String, String> {
        template::absolute(template::fill(text, &mut |v| self.path_value(v))?)
    }

    /// The text for this device.
    pub(crate) fn text(&self, text: &str) -> Result<String, String> {
        template::fill(text, &mut |v| self.value(v)).and_then(template::plain)
    }

    /// Where a node of it is in the container.
    pub(crate) fn container_path(&self, node: &Node) -> Result<String, String> {
        let own = node.options.container_path.as_ref();
        let Some(written) = own.or(self.resource.allocate.node.container_path.as_ref()) else {
            return template::absolute(text(&node.path));
        };
        let filled = template::fill(written, &mut |variable| match variable {
            Variable::Name => template::component(name(&node.real)),
            other => self.path_value(other),
        })?;
        template::absolute(filled)
    }

    /// What a container may do with a node of it; none where the configuration does not say.
    pub(crate) fn permissions(&self, node: &Node) -> Option<Permissions> {
        let said = |options: &NodeOptions| options.permissions.clone();
        said(&node.options).or_else(|| said(&self.resource.allocate.node))
    }

    fn first(&self) -> Result<&Node, String> {
        self.found
            .nodes
            .first()
            .ok_or_else(|| format!("`{}` has no file, so that it has no path", self.found.name))
    }

    fn attribute(&self, name: &str) -> Result<String, String> {
        if let Some(value) = self.found.attributes.get(name) {
            return Ok(value.clone());
        }
        let known: Vec<_> = self.found.attributes.keys().map(|key| format!("`{key}`")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(format!("`{}` has no attribute `{name}`; it has {known}", self.found.name))
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
