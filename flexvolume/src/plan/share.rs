//! A share that the distribution's helper mounts.

use std::fmt;
use std::path::{Path, PathBuf};

/// Whose share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// By mount.nfs(8).
    Nfs,
    /// By mount.cifs(8).
    Cifs,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nfs => "nfs",
            Self::Cifs => "cifs",
        })
    }
}

/// One run of a helper, and what of its mount becomes the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Whose words the helper speaks.
    pub protocol: Protocol,
    /// The helper.
    pub helper: PathBuf,
    /// Its first argument: `192.0.2.1:/export`, `//server/share`.
    pub source: String,
    /// What it gets behind `-o`, in order. Public: no secret.
    pub options: Vec<String>,
    /// The lines of its credentials: the word that it knows, and the Secret's key with the value. They
    /// reach it in a memory file, whose name is added to the options.
    pub credentials: Vec<(&'static str, String)>,
    /// The folder of the share that becomes the volume, where it is not the share itself.
    pub folder: Option<SubFolder>,
}

/// A folder beneath the root of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubFolder {
    /// Relative to the share's root.
    pub path: PathBuf,
    /// How it is made where it is missing.
    pub create: Option<NewFolder>,
}

/// What a folder that is made gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFolder {
    /// Permissions.
    pub mode: u32,
    /// Owner and group, where they are not the server's choice.
    pub owner: Option<(u32, u32)>,
}

impl Share {
    /// The helper's arguments for the folder `point`: `SOURCE POINT -n -o OPTIONS`. `-n`, because mtab is
    /// not to have what nobody sees.
    pub fn arguments(&self, point: &Path, credentials: Option<&str>) -> Vec<String> {
        let file = credentials.map(|path| format!("credentials={path}"));
        let options: Vec<&str> = self.options.iter().map(String::as_str).chain(file.as_deref()).collect();
        let point = point.display().to_string();
        vec![self.source.clone(), point, "-n".to_owned(), "-o".to_owned(), options.join(",")]
    }
}

/// A Secret's value as a line of credentials: without the line end that an editor or `echo` puts behind
/// what was meant.
pub fn credential(value: &[u8]) -> &[u8] {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    value.strip_suffix(b"\r").unwrap_or(value)
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (helper, options) = (self.helper.display(), self.options.join(","));
        write!(f, "mount `{}` by `{helper}` with `{options}`", self.source)?;
        if !self.credentials.is_empty() {
            let keys: Vec<&str> = self.credentials.iter().map(|(_, key)| key.as_str()).collect();
            write!(f, " and {keys:?} of the Secret")?;
        }
        let Some(folder) = &self.folder else { return Ok(()) };
        write!(f, ", its folder `{}`", folder.path.display())?;
        let Some(new) = folder.create else { return Ok(()) };
        write!(f, ", made with mode {:04o} where it is missing", new.mode)?;
        new.owner.map_or(Ok(()), |(uid, gid)| write!(f, " for {uid}:{gid}"))
    }
}
