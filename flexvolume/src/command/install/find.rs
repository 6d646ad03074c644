//! Which folder the kubelet looks for drivers in.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use node::{Error, Kind, Result};

use super::NAMES;
use super::kubelet::{self, Kubelet};

/// The kubelet's own default.
const DEFAULT: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";
/// Where distributions have it.
const KNOWN: [(&str, &str); 7] = [
    (DEFAULT, "the kubelet's default"),
    ("/home/kubernetes/flexvolume", "Google's"),
    ("/etc/kubernetes/volumeplugins", "Azure's"),
    ("/etc/kubernetes/kubelet-plugins/volume/exec", "OpenShift's"),
    ("/var/lib/kubelet/volumeplugins", "Rancher's, Kubespray's, Gardener's"),
    ("/usr/libexec/k0s/kubelet-plugins/volume/exec", "k0s's"),
    ("/opt/libexec/kubernetes/kubelet-plugins/volume/exec", "Flatcar's with kubeadm"),
];

const UNCERTAIN: &str =
    "no kubelet here tells which folder it uses; if it is another one, name it with --dir";

/// A folder as the kubelet names it, and why this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub folder: PathBuf,
    pub why: String,
    pub notes: Vec<String>,
}

/// A known folder that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Existing {
    folder: PathBuf,
    whose: &'static str,
    /// A driver of the vendor is in it.
    has_drivers: bool,
}

/// Looks at the node below `root`, and chooses.
pub(crate) fn folder(told: Option<&Path>, root: &Path, vendor: &str) -> Result<Choice> {
    if let Some(told) = told {
        if !told.is_absolute() {
            return Err(Error::new(Kind::Usage, format!("use `{}` as the plugin folder", told.display()))
                .hint("write its path from the root, as the kubelet has it in --volume-plugin-dir"));
        }
        return choose(Some(told), &[], &[], &[]);
    }
    let running = kubelet::running(root, &below(root, Path::new("/proc")))?;
    choose(None, &running, &kubelet::configured(root)?, &existing(root, vendor))
}

/// Refuses a folder that a person named and no kubelet of the node looks into. Where none tells its folder, as in a
/// container, the person's word counts.
///
/// Errors: [`Kind::Config`].
pub(super) fn refuse_foreign(told: &Path, root: &Path) -> Result<()> {
    // What cannot be read or understood of a kubelet is what --dir is for.
    let running = kubelet::running(root, &below(root, Path::new("/proc"))).unwrap_or_default();
    let configured = kubelet::configured(root).unwrap_or_default();
    foreign(told, root, [&running, &configured])
}

fn foreign(told: &Path, root: &Path, kubelets: [&[Kubelet]; 2]) -> Result<()> {
    let known = kubelets.map(|kubelets| candidates(kubelets).unwrap_or_default());
    let Some(known) = known.into_iter().find(|known| !known.is_empty()) else { return Ok(()) };
    if known.iter().any(|(folder, _)| same(root, folder, told)) {
        return Ok(());
    }
    let list: Vec<String> =
        known.iter().map(|(folder, why)| format!("`{}` ({why})", folder.display())).collect();
    let why = format!("the kubelet looks for drivers in {}", list.join(" and "));
    Err(Error::caused(Kind::Config, format!("install into `{}`", told.display()), why)
        .hint("leave --dir out and the kubelet's own folder is taken, or add --force"))
}

/// Whether both paths are one folder of the node.
fn same(root: &Path, one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(below(root, path)).map(|about| (about.dev(), about.ino())).ok();
    one == other || identity(one).is_some_and(|id| Some(id) == identity(other))
}

/// A path of the node, as this process reaches it.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn existing(root: &Path, vendor: &str) -> Vec<Existing> {
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for (path, whose) in KNOWN {
        let here = below(root, Path::new(path));
        let Some(about) = fs::metadata(&here).ok().filter(fs::Metadata::is_dir) else { continue };
        // One of them may be a link to another.
        let identity = (about.dev(), about.ino());
        if !seen.contains(&identity) {
            seen.push(identity);
            let has_drivers =
                NAMES.iter().any(|name| here.join(format!("{vendor}~{name}")).join(name).is_file());
            found.push(Existing { folder: PathBuf::from(path), whose, has_drivers });
        }
    }
    found
}

/// What a person says, then the kubelet that runs, then the configuration of one that would, then where
/// the drivers are already, then the only known folder that is there, then the default.
///
/// Errors: [`Kind::Config`] where several are as likely; the hint names them.
fn choose(
    told: Option<&Path>,
    running: &[Kubelet],
    configured: &[Kubelet],
    existing: &[Existing],
) -> Result<Choice> {
    let choice = |(folder, why)| Choice { folder, why, notes: vec![] };
    if let Some(folder) = told {
        return Ok(choice((folder.to_owned(), "--dir".to_owned())));
    }
    for kubelets in [running, configured] {
        if let Some(found) = only(candidates(kubelets)?)? {
            return Ok(choice(found));
        }
    }
    let with_drivers: Vec<&Existing> = existing.iter().filter(|e| e.has_drivers).collect();
    let known = if with_drivers.is_empty() { existing.iter().collect() } else { with_drivers };
    let known = known.iter().map(|e| (e.folder.clone(), format!("{}, and it is there", e.whose))).collect();
    let default = || (PathBuf::from(DEFAULT), "the kubelet's default, and nothing here names one".to_owned());
    let mut choice = choice(only(known)?.unwrap_or_else(default));
    choice.notes.push(UNCERTAIN.to_owned());
    Ok(choice)
}

type Candidate = (PathBuf, String);

/// What the kubelets were told; one that was told nothing, and hides nothing, uses the default.
fn candidates(kubelets: &[Kubelet]) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for kubelet in kubelets {
        match kubelet.plugin_folder()? {
            Some(named) => found.push((named.folder, named.by)),
            None if kubelet.is_plain => {
                found.push((DEFAULT.into(), format!("the default of {}", kubelet.who)));
            }
            None => {}
        }
    }
    Ok(found)
}

/// The one folder that all candidates mean.
fn only(candidates: Vec<Candidate>) -> Result<Option<Candidate>> {
    let mut folders: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if !folders.iter().any(|(folder, _)| *folder == candidate.0) {
            folders.push(candidate);
        }
    }
    if folders.len() < 2 {
        return Ok(folders.pop());
    }
    let list: Vec<String> =
        folders.iter().map(|(folder, why)| format!("{} ({why})", folder.display())).collect();
    Err(Error::caused(Kind::Config, "find the plugin folder", "there are several")
        .hint(format!("name one with --dir: {}", list.join(" or "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wanted, what runs, what is configured, and the refusal.
    type ToldCase<'a> = (&'a str, &'a [Kubelet], &'a [Kubelet], Option<&'a str>);

    /// What is told, runs, is configured, is there; then the folder, why, and whether with a note.
    type Case<'a> = (
        Option<&'a str>,
        &'a [Kubelet],
        &'a [Kubelet],
        &'a [(&'a str, bool)],
        Result<(&'a str, &'a str, bool), &'a str>,
    );

    fn kubelet(who: &str, line: &str, config: &str) -> Kubelet {
        let files = if config.is_empty() { vec![] } else { vec![("/c.yaml".into(), config.to_owned())] };
        let arguments = line.split_whitespace().map(str::to_owned).collect();
        Kubelet { who: who.to_owned(), is_plain: who == "kubelet", arguments, files, ..Default::default() }
    }

    fn existing(list: &[(&str, bool)]) -> Vec<Existing> {
        let existing = |(folder, has_drivers): &(&str, bool)| Existing {
            folder: PathBuf::from(folder),
            whose: "X's",
            has_drivers: *has_drivers,
        };
        list.iter().map(existing).collect()
    }

    #[test]
    fn what_is_certain_goes_before_what_is_likely_and_two_are_an_error() {
        let none: &[Kubelet] = &[];
        let flag = [kubelet("kubelet", "--volume-plugin-dir=/flag", "volumePluginDir: /config")];
        let config = [kubelet("kubelet", "--v=2", "volumePluginDir: /config")];
        let silent = [kubelet("kubelet", "--v=2", "")];
        let k3s = [kubelet("k3s", "", "")];
        let k3s_told = [kubelet("k3s", "--volume-plugin-dir=/k3s", "")];
        let same_twice = [kubelet("kubelet", "", &format!("volumePluginDir: {DEFAULT}/")), silent[0].clone()];
        let two = [flag[0].clone(), silent[0].clone()];
        let (a, b) = (("/a", false), ("/b", false));
        let table: [Case<'_>; 15] = [
            (Some("/told"), &flag, none, &[a, b], Ok(("/told", "--dir", false))),
            (None, &flag, none, &[a], Ok(("/flag", "--volume-plugin-dir of kubelet", false))),
            (None, &config, &k3s_told, &[a], Ok(("/config", "volumePluginDir in /c.yaml of kubelet", false))),
            (None, &silent, none, &[a, b], Ok((DEFAULT, "the default of kubelet", false))),
            (None, &same_twice, none, &[], Ok((DEFAULT, "volumePluginDir in /c.yaml of kubelet", false))),
            (None, &two, none, &[], Err("/flag (--volume-plugin-dir of kubelet) or /usr/libexec")),
            (None, &k3s_told, none, &[a], Ok(("/k3s", "--volume-plugin-dir of k3s", false))),
            (None, &k3s, none, &[a], Ok(("/a", "X's, and it is there", true))),
            (None, &k3s, &k3s_told, &[a], Ok(("/k3s", "--volume-plugin-dir of k3s", false))),
            (None, none, &k3s_told, &[a], Ok(("/k3s", "--volume-plugin-dir of k3s", false))),
            (None, none, &k3s, &[a], Ok(("/a", "X's, and it is there", true))),
            (None, none, none, &[a, b], Err("--dir: /a (X's, and it is there) or /b")),
            (None, none, none, &[a, ("/b", true)], Ok(("/b", "X's, and it is there", true))),
            (None, none, none, &[("/a", true), ("/b", true)], Err("/a (X's")),
            (None, none, none, &[], Ok((DEFAULT, "the kubelet's default, and nothing here names one", true))),
        ];
        for (n, (told, running, configured, there, expect)) in table.into_iter().enumerate() {
            let found = choose(told.map(Path::new), running, configured, &existing(there));
            match (found, expect) {
                (Ok(choice), Ok((folder, why, noted))) => {
                    assert_eq!(choice.folder, Path::new(folder), "{n}");
                    assert_eq!((choice.why.as_str(), !choice.notes.is_empty()), (why, noted), "{n}");
                }
                (Err(error), Err(part)) => assert!(error.advice().unwrap().contains(part), "{n}: {error:?}"),
                (found, expect) => panic!("{n}: {found:?} and not {expect:?}"),
            }
        }
    }

    #[test]
    fn a_folder_that_is_told_is_one_that_a_kubelet_looks_into() {
        let none: &[Kubelet] = &[];
        let flag = [kubelet("kubelet", "--volume-plugin-dir=/flag", "")];
        let both = [flag[0].clone(), kubelet("kubelet", "--v=2", "")];
        let hidden = [kubelet("k3s", "", "")];
        let broken = [kubelet("kubelet", "--volume-plugin-dir=relative", "")];
        let slash = [kubelet("kubelet", "--volume-plugin-dir=/proc/self/../self/", "")];
        // What is told, runs, is configured; and what the refusal names.
        let table: [ToldCase<'_>; 9] = [
            ("/flag", &flag, none, None),
            ("/flag/", &flag, none, None),
            ("/other", &flag, none, Some("`/flag` (--volume-plugin-dir of kubelet)")),
            (DEFAULT, &both, none, None),
            ("/other", none, &flag, Some("`/flag`")),
            ("/other", &both, none, Some(DEFAULT)),
            ("/other", &hidden, none, None),
            ("/other", &broken, none, None),
            ("/proc/self", &slash, none, None),
        ];
        for (told, running, configured, expect) in table {
            let found = foreign(Path::new(told), Path::new("/"), [running, configured]);
            match (found, expect) {
                (Ok(()), None) => {}
                (Err(error), Some(part)) => {
                    assert!(error.chain().contains(part), "{told}: {error:?}");
                    assert!(error.advice().unwrap().contains("--force"), "{told}");
                }
                (found, expect) => panic!("{told}: {found:?} and not {expect:?}"),
            }
        }
    }
}
