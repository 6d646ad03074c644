//! Which boot this is. Kernel objects end with it, so state that names another boot is stale.

use std::path::Path;

use crate::{Error, Kind, Result, store};

/// The kernel's random id of this boot, 36 characters
/// (<https://docs.kernel.org/admin-guide/sysctl/kernel.html#random>).
pub fn id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let bytes = store::read(path)?
        .ok_or_else(|| Error::new(Kind::Io, format!("read `{}`", path.display())).hint("mount /proc"))?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
