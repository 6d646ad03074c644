//! containerd's configuration: <https://github.com/containerd/containerd/blob/main/docs/cri/config.md>.
//!
//! Versions 1, 2 and 3 name the section in three ways. Up to 1.7 an imported file replaces the whole section of a
//! plugin; from 2.0 on it changes the keys that it has.

use std::path::{Path, PathBuf};

use node::{Context, Kind, Result, store};
use toml::{Table, Value};

use super::process::Process;
use super::version::{self, Release};
use super::{BIN, CONF, Program, Runtime, below, tidy};

const USUAL: &str = "/etc/containerd/config.toml";
/// Who else brings a containerd, and which file it reads.
const KNOWN: [(&str, &str); 5] = [
    ("containerd", USUAL),
    ("k3s's containerd", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
    ("rke2's containerd", "/var/lib/rancher/rke2/agent/etc/containerd/config.toml"),
    ("microk8s's containerd", "/var/snap/microk8s/current/args/containerd.toml"),
    ("k0s's containerd", "/etc/k0s/containerd.toml"),
];
const PROGRAMS: [&str; 2] = ["/usr/local/bin/containerd", "/usr/bin/containerd"];
/// The names of its part for the kubelet, the newest first.
const SECTIONS: [&str; 3] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri"];
/// The first release that merges imported sections and that reads configurations of version 3.
const MERGES: Release = Release(2, 0);
/// More files than anybody imports; an import that names its own folder ends here.
const MOST: usize = 64;

/// A file and what it holds.
type Part = (PathBuf, Table);

/// One that runs.
pub(super) fn running(root: &Path, process: &Process) -> Result<Runtime> {
    let file = process.flag(&["config", "c"]).unwrap_or_else(|| USUAL.to_owned());
    let release = version::of_package(root, &["containerd", "containerd.io"], process.exe.as_deref())?;
    let mut runtime = runtime(root, Path::new(&file), release)?;
    runtime.pid = Some(process.pid);
    runtime.exe.clone_from(&process.exe);
    Ok(runtime)
}

/// Those that would run.
pub(super) fn configured(root: &Path) -> Result<Vec<Runtime>> {
    let exe = PROGRAMS.iter().map(Path::new).find(|path| below(root, path).is_file());
    let mut found = Vec::new();
    for (_, file) in KNOWN {
        let usual = file == USUAL && exe.is_some();
        if !usual && !below(root, Path::new(file)).is_file() {
            continue;
        }
        let exe = exe.filter(|_| file == USUAL);
        let release = version::of_package(root, &["containerd", "containerd.io"], exe)?;
        let mut runtime = runtime(root, Path::new(file), release.filter(|_| exe.is_some()))?;
        runtime.exe = exe.map(Path::to_owned);
        found.push(runtime);
    }
    Ok(found)
}

fn runtime(root: &Path, file: &Path, release: Option<Release>) -> Result<Runtime> {
    let who = KNOWN.iter().find(|(_, known)| Path::new(known) == file).map_or("containerd", |(who, _)| who);
    let (parts, notes) = load(root, file)?;
    let tables: Vec<&Table> = parts.iter().map(|(_, table)| table).collect();
    let newest = tables.iter().map(|table| version_of(table)).max().unwrap_or(1);
    let release = release.or((newest >= 3).then_some(MERGES));
    let settings = read(&tables, release.is_some_and(|r| r >= MERGES));
    // The first one tells this runtime from others, also where it is not there.
    let mut files = vec![file.to_owned()];
    files.extend(parts.into_iter().map(|(path, _)| path).filter(|path| path != file));
    Ok(Runtime {
        program: Program::Containerd,
        who: who.to_owned(),
        pid: None,
        exe: None,
        files,
        serves: settings.serves,
        bin_dirs: settings.bin_dirs,
        conf_dir: settings.conf_dir,
        max_conf_num: settings.max_conf_num,
        default_network: None,
        own_loopback: settings.own_loopback,
        release,
        notes,
    })
}

/// What concerns pods' networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub serves: bool,
    pub bin_dirs: Vec<PathBuf>,
    pub conf_dir: PathBuf,
    pub max_conf_num: usize,
    pub own_loopback: bool,
}

/// Of a file and those that it imports, in their order.
pub(super) fn read(tables: &[&Table], merges: bool) -> Settings {
    let mut sections: Vec<&Table> = tables.iter().filter_map(|table| section(table)).collect();
    if !merges {
        sections = sections.pop().into_iter().collect();
    }
    let cni: Vec<&Table> = sections.iter().filter_map(|s| s.get("cni")?.as_table()).collect();
    let last = |key: &str| cni.iter().rev().find_map(|table| table.get(key));
    let text = |key: &str| last(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let several =
        last("bin_dirs").and_then(Value::as_array).map(|list| list.iter().filter_map(Value::as_str));
    let mut bin_dirs: Vec<PathBuf> = several.map(|dirs| dirs.map(tidy).collect()).unwrap_or_default();
    if bin_dirs.is_empty() {
        bin_dirs.push(tidy(text("bin_dir").unwrap_or(BIN)));
    }
    let number = last("max_conf_num").and_then(Value::as_integer);
    let disabled = tables.iter().filter_map(|table| table.get("disabled_plugins")?.as_array()).flatten();
    let disabled = disabled.filter_map(Value::as_str).any(|name| SECTIONS.contains(&name));
    Settings {
        serves: !disabled,
        bin_dirs,
        conf_dir: tidy(text("conf_dir").unwrap_or(CONF)),
        max_conf_num: number.map_or(1, |n| usize::try_from(n).unwrap_or(0)),
        own_loopback: last("use_internal_loopback").and_then(Value::as_bool).unwrap_or(false),
    }
}

fn section(table: &Table) -> Option<&Table> {
    let plugins = table.get("plugins")?.as_table()?;
    SECTIONS.iter().find_map(|name| plugins.get(*name)?.as_table())
}

fn version_of(table: &Table) -> i64 {
    table.get("version").and_then(Value::as_integer).unwrap_or(1)
}

/// The file and what it imports, each once; what cannot be read is a note.
fn load(root: &Path, file: &Path) -> Result<(Vec<Part>, Vec<String>)> {
    let (mut done, mut notes) = (Vec::<Part>::new(), Vec::new());
    let mut due = vec![file.to_owned()];
    let mut next = 0;
    while let Some(path) = due.get(next).cloned().filter(|_| next < MOST) {
        next += 1;
        let Some(bytes) = store::read(&below(root, &path))? else { continue };
        match String::from_utf8_lossy(&bytes).parse::<Table>() {
            Ok(table) => {
                for import in imports(root, &path, &table)? {
                    if !due.contains(&import) {
                        due.push(import);
                    }
                }
                done.push((path, table));
            }
            Err(error) => notes.push(format!("`{}` is no TOML: {}", path.display(), error.message())),
        }
    }
    Ok((done, notes))
}

/// The files that a file imports. Relative paths start at its folder.
fn imports(root: &Path, file: &Path, table: &Table) -> Result<Vec<PathBuf>> {
    let patterns = table.get("imports").and_then(Value::as_array).into_iter().flatten();
    let folder = file.parent().unwrap_or(Path::new("/"));
    let mut found = Vec::new();
    for pattern in patterns.filter_map(Value::as_str) {
        let pattern = folder.join(pattern);
        let above = glob::Pattern::escape(&root.to_string_lossy());
        let here = below(Path::new(&above), &pattern);
        let matches = glob::glob(&here.to_string_lossy()).doing(Kind::Config, || {
            format!("read the import `{}` of `{}`", pattern.display(), file.display())
        })?;
        found.extend(matches.flatten().filter_map(|path| node_path(root, &path)));
    }
    Ok(found)
}

/// What [`below`] made, taken back.
fn node_path(root: &Path, path: &Path) -> Option<PathBuf> {
    path.strip_prefix(root).ok().map(|rest| Path::new("/").join(rest))
}
