//! The record of an attachment: written before the first side effect, removed after the last one is
//! undone, so that DEL and GC find everything by owner whatever was lost in between.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use node::{Context, Error, Kind, Result, store};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::bandwidth::Bandwidth;
use crate::config::feature::Features;
use crate::config::firewall::Firewall;
use crate::config::ports::HostPorts;
use crate::config::source_routing::SourceRouting;
use crate::config::tuning::Tuning;
use crate::mac::Mac;
use crate::owner::Owner;

/// Where records live. They describe this boot's kernel objects; a record that names another boot is stale.
pub const STATE: &str = "/var/lib/nodeplug/cni";

/// Where those of chained plugins live, one folder a plugin.
const CHAINED: &str = "chained";

/// One attachment, as its ADD intended it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The boot id at ADD.
    pub boot: String,
    /// When the ADD began, seconds since the epoch.
    pub since: u64,
    /// The network's name.
    pub network: String,
    /// Whose it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// The configuration's cniVersion.
    #[serde(default)]
    pub version: String,
    /// CNI_NETNS at ADD.
    pub netns: String,
    /// Device and inode of that namespace: by DEL the path may be another one's, even the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_identity: Option<(u64, u64)>,
    /// `namespace/name` of the pod, where the runtime told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The addresses that the pod got.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The networks that the addresses are from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpNet>,
    /// Both ends' MTU in bytes.
    #[serde(default)]
    pub mtu: u32,
    /// The folder `dataDir/NETWORK` that holds the leases of these addresses; `None` where the
    /// addresses are static, a delegate's or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leases: Option<PathBuf>,
    /// The IPAM plugin that was asked by exec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate: Option<String>,
    /// Its configuration, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate_ipam: Option<Value>,
    /// Whether masquerade elements were made.
    #[serde(default)]
    pub masquerade: bool,
    /// Destinations that are not masqueraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<IpNet>,
    /// The only MAC that may send, where that is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_mac: Option<Mac>,
    /// The bridge whose neighbour table holds the addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// The name of the plugin that was called for an interface that another one made; `None` where this
    /// record's ADD made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chained: Option<String>,
    /// The bridge that the host end is a port of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_of: Option<String>,
    /// The host end of an interface that another plugin made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_link: Option<String>,
    /// The host's ports that lead to the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<HostPorts>,
    /// The pod's rates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// Its way through the host's firewall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<Firewall>,
    /// What its settings were before they were changed: only for an interface that outlives the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Tuning>,
    /// Its routing by source address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_routing: Option<SourceRouting>,
}

impl Attachment {
    /// What the record says that the pod got beside its interface, as far as it has to be found again.
    pub fn features(&self) -> Features {
        Features {
            ports: self.ports.clone(),
            bandwidth: self.bandwidth,
            firewall: self.firewall.clone(),
            tuning: None,
            source_routing: self.source_routing,
        }
    }

    /// The host end's name, where there is one.
    pub fn host_end(&self) -> Option<String> {
        if self.chained.is_some() { self.host_link.clone() } else { Some(self.owner.host_ifname()) }
    }
}

/// The folder of records.
#[derive(Debug, Clone)]
pub struct Attachments {
    folder: PathBuf,
}

impl Attachments {
    /// The records below `state` (see [`STATE`]) of attachments whose interface this program made.
    pub fn at(state: &Path) -> Self {
        Self { folder: state.join("attachments") }
    }

    /// The records of what the chained plugin `name` added to other plugins' interfaces.
    pub fn chained(state: &Path, name: &str) -> Self {
        Self { folder: state.join(CHAINED).join(name) }
    }

    /// Every folder of records: that of the interfaces first, then one a chained plugin.
    pub fn everywhere(state: &Path) -> Result<Vec<Self>> {
        let mut names = store::names(&state.join(CHAINED))?;
        names.sort_unstable();
        let chained = names.iter().map(|name| Self::chained(state, name));
        Ok(std::iter::once(Self::at(state)).chain(chained).collect())
    }

    /// The record of `owner`. One that cannot be read as a record counts as none: DEL then looks for
    /// the leftovers themselves.
    pub fn find(&self, owner: &Owner) -> Result<Option<Attachment>> {
        Ok(store::read(&self.path(owner))?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Whether there is a record of `owner`, readable or not.
    pub fn has(&self, owner: &Owner) -> bool {
        self.path(owner).exists()
    }

    /// Writes the record of a new attachment. [`Kind::Conflict`] where the owner has one: of two ADDs for
    /// one interface, one goes on.
    pub fn create(&self, attachment: &Attachment) -> Result<()> {
        let path = self.path(&attachment.owner);
        let bytes = encoded(attachment)?;
        let made = match store::create_whole(&path, &bytes) {
            Err(e) if e.errno() == Some(libc::ENOENT) => {
                store::make_folder(&self.folder)?;
                store::create_whole(&path, &bytes)
            }
            other => other,
        };
        made.map_err(|e| if e.kind() == Kind::Conflict { attached(&attachment.owner) } else { e })
    }

    /// Replaces the record by what is known now.
    pub fn amend(&self, attachment: &Attachment) -> Result<()> {
        store::write_whole(&self.path(&attachment.owner), &encoded(attachment)?)
    }

    /// Removes a record; one that is not there is removed already.
    pub fn remove(&self, owner: &Owner) -> Result<()> {
        let path = self.path(owner);
        store::remove(&path)?;
        // What a kill in the middle of `amend` leaves.
        store::remove(&store::beside(&path))
    }

    /// Removes what killed writers left of records that never came to be.
    pub fn tidy(&self) -> Result<()> {
        let names = store::names(&self.folder)?;
        names.iter().filter(|n| n.starts_with('.')).try_for_each(|n| store::remove(&self.folder.join(n)))
    }

    /// Owners whose record cannot be read as one.
    pub fn unreadable(&self) -> Result<Vec<Owner>> {
        let mut owners = Vec::new();
        for owner in store::names(&self.folder)?
            .iter()
            .filter(|n| !n.starts_with('.'))
            .filter_map(|n| Owner::from_key(n))
        {
            if self.has(&owner) && self.find(&owner)?.is_none() {
                owners.push(owner);
            }
        }
        Ok(owners)
    }

    /// Every owner of a record, readable or not.
    pub fn owners(&self) -> Result<Vec<Owner>> {
        let names = store::names(&self.folder)?;
        Ok(names.iter().filter(|n| !n.starts_with('.')).filter_map(|n| Owner::from_key(n)).collect())
    }

    /// Every readable record. Unreadable ones are left for DEL and `ipam check`.
    pub fn all(&self) -> Result<Vec<Attachment>> {
        let owners = store::names(&self.folder)?;
        let owners = owners.iter().filter(|n| !n.starts_with('.')).filter_map(|n| Owner::from_key(n));
        let mut all = Vec::new();
        for owner in owners {
            all.extend(self.find(&owner)?);
        }
        Ok(all)
    }

    fn path(&self, owner: &Owner) -> PathBuf {
        self.folder.join(owner.key())
    }
}

fn encoded(attachment: &Attachment) -> Result<Vec<u8>> {
    serde_json::to_vec(attachment)
        .doing(Kind::Internal, || format!("encode the record of `{}`", attachment.owner))
}

/// The refusal of a second ADD for one interface.
pub fn attached(owner: &Owner) -> Box<Error> {
    Error::new(Kind::Conflict, format!("attach `{owner}`, which is attached already"))
        .hint("call DEL first; a second ADD for one interface is not part of the protocol")
}
