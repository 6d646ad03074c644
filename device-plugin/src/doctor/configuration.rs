//! Whether the configuration is one.

use std::path::Path;

use super::Finding;
use crate::config::{self, Config};

const WHAT: &str = "configuration";

/// The configuration at `path`, or the default one where that is none.
pub(super) fn read(path: &Path) -> (Config, Finding) {
    match config::read(path).and_then(|text| Config::parse(&text)) {
        Ok(config) => {
            let finding = good(path, &config);
            (config, finding)
        }
        Err(error) => {
            let remedy = error.advice().unwrap_or("write or correct the file; `--config` names another one");
            (Config::default(), Finding::problem(WHAT, error.chain(), remedy))
        }
    }
}

fn good(path: &Path, config: &Config) -> Finding {
    let path = path.display();
    match config.resources.len() {
        0 => Finding::warning(
            WHAT,
            format!("`{path}` offers nothing"),
            "add `resources` to it; `schema` says how",
        ),
        1 => Finding::fine(WHAT, format!("`{path}` is valid and has 1 resource")),
        count => Finding::fine(WHAT, format!("`{path}` is valid and has {count} resources")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::super::process::tests::Folder;
    use super::*;

    #[test]
    fn a_configuration_is_valid_or_says_why_not() {
        let folder = Folder::new("configuration");
        for (name, text, state, has) in [
            ("good", "resources: [{name: a.b/c, devices: [{count: 1}]}]\n", State::Fine, "1 resource"),
            ("empty", "resources: []\n", State::Warning, "offers nothing"),
            ("typo", "resorces: []\n", State::Problem, "resorces"),
        ] {
            let path = folder.write(name, text);
            let (_, finding) = read(&path);
            assert_eq!(finding.state, state, "{name}: {finding:?}");
            assert!(finding.why.contains(has), "{name}: {finding:?}");
        }
        let (config, finding) = read(&folder.path("missing"));
        assert_eq!((config, finding.state), (Config::default(), State::Problem));
    }
}
