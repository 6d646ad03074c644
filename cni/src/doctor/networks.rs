//! The network configurations in the runtime's folder: which one it takes, what is wrong with it, and what lies beside
//! it.

use std::path::{Path, PathBuf};

use node::finding::{Finding, listed, typed, unread};
use node::store;
use serde_json::Value;

use super::plugins::is_ours;
use super::runtime::newest;
use crate::command::validate::{compose, role_of, validate};
use crate::config::reader::Problem;
use crate::config::wanted::Asked;
use crate::config::{NetConf, Position};
use crate::role::{OWN, Role};
use crate::runtime::Runtime;
use crate::runtime::lists::{self, Network};
use crate::version::Version;

const FOLDER: &str = "configuration folder";
const TAKEN: &str = "configuration";
const BESIDE: &str = "other configurations";
const HIDDEN: &str = "half-written files";
const PLUGINS: &str = "plugins it names";

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Networks {
    pub findings: Vec<Finding>,
    /// The entries of the configuration that the runtime takes that are this program's.
    pub configurations: Vec<NetConf>,
}

/// A file of the folder.
#[derive(Debug)]
struct File {
    network: Network,
    path: PathBuf,
    text: String,
    document: Value,
}

impl File {
    fn read(folder: &Path, network: Network) -> Self {
        let path = folder.join(&network.file);
        let text = store::read_plain(&path, store::LARGEST).unwrap_or_default();
        let text = String::from_utf8(text).unwrap_or_default();
        let document = serde_json::from_str(&text).unwrap_or_default();
        Self { network, path, text, document }
    }

    fn entries(&self) -> Vec<&Value> {
        match self.document.get("plugins").and_then(Value::as_array) {
            Some(plugins) => plugins.iter().collect(),
            None => vec![&self.document],
        }
    }

    /// The names of the programs that it calls, those that give addresses with them.
    fn programs(&self) -> Vec<String> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let of = |entry: &&Value| {
            let kind = text(entry.get("type"));
            let within = kind.as_deref().is_some_and(in_process);
            let ipam = text(entry.pointer("/ipam/type"));
            [kind, ipam.filter(|plugin| !within || !in_process(plugin))]
        };
        let mut names: Vec<String> = self.entries().iter().flat_map(of).flatten().collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether it names this program, by one of its names in `runtime`'s folders.
    fn is_ours(&self, runtime: &Runtime) -> bool {
        let called = |name: &String| found(runtime, name).is_some_and(|path| is_ours(&path));
        self.programs().iter().any(|name| name == OWN || called(name))
    }

    /// Whether it has nothing but the loopback.
    fn is_loopback(&self) -> bool {
        self.programs() == ["loopback"]
    }

    fn shown(&self) -> String {
        let plugins = self.programs();
        let plugins = if plugins.is_empty() { "broken".to_owned() } else { plugins.join(", ") };
        format!("`{}` ({plugins})", self.network.file)
    }
}

/// What gives addresses without another program, where this program asks.
fn in_process(name: &str) -> bool {
    name == OWN || Role::named(name).is_some()
}

/// Where the runtime finds a program.
fn found(runtime: &Runtime, name: &str) -> Option<PathBuf> {
    runtime.bin_dirs.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Looks at the folder.
pub(super) fn read(runtime: &Runtime) -> Networks {
    let mut all = Networks::default();
    let folder = &runtime.conf_dir;
    let looked = lists::list(folder).and_then(|networks| Ok((networks, store::names(folder)?)));
    let (networks, names) = match looked {
        Ok(looked) => looked,
        Err(error) => {
            all.findings.push(unread(FOLDER, &error));
            return all;
        }
    };
    all.findings.extend(hidden(folder, &names));
    let pick = runtime.pick(&networks);
    let file = |network: &&Network| File::read(folder, (*network).clone());
    let beside: Vec<File> = pick.beside.iter().map(file).collect();
    if let Some(broken) = pick.stopped_by {
        all.findings.push(stopped(&File::read(folder, broken.clone()), &beside, runtime));
        return all;
    }
    all.findings.extend(pick.skipped.iter().map(|broken| skipped(&File::read(folder, (*broken).clone()))));
    let taken: Vec<File> = pick.taken.iter().map(file).collect();
    if taken.is_empty() {
        all.findings.push(none(folder, runtime));
        return all;
    }
    let ours = taken.iter().filter(|file| file.is_ours(runtime));
    let ours: Vec<&File> = ours.collect();
    if ours.is_empty() {
        all.findings.extend(others(&taken, &beside, runtime));
    }
    for file in ours {
        all.findings.extend(judged(file, runtime));
        all.configurations.extend(configurations(file, runtime));
    }
    for file in &taken {
        all.findings.extend(missing_programs(file, runtime));
    }
    all.findings.extend(behind(&taken, &beside, runtime));
    all
}

fn none(folder: &Path, runtime: &Runtime) -> Finding {
    let which = runtime.default_network.as_ref();
    let which = which.map_or_else(String::new, |name| format!(" named `{name}` (cni_default_network)"));
    let why = format!("`{}` has no network configuration{which}: the node stays NotReady", folder.display());
    let remedy = "nodeplug-cni install --pod-cidr CIDR, with this node's subnet of the pods (`kubectl get node NAME -o \
                  jsonpath='{.spec.podCIDRs}'`); or write one and look at it by `nodeplug-cni validate`";
    Finding::problem(FOLDER, why, remedy)
}

/// Files that somebody began to write. A hidden one with a configuration's ending is taken, and sorts first.
fn hidden(folder: &Path, names: &[String]) -> Vec<Finding> {
    let hidden = names.iter().filter(|name| name.starts_with('.'));
    let (taken, others): (Vec<_>, Vec<_>) = hidden.partition(|name| lists::is_loaded(name));
    let mut found = Vec::new();
    for name in taken {
        let path = folder.join(name);
        let why = format!("`{}` is hidden, and the runtime takes it before every other one", path.display());
        found.push(Finding::problem(HIDDEN, why, format!("rm {}", typed(&path))));
    }
    let left: Vec<String> =
        others.into_iter().filter(|n| n.strip_suffix(".new").is_some()).cloned().collect();
    if !left.is_empty() {
        let paths: Vec<String> = left.iter().map(|n| typed(&folder.join(n))).collect();
        let why = format!("{} was begun and not renamed: nobody reads it", listed(&left));
        found.push(Finding::warning(HIDDEN, why, format!("rm {}", paths.join(" "))));
    }
    found
}

/// The broken file at which the runtime ends.
fn stopped(file: &File, beside: &[File], runtime: &Runtime) -> Finding {
    let shown = file.path.display();
    let why = format!("{} stops at `{shown}`, which {}", runtime.who, broken(file));
    let word = typed(&file.path);
    let remedy = match beside.iter().find(|other| other.is_ours(runtime)) {
        Some(ours) => format!("mv {word} {word}.off; then `{}` is taken", ours.network.file),
        None => format!("`nodeplug-cni validate {word}` shows the place"),
    };
    Finding::problem(TAKEN, format!("{why}: no pod gets a network"), remedy)
}

fn skipped(file: &File) -> Finding {
    let (shown, word) = (file.path.display(), typed(&file.path));
    let why = format!("`{shown}` {}, and is passed over", broken(file));
    Finding::warning(
        TAKEN,
        why,
        format!("`nodeplug-cni validate {word}` shows the place; or mv {word} {word}.off"),
    )
}

fn broken(file: &File) -> String {
    file.network.broken.clone().unwrap_or_default()
}

/// Networks of others alone are taken.
fn others(taken: &[File], beside: &[File], runtime: &Runtime) -> Option<Finding> {
    let first = taken.first()?;
    let word = typed(&first.path);
    let Some(ours) = beside.iter().find(|file| file.is_ours(runtime)) else {
        let why = format!("{} takes {}, and no file names nodeplug-cni", runtime.who, first.shown());
        return Some(Finding::warning(
            TAKEN,
            why,
            "where pods are to be in a network of nodeplug-cni, write one",
        ));
    };
    let why = format!(
        "{} takes {}, which sorts before `{}`: pods are in that network",
        runtime.who,
        first.shown(),
        ours.network.file
    );
    Some(Finding::problem(TAKEN, why, format!("mv {word} {word}.off")))
}

/// What `validate` says of a file that is taken, and whether the runtime understands it.
fn judged(file: &File, runtime: &Runtime) -> Vec<Finding> {
    let report = validate(&file.text);
    let mut found: Vec<Finding> = too_new(file, runtime).into_iter().collect();
    let problem = told(file, &report.problems).map(|(why, remedy)| Finding::problem(TAKEN, why, remedy));
    let warning = told(file, &report.warnings).map(|(why, remedy)| Finding::warning(TAKEN, why, remedy));
    found.extend(problem.into_iter().chain(warning));
    if found.is_empty() {
        let (network, version) = (&file.network.name, Version::of_answer(&file.document));
        let why = format!("`{}` is taken: network `{network}`, cniVersion {version}", file.path.display());
        found.push(Finding::fine(TAKEN, why));
    }
    found
}

/// The first of them.
fn told(file: &File, problems: &[Problem]) -> Option<(String, String)> {
    let first = problems.first()?;
    let shown = file.path.display();
    let place = if first.at.is_empty() { String::new() } else { format!(": `{}`", first.at) };
    let more = if problems.len() == 1 { String::new() } else { format!(" ({} more)", problems.len() - 1) };
    let hint = first.hint.as_ref().map_or_else(String::new, |hint| format!("{hint}; "));
    let what = first.what.lines().next().unwrap_or_default();
    Some((
        format!("`{shown}`{place} {what}{more}"),
        format!("{hint}nodeplug-cni validate {}", typed(&file.path)),
    ))
}

/// A version that the runtime does not know keeps every pod from starting.
fn too_new(file: &File, runtime: &Runtime) -> Option<Finding> {
    let newest = newest(runtime).ok()??;
    let version = Version::of(&file.document).ok()?;
    (version > newest).then(|| {
        let (name, path) = (&runtime.who, file.path.display());
        let release = runtime.release.map_or_else(String::new, |release| format!(" {release}"));
        let why = format!("`{path}` is of cniVersion {version}, and {name}{release} knows {newest} at most");
        Finding::problem(TAKEN, why, format!("set `\"cniVersion\": \"{newest}\"` in {path}"))
    })
}

/// The programs that the runtime will look for.
fn missing_programs(file: &File, runtime: &Runtime) -> Vec<Finding> {
    let missing = file.programs().into_iter().filter(|name| name != OWN && found(runtime, name).is_none());
    let folders: Vec<String> =
        runtime.bin_dirs.iter().map(|folder| format!("`{}`", folder.display())).collect();
    let of = |name: String| {
        let why = format!("`{}` names `{name}`, which is not in {}", file.network.file, folders.join(" or "));
        let folder = runtime.bin_dirs.first().map_or_else(String::new, |folder| typed(folder));
        let remedy = if Role::named(&name).is_some() {
            format!("nodeplug-cni install --as-reference --only {name} {folder}")
        } else {
            format!("put the program into {folder}, or take the entry out")
        };
        Finding::problem(PLUGINS, why, remedy)
    };
    missing.map(of).collect()
}

/// What lies behind what is taken, and would be taken if that went. podman and CRI-O bring one for the loopback
/// alone, which is no network.
fn behind(taken: &[File], beside: &[File], runtime: &Runtime) -> Option<Finding> {
    let first = taken.iter().find(|file| file.is_ours(runtime))?;
    let rest: Vec<&File> = beside.iter().filter(|file| !file.is_loopback()).collect();
    if rest.is_empty() {
        return None;
    }
    let shown: Vec<String> = rest.iter().map(|file| file.shown()).collect();
    let why = format!(
        "beside `{}`: {}; no runtime of the kubelet reads that, podman may",
        first.network.file,
        shown.join(", ")
    );
    let away: Vec<String> = rest.iter().map(|f| format!("mv {0} {0}.off", typed(&f.path))).collect();
    let all_ours = rest.iter().all(|file| file.is_ours(runtime));
    let whose = if all_ours { "an older configuration" } else { "another network" };
    Some(Finding::warning(BESIDE, why, format!("where it is left of {whose}: {}", away.join("; "))))
}

/// The entries that are this program's, read as a call would read them.
fn configurations(file: &File, runtime: &Runtime) -> Vec<NetConf> {
    let network = Some(file.network.name.as_str());
    let mine = |entry: &&Value| match entry.get("type").and_then(Value::as_str) {
        Some(OWN) => true,
        Some(name) => found(runtime, name).is_some_and(|path| is_ours(&path)),
        None => false,
    };
    let read = |entry: &Value| {
        let role = role_of(entry)?;
        let composed = compose(&file.document, entry, network);
        Some(NetConf::read(role, &composed, "", Position::Either, &Asked::default(), &mut Vec::new()))
    };
    file.entries().into_iter().filter(mine).filter_map(read).collect()
}
