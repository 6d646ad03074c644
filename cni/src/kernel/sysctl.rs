//! Kernel settings below `/proc/sys/net`, which shows the network namespace of the reading thread.

use std::fs;
use std::path::{Path, PathBuf};

use node::{Context, Kind, Result, store};

/// The file of a dotted-with-slashes name such as `net/ipv4/ip_forward`.
pub fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// The value; `None` where this kernel has no such setting.
pub fn get(name: &str) -> Result<Option<String>> {
    let value = store::read(&path(name))?;
    Ok(value.map(|v| String::from_utf8_lossy(&v).trim().to_owned()))
}

/// Sets `name` to `value`; a kernel without the setting has nothing to set.
pub fn set(name: &str, value: &str) -> Result<()> {
    match fs::write(path(name), value) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other
            .doing(Kind::Kernel, || format!("set `{name}` to {value}"))
            .map_err(|e| e.hint("/proc/sys must be writable where the plugin runs")),
    }
}
