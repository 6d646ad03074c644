//! The sockets of device plugins in the kubelet's folder.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use node::finding::typed;

use super::Finding;
use super::dial::{Dialled, dial};
use super::kubelet::SOCKET;
use crate::config::Kubelet;
use crate::session;

const WHAT: &str = "plugins' sockets";

/// The sockets of plugins, whoever they are.
fn all(kubelet: &Kubelet) -> Vec<PathBuf> {
    let entries = fs::read_dir(session::folder(kubelet)).into_iter().flatten().flatten();
    let is_socket = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_socket());
    let mut all: Vec<PathBuf> = entries.filter(is_socket).map(|entry| entry.path()).collect();
    all.retain(|path| path.file_name().is_some_and(|name| name != SOCKET));
    all.sort();
    all
}

/// The names of those that somebody listens to, or may.
pub(super) fn live(kubelet: &Kubelet) -> Vec<String> {
    let live = all(kubelet).into_iter().filter(|path| dial(path) != Dialled::Stale);
    live.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
}

/// Those that nobody listens to.
pub(super) fn sockets(kubelet: &Kubelet) -> Vec<Finding> {
    let all = all(kubelet);
    let stale: Vec<&PathBuf> = all.iter().filter(|path| dial(path) == Dialled::Stale).collect();
    if stale.is_empty() {
        let listened = match all.len() {
            0 => "there are none".to_owned(),
            1 => "there is one, and somebody listens".to_owned(),
            n => format!("there are {n}, and somebody listens to each"),
        };
        return vec![Finding::fine(WHAT, listened)];
    }
    let of = |path: &&PathBuf| {
        let shown = path.display();
        let why = format!("`{shown}` was left by a plugin that has ended");
        Finding::warning(WHAT, why, format!("start that plugin again, or take it away: `rm {}`", typed(path)))
    };
    stale.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use node::finding::State;

    use super::super::process::tests::Folder;
    use super::*;

    #[test]
    fn a_socket_that_nobody_listens_to_is_told_of_with_what_takes_it_away() {
        let temp = Folder::new("sockets");
        let kubelet = Kubelet { device_plugins: temp.path(""), ..Kubelet::default() };
        assert!(sockets(&kubelet)[0].why.contains("none"));
        let others = UnixListener::bind(temp.path("gpu.sock")).unwrap();
        // The kubelet's own is another finding's.
        drop(UnixListener::bind(temp.path(SOCKET)).unwrap());
        assert_eq!(sockets(&kubelet)[0].state, State::Fine);
        drop(others);
        let found = sockets(&kubelet);
        assert_eq!((found.len(), found[0].state), (1, State::Warning), "{found:?}");
        let remedy = format!("rm {}", temp.path("gpu.sock").display());
        assert!(found[0].remedy.as_ref().unwrap().contains(&remedy), "{found:?}");
    }
}
