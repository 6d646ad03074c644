//! What the container runtime has to do its part.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{Access, access};

use super::Finding;
use super::host::is_there;
use super::process::Process;
use crate::config::{Cdi, Config};

const CDI: &str = "CDI";
const OWNERSHIP: &str = "containerd";

/// Where containerd's settings are.
pub(super) const CONTAINERD: &str = "/etc/containerd/config.toml";

/// The setting by which containers that are not root may open their devices.
const SETTING: &str = "device_ownership_from_security_context";

/// Where others leave their specifications.
const OTHERS: &str = "/etc/cdi";

/// The folder of CDI's specifications, where a resource uses it.
pub(super) fn cdi(config: &Config, process: &Process) -> Option<Finding> {
    let mut uses = config.resources.iter().filter_map(|resource| resource.allocate.cdi.as_ref());
    let mut written = uses.clone().filter(|cdi| matches!(cdi, Cdi::Write { .. }));
    uses.next()?;
    let folder = &config.host.cdi;
    let shown = format!("`{}`", folder.display());
    if written.next().is_none() {
        return Some(if is_there(folder) || is_there(Path::new(OTHERS)) {
            Finding::fine(CDI, format!("{shown} or `{OTHERS}` is there"))
        } else {
            let why = format!("neither {shown} nor `{OTHERS}` is there, which have the names that are used");
            Finding::warning(CDI, why, "install what writes them")
        });
    }
    Some(of_written(folder, &shown, process))
}

fn of_written(folder: &Path, shown: &str, process: &Process) -> Finding {
    if process.is_contained() && !process.is_mounted(folder) {
        let why = format!("{shown} is the container's own: the runtime does not see what is written there");
        return Finding::problem(CDI, why, "mount the node's /var/run/cdi (hostPath, DirectoryOrCreate)");
    }
    match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::fine(CDI, format!("{shown} may be written")),
        Err(rustix::io::Errno::NOENT) => {
            Finding::fine(CDI, format!("{shown} is made when the first specification is written"))
        }
        Err(e) => Finding::problem(
            CDI,
            format!("{shown} cannot be written: {}", io::Error::from(e)),
            "mount it without `readOnly`",
        ),
    }
}

/// Whether containers that are not root may open what they are given; none where that is not seen from here.
pub(super) fn ownership(path: &Path) -> Option<Finding> {
    let text = fs::read_to_string(path).ok()?;
    let shown = path.display();
    Some(if is_set(&text) {
        Finding::fine(OWNERSHIP, format!("`{shown}` has `{SETTING} = true`"))
    } else {
        Finding::warning(
            OWNERSHIP,
            format!("`{shown}` does not have `{SETTING} = true`: only root can open devices in a container"),
            "set it in the table of the CRI plugin and restart containerd, or give the devices an owner by \
             `allocate.cdi.write`",
        )
    })
}

fn is_set(text: &str) -> bool {
    text.lines().any(|line| {
        let setting = line.split('#').next().unwrap_or_default();
        setting.split_once('=').is_some_and(|(key, value)| key.trim() == SETTING && value.trim() == "true")
    })
}

#[cfg(test)]
mod tests {
    use super::super::process::tests::Folder;
    use super::*;
    use node::finding::State;

    fn config(cdi: &str, folder: &Path) -> Config {
        let text =
            format!("resources: [{{name: a.b/c, devices: [{{path: {{glob: [/dev/x]}}}}], allocate: {cdi}}}]");
        let mut config = Config::parse(&text).unwrap();
        folder.clone_into(&mut config.host.cdi);
        config
    }

    #[test]
    fn cdi_needs_its_folder_only_where_it_is_used() {
        let temp = Folder::new("cdi");
        let (folder, node) = (temp.path("cdi"), temp.on_node());
        assert_eq!(cdi(&config("{}", &folder), &node), None);
        let write = config("{cdi: {write: {}}}", &folder);
        assert!(cdi(&write, &node).unwrap().why.contains("is made"));
        temp.folder("cdi");
        assert_eq!(cdi(&write, &node).unwrap().state, State::Fine);
        assert_eq!(cdi(&config("{cdi: {use: {name: a.b/c=d}}}", &folder), &node).unwrap().state, State::Fine);
        assert_eq!(cdi(&write, &temp.in_container("")).unwrap().state, State::Problem);
    }

    #[test]
    fn containerds_setting_is_seen() {
        for (text, expect) in [
            ("  device_ownership_from_security_context = true # yes\n", true),
            ("device_ownership_from_security_context=true", true),
            ("device_ownership_from_security_context = false\n", false),
            ("# device_ownership_from_security_context = true\n", false),
            ("", false),
        ] {
            assert_eq!(is_set(text), expect, "{text}");
        }
        let temp = Folder::new("containerd");
        assert_eq!(ownership(&temp.path("config.toml")), None);
        let path = temp.write("config.toml", "version = 3\n");
        assert_eq!(ownership(&path).unwrap().state, State::Warning);
    }
}
