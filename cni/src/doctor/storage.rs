//! Where the program writes: its records, the leases, the log.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};
use node::finding::{Finding, typed};
use node::log::{self, Log, Place};

use crate::attachment::STATE;
use crate::config::NetConf;
use crate::ipam::DATA_DIR;

const WHAT: &str = "state";
const LOG: &str = "log file";

/// A record and a lease take a block each; less than this is no time to find out.
const ROOM: u64 = 1 << 20;
const FILES: u64 = 64;

/// The folders of records and leases: every ADD writes there.
pub(super) fn state() -> Vec<Finding> {
    let folders = [STATE, DATA_DIR];
    let mut systems = Vec::new();
    let mut found = Vec::new();
    for folder in folders.map(Path::new) {
        // What is wrong with one file system is told once.
        let system = fs::metadata(nearest(folder)).map(|about| about.dev()).ok();
        if !systems.contains(&system) {
            found.extend(wrong(folder));
            systems.push(system);
        }
    }
    if !found.is_empty() {
        return found;
    }
    vec![Finding::fine(WHAT, format!("`{STATE}` and `{DATA_DIR}` may be written, and have room"))]
}

fn wrong(folder: &Path) -> Option<Finding> {
    let shown = folder.display();
    let there = nearest(folder);
    if !there.is_dir() {
        let why = format!("`{}` is no folder, and `{shown}` can't be made", there.display());
        return Some(Finding::problem(WHAT, why, format!("move it away: mv {0} {0}.old", typed(&there))));
    }
    let system = statvfs(&there).ok()?;
    if system.flags().contains(FsFlags::ST_RDONLY) {
        let why = format!("`{shown}` is on a read-only file system: no pod gets a network");
        let remedy =
            format!("mount it writable: mount -o remount,rw \"$(findmnt -no TARGET -T {})\"", typed(&there));
        return Some(Finding::problem(WHAT, why, remedy));
    }
    let room = system.blocks_available().saturating_mul(system.fragment_size());
    // A file system that does not count its files says 0 of 0.
    let full = system.files() > 0 && system.files_available() < FILES;
    (room < ROOM || full).then(|| {
        let of = if full { "inodes" } else { "space" };
        let why = format!("`{shown}` has hardly any {of} left: the next pods get no network");
        Finding::problem(WHAT, why, format!("make room: df -h {0}; df -i {0}", typed(&there)))
    })
}

/// The folder, or the nearest above it that is there: an ADD makes the rest.
fn nearest(folder: &Path) -> PathBuf {
    let there = folder.ancestors().find(|path| path.exists());
    there.unwrap_or(Path::new("/")).to_owned()
}

/// Where the networks' lines go. A log that can't be written fails no pod, and no line is written.
pub(super) fn logs(networks: &[NetConf]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen: Vec<&Place> = Vec::new();
    for log in networks.iter().map(|conf| &conf.log.log).filter(|log| log.is_on()) {
        if !seen.contains(&&log.place) {
            seen.push(&log.place);
            findings.push(of_log(log));
        }
    }
    findings
}

fn of_log(log: &Log) -> Finding {
    match log::check(log) {
        Ok(()) => Finding::fine(LOG, format!("`{}` may be written", log.place)),
        Err(error) => Finding::warning(LOG, error.chain(), error.advice().unwrap_or_default()),
    }
}
