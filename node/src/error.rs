//! The one error of the workspace, in four parts: who has to act, what was being done, why it went
//! wrong, and what to do now.

use std::error::Error as StdError;
use std::fmt;

use serde_json::{Value, json};

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

impl Kind {
    /// Each kind but [`Kind::Delegate`], with the name that it has between processes.
    const NAMES: [(Kind, &'static str); 14] = [
        (Kind::Usage, "usage"),
        (Kind::Version, "version"),
        (Kind::UnsupportedField, "unsupported-field"),
        (Kind::UnknownContainer, "unknown-container"),
        (Kind::Io, "io"),
        (Kind::Decode, "decode"),
        (Kind::Config, "config"),
        (Kind::Namespace, "namespace"),
        (Kind::TryAgain, "try-again"),
        (Kind::Unavailable, "unavailable"),
        (Kind::Kernel, "kernel"),
        (Kind::Conflict, "conflict"),
        (Kind::Mismatch, "mismatch"),
        (Kind::Internal, "internal"),
    ];

    /// The kind's stable name: `try-again`, `delegate-11`.
    pub fn name(self) -> String {
        if let Kind::Delegate(code) = self {
            return format!("delegate-{code}");
        }
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("internal", |(_, name)| name).to_owned()
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        if let Some(code) = name.strip_prefix("delegate-") {
            return code.parse().ok().map(Kind::Delegate);
        }
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }
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

    /// The error as `step` met it: below the step's line, or with that line instead of its own where that says
    /// the same and more.
    #[must_use]
    pub fn in_step(mut self: Box<Self>, step: String) -> Box<Self> {
        if step.starts_with(&self.doing) {
            self.doing = step;
            return self;
        }
        Self::caused(self.kind, step, self)
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

    /// What a command says of it on stderr: a line for people with its hint, or an object for programs,
    /// `{"error": TEXT, "hint": TEXT}`, with `hint` only where there is one.
    pub fn complaint(&self, program: &str, as_json: bool) -> String {
        let unprivileged = matches!(self.errno(), Some(libc::EACCES | libc::EPERM)).then_some("run as root");
        let hint = self.advice().or(unprivileged);
        match (as_json, hint) {
            (true, Some(hint)) => format!("{}\n", json!({"error": self.chain(), "hint": hint})),
            (true, None) => format!("{}\n", json!({"error": self.chain()})),
            (false, Some(hint)) => format!("{program}: {}\nhint: {hint}\n", self.chain()),
            (false, None) => format!("{program}: {}\n", self.chain()),
        }
    }

    /// The errno at the bottom of the chain, where the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        let mut next: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return io.raw_os_error();
            }
            if let Some(errno) = error.downcast_ref::<nix::errno::Errno>() {
                return Some(*errno as i32);
            }
            if let Some(told) = error.downcast_ref::<Told>() {
                return told.errno;
            }
            next = error.source();
        }
        None
    }

    /// The error as bytes, for another process of the same program (see [`Error::decode`]).
    pub fn encode(&self) -> Vec<u8> {
        let parts = json!({
            "kind": self.kind.name(),
            "doing": self.doing,
            "causes": self.causes(),
            "errno": self.errno(),
            "hint": self.advice(),
        });
        parts.to_string().into_bytes()
    }

    /// The error that another process of the same program met, from its [`Error::encode`]: the same kind,
    /// chain, errno and advice.
    pub fn decode(bytes: &[u8]) -> Box<Self> {
        let Ok(parts) = serde_json::from_slice::<Value>(bytes) else {
            return Self::new(Kind::Internal, "read the error of another process");
        };
        let text = |key: &str| parts.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = Kind::named(&text("kind")).unwrap_or(Kind::Internal);
        let errno = parts.get("errno").and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
        let causes = text("causes");
        let error = if causes.is_empty() {
            Self::new(kind, text("doing"))
        } else {
            Self::caused(kind, text("doing"), Told { causes, errno })
        };
        match parts.get("hint").and_then(Value::as_str) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn below(&self) -> Option<&Error> {
        self.source.as_deref().and_then(|s| s.downcast_ref::<Box<Error>>()).map(AsRef::as_ref)
    }
}

/// The causes of an error that another process met.
#[derive(Debug)]
struct Told {
    causes: String,
    errno: Option<i32>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.causes)
    }
}

impl StdError for Told {}

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

    #[test]
    fn every_kind_has_one_name() {
        for (kind, name) in Kind::NAMES {
            assert_eq!((kind.name().as_str(), Kind::named(name)), (name, Some(kind)));
        }
        assert_eq!(Kind::named(&Kind::Delegate(11).name()), Some(Kind::Delegate(11)));
        assert_eq!(Kind::named("other"), None);
    }

    #[test]
    fn an_error_is_the_same_in_another_process() {
        let io = std::io::Error::from_raw_os_error(libc::ENODEV);
        let inner = Error::caused(Kind::Kernel, "mount `nfs`", io).hint("load the module");
        for error in [
            Error::caused(Kind::TryAgain, "make the volume", inner),
            Error::caused(Kind::Kernel, "make the volume", nix::errno::Errno::ENODEV),
            Error::new(Kind::Config, "read `a\nb\"`"),
        ] {
            let told = Error::decode(&error.encode());
            assert_eq!(told.kind(), error.kind());
            assert_eq!(told.chain(), error.chain());
            assert_eq!(told.errno(), error.errno());
            assert_eq!(told.advice(), error.advice());
        }
        assert_eq!(Error::decode(b"{").kind(), Kind::Internal);
    }

    #[test]
    fn a_complaint_is_a_line_for_people_or_an_object_for_programs() {
        let error = Error::caused(Kind::Io, "read `x`", "no \"x\"").hint("write it");
        assert_eq!(error.complaint("np", false), format!("np: {}\nhint: write it\n", error.chain()));
        let json: Value = serde_json::from_str(&error.complaint("np", true)).unwrap();
        assert_eq!(json, json!({"error": "read `x`: no \"x\"", "hint": "write it"}));
        let denied = Error::caused(Kind::Io, "read it", std::io::Error::from_raw_os_error(libc::EPERM));
        assert!(denied.complaint("np", true).contains("run as root"));
        let plain = Error::new(Kind::Io, "read it");
        assert_eq!(plain.complaint("np", false), "np: read it\n");
        assert_eq!(plain.complaint("np", true), "{\"error\":\"read it\"}\n");
    }

    #[test]
    fn a_step_that_says_the_same_and_more_says_it_alone() {
        let of = |doing: &str| Error::caused(Kind::Kernel, doing, "no").hint("wait");
        let step = "make a `tmpfs` with `size=1`";
        for (doing, expect) in [
            ("make a `tmpfs`", "make a `tmpfs` with `size=1`: no"),
            (step, "make a `tmpfs` with `size=1`: no"),
            ("open it", "make a `tmpfs` with `size=1`: open it: no"),
        ] {
            let error = of(doing).in_step(step.to_owned());
            assert_eq!(
                (error.chain().as_str(), error.kind(), error.advice()),
                (expect, Kind::Kernel, Some("wait"))
            );
        }
    }
}
