//! The volumes: whether each is mounted and remembered, and whether its server or its program lives.

use std::path::{Path, PathBuf};

use node::finding::{Finding, counted, listed, unread};
use node::{Result, mountinfo, store};

use super::locks::is_held;
use crate::command::install::VENDOR;
use crate::command::volumes::{Health, looked_at, odd};
use crate::record::{Record, STATE};

const WHAT: &str = "volumes";

/// All of them.
pub(super) fn all() -> Vec<Finding> {
    match looked() {
        Ok(found) => found,
        Err(error) => vec![unread(WHAT, &error)],
    }
}

fn looked() -> Result<Vec<Finding>> {
    let records = Record::all()?;
    let mut found = Vec::new();
    let mut well = 0;
    for (id, record) in &records {
        let (volume, health) = looked_at(record);
        // A call at work has its record before its mount, or its mount for a while after it.
        if is_held(&Path::new(STATE).join("locks").join(format!("t-{id}"))) {
            continue;
        }
        match ill(record, &volume, &health) {
            Some(finding) => found.push(finding),
            None => well += 1,
        }
    }
    let unreadable = odd(&records)?;
    if unreadable > 0 {
        let why = format!("{} of another boot, or that can't be read", counted(unreadable, "record"));
        found.push(Finding::warning(WHAT, why, "nodeplug-flexvolume gc"));
    }
    found.extend(unknown(&records)?);
    if found.is_empty() {
        let word = if well == 1 { "is mounted and answers" } else { "are mounted and answer" };
        found.push(Finding::fine(WHAT, format!("{} {word}", counted(well, "volume"))));
    }
    Ok(found)
}

fn ill(record: &Record, volume: &str, health: &Health) -> Option<Finding> {
    let who = format!("`{volume}` ({}) of the pod `{}/{}`", record.backend, record.namespace, record.pod);
    let again = "nodeplug-flexvolume repair --remount, then restart the pod's containers";
    match health {
        Health::Fine(..) => None,
        Health::Dead(why) => Some(Finding::problem(WHAT, format!("{who} is dead: {why}"), again)),
        Health::Hangs => {
            let why = format!("{who} hangs: its server does not answer");
            Some(Finding::problem(WHAT, why, format!("bring `{}` back; or {again}", record.source)))
        }
        Health::Absent if record.point().is_dir() => {
            let why =
                format!("{who} is remembered and not mounted: the pod may write to the node's own disk");
            let remedy = format!(
                "kubectl -n {} delete pod {}; when it is gone: nodeplug-flexvolume gc",
                record.namespace, record.pod
            );
            Some(Finding::problem(WHAT, why, remedy))
        }
        Health::Absent => {
            let why = format!("{who} is remembered, and its folder is gone");
            Some(Finding::warning(WHAT, why, "nodeplug-flexvolume gc"))
        }
        Health::Unknown(why) => {
            let why = format!("{who} can't be looked at: {why}");
            Some(Finding::warning(WHAT, why, "nodeplug-flexvolume list, as root on the node"))
        }
    }
}

/// Mounts of our drivers that no record knows: they are unmounted as any, and can't be mounted again by `repair`.
fn unknown(records: &[(String, Record)]) -> Result<Option<Finding>> {
    let known: Vec<PathBuf> = records.iter().map(|(_, record)| record.point()).collect();
    let mounts = mountinfo::read()?;
    let mut lost: Vec<String> = mounts
        .iter()
        .filter(|mount| is_volume(&mount.point) && !known.contains(&mount.point))
        .map(|mount| mount.point.display().to_string())
        .collect();
    lost.dedup();
    let begun = store::names(&Path::new(STATE).join("volumes"))?.is_empty();
    let why = if begun { "whose records were removed" } else { "of which there is no record" };
    Ok((!lost.is_empty()).then(|| {
        let remedy = "they end with their pods; a dead one is mounted again by deleting its pod";
        Finding::warning(
            WHAT,
            format!("{} mounted {why}: {}", counted(lost.len(), "volume"), listed(&lost)),
            remedy,
        )
    }))
}

/// `…/pods/UID/volumes/nodeplug~DRIVER/NAME`, wherever the kubelet's root is.
fn is_volume(point: &Path) -> bool {
    let last: Vec<_> = point.iter().rev().take(5).map(|part| part.to_string_lossy()).collect();
    matches!(last.as_slice(), [_, driver, volumes, _, pods]
        if driver.strip_prefix(VENDOR).is_some_and(|rest| rest.starts_with('~')) && *volumes == "volumes" && *pods == "pods")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_drivers_volume_in_a_pods_folder_is_one() {
        for (point, expect) in [
            ("/var/lib/kubelet/pods/u/volumes/nodeplug~nfs/data", true),
            ("/data/kubelet/pods/u/volumes/nodeplug~tmpfs/a b", true),
            ("/var/lib/kubelet/pods/u/volumes/acme~nfs/data", false),
            ("/var/lib/kubelet/pods/u/volumes/nodeplug~nfs/data/below", false),
            ("/var/lib/kubelet/pods/u/volumes/nodeplugs~nfs/data", false),
            ("/", false),
        ] {
            assert_eq!(is_volume(Path::new(point)), expect, "{point}");
        }
    }
}
