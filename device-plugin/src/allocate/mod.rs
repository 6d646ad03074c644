//! What a container gets: pure, but for the look whether it is all there.

use node::{Error, Kind, Result};
use proto::deviceplugin::ContainerAllocateResponse;

use crate::config::{Host, Preference, Resource};
use crate::inventory::Found;

/// A device that the kubelet chose, or may choose.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// Its ID, as the kubelet knows it.
    pub id: &'a str,
    /// The device behind it.
    pub found: &'a Found,
    /// Which of the device's replicas it is, from 0.
    pub replica: u32,
}

/// The answer for one container. Pure.
pub fn answer(
    _resource: &Resource,
    _host: &Host,
    _chosen: &[Chosen<'_>],
) -> Result<ContainerAllocateResponse> {
    Err(Error::new(Kind::Internal, "answer an allocation"))
}

/// Whether what the devices' nodes name is there and still the same device; never blocks on a device node.
pub fn check_nodes(_host: &Host, _chosen: &[Chosen<'_>]) -> Result<()> {
    Ok(())
}

/// Which `size` of the available devices suit best, those of `must` among them; empty where it can't be said.
/// `busy` says how many replicas of an identity are taken already.
pub fn prefer(
    _preference: Preference,
    _available: &[Chosen<'_>],
    _must: &[&str],
    _size: usize,
    _busy: &dyn Fn(&str) -> u32,
) -> Vec<String> {
    Vec::new()
}
