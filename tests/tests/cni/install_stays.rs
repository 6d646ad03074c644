//! `install --stay`: what others take away comes back, and an uninstall is the end of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use harness::call::{self, Answer, Launch};
use harness::node::{Node, REFERENCE, our_binary};
use harness::runtime::Runtime;
use harness::suite::ours;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::install::{person, plainly};
use crate::install_network::{Containerd, LIST, NODE, call, entry, serve};
use crate::networks::id;

pub fn trials() -> Vec<Trial> {
    vec![
        ours("an_install_that_stays_puts_back_what_others_take", puts_back),
        ours("an_install_that_stays_follows_its_source_where_that_is_safe", follows),
        ours("an_install_that_stays_yields_to_an_uninstall", yields),
        ours("an_install_that_waits_yields_to_an_uninstall", yields_while_it_waits),
        ours("an_install_that_waited_works_on_what_is_there", waited),
        ours("an_install_that_stays_begins_beside_a_network_that_must_not_be_changed", begins_beside),
        ours("an_install_that_stays_forces_only_what_was_forced", forces_once),
        ours("an_install_that_stays_ends_at_once_as_the_first_process", first_process),
    ]
}

const BIN: &str = "/opt/bin";
const OWN: &str = "/opt/bin/nodeplug-cni";
const PRESENCE: &str = "/opt/bin/.nodeplug-cni.stay";

/// Longer than any look takes, and shorter than a person waits: only what never comes meets it.
const LIMIT: Duration = Duration::from_mins(2);

#[track_caller]
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "{what} did not come");
        thread::sleep(Duration::from_millis(10));
    }
}

/// One that stays; it ends with the test.
#[derive(Debug)]
struct Staying {
    child: Child,
    errors: mpsc::Receiver<String>,
}

impl Staying {
    fn start(words: &[&str]) -> Self {
        Self::of(person(&[&["install", "--stay"], words].concat()).command())
    }

    /// Returns when the first install is done.
    fn of(command: Command) -> Self {
        let mut staying = Self::begun(command);
        staying.is_done();
        staying
    }

    fn begun(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (send, errors) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, errors }
    }

    fn is_done(&mut self) {
        let mut lines = BufReader::new(self.child.stdout.take().unwrap()).lines();
        let said = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("in `")));
        assert!(said.is_some(), "it ended before: {:?}", self.child.wait());
        wait_for("its presence", || Path::new(PRESENCE).exists());
    }

    /// Waits for a line of its log.
    #[track_caller]
    fn says(&mut self, part: &str) {
        let mut heard = Vec::new();
        let end = Instant::now() + LIMIT;
        while let Ok(line) = self.errors.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if line.contains(part) {
                return;
            }
            heard.push(line);
        }
        panic!("`{part}` did not come: {heard:?}");
    }

    fn ends(mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert!(!Path::new(PRESENCE).exists());
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn is_ours(name: &str) -> bool {
    let inode = |path: &str| fs::metadata(path).map(|m| m.ino()).ok();
    inode(OWN).is_some() && inode(&format!("{BIN}/{name}")) == inode(OWN)
}

fn puts_back(_node: &Node) {
    let _containerd = Containerd::looking_in(BIN);
    let staying =
        Staying::start(&["--pod-cidr", "10.66.0.0/24", "--as-reference", "--only", "bridge,portmap"]);
    let list = fs::read(LIST).unwrap();
    fs::remove_file(OWN).unwrap();
    wait_for("the program", || Path::new(OWN).exists());
    // Another installer, which brings the reference's plugins.
    wait_for("its names", || is_ours("bridge") && is_ours("portmap"));
    let theirs = |name: &str| {
        fs::copy(Path::new(REFERENCE).join(name), format!("{BIN}/.fresh")).unwrap();
        fs::rename(format!("{BIN}/.fresh"), format!("{BIN}/{name}")).unwrap();
    };
    theirs("bridge");
    wait_for("the name", || is_ours("bridge"));
    let kept = fs::read(format!("{BIN}/.nodeplug-originals/bridge")).unwrap();
    assert_eq!(kept, fs::read(Path::new(REFERENCE).join("bridge")).unwrap());
    fs::remove_file(LIST).unwrap();
    wait_for("the network", || fs::read(LIST).is_ok_and(|now| now == list));
    // The folder as a whole, with the word that somebody stays.
    fs::remove_dir_all(BIN).unwrap();
    wait_for("all of it", || is_ours("portmap") && Path::new(PRESENCE).exists());
    // What a person changed is his.
    let changed = String::from_utf8(list).unwrap().replace("\"pods\"", "\"mine\"");
    fs::write("/run/net.d/.mine", &changed).unwrap();
    fs::rename("/run/net.d/.mine", LIST).unwrap();
    fs::remove_file(format!("{BIN}/portmap")).unwrap();
    wait_for("the program beside it", || is_ours("portmap"));
    assert_eq!(fs::read_to_string(LIST).unwrap(), changed);
    staying.ends();
    assert!(Path::new(OWN).exists() && Path::new(LIST).exists(), "what was installed stays");
}

fn follows(_node: &Node) {
    let _containerd = Containerd::looking_in(BIN);
    fs::write("/run/subnets", "10.66.0.0/24\n").unwrap();
    let mut staying = Staying::start(&["--pod-cidr-file", "/run/subnets"]);
    fs::write("/run/subnets", "10.66.0.0/24\nfd00:66::/64\n").unwrap();
    // A change in the folder makes it look; without one it looks once a minute.
    fs::write("/opt/bin/other", "").unwrap();
    wait_for("the second family", || {
        fs::read_to_string(LIST).is_ok_and(|text| text.contains("fd00:66::/64"))
    });
    // What it cannot read leaves the network as it is.
    fs::write("/run/subnets", "nonsense\n").unwrap();
    fs::remove_file("/opt/bin/other").unwrap();
    staying.says("the network stays as it is: ");
    fs::remove_file(LIST).unwrap();
    wait_for("the network", || fs::read_to_string(LIST).is_ok_and(|text| text.contains("fd00:66::/64")));
    staying.ends();
}

/// By a program of the same build that lies elsewhere.
fn uninstalled() -> Answer {
    call::copy(&our_binary(), Path::new("/opt/nodeplug-cni"));
    let mut command = Command::new("/opt/nodeplug-cni");
    command.arg("uninstall").env_remove("CNI_COMMAND").stderr(Stdio::piped());
    call::run(&mut command, b"")
}

const WAITING: [&str; 6] = ["install", "--stay", "--kube-api", "/run/api.sock", "--node-name", "n1"];

fn yields_while_it_waits(_node: &Node) {
    let _containerd = Containerd::looking_in(BIN);
    let mut staying = Staying::begun(person(&WAITING).command());
    staying.says("waiting for the subnets");
    assert!(Path::new(OWN).exists() && Path::new(PRESENCE).exists());
    let answer = uninstalled();
    assert!(answer.ok() && answer.stdout.contains("told to let go"), "{answer:?}");
    staying.says("uninstalled by somebody");
    for path in [OWN, LIST, PRESENCE] {
        assert!(!Path::new(path).exists(), "{path}");
    }
    assert!(staying.child.try_wait().unwrap().is_none(), "it stays, so that nobody starts it anew");
    staying.ends();
}

fn waited(_node: &Node) {
    let _containerd = Containerd::looking_in(BIN);
    let mut staying = Staying::begun(person(&WAITING).command());
    staying.says("waiting for the subnets");
    // Another install meanwhile, and somebody who takes the program away.
    let words = ["install", "--pod-cidr", "10.66.7.0/24", "--conflist", "05-other.conflist"];
    let answer = plainly(&words);
    assert!(answer.ok(), "{answer:?}");
    fs::remove_file(OWN).unwrap();
    let server = serve(vec![("200 OK", NODE.to_owned())]);
    staying.is_done();
    server.join().unwrap();
    assert!(Path::new(OWN).exists() && fs::read_to_string(LIST).unwrap().contains("10.66.1.0/24"));
    assert!(!Path::new("/run/net.d/05-other.conflist").exists(), "the record knew it");
    staying.ends();
    let answer = plainly(&["uninstall"]);
    assert!(answer.ok(), "{answer:?}");
    assert!(!Path::new(LIST).exists() && !Path::new(OWN).exists());
}

fn begins_beside(_node: &Node) {
    let _containerd = Containerd::looking_in(BIN);
    let words = ["install", "--pod-cidr", "10.66.0.0/24"];
    assert!(plainly(&words).ok());
    let changed = fs::read_to_string(LIST).unwrap().replace("\"pods\"", "\"mine\"");
    fs::write(LIST, &changed).unwrap();
    fs::remove_file(OWN).unwrap();
    let mut staying = Staying::start(&["--pod-cidr", "10.66.0.0/24"]);
    assert!(Path::new(OWN).exists());
    staying.says("changed since it was made");
    fs::remove_file(OWN).unwrap();
    staying.says("put back `nodeplug-cni`, which was gone");
    assert_eq!(fs::read_to_string(LIST).unwrap(), changed);
    // The change is taken back by whoever made it.
    fs::remove_file(LIST).unwrap();
    wait_for("the network", || fs::read_to_string(LIST).is_ok_and(|text| text.contains("\"pods\"")));
    staying.ends();
}

fn forces_once(node: &Node) {
    let _containerd = Containerd::looking_in(BIN);
    fs::write("/run/subnets", "10.66.0.0/24\n").unwrap();
    let mut staying = Staying::start(&["--force", "--pod-cidr-file", "/run/subnets"]);
    let list = fs::read_to_string(LIST).unwrap();
    let runtime = Runtime::new(entry());
    let (pod, id) = (node.pod(), id("lives"));
    let result = call(&runtime, "ADD", &id, &pod, None).success();
    fs::write("/run/subnets", "10.67.0.0/24\n").unwrap();
    fs::write("/opt/bin/other", "").unwrap();
    staying.says("1 pod (`default/web`) has addresses of `10.66.0.0/24`");
    assert_eq!(fs::read_to_string(LIST).unwrap(), list);
    staying.ends();
    assert!(call(&runtime, "DEL", &id, &pod, Some(&result)).ok());
}

fn yields(_node: &Node) {
    let _containerd = Containerd::looking_in(BIN);
    fs::create_dir_all(BIN).unwrap();
    fs::write("/opt/bin/other", "another plugin").unwrap();
    let mut staying = Staying::start(&["--pod-cidr", "10.66.0.0/24"]);
    let answer = uninstalled();
    assert!(answer.ok() && answer.stdout.contains("told to let go"), "{answer:?}");
    // It looks at the change, and does nothing: its own file would be there again otherwise.
    fs::remove_file("/opt/bin/other").unwrap();
    wait_for("its look", || {
        let fds = fs::read_dir(format!("/proc/{}/fd", staying.child.id())).unwrap().flatten();
        !fds.map(|fd| fs::read_link(fd.path()).unwrap_or_default())
            .any(|to| to.to_string_lossy().contains("inotify"))
    });
    assert_eq!(fs::read_dir(BIN).map_or(0, Iterator::count), 0);
    assert!(!Path::new(LIST).exists());
    assert!(staying.child.try_wait().unwrap().is_none(), "it stays, so that nobody starts it anew");
    staying.ends();
    assert!(plainly(&["--version"]).ok());
}

fn first_process(_node: &Node) {
    let _containerd = Containerd::looking_in(BIN);
    let inner = person(&["install", "--stay", "--pod-cidr", "10.66.0.0/24"]).command();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(inner.get_program()).args(inner.get_args());
    command.env_remove("CNI_COMMAND");
    let mut staying = Staying::of(command);
    let children = format!("/proc/{0}/task/{0}/children", staying.child.id());
    let child: i32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(child), Signal::SIGTERM).unwrap();
    assert_eq!(staying.child.wait().unwrap().code(), Some(0));
    assert!(!Path::new(PRESENCE).exists());
    // And while it waits for an API server that is not there.
    let words = ["install", "--stay", "--kube-api", "/run/nowhere.sock", "--node-name", "n1"];
    let mut waiting = person(&words).command().stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("waiting for the subnets"));
    kill(Pid::from_raw(waiting.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
    assert!(!Path::new(PRESENCE).exists());
}
