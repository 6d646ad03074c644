//! Which release a runtime is.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use node::{Context, Kind, Result};

use super::{Runtime, below};
use crate::command::bounded;

const PACKAGES: &str = "/var/lib/dpkg/status";
/// Where packages put programs.
const PACKAGED: &str = "/usr/bin";
/// It prints a line and ends.
const DEADLINE: Duration = Duration::from_secs(5);

/// The first two numbers of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32);

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Release {
    /// The release in a word such as `v1.7.24`, `2.0.5-k3s2` or `1.6.20~ds1-1+b1`.
    pub fn read(word: &str) -> Option<Self> {
        let word = word.strip_prefix('v').unwrap_or(word);
        let mut numbers = word.split('.').map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part.get(..end).and_then(|digits| digits.parse().ok())
        });
        Some(Self(numbers.next()??, numbers.next()??))
    }
}

/// As dpkg knows it, for a program where packages put it.
pub(super) fn of_package(root: &Path, packages: &[&str], exe: Option<&Path>) -> Result<Option<Release>> {
    if exe.and_then(Path::parent) != Some(Path::new(PACKAGED)) {
        return Ok(None);
    }
    // Larger than any state file of ours.
    let text = match std::fs::read(below(root, Path::new(PACKAGES))) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.doing(Kind::Io, || format!("read `{PACKAGES}`"))?,
    };
    Ok(packaged(&String::from_utf8_lossy(&text), packages))
}

/// In dpkg's list: blocks of `Key: value` lines with empty ones between.
fn packaged(status: &str, packages: &[&str]) -> Option<Release> {
    status.split("\n\n").find_map(|block| {
        let value = |key: &str| {
            let line = block.lines().find(|line| line.starts_with(key))?;
            line.get(key.len()..).map(str::trim)
        };
        let installed = value("Status:").is_some_and(|status| status.ends_with(" installed"));
        let named = value("Package:").is_some_and(|name| packages.contains(&name));
        let version = value("Version:").filter(|_| installed && named)?;
        Release::read(version.split_once(':').map_or(version, |(_, rest)| rest))
    })
}

/// Asks the runtime's own program by `--version`: only on the running node itself, and only where nobody but root
/// may write the program. `None` where it does not say.
pub fn ask(runtime: &Runtime) -> Option<Release> {
    let exe = runtime.exe.as_deref()?;
    let about = std::fs::metadata(exe).ok()?;
    if about.uid() != 0 || about.mode() & 0o022 != 0 {
        return None;
    }
    let output = bounded::output(Command::new(exe).arg("--version").env_clear(), b"", DEADLINE).ok()?;
    said(&String::from_utf8_lossy(&output.stdout))
}

/// The first word that is a release: `containerd github.com/containerd/containerd v1.7.24 88bf19b`.
fn said(text: &str) -> Option<Release> {
    let is_number = |word: &str| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
    text.split_whitespace().filter(|word| is_number(word)).find_map(Release::read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_from_what_programs_and_packages_say() {
        let table = [
            (
                "containerd github.com/containerd/containerd v1.7.24 88bf19b2105c8b17560993bee28a01ddc2f97182",
                (1, 7),
            ),
            ("containerd github.com/containerd/containerd/v2 v2.0.5-k3s2 ", (2, 0)),
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1", (1, 6)),
            ("crio version 1.30.4\nVersion:        1.30.4\n", (1, 30)),
        ];
        for (text, (major, minor)) in table {
            assert_eq!(said(text), Some(Release(major, minor)), "{text}");
        }
        assert_eq!(said("unknown flag"), None);
        let status = "Package: runc\nStatus: install ok installed\nVersion: 1.1\n\nPackage: containerd\nStatus: install ok installed\nVersion: 1:1.6.20~ds1-1+b1\n\n";
        assert_eq!(packaged(status, &["containerd"]), Some(Release(1, 6)));
        assert_eq!(packaged(status, &["cri-o"]), None);
        let removed = status.replace("ok installed", "ok config-files");
        assert_eq!(packaged(&removed, &["containerd"]), None);
    }
}
