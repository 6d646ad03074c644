//! Volumes that are attached to the node first: the controller manager's calls and the kubelet's.

use std::path::PathBuf;
use std::sync::Arc;

use super::disk::{self, Presence, is_mount_point, presence};
use super::journal::hold;
use super::plugin::Plugin;
use super::probe::NotFound;
use super::reply::Fault;
use super::unmount::remove_folder;
use super::{Kubelet, Outcome, Volume};

/// The node's name.
const NODE: &str = "localhost";

/// Who calls `attach` and `detach`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attacher {
    /// The controller manager, as usual.
    Controller,
    /// Both: a kubelet that was told to do it itself, beside a controller that was not told.
    Both,
}

/// The operation that failed, and why.
type Failed = (&'static str, Fault);

impl Kubelet {
    /// Attaches the volume and mounts its device for all pods of the node.
    #[track_caller]
    pub(super) fn attach(&self, plugin: &Plugin, volume: &Volume) -> Result<(), Failed> {
        let json = volume.json();
        let at = |operation| move |fault| (operation, fault);
        let controller = self.controllers(&volume.driver).map_err(at("AttachVolume.Attach"))?;
        let mut device = attach(&controller, &json).map_err(at("AttachVolume.Attach"))?;
        if self.attacher == Attacher::Both {
            device = attach(plugin, &json).map_err(at("AttachVolume.Attach"))?;
        }
        let device = wait_for_attach(plugin, &device, &json).map_err(at("MountVolume.WaitForAttach"))?;
        mount_device(plugin, volume, &device, &json).map_err(at("MountVolume.MountDevice"))?;
        hold(&self.devices).insert(volume.device_path(), device);
        Ok(())
    }

    /// Asks the driver whether the volume is still attached, as the controller manager does now and then.
    #[track_caller]
    pub fn is_attached(&self, volume: &Volume) -> bool {
        let Ok(plugin) = self.controllers(&volume.driver) else { return true };
        let answer = plugin.call("isattached", &[&volume.json(), NODE]);
        answer.map_or(true, |reply| reply.attached)
    }

    /// Unmounts and detaches the device when no pod of the node has it any more. `None` where all is well.
    #[track_caller]
    pub(super) fn detach(&self, plugin: &Plugin, volume: &Volume) -> Option<Outcome> {
        let path = volume.device_path();
        if hold(&self.wanted).values().any(|other| other.device_path() == path) {
            return None;
        }
        let detached = || {
            unmount_device(plugin, volume)?;
            hold(&self.devices).remove(&path);
            detach(&*self.controllers(&volume.driver)?, &volume.name)?;
            if self.attacher == Attacher::Both {
                detach(plugin, &volume.name)?;
            }
            Ok(())
        };
        let failed: Fault = detached().err()?;
        self.journal.log(format!("E UnmountDevice failed for volume {:?} : {}", volume.name, failed.text()));
        Some(Outcome::Refused(failed.text().to_owned()))
    }

    /// The controller manager's plugin, as an operation of its own sees it.
    pub(super) fn controllers(&self, driver: &str) -> Result<Arc<Plugin>, Fault> {
        self.find_for_controller(driver).map_err(|why| {
            Fault::Failed(match why {
                NotFound::Unmatched => "no volume plugin matched".to_owned(),
                NotFound::Crash(why) => why,
            })
        })
    }
}

impl Plugin {
    /// The path at which the device is mounted. The driver is asked for a name, which is not looked at.
    #[track_caller]
    pub(super) fn device_path(&self, volume: &Volume) -> Result<PathBuf, Fault> {
        self.volume_name(&volume.json())?;
        Ok(volume.device_path())
    }

    #[track_caller]
    fn volume_name(&self, json: &str) -> Result<(), Fault> {
        match self.call("getvolumename", &[json]) {
            Ok(_) | Err(Fault::NotSupported) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}

#[track_caller]
fn attach(plugin: &Plugin, json: &str) -> Result<String, Fault> {
    plugin.volume_name(json)?;
    match plugin.call("attach", &[json, NODE]) {
        Ok(reply) => Ok(reply.device),
        Err(Fault::NotSupported) => Ok(String::new()),
        Err(fault) => Err(fault),
    }
}

/// The kubelet gives this 10 minutes; a test's call is over long before.
#[track_caller]
fn wait_for_attach(plugin: &Plugin, device: &str, json: &str) -> Result<String, Fault> {
    match plugin.call("waitforattach", &[device, json]) {
        Ok(reply) => Ok(reply.device),
        Err(Fault::NotSupported) => Ok(device.to_owned()),
        Err(fault) => Err(fault),
    }
}

#[track_caller]
fn mount_device(plugin: &Plugin, volume: &Volume, device: &str, json: &str) -> Result<(), Fault> {
    let path = volume.device_path();
    match is_mount_point(&path).map_err(Fault::Failed)? {
        Some(true) => return Ok(()),
        Some(false) => {}
        None => disk::make_folders(&path).map_err(Fault::Failed)?,
    }
    let text = path.to_string_lossy();
    match plugin.call("mountdevice", &[&text, device, json]) {
        Ok(_) => Ok(()),
        Err(Fault::NotSupported) if device.is_empty() => Ok(()),
        Err(Fault::NotSupported) => disk::mount(&[device, &text]).map_err(Fault::Failed),
        Err(fault) => Err(fault),
    }
}

#[track_caller]
fn unmount_device(plugin: &Plugin, volume: &Volume) -> Result<(), Fault> {
    let path = volume.device_path();
    if matches!(presence(&path), Presence::Missing) {
        return Ok(());
    }
    if is_mount_point(&path).unwrap_or(Some(true)) == Some(true) {
        match plugin.call("unmountdevice", &[&path.to_string_lossy()]) {
            Err(Fault::NotSupported) => disk::clean_up_mount_point(&path).map_err(Fault::Failed)?,
            answer => drop(answer?),
        }
    }
    remove_folder(&path).map_err(Fault::Failed)
}

#[track_caller]
fn detach(plugin: &Plugin, name: &str) -> Result<(), Fault> {
    match plugin.call("detach", &[name, NODE]) {
        Ok(_) | Err(Fault::NotSupported) => Ok(()),
        Err(fault) => Err(fault),
    }
}
