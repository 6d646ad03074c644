//! Kernel settings below `/proc/sys/net`, which shows the network namespace of the reading thread.

use std::fs;
use std::path::{Path, PathBuf};

use node::{Context, Error, Kind, Result, store};

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

/// Sets `name` to what it was. One that has the value, is gone, or takes it no more is as good as it gets:
/// trying again would not help.
pub fn restore(name: &str, value: &str) -> Result<()> {
    const FOR_EVER: [i32; 6] =
        [libc::ENOENT, libc::EACCES, libc::EPERM, libc::EROFS, libc::EINVAL, libc::ERANGE];
    if get(name).is_ok_and(|now| now.as_deref() == Some(value)) {
        return Ok(());
    }
    match fs::write(path(name), value) {
        Err(e) if e.raw_os_error().is_some_and(|code| FOR_EVER.contains(&code)) => Ok(()),
        other => other.doing(Kind::Kernel, || format!("set `{name}` to {value} again")),
    }
}

/// Sets `name` to a value that an operator asked for: a setting that is not there, or a value that the
/// kernel does not take, is theirs to mend.
pub fn demand(name: &str, value: &str) -> Result<()> {
    let Err(error) = fs::write(path(name), value) else { return Ok(()) };
    let doing = || format!("set `{name}` to `{value}`");
    match error.raw_os_error() {
        Some(libc::ENOENT) if !path(name).exists() => Err(not_there(name)),
        // Settings that name an algorithm answer ENOENT for one that the kernel lacks.
        Some(libc::EINVAL | libc::ERANGE | libc::ENOENT) => Err(Error::caused(Kind::Config, doing(), error)
            .hint("the kernel does not take this value: see its ip-sysctl document")),
        Some(libc::EACCES | libc::EPERM) => Err(Error::caused(Kind::Config, doing(), error)
            .hint("the setting cannot be written in a pod's namespace: take it out of `sysctl`")),
        _ => Err(error)
            .doing(Kind::Kernel, doing)
            .map_err(|e| e.hint("/proc/sys must be writable where the plugin runs")),
    }
}

/// The refusal of a setting that this namespace does not have.
pub fn not_there(name: &str) -> Box<Error> {
    let what = format!("set `{name}`, which does not exist in the pod's network namespace");
    Error::new(Kind::Config, what).hint(
        "correct its name in `sysctl`; a setting of the whole node belongs into the node's own sysctl.conf",
    )
}
