//! Shell patterns: `*`, `?`, `[a-z]` and `[!a-z]`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::options::quoted;

/// A pattern, known to be well-formed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Glob(String);

/// One place of a pattern.
enum Token<'g> {
    Any,
    One,
    Class { not: bool, members: &'g str },
    Char(char),
}

impl Glob {
    /// Checks a pattern; the error says what is wrong with it.
    pub fn new(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        if text.is_empty() {
            return Err("is empty; write `*` for everything".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("has a control character".to_owned());
        }
        match tokens(&text) {
            Some(_) => Ok(Self(text)),
            None => Err(format!("{} has a `[` without its `]`", quoted(&text))),
        }
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches the whole of `text`; `*` matches `/` too.
    pub fn matches(&self, text: &str) -> bool {
        tokens(&self.0).is_some_and(|tokens| matches(&tokens, &text.chars().collect::<Vec<_>>()))
    }

    /// The same without regard to case, for host names.
    pub fn matches_host(&self, host: &str) -> bool {
        Self(self.0.to_lowercase()).matches(&host.to_lowercase())
    }

    /// Whether it matches a path component by component, so that `*` never crosses a `/`.
    pub fn matches_path(&self, path: &str) -> bool {
        let (mine, its) = (self.0.split('/'), path.split('/'));
        mine.clone().count() == its.clone().count()
            && mine.zip(its).all(|(pattern, part)| Self(pattern.to_owned()).matches(part))
    }
}

/// Whether one of `globs` matches `text`.
pub fn matches_any(globs: &[Glob], text: &str) -> bool {
    globs.iter().any(|glob| glob.matches(text))
}

/// `["*"]`.
pub(super) fn everything() -> Vec<Glob> {
    vec![Glob("*".to_owned())]
}

fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            '[' => {
                let not = rest.starts_with('!');
                let class = rest.get(usize::from(not)..)?;
                // A `]` in the first place is a member.
                let skip = class.chars().next()?.len_utf8();
                let end = skip + class.get(skip..)?.find(']')?;
                rest = class.get(end + 1..)?;
                Token::Class { not, members: class.get(..end)? }
            }
            c => Token::Char(c),
        });
    }
    Some(tokens)
}

/// Greedy with one place to return to, so that the time is at most the product of both lengths.
fn matches(tokens: &[Token<'_>], text: &[char]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = text.get(at) {
        match tokens.get(token) {
            Some(Token::Any) => {
                star = Some((token, at));
                token += 1;
            }
            Some(other) if other.takes(*c) => {
                token += 1;
                at += 1;
            }
            _ => match &mut star {
                Some((back, from)) => {
                    *from += 1;
                    (token, at) = (*back + 1, *from);
                }
                None => return false,
            },
        }
    }
    tokens.get(token..).is_some_and(|left| left.iter().all(|token| matches!(token, Token::Any)))
}

impl Token<'_> {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Char(own) => *own == c,
            Self::Class { not, members } => contains(members, c) != *not,
        }
    }
}

/// Whether `c` is among members such as `a-z0-9_`.
fn contains(members: &str, c: char) -> bool {
    let mut chars = members.chars().peekable();
    while let Some(first) = chars.next() {
        let mut ahead = chars.clone();
        let last = (ahead.next() == Some('-')).then(|| ahead.next()).flatten();
        if last.is_some() {
            chars = ahead;
        }
        if (first..=last.unwrap_or(first)).contains(&c) {
            return true;
        }
    }
    false
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(from)?)
            .map_err(|why| D::Error::custom(format_args!("the pattern {why}")))
    }
}

impl JsonSchema for Glob {
    fn schema_name() -> Cow<'static, str> {
        "Glob".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "description": "a pattern with *, ?, [a-z] and [!a-z]"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_a_shell_s_do() {
        let table = [
            ("*", "", true),
            ("*", "a/b", true),
            ("team-*", "team-a", true),
            ("team-*", "xteam-a", false),
            ("*@storage.example:*", "bob@storage.example:/x", true),
            ("?", "", false),
            ("?", "ä", true),
            ("[0-9]*", "22", true),
            ("[0-9]*", "x22", false),
            ("[!a-c]x", "dx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[a-]", "-", true),
            ("a*b*c", "aXXbYYbc", true),
            ("a*b*c", "aXXbYY", false),
            ("**", "x", true),
            ("A", "a", false),
        ];
        for (pattern, text, expect) in table {
            assert_eq!(Glob::new(pattern).unwrap().matches(text), expect, "{pattern} {text}");
        }
        for pattern in ["", "[", "[]", "[!]", "a[b", "\n"] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_star_in_a_path_stays_in_its_folder() {
        let glob = Glob::new("/dev/disk/by-id/virtio-data-*").unwrap();
        assert!(glob.matches_path("/dev/disk/by-id/virtio-data-1"));
        for path in
            ["/dev/disk/by-id/virtio-data-1/../../sda", "/dev/disk/by-id", "dev/disk/by-id/virtio-data-1"]
        {
            assert!(!glob.matches_path(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_hangs_or_panics(pattern in "[*?a\\[\\]!-]{0,40}|\\PC{0,12}", text in "[ab\\-\\]]{0,200}|\\PC{0,12}") {
            if let Ok(glob) = Glob::new(pattern) {
                let _ = (glob.matches(&text), glob.matches_path(&text));
            }
        }

        #[test]
        fn plain_text_matches_itself_alone(text in "[a-z0-9./-]{1,16}", other in "[a-z0-9./-]{1,16}") {
            let glob = Glob::new(text.clone()).unwrap();
            prop_assert!(glob.matches(&text) && glob.matches_path(&text));
            prop_assert_eq!(glob.matches(&other), text == other);
        }
    }
}
