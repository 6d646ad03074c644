//! A PersistentVolume gets larger: the controller manager's call, then the kubelet's.

use super::journal::hold;
use super::reply::Fault;
use super::{Kubelet, Outcome, Volume};

impl Kubelet {
    /// Grows a mounted PersistentVolume from `old` to `new` bytes.
    #[track_caller]
    pub fn expand(&self, volume: &Volume, new: u64, old: u64) -> Outcome {
        let _turn = self.turns.take(&volume.path());
        if let Err(fault) = self.expand_volume(volume, new, old) {
            return self.refuse("ExpandVolume", &volume.name, fault.text());
        }
        let plugin = match self.find(&volume.driver) {
            Ok(plugin) => plugin,
            Err(why) => return self.not_found(&volume.driver, why),
        };
        if !plugin.capabilities.requires_fs_resize {
            return Outcome::Expanded;
        }
        if !volume.persistent {
            let why = format!("PersistentVolume not found for spec: {}", volume.name);
            return self.refuse("NodeExpandVolume.NodeExpandVolume", &volume.name, &why);
        }
        // A volume that was not attached has no device, and its device's folder is the pod's.
        let attached = plugin.capabilities.attach;
        let path = if attached { volume.device_path() } else { volume.path() };
        let device = hold(&self.devices).get(&volume.device_path()).cloned().unwrap_or_default();
        let (new, old) = (new.to_string(), old.to_string());
        match plugin.call("expandfs", &[&volume.json(), &device, &path.to_string_lossy(), &new, &old]) {
            Ok(_) => Outcome::Expanded,
            Err(fault) => {
                let why = match fault {
                    Fault::Failed(why) => why,
                    // The kubelet would run resize2fs on the device, whose name it does not know.
                    Fault::NotSupported => "ResizeFS.Resize: no device path".to_owned(),
                };
                self.refuse("NodeExpandVolume.NodeExpandVolume", &volume.name, &why)
            }
        }
    }

    #[track_caller]
    fn expand_volume(&self, volume: &Volume, new: u64, old: u64) -> Result<(), Fault> {
        let plugin = self.controllers(&volume.driver)?;
        let path = plugin.device_path(volume)?;
        let (new, old) = (new.to_string(), old.to_string());
        match plugin.call("expandvolume", &[&volume.json(), &path.to_string_lossy(), &new, &old]) {
            Ok(_) | Err(Fault::NotSupported) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}
