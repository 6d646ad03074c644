//! The variables in a profile's arguments and environment.

use node::{Error, Kind, Result};

use crate::options::{nearest, quoted, template};

/// A part of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'t> {
    /// As it stands.
    Text(&'t str),
    /// `${source}`.
    Source,
    /// `${mountpoint}`.
    Mountpoint,
    /// `${option.NAME}`.
    Option(&'t str),
    /// `${secret.KEY}`: the path of the memory file.
    Secret(&'t str),
    /// `${pod.name}` and the like, with the whole name; see [`template::VARIABLES`].
    Pod(&'t str),
}

/// Takes an argument apart; the error says what is wrong with it.
pub fn pieces(text: &str) -> std::result::Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) =
            after.split_once('}').ok_or_else(|| format!("{} has a `${{` without its `}}`", quoted(text)))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(variable(name)?);
        rest = tail;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// Puts an argument together. `value` gives each variable's value; what it has none for is an error of
/// `Kind::Config`.
pub fn expand(text: &str, value: impl Fn(Piece<'_>) -> Option<String>) -> Result<String> {
    let doing = || format!("expand the argument {}", quoted(text));
    let mut out = String::new();
    for piece in pieces(text).map_err(|why| Error::caused(Kind::Config, doing(), why))? {
        if let Piece::Text(text) = piece {
            out.push_str(text);
            continue;
        }
        let missing = || Error::caused(Kind::Config, doing(), format!("the volume gives no {}", name(piece)));
        out.push_str(&value(piece).ok_or_else(missing)?);
    }
    Ok(out)
}

fn variable(name: &str) -> std::result::Result<Piece<'_>, String> {
    Ok(match (name, name.split_once('.')) {
        ("source", _) => Piece::Source,
        ("mountpoint", _) => Piece::Mountpoint,
        (_, Some(("option", key))) if !key.is_empty() => Piece::Option(key),
        (_, Some(("secret", key))) if !key.is_empty() => Piece::Secret(key),
        _ if template::VARIABLES.contains(&name) => Piece::Pod(name),
        _ => return Err(unknown(name)),
    })
}

fn unknown(name: &str) -> String {
    let all = ["source", "mountpoint", "option.NAME", "secret.KEY"].into_iter().chain(template::VARIABLES);
    let known: Vec<_> = all.clone().map(|known| format!("${{{known}}}")).collect();
    let meant = nearest(name, all).map(|near| format!("did you mean ${{{near}}}? "));
    format!(
        "has the unknown variable {}; {}known are {}",
        quoted(name),
        meant.unwrap_or_default(),
        known.join(", ")
    )
}

fn name(piece: Piece<'_>) -> String {
    match piece {
        Piece::Text(text) => quoted(text),
        Piece::Source => "`source`".to_owned(),
        Piece::Mountpoint => "mountpoint".to_owned(),
        Piece::Option(key) => format!("option {}", quoted(key)),
        Piece::Secret(key) => format!("secret {}", quoted(key)),
        Piece::Pod(name) => quoted(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_taken_apart_and_put_together() {
        let text = "port=${option.port},IdentityFile=${secret.ssh-privatekey}";
        let expect = [
            Piece::Text("port="),
            Piece::Option("port"),
            Piece::Text(",IdentityFile="),
            Piece::Secret("ssh-privatekey"),
        ];
        assert_eq!(pieces(text).unwrap(), expect);
        let value = |piece: Piece<'_>| match piece {
            Piece::Option("port") => Some("22".to_owned()),
            Piece::Secret(key) => Some(format!("/proc/1/fd/{}", key.len())),
            _ => None,
        };
        assert_eq!(expand(text, value).unwrap(), "port=22,IdentityFile=/proc/1/fd/14");
        // A value is not looked at again.
        assert_eq!(expand("${source}", |_| Some("${mountpoint}".to_owned())).unwrap(), "${mountpoint}");
        assert!(expand("${source}", value).unwrap_err().chain().contains("gives no `source`"));
    }

    #[test]
    fn an_unknown_variable_is_refused() {
        for (text, expect) in [
            ("${sorce}", "did you mean ${source}?"),
            ("${option.}", "unknown variable"),
            ("${HOME}", "known are ${source}"),
            ("${pod.name}${x", "without its `}`"),
        ] {
            assert!(pieces(text).unwrap_err().contains(expect), "{text}");
        }
    }
}
