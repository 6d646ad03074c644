//! `validate CONFLIST`: every mistake of a network configuration file with its place and what to do,
//! before a runtime or a pod meets it.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::config::reader::{Problem, Reader};
use crate::config::wanted::Asked;
use crate::config::{NetConf, Position, TYPE_HINT, read_name, required};
use crate::name;
use crate::role::{OWN, Role};
use crate::version::Version;

/// What was found in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The network's name, where the file has one.
    pub network: Option<String>,
    /// How many entries were read.
    pub plugins: usize,
    /// Mistakes: a runtime or this plugin would refuse the file or a pod.
    pub problems: Vec<Problem>,
    /// What works and is likely not meant.
    pub warnings: Vec<Problem>,
}

/// Checks the text of a list of plugins (`.conflist`) or of a single plugin's configuration (`.conf`).
pub fn validate(text: &str) -> Report {
    let mut report = Report::default();
    let mut documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let document = match documents.next() {
        Some(Ok(document)) => document,
        Some(Err(error)) => {
            report.problems.push(syntax(text, &error));
            return report;
        }
        None => {
            report
                .problems
                .push(Problem::wrong("", "is empty").hint("write a network configuration into the file"));
            return report;
        }
    };
    report.read(&document);
    report.trailing(text, documents.byte_offset());
    report
}

impl Report {
    /// Whether nothing stands in the way of using the file.
    pub fn is_fine(&self) -> bool {
        self.problems.is_empty()
    }

    /// For programs: `{network, plugins, problems: [{at, what, hint}], warnings: […]}`.
    pub fn to_json(&self) -> Value {
        let list = |found: &[Problem]| -> Value {
            found.iter().map(|p| json!({ "at": p.at, "what": p.what, "hint": p.hint })).collect()
        };
        json!({
            "network": self.network,
            "plugins": self.plugins,
            "problems": list(&self.problems),
            "warnings": list(&self.warnings),
        })
    }

    /// For people: a table, and a last line that sums it up.
    pub fn to_table(&self) -> String {
        let rows: Vec<_> = (self.problems.iter().map(|p| ("problem", p)))
            .chain(self.warnings.iter().map(|p| ("warning", p)))
            .collect();
        let width = rows.iter().map(|(_, p)| place(p).chars().count()).max().unwrap_or(0);
        let mut out = String::new();
        for (level, problem) in &rows {
            // Writing to a string does not go wrong.
            let _ = writeln!(out, "{level}  {:width$}  {}", place(problem), indented(&problem.what, width));
            if let Some(hint) = &problem.hint {
                let _ = writeln!(out, "{:9}{:width$}  → {hint}", "", "");
            }
        }
        let network = self.network.as_deref().unwrap_or("?");
        let _ = writeln!(
            out,
            "network `{network}`, {}: {}, {}",
            count(self.plugins, "plugin"),
            count(self.problems.len(), "problem"),
            count(self.warnings.len(), "warning")
        );
        out
    }

    fn read(&mut self, document: &Value) {
        let problems = &mut self.problems;
        if let Err(unknown) = Version::of(document) {
            problems.push(Problem::wrong("cniVersion", format!("{}: {unknown}", name::shown(&unknown.0))));
        }
        if document.get("plugins").is_none() && document.get("type").is_some() {
            self.network = document.get("name").and_then(Value::as_str).map(str::to_owned);
            self.plugin(document, role_of(document), "", 0);
            return;
        }
        if document.is_object() && document.get("cniVersion").is_none() {
            let what = format!("is missing and counts as {}", Version::DEFAULT);
            let hint = format!("add `\"cniVersion\": \"{}\"`", Version::NEWEST);
            self.warnings.push(Problem::wrong("cniVersion", what).hint(hint));
        }
        self.list(document);
    }

    fn list(&mut self, document: &Value) {
        let problems = &mut self.problems;
        let mut reader = Reader::new(document, "", problems);
        if !document.is_object() {
            return;
        }
        reader.allow(&["cniVersion"]);
        reader.parsed_list::<Version>("cniVersions", "a version that is spoken here", problems);
        for switch in ["disableCheck", "disableGC", "loadOnlyInlinedPlugins"] {
            // libcni takes the words as strings, too.
            let word = document.get(switch).and_then(Value::as_str).map(str::to_ascii_lowercase);
            if matches!(word.as_deref(), Some("true" | "false")) {
                reader.allow(&[switch]);
            } else {
                reader.bool(switch, problems);
            }
        }
        self.network = Some(read_name(&mut reader, problems)).filter(|name| !name.is_empty());
        let plugins = reader.list("plugins", problems);
        if plugins.as_ref().is_none_or(Vec::is_empty) {
            let what = if plugins.is_some() { "is empty" } else { "is not a list of plugins" };
            problems.push(Problem::wrong("plugins", what).hint("a runtime takes no network without one"));
        }
        reader.finish(problems);
        let plugins = plugins.unwrap_or_default();
        // Beside the program's own name, the reference's are the reference's plugins: only a list without
        // it asks what would become of them here.
        let alone = plugins.iter().all(|(_, entry)| role_of(entry) != Some(Role::Main));
        if alone && !plugins.is_empty() && plugins.iter().all(|(_, entry)| role_of(entry).is_none()) {
            let what = format!("has no entry of type `{OWN}`: only the list itself was checked");
            self.warnings.push(Problem::wrong("plugins", what).hint("is a `type` misspelt?"));
        }
        for (index, (at, entry)) in plugins.into_iter().enumerate() {
            let composed = compose(document, entry, self.network.as_deref());
            let role = role_of(entry).filter(|role| alone || *role == Role::Main);
            self.plugin(&composed, role, &at, index);
        }
    }

    fn plugin(&mut self, entry: &Value, role: Option<Role>, at: &str, index: usize) {
        self.plugins += 1;
        let Some(role) = role else {
            let mut reader = Reader::new(entry, at, &mut self.problems);
            if entry.is_object() {
                required(&mut reader, "type", TYPE_HINT, &mut self.problems);
            }
            return;
        };
        let position = if index == 0 { Position::First } else { Position::Either };
        let reader = Reader::new(entry, at, &mut Vec::new());
        if role == Role::Main && index > 0 && ["mode", "ipam"].iter().any(|k| entry.get(*k).is_some()) {
            let what = "makes an interface, and the runtime calls it after another plugin made one";
            let hint = "move nodeplug-cni to the front of `plugins`, or take `mode` and `ipam` out";
            self.warnings.push(Problem::wrong(at, what).hint(hint));
        }
        for key in ["prevResult", "runtimeConfig"].into_iter().filter(|k| entry.get(k).is_some()) {
            let what = "is the runtime's to make, and a runtime overwrites what stands there";
            self.warnings.push(Problem::wrong(&reader.place(key), what).hint("take the key out"));
        }
        NetConf::read(role, entry, at, position, &Asked::default(), &mut self.problems);
    }

    fn trailing(&mut self, text: &str, end: usize) {
        let rest = text.get(end..).unwrap_or_default();
        let garbage = rest.trim_start();
        if garbage.is_empty() {
            return;
        }
        let before = text.get(..text.len() - garbage.len()).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        let shown: String = garbage.lines().next().unwrap_or_default().chars().take(60).collect();
        let what = format!("goes on at {line}:{column} after its end with `{shown}`");
        self.problems.push(Problem::wrong("", what).hint("a runtime refuses the file; take the rest out"));
    }
}

/// As whom the program reads an entry: as itself, or as the reference's plugin of that name. IPAM plugins
/// have no entries of their own.
pub(crate) fn role_of(entry: &Value) -> Option<Role> {
    let name = entry.get("type").and_then(Value::as_str)?;
    if name == OWN { Some(Role::Main) } else { Role::named(name).filter(|role| !role.is_ipam()) }
}

/// The entry as a runtime hands it to the plugin: with the list's name and version in it
/// (CNI spec 1.1.0, section 3, "Deriving request configuration from plugin configuration").
pub(crate) fn compose(document: &Value, entry: &Value, network: Option<&str>) -> Value {
    let Some(fields) = entry.as_object() else { return entry.clone() };
    let mut out: Map<String, Value> = fields.clone();
    // A list without a proper name has its problem already, and the entry shall not repeat it.
    out.insert("name".into(), network.unwrap_or("unnamed").into());
    if let Some(version) = document.get("cniVersion") {
        out.insert("cniVersion".into(), version.clone());
    }
    out.into()
}

/// A syntax error with the line that holds it and a mark below the place.
fn syntax(text: &str, error: &serde_json::Error) -> Problem {
    let (number, column) = (error.line(), error.column());
    let message = error.to_string();
    let why = message.split(" at line ").next().unwrap_or_default().to_owned();
    let line: Vec<char> = text.lines().nth(number.saturating_sub(1)).unwrap_or_default().chars().collect();
    // Columns count bytes; a window around the place keeps a compact file's only line readable.
    let bytes = text.lines().nth(number.saturating_sub(1)).unwrap_or_default().bytes().take(column);
    let place = bytes.filter(|b| (b & 0xc0) != 0x80).count();
    let from = place.saturating_sub(60);
    let shown: String =
        line.iter().skip(from).take(80).map(|c| if c.is_control() { ' ' } else { *c }).collect();
    let mark = " ".repeat(place.saturating_sub(from).saturating_sub(1));
    Problem::wrong("", format!("is not JSON at {number}:{column}: {why}\n{shown}\n{mark}^"))
        .hint("mend the syntax first; other mistakes show after that")
}

fn place(problem: &Problem) -> &str {
    if problem.at.is_empty() { "(file)" } else { &problem.at }
}

/// Further lines start where the first one does.
fn indented(text: &str, width: usize) -> String {
    text.replace('\n', &format!("\n{}", " ".repeat(width + 11)))
}

fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

#[cfg(test)]
mod tests;
