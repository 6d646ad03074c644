//! A lease on disk: a file named by its address that names its owner, as `host-local` writes it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use node::{Context, Kind, Result, store};

use crate::owner::Owner;

/// A lease on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// Who holds it; `None` where the file is empty or names nobody. The interface name is empty in a
    /// lease of an old host-local.
    pub owner: Option<Owner>,
    /// Since when.
    pub since: SystemTime,
}

/// Every lease of a folder by address, read without its lock: for people who only look.
pub fn list(folder: &Path) -> Result<Vec<Lease>> {
    let mut leases = Vec::new();
    for address in store::names(folder)?.iter().filter_map(|n| n.parse::<IpAddr>().ok()) {
        let path = lease_path(folder, address);
        let doing = || format!("look at `{}`", path.display());
        let metadata = match fs::metadata(&path) {
            // It was released while we were reading the names.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.doing(Kind::Io, doing)?,
        };
        if metadata.is_file() {
            let since = metadata.modified().doing(Kind::Io, doing)?;
            leases.push(Lease { address, owner: read_owner(&path)?, since });
        }
    }
    leases.sort_unstable_by_key(|l| l.address);
    Ok(leases)
}

/// Whether `holder`, as a lease names it, is `owner`. A lease of an old host-local names the
/// container alone.
pub(crate) fn holds(holder: &Owner, owner: &Owner) -> bool {
    let whole = holder.ifname.is_empty() && holder.container_id == owner.container_id;
    whole || holder == owner
}

pub(crate) fn read_owner(path: &Path) -> Result<Option<Owner>> {
    Ok(store::read(path)?.and_then(|content| parse_owner(&content)))
}

/// The owner that a lease names; `None` for an empty or garbled one. What passes here is also safe as
/// a file name of a record.
fn parse_owner(content: &[u8]) -> Option<Owner> {
    let text = std::str::from_utf8(content).ok()?.trim();
    let (id, ifname) = text.split_once('\n').unwrap_or((text, ""));
    let (id, ifname) = (id.trim(), ifname.trim());
    let wordy = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    let id_fits = id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.chars().all(wordy);
    let fits = id_fits && ifname.len() <= 15 && !ifname.contains(odd);
    fits.then(|| Owner { container_id: id.to_owned(), ifname: ifname.to_owned() })
}

pub(crate) fn there(path: &Path) -> Result<bool> {
    path.try_exists().doing(Kind::Io, || format!("look for `{}`", path.display()))
}

/// Writes a new file. What a killed process left under that name is unlinked and not truncated: it may
/// be a second name of a lease that is in use.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    let put = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o644).open(path)?;
        file.write_all(content)
    };
    let put = match put() {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            store::remove(path)?;
            put()
        }
        other => other,
    };
    put.doing(Kind::Io, || format!("write `{}`", path.display()))
}

/// The file of `address` in a folder of leases: the address as text, as the reference names it.
pub(crate) fn lease_path(folder: &Path, address: IpAddr) -> PathBuf {
    folder.join(address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_names_its_owner_or_nobody() {
        let table = [
            (&b"c1\r\neth0"[..], Some(("c1", "eth0"))),
            (b" c1\r\neth0\n", Some(("c1", "eth0"))),
            (b"c1", Some(("c1", ""))),
            (b"a_b.c-D\neth0", Some(("a_b.c-D", "eth0"))),
            (b"", None),
            (b"\0\0\0", None),
            (b"\xff", None),
            (b"../x\r\neth0", None),
            (b"c1\r\n../../x", None),
            (b"c1\r\neth0:1", None),
            (b"c1\r\nsixteen-bytes-if", None),
        ];
        for (content, expect) in table {
            let owner = |(id, ifname): (&str, &str)| Owner { container_id: id.into(), ifname: ifname.into() };
            assert_eq!(parse_owner(content), expect.map(owner), "{content:?}");
        }
    }
}
