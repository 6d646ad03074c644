//! Freed addresses rest before they are given again, so that connections to the old pod do not reach
//! the new one. A mark is an empty file named by the address; its time is when the rest began.
//!
//! The reference walks into this folder and compares every file's content with the owner that it
//! looks for: an empty one never matches.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use node::{Context, Kind, Result, store};

use super::lease::lease_path;

/// A day: whoever rests addresses for longer means something else.
pub(crate) const LONGEST: Duration = Duration::from_hours(24);

/// The marks of one network. The network's lock guards them.
#[derive(Debug)]
pub(crate) struct Cooling {
    /// `dataDir/NETWORK/.nodeplug/cooling`.
    pub(crate) folder: PathBuf,
    /// The time of this call.
    pub(crate) now: SystemTime,
    /// For how long an address rests; zero is not at all.
    pub(crate) period: Duration,
}

impl Cooling {
    /// Begins the rest of `address`.
    pub(crate) fn mark(&self, address: IpAddr) -> Result<()> {
        if self.period.is_zero() {
            return self.forget(address);
        }
        let path = lease_path(&self.folder, address);
        let put = || {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.set_modified(self.now)
        };
        let put = match put() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                store::make_folder(&self.folder)?;
                put()
            }
            other => other,
        };
        put.doing(Kind::Io, || format!("mark `{address}` as resting in `{}`", self.folder.display()))
    }

    /// Ends the rest of `address`.
    pub(crate) fn forget(&self, address: IpAddr) -> Result<()> {
        store::remove(&lease_path(&self.folder, address))
    }

    /// Since when `address` rests; `None` where it does not, or not any more.
    pub(crate) fn since(&self, address: IpAddr) -> Result<Option<SystemTime>> {
        if self.period.is_zero() {
            return Ok(None);
        }
        let path = lease_path(&self.folder, address);
        let began = match fs::metadata(&path).and_then(|m| m.modified()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.doing(Kind::Io, || format!("look at `{}`", path.display()))?,
        };
        // A mark from the future is of a clock that was set back: nobody knows its age.
        let rests = self.now.duration_since(began).is_ok_and(|age| age <= self.period);
        Ok(rests.then_some(began))
    }

    /// Every address with a mark, over or not.
    pub(crate) fn marked(&self) -> Result<HashSet<IpAddr>> {
        if self.period.is_zero() {
            return Ok(HashSet::new());
        }
        Ok(store::names(&self.folder)?.iter().filter_map(|n| n.parse().ok()).collect())
    }

    /// Removes every mark, of an earlier boot; or those that no configuration could still mean. A
    /// call without the configuration does not know the period.
    pub(crate) fn sweep(&self, every_one: bool) -> Result<()> {
        for name in store::names(&self.folder)? {
            let path = self.folder.join(&name);
            let age =
                fs::metadata(&path).and_then(|m| m.modified()).map(|began| self.now.duration_since(began));
            let over = matches!(age, Ok(Ok(age)) if age > LONGEST);
            if every_one || over {
                store::remove(&path)?;
            }
        }
        Ok(())
    }
}
