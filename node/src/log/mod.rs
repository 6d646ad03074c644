//! One line an operation, so that a node says what happened without being asked: to a file that is rotated by
//! size, or to systemd's journal.
//!
//! The line is written when the caller has its answer, and nothing about it can fail the call: a log that is not to
//! be had is a line less. A file system that hangs holds the process up, when the answer is out.

mod check;
mod context;
mod file;
mod journal;
mod line;
pub mod trace;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use check::check;
pub use context::Context;
pub use line::{Line, cut};

/// Where logs lie that nobody named another place for. Made by whoever logs first.
pub const FOLDER: &str = "/var/log/nodeplug";

/// How large a file may become before it is rotated, where nobody says.
pub const MOST: u64 = 8 << 20;

/// The smallest such limit: below it, a line or two would fill the file.
pub const LEAST: u64 = 64 << 10;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Appended to this file; an absolute path.
    File(PathBuf),
    /// Handed to systemd's journal.
    Journal,
    /// Nowhere.
    Nowhere,
}

/// A log: its place, and how large a file may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Where lines go.
    pub place: Place,
    /// In bytes: a line that would make the file larger begins another one.
    pub most: u64,
}

impl Log {
    /// The file of `name` in the folder of this project's logs.
    pub fn usual(name: &str) -> Self {
        Self { place: Place::File(Path::new(FOLDER).join(name)), most: MOST }
    }

    /// No log.
    pub fn none() -> Self {
        Self { place: Place::Nowhere, most: MOST }
    }

    /// Whether a line goes anywhere.
    pub fn is_on(&self) -> bool {
        self.place != Place::Nowhere
    }

    /// Writes the line of `program`, where that can be done.
    pub fn append(&self, program: &str, line: &Line) {
        match &self.place {
            Place::File(path) => drop(file::append(path, self.most, &line.bytes())),
            Place::Journal => drop(journal::send(program, line)),
            Place::Nowhere => {}
        }
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "journal" => Ok(Self::Journal),
            "none" => Ok(Self::Nowhere),
            path if Path::new(path).is_absolute() && !path.ends_with('/') => Ok(Self::File(path.into())),
            _ => Err("not an absolute path, `journal` or `none`"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Journal => f.write_str("journal"),
            Self::Nowhere => f.write_str("none"),
        }
    }
}

/// The name of the file that `path` becomes when it is full.
pub fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_path_the_journal_or_none() {
        for text in ["/var/log/cni.log", "journal", "none"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in ["", "log", "./log", "Journal", "off", "/var/log/"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        assert_eq!(rotated(Path::new("/a/b.log")), Path::new("/a/b.log.1"));
    }
}
