//! SetUp: what the kubelet does around `mount`.

use super::disk::{self, is_mount_point};
use super::journal::hold;
use super::plugin::Plugin;
use super::reply::Fault;
use super::{Kubelet, Outcome, Volume};

impl Kubelet {
    /// Mounts the volume for its pod, or finds it mounted. Operations on one volume wait for each other.
    #[track_caller]
    pub fn set_up(&self, volume: &Volume) -> Outcome {
        let _turn = self.turns.take(&volume.path());
        hold(&self.wanted).insert(volume.path(), volume.clone());
        let plugin = match self.find(&volume.driver) {
            Ok(plugin) => plugin,
            Err(why) => return self.not_found(&volume.driver, why),
        };
        if volume.persistent && volume.mount_options {
            let why = "Mount options are not supported for this volume type";
            return self.refuse("MountVolume.MountDevice", &volume.name, why);
        }
        if plugin.capabilities.attach
            && let Err((operation, fault)) = self.attach(&plugin, volume)
        {
            return self.refuse(operation, &volume.name, fault.text());
        }
        match mount(&plugin, volume) {
            Ok(outcome) => outcome,
            Err(fault) => self.refuse("MountVolume.SetUp", &volume.name, fault.text()),
        }
    }
}

fn mount(plugin: &Plugin, volume: &Volume) -> Result<Outcome, Fault> {
    let path = volume.path();
    match is_mount_point(&path).map_err(Fault::Failed)? {
        Some(true) => return Ok(Outcome::AlreadyMounted),
        Some(false) => {}
        None => disk::make_folders(&path).map_err(Fault::Failed)?,
    }
    if let Err(fault) = call(plugin, volume) {
        // Whatever is in it or on it keeps it there, and nobody is told.
        drop(disk::remove(&path));
        return Err(fault);
    }
    if let Some(group) = volume.fs_group
        && !volume.read_only
        && plugin.capabilities.fs_group
    {
        // The first file that cannot be given away ends this, and nobody is told.
        drop(disk::give_to_group(&path, group));
    }
    Ok(Outcome::Mounted)
}

#[track_caller]
fn call(plugin: &Plugin, volume: &Volume) -> Result<(), Fault> {
    let json = volume.mount_json().map_err(Fault::Failed)?;
    let path = volume.path();
    match plugin.call("mount", &[&path.to_string_lossy(), &json]) {
        Ok(_) => Ok(()),
        Err(Fault::NotSupported) => {
            let source = plugin.device_path(volume)?;
            let words = ["-t", "auto", "-o", "bind", &source.to_string_lossy(), &path.to_string_lossy()];
            disk::mount(&words).map_err(Fault::Failed)
        }
        Err(fault) => Err(fault),
    }
}
