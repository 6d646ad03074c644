//! What a container gets, as it was decided: nodes and mounts by their path in the container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use node::{Error, Kind, Result};
use proto::deviceplugin::{CdiDevice, ContainerAllocateResponse, DeviceSpec, Mount};

use super::look;
use crate::cdi;
use crate::config::{CdiKind, FileKind, Host, Permissions};
use crate::inventory::DeviceNumber;

/// How a file of the node comes into the container.
#[derive(Debug, Clone, PartialEq)]
pub enum Hand {
    /// As a device node; where it was seen before, it has to be the same device still.
    Node(Permissions, Option<DeviceNumber>),
    /// As a bind mount; `true` is read-only.
    Mount(bool),
}

/// What a source found that is no device node.
#[derive(Debug, Clone, PartialEq)]
pub struct Was {
    /// The path behind all symlinks, as the node names it.
    pub real: PathBuf,
    /// What it may be: one of the kinds that the sources take.
    pub kinds: Vec<FileKind>,
}

/// A file of the node for the container.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// As the node names it.
    pub host: PathBuf,
    /// How it is handed out.
    pub hand: Hand,
    /// Where it is not there, it is left out.
    pub optional: bool,
    /// The CDI specification brings it: it is only looked at.
    pub by_cdi: bool,
    /// For a mount that a source found: it has to be the same file still.
    pub was: Option<Was>,
}

/// Why an answer can't be given.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// Two files would have one path in the container.
    Clash(String),
    /// A text of the configuration can't be filled in.
    Text(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Text(why)
    }
}

/// The answer for one container. All of it is in the order of names, so that the same devices give the same
/// answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Files of the node, by their path in the container.
    pub files: BTreeMap<String, Given>,
    /// Environment.
    pub envs: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Full names of CDI devices, each once.
    pub cdi: Vec<String>,
    /// Their kind, where we specify them.
    pub specified: Option<CdiKind>,
}

impl Answer {
    /// Adds a file; the same file a second time is that file with what both allow. The error says what would
    /// be in the container twice.
    pub(super) fn give(&mut self, container: String, given: Given) -> Result<(), Refusal> {
        let Some(known) = self.files.get_mut(&container) else {
            self.files.insert(container, given);
            return Ok(());
        };
        match (&mut known.hand, &given.hand) {
            _ if known.host != given.host => Err(clash(&container, &known.host, &given.host)),
            (Hand::Node(mine, _), Hand::Node(other, _)) => {
                *mine = mine.or(other);
                known.optional &= given.optional;
                Ok(())
            }
            (Hand::Mount(mine), Hand::Mount(other)) => {
                *mine &= other;
                known.optional &= given.optional;
                known.was = known.was.take().or(given.was);
                Ok(())
            }
            _ => Err(Refusal::Clash(format!(
                "`{container}` in the container would be a device node and a mount"
            ))),
        }
    }

    /// Looks whether all is there and still the same, and tells the answer without the optional things that
    /// are not.
    ///
    /// It opens nothing, so that no driver can make it wait; a mount's source on a dead server can, so it is
    /// for a thread that may block. Errors: [`Kind::Unavailable`] for what is not there, the CDI specification too, [`Kind::Mismatch`]
    /// for another device or file in its place.
    pub fn check(mut self, host: &Host) -> Result<ContainerAllocateResponse> {
        let mut absent = Vec::new();
        for (container, given) in &self.files {
            if !look::is_there(host, given)? {
                absent.push(container.clone());
            }
        }
        for container in absent {
            self.files.remove(&container);
        }
        if let Some(kind) = &self.specified {
            is_specified(host, kind)?;
        }
        Ok(self.response())
    }

    /// The answer as the kubelet reads it, without a look at the node.
    pub fn response(self) -> ContainerAllocateResponse {
        let mut response = ContainerAllocateResponse {
            envs: self.envs.into_iter().collect(),
            annotations: self.annotations.into_iter().collect(),
            cdi_devices: self.cdi.into_iter().map(|name| CdiDevice { name }).collect(),
            ..ContainerAllocateResponse::default()
        };
        for (container_path, given) in self.files.into_iter().filter(|(_, given)| !given.by_cdi) {
            let host_path = text(&given.host);
            match given.hand {
                Hand::Node(permissions, _) => {
                    let permissions = permissions.as_str().to_owned();
                    response.devices.push(DeviceSpec { container_path, host_path, permissions });
                }
                Hand::Mount(read_only) => {
                    response.mounts.push(Mount { container_path, host_path, read_only });
                }
            }
        }
        response
    }
}

/// Without the file the runtime knows no such device, and the container would be created in vain, again and again.
fn is_specified(host: &Host, kind: &CdiKind) -> Result<()> {
    let file = cdi::file(host, kind);
    let shown = file.display();
    let looked = std::fs::metadata(&file);
    looked.map(drop).map_err(|e| {
        Error::caused(Kind::Unavailable, format!("look at the CDI specification `{shown}`"), e).hint(
            "it is written anew at the next look; see in the log why it was not, or who removes files from `host.cdi`",
        )
    })
}

fn clash(container: &str, one: &Path, other: &Path) -> Refusal {
    let (one, other) = (one.display(), other.display());
    Refusal::Clash(format!("`{container}` in the container would be both `{one}` and `{other}`"))
}

/// Protobuf has only UTF-8; no path of the configuration or of sysfs is anything else.
pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The error of an answer that can't be given.
pub(super) fn refused(resource: &str, refusal: Refusal) -> Box<Error> {
    let error = |why| Error::caused(Kind::Config, format!("answer for `{resource}`"), why);
    match refusal {
        Refusal::Text(why) => error(why),
        Refusal::Clash(why) => error(why).hint(
            "write `${index}` or `${name}` in `allocate.node.containerPath`, or ask for one device a container",
        ),
    }
}
