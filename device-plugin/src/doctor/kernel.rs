//! Whether the kernel tells of changes: inotify's limits, and uevents.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::getuid;

use super::Finding;
use super::process::Process;
use crate::config::Config;
use crate::discover;
use crate::kernel::inotify::Inotify;
use crate::kernel::uevent::Uevents;
use crate::session;

const INSTANCES: &str = "inotify instances";
const WATCHES: &str = "inotify watches";
const UEVENTS: &str = "uevents";

/// What a limit or its use is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Used {
    instances: u64,
    watches: u64,
}

/// Whether there is an instance to be had, and watches for all folders of this configuration.
pub(super) fn inotify(config: &Config, path: &Path, process: &Process) -> [Finding; 2] {
    let used = used(process);
    let limit = |name: &str| number(&process.file(&format!("sys/fs/inotify/{name}")));
    let needed = folders(config, path).len().try_into().unwrap_or(u64::MAX);
    [
        instances(
            used.instances,
            limit("max_user_instances"),
            Inotify::new().err().map(|error| error.chain()),
        ),
        watches(used.watches, limit("max_user_watches"), needed),
    ]
}

fn instances(used: u64, limit: Option<u64>, refused: Option<String>) -> Finding {
    let raise = "sysctl -w fs.inotify.max_user_instances=1024, and the same in /etc/sysctl.d";
    if let Some(refused) = refused {
        let why = format!("{refused}: changes are noticed by looking every 2s");
        return Finding::warning(INSTANCES, why, raise);
    }
    let Some(limit) = limit else { return Finding::fine(INSTANCES, "one is to be had") };
    let why = format!("{used} of {limit} are in use, as far as is seen from here");
    if used.saturating_mul(10) >= limit.saturating_mul(9) {
        return Finding::warning(INSTANCES, why, raise);
    }
    Finding::fine(INSTANCES, why)
}

fn watches(used: u64, limit: Option<u64>, needed: u64) -> Finding {
    let needs = format!("this configuration needs {needed}");
    let Some(limit) = limit else { return Finding::fine(WATCHES, needs) };
    let why = format!("{used} of {limit} are in use, as far as is seen from here; {needs}");
    if used.saturating_add(needed) > limit {
        return Finding::warning(
            WATCHES,
            why,
            "sysctl -w fs.inotify.max_user_watches=524288, and the same in /etc/sysctl.d",
        );
    }
    Finding::fine(WATCHES, why)
}

/// The folders that the daemon watches for this configuration.
fn folders(config: &Config, path: &Path) -> BTreeSet<PathBuf> {
    let selectors = config.resources.iter().flat_map(|resource| &resource.devices);
    let devices = selectors.flat_map(|selector| discover::watches(selector, &config.host).folders);
    let own =
        [session::folder(&config.kubelet).to_owned()].into_iter().chain(path.parent().map(Path::to_owned));
    devices.chain(own).collect()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What this user's processes have, as far as /proc shows them: the limits are the user's.
fn used(process: &Process) -> Used {
    let owner = getuid().as_raw();
    let mut used = Used::default();
    for entry in fs::read_dir(process.file("")).into_iter().flatten().flatten() {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if is_process && entry.metadata().is_ok_and(|status| status.uid() == owner) {
            used_by(&entry.path(), &mut used);
        }
    }
    used
}

fn used_by(process: &Path, used: &mut Used) {
    for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == "anon_inode:inotify") {
            used.instances += 1;
            let about =
                fs::read_to_string(process.join("fdinfo").join(entry.file_name())).unwrap_or_default();
            let watches = about.lines().filter(|line| line.starts_with("inotify wd:")).count();
            used.watches += u64::try_from(watches).unwrap_or(0);
        }
    }
}

/// Whether the kernel's announcements of devices arrive.
pub(super) fn uevents(process: &Process) -> Finding {
    let late = "devices without a folder that is watched are noticed at the next look at everything";
    if let Err(error) = Uevents::new() {
        return Finding::warning(UEVENTS, format!("{}: {late}", error.chain()), "allow AF_NETLINK sockets");
    }
    if process.is_in_user_namespace() {
        return Finding::warning(
            UEVENTS,
            format!("none arrives in a user namespace: {late}"),
            "leave `hostUsers: false` out of the pod",
        );
    }
    Finding::fine(UEVENTS, "the kernel's announcements can be received")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::process::tests::Folder;
    use super::*;
    use node::finding::State;

    #[test]
    fn limits_are_held_against_what_is_used_and_needed() {
        for (name, finding, state) in [
            ("few", instances(3, Some(128), None), State::Fine),
            ("nearly all", instances(120, Some(128), None), State::Warning),
            ("none left", instances(128, Some(128), Some("no".to_owned())), State::Warning),
            ("no limit known", instances(3, None, None), State::Fine),
            ("enough watches", watches(10, Some(8192), 30), State::Fine),
            ("too few watches", watches(8190, Some(8192), 3), State::Warning),
        ] {
            assert_eq!(finding.state, state, "{name}: {finding:?}");
        }
    }

    #[test]
    fn what_processes_watch_is_counted() {
        let temp = Folder::new("inotify");
        let process = temp.on_node();
        temp.folder("proc/7/fd");
        symlink("anon_inode:inotify", temp.path("proc/7/fd/3")).unwrap();
        symlink("/dev/null", temp.path("proc/7/fd/4")).unwrap();
        temp.write("proc/7/fdinfo/3", "pos:\t0\nflags:\t02004000\ninotify wd:2 ino:1\ninotify wd:1 ino:2\n");
        temp.write("proc/7/fdinfo/4", "inotify wd:1 ino:2\n");
        assert_eq!(used(&process), Used { instances: 1, watches: 2 });
    }

    #[test]
    fn no_uevent_arrives_in_a_user_namespace() {
        let temp = Folder::new("uevents");
        let process = temp.on_node();
        temp.write("proc/self/uid_map", "0 100000 65536\n");
        assert_eq!(uevents(&process).state, State::Warning);
    }

    #[test]
    fn the_kubelets_folder_and_the_configurations_are_watched() {
        let folders = folders(&Config::default(), Path::new("/etc/nodeplug/device-plugin.yaml"));
        assert!(folders.contains(Path::new("/var/lib/kubelet/device-plugins")));
        assert!(folders.contains(Path::new("/etc/nodeplug")));
    }
}
