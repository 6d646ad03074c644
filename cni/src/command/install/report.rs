//! What `install` and `uninstall` say.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::command::table;

/// What was done, name by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The folder of plugins.
    pub folder: PathBuf,
    /// One for each name that was meant.
    pub names: Vec<Row>,
    /// What a person should know besides.
    pub notes: Vec<String>,
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

/// What was done to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing had it.
    Installed,
    /// Another program had it, which is kept.
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
    /// Nothing had it, and there is no original.
    Absent,
}

impl Outcome {
    fn word(self) -> &'static str {
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

impl Report {
    /// For programs: `{folder, names: [{name, outcome, original}], notes: […]}`.
    pub fn to_json(&self) -> Value {
        let shown = |path: &PathBuf| path.display().to_string();
        let row = |row: &Row| {
            let original = row.original.as_ref().map(shown);
            json!({ "name": row.name, "outcome": row.outcome.word(), "original": original })
        };
        let names: Vec<Value> = self.names.iter().map(row).collect();
        json!({ "folder": shown(&self.folder), "names": names, "notes": self.notes })
    }

    /// One line a name, then the notes.
    pub fn to_table(&self) -> String {
        let original =
            |row: &Row| row.original.as_ref().map_or_else(|| "-".to_owned(), |p| p.display().to_string());
        let rows: Vec<Vec<String>> = self
            .names
            .iter()
            .map(|r| vec![r.name.clone(), r.outcome.word().to_owned(), original(r)])
            .collect();
        let notes: Vec<String> = self.notes.iter().map(|note| format!("note: {note}\n")).collect();
        let all = table(&["NAME", "OUTCOME", "ORIGINAL"], &rows);
        format!("{all}{}in `{}`\n", notes.concat(), self.folder.display())
    }
}
