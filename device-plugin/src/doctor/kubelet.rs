//! The kubelet's folders and sockets.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};

use super::Finding;
use super::dial::{Dialled, dial};
use super::process::Process;
use crate::config::{Kubelet, Registration};
use crate::session;

const FOLDER: &str = "kubelet's folder";
/// The kubelet's own socket.
pub(super) const SOCKET: &str = "kubelet.sock";
const PODS: &str = "pod-resources";

/// Others than the owner may write.
const ANYBODY: u32 = 0o022;

/// The folder of the resources' sockets.
pub(super) fn folder(kubelet: &Kubelet, process: &Process) -> Finding {
    let folder = session::folder(kubelet);
    let shown = format!("`{}`", folder.display());
    match fs::metadata(folder) {
        Ok(status) => of_folder(folder, &status, process).unwrap_or_else(|| {
            Finding::fine(FOLDER, format!("{shown} is there, the owner's alone, and may be written"))
        }),
        Err(e) => Finding::problem(
            FOLDER,
            format!("{shown}: {e}"),
            "start the kubelet, which makes it; in a container, mount it from the node (hostPath)",
        ),
    }
}

/// What is wrong with a folder that is there.
fn of_folder(folder: &Path, status: &Metadata, process: &Process) -> Option<Finding> {
    let shown = format!("`{}`", folder.display());
    let problem =
        |why: &str, remedy: String| Some(Finding::problem(FOLDER, format!("{shown} {why}"), remedy));
    if !status.is_dir() {
        return problem("is no folder", format!("remove {shown} and start the kubelet again"));
    }
    if status.uid() != process.owner {
        return problem(&format!("belongs to uid {}", status.uid()), format!("chown root:root {shown}"));
    }
    if let Err(e) = access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        let why = format!("cannot be written: {}", io::Error::from(e));
        return problem(&why, "run as root, and mount the folder without `readOnly`".to_owned());
    }
    if process.is_contained() && !process.is_mounted(folder) {
        return problem("is the container's own", "mount the node's (hostPath)".to_owned());
    }
    let mode = status.mode() & 0o7777;
    (mode & ANYBODY != 0).then(|| {
        let why = format!("{shown} may be written by others (mode {mode:04o}), who could offer devices");
        Finding::warning(FOLDER, why, format!("chmod 0750 {shown}"))
    })
}

/// The socket on which resources are registered; none where the kubelet comes by itself.
pub(super) fn socket(kubelet: &Kubelet) -> Option<Finding> {
    let path = kubelet.device_plugins.join(SOCKET);
    let shown = format!("`{}`", path.display());
    let problem = |why: String, remedy: &str| Finding::problem(SOCKET, format!("{shown} {why}"), remedy);
    (kubelet.registration == Registration::Direct).then(|| match dial(&path) {
        Dialled::Answers => Finding::fine(SOCKET, format!("the kubelet listens on {shown}")),
        Dialled::Missing => {
            problem("is not there".to_owned(), "start the kubelet; the daemon registers once it is there")
        }
        Dialled::Stale => problem(
            "was left by a kubelet that has ended (connection refused)".to_owned(),
            "start the kubelet: `journalctl -u kubelet` says why it ended",
        ),
        Dialled::Busy => problem(
            "takes no calls".to_owned(),
            "the kubelet hangs: look at its log, and restart it where that shows nothing",
        ),
        Dialled::Refused(errno) => problem(format!("refuses: {}", io::Error::from(errno)), "run as root"),
    })
}

/// The socket that tells who holds which devices.
pub(super) fn pod_resources(kubelet: &Kubelet) -> Finding {
    let path = &kubelet.pod_resources;
    let shown = format!("`{}`", path.display());
    let warning = |why: &str| {
        let why = format!("{shown} {why}: devices that are gone stay listed, and `in_use` is not counted");
        Finding::warning(PODS, why, "mount the node's /var/lib/kubelet/pod-resources, and start the kubelet")
    };
    match dial(path) {
        Dialled::Answers => Finding::fine(PODS, format!("the kubelet listens on {shown}")),
        Dialled::Missing => warning("is not there"),
        Dialled::Stale => warning("was left by a kubelet that has ended"),
        Dialled::Busy => warning("takes no calls"),
        Dialled::Refused(_) => warning("refuses"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::super::process::tests::Folder;
    use super::*;
    use node::finding::State;

    fn kubelet(folder: &Path) -> Kubelet {
        Kubelet {
            device_plugins: folder.to_owned(),
            pod_resources: folder.join("pods.sock"),
            ..Kubelet::default()
        }
    }

    #[test]
    fn the_kubelets_folder_is_there_the_owners_and_the_nodes() {
        let temp = Folder::new("folder");
        let (process, place) = (temp.on_node(), temp.path("plugins"));
        assert_eq!(folder(&kubelet(&place), &process).state, State::Problem, "not there");
        temp.folder("plugins");
        fs::set_permissions(&place, Permissions::from_mode(0o750)).unwrap();
        assert_eq!(folder(&kubelet(&place), &process).state, State::Fine);
        let other = temp.of_another_owner();
        assert!(folder(&kubelet(&place), &other).why.contains("belongs to uid"));
        fs::set_permissions(&place, Permissions::from_mode(0o777)).unwrap();
        let open = folder(&kubelet(&place), &process);
        assert_eq!(open.state, State::Warning, "{open:?}");
        assert!(open.why.contains("0777"), "{open:?}");
        let file = temp.write("file", "");
        assert!(folder(&kubelet(&file), &process).why.contains("no folder"));
    }

    #[test]
    fn a_folder_of_the_container_is_not_the_nodes() {
        let temp = Folder::new("contained");
        let place = temp.folder("plugins");
        fs::set_permissions(&place, Permissions::from_mode(0o750)).unwrap();
        let process = temp.in_container("");
        assert!(folder(&kubelet(&place), &process).why.contains("container's own"));
        let mount = format!("21 20 8:1 /x {} rw - ext4 /dev/root rw\n", place.display());
        assert_eq!(folder(&kubelet(&place), &temp.in_container(&mount)).state, State::Fine);
    }

    #[test]
    fn a_stale_socket_is_told_from_one_that_is_not_there() {
        let temp = Folder::new("socket");
        let kubelet = kubelet(&temp.path(""));
        let says = |has: &str, state: State| {
            let finding = socket(&kubelet).unwrap();
            assert!(finding.why.contains(has) && finding.state == state, "{finding:?}");
        };
        says("is not there", State::Problem);
        let listener = UnixListener::bind(temp.path(SOCKET)).unwrap();
        says("listens", State::Fine);
        drop(listener);
        says("has ended", State::Problem);
        let watcher = Kubelet { registration: Registration::Watcher, ..kubelet.clone() };
        assert_eq!(socket(&watcher), None);
        assert_eq!(pod_resources(&kubelet).state, State::Warning);
    }
}
