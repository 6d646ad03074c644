//! A path below a folder that cannot lead out of it by its own words.

use std::fmt;
use std::path::Path;

use node::{Error, Kind, Result};

use super::quoted;

/// Components joined by `/`: none empty, `.` or `..`, none above 255 bytes, 4096 bytes together, no
/// control character. Symlinks are the business of whoever opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelativePath(String);

impl RelativePath {
    /// Checks `text`; the error is `Kind::Config` and says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self> {
        Self::check(text).map_err(|why| {
            Error::caused(Kind::Config, format!("read the path {}", quoted(text)), why)
                .hint("write a path such as `team/data`, without a leading `/` and without `..`")
        })
    }

    /// The same with the plain reason, for a list of problems.
    pub fn check(text: &str) -> std::result::Result<Self, String> {
        if text.len() > 4096 {
            return Err("is longer than 4096 bytes".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("has a control character".to_owned());
        }
        if text.starts_with('/') {
            return Err("starts with `/`".to_owned());
        }
        for component in text.split('/') {
            match component {
                "" => return Err("has an empty component".to_owned()),
                "." | ".." => return Err(format!("has the component `{component}`")),
                long if long.len() > 255 => return Err("has a component of more than 255 bytes".to_owned()),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The path's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, at least one.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl AsRef<Path> for RelativePath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_that_could_lead_out_is_refused() {
        let long = format!("a/{}", "b".repeat(256));
        let deep = "a/".repeat(2100) + "a";
        let table = [
            ("", "empty component"),
            ("/a", "starts with `/`"),
            ("a/", "empty component"),
            ("a//b", "empty component"),
            ("..", "component `..`"),
            ("a/../b", "component `..`"),
            ("a/.", "component `.`"),
            ("a\0b", "control character"),
            ("a\nb", "control character"),
            (&long, "more than 255 bytes"),
            (&deep, "longer than 4096 bytes"),
        ];
        for (text, expect) in table {
            let error = RelativePath::parse(text).unwrap_err();
            assert!(error.chain().contains(expect), "{text:?}: {}", error.chain());
        }
        for text in ["a", "a/b/c", "..a/b..", "a b", "ü/-x", "..."] {
            assert_eq!(RelativePath::parse(text).unwrap().as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn what_passes_has_only_plain_components(text in "[a./\\\\~]{0,12}|\\PC{0,16}") {
            if let Ok(path) = RelativePath::check(&text) {
                let plain = |c| matches!(c, std::path::Component::Normal(_));
                prop_assert!(path.as_path().components().all(plain));
                prop_assert_eq!(path.as_path().components().count(), path.components().count());
            }
        }
    }
}
