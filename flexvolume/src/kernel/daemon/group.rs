//! The processes of one volume: those in its cgroup, in every hierarchy by which systemd ends services.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use super::{DYING, MARK, NAPS};
use crate::kernel::workshop;

/// The cgroup below which each volume has one.
const GROUP: &str = "nodeplug-flexvolume";

/// The cgroups of a volume, there or not.
#[derive(Debug)]
pub struct Group {
    volume: String,
    folders: Vec<PathBuf>,
}

impl Group {
    /// Those of `volume`, by what is mounted on this node.
    pub fn of(volume: &str) -> io::Result<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
        let folders = hierarchies(&mountinfo).into_iter().map(|root| root.join(GROUP).join(volume));
        Ok(Self { volume: volume.to_owned(), folders: folders.collect() })
    }

    /// Moves the process into the volume's cgroup in every hierarchy; says what did not work.
    pub fn place(&self, child: Pid) -> Result<(), String> {
        if self.folders.is_empty() {
            return Err("no cgroup hierarchy is mounted".to_owned());
        }
        let join = |folder: &Path| -> io::Result<()> {
            fs::create_dir_all(folder)?;
            fs::write(folder.join("cgroup.procs"), child.to_string())
        };
        let mut problems = Vec::new();
        for folder in &self.folders {
            // Another volume's end may remove the folder above between the two.
            if let Err(e) = join(folder).or_else(|_| join(folder)) {
                problems.push(format!("`{}`: {e}", folder.display()));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    /// The processes in it, or where it has none (it could not be made), those with the volume's mark.
    pub fn find(&self) -> Vec<i32> {
        let mut members: Vec<i32> = self.folders.iter().flat_map(|folder| members(folder)).collect();
        if members.is_empty() {
            members = marked(&self.volume);
        }
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Sends the signal to each and waits until none is left; whether none is.
    pub fn end(&self, signal: Signal, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut nap = NAPS.0;
        let mut told = Vec::new();
        loop {
            let here = self.find();
            if here.is_empty() {
                return true;
            }
            for pid in here.iter().filter(|pid| !told.contains(*pid)) {
                self.send(*pid, signal);
            }
            told = here;
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(nap);
            nap = (nap * 2).min(NAPS.1);
            for pid in &told {
                // One that this very call started is its child, and must be reaped.
                let _ = waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG));
            }
        }
    }

    /// Signals the process that has the number while it is held, and only when that still is the volume's.
    fn send(&self, pid: i32, signal: Signal) {
        let Some(number) = rustix::process::Pid::from_raw(pid) else { return };
        let held = pidfd_open(number, PidfdFlags::empty());
        if !self.find().contains(&pid) {
            return;
        }
        let raw = if signal == Signal::SIGKILL {
            rustix::process::Signal::KILL
        } else {
            rustix::process::Signal::TERM
        };
        let _ = match held {
            Ok(held) => pidfd_send_signal(held, raw),
            // Before Linux 5.3.
            Err(rustix::io::Errno::NOSYS) => rustix::process::kill_process(number, raw),
            Err(gone) => Err(gone),
        };
    }

    /// Removes the volume's empty cgroups, and the one above them with the last volume.
    pub fn remove(&self) {
        for folder in &self.folders {
            let deadline = Instant::now() + DYING;
            // The last process leaves its cgroup a moment after it has ended.
            while fs::remove_dir(folder).is_err_and(|e| e.kind() != io::ErrorKind::NotFound) {
                if Instant::now() >= deadline {
                    break;
                }
                thread::sleep(NAPS.0);
            }
            let _ = folder.parent().map(fs::remove_dir);
        }
    }
}

/// Where the hierarchies are mounted by which systemd tracks services: version 2's, and version 1's
/// without a controller (proc_pid_mountinfo(5)).
fn hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    let mut found: Vec<(&str, PathBuf)> = Vec::new();
    for line in mountinfo.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let mut kind = kind.split(' ');
        let (Some(name), Some(options)) = (kind.next(), kind.nth(1)) else { continue };
        let tracks =
            name == "cgroup2" || (name == "cgroup" && options.split(',').any(|o| o == "name=systemd"));
        let Some(point) = place.split(' ').nth(4) else { continue };
        if tracks && found.iter().all(|(known, _)| *known != name) {
            found.push((name, PathBuf::from(point)));
        }
    }
    found.into_iter().map(|(_, point)| point).collect()
}

fn members(group: &Path) -> Vec<i32> {
    let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

/// The processes with the volume's mark. In a child: reading a process's environment waits for its
/// memory map, which another thread of it may hold for as long as a dead server does not answer.
fn marked(volume: &str) -> Vec<i32> {
    let search = || {
        let found = processes().filter(|pid| is_ours(*pid) && has_mark(*pid, volume));
        Ok(found.flat_map(i32::to_ne_bytes).collect())
    };
    let bytes = workshop::apart(Instant::now() + DYING, &[], search).unwrap_or_default();
    bytes.chunks_exact(4).filter_map(|c| c.try_into().ok()).map(i32::from_ne_bytes).collect()
}

/// The numbers of all processes.
pub(crate) fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_ours(pid: i32) -> bool {
    let own = fs::read_link("/proc/self/ns/pid").ok();
    own.is_some() && fs::read_link(format!("/proc/{pid}/ns/pid")).ok() == own
}

fn has_mark(pid: i32, volume: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mark = format!("{MARK}={volume}");
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchies_are_those_that_systemd_ends_services_by() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:5 - cgroup cgroup rw,cpu\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
            90 31 0:38 / /mnt/again rw,relatime - cgroup2 cgroup2 rw\n";
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let cases: [(&str, &[&str]); 4] = [
            (hybrid, &["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"]),
            (unified, &["/sys/fs/cgroup"]),
            ("", &[]),
            ("a line of something else\n1 - cgroup2\n", &[]),
        ];
        for (mountinfo, expect) in cases {
            assert_eq!(hierarchies(mountinfo), expect.iter().map(PathBuf::from).collect::<Vec<_>>());
        }
    }
}
