//! Whether the configuration is one.

use std::path::Path;

use super::Finding;
use crate::config::Config;

const WHAT: &str = "configuration";

/// The configuration at `path`, or the default one where that is none.
pub(super) fn read(path: &Path) -> (Config, Vec<Finding>) {
    match Config::load(path) {
        Ok(config) => {
            let findings = good(path, &config);
            (config, findings)
        }
        Err(error) => {
            let remedy = error.advice().unwrap_or("write or correct the file; `--config` names another one");
            (Config::default(), vec![Finding::problem(WHAT, error.chain(), remedy)])
        }
    }
}

/// What is to be said of a good one: what works and is hardly meant.
fn good(path: &Path, config: &Config) -> Vec<Finding> {
    let odd = config.warnings();
    if !odd.is_empty() {
        return odd
            .into_iter()
            .map(|why| Finding::warning(WHAT, why, "`validate` and `schema` help"))
            .collect();
    }
    let count = config.resources.len();
    let plural = if count == 1 { "" } else { "s" };
    vec![Finding::fine(WHAT, format!("`{}` is valid and has {count} resource{plural}", path.display()))]
}

#[cfg(test)]
mod tests {
    use super::super::process::tests::Folder;
    use super::*;
    use node::finding::State;

    #[test]
    fn a_configuration_is_valid_or_says_why_not() {
        let folder = Folder::new("configuration");
        for (name, text, state, has) in [
            ("good", "resources: [{name: a.b/c, devices: [{count: 1}]}]\n", State::Fine, "1 resource"),
            ("empty", "resources: []\n", State::Warning, "nothing is offered"),
            ("typo", "resorces: []\n", State::Problem, "resorces"),
        ] {
            let path = folder.write(name, text);
            let (_, findings) = read(&path);
            let [finding] = findings.as_slice() else { panic!("{name}: {findings:?}") };
            assert_eq!(finding.state, state, "{name}: {finding:?}");
            assert!(finding.why.contains(has), "{name}: {finding:?}");
        }
        let (config, findings) = read(&folder.path("missing"));
        assert_eq!((config, findings.first().unwrap().state), (Config::default(), State::Problem));
    }
}
