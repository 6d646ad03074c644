//! The `CNI_` variables, read with every complaint kept, so that one answer names them all.

use std::path::PathBuf;

use node::{Error, Kind, Result};

use crate::name;
use crate::owner::Owner;
use crate::request::{Args, Lookup};

/// The variables of a call and what is wrong with them.
pub(super) struct Environment<'a> {
    lookup: &'a Lookup<'a>,
    missing: Vec<&'static str>,
    wrong: Vec<String>,
}

impl<'a> Environment<'a> {
    pub(super) fn new(lookup: &'a Lookup<'a>) -> Self {
        Self { lookup, missing: Vec::new(), wrong: Vec::new() }
    }

    /// A variable that may be absent; an empty one is absent.
    pub(super) fn may(&mut self, name: &'static str) -> Option<String> {
        let value = (self.lookup)(name).filter(|v| !v.is_empty())?;
        let text = value.into_string().ok();
        if text.is_none() {
            self.complain(name, "is not UTF-8");
        }
        text
    }

    /// A variable that the verb requires.
    pub(super) fn need(&mut self, name: &'static str) -> String {
        let before = self.wrong.len();
        let value = self.may(name);
        if value.is_none() && self.wrong.len() == before {
            self.missing.push(name);
        }
        value.unwrap_or_default()
    }

    pub(super) fn owner(&mut self) -> Owner {
        let container_id = self.need("CNI_CONTAINERID");
        let ifname = self.need("CNI_IFNAME");
        self.judge("CNI_CONTAINERID", &container_id, name::identifier);
        self.judge("CNI_IFNAME", &ifname, name::interface);
        Owner { container_id, ifname }
    }

    pub(super) fn args(&mut self) -> Args {
        let text = self.may("CNI_ARGS").unwrap_or_default();
        let (args, complaints) = Args::read(&text);
        for complaint in complaints {
            self.complain("CNI_ARGS", &complaint);
        }
        args
    }

    pub(super) fn path(&mut self) -> Vec<PathBuf> {
        let text = self.may("CNI_PATH").unwrap_or_default();
        text.split(':').filter(|p| !p.is_empty()).map(PathBuf::from).collect()
    }

    pub(super) fn switch(&mut self, name: &'static str) -> bool {
        self.may(name).is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("true"))
    }

    pub(super) fn complain(&mut self, name: &str, what: &str) {
        self.wrong.push(format!("{name} {what}"));
    }

    /// Everything that is wrong so far, one line each, for a call that goes on all the same.
    pub(super) fn complaints(self) -> Vec<String> {
        let missing = self.missing.into_iter().map(|name| format!("{name} is missing"));
        missing.chain(self.wrong).collect()
    }

    /// `Ok` where nothing is wrong so far.
    pub(super) fn verdict(&self) -> Result<()> {
        let mut parts = Vec::new();
        match self.missing.as_slice() {
            [] => {}
            [one] => parts.push(format!("{one} is missing")),
            [first @ .., last] => parts.push(format!("{} and {last} are missing", first.join(", "))),
        }
        parts.extend(self.wrong.iter().cloned());
        if parts.is_empty() {
            return Ok(());
        }
        Err(Error::caused(Kind::Usage, "read the environment", parts.join("; "))
            .hint("a runtime sets these; to try the plugin by hand, see `nodeplug-cni --help`"))
    }

    fn judge(&mut self, name: &str, value: &str, rule: impl Fn(&str) -> Result<(), String>) {
        // An absent one is missing already.
        if value.is_empty() {
            return;
        }
        if let Err(why) = rule(value) {
            self.complain(name, &format!("{} {why}", name::shown(value)));
        }
    }
}
