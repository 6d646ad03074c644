//! `mountOptions`: what a pod's author may tune, by an allow-list for each filesystem.
//!
//! Whatever is not on the list is refused by name, with the reason where there is a special one. There
//! are no quotes and no escapes: a comma always ends an option, so that none can be smuggled in another.

mod allowed;
mod refused;
mod shape;

use std::collections::BTreeSet;
use std::fmt;

use node::{Error, Kind, Result};

use super::{nearest, quoted};
pub use allowed::Fs;

/// More than this does not fit into the page that mount(2) hands to the kernel.
const MOST: usize = 4000;

/// What `mountOptions` said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Of the mount, whatever its filesystem.
    pub attributes: BTreeSet<Attr>,
    /// Of the filesystem, in their order, each at most once.
    pub options: Vec<MountOption>,
}

/// An option of the filesystem, as fsconfig(2) or a mount helper takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOption {
    /// `commit`.
    pub name: String,
    /// `30`; none for a flag.
    pub value: Option<String>,
}

/// An attribute of the mount (mount_setattr(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attr {
    /// `ro`.
    ReadOnly,
    /// `nosuid`.
    NoSuid,
    /// `nodev`.
    NoDev,
    /// `noexec`.
    NoExec,
    /// `noatime`; excludes the other two of access times.
    NoAtime,
    /// `relatime`.
    RelAtime,
    /// `strictatime`.
    StrictAtime,
    /// `nodiratime`.
    NoDirAtime,
    /// `nosymfollow`.
    NoSymFollow,
}

impl Attr {
    /// All, with the words that mount(8) has for them.
    pub const ALL: [(&'static str, Self); 9] = [
        ("ro", Self::ReadOnly),
        ("nosuid", Self::NoSuid),
        ("nodev", Self::NoDev),
        ("noexec", Self::NoExec),
        ("noatime", Self::NoAtime),
        ("relatime", Self::RelAtime),
        ("strictatime", Self::StrictAtime),
        ("nodiratime", Self::NoDirAtime),
        ("nosymfollow", Self::NoSymFollow),
    ];

    fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == word).map(|(_, attr)| *attr)
    }
}

/// Reads a comma-separated list for `fs`. The error is `Kind::Config`, holds every mistake, and never the
/// value of an option that is not on the list.
pub fn parse(fs: Fs, text: &str) -> Result<MountOptions> {
    check(fs, text).map_err(|why| Error::caused(Kind::Config, "read `mountOptions`", why))
}

/// The same with the plain reason, for a list of problems.
pub fn check(fs: Fs, text: &str) -> std::result::Result<MountOptions, String> {
    whole(text)?;
    let words: Vec<_> = text.split(',').map(|word| word.trim_matches(' ')).collect();
    // A password with a comma comes apart here: its second half must not be named as an unknown option.
    if let Some(name) = words.iter().map(|word| name_of(word)).find(|name| refused::is_credential(name)) {
        return Err(format!("{} is refused: {}", quoted(name), refused::CREDENTIAL));
    }
    let mut found = MountOptions::default();
    let mut problems = Vec::new();
    for word in words {
        if let Err(problem) = found.take(fs, word) {
            problems.push(problem);
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems.join("; ")) }
}

/// What makes the text unfit as a whole.
fn whole(text: &str) -> std::result::Result<(), String> {
    if text.len() > MOST {
        return Err(format!("is longer than {MOST} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("has a newline or another control character; write it on one line".to_owned());
    }
    if text.contains(['"', '\'', '`', '\\']) {
        return Err("has a quote or a backslash; write plain options, separated by commas".to_owned());
    }
    Ok(())
}

fn name_of(word: &str) -> &str {
    word.split_once('=').map_or(word, |(name, _)| name)
}

impl MountOptions {
    /// Adds one word.
    fn take(&mut self, fs: Fs, word: &str) -> std::result::Result<(), String> {
        if word.is_empty() {
            return Err("there is an empty option; leave out the comma".to_owned());
        }
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        if name.starts_with('-') {
            return Err(format!("{} starts with a dash; write the options alone", quoted(name)));
        }
        if let Some(attr) = Attr::of(name) {
            return self.attribute(attr, name, value);
        }
        let Some(shape) = fs.allowed().iter().find(|(known, _)| *known == name).map(|(_, shape)| shape)
        else {
            return Err(unknown(fs, name));
        };
        shape.check(value).map_err(|write| {
            let shown = value.map_or_else(|| "without a value".to_owned(), quoted);
            format!("{} cannot be {shown}; {write}", quoted(name))
        })?;
        if self.options.iter().any(|option| option.name == name) {
            return Err(format!("{} is there twice", quoted(name)));
        }
        self.options.push(MountOption { name: name.to_owned(), value: value.map(str::to_owned) });
        Ok(())
    }

    fn attribute(&mut self, attr: Attr, name: &str, value: Option<&str>) -> std::result::Result<(), String> {
        const TIMES: [Attr; 3] = [Attr::NoAtime, Attr::RelAtime, Attr::StrictAtime];
        if value.is_some() {
            return Err(format!("{} takes no value", quoted(name)));
        }
        if TIMES.contains(&attr) && TIMES.iter().any(|time| *time != attr && self.attributes.contains(time)) {
            return Err(format!("{} contradicts what is before it; write one of them", quoted(name)));
        }
        if self.attributes.insert(attr) { Ok(()) } else { Err(format!("{} is there twice", quoted(name))) }
    }
}

/// Why `name` is not for this filesystem, and what is.
fn unknown(fs: Fs, name: &str) -> String {
    if let Some(why) = refused::reason(fs, name) {
        return format!("{} is refused: {why}", quoted(name));
    }
    let attributes = Attr::ALL.iter().map(|(word, _)| *word);
    let all: Vec<_> = attributes.chain(fs.allowed().iter().map(|(word, _)| *word)).collect();
    let meant = nearest(name, all.iter().copied());
    match meant {
        Some(word) => format!("{} is not for {fs} volumes; did you mean `{word}`?", quoted(name)),
        None => format!("{} is not for {fs} volumes; allowed are {}", quoted(name), all.join(", ")),
    }
}

impl fmt::Display for MountOption {
    /// As a mount helper takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.value.as_ref().map_or(Ok(()), |value| write!(f, "={value}"))
    }
}

#[cfg(test)]
mod tests;
