//! A folder, records and facts for the tests of the store.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node::Result;
use serde_json::json;

use super::leases::Facts;
use super::{HostLocal, Ipam, config};
use crate::attachment::{Attachment, Attachments};
use crate::owner::Owner;
use crate::state::Lessees;

pub(crate) const BOOT: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const LATER: &str = "99999999-2222-3333-4444-555555555555";

/// A scratch folder that is gone when the test ends.
pub(crate) struct Scratch {
    pub(crate) root: PathBuf,
    pub(crate) attachments: Attachments,
    pub(crate) lessees: Lessees,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("nodeplug-ipam-{}-{next}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let lessees = Lessees::at(&root.join("state"));
        Self { root, attachments: lessees.own.clone(), lessees }
    }

    /// The folder of the network `pods`.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.join("networks/pods")
    }

    /// The facts of the boot [`BOOT`] at second 1000, with pods on the node.
    pub(crate) fn facts(&self) -> Facts<'_> {
        self.facts_at(BOOT, 1000)
    }

    pub(crate) fn facts_at<'a>(&'a self, boot: &'a str, second: u64) -> Facts<'a> {
        Facts {
            boot,
            now: UNIX_EPOCH + Duration::from_secs(second),
            cooldown: Duration::from_secs(30),
            lessees: &self.lessees,
            pods_on_node: &pods,
        }
    }

    /// A record of `owner` that names `addresses`.
    pub(crate) fn record(&self, boot: &str, owner: &Owner, addresses: &[&str]) {
        let record = json!({
            "boot": boot, "since": 1, "network": "pods", "containerID": owner.container_id,
            "ifname": owner.ifname, "netns": "/var/run/netns/x", "addresses": addresses,
            "leases": self.folder(),
        });
        let record: Attachment = serde_json::from_value(record).unwrap();
        self.attachments.remove(&record.owner).unwrap();
        self.attachments.create(&record).unwrap();
    }

    /// A lease as the reference leaves it.
    pub(crate) fn lease(&self, address: &str, content: &[u8]) {
        std::fs::create_dir_all(self.folder()).unwrap();
        std::fs::write(self.folder().join(address), content).unwrap();
    }

    /// Every IP-named file, sorted.
    pub(crate) fn leased(&self) -> Vec<String> {
        let names = node::store::names(&self.folder()).unwrap();
        let mut names: Vec<_> = names.into_iter().filter(|n| n.parse::<std::net::IpAddr>().is_ok()).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

#[allow(clippy::unnecessary_wraps)]
fn pods() -> Result<bool> {
    Ok(true)
}

#[allow(clippy::unnecessary_wraps)]
pub(crate) fn no_pods() -> Result<bool> {
    Ok(false)
}

pub(crate) fn owner(id: &str) -> Owner {
    Owner { container_id: id.into(), ifname: "eth0".into() }
}

/// `host-local` with these range sets, each one a list of `(subnet, start, end)`.
pub(crate) fn host_local(ipam: &serde_json::Value) -> HostLocal {
    let mut whole = json!({"type": "host-local"});
    whole.as_object_mut().unwrap().extend(ipam.as_object().unwrap().clone());
    let mut problems = Vec::new();
    match config::parse(&whole, "ipam", None, &mut problems) {
        Some(Ipam::HostLocal(ours)) => ours,
        other => panic!("{other:?} {problems:?}"),
    }
}

/// Sets a file's time.
pub(crate) fn touch(path: &std::path::Path, second: u64) {
    let time = UNIX_EPOCH + Duration::from_secs(second);
    std::fs::File::open(path).unwrap().set_modified(time).unwrap();
}

pub(crate) fn modified(path: &std::path::Path) -> SystemTime {
    std::fs::metadata(path).unwrap().modified().unwrap()
}
