//! `repair`: puts back what nf_tables has to hold for every living pod.

use std::io::{IsTerminal, Write};

use node::Result;
use node::namespace::Namespace;
use serde_json::{Value, json};

use super::table;
use crate::apply::Hands;
use crate::state::State;
use crate::verb::repair::{self, Mended, Outcome};

/// What was found and done.
#[derive(Debug)]
pub struct Report {
    all: Vec<Mended>,
    dry_run: bool,
}

/// Mends every attachment; with `dry_run` only says what is missing.
pub fn run(dry_run: bool) -> Result<Report> {
    let state = State::open()?;
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    let mut seen = 0_usize;
    let shown = std::io::stderr().is_terminal();
    let all = repair::every(&state, &mut hands, !dry_run, |_| {
        seen += 1;
        if shown {
            // Where the terminal is gone, nobody waits for it.
            let _ = write!(std::io::stderr(), "\r{seen} attachments");
        }
    })?;
    if shown && seen > 0 {
        let _ = writeln!(std::io::stderr());
    }
    Ok(Report { all, dry_run })
}

impl Report {
    /// Whether every living pod has everything now.
    pub fn is_fine(&self) -> bool {
        self.all.iter().all(|m| match &m.outcome {
            Outcome::Whole | Outcome::Gone => true,
            Outcome::Missing(_) => !self.dry_run,
            Outcome::Failed(_) => false,
        })
    }

    /// `{attachments: [{containerID, ifname, pod, plugin, outcome, missing, error}], summary}`.
    pub fn to_json(&self) -> Value {
        let each = self.all.iter().map(|m| {
            let (missing, error) = match &m.outcome {
                Outcome::Missing(lines) => (lines.clone(), None),
                Outcome::Failed(error) => (Vec::new(), Some(error.chain())),
                Outcome::Whole | Outcome::Gone => (Vec::new(), None),
            };
            json!({
                "containerID": m.record.owner.container_id,
                "ifname": m.record.owner.ifname,
                "pod": m.record.pod,
                "plugin": m.record.chained,
                "outcome": self.word(&m.outcome),
                "missing": missing,
                "error": error,
            })
        });
        json!({ "attachments": each.collect::<Vec<_>>(), "summary": self.summary() })
    }

    /// One row for each attachment that was not whole, and a last line that sums up.
    pub fn to_table(&self) -> String {
        let told = self.all.iter().filter(|m| !matches!(m.outcome, Outcome::Whole));
        let rows: Vec<Vec<String>> = told
            .map(|m| {
                let what = match &m.outcome {
                    Outcome::Missing(lines) => lines.join("; "),
                    Outcome::Failed(error) => error.chain(),
                    Outcome::Gone => "DEL, GC or `ipam check --fix` removes what is left".to_owned(),
                    Outcome::Whole => String::new(),
                };
                let pod = m.record.pod.clone().unwrap_or_else(|| m.record.owner.to_string());
                vec![pod, self.word(&m.outcome).to_owned(), what]
            })
            .collect();
        let rows = if rows.is_empty() { String::new() } else { table(&["POD", "IS", "WHAT"], &rows) };
        format!("{rows}{}\n", self.summary())
    }

    fn word(&self, outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::Whole => "whole",
            Outcome::Missing(_) if self.dry_run => "damaged",
            Outcome::Missing(_) => "mended",
            Outcome::Gone => "gone",
            Outcome::Failed(_) => "failed",
        }
    }

    fn summary(&self) -> String {
        let count = |word: &str| self.all.iter().filter(|m| self.word(&m.outcome) == word).count();
        let parts = ["whole", "mended", "damaged", "gone", "failed"].map(|word| (count(word), word));
        let parts: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        if parts.is_empty() { "no attachment needs nf_tables".to_owned() } else { parts.join(", ") }
    }
}
