//! Reads options one by one and remembers what it was asked for, so that all mistakes come out together
//! and every unknown key has a suggestion.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::str::FromStr;

use node::{Error, Kind, Result};

use super::mount_options::{self, Fs, MountOptions};
use super::{KUBELET, Options, Pod, Quantity, RelativePath, Seconds, nearest, quoted, template};

/// Words that belong into the Secret, and what a key that carries a secret mostly has in it.
const CREDENTIALS: [&str; 8] =
    ["password", "passwd", "pass", "username", "user", "credentials", "cred", "token"];
const SECRET_PARTS: [&str; 5] = ["passw", "secret", "token", "credential", "privatekey"];

/// The options being read. Each reader of a key notes what is wrong with its value and goes on with
/// `None`; an empty value counts as absent, except that it is not an unknown key either.
#[derive(Debug)]
#[must_use = "mistakes and unknown keys come out of `finish`"]
pub struct Reader<'a> {
    options: &'a Options,
    known: BTreeSet<String>,
    problems: Vec<(String, String)>,
    refusals: Vec<Error>,
}

impl<'a> Reader<'a> {
    /// Starts on `options`.
    pub fn new(options: &'a Options) -> Self {
        Self { options, known: BTreeSet::new(), problems: Vec::new(), refusals: Vec::new() }
    }

    /// Text without control characters.
    pub fn text(&mut self, key: &str) -> Option<&'a str> {
        self.known.insert(key.to_owned());
        let value = self.options.get(key).filter(|value| !value.is_empty())?;
        if value.chars().any(char::is_control) {
            self.problem(key, "has a newline or another control character; write it on one line");
            return None;
        }
        Some(value)
    }

    /// Text that parses as `T`, whose error says what to write: "is nothing; write at least 1".
    pub fn parsed<T: FromStr<Err = String>>(&mut self, key: &str) -> Option<T> {
        self.read(key, str::parse)
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &str) -> Option<bool> {
        self.choice(key, &[("true", true), ("false", false)])
    }

    /// A whole number within `range`.
    pub fn number(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let write = || format!("is not a whole number from {} to {}", range.start(), range.end());
        self.read(key, |text| {
            let number = Some(text).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
            number.and_then(|t| t.parse().ok()).filter(|n| range.contains(n)).ok_or_else(write)
        })
    }

    /// A user's or group's id; 4294967295 is no id.
    pub fn id(&mut self, key: &str) -> Option<u32> {
        self.number(key, 0..=u64::from(u32::MAX - 1)).and_then(|id| u32::try_from(id).ok())
    }

    /// Bytes, as a Kubernetes quantity; never 0.
    pub fn quantity(&mut self, key: &str) -> Option<u64> {
        self.parsed::<Quantity>(key).map(Quantity::bytes)
    }

    /// A time of at least a second.
    pub fn seconds(&mut self, key: &str) -> Option<Seconds> {
        self.parsed(key)
    }

    /// Permissions in octal, with or without the leading 0, up to 07777.
    pub fn mode(&mut self, key: &str) -> Option<u32> {
        self.read(key, |text| {
            let octal = (1..=5).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
            let mode = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
            mode.filter(|mode| *mode <= 0o7777)
                .ok_or("is not a mode; write octal digits such as 0770".to_owned())
        })
    }

    /// One of the words of `choices`.
    pub fn choice<T: Clone>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.read(key, |text| {
            let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
            found.ok_or_else(|| {
                let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
                format!("is not one of its words; write {}", words.join(" or "))
            })
        })
    }

    /// A list, separated by commas; blanks around an element do not count, an empty element is refused.
    pub fn list(&mut self, key: &str) -> Option<Vec<&'a str>> {
        self.read(key, |text| {
            let items: Vec<_> = text.split(',').map(str::trim).collect();
            let gap = items.contains(&"");
            if gap { Err("has an empty element; write a,b".to_owned()) } else { Ok(items) }
        })
    }

    /// A list, separated by commas or by line ends; a comma before a line end counts for nothing, and neither
    /// does an empty line.
    pub fn lines(&mut self, key: &str) -> Option<Vec<&'a str>> {
        self.known.insert(key.to_owned());
        let lines = self.options.get(key)?.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines = lines.map(|line| line.strip_suffix(',').unwrap_or(line));
        let items: Vec<_> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
        if items.iter().any(|item| item.is_empty() || item.chars().any(char::is_control)) {
            self.problem(key, "has an empty element or a control character; write a,b or one element a line");
            return None;
        }
        Some(items).filter(|items| !items.is_empty())
    }

    /// A path below a root, with the pod's names filled in.
    pub fn relative_path(&mut self, key: &str, pod: &Pod, volume: &str) -> Option<RelativePath> {
        self.read(key, |text| {
            let path = template::check(text, pod, volume)?;
            RelativePath::check(&path)
                .map_err(|why| format!("{why}; write a path such as team/data, without `..`"))
        })
    }

    /// Mount options for `fs`. A problem does not quote them whole: a password may stand in them by mistake.
    pub fn mount_options(&mut self, key: &str, fs: Fs) -> Option<MountOptions> {
        let found = mount_options::check(fs, self.text(key)?);
        found.map_err(|why| self.problem(key, why)).ok()
    }

    /// Sees that a key that the volume cannot do without was given. `write` is what to write.
    pub fn required<T>(&mut self, key: &str, value: Option<T>, write: &str) -> Option<T> {
        self.known.insert(key.to_owned());
        if value.is_none() && !self.problems.iter().any(|(at, _)| at == key) {
            self.problem(key, format!("is missing; write {write}"));
        }
        value
    }

    /// Notes what is wrong with `key`, and what to write: "contradicts `size`; leave one of them out".
    pub fn problem(&mut self, key: &str, what: impl Into<String>) {
        self.problems.push((key.to_owned(), what.into()));
    }

    /// What was decided about a value elsewhere, such as by the policy. A refusal is noted and told with the
    /// other mistakes.
    pub fn allowed<T>(&mut self, decision: Result<T>) -> Option<T> {
        decision.map_err(|refusal| self.refusals.push(*refusal)).ok()
    }

    /// Names keys that may stand here and are read elsewhere.
    pub fn allow(&mut self, keys: &[&str]) {
        self.known.extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Reports every mistake and every key that nobody asked for, in one error of `Kind::Config`. Keys
    /// that start with `kubernetes.io/` are the kubelet's and pass.
    pub fn finish(self) -> Result<()> {
        self.finish_with(Ok(()))
    }

    /// The same with what `read` made of the options: an error is told with the mistakes found before it.
    pub fn finish_with<T>(mut self, read: Result<T>) -> Result<T> {
        let lines = std::mem::take(&mut self.problems).into_iter();
        let mut lines: Vec<_> = lines.map(|(key, what)| format!("{} {what}", quoted(&key))).collect();
        let mut refusals = std::mem::take(&mut self.refusals);
        let made = match read {
            // The value of an unknown key is never shown: it may be a password under a misspelt name.
            Ok(made) => {
                lines.extend(self.unknown());
                Some(made)
            }
            // Who gave up on the way has not asked for all that it knows.
            Err(error) => {
                refusals.push(*error);
                None
            }
        };
        match (made, refusals.pop()) {
            (Some(made), None) if lines.is_empty() => Ok(made),
            (_, Some(only)) if lines.is_empty() && refusals.is_empty() => Err(Box::new(only)),
            (_, last) => Err(together(lines, refusals.into_iter().chain(last))),
        }
    }

    fn unknown(&self) -> Vec<String> {
        let keys = self.options.keys().filter(|key| !key.starts_with(KUBELET) && !self.known.contains(*key));
        keys.map(|key| format!("{} {}", quoted(key), self.suggestion(key))).collect()
    }

    /// Reads a value; a problem quotes it, for the key is known and no secret's.
    fn read<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&'a str) -> std::result::Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key)?;
        match read(text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.problem(key, format!("({}) {why}", shown(text)));
                None
            }
        }
    }

    fn suggestion(&self, key: &str) -> String {
        let lower = key.to_lowercase();
        let meant = nearest(key, self.known.iter().map(String::as_str));
        let secret =
            SECRET_PARTS.iter().any(|part| lower.contains(part)) || nearest(key, CREDENTIALS).is_some();
        match meant {
            Some(word) => format!("is not an option here; did you mean `{word}`?"),
            None if secret => {
                "is not an option; put it in the Secret named by secretRef, and change it if it was real: \
                 options can be read by everybody who can read the pod"
                    .to_owned()
            }
            None => {
                let known: Vec<_> = self.known.iter().map(String::as_str).collect();
                format!("is not an option here; known are {}", known.join(", "))
            }
        }
    }
}

/// One error of many, with the advice of all.
fn together(mut lines: Vec<String>, refusals: impl Iterator<Item = Error>) -> Box<Error> {
    let mut advice: Vec<String> = Vec::new();
    for refusal in refusals {
        let hint = refusal.advice().map(str::to_owned).filter(|hint| !advice.contains(hint));
        advice.extend(hint);
        // What is wrong with a key that could not be gone on without has been told already.
        let causes = refusal.causes();
        let missing = causes.strip_suffix("is missing");
        if !missing.is_some_and(|key| lines.iter().any(|line| line.starts_with(key))) {
            lines.push(refusal.chain());
        }
    }
    let error = Error::caused(Kind::Config, "read the volume's options", lines.join("; "));
    if advice.is_empty() { error } else { error.hint(advice.join("; ")) }
}

/// A value without its backticks, for the brackets behind its key.
fn shown(text: &str) -> String {
    quoted(text).trim_matches('`').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        let map: serde_json::Map<_, _> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), serde_json::json!(v))).collect();
        Options::parse(&serde_json::Value::Object(map).to_string()).unwrap()
    }

    /// What `read` makes of one value, and what `finish` says.
    fn one<T>(value: &str, read: impl Fn(&mut Reader<'_>) -> Option<T>) -> (Option<T>, String) {
        let options = options(&[("k", value)]);
        let mut reader = Reader::new(&options);
        let found = read(&mut reader);
        (found, reader.finish().map_or_else(|e| e.causes(), |()| String::new()))
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "one table of all shapes")]
    fn each_shape_says_what_to_write_instead() {
        type Read = fn(&mut Reader<'_>) -> Option<String>;
        let flag: Read = |r| r.flag("k").map(|v| v.to_string());
        let number: Read = |r| r.number("k", 1..=9).map(|v| v.to_string());
        let id: Read = |r| r.id("k").map(|v| v.to_string());
        let size: Read = |r| r.quantity("k").map(|v| v.to_string());
        let time: Read = |r| r.seconds("k").map(|v| v.to_string());
        let mode: Read = |r| r.mode("k").map(|v| format!("{v:o}"));
        let list: Read = |r| r.list("k").map(|v| v.join("|"));
        let word: Read = |r| r.choice("k", &[("a", "1"), ("b", "2")]).map(str::to_owned);
        let path: Read = |r| r.relative_path("k", &Pod::default(), "v").map(|v| v.to_string());
        let table: [(Read, &str, Option<&str>, &str); 30] = [
            (flag, "true", Some("true"), ""),
            (flag, "", None, ""),
            (flag, "yes", None, "`k` (yes) is not one of its words; write `true` or `false`"),
            (number, "9", Some("9"), ""),
            (number, "10", None, "`k` (10) is not a whole number from 1 to 9"),
            (number, "+3", None, "`k` (+3) is not a whole number from 1 to 9"),
            (id, "0", Some("0"), ""),
            (id, "4294967295", None, "`k` (4294967295) is not a whole number from 0 to 4294967294"),
            (id, "-1", None, "`k` (-1) is not a whole number from 0 to 4294967294"),
            (size, "1Ki", Some("1024"), ""),
            (size, "64m", None, "`k` (64m) counts thousandths of a byte; write 64Mi"),
            (time, "2m", Some("120s"), ""),
            (
                time,
                "soon",
                None,
                "`k` (soon) is not a time; write whole seconds or minutes, such as 30s or 2m",
            ),
            (mode, "0770", Some("770"), ""),
            (mode, "770", Some("770"), ""),
            (mode, "07777", Some("7777"), ""),
            (mode, "0", Some("0"), ""),
            (mode, "17777", None, "`k` (17777) is not a mode; write octal digits such as 0770"),
            (mode, "rwx", None, "`k` (rwx) is not a mode; write octal digits such as 0770"),
            (mode, "0o770", None, "`k` (0o770) is not a mode; write octal digits such as 0770"),
            (mode, "888", None, "`k` (888) is not a mode; write octal digits such as 0770"),
            (list, "a, b", Some("a|b"), ""),
            (list, "a,,b", None, "`k` (a,,b) has an empty element; write a,b"),
            (word, "b", Some("2"), ""),
            (word, "c", None, "`k` (c) is not one of its words; write `a` or `b`"),
            (path, "x/${volume}", Some("x/v"), ""),
            (
                path,
                "../x",
                None,
                "`k` (../x) has the component `..`; write a path such as team/data, without `..`",
            ),
            (
                path,
                "${pod.name}",
                None,
                "`k` (${pod.name}) needs ${pod.name}, and the kubelet gave no usable one",
            ),
            (flag, "tr\nue", None, "`k` has a newline or another control character; write it on one line"),
            (list, "a\0b", None, "`k` has a newline or another control character; write it on one line"),
        ];
        for (read, value, expect, problem) in table {
            assert_eq!(one(value, read), (expect.map(str::to_owned), problem.to_owned()), "{value}");
        }
    }

    #[test]
    fn a_list_may_be_written_one_element_a_line() {
        let empty = "`k` has an empty element or a control character; write a,b or one element a line";
        let table = [
            ("a,\n b \r\n\nc, d,\n", Some("a|b|c|d"), ""),
            (" \n", None, ""),
            ("a,,b", None, empty),
            ("a\u{1b}", None, empty),
        ];
        for (value, expect, problem) in table {
            let found = one(value, |r| r.lines("k").map(|v| v.join("|")));
            assert_eq!(found, (expect.map(str::to_owned), problem.to_owned()), "{value}");
        }
    }

    #[test]
    fn all_mistakes_come_out_together_without_the_values_of_unknown_keys() {
        let options = options(&[
            ("backend", "tmpfs"),
            ("sise", "hunter2"),
            ("mode", "rwx"),
            ("passwort", "hunter2"),
            ("frobnicate", "hunter2"),
            ("kubernetes.io/new", "x"),
        ]);
        let mut reader = Reader::new(&options);
        reader.allow(&["backend"]);
        let (size, source) = (reader.text("size"), reader.text("source"));
        reader.mode("mode");
        reader.required("source", source, "the folder on the node");
        assert_eq!(size, None);
        let error = reader.finish().unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert_eq!(
            error.chain(),
            "read the volume's options: `mode` (rwx) is not a mode; write octal digits such as 0770; \
             `source` is missing; write the folder on the node; \
             `frobnicate` is not an option here; known are backend, mode, size, source; \
             `passwort` is not an option; put it in the Secret named by secretRef, and change it if it was \
             real: options can be read by everybody who can read the pod; \
             `sise` is not an option here; did you mean `size`?"
        );
    }

    #[test]
    fn a_key_that_carries_a_secret_is_sent_to_the_secret() {
        for key in
            ["password", "Password", "username", "passwd", "cred", "accountSecret", "apitoken", "pasword"]
        {
            let options = options(&[(key, "hunter2")]);
            let mut reader = Reader::new(&options);
            reader.allow(&["size"]);
            let chain = reader.finish().unwrap_err().chain();
            assert!(chain.contains("secretRef") && !chain.contains("hunter2"), "{key}: {chain}");
        }
    }

    #[test]
    fn refusals_come_out_with_the_mistakes() {
        let refusal = |why: &str| -> Result<()> {
            Err(Error::caused(Kind::Config, "use it", why.to_owned()).hint("ask the administrator"))
        };
        let options = options(&[("mode", "rwx"), ("sise", "1")]);
        let read = || {
            let mut reader = Reader::new(&options);
            reader.mode("mode");
            reader
        };
        let mut reader = read();
        assert_eq!(reader.allowed(refusal("it is off")), None);
        reader.allow(&["size"]);
        let error = reader.finish().unwrap_err();
        let mode = "read the volume's options: `mode` (rwx) is not a mode; write octal digits such as 0770";
        let expect = format!("{mode}; `sise` is not an option here; did you mean `size`?; use it: it is off");
        assert_eq!(error.chain(), expect);
        // A backend that gives up has not asked for all keys: no word about unknown ones.
        let error = read().finish_with(refusal("it is off")).unwrap_err();
        assert_eq!(error.chain(), format!("{mode}; use it: it is off"));
        assert_eq!(error.advice(), Some("ask the administrator"));
        // What is missing is told once, and a lone refusal as it is.
        let mut reader = read();
        reader.required("source", None::<()>, "a folder");
        let error = reader.finish_with(refusal("`source` is missing")).unwrap_err();
        assert_eq!(error.chain(), format!("{mode}; `source` is missing; write a folder"));
        let none = Options::default();
        assert_eq!(Reader::new(&none).finish_with(refusal("no")).unwrap_err().chain(), "use it: no");
    }

    #[test]
    fn a_missing_key_is_reported_once() {
        let (_, problem) = one("x", |r| {
            let value = r.number("k", 0..=1);
            r.required("k", value, "a number")
        });
        assert_eq!(problem, "`k` (x) is not a whole number from 0 to 1");
    }

    proptest! {
        #[test]
        fn no_value_makes_a_reader_panic(key in "\\PC{0,8}", value in ".{0,24}") {
            let options = options(&[(&key, &value)]);
            let mut reader = Reader::new(&options);
            let _ = (reader.text(&key), reader.flag(&key), reader.number(&key, 0..=u64::MAX), reader.id(&key));
            let _ = (reader.quantity(&key), reader.seconds(&key), reader.mode(&key), reader.list(&key));
            let _ = reader.relative_path(&key, &Pod::default(), "");
            let _ = reader.finish();
        }

        #[test]
        fn an_unknown_key_s_value_is_never_shown(key in "[a-z]{1,12}", value in "[0-9]{6,12}") {
            let options = options(&[(&key, &value)]);
            let mut reader = Reader::new(&options);
            reader.allow(&["size", "mode"]);
            if let Err(error) = reader.finish() {
                prop_assert!(!error.chain().contains(&value));
            }
        }

        #[test]
        fn every_mode_is_read_back(mode in 0..=0o7777_u32) {
            prop_assert_eq!(one(&format!("{mode:o}"), |r| r.mode("k")).0, Some(mode));
            prop_assert_eq!(one(&format!("{mode:#05o}").replace("0o", "0"), |r| r.mode("k")).0, Some(mode));
        }
    }
}
