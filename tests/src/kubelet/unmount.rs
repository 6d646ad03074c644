//! TearDown: what the kubelet does around `unmount`.

use std::path::Path;

use super::disk::{self, Presence, presence};
use super::journal::hold;
use super::plugin::Plugin;
use super::reply::Fault;
use super::sub_path::remove_sub_paths;
use super::{Kubelet, Outcome, Volume};

impl Kubelet {
    /// Unmounts the volume from its pod, and detaches it where it was the last that was attached.
    #[track_caller]
    pub fn tear_down(&self, volume: &Volume) -> Outcome {
        let outcome = self.tear_down_at(&volume.driver, &volume.path());
        if matches!(outcome, Outcome::Refused(_) | Outcome::Crashed(_)) {
            return outcome;
        }
        hold(&self.wanted).remove(&volume.path());
        match self.find(&volume.driver) {
            Ok(plugin) if plugin.capabilities.attach => self.detach(&plugin, volume).unwrap_or(outcome),
            _ => outcome,
        }
    }

    /// Unmounts what is at `path`, of which the kubelet knows the driver and nothing else.
    #[track_caller]
    pub(super) fn tear_down_at(&self, driver: &str, path: &Path) -> Outcome {
        let _turn = self.turns.take(path);
        let plugin = match self.find(driver) {
            Ok(plugin) => plugin,
            Err(why) => return self.not_found(driver, why),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let failed = |why: &str| {
            // Nobody but the log is told of an unmount that failed.
            self.journal.log(format!("E UnmountVolume.TearDown failed for volume {name:?} : {why}"));
            Outcome::Refused(why.to_owned())
        };
        if let Err(why) = remove_sub_paths(path) {
            return failed(&why);
        }
        match presence(path) {
            Presence::There => {}
            Presence::Missing => {
                let path = path.display();
                self.journal.log(format!("W Unmount skipped because path does not exist: {path}"));
                return Outcome::NotThere;
            }
            Presence::Unknown(why) => self.journal.log(format!("W Error checking path: {why}")),
        }
        match unmount(&plugin, path) {
            Ok(()) => Outcome::Unmounted,
            Err(fault) => failed(fault.text()),
        }
    }
}

#[track_caller]
fn unmount(plugin: &Plugin, path: &Path) -> Result<(), Fault> {
    match plugin.call("unmount", &[&path.to_string_lossy()]) {
        Err(Fault::NotSupported) => disk::clean_up_mount_point(path).map_err(Fault::Failed)?,
        answer => drop(answer?),
    }
    remove_folder(path).map_err(Fault::Failed)
}

/// The folder must go; the driver may have removed it.
pub(super) fn remove_folder(path: &Path) -> Result<(), String> {
    match presence(path) {
        Presence::Missing => Ok(()),
        Presence::Unknown(why) => Err(format!("error checking if path exists: {why}")),
        Presence::There => disk::remove(path),
    }
}
