//! Decides what a container gets, without a look at the node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use node::Result;

use super::Device;
use super::given::{Answer, Given, Hand, Refusal, Was, refused};
use super::template::{self, Variable};
use crate::cdi;
use crate::config::{Cdi, ExtraDevice, FileKind, Mount, Resource, Selector};
use crate::inventory::{Chosen, Node};

/// Attributes that begin so are environment of their device's container without any template: what a command
/// gave as `env`.
pub const ENV_ATTRIBUTE: &str = "env.";

/// The answer for one container: the same for the same devices, in whatever order they come.
///
/// Errors: `Kind::Config` where two files would have one path in the container, or a device lacks what a text
/// of the configuration asks of it.
pub fn answer(resource: &Resource, chosen: &[Chosen<'_>]) -> Result<Answer> {
    let whole = Container::of(resource, chosen);
    whole.answer().map_err(|why| refused(resource.name.as_str(), why))
}

/// A container's devices, each once, with all its IDs.
struct Container<'a> {
    resource: &'a Resource,
    ids: Vec<&'a str>,
    devices: Vec<Device<'a>>,
}

impl<'a> Container<'a> {
    fn of(resource: &'a Resource, chosen: &[Chosen<'a>]) -> Self {
        let mut ordered: Vec<_> = chosen.to_vec();
        ordered.sort_by_key(|chosen| chosen.id);
        ordered.dedup_by_key(|chosen| chosen.id);
        let mut known = BTreeSet::new();
        let devices =
            ordered.iter().filter(|chosen| known.insert(chosen.found.identity.as_str())).enumerate();
        let device = |(n, chosen): (usize, &Chosen<'a>)| Device {
            resource,
            id: chosen.id,
            found: chosen.found,
            index: Some(n),
        };
        let devices = devices.map(device).collect();
        Self { resource, ids: ordered.iter().map(|chosen| chosen.id).collect(), devices }
    }

    fn answer(&self) -> Result<Answer, Refusal> {
        let allocate = &self.resource.allocate;
        let cdi = self.cdi()?;
        let specified = if cdi.is_empty() { None } else { cdi::kind(self.resource)? };
        let mut answer = Answer { cdi, specified, ..Answer::default() };
        self.nodes(&mut answer)?;
        for extra in &allocate.devices {
            let (container, given) = extra_device(extra)?;
            answer.give(container, given)?;
        }
        for mount in &allocate.mounts {
            self.mount(&mut answer, mount)?;
        }
        answer.envs = self.given_env();
        for (name, text) in &allocate.env {
            answer.envs.insert(name.clone(), self.text(text)?);
        }
        for (name, text) in &allocate.annotations {
            answer.annotations.insert(name.clone(), self.text(text)?);
        }
        Ok(answer)
    }

    /// The devices' own files.
    fn nodes(&self, answer: &mut Answer) -> Result<(), Refusal> {
        let by_cdi = self.resource.allocate.cdi.is_some();
        for device in &self.devices {
            for node in &device.found.nodes {
                let permissions = device.permissions(node);
                let hand = match node.device {
                    Some(number) => Hand::Node(permissions.unwrap_or_default(), Some(number)),
                    // Files are only read unless the configuration says that they are written.
                    None => Hand::Mount(!permissions.is_some_and(|p| p.write())),
                };
                let was = self.was(node);
                let given = Given { host: node.path.clone(), hand, optional: false, by_cdi, was };
                answer.give(device.container_path(node)?, given)?;
            }
        }
        Ok(())
    }

    /// What a file has to be still, by the sources that could have found it; a device node has its number.
    fn was(&self, node: &Node) -> Option<Was> {
        if node.device.is_some() {
            return None;
        }
        let kinds = self.resource.devices.iter().flat_map(|selector| match selector {
            Selector::Path(path) => path.kinds.as_slice(),
            // A member by its whole path may be anything.
            Selector::Group(_) => &[FileKind::File, FileKind::Folder, FileKind::Fifo, FileKind::Socket],
            _ => &[],
        });
        Some(Was {
            real: node.real.clone(),
            kinds: kinds.copied().filter(|kind| kind.is_mounted()).collect(),
        })
    }

    /// A mount: once, or once for each device where it says something of the device.
    fn mount(&self, answer: &mut Answer, mount: &Mount) -> Result<(), Refusal> {
        let each = template::varies(&mount.host_path) || template::varies(&mount.container_path);
        let devices = if each { self.devices.as_slice() } else { self.devices.get(..1).unwrap_or_default() };
        for device in devices {
            let host = PathBuf::from(device.path(&mount.host_path)?);
            let hand = Hand::Mount(mount.read_only);
            let given = Given { host, hand, optional: mount.optional, by_cdi: false, was: None };
            answer.give(device.path(&mount.container_path)?, given)?;
        }
        Ok(())
    }

    fn cdi(&self) -> Result<Vec<String>, String> {
        let name = |device: &Device<'_>| match &self.resource.allocate.cdi {
            None => Ok(None),
            // What has no files is in no specification.
            Some(Cdi::Write { .. }) if device.found.nodes.is_empty() => Ok(None),
            Some(Cdi::Write { .. }) => cdi::name(self.resource, device.found).map(Some),
            Some(Cdi::Use { name }) => device.text(name).map(Some),
        };
        let mut names = Vec::new();
        for device in &self.devices {
            names.extend(name(device)?.filter(|name| !names.contains(name)));
        }
        Ok(names)
    }

    /// What the devices themselves bring as environment, each variable joined.
    fn given_env(&self) -> BTreeMap<String, String> {
        let mut envs: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in self.devices.iter().flat_map(|device| &device.found.attributes) {
            let Some(name) = name.strip_prefix(ENV_ATTRIBUTE) else { continue };
            let whole = envs.entry(name.to_owned()).or_default();
            if !whole.is_empty() {
                whole.push(',');
            }
            whole.push_str(value);
        }
        envs
    }

    /// A text about all devices: each variable is the values of all, with `,` between.
    fn text(&self, text: &str) -> Result<String, String> {
        let filled = template::fill(text, &mut |variable| self.joined(variable))?;
        template::plain(filled)
    }

    fn joined(&self, variable: Variable<'_>) -> Result<String, String> {
        let values: Vec<String> = match variable {
            Variable::Id => self.ids.iter().map(|&id| id.to_owned()).collect(),
            Variable::Resource => vec![self.resource.name.to_string()],
            Variable::Path => {
                let nodes = self.devices.iter().flat_map(|device| &device.found.nodes);
                nodes.map(|node| super::given::text(&node.path)).collect()
            }
            Variable::ContainerPath => {
                let nodes = self.devices.iter().flat_map(|d| d.found.nodes.iter().map(move |node| (d, node)));
                nodes.map(|(device, node)| device.container_path(node)).collect::<Result<_, _>>()?
            }
            each => self.devices.iter().map(|device| device.value(each)).collect::<Result<_, _>>()?,
        };
        Ok(values.join(","))
    }
}

fn extra_device(extra: &ExtraDevice) -> Result<(String, Given), String> {
    let container = extra.container_path.as_ref().unwrap_or(&extra.host_path);
    let container = template::absolute(super::given::text(container))?;
    let hand = Hand::Node(extra.permissions.clone().unwrap_or_default(), None);
    Ok((
        container,
        Given { host: extra.host_path.clone(), hand, optional: extra.optional, by_cdi: false, was: None },
    ))
}
