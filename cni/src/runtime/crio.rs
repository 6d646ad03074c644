//! cri-o's configuration (crio.conf(5)): one file, then the drop-ins by name, then the arguments.

use std::path::{Path, PathBuf};

use node::{Result, store};
use toml::{Table, Value};

use super::process::Process;
use super::{BIN, CONF, Program, Runtime, below, tidy, version};

const FILE: &str = "/etc/crio/crio.conf";
const DROP_INS: &str = "/etc/crio/crio.conf.d";
const PROGRAMS: [&str; 2] = ["/usr/local/bin/crio", "/usr/bin/crio"];

/// One that runs.
pub(super) fn running(root: &Path, process: &Process) -> Result<Runtime> {
    let file = process.flag(&["config", "c"]).unwrap_or_else(|| FILE.to_owned());
    let folder = process.flag(&["config-dir", "d"]).unwrap_or_else(|| DROP_INS.to_owned());
    let mut runtime = runtime(root, Path::new(&file), Path::new(&folder), process.exe.as_deref())?;
    let told = process.flags(&["cni-plugin-dir"]);
    if !told.is_empty() {
        runtime.bin_dirs = told.iter().flat_map(|list| list.split(',')).map(tidy).collect();
    }
    if let Some(folder) = process.flag(&["cni-config-dir"]) {
        runtime.conf_dir = tidy(&folder);
    }
    runtime.default_network = process.flag(&["cni-default-network"]).or(runtime.default_network);
    runtime.pid = Some(process.pid);
    Ok(runtime)
}

/// One that would run.
pub(super) fn configured(root: &Path) -> Result<Option<Runtime>> {
    let exe = PROGRAMS.iter().map(Path::new).find(|path| below(root, path).is_file());
    if exe.is_none() && ![FILE, DROP_INS].iter().any(|path| below(root, Path::new(path)).exists()) {
        return Ok(None);
    }
    runtime(root, Path::new(FILE), Path::new(DROP_INS), exe).map(Some)
}

fn runtime(root: &Path, file: &Path, folder: &Path, exe: Option<&Path>) -> Result<Runtime> {
    let mut paths = vec![file.to_owned()];
    let mut names = store::names(&below(root, folder))?;
    names.sort();
    paths.extend(names.into_iter().map(|name| folder.join(name)));
    let (mut tables, mut files, mut notes) = (Vec::new(), vec![file.to_owned()], Vec::new());
    for path in paths {
        let Some(bytes) = store::read(&below(root, &path))? else { continue };
        match String::from_utf8_lossy(&bytes).parse::<Table>() {
            Ok(table) => tables.push(table),
            Err(error) => notes.push(format!("`{}` is no TOML: {}", path.display(), error.message())),
        }
        if path != file {
            files.push(path);
        }
    }
    let (bin_dirs, conf_dir, default_network) = read(&tables);
    Ok(Runtime {
        program: Program::Crio,
        who: "cri-o".to_owned(),
        pid: None,
        exe: exe.map(Path::to_owned),
        files,
        serves: true,
        bin_dirs,
        conf_dir,
        max_conf_num: 1,
        default_network,
        own_loopback: false,
        release: version::of_package(root, &["cri-o"], exe)?,
        notes,
    })
}

/// The folders of plugins, the folder of networks, and the network's name. What a later file says counts.
pub(super) fn read(tables: &[Table]) -> (Vec<PathBuf>, PathBuf, Option<String>) {
    let networks: Vec<&Table> =
        tables.iter().filter_map(|table| table.get("crio")?.get("network")?.as_table()).collect();
    let last = |key: &str| networks.iter().rev().find_map(|table| table.get(key));
    let text = |key: &str| last(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let several =
        last("plugin_dirs").and_then(Value::as_array).map(|list| list.iter().filter_map(Value::as_str));
    let mut dirs: Vec<PathBuf> =
        several.map_or_else(|| vec![PathBuf::from(BIN)], |list| list.map(tidy).collect());
    if let Some(old) = text("plugin_dir").map(tidy) {
        dirs.retain(|dir| *dir != old);
        dirs.insert(0, old);
    }
    if dirs.is_empty() {
        dirs.push(PathBuf::from(BIN));
    }
    (dirs, tidy(text("network_dir").unwrap_or(CONF)), text("cni_default_network").map(str::to_owned))
}
