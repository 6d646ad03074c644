//! The values of the volume's Secret, and how a text is rid of them.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use node::{Error, Kind, Result};
use zeroize::Zeroizing;

use super::{Options, quoted};

/// What a secret's key starts with; its value is standard base64.
const PREFIX: &str = "kubernetes.io/secret/";

/// Below this many characters a value is hidden only where it stands alone as a word: a secret of one
/// letter would otherwise blank the message.
const SHORT: usize = 4;

/// A Secret's values by key. Cleared when dropped; `Debug` shows the keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, Zeroizing<Vec<u8>>>);

impl Secrets {
    /// Decodes every `kubernetes.io/secret/KEY`. A key has to be one that Kubernetes would accept, for it
    /// may become a file's name.
    pub(super) fn of(options: &Options) -> Result<Self> {
        let mut secrets = BTreeMap::new();
        let keys = options.keys().filter_map(|key| Some((key, key.strip_prefix(PREFIX)?)));
        for (key, name) in keys {
            if !is_name(name) {
                return Err(refused(name, "its name is not one that a Secret's key can have"));
            }
            let text = options.get(key).unwrap_or_default();
            // The decoder's own words would quote a byte of the value and its place.
            let value = STANDARD.decode(text).map_err(|_| refused(name, "its value is not base64"))?;
            secrets.insert(name.to_owned(), Zeroizing::new(value));
        }
        Ok(Self(secrets))
    }

    /// The value of `name`, as it stands in the Secret: a trailing newline is part of it.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(|value| value.as_slice())
    }

    /// Names and values, in the names' order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether the volume has no Secret.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `text` with every secret replaced by `[secret KEY]`: as it is, trimmed, line by line, with commas
    /// doubled as mount.cifs writes them, in base64, percent-encoded, and escaped for a shell, for JSON
    /// and for /proc. A value of less than four characters is replaced where it stands as a word.
    pub fn redact(&self, text: &str) -> String {
        let mut found = Vec::new();
        for (name, value) in self.iter() {
            for form in forms(value) {
                found.extend(places(text, &form).map(|(start, end)| (start, end, name)));
            }
        }
        found.sort_unstable_by_key(|(start, end, _)| (*start, std::cmp::Reverse(*end)));
        replaced(text, &found)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")?;
        f.debug_set().entries(self.names()).finish()
    }
}

/// Kubernetes' `IsConfigMapKey`: letters, digits, `-`, `_` and `.`, at most 253, and no way up a folder.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=253).contains(&name.len()) && name.chars().all(plain) && name != "." && !name.starts_with("..")
}

fn refused(name: &str, why: &str) -> Box<Error> {
    Error::caused(Kind::Decode, format!("read the secret {}", quoted(name)), why)
}

/// Every text in which a value may come up in somebody's message.
fn forms(value: &[u8]) -> Vec<Zeroizing<String>> {
    let text = Zeroizing::new(String::from_utf8_lossy(value).into_owned());
    let trimmed = text.trim();
    let mut all: Vec<_> = [text.as_str(), trimmed].into_iter().flat_map(spellings).collect();
    for line in trimmed.lines().filter(|line| line.trim().chars().count() >= SHORT) {
        all.extend(spellings(line.trim()));
    }
    for bytes in [value, value.trim_ascii()] {
        for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            all.push(engine.encode(bytes));
        }
        all.extend(percent_encoded(bytes));
    }
    all.sort_unstable();
    all.dedup();
    all.into_iter().filter(|form| !form.trim().is_empty()).map(Zeroizing::new).collect()
}

/// A text as it is and as different programs escape it.
fn spellings(text: &str) -> Vec<String> {
    let octal = |c: char| match c {
        ' ' | ',' | '\t' | '\n' | '\\' | '#' => format!("\\{:03o}", u32::from(c)),
        c => c.to_string(),
    };
    let backslashed = |c: char| if c.is_alphanumeric() { c.to_string() } else { format!("\\{c}") };
    let json = serde_json::to_string(text).unwrap_or_default();
    vec![
        text.to_owned(),
        text.replace(',', ",,"),
        text.replace('\'', "'\\''"),
        text.replace('"', "\\\""),
        text.chars().map(octal).collect(),
        text.chars().map(backslashed).collect(),
        text.chars().flat_map(char::escape_debug).collect(),
        json.trim_matches('"').to_owned(),
    ]
}

/// Percent-encoded, as strict encoders, as those that keep a path's or a form's characters, in both cases.
fn percent_encoded(bytes: &[u8]) -> Vec<String> {
    let encode = |keep: &[u8], space: Option<char>| {
        bytes.iter().fold(String::new(), |mut out, byte| {
            match byte {
                b' ' if space.is_some() => out.extend(space),
                b if b.is_ascii_alphanumeric() || keep.contains(b) => out.push(char::from(*b)),
                b => out.extend(['%', hex(b >> 4), hex(b & 15)]),
            }
            out
        })
    };
    let upper = [
        encode(b"-._~", None),
        encode(b"-._~", Some('+')),
        encode(b"-._~/", None),
        encode(b"-._~!$&'()*+,;=:@/", None),
    ];
    upper.into_iter().flat_map(|text| [lower_hex(&text), text]).collect()
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16).unwrap_or('0').to_ascii_uppercase()
}

/// The digits behind each `%` in lower case.
fn lower_hex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut left = 0_u8;
    for c in text.chars() {
        out.push(if left > 0 { c.to_ascii_lowercase() } else { c });
        left = if c == '%' { 2 } else { left.saturating_sub(1) };
    }
    out
}

/// Where `form` stands in `text`, overlapping places included, as byte offsets.
fn places(text: &str, form: &str) -> impl Iterator<Item = (usize, usize)> {
    let short = form.trim().chars().count() < SHORT;
    let starts = text.char_indices().map(|(at, _)| at);
    let whole = starts.filter(move |at| text.get(*at..).is_some_and(|rest| rest.starts_with(form)));
    let places = whole.map(move |at| (at, at + form.len()));
    places.filter(move |(start, end)| !short || is_word(text, *start, *end)).collect::<Vec<_>>().into_iter()
}

/// Whether no letter or digit touches the place from outside.
fn is_word(text: &str, start: usize, end: usize) -> bool {
    let before = text.get(..start).and_then(|t| t.chars().next_back());
    let after = text.get(end..).and_then(|t| t.chars().next());
    !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
}

/// `text` with the places, sorted by start, exchanged; those that overlap become one.
fn replaced(text: &str, found: &[(usize, usize, &str)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (start, end, name) in found {
        if *start >= done {
            out.push_str(text.get(done..*start).unwrap_or_default());
            out.extend(["[secret ", name, "]"]);
        }
        done = done.max(*end);
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secrets(pairs: &[(&str, &[u8])]) -> Secrets {
        Secrets(pairs.iter().map(|(k, v)| ((*k).to_owned(), Zeroizing::new(v.to_vec()))).collect())
    }

    fn parsed(key: &str, value: &str) -> Result<Secrets> {
        let json = serde_json::json!({format!("{PREFIX}{key}"): value}).to_string();
        Options::parse(&json)?.secrets()
    }

    #[test]
    fn a_bad_secret_is_named_and_not_quoted() {
        let table = [
            ("password", "hunter2!", "its value is not base64"),
            ("password", "aHVudGVyMg", "its value is not base64"),
            ("../passwd", "aHVudGVyMg==", "its name is not one"),
            ("..", "", "its name is not one"),
            ("", "", "its name is not one"),
            ("a b", "", "its name is not one"),
        ];
        for (key, value, expect) in table {
            let error = parsed(key, value).unwrap_err();
            assert!(error.chain().contains(expect), "{key}: {}", error.chain());
            assert!(!error.chain().contains("hunter2") && !error.chain().contains("aHVud"), "{key}");
        }
    }

    #[test]
    fn the_value_is_what_the_secret_holds() {
        assert_eq!(parsed("ssh-privatekey", "YQo=").unwrap().get("ssh-privatekey"), Some(&b"a\n"[..]));
        assert_eq!(parsed(".dockerconfigjson", "").unwrap().get(".dockerconfigjson"), Some(&b""[..]));
        assert_eq!(parsed("b", "/+8=").unwrap().get("b"), Some(&[0xff, 0xef][..]));
    }

    #[test]
    fn every_spelling_of_a_secret_is_replaced() {
        let table: [(&[u8], &str, &str); 14] = [
            (b"hunter2", "user=bob,pass=hunter2,x", "user=bob,pass=[secret k],x"),
            (b"p,w\n", "pass=p,,w=", "pass=[secret k]="),
            (b"p,w long", "pass=p,,w long!", "pass=[secret k]!"),
            (b"hunter2", "aHVudGVyMg==", "[secret k]"),
            (b"hunter2", "aHVudGVyMg", "[secret k]"),
            (b"hunter2\n", "aHVudGVyMgo= aHVudGVyMg==", "[secret k] [secret k]"),
            (b"a b/c?", "x=a%20b%2Fc%3F a+b%2fc%3f a%20b/c%3F", "x=[secret k] [secret k] [secret k]"),
            (b"a b,c", "a\\040b\\054c a\\ b\\,c", "[secret k] [secret k]"),
            (b"it's me", "'it'\\''s me'", "'[secret k]'"),
            (b"say \"hi\"", r#"{"p":"say \"hi\""}"#, r#"{"p":"[secret k]"}"#),
            (b"first line\nsecond line", "in `second line` and first line", "in `[secret k]` and [secret k]"),
            (b"x", "an axe, x, `x` and (x)x1", "an axe, [secret k], `[secret k]` and ([secret k])x1"),
            (b"", "nothing to hide", "nothing to hide"),
            (b"\n \n", "nothing to\n \nhide", "nothing to\n \nhide"),
        ];
        for (value, text, expect) in table {
            assert_eq!(secrets(&[("k", value)]).redact(text), expect, "{text}");
        }
    }

    #[test]
    fn overlapping_secrets_leave_nothing_of_either() {
        let two = secrets(&[("a", b"12345678"), ("b", b"56789abc")]);
        assert_eq!(two.redact("<123456789abc>"), "<[secret a]>");
        assert_eq!(secrets(&[("a", b"abab")]).redact("ababab"), "[secret a]");
        // A secret that is a word of the mark itself does not eat the mark.
        assert_eq!(secrets(&[("k", b"secret")]).redact("a secret"), "a [secret k]");
    }

    #[test]
    fn debug_shows_names_alone() {
        assert_eq!(format!("{:?}", secrets(&[("k", b"hunter2")])), r#"Secrets{"k"}"#);
    }

    proptest! {
        #[test]
        fn no_secret_of_four_letters_survives(value in "[a-z,' /\\\\é]{4,12}", before in ".{0,8}", after in ".{0,8}") {
            prop_assume!(value.trim().chars().count() >= SHORT);
            let text = format!("{before}{value}{after}{}", STANDARD.encode(&value));
            let out = secrets(&[("K", value.as_bytes())]).redact(&text);
            prop_assert!(!out.replace("[secret K]", "\n").contains(&value), "{}", out);
        }
    }
}
