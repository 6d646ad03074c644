//! The processes that are container runtimes.

use std::fs;
use std::path::{Path, PathBuf};

use node::{Result, store};

use super::below;

const RUNTIMES: [&str; 3] = ["containerd", "crio", "cri-dockerd"];

/// A process and what it was started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub command: String,
    /// Without its own name.
    pub arguments: Vec<String>,
    /// Its program file, as it names it itself.
    pub exe: Option<PathBuf>,
}

impl Process {
    /// The value of the last `--name=value`, `--name value` or, for a letter, `-n value`.
    pub fn flag(&self, names: &[&str]) -> Option<String> {
        self.flags(names).pop()
    }

    /// The values of all of them.
    pub fn flags(&self, names: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        let mut words = self.arguments.iter();
        while let Some(word) = words.next() {
            let bare = word.trim_start_matches('-');
            if bare.len() == word.len() {
                continue;
            }
            let (name, value) = bare.split_once('=').map_or((bare, None), |(n, v)| (n, Some(v)));
            if names.contains(&name) {
                found.extend(value.map(str::to_owned).or_else(|| words.next().cloned()));
            }
        }
        found.retain(|value| !value.is_empty());
        found
    }
}

/// Those of the node below `root`. Runtimes in containers are none: they see other folders.
pub(super) fn running(root: &Path) -> Result<Vec<Process>> {
    let proc = below(root, Path::new("/proc"));
    let beside = if root == Path::new("/") { "self" } else { "1" };
    let mounts = fs::read_link(proc.join(beside).join("ns/mnt")).ok();
    let mut pids: Vec<u32> = store::names(&proc)?.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    let processes = pids.into_iter().filter_map(|pid| {
        let folder = proc.join(pid.to_string());
        // A process may end at any moment.
        let command = fs::read_to_string(folder.join("comm")).ok()?.trim().to_owned();
        if !RUNTIMES.contains(&command.as_str()) {
            return None;
        }
        let theirs = fs::read_link(folder.join("ns/mnt")).ok();
        if mounts.is_some() && theirs.is_some() && mounts != theirs {
            return None;
        }
        // One that has ended and that nobody waits for has none.
        let line = fs::read(folder.join("cmdline")).ok().filter(|line| !line.is_empty())?;
        let words = line.split(|b| *b == 0).filter(|word| !word.is_empty());
        let arguments = words.skip(1).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        Some(Process { pid, command, arguments, exe: fs::read_link(folder.join("exe")).ok() })
    });
    Ok(processes.collect())
}
