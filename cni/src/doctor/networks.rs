//! The network configurations in the runtime's folder: which one it takes, what is wrong with it, and what lies beside
//! it.

use std::fs;
use std::path::{Path, PathBuf};

use node::finding::Finding;
use node::store;
use serde_json::Value;

use super::plugins::is_ours;
use super::runtime::Runtime;
use super::{listed, unread};
use crate::command::validate::{compose, role_of, validate};
use crate::config::wanted::Asked;
use crate::config::{NetConf, Position};
use crate::role::{OWN, Role};
use crate::version::Version;

const FOLDER: &str = "configuration folder";
const TAKEN: &str = "configuration";
const BESIDE: &str = "other configurations";
const HIDDEN: &str = "half-written files";
const PLUGINS: &str = "plugins it names";

/// What a runtime takes for a configuration (libcni's `ConfFiles`), hidden ones too.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

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
    name: String,
    path: PathBuf,
    text: String,
    /// None where it is no JSON.
    document: Option<Value>,
}

impl File {
    fn read(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let document = serde_json::from_str(&text).ok();
        Self { name: name.to_owned(), path, text, document }
    }

    fn entries(&self) -> Vec<&Value> {
        let Some(document) = &self.document else { return Vec::new() };
        match document.get("plugins").and_then(Value::as_array) {
            Some(plugins) => plugins.iter().collect(),
            None => vec![document],
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
        self.programs().iter().any(|name| name == OWN || is_ours(&found(runtime, name).unwrap_or_default()))
    }

    fn shown(&self) -> String {
        let plugins = self.programs();
        let plugins = if plugins.is_empty() { "no JSON".to_owned() } else { plugins.join(", ") };
        format!("`{}` ({plugins})", self.name)
    }
}

/// What gives addresses without another program, where this program asks.
fn in_process(name: &str) -> bool {
    name == OWN || Role::named(name).is_some()
}

/// Where the runtime finds a program.
fn found(runtime: &Runtime, name: &str) -> Option<PathBuf> {
    runtime.plugins.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Looks at the folder.
pub(super) fn read(runtime: &Runtime) -> Networks {
    let folder = &runtime.networks;
    let mut all = Networks::default();
    let mut names = match store::names(folder) {
        Ok(names) => names,
        Err(error) => {
            all.findings.push(unread(FOLDER, &error));
            return all;
        }
    };
    names.sort();
    let (taken, others): (Vec<_>, Vec<_>) = names.iter().partition(|name| is_taken(name));
    all.findings.extend(hidden(folder, &others, &taken));
    let files: Vec<File> = taken.into_iter().map(|name| File::read(folder, name)).collect();
    let Some((first, rest)) = files.split_first() else {
        let why = format!("`{}` has no network configuration: the node stays NotReady", folder.display());
        let remedy = format!(
            "write one, such as README.md has it, as {0}/.10-pods.new, look at it by `nodeplug-cni validate`, and \
             rename it to {0}/10-pods.conflist",
            folder.display()
        );
        all.findings.push(Finding::problem(FOLDER, why, remedy));
        return all;
    };
    all.findings.extend(picked(first, rest, runtime));
    all.findings.extend(missing_programs(first, runtime));
    all.findings.extend(beside(first, rest, runtime));
    all.configurations = configurations(first, runtime);
    all
}

fn is_taken(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    // `.conf` alone is a hidden file without an ending here, and is `.conf` in Go.
    ending.is_some_and(|ending| ENDINGS.contains(&ending)) || ENDINGS.iter().any(|e| *name == format!(".{e}"))
}

/// Files that somebody began to write. A hidden one with a configuration's ending is taken, and sorts first.
fn hidden(folder: &Path, others: &[&String], taken: &[&String]) -> Vec<Finding> {
    let mut found = Vec::new();
    for name in taken.iter().filter(|name| name.starts_with('.')) {
        let path = folder.join(name);
        let why = format!("`{}` is hidden and taken all the same, before every other one", path.display());
        found.push(Finding::problem(HIDDEN, why, format!("rm {}", path.display())));
    }
    let left: Vec<String> = others
        .iter()
        .filter(|n| n.starts_with('.') && n.strip_suffix(".new").is_some())
        .map(|n| (*n).clone())
        .collect();
    if !left.is_empty() {
        let paths: Vec<String> = left.iter().map(|n| folder.join(n).display().to_string()).collect();
        let why = format!("{} was begun and not renamed: nobody reads it", listed(&left));
        found.push(Finding::warning(HIDDEN, why, format!("rm {}", paths.join(" "))));
    }
    found
}

/// The one that the runtime takes.
fn picked(first: &File, rest: &[File], runtime: &Runtime) -> Vec<Finding> {
    let shown = first.path.display();
    if first.document.is_none() {
        let why = validate(&first.text)
            .problems
            .first()
            .map_or_else(String::new, |p| p.what.lines().next().unwrap_or_default().to_owned());
        let why = format!("the runtime takes `{shown}` first, which {why}: no pod gets a network");
        return vec![Finding::problem(TAKEN, why, mend(first, rest, runtime))];
    }
    if !first.is_ours(runtime) {
        let Some(ours) = rest.iter().find(|file| file.is_ours(runtime)) else {
            let why = format!("the runtime takes {}, and no file names nodeplug-cni", first.shown());
            return vec![Finding::warning(TAKEN, why, "write a network of nodeplug-cni: see cni/README.md")];
        };
        let why = format!(
            "the runtime takes {}, which sorts before `{}`: pods are in that network",
            first.shown(),
            ours.name
        );
        return vec![Finding::problem(TAKEN, why, format!("mv {shown} {shown}.off"))];
    }
    let mut found = judged(first);
    found.extend(too_new(first, runtime));
    if found.is_empty() {
        let report = validate(&first.text);
        let network = report.network.unwrap_or_default();
        let version = first.document.as_ref().map_or(Version::DEFAULT, Version::of_answer);
        let why = format!("`{shown}` is taken: network `{network}`, cniVersion {version}");
        found.push(Finding::fine(TAKEN, why));
    }
    found
}

/// What is to be done about a file that nobody can read.
fn mend(first: &File, rest: &[File], runtime: &Runtime) -> String {
    let shown = first.path.display();
    match rest.iter().find(|file| file.is_ours(runtime)) {
        Some(ours) => format!("mv {shown} {shown}.off: then `{}` is taken", ours.name),
        None => format!("`nodeplug-cni validate {shown}` shows the place"),
    }
}

/// What `validate` says.
fn judged(file: &File) -> Vec<Finding> {
    let report = validate(&file.text);
    let shown = file.path.display();
    let see = format!("nodeplug-cni validate {shown}");
    let place = |at: &str| if at.is_empty() { String::new() } else { format!(": `{at}`") };
    let told = |problems: &[crate::config::reader::Problem]| {
        let first = problems.first()?;
        let more = match problems.len() {
            1 => String::new(),
            n => format!(" ({} more)", n - 1),
        };
        let hint = first.hint.as_ref().map_or_else(String::new, |hint| format!("{hint}; "));
        let what = first.what.lines().next().unwrap_or_default();
        Some((format!("`{shown}`{} {what}{more}", place(&first.at)), format!("{hint}{see}")))
    };
    let problems = told(&report.problems).map(|(why, remedy)| Finding::problem(TAKEN, why, remedy));
    let warnings = told(&report.warnings).map(|(why, remedy)| Finding::warning(TAKEN, why, remedy));
    problems.into_iter().chain(warnings).collect()
}

/// A version that the runtime does not know keeps every pod from starting.
fn too_new(file: &File, runtime: &Runtime) -> Option<Finding> {
    let version = Version::of(file.document.as_ref()?).ok()?;
    (version > runtime.newest).then(|| {
        let name = runtime.name.as_deref().unwrap_or("the runtime");
        let why = format!(
            "`{}` is of cniVersion {version}, and {name} knows {} at most",
            file.name, runtime.newest
        );
        let remedy = format!("set `\"cniVersion\": \"{}\"` in {}", runtime.newest, file.path.display());
        Finding::problem(TAKEN, why, remedy)
    })
}

/// The programs that the runtime will look for.
fn missing_programs(file: &File, runtime: &Runtime) -> Vec<Finding> {
    let missing = file.programs().into_iter().filter(|name| name != OWN && found(runtime, name).is_none());
    let folders: Vec<String> =
        runtime.plugins.iter().map(|folder| format!("`{}`", folder.display())).collect();
    let of = |name: String| {
        let why = format!("`{}` names `{name}`, which is not in {}", file.name, folders.join(" or "));
        let folder = runtime.plugins.first().map_or_else(String::new, |folder| folder.display().to_string());
        let remedy = if Role::named(&name).is_some() {
            format!("nodeplug-cni install --as-reference --only {name} {folder}")
        } else {
            format!("put the program into {folder}, or take the entry out")
        };
        Finding::problem(PLUGINS, why, remedy)
    };
    missing.map(of).collect()
}

/// What lies behind the one that is taken, and would be taken if that went.
fn beside(first: &File, rest: &[File], runtime: &Runtime) -> Vec<Finding> {
    if rest.is_empty() || !first.is_ours(runtime) {
        return Vec::new();
    }
    let shown: Vec<String> = rest.iter().map(File::shown).collect();
    let why = format!("behind `{}`: {}; nobody reads them while it is there", first.name, shown.join(", "));
    let paths: Vec<String> = rest.iter().map(|f| f.path.display().to_string()).collect();
    let remedy = format!("where that network is gone from the node: rm {}", paths.join(" "));
    vec![Finding::warning(BESIDE, why, remedy)]
}

/// The entries that are this program's, read as a call would read them.
fn configurations(file: &File, runtime: &Runtime) -> Vec<NetConf> {
    let Some(document) = &file.document else { return Vec::new() };
    let network = document.get("name").and_then(Value::as_str);
    let mine = |entry: &&Value| match entry.get("type").and_then(Value::as_str) {
        Some(OWN) => true,
        Some(name) => found(runtime, name).is_some_and(|path| is_ours(&path)),
        None => false,
    };
    let read = |entry: &Value| {
        let role = role_of(entry)?;
        let composed = compose(document, entry, network);
        Some(NetConf::read(role, &composed, "", Position::Either, &Asked::default(), &mut Vec::new()))
    };
    file.entries().into_iter().filter(mine).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_takes_what_libcni_takes() {
        for (name, taken) in [
            ("10-a.conflist", true),
            ("10-a.conf", true),
            ("10-a.json", true),
            (".10-a.conflist", true),
            (".conf", true),
            (".10-a.new", false),
            ("10-a.conflist.off", false),
            ("README", false),
        ] {
            assert_eq!(is_taken(name), taken, "{name}");
        }
    }
}
