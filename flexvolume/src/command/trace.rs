//! `trace`: what the log has of a pod's volumes, and which are there now.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use node::log::trace::{self, Found, Wanted};
use node::log::{self, Place};
use node::{Error, Kind, Result, mountinfo};
use serde_json::{Value, json};

use crate::log::PROGRAM;
use crate::policy::{LOG, Policy};
use crate::record::Record;
use crate::target::Target;

/// What to look for, and where.
#[derive(Debug, Clone, Args)]
pub struct Trace {
    /// `namespace/name`, name or uid of the pod, a volume's name or its folder.
    pod: String,
    /// Read this log, and not the one that the policy names. May be given several times.
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Only what is not older, such as `10m`, `2h` or `3days`.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    word: String,
    found: Found,
    /// Why the policy can't be read, which names the log.
    policy: Option<String>,
    /// The records, and whether each one's volume is mounted.
    now: Vec<(Record, bool)>,
}

impl Trace {
    /// Reads the log and looks at what is there.
    pub fn run(&self) -> Result<Report> {
        if self.pod.trim().is_empty() {
            return Err(Error::new(Kind::Usage, "trace a pod without a name").hint("give `namespace/name`"));
        }
        let since = self.since.and_then(|ago| SystemTime::now().checked_sub(ago));
        let (logs, policy) = if self.file.is_empty() {
            places(Policy::load(), &Path::new(log::FOLDER).join(LOG))
        } else {
            (self.file.iter().cloned().map(Place::File).collect(), None)
        };
        let wanted = Wanted { word: self.pod.clone(), since };
        let found = trace::find(&logs, PROGRAM, &wanted);
        let mounts = mountinfo::read()?;
        let mut now = Vec::new();
        for (_, record) in Record::all()? {
            if is_meant(&record, &self.pod, &found) {
                let point = record.point();
                let mounted = mounts.iter().any(|mount| mount.point == point);
                now.push((record, mounted));
            }
        }
        Ok(Report { word: self.pod.clone(), found, policy, now })
    }
}

/// The logs: the one that the policy names, and the `usual` one where it is there as well: calls that failed over a
/// broken policy are in that. Of a policy that is broken now it is said why.
fn places(policy: Result<Policy>, usual: &Path) -> (Vec<Place>, Option<String>) {
    let own = Place::File(usual.to_owned());
    match policy {
        Ok(policy) => {
            let named = policy.log().place;
            let is_there = [usual, &log::rotated(usual)].iter().any(|path| path.symlink_metadata().is_ok());
            let more = (is_there && own != named).then_some(own);
            (std::iter::once(named).chain(more).collect(), None)
        }
        Err(error) => (vec![own], Some(error.chain())),
    }
}

/// Whether the record is of the volume or pod that is called `word`, or of one that the lines name.
fn is_meant(record: &Record, word: &str, found: &Found) -> bool {
    let target = record.target.to_string_lossy();
    let named = found.lines.iter().any(|line| line.get("target").and_then(Value::as_str) == Some(&target));
    let parts = Target::parse(&record.target, &record.root).ok();
    let uid = parts.as_ref().is_some_and(|t| t.uid() == word || t.volume() == word);
    named
        || uid
        || target == word
        || record.pod == word
        || format!("{}/{}", record.namespace, record.pod) == word
}

impl Report {
    /// Whether anything was found.
    pub fn is_fine(&self) -> bool {
        !self.found.lines.is_empty() || !self.now.is_empty()
    }

    /// `{lines, sources, now: [{pod, target, backend, source, mounted}]}`, and `policyError` where it can't be read.
    pub fn to_json(&self) -> Value {
        let now = self.now.iter().map(|(record, mounted)| {
            json!({
                "pod": format!("{}/{}", record.namespace, record.pod),
                "target": record.target,
                "backend": record.backend,
                "source": record.source,
                "mounted": mounted,
            })
        });
        let mut all = self.found.to_json(&now.collect::<Vec<_>>());
        if let (Some(why), Some(fields)) = (&self.policy, all.as_object_mut()) {
            fields.insert("policyError".to_owned(), why.as_str().into());
        }
        all
    }

    /// The lines in the order of their time, and the volumes that are there now.
    pub fn to_table(&self) -> String {
        let mut out = self.found.to_text();
        if self.found.lines.is_empty() {
            out.push_str(&self.found.nothing(&self.word));
        }
        if let Some(why) = &self.policy {
            // Writing to a String cannot fail.
            let _ =
                writeln!(out, "note: no pod gets a volume: {why}; `nodeplug-flexvolume doctor` says more");
        }
        for (record, mounted) in &self.now {
            let how = if *mounted { "mounted" } else { "remembered and NOT mounted" };
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "now: {}/{} has {} at {}: {how}",
                record.namespace,
                record.pod,
                record.backend,
                record.target.display()
            );
        }
        if self.now.is_empty() {
            out.push_str("now: no volume of it is there\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_broken_policy_keeps_nobody_from_the_log_of_calls_that_fail_over_it() {
        let usual = std::env::temp_dir().join(format!("nodeplug-volume-trace-{}.log", std::process::id()));
        let own = Place::File(usual.clone());
        let (logs, why) = places(Policy::parse("logFile: 7: 8"), &usual);
        assert_eq!(logs, std::slice::from_ref(&own));
        assert!(why.is_some_and(|why| !why.is_empty()));
        let elsewhere = || Policy::parse("logFile: /elsewhere/x.log");
        let named = Place::File("/elsewhere/x.log".into());
        assert_eq!(places(elsewhere(), &usual), (vec![named.clone()], None));
        fs::write(&usual, "").unwrap();
        let both = places(elsewhere(), &usual);
        fs::remove_file(&usual).unwrap();
        assert_eq!(both, (vec![named, own], None));
    }
}
