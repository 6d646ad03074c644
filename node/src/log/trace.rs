//! What the log has of one pod: for a person who asks why it has no network or no volume.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Place, rotated};

/// A shorter word is no prefix of a container id: it would be one of many.
const SHORTEST_PREFIX: usize = 6;

/// How a line begins, also behind one that a full disk cut off.
const BEGIN: &str = "{\"time\":";

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// `namespace/name`, name, uid or address of a pod, container id or its start, link, volume.
    pub word: String,
    /// Nothing older.
    pub since: Option<SystemTime>,
}

/// What was found, and where it was looked for.
#[derive(Debug, Default)]
pub struct Found {
    /// The lines, in the order of their time.
    pub lines: Vec<Value>,
    /// Each log, and what became of reading it.
    pub sources: Vec<Source>,
}

/// A log that was asked.
#[derive(Debug)]
pub struct Source {
    /// A path, or `journal`.
    pub name: String,
    /// How many lines it has of whatever pods; or why it was not read.
    pub read: Result<usize, String>,
}

/// Looks into `logs`, the rotated file before its successor. Journals are asked for the lines of `program`.
pub fn find(logs: &[Place], program: &str, wanted: &Wanted) -> Found {
    let mut found = Found::default();
    let mut all = Vec::new();
    for log in logs {
        let (name, read) = match log {
            Place::File(path) => (path.display().to_string(), files(path)),
            Place::Journal => ("journal".to_owned(), journal(program).map_err(|e| journalctl(&e))),
            Place::Nowhere => continue,
        };
        let read = read.map(|lines| {
            let count = lines.len();
            all.extend(lines);
            count
        });
        found.sources.push(Source { name, read: read.map_err(|e| unread(&e)) });
    }
    found.lines = chosen(all, wanted);
    found
}

/// Without it there may well be a journal.
fn journalctl(error: &io::Error) -> io::Error {
    io::Error::other(format!("by `journalctl`: {error}"))
}

fn unread(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is not there: no call has left a line in it".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// The lines that name what is wanted, and those of the containers that these name: a DEL may know no more.
fn chosen(mut all: Vec<Value>, wanted: &Wanted) -> Vec<Value> {
    let oldest = wanted.since.and_then(|s| s.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_millis());
    let direct = |line: &&Value| names(line, &wanted.word);
    // Before the old ones go: the ADD that names the pod may be one of them, and its DEL is not.
    let owners: BTreeSet<String> = all.iter().filter(direct).filter_map(owner).collect();
    all.retain(|line| u128::from(time(line)) >= oldest);
    all.retain(|line| names(line, &wanted.word) || owner(line).is_some_and(|o| owners.contains(&o)));
    all.sort_by_key(time);
    all
}

/// Whose line it is: a container's, or a pod's where no container is known.
fn owner(line: &Value) -> Option<String> {
    let text = |key: &str| line.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    text("containerID").or_else(|| text("podUID")).map(str::to_owned)
}

fn names(line: &Value, word: &str) -> bool {
    let text = |key: &str| line.get(key).and_then(Value::as_str);
    let is = |key: &str| text(key) == Some(word);
    let pod =
        text("pod").is_some_and(|pod| pod == word || pod.split_once('/').is_some_and(|(_, n)| n == word));
    let starts = word.len() >= SHORTEST_PREFIX && text("containerID").is_some_and(|id| id.starts_with(word));
    let ips = line.get("ips").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut addresses = ips.map(|ip| ip.split_once('/').map_or(ip, |(address, _)| address));
    let keys = ["containerID", "podUID", "link", "volume", "target", "traceID"];
    pod || starts || keys.into_iter().any(is) || addresses.any(|a| a == word)
}

fn time(line: &Value) -> u64 {
    line.get("time").and_then(Value::as_u64).unwrap_or(0)
}

/// The lines of a file and of what it was before. The present one is opened first: whoever rotates meanwhile makes
/// it the other one, which is then seen once.
fn files(path: &Path) -> io::Result<Vec<Value>> {
    let present = open(path);
    let past = open(&rotated(path));
    let same = |a: &File, b: &File| -> io::Result<bool> {
        let (a, b) = (a.metadata()?, b.metadata()?);
        Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
    };
    let mut lines = Vec::new();
    let mut there = false;
    if let Ok(past) = past
        && !present.as_ref().is_ok_and(|present| same(present, &past).unwrap_or(false))
    {
        there = true;
        read(BufReader::new(past), &mut lines)?;
    }
    match present {
        // Somebody was killed between the rename and the new file.
        Err(e) if e.kind() == io::ErrorKind::NotFound && there => {}
        other => read(BufReader::new(other?), &mut lines)?,
    }
    Ok(lines)
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no plain file")) }
}

fn read(mut from: impl BufRead, lines: &mut Vec<Value>) -> io::Result<()> {
    let mut bytes = Vec::new();
    while from.read_until(b'\n', &mut bytes)? > 0 {
        lines.extend(parsed(&String::from_utf8_lossy(&bytes)));
        bytes.clear();
    }
    Ok(())
}

/// A line. Where a full disk cut one off, the next one stands behind it.
fn parsed(text: &str) -> Option<Value> {
    let mut rest = text.trim_end();
    loop {
        let value = serde_json::from_str::<Value>(rest).ok().filter(Value::is_object);
        if value.is_some() {
            return value;
        }
        let next = rest.get(1..)?.find(BEGIN)? + 1;
        rest = rest.get(next..)?;
    }
}

/// The lines that root's processes handed to the journal.
fn journal(program: &str) -> io::Result<Vec<Value>> {
    let mut command = Command::new("journalctl");
    command.args(["-o", "json", "--all", "--quiet", "--no-pager", "_UID=0"]);
    command.arg(format!("SYSLOG_IDENTIFIER={program}"));
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(why));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |entry: &str| {
        let entry: Value = serde_json::from_str(entry).ok()?;
        parsed(entry.get("NODEPLUG_LINE")?.as_str()?)
    };
    Ok(text.lines().filter_map(line).collect())
}

impl Found {
    /// `{"lines": […], "sources": [{"log": …, "lines": …} or {"log": …, "error": …}], "now": […]}`; what is there
    /// `now` is the program's to say.
    pub fn to_json(&self, now: &[Value]) -> Value {
        let sources = self.sources.iter().map(|source| match &source.read {
            Ok(lines) => json!({"log": source.name, "lines": lines}),
            Err(why) => json!({"log": source.name, "error": why}),
        });
        json!({"lines": self.lines, "sources": sources.collect::<Vec<_>>(), "now": now})
    }

    /// A paragraph a line.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for line in &self.lines {
            told(line, &mut out);
        }
        out
    }

    /// Why nothing was found, a line a log.
    pub fn nothing(&self, word: &str) -> String {
        let mut out = format!("no line of `{word}`\n");
        for source in &self.sources {
            // Writing to a String cannot fail.
            let _ = match &source.read {
                Ok(0) => writeln!(out, "{}: no line is in it", source.name),
                Ok(1) => writeln!(out, "{}: 1 line, which is not of it", source.name),
                Ok(lines) => writeln!(out, "{}: {lines} lines, none of it", source.name),
                Err(why) => writeln!(out, "{}: {why}", source.name),
            };
        }
        if self.sources.is_empty() {
            out.push_str("no log is kept: `logFile` is `none`\n");
        }
        out
    }
}

/// `TIME  VERB  whose  how long  what came of it`, and below it what a person may want to know.
fn told(line: &Value, out: &mut String) {
    let text = |key: &str| line.get(key).and_then(Value::as_str);
    let at = UNIX_EPOCH + Duration::from_millis(time(line));
    let at = humantime::format_rfc3339_millis(at);
    let mut whose: Vec<String> = Vec::new();
    whose.extend(text("pod").or(text("podUID")).map(clean));
    whose.extend(text("containerID").map(|id| clean(id.get(..13).unwrap_or(id))));
    whose.extend(text("ifname").map(clean));
    whose.extend(text("volume").map(|v| format!("volume {}", clean(v))));
    whose.extend(text("plugin").map(|p| format!("as {}", clean(p))));
    let took = line.get("microseconds").and_then(Value::as_u64).map(milliseconds).unwrap_or_default();
    let verb = text("verb").unwrap_or("?");
    // Writing to a String cannot fail.
    let _ = write!(out, "{at}  {:<7} {}  {took}", clean(verb), whose.join(" "));
    let list = |key: &str| line.get(key).and_then(Value::as_array).into_iter().flatten();
    match text("error") {
        None => {
            let ips: Vec<&str> = list("ips").filter_map(Value::as_str).collect();
            let _ = writeln!(out, "  ok{}{}", if ips.is_empty() { "" } else { "  " }, clean(&ips.join(" ")));
        }
        Some(error) => {
            let kind = text("errorKind").unwrap_or("failed");
            let _ = writeln!(out, "  FAILED ({})\n    {}", clean(kind), clean(error));
            text("hint").map(|hint| writeln!(out, "    → {}", clean(hint)));
        }
    }
    for note in list("notes").filter_map(Value::as_str) {
        let _ = writeln!(out, "    note: {}", clean(note));
    }
    let slowest = slowest(line);
    if !slowest.is_empty() {
        let _ = writeln!(out, "    slowest: {}", slowest.join("; "));
    }
    text("traceID").map(|trace| writeln!(out, "    trace {}", clean(trace)));
}

/// The three steps that took longest.
fn slowest(line: &Value) -> Vec<String> {
    let step = |s: &Value| Some((s.get("us")?.as_u64()?, clean(s.get("step")?.as_str()?)));
    let steps = line.get("steps").and_then(Value::as_array).into_iter().flatten();
    let mut steps: Vec<_> = steps.filter_map(step).filter(|(us, _)| *us > 0).collect();
    steps.sort_by_key(|(us, _)| std::cmp::Reverse(*us));
    steps.into_iter().take(3).map(|(us, what)| format!("{what} {}", milliseconds(us))).collect()
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

/// A terminal obeys control characters, and a file may have been written by others.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Value> {
        vec![
            json!({"time": 3, "verb": "DEL", "containerID": "0123456789"}),
            json!({"time": 1, "verb": "ADD", "pod": "a/web", "containerID": "0123456789", "link": "np1",
                "ips": ["10.0.0.2/32", "fd00::2/128"]}),
            json!({"time": 2, "verb": "ADD", "pod": "b/web", "containerID": "9876543210"}),
            json!({"time": 4, "verb": "unmount", "podUID": "u-1", "volume": "data"}),
            json!({"time": 2, "verb": "mount", "pod": "a/db", "podUID": "u-1", "volume": "data"}),
        ]
    }

    #[test]
    fn a_pod_is_found_by_all_that_it_is_called() {
        for (word, expect) in [
            ("a/web", "ADD1 DEL3"),
            ("web", "ADD1 ADD2 DEL3"),
            ("012345", "ADD1 DEL3"),
            ("01234", ""),
            ("0123456789", "ADD1 DEL3"),
            ("np1", "ADD1 DEL3"),
            ("10.0.0.2", "ADD1 DEL3"),
            ("fd00::2", "ADD1 DEL3"),
            ("a/db", "mount2 unmount4"),
            ("u-1", "mount2 unmount4"),
            ("data", "mount2 unmount4"),
            ("a", ""),
            ("", ""),
        ] {
            let wanted = Wanted { word: word.to_owned(), since: None };
            let found = chosen(lines(), &wanted);
            let found: Vec<String> =
                found.iter().map(|l| format!("{}{}", l["verb"].as_str().unwrap(), l["time"])).collect();
            assert_eq!(found.join(" "), expect, "{word}");
        }
        let since = Some(UNIX_EPOCH + Duration::from_millis(2));
        assert_eq!(
            chosen(lines(), &Wanted { word: "web".to_owned(), since }).len(),
            2,
            "the DEL names no pod"
        );
    }

    #[test]
    fn a_line_behind_one_that_was_cut_off_is_read() {
        assert_eq!(parsed("{\"time\":1,\"verb\":\"A{\"time\":2}\n"), Some(json!({"time": 2})));
        assert_eq!(parsed("é{\"time\":2}\n"), None);
        for junk in ["", "\n", "7", "{\"time\":", "xx{\"time\":1", "[]"] {
            assert_eq!(parsed(junk), None, "{junk}");
        }
    }

    #[test]
    fn what_is_told_has_no_control_character_and_the_slowest_first() {
        let line = json!({"time": 1_795_443_600_574_u64, "verb": "ADD", "pod": "a/\u{1b}[31mb", "microseconds": 2178,
            "errorKind": "kernel", "error": "make it: no", "hint": "try", "notes": ["n"],
            "steps": [{"step": "a", "us": 1}, {"step": "b", "us": 900}, {"step": "c", "us": 70}, {"step": "d", "us": 50}]});
        let mut out = String::new();
        told(&line, &mut out);
        assert_eq!(
            out,
            "2026-11-23T14:20:00.574Z  ADD     a/ [31mb  2.17 ms  FAILED (kernel)\n    make it: no\n    → try\n    \
             note: n\n    slowest: b 0.90 ms; c 0.07 ms; d 0.05 ms\n"
        );
    }
}
