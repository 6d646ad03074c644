//! The cgroup of a service: made, joined, emptied, removed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A cgroup in the hierarchy by which systemd knows its services: version 2, or version 1's named one.
#[derive(Debug, Clone)]
pub struct Cgroup {
    name: String,
    path: PathBuf,
    procs: Arc<File>,
}

impl Cgroup {
    /// Makes the cgroup `name` (which may have parents in it). `None` where this machine lets nobody.
    pub fn make(name: &str) -> Option<Self> {
        Self::make_in(&hierarchy()?, name)
    }

    /// The same in the hierarchy that is mounted at `root`.
    pub fn make_in(root: &Path, name: &str) -> Option<Self> {
        let path = root.join(name);
        fs::create_dir_all(&path).ok()?;
        let procs = OpenOptions::new().write(true).open(path.join("cgroup.procs")).ok()?;
        Some(Self { name: name.to_owned(), path, procs: Arc::new(procs) })
    }

    /// Its name, as it was made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The processes in it, and in those below.
    pub fn processes(&self) -> Vec<Pid> {
        processes(&self.path)
    }

    /// Those below, deepest first.
    pub fn below(&self) -> Vec<PathBuf> {
        below(&self.path)
    }

    /// SIGKILL to all in it, until none is left; what systemd does when a service stops.
    pub fn kill(&self) {
        let start = Instant::now();
        loop {
            let all = self.processes();
            if all.is_empty() || start.elapsed() > Duration::from_secs(5) {
                return;
            }
            for pid in all {
                let _ = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes it and those below. Their processes may still be on their way out.
    pub fn remove(&self) {
        let start = Instant::now();
        while self.path.exists() && start.elapsed() < Duration::from_secs(5) {
            for folder in self.below().iter().chain([&self.path]) {
                drop(fs::remove_dir(folder));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Where systemd's hierarchy is mounted.
fn hierarchy() -> Option<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let candidates = [root.join("systemd"), root.to_owned(), root.join("unified")];
    candidates.into_iter().find(|p| p.join("cgroup.procs").exists())
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(folder) else { return Vec::new() };
    let folders = read.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|e| e.path()).flat_map(|path| below(&path).into_iter().chain([path])).collect()
}

fn processes(folder: &Path) -> Vec<Pid> {
    let all = below(folder).into_iter().chain([folder.to_owned()]);
    let text = all.map(|f| fs::read_to_string(f.join("cgroup.procs")).unwrap_or_default());
    text.collect::<String>().lines().filter_map(|l| l.parse().ok()).map(Pid::from_raw).collect()
}

/// Makes the process to be a member from before its exec.
pub fn join(command: &mut Command, cgroup: &Cgroup) {
    let procs = Arc::clone(&cgroup.procs);
    // 0 is whoever writes.
    let enter = move || (&*procs).write_all(b"0");
    // SAFETY: the closure makes one write(2) to a descriptor that is open already, which is safe between
    // fork and exec, and allocates nothing.
    unsafe { command.pre_exec(enter) };
}
