//! What `install` and `uninstall` say.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::command::table;

/// What was done, name by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The folder of plugins.
    pub folder: PathBuf,
    /// Why this one.
    pub why: String,
    /// Nothing was changed; the outcomes are what would be.
    pub dry_run: bool,
    /// One for each name that was meant.
    pub names: Vec<Row>,
    /// The network's file, where one was meant.
    pub conflist: Option<Conflist>,
    /// What a person should know besides.
    pub notes: Vec<String>,
    /// Its folder is none that a shell looks into.
    pub off_path: bool,
}

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// As configurations call it.
    pub name: String,
    /// What was done.
    pub outcome: Outcome,
    /// Where the program is kept that had the name before.
    pub original: Option<PathBuf>,
}

/// The network's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflist {
    /// As this process reaches it.
    pub path: PathBuf,
    /// What was done.
    pub outcome: Outcome,
    /// The network's name.
    pub network: String,
    /// The pods' subnets.
    pub subnets: Vec<String>,
    /// Its cniVersion.
    pub version: &'static str,
    /// What it holds.
    pub text: String,
}

/// What was done to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing had it.
    Installed,
    /// Another program or file had it, which is kept.
    Replaced,
    /// Another version of this program had it, or a copy.
    Upgraded,
    /// It was this program's already.
    Unchanged,
    /// The original has it again.
    Restored,
    /// It was this program's and is nobody's now.
    Removed,
    /// Another program has it, and keeps it.
    Kept,
    /// Nothing had it, or what this program never replaced, and there is no original.
    Absent,
}

impl Outcome {
    /// As the report says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Replaced => "replaced",
            Self::Upgraded => "upgraded",
            Self::Unchanged => "unchanged",
            Self::Restored => "restored",
            Self::Removed => "removed",
            Self::Kept => "kept",
            Self::Absent => "absent",
        }
    }
}

impl Row {
    /// A row.
    pub fn new(name: &str, outcome: Outcome, original: Option<PathBuf>) -> Self {
        Self { name: name.to_owned(), outcome, original }
    }
}

impl Conflist {
    fn to_json(&self) -> Value {
        json!({
            "path": self.path.display().to_string(),
            "outcome": self.outcome.word(),
            "network": self.network,
            "subnets": self.subnets,
            "cniVersion": self.version,
        })
    }
}

impl Report {
    /// For programs: `{folder, why, dryRun, names: [{name, outcome, original}], conflist: {path, outcome, network,
    /// subnets, cniVersion} or null, notes: […]}`.
    pub fn to_json(&self) -> Value {
        let shown = |path: &PathBuf| path.display().to_string();
        let row = |row: &Row| {
            let original = row.original.as_ref().map(shown);
            json!({ "name": row.name, "outcome": row.outcome.word(), "original": original })
        };
        let names: Vec<Value> = self.names.iter().map(row).collect();
        json!({
            "folder": shown(&self.folder),
            "why": self.why,
            "dryRun": self.dry_run,
            "names": names,
            "conflist": self.conflist.as_ref().map(Conflist::to_json),
            "notes": self.notes,
        })
    }

    /// One line a name, the network, then the notes.
    pub fn to_table(&self) -> String {
        let original =
            |row: &Row| row.original.as_ref().map_or_else(|| "-".to_owned(), |p| p.display().to_string());
        let rows: Vec<Vec<String>> = self
            .names
            .iter()
            .map(|r| vec![r.name.clone(), r.outcome.word().to_owned(), original(r)])
            .collect();
        let mut text = table(&["NAME", "OUTCOME", "ORIGINAL"], &rows);
        if let Some(conflist) = &self.conflist {
            let Conflist { path, outcome, network, subnets, version, text: content } = conflist;
            let (path, outcome, subnets) = (path.display(), outcome.word(), subnets.join(" and "));
            // Writing to a string does not go wrong.
            let _ = writeln!(text, "network `{network}` of {subnets}, {version}: {outcome} as `{path}`");
            if self.dry_run {
                text.push_str(content);
            }
        }
        text.extend(self.notes.iter().map(|note| format!("note: {note}\n")));
        let why = if self.why.is_empty() { String::new() } else { format!(", {}", self.why) };
        let _ = writeln!(text, "in `{}`{why}", self.folder.display());
        if self.off_path {
            let folder = self.folder.display();
            let _ = writeln!(text, "to call it by its name: export PATH=$PATH:{folder}");
        }
        if self.dry_run {
            text.push_str("dry run: nothing was changed\n");
        }
        text
    }
}
