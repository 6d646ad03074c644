//! What a look at a node found, for people and for programs: the one form of every `doctor`.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::Error;

/// As many things of a kind as a person reads.
const NAMED: usize = 3;

/// How something is: the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Fine,
    /// Pods are served, but not all that is meant works, or not for long.
    Warning,
    /// Pods are not served.
    Problem,
}

impl State {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub why: String,
    /// What to do, where something is to be done.
    pub remedy: Option<String>,
}

impl Finding {
    /// It is as it should be.
    pub fn fine(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, state: State::Fine, why: why.into(), remedy: None }
    }

    /// Something is missing that one can live without.
    pub fn warning(what: &'static str, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, state: State::Warning, why: why.into(), remedy: Some(remedy.into()) }
    }

    /// So it can't work.
    pub fn problem(what: &'static str, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, state: State::Problem, why: why.into(), remedy: Some(remedy.into()) }
    }
}

/// The finding of something that could not be looked at.
pub fn unread(what: &'static str, error: &Error) -> Finding {
    Finding::problem(what, error.chain(), error.advice().unwrap_or("run as root, on the node"))
}

/// The first of them in backticks, and how many more there are.
pub fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<String> = names.iter().take(NAMED).map(|name| format!("`{}`", name.as_ref())).collect();
    let more = names.len().saturating_sub(NAMED);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// `1 pod`, `2 pods`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A path as it can be typed into a shell: between quotes where the shell would not take it for one word.
pub fn typed(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%=,~".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A terminal obeys control characters, and names of files and what programs say may have some.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// All that was found, in the order in which it was looked at.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Adds what was found.
    pub fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
    }

    /// Whether nothing is a problem; warnings may be.
    pub fn is_fine(&self) -> bool {
        self.count(State::Problem) == 0
    }

    /// The findings.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    fn count(&self, state: State) -> usize {
        self.findings.iter().filter(|finding| finding.state == state).count()
    }

    /// `{"findings": [{"what", "state", "why", "remedy"} …], "fine": BOOL, "problems": N, "warnings": N}`.
    pub fn to_json(&self) -> Value {
        let finding = |Finding { what, state, why, remedy }: &Finding| json!({"what": what, "state": state.word(), "why": why, "remedy": remedy});
        json!({
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "fine": self.is_fine(),
            "problems": self.count(State::Problem),
            "warnings": self.count(State::Warning),
        })
    }

    /// A line a finding, with what to do below it: problems first, and what is fine last.
    pub fn to_table(&self) -> String {
        let width = self.findings.iter().map(|finding| finding.what.len()).max().unwrap_or_default();
        let mut text = String::new();
        for wanted in [State::Problem, State::Warning, State::Fine] {
            for Finding { what, state, why, remedy } in self.findings.iter().filter(|f| f.state == wanted) {
                // Writing into a string cannot fail.
                let _ = writeln!(text, "{:7}  {what:width$}  {}", state.word(), clean(why));
                if let Some(remedy) = remedy {
                    let _ = writeln!(text, "{:7}  {:width$}  → {}", "", "", clean(remedy));
                }
            }
        }
        let (problems, warnings) = (self.count(State::Problem), self.count(State::Warning));
        let plural = |count| if count == 1 { "" } else { "s" };
        let _ = writeln!(
            text,
            "{} things looked at: {problems} problem{}, {warnings} warning{}",
            self.findings.len(),
            plural(problems),
            plural(warnings)
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_obeys_nobody() {
        let mut report = Report::default();
        report.add([Finding::problem("file", "a\u{1b}[2Jb\nc", "rm \r'x'")]);
        let table = report.to_table();
        assert!(table.chars().all(|c| c == '\n' || !c.is_control()), "{table:?}");
        assert_eq!(table.lines().count(), 3, "{table:?}");
    }

    #[test]
    fn a_path_can_be_typed() {
        for path in ["/opt/cni/bin", "/var/lib/é", "/a b", "/it's", "/$(reboot)", "/a;b*"] {
            let command = format!("printf %s {}", typed(Path::new(path)));
            let said = std::process::Command::new("sh").args(["-ec", &command]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&said.stdout), path);
        }
        assert_eq!(typed(Path::new("/a/nodeplug~tmpfs")), "/a/nodeplug~tmpfs");
    }

    #[test]
    fn a_table_and_its_json_hold_the_same_and_problems_come_first() {
        let mut report = Report::default();
        report.add([Finding::fine("user", "root"), Finding::warning("inotify", "few", "raise it")]);
        assert!(report.is_fine());
        report.add([Finding::problem("kubelet.sock", "nobody listens", "start it")]);
        assert!(!report.is_fine());
        assert_eq!(
            report.to_table(),
            "problem  kubelet.sock  nobody listens\n                       → start it\n\
             warning  inotify       few\n                       → raise it\n\
             fine     user          root\n\
             3 things looked at: 1 problem, 1 warning\n"
        );
        // Programs read this form: it grows, and nothing of it changes.
        let golden = json!({
            "findings": [
                {"what": "user", "state": "fine", "why": "root", "remedy": null},
                {"what": "inotify", "state": "warning", "why": "few", "remedy": "raise it"},
                {"what": "kubelet.sock", "state": "problem", "why": "nobody listens", "remedy": "start it"},
            ],
            "fine": false,
            "problems": 1,
            "warnings": 1,
        });
        assert_eq!(report.to_json(), golden);
    }
}
