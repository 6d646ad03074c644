//! The variables in a profile's arguments and environment.

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
    /// `${fsGroup}`: the pod's group, or 0.
    FsGroup,
}

/// Takes an argument apart; the error says what is wrong with it.
pub fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
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

fn variable(name: &str) -> Result<Piece<'_>, String> {
    Ok(match (name, name.split_once('.')) {
        ("source", _) => Piece::Source,
        ("mountpoint", _) => Piece::Mountpoint,
        ("fsGroup", _) => Piece::FsGroup,
        (_, Some(("option", key))) if !key.is_empty() => Piece::Option(key),
        (_, Some(("secret", key))) if !key.is_empty() => Piece::Secret(key),
        _ if template::VARIABLES.contains(&name) => Piece::Pod(name),
        _ => return Err(unknown(name)),
    })
}

fn unknown(name: &str) -> String {
    let all = ["source", "mountpoint", "option.NAME", "secret.KEY", "fsGroup"]
        .into_iter()
        .chain(template::VARIABLES);
    let known: Vec<_> = all.clone().map(|known| format!("${{{known}}}")).collect();
    let meant = nearest(name, all).map(|near| format!("did you mean ${{{near}}}? "));
    format!(
        "has the unknown variable {}; {}known are {}",
        quoted(name),
        meant.unwrap_or_default(),
        known.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_taken_apart() {
        let text = "port=${option.port},IdentityFile=${secret.ssh-privatekey}";
        let expect = [
            Piece::Text("port="),
            Piece::Option("port"),
            Piece::Text(",IdentityFile="),
            Piece::Secret("ssh-privatekey"),
        ];
        assert_eq!(pieces(text).unwrap(), expect);
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
