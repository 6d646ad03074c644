//! The variables in texts of the configuration: `${path}`, `${attribute.serial}`.
//!
//! What is put in comes from devices, and so from whoever made or plugged them in: it is checked before it
//! becomes a part of a path, and what a terminal or a runtime could choke on is refused everywhere.

use crate::config::nearest;

/// Variables of what a container gets.
pub const CONTAINER: &[&str] =
    &["id", "path", "containerPath", "name", "index", "resource", "attribute.NAME"];
/// Variables of a node's path in the container.
pub const NODE: &[&str] = &["name", "index", "attribute.NAME"];
/// Variables of a health check.
pub const HEALTH: &[&str] = &["id", "path", "name", "resource", "attribute.NAME"];

/// What is put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable<'t> {
    /// `${id}`: as the kubelet knows the device.
    Id,
    /// `${path}`: on the node.
    Path,
    /// `${containerPath}`: in the container.
    ContainerPath,
    /// `${name}`: the kernel's name.
    Name,
    /// `${index}`: which of the container's devices it is.
    Index,
    /// `${resource}`: `domain/name`.
    Resource,
    /// `${attribute.NAME}`.
    Attribute(&'t str),
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'t> {
    /// As it stands.
    Text(&'t str),
    /// To be replaced.
    Variable(Variable<'t>),
}

/// Takes a text apart; `known` is [`CONTAINER`], [`NODE`] or [`HEALTH`]. The error says what is wrong with it.
pub fn pieces<'t>(text: &'t str, known: &[&str]) -> Result<Vec<Piece<'t>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after
            .split_once('}')
            .ok_or_else(|| format!("`{}` has a `${{` without its `}}`", text.escape_debug()))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Variable(variable(name, known).ok_or_else(|| unknown(name, known))?));
        rest = tail;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

fn variable<'t>(name: &'t str, known: &[&str]) -> Option<Variable<'t>> {
    let (word, variable) = match (name, name.strip_prefix("attribute.")) {
        ("id", _) => ("id", Variable::Id),
        ("path", _) => ("path", Variable::Path),
        ("containerPath", _) => ("containerPath", Variable::ContainerPath),
        ("name", _) => ("name", Variable::Name),
        ("index", _) => ("index", Variable::Index),
        ("resource", _) => ("resource", Variable::Resource),
        (_, Some(key)) if !key.is_empty() => ("attribute.NAME", Variable::Attribute(key)),
        _ => return None,
    };
    known.contains(&word).then_some(variable)
}

fn unknown(name: &str, known: &[&str]) -> String {
    let all: Vec<_> = known.iter().map(|known| format!("`${{{known}}}`")).collect();
    let near = nearest(name, known.iter().copied());
    let meant = near.map(|near| format!("did you mean `${{{near}}}`? ")).unwrap_or_default();
    format!("`${{{}}}` is no variable here; {meant}known are {}", name.escape_debug(), all.join(", "))
}

/// The text with `value` in the place of each variable. The text was checked with the configuration; one that
/// was not is an error.
pub fn fill(
    text: &str,
    value: &mut dyn FnMut(Variable<'_>) -> Result<String, String>,
) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    for piece in pieces(text, CONTAINER)? {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Variable(variable) => filled.push_str(&value(variable)?),
        }
    }
    Ok(filled)
}

/// Whether the text differs between devices.
pub fn varies(text: &str) -> bool {
    pieces(text, CONTAINER).is_ok_and(|pieces| {
        pieces.iter().any(|p| !matches!(p, Piece::Text(_) | Piece::Variable(Variable::Resource)))
    })
}

/// A value that may stand in any text: it has no control characters.
pub fn plain(value: String) -> Result<String, String> {
    if value.chars().any(char::is_control) {
        return Err(format!("`{}` has control characters", value.escape_debug()));
    }
    Ok(value)
}

/// A value that may be a part of a path's component: it leads nowhere else.
pub fn component(value: String) -> Result<String, String> {
    let value = plain(value)?;
    if value.is_empty() || value.contains('/') || value == "." || value == ".." {
        return Err(format!("`{value}` can't be a part of a path"));
    }
    Ok(value)
}

/// A path that begins at the root and says where it leads; `..` in it, or none of its parts, is refused.
pub fn absolute(path: String) -> Result<String, String> {
    let plain = plain(path)?;
    let Some(below) = plain.strip_prefix('/') else {
        return Err(format!("`{plain}` is not absolute; begin it with `/`"));
    };
    if below.trim_matches('/').is_empty() {
        return Err(format!("`{plain}` is the root folder; name something below it"));
    }
    if below.split('/').any(|part| part == "..") {
        return Err(format!("`{plain}` has `..`; write where it leads"));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_apart() {
        let expect = [
            Piece::Text("/dev/"),
            Piece::Variable(Variable::Name),
            Piece::Text("-"),
            Piece::Variable(Variable::Attribute("serial")),
        ];
        assert_eq!(pieces("/dev/${name}-${attribute.serial}", NODE).unwrap(), expect);
        assert_eq!(pieces("", NODE).unwrap(), []);
    }

    #[test]
    fn a_variable_that_is_not_known_is_refused_with_what_was_meant() {
        for (text, known, expect) in [
            ("${pth}", CONTAINER, "`${pth}` is no variable here; did you mean `${path}`?"),
            ("${path}", NODE, "known are `${name}`, `${index}`, `${attribute.NAME}`"),
            ("${index}", HEALTH, "is no variable here"),
            ("${attribute.}", NODE, "is no variable here"),
            ("${name", NODE, "without its `}`"),
            ("${a\nb}", NODE, "`${a\\nb}`"),
        ] {
            let why = pieces(text, known).unwrap_err();
            assert!(why.contains(expect), "{text}: {why}");
        }
    }

    #[test]
    fn values_are_put_in_once() {
        let mut value = |variable: Variable<'_>| match variable {
            Variable::Name => Ok("${id}".to_owned()),
            other => Err(format!("{other:?}")),
        };
        assert_eq!(fill("a${name}b", &mut value).unwrap(), "a${id}b");
        assert_eq!(fill("${index}", &mut value).unwrap_err(), "Index");
    }

    #[test]
    fn what_a_device_says_of_itself_leads_nowhere() {
        for value in ["..", ".", "", "a/b", "a\0", "a\n"] {
            assert!(component(value.to_owned()).is_err(), "{value:?}");
        }
        for path in ["dev", "/", "//", "/a/../b", "/..", "/a\0"] {
            assert!(absolute(path.to_owned()).is_err(), "{path:?}");
        }
        assert_eq!(absolute("/dev/a..b".to_owned()).unwrap(), "/dev/a..b");
    }
}
