//! Devices that are only counted: licences, slots, whatever a file or a command says.
//!
//! They are known by number, 0 to n-1, and so stay the same as long as there are as many; or by the name that
//! a command gives them. A file or a command that can't be read says nothing of how many there are: what
//! there was is kept, ailing (`Looked::failed`), since a mistake of a moment should not take pods' devices
//! away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;

use serde::Deserialize;

use crate::allocate::{ENV_ATTRIBUTE, behind, seen};
use crate::config::{CommandSelector, Counted, FileSelector, Host};
use crate::inventory::{Found, Looked, Rejected};
use crate::kernel::child;

/// A number has few digits; more is no file with a number.
const LONGEST_NUMBER: u64 = 4 << 10;
/// The longest name that a command may give a device.
const LONGEST_NAME: usize = 253;

/// So many.
pub fn count(counted: &Counted) -> Looked {
    numbered("count", u64::from(counted.0), u32::MAX)
}

/// As many as a file says.
pub fn file(selector: &FileSelector, host: &Host) -> Looked {
    let shown = selector.path.display().to_string();
    match number_in(selector, host) {
        Ok(count) => numbered("file", count, selector.max),
        Err(why) => failed(shown, why),
    }
}

/// As many as a command says. It may take as long as its time-out.
pub fn command(selector: &CommandSelector) -> Looked {
    let shown = selector.run.first().cloned().unwrap_or_default();
    let said = child::run(&selector.run, &[], selector.timeout.duration()).and_then(|outcome| {
        if !outcome.status.success() {
            return Err(format!("`{shown}` {}", child::ending(&outcome)));
        }
        read(&outcome.output).map_err(|why| format!("`{shown}` wrote {why}"))
    });
    match said {
        Ok(Said::Count(count)) => numbered("command", count, selector.max),
        Ok(Said::Listed(items)) => listed(items, selector.max),
        Err(why) => failed(shown, why),
    }
}

/// Devices by number, those above `most` refused.
pub(super) fn numbered(source: &str, count: u64, most: u32) -> Looked {
    let kept = u32::try_from(count).unwrap_or(u32::MAX).min(most);
    let found = (0..kept).map(|n| Found {
        identity: format!("{source}:{n}"),
        name: n.to_string(),
        ..Found::default()
    });
    Looked { found: found.collect(), rejected: too_many(count, most), failed: None }
}

/// A look that failed.
pub(super) fn failed(what: String, why: String) -> Looked {
    Looked { failed: Some(why.clone()), rejected: vec![Rejected { what, why }], ..Looked::default() }
}

fn too_many(count: u64, most: u32) -> Vec<Rejected> {
    let more = count.saturating_sub(u64::from(most));
    let rejected =
        Rejected { what: format!("{more} more"), why: format!("there are {count}, and `max` is {most}") };
    if more == 0 { Vec::new() } else { vec![rejected] }
}

fn number_in(selector: &FileSelector, host: &Host) -> Result<u64, String> {
    let shown = selector.path.display();
    let wrong = |e: std::io::Error| format!("`{shown}` can't be read: {e}");
    let (real, about) = behind(host, &selector.path).map_err(wrong)?;
    // A FIFO would never answer.
    if !about.is_file() {
        return Err(format!("`{shown}` is no plain file"));
    }
    let mut text = String::new();
    File::open(seen(host, &real))
        .and_then(|file| file.take(LONGEST_NUMBER).read_to_string(&mut text))
        .map_err(wrong)?;
    whole(&text).ok_or_else(|| format!("`{shown}` has {} and no whole number", quoted(&text)))
}

fn whole(text: &str) -> Option<u64> {
    let text = text.trim();
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The beginning of a text, on one line.
fn quoted(text: &str) -> String {
    let beginning: String = text.trim().chars().take(40).collect();
    let more = if text.trim().chars().count() > 40 { "…" } else { "" };
    format!("`{}{more}`", beginning.escape_debug())
}

/// What a command said.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    Count(u64),
    Listed(Vec<Item>),
}

/// A device that a command named.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    id: String,
    #[serde(default = "yes")]
    healthy: bool,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

fn read(output: &[u8]) -> Result<Said, String> {
    let text = std::str::from_utf8(output).map_err(|_| "what is not UTF-8".to_owned())?;
    if let Some(count) = whole(text) {
        return Ok(Said::Count(count));
    }
    serde_json::from_str(text).map_err(|_| {
        format!(
            "{}, which is neither a whole number nor a list of `{{\"id\": TEXT, \"healthy\": BOOL, \"env\": \
             {{NAME: TEXT}}}}`",
            quoted(text)
        )
    })
}

fn listed(items: Vec<Item>, most: u32) -> Looked {
    let count = items.len();
    let mut known = BTreeSet::new();
    let mut looked = Looked::default();
    for item in items {
        let reject = |why: &str| Rejected { what: quoted(&item.id), why: why.to_owned() };
        if item.id.is_empty() || item.id.len() > LONGEST_NAME || item.id.chars().any(char::is_control) {
            looked.rejected.push(reject("its id is empty, longer than 253 bytes, or has control characters"));
        } else if item.env.iter().any(|(name, value)| !is_env(name, value)) {
            looked.rejected.push(reject("its env has a name with `=` or a value with control characters"));
        } else if known.contains(&item.id) {
            looked.rejected.push(reject("its id was there already"));
        } else if looked.found.len() < usize::try_from(most).unwrap_or(usize::MAX) {
            known.insert(item.id.clone());
            looked.found.push(device(item));
        }
    }
    if known.len() >= usize::try_from(most).unwrap_or(usize::MAX) {
        looked.rejected.extend(too_many(u64::try_from(count).unwrap_or(u64::MAX), most));
    }
    looked
}

fn is_env(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains('=') && !name.chars().chain(value.chars()).any(char::is_control)
}

fn device(item: Item) -> Found {
    let attributes = item.env.into_iter().map(|(name, value)| (format!("{ENV_ATTRIBUTE}{name}"), value));
    Found {
        identity: format!("command:{}", item.id),
        name: item.id,
        attributes: attributes.collect(),
        ailing: (!item.healthy).then(|| "the command says that it is not healthy".to_owned()),
        ..Found::default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Span;

    fn names(looked: &Looked) -> Vec<&str> {
        looked.found.iter().map(|found| found.name.as_str()).collect()
    }

    fn says(script: &str, max: u32) -> Looked {
        let run = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        command(&CommandSelector { run, timeout: Span::seconds(10), every: Span::seconds(60), max })
    }

    #[test]
    fn counted_devices_are_numbered() {
        let looked = count(&Counted(3));
        assert_eq!(names(&looked), ["0", "1", "2"]);
        assert_eq!(looked.found[2].identity, "count:2");
        assert_eq!(count(&Counted(0)), Looked::default());
    }

    #[test]
    fn a_file_says_how_many() {
        let path = std::env::temp_dir().join(format!("nodeplug-count-{}", std::process::id()));
        let look = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            file(&FileSelector { path: path.clone(), max: 3 }, &Host::default())
        };
        assert_eq!(names(&look(b" 2\n")), ["0", "1"]);
        let looked = look(b"5");
        assert_eq!(names(&looked), ["0", "1", "2"]);
        assert_eq!(
            looked.rejected,
            [Rejected { what: "2 more".to_owned(), why: "there are 5, and `max` is 3".to_owned() }]
        );
        for (content, expect) in [
            (&b"-1"[..], "has `-1` and no whole number"),
            (b"", "has `` and no whole number"),
            (b"1 2", "no whole number"),
            (b"99999999999999999999", "no whole number"),
            (b"\xff", "can't be read"),
        ] {
            let looked = look(content);
            assert!(looked.found.is_empty());
            let why = looked.failed.unwrap();
            assert!(why.contains(expect), "{why}");
        }
        fs::remove_file(&path).unwrap();
        let gone = file(&FileSelector { path, max: 3 }, &Host::default());
        assert!(gone.failed.unwrap().contains("can't be read: No such file"));
        let folder = file(&FileSelector { path: "/dev".into(), max: 3 }, &Host::default());
        assert!(folder.failed.unwrap().contains("is no plain file"));
    }

    #[test]
    fn a_command_says_how_many_or_which() {
        assert_eq!(names(&says("echo 2", 10)), ["0", "1"]);
        let looked = says(
            r#"echo '[{"id": "a", "env": {"TOKEN": "x"}}, {"id": "b", "healthy": false}, {"id": "a"}, {"id": ""},
                      {"id": "c", "env": {"A=": ""}}]'"#,
            10,
        );
        assert_eq!(names(&looked), ["a", "b"]);
        assert_eq!(looked.found[0].identity, "command:a");
        assert_eq!(looked.found[0].attributes.get("env.TOKEN").unwrap(), "x");
        assert_eq!(looked.found[0].ailing, None);
        assert!(looked.found[1].ailing.is_some());
        let why: Vec<_> = looked.rejected.iter().map(|r| format!("{} {}", r.what, r.why)).collect();
        assert!(
            why[0].starts_with("`a` its id was there")
                && why[1].starts_with("`` its id is")
                && why[2].contains("`c` its env"),
            "{why:?}"
        );
        let looked = says(r#"echo '[{"id": "a"}, {"id": "b"}, {"id": "c"}]'"#, 2);
        assert_eq!((names(&looked), looked.rejected.len()), (vec!["a", "b"], 1));
        assert_eq!(says("echo '[]'", 2), Looked::default());
    }

    #[test]
    fn a_command_that_fails_says_nothing_of_its_devices() {
        for (script, expect) in [
            ("echo no pool >&2; exit 3", "`/bin/sh` ended with 3: no pool"),
            ("echo many", "`/bin/sh` wrote `many`, which is neither a whole number nor a list"),
            ("echo '[{\"ID\": \"a\"}]'", "neither a whole number nor a list"),
            ("echo -1", "`-1`"),
            ("printf '\\377'", "`/bin/sh` wrote what is not UTF-8"),
            ("head -c 2000000 /dev/zero; exit 0", "neither a whole number nor a list"),
        ] {
            let looked = says(script, 10);
            assert!(looked.found.is_empty());
            let why = looked.failed.unwrap();
            assert!(why.contains(expect) && why.len() < 300, "{script}: {why}");
        }
    }
}
