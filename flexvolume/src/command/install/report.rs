//! What `install` and `uninstall` say.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

/// What was done, driver by driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The kubelet's plugin folder, as this process reaches it.
    pub folder: PathBuf,
    /// Why this one.
    pub why: String,
    /// Nothing was changed; the outcomes are what would be.
    pub dry_run: bool,
    /// One for each driver that was asked for.
    pub drivers: Vec<Row>,
    /// What a person should know besides.
    pub notes: Vec<String>,
}

/// One driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// As pods name it: `nodeplug/tmpfs`.
    pub driver: String,
    /// What was done.
    pub outcome: Outcome,
    /// It was asked for `init` at its path, and the kubelet could take the answer.
    pub answers: bool,
    /// The driver's program.
    pub path: PathBuf,
}

/// What was done to a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It was not there.
    Installed,
    /// It was there in another version.
    Replaced,
    /// It was there already.
    Unchanged,
    /// It is not there any more.
    Removed,
    /// It was not there to be removed.
    Absent,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
            Self::Absent => "absent",
        }
    }
}

impl Report {
    /// The same for programs.
    pub fn to_json(&self) -> Value {
        // Paths that are no UTF-8 have no JSON form; nobody's plugin folder is one.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// One line a driver, then the notes.
    pub fn to_table(&self) -> String {
        let mut text = format!("{} ({})\n", self.folder.display(), self.why);
        let wide = self.drivers.iter().map(|row| row.driver.len()).max().unwrap_or_default();
        for Row { driver, outcome, answers, path } in &self.drivers {
            let answers = if *answers { "init: ok" } else { "" };
            let line = format!("{driver:wide$}  {:9}  {answers:8}  {}", outcome.word(), path.display());
            text.push_str(&line);
            text.push('\n');
        }
        text.extend(self.notes.iter().map(|note| format!("note: {note}\n")));
        if self.dry_run {
            text.push_str("dry run: nothing was changed\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_a_table_and_programs_the_same_as_json() {
        let report = Report {
            folder: "/p".into(),
            why: "--dir".to_owned(),
            dry_run: true,
            drivers: vec![Row {
                driver: "nodeplug/nfs".to_owned(),
                outcome: Outcome::Installed,
                answers: true,
                path: "/p/nodeplug~nfs/nfs".into(),
            }],
            notes: vec!["made it".to_owned()],
        };
        assert_eq!(
            report.to_table(),
            "/p (--dir)\n\
             nodeplug/nfs  installed  init: ok  /p/nodeplug~nfs/nfs\n\
             note: made it\n\
             dry run: nothing was changed\n"
        );
        assert_eq!(
            report.to_json().to_string(),
            concat!(
                r#"{"folder":"/p","why":"--dir","dryRun":true,"drivers":[{"driver":"nodeplug/nfs","#,
                r#""outcome":"installed","answers":true,"path":"/p/nodeplug~nfs/nfs"}],"notes":["made it"]}"#
            )
        );
    }
}
