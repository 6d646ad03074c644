//! Whether the node's devices are seen from here.

use std::fs;
use std::path::Path;

use super::Finding;
use super::process::Process;
use crate::config::{Check, Config, Glob, Host, Sensor};
use crate::health::{Labelled, temperatures};

const DEV: &str = "devices";
const SYS: &str = "sysfs";
const LINKS: &str = "udev's links";
const SENSORS: &str = "temperatures";

/// What a runtime puts into a container's /dev by itself, and what the kubelet adds.
const CONTAINERS: [&str; 18] = [
    "console",
    "core",
    "fd",
    "full",
    "mqueue",
    "null",
    "ptmx",
    "pts",
    "random",
    "shm",
    "stderr",
    "stdin",
    "stdout",
    "termination-log",
    "tty",
    "urandom",
    "zero",
    "fuse",
];

/// A node has dozens; a container may have been given one or two.
const FEW: usize = 5;

/// Folders of names that stay the same when a device is plugged in again, below those of each kind: `serial/by-id`.
const STABLE: [&str; 2] = ["by-id", "by-path"];

/// The node's /dev.
pub(super) fn dev(host: &Host, process: &Process) -> Finding {
    let shown = format!("`{}`", host.dev.display());
    let remedy = "mount the node's /dev (hostPath, readOnly) and let `host.dev` name it";
    let names = match fs::read_dir(&host.dev) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name()),
        Err(e) => return Finding::problem(DEV, format!("{shown}: {e}"), remedy),
    };
    let others = names.filter(|name| CONTAINERS.iter().all(|own| name != own)).count();
    let kernels = process.mount_of(&host.dev).is_some_and(|mount| mount.kind == "devtmpfs");
    if others < FEW {
        let why = format!("{shown} shows a container's few devices, and not the node's");
        return Finding::problem(DEV, why, remedy);
    }
    if process.is_contained() && !kernels {
        let why = format!("{shown} is a copy of the node's: what is plugged in later does not appear there");
        return Finding::warning(DEV, why, remedy);
    }
    Finding::fine(DEV, format!("{shown} shows the node's ({others} names)"))
}

/// The node's /sys.
pub(super) fn sys(host: &Host) -> Finding {
    let missing = ["devices", "class", "bus"].into_iter().find(|name| !host.sys.join(name).is_dir());
    let shown = format!("`{}`", host.sys.display());
    match missing {
        None => Finding::fine(SYS, format!("{shown} is the kernel's")),
        Some(name) => Finding::problem(
            SYS,
            format!("{shown} has no `{name}`"),
            "mount the node's /sys (hostPath, readOnly) and let `host.sys` name it",
        ),
    }
}

/// Whether udev has made its links.
pub(super) fn links(host: &Host) -> Finding {
    let mut there: Vec<String> = fs::read_dir(&host.dev)
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|kind| STABLE.map(|name| (kind.path().join(name), kind.file_name(), name)))
        .filter(|(folder, ..)| folder.is_dir())
        .map(|(_, kind, name)| format!("{}/{name}", kind.to_string_lossy()))
        .collect();
    if there.is_empty() {
        return Finding::warning(
            LINKS,
            format!("`{}` has neither `*/by-id` nor `*/by-path`", host.dev.display()),
            "start udev on the node; without its links, devices are handed out by names that may change when \
             they are plugged in again",
        );
    }
    there.sort();
    Finding::fine(LINKS, there.join(", "))
}

/// The sensors that a configuration may name, and those that it names and that are not there.
pub(super) fn sensors(config: &Config) -> Vec<Finding> {
    compared(&temperatures(), &wanted(config))
}

/// The labels of the temperatures that healths depend on.
fn wanted(config: &Config) -> Vec<&Glob> {
    let checks = config.resources.iter().flat_map(|resource| &resource.health.checks);
    checks
        .filter_map(|check| match check {
            Check::Sensor(Sensor::Temperature { label, .. }) => label.as_ref(),
            _ => None,
        })
        .collect()
}

fn compared(sensors: &[Labelled], wanted: &[&Glob]) -> Vec<Finding> {
    let shown: Vec<String> = sensors.iter().map(shown).collect();
    let shown = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
    let missing = wanted.iter().filter(|glob| !sensors.iter().any(|sensor| glob.matches(&sensor.label)));
    let missing: Vec<Finding> = missing
        .map(|glob| {
            let why = format!("no sensor's label is `{glob}`; there are: {shown}");
            Finding::warning(SENSORS, why, "correct the `label` of the check")
        })
        .collect();
    if missing.is_empty() { vec![Finding::fine(SENSORS, format!("sensors: {shown}"))] } else { missing }
}

fn shown(sensor: &Labelled) -> String {
    match sensor.celsius {
        Some(celsius) => format!("`{}` {celsius:.0} °C", sensor.label),
        None => format!("`{}`", sensor.label),
    }
}

/// Whether anything is at `path`, as far as this process may look.
pub(super) fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::super::process::tests::Folder;
    use super::*;
    use node::finding::State;

    fn host(temp: &Folder) -> Host {
        Host { dev: temp.path("dev"), sys: temp.path("sys"), ..Host::default() }
    }

    #[test]
    fn a_containers_own_devices_are_not_the_nodes() {
        let temp = Folder::new("dev");
        let (host, container) = (host(&temp), temp.in_container(""));
        assert_eq!(dev(&host, &container).state, State::Problem, "not there");
        for name in ["null", "zero", "tty", "ttyUSB0"] {
            temp.write(&format!("dev/{name}"), "");
        }
        assert!(dev(&host, &container).why.contains("container's few"));
        for name in ["kmsg", "loop0", "sda", "kvm", "hpet"] {
            temp.write(&format!("dev/{name}"), "");
        }
        assert!(dev(&host, &container).why.contains("copy"));
        let mount = format!("21 20 0:6 / {} rw - devtmpfs udev rw\n", host.dev.display());
        assert_eq!(dev(&host, &temp.in_container(&mount)).state, State::Fine);
        assert_eq!(dev(&host, &temp.on_node()).state, State::Fine, "a node may make its files as it likes");
    }

    #[test]
    fn sysfs_and_udevs_links_are_there_or_not() {
        let temp = Folder::new("sys");
        let host = host(&temp);
        assert_eq!((sys(&host).state, links(&host).state), (State::Problem, State::Warning));
        for name in ["sys/devices", "sys/class", "sys/bus", "dev/serial/by-id"] {
            temp.folder(name);
        }
        assert_eq!((sys(&host).state, links(&host).why.as_str()), (State::Fine, "serial/by-id"));
    }

    #[test]
    fn a_sensor_that_is_named_and_not_there_is_told_of() {
        let wants = "resources: [{name: a.b/c, devices: [{count: 1}], health: {checks: [\
                     {sensor: {temperature: {label: 'Package*', below: 90}}}]}}]";
        let config = Config::parse(wants).unwrap();
        let globs = wanted(&config);
        for (label, state) in
            [("coretemp Core 0", State::Warning), ("", State::Warning), ("Package id 0", State::Fine)]
        {
            let sensor = Labelled { label: label.to_owned(), celsius: Some(41.3) };
            let found = compared(&[sensor], &globs);
            assert_eq!(found.first().unwrap().state, state, "{label}");
            assert!(found.first().unwrap().why.contains("41 °C"), "{found:?}");
        }
        assert_eq!(compared(&[], &[]).first().unwrap().why, "sensors: none");
    }
}
