//! The one error of the workspace, in four parts: who has to act, what was being done, why it went
//! wrong, and what to do now.

use std::error::Error as StdError;
use std::fmt;

/// Who has to act, and whether trying again helps. Each program renders it with one total `match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The caller's words are off: an environment variable or an argument.
    Usage,
    /// The protocol version is not spoken here.
    Version,
    /// The configuration names a field that is not supported.
    UnsupportedField,
    /// The container or its namespace is not there, and nothing was made.
    UnknownContainer,
    /// A file could not be read or written.
    Io,
    /// Bytes that should be JSON are not.
    Decode,
    /// The configuration contradicts itself or lacks something.
    Config,
    /// The path given is not a usable network namespace.
    Namespace,
    /// Nothing is free now; the same call may succeed later.
    TryAgain,
    /// The program cannot serve new requests.
    Unavailable,
    /// The kernel refused.
    Kernel,
    /// Somebody else already has it.
    Conflict,
    /// What was made is not there any more, or different.
    Mismatch,
    /// Another program was asked and gave this code.
    Delegate(u32),
    /// A mistake in this program.
    Internal,
}

/// The four parts. `Display` shows `doing` alone; [`Error::chain`] shows the causes, and whoever
/// prints does so once, at the edge.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    doing: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    hint: Option<String>,
}

/// Boxed, so that a `Result` stays as small as its value.
pub type Result<T, E = Box<Error>> = std::result::Result<T, E>;

impl Error {
    /// An error with no cause below it.
    pub fn new(kind: Kind, doing: impl Into<String>) -> Box<Self> {
        Box::new(Self { kind, doing: doing.into(), source: None, hint: None })
    }

    /// An error caused by `source`.
    pub fn caused(
        kind: Kind,
        doing: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Box<Self> {
        Box::new(Self { kind, doing: doing.into(), source: Some(source.into()), hint: None })
    }

    /// Adds what the reader can do now.
    #[must_use]
    pub fn hint(mut self: Box<Self>, hint: impl Into<String>) -> Box<Self> {
        self.hint = Some(hint.into());
        self
    }

    /// Who has to act.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What to do now: the outermost hint of the chain.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| self.below().and_then(Error::advice))
    }

    /// The causes without the first part: `why: because of: errno`.
    pub fn causes(&self) -> String {
        let mut text = String::new();
        let mut next: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(error) = next {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }

    /// The whole chain on one line: `doing: why: errno`.
    pub fn chain(&self) -> String {
        let causes = self.causes();
        if causes.is_empty() { self.doing.clone() } else { format!("{}: {causes}", self.doing) }
    }

    /// The errno at the bottom of the chain, where the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        let mut next: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return io.raw_os_error();
            }
            next = error.source();
        }
        None
    }

    fn below(&self) -> Option<&Error> {
        self.source.as_deref().and_then(|s| s.downcast_ref::<Box<Error>>()).map(AsRef::as_ref)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

/// Puts a kind and an attempt onto a foreign error. There is no `From` for foreign errors, so a bare
/// `?` on one does not compile and the context cannot be forgotten.
pub trait Context<T> {
    /// `doing` is the attempt in the present tense: "read `/proc/x`".
    fn doing(self, kind: Kind, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn doing(self, kind: Kind, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::caused(kind, doing(), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_every_cause_once_and_the_outermost_hint_wins() {
        let io = std::io::Error::from_raw_os_error(libc::EPERM);
        let inner = Error::caused(Kind::Kernel, "create veth `np1`", io).hint("run as root");
        let outer = Error::caused(Kind::Kernel, "attach the pod", inner);
        assert_eq!(outer.chain(), "attach the pod: create veth `np1`: Operation not permitted (os error 1)");
        assert_eq!(outer.advice(), Some("run as root"));
        assert_eq!(outer.errno(), Some(libc::EPERM));
        assert_eq!(outer.to_string(), "attach the pod");
    }
}
