//! The node's container runtime: which ones there are, where each looks for plugins and networks, and which network
//! it takes.
//!
//! Reads configurations and /proc below a root, and runs nothing; only [`version::ask`] does. All paths in the
//! answers are the node's own: [`below`] makes them this process's.

pub mod lists;
pub mod version;

mod containerd;
mod crio;
mod dockerd;
mod process;

use std::path::{Path, PathBuf};

use node::{Context, Error, Kind, Result};

pub use version::Release;

/// Where runtimes look for plugins unless they are told otherwise.
pub const BIN: &str = "/opt/cni/bin";
/// Where runtimes look for networks unless they are told otherwise.
pub const CONF: &str = "/etc/cni/net.d";

/// Which program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// containerd, alone or in k3s, rke2, microk8s or k0s.
    Containerd,
    /// cri-o.
    Crio,
    /// The kubelet's way to Docker.
    CriDockerd,
}

/// A container runtime of the node, running or only configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Which program.
    pub program: Program,
    /// As a person calls it: `containerd`, `k3s's containerd`, `cri-o`.
    pub who: String,
    /// Its process, where it runs.
    pub pid: Option<u32>,
    /// Its program file, where it runs or is found at a usual place.
    pub exe: Option<PathBuf>,
    /// The configuration files that were read, in their order.
    pub files: Vec<PathBuf>,
    /// Whether it serves the kubelet: Docker's own containerd does not.
    pub serves: bool,
    /// The folders of plugins, the first one first. Never empty.
    pub bin_dirs: Vec<PathBuf>,
    /// The folder of networks.
    pub conf_dir: PathBuf,
    /// How many networks a pod gets; 0 for all in the folder.
    pub max_conf_num: usize,
    /// The name of the network that is taken, where the configuration names one (cri-o).
    pub default_network: Option<String>,
    /// It sets `lo` up without a plugin named `loopback`.
    pub own_loopback: bool,
    /// Its release, where files tell.
    pub release: Option<Release>,
    /// What could not be read or understood of its configuration.
    pub notes: Vec<String>,
}

impl Runtime {
    /// Whether it passes over a file of networks that it cannot read. containerd stops at one, and pods wait.
    pub fn skips_broken(&self) -> bool {
        self.program != Program::Containerd
    }

    /// The newest cniVersion that it surely understands.
    pub fn cni_version(&self) -> &'static str {
        match (self.program, self.release) {
            (Program::Containerd, Some(r)) if r >= Release(2, 0) => "1.1.0",
            (Program::Containerd, Some(r)) if r < Release(1, 6) => "0.4.0",
            (Program::Crio, Some(r)) if r < Release(1, 23) => "0.4.0",
            _ => "1.0.0",
        }
    }
}

/// The runtimes of the node below `root`: those that run, then those that are configured or installed and do not.
pub fn find(root: &Path) -> Result<Vec<Runtime>> {
    let mut found = Vec::new();
    for process in process::running(root)? {
        let runtime = match process.command.as_str() {
            "containerd" => containerd::running(root, &process),
            "crio" => crio::running(root, &process),
            _ => dockerd::running(root, &process),
        };
        found.push(runtime?);
    }
    for runtime in containerd::configured(root)?.into_iter().chain(crio::configured(root)?) {
        let runs = |other: &Runtime| {
            other.program == runtime.program && (other.files.first() == runtime.files.first())
        };
        if !found.iter().any(runs) {
            found.push(runtime);
        }
    }
    Ok(found)
}

/// A path of the node, as this process reaches it.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Refuses a folder that a symlink leads out of `root`: what is written there would be this system's own. Of one that
/// is not there, the nearest that is counts.
pub fn stays_below(root: &Path, path: &Path) -> Result<()> {
    let doing = || format!("use `{}` below `{}`", path.display(), root.display());
    let real = root.canonicalize().doing(Kind::Io, doing)?;
    let here = below(root, path);
    // A link to nowhere is there, and cannot be followed.
    let Some(there) = here.ancestors().find(|above| above.symlink_metadata().is_ok()) else { return Ok(()) };
    match there.canonicalize() {
        Ok(found) if found.starts_with(&real) => Ok(()),
        _ => Err(Error::caused(Kind::Config, doing(), format!("`{}` leads out of it", there.display()))
            .hint("make the symbolic link a relative one, or name another folder")),
    }
}

/// The path without doubled or trailing slashes.
fn tidy(path: &str) -> PathBuf {
    Path::new(path).components().collect()
}

#[cfg(test)]
mod tests;
