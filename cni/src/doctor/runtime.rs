//! Which container runtime looks for plugins and networks here.

use std::path::Path;

use node::finding::Finding;
use node::{Error, Result};

use crate::runtime::{self, Runtime, version};

const WHAT: &str = "runtime";

/// The runtime that the rest is looked at for, and what is to be said of it: one that runs, else one that would, else
/// one with the usual folders. Below `root`, before it is entered: the runtime's own mounts tell whether it is the
/// node's.
pub(super) fn find(root: &Path) -> (Runtime, Vec<Finding>) {
    let (mut runtime, found) = match runtime::find(root) {
        Ok(all) => chosen(all),
        Err(error) => (Runtime::unknown(), vec![unknown(&error)]),
    };
    // Another root's program is not run here.
    if root == Path::new("/") && runtime.release.is_none() {
        runtime.release = version::ask(&runtime);
    }
    (runtime, found)
}

fn unknown(error: &Error) -> Finding {
    let remedy = error.advice().unwrap_or("the usual folders are looked at; mend what is said");
    Finding::warning(WHAT, error.chain(), remedy)
}

fn chosen(all: Vec<Runtime>) -> (Runtime, Vec<Finding>) {
    let mut serving: Vec<Runtime> = all.into_iter().filter(|runtime| runtime.serves).collect();
    if serving.iter().any(|runtime| runtime.pid.is_some()) {
        serving.retain(|runtime| runtime.pid.is_some());
    }
    let mut serving = serving.into_iter();
    let Some(first) = serving.next() else {
        let runtime = Runtime::unknown();
        let why = "none is known here (containerd, CRI-O, cri-dockerd): the usual folders are looked at";
        return (runtime, vec![Finding::fine(WHAT, why)]);
    };
    let mut found = of(&first);
    let others = serving.filter(|other| {
        (&other.bin_dirs, &other.conf_dir) != (&first.bin_dirs, &first.conf_dir) && other.pid.is_some()
    });
    found.extend(others.map(|other| {
        let why = format!(
            "{} runs, too, with networks in `{}`: only {} is looked at",
            other.who,
            other.conf_dir.display(),
            first.who
        );
        Finding::warning(WHAT, why, "end the one that the kubelet does not use")
    }));
    (first, found)
}

fn of(runtime: &Runtime) -> Vec<Finding> {
    let release = runtime.release.map_or_else(String::new, |release| format!(" {release}"));
    let who = format!("{}{release}", runtime.who);
    let mut found: Vec<Finding> = runtime
        .notes
        .iter()
        .map(|note| {
            Finding::warning(WHAT, format!("{who}: {note}"), "mend the file, and restart the runtime")
        })
        .collect();
    let folders: Vec<String> = runtime.bin_dirs.iter().map(|dir| format!("`{}`", dir.display())).collect();
    let place = format!("plugins in {}, networks in `{}`", folders.join(" and "), runtime.conf_dir.display());
    if runtime.pid.is_none() {
        let why = format!("{who} does not run; it has {place}");
        found.push(Finding::warning(WHAT, why, start(runtime)));
    } else if found.is_empty() {
        found.push(Finding::fine(WHAT, format!("{who} has {place}")));
    }
    found
}

/// Where it is a part of something else, that one's service starts it.
fn start(runtime: &Runtime) -> &'static str {
    match runtime.who.as_str() {
        "containerd" => "systemctl start containerd",
        "cri-o" => "systemctl start crio",
        _ => "start its service (`systemctl list-units` names it)",
    }
}

/// The newest version that it surely understands; `None` where its release is not known.
pub(super) fn newest(runtime: &Runtime) -> Result<Option<crate::version::Version>, crate::version::Unknown> {
    runtime.release.map(|_| runtime.cni_version().parse()).transpose()
}
