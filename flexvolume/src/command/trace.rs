//! `trace`: what the log has of a pod's volumes, and which are there now.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use node::log::Place;
use node::log::trace::{self, Found, Wanted};
use node::{Error, Kind, Result, mountinfo};
use serde_json::{Value, json};

use crate::log::PROGRAM;
use crate::policy::Policy;
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
        let logs = if self.file.is_empty() {
            vec![Policy::load()?.log().place]
        } else {
            self.file.iter().cloned().map(Place::File).collect()
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
        Ok(Report { word: self.pod.clone(), found, now })
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

    /// `{lines, sources, now: [{pod, target, backend, source, mounted}]}`.
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
        self.found.to_json(&now.collect::<Vec<_>>())
    }

    /// The lines in the order of their time, and the volumes that are there now.
    pub fn to_table(&self) -> String {
        let mut out = self.found.to_text();
        if self.found.lines.is_empty() {
            out.push_str(&self.found.nothing(&self.word));
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
