//! `subPath:` of a container's mount: a bind mount in the pod's folder, made before the container and
//! removed before the volume.

use std::fs;
use std::path::{Path, PathBuf};

use super::disk;
use super::{Kubelet, Volume};

impl Kubelet {
    /// Makes the bind mount of `below` in the volume for a container, and `below` itself where it is
    /// missing; its path.
    #[track_caller]
    pub fn sub_path(&self, volume: &Volume, container: &str, below: &str) -> PathBuf {
        let source = volume.path().join(below);
        fs::create_dir_all(&source).unwrap_or_else(|e| panic!("make `{}`: {e}", source.display()));
        let folder = sub_paths(&volume.path()).join(container);
        let next = fs::read_dir(&folder).into_iter().flatten().count();
        let target = folder.join(next.to_string());
        disk::make_folders(&target).expect("make the folder of a subPath");
        let words = ["--no-canonicalize", "-o", "bind", &source.to_string_lossy(), &target.to_string_lossy()];
        disk::mount(&words).unwrap_or_else(|why| panic!("{why}"));
        target
    }
}

/// Unmounts and removes all of a volume's.
pub(super) fn remove_sub_paths(volume: &Path) -> Result<(), String> {
    let top = sub_paths(volume);
    for container in entries(&top) {
        for sub_path in entries(&container) {
            disk::clean_up_mount_point(&sub_path)?;
        }
        disk::remove(&container)?;
    }
    if top.exists() { disk::remove(&top) } else { Ok(()) }
}

/// `pods/<uid>/volume-subpaths/<volume>`
fn sub_paths(volume: &Path) -> PathBuf {
    let pod = volume.ancestors().nth(3).unwrap_or(volume);
    pod.join("volume-subpaths").join(volume.file_name().unwrap_or_default())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect()
}
