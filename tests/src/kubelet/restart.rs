//! A kubelet that starts again: it knows no mount, no option and no driver, and walks its folders.

use std::fs;
use std::path::{Path, PathBuf};

use super::journal::hold;
use super::{Kubelet, Outcome, Pod, disk, plugins};

/// What a restart did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restart {
    /// Volumes of pods that live.
    pub set_up: Vec<(PathBuf, Outcome)>,
    /// Volumes of pods that are gone.
    pub torn_down: Vec<(PathBuf, Outcome)>,
    /// Volumes whose driver is not found.
    pub stuck: Vec<PathBuf>,
}

impl Kubelet {
    /// The pod was deleted, and this kubelet has not noticed yet.
    pub fn delete(&self, pod: &Pod) {
        hold(&self.wanted).retain(|_, volume| volume.pod.uid != pod.uid);
    }

    /// `systemctl restart kubelet`: whatever lives in its cgroup dies, drivers are loaded anew, and each
    /// folder of a volume is mounted again or, where its pod is gone, unmounted.
    #[track_caller]
    pub fn restart(&self) -> Restart {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        *hold(&self.plugins) = plugins(&self.folder, &self.journal, self.cgroup.as_ref());
        let mut restart = Restart::default();
        for path in volumes() {
            let driver = driver_of(&path);
            if self.find(&driver).is_err() {
                let line = format!(
                    "E Could not construct volume information: no volume plugin matched name: flexvolume-{driver}"
                );
                self.journal.log(line);
                restart.stuck.push(path);
                continue;
            }
            // The specification comes from the API server, where the pod still is.
            let wanted = hold(&self.wanted).get(&path).cloned();
            if let Some(volume) = wanted {
                let outcome = self.set_up(&volume);
                restart.set_up.push((path, outcome));
            } else {
                let outcome = self.tear_down_at(&driver, &path);
                restart.torn_down.push((path, outcome));
            }
        }
        restart
    }

    /// Removes what pods that are gone left in the kubelet's folder: empty folders only. What it complains
    /// of.
    pub fn collect_orphans(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for pod in folders(&Path::new(super::ROOT).join("pods")) {
            let uid = pod.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if hold(&self.wanted).values().any(|v| v.pod.uid == uid) {
                continue;
            }
            let volumes = volumes_of(&pod);
            let mounted = |path: &PathBuf| !matches!(disk::is_mount_point(path), Ok(Some(false) | None));
            if let Some(path) = volumes.iter().find(|path| mounted(path)) {
                let path = path.display();
                complaints.push(format!("orphaned pod {uid:?} found, but volumes are still mounted: {path}"));
                continue;
            }
            let result = volumes.iter().try_for_each(|path| remove_folder(path));
            let tops = ["volumes", "volume-subpaths"].map(|name| pod.join(name));
            let result = result.and_then(|()| tops.iter().try_for_each(|top| remove_empty(top)));
            if let Err(why) = result.and_then(|()| remove_folder(&pod)) {
                complaints.push(format!("orphaned pod {uid:?} found, but {why}"));
            }
        }
        for complaint in &complaints {
            self.journal.log(format!("E {complaint}"));
        }
        complaints
    }
}

/// Removes a tree of folders. A file stops it for good.
fn remove_empty(folder: &Path) -> Result<(), String> {
    for below in folders(folder) {
        remove_empty(&below)?;
    }
    if folder.exists() { remove_folder(folder) } else { Ok(()) }
}

fn remove_folder(folder: &Path) -> Result<(), String> {
    let told = |e| format!("failed to rmdir() volume at path {}: {}", folder.display(), disk::words(&e));
    fs::remove_dir(folder).map_err(told)
}

/// The folders of volumes of all pods.
pub(crate) fn volumes() -> Vec<PathBuf> {
    folders(&Path::new(super::ROOT).join("pods")).iter().flat_map(|pod| volumes_of(pod)).collect()
}

fn volumes_of(pod: &Path) -> Vec<PathBuf> {
    folders(&pod.join("volumes")).iter().flat_map(|driver| folders(driver)).collect()
}

fn driver_of(volume: &Path) -> String {
    let folder = volume.parent().and_then(Path::file_name).unwrap_or_default();
    folder.to_string_lossy().replace('~', "/")
}

/// The folders in a folder, sorted; a dead mount is one.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        read.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect();
    found.sort();
    found
}
