//! cri-dockerd, which has arguments alone.

use std::path::Path;

use node::Result;

use super::process::Process;
use super::{BIN, CONF, Program, Runtime, tidy, version};

/// One that runs.
pub(super) fn running(root: &Path, process: &Process) -> Result<Runtime> {
    let dirs = process.flag(&["cni-bin-dir"]).unwrap_or_else(|| BIN.to_owned());
    Ok(Runtime {
        program: Program::CriDockerd,
        who: "cri-dockerd".to_owned(),
        pid: Some(process.pid),
        exe: process.exe.clone(),
        files: Vec::new(),
        serves: true,
        bin_dirs: dirs.split(',').map(tidy).collect(),
        conf_dir: tidy(&process.flag(&["cni-conf-dir"]).unwrap_or_else(|| CONF.to_owned())),
        max_conf_num: 1,
        default_network: None,
        own_loopback: false,
        release: version::of_package(root, &["cri-dockerd"], process.exe.as_deref())?,
        notes: Vec::new(),
    })
}
