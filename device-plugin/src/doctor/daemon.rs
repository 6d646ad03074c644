//! Whether a daemon serves this node, and how it says that it is.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Finding;
use super::dial::{Dialled, dial};
use crate::config::Config;
use crate::daemon::lock_path;
use crate::http::ask::{Answer, ask};

const DAEMON: &str = "daemon";
const UNIT: &str = "nodeplug-device-plugin.service";
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];
const READY: &str = "registrations";

/// The daemon, and what it says of the kubelet.
pub(super) fn daemon(config: &Config) -> Vec<Finding> {
    let socket = &config.http.socket;
    match dial(socket) {
        Dialled::Answers => vec![alive(socket), ready(socket)],
        Dialled::Busy => {
            let why = format!("the daemon at `{}` hangs: it takes no calls", socket.display());
            vec![Finding::problem(DAEMON, why, "look at its log, and restart it")]
        }
        _ => vec![silent(socket, &lock_path(&config.kubelet))],
    }
}

fn alive(socket: &Path) -> Finding {
    let shown = socket.display();
    match ask(socket, "/healthz") {
        Ok(Answer::Ready) => Finding::fine(DAEMON, format!("it answers on `{shown}`")),
        Ok(Answer::Waiting(why) | Answer::Unknown(why)) => {
            Finding::problem(DAEMON, why, "look at its log, and restart it")
        }
        Err(error) => Finding::problem(DAEMON, error.chain(), "look at its log, and restart it"),
    }
}

fn ready(socket: &Path) -> Finding {
    match ask(socket, "/readyz") {
        Ok(Answer::Ready) => Finding::fine(READY, "the kubelet listens to every resource"),
        Ok(Answer::Waiting(why) | Answer::Unknown(why)) => Finding::problem(
            READY,
            why,
            "the daemon's log says why; while the kubelet is down, nothing else is to be expected",
        ),
        Err(error) => Finding::problem(READY, error.chain(), "look at the daemon's log"),
    }
}

/// Nobody answers: another daemon may hold the node all the same.
fn silent(socket: &Path, lock: &Path) -> Finding {
    let shown = socket.display();
    if is_held(lock) {
        let why = format!("none answers on `{shown}`, and one holds `{}`", lock.display());
        return Finding::problem(
            DAEMON,
            why,
            "one daemon serves a node: end the other one, or let `http.socket` name its socket",
        );
    }
    let why = format!("none answers on `{shown}`, and none holds the node's lock");
    Finding::problem(DAEMON, why, format!("start it: `{}`", start()))
}

/// What starts it here: its unit, where there is one. A daemon by hand beside that would be in the unit's way.
pub(super) fn start() -> &'static str {
    start_by(&UNITS.map(Path::new))
}

fn start_by(units: &[&Path]) -> &'static str {
    if units.iter().any(|folder| folder.join(UNIT).exists()) {
        "systemctl enable --now nodeplug-device-plugin"
    } else {
        "nodeplug-device-plugin run"
    }
}

/// Whether somebody has the lock. It is shared for the moment of the question, so that a daemon that starts at this
/// very moment waits for as long.
fn is_held(lock: &Path) -> bool {
    let Ok(file) = File::open(lock) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use node::store::Lock;

    use super::super::process::tests::Folder;
    use super::*;
    use crate::config::{Http, Kubelet};
    use node::finding::State;

    fn config(temp: &Folder) -> Config {
        Config {
            http: Http { socket: temp.path("daemon.sock"), ..Http::default() },
            kubelet: Kubelet { device_plugins: temp.path(""), ..Kubelet::default() },
            ..Config::default()
        }
    }

    #[test]
    fn a_silent_daemon_may_be_another_one() {
        let temp = Folder::new("silent");
        let config = config(&temp);
        assert!(daemon(&config).first().unwrap().why.contains("none holds the node's lock"));
        assert!(!lock_path(&config.kubelet).exists(), "the question makes nothing");
        let held = Lock::exclusive(&lock_path(&config.kubelet)).unwrap();
        assert!(daemon(&config).first().unwrap().why.contains("and one holds"));
        drop(held);
        assert!(daemon(&config).first().unwrap().why.contains("none holds the node's lock"));
    }

    #[test]
    fn a_daemon_with_a_unit_is_started_by_it() {
        let temp = Folder::new("unit");
        let folder = temp.path("");
        assert_eq!(start_by(&[&folder]), "nodeplug-device-plugin run");
        std::fs::write(folder.join(UNIT), "").unwrap();
        assert!(start_by(&[&folder]).starts_with("systemctl "));
    }

    #[test]
    fn a_daemon_that_takes_no_calls_hangs_and_is_not_to_be_started() {
        let temp = Folder::new("busy");
        let config = config(&temp);
        let listener = UnixListener::bind(&config.http.socket).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = std::os::unix::net::UnixStream::connect(&config.http.socket).unwrap();
        let found = daemon(&config);
        assert!(found[0].why.contains("hangs: it takes no calls"), "{found:?}");
        assert_eq!((found.len(), found[0].state), (1, State::Problem), "{found:?}");
    }

    #[test]
    fn a_daemon_says_how_it_is() {
        let temp = Folder::new("answers");
        let config = config(&temp);
        let listener = UnixListener::bind(&config.http.socket).unwrap();
        let server = thread::spawn(move || {
            for stream in listener.incoming().take(3) {
                let mut stream = stream.unwrap();
                let mut request = [0; 512];
                let length = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let answer = match request.split(' ').nth(1) {
                    Some("/healthz") => "HTTP/1.1 200 OK\r\n\r\nok\n",
                    Some("/readyz") => "HTTP/1.1 503 X\r\n\r\na.b/c: the kubelet has no list of it yet\n",
                    // The call that only looks whether anybody listens says nothing.
                    _ => continue,
                };
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let found = daemon(&config);
        server.join().unwrap();
        assert_eq!(found[0].state, State::Fine, "{found:?}");
        assert_eq!(found[1].state, State::Problem, "{found:?}");
        assert!(found[1].why.contains("a.b/c"), "{found:?}");
    }
}
