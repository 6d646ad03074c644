//! The throw-away node for containers: a [`Node`] with cgroups, an /etc of its own, and our plugin where an operator's
//! `nodeplug-cni install` puts it. What runs there (a runtime, its shims, containers) ends with it.

mod cgroups;
mod image;
mod left;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

use crate::call::{self, Answer, tool};
use crate::kernel::cgroup;
use crate::node::{Node, PLUGINS, cover, our_binary};
use crate::volume_look;
use crate::volume_node::propagate;

pub use cgroups::Cgroups;
pub use image::{IMAGE, archive};

/// Where runtimes look for the networks' configuration.
pub const CONFIGURATION: &str = "/etc/cni/net.d";
/// Our program, as it came to the node.
pub const OURS: &str = "/var/lib/harness/nodeplug-cni";
/// Where services have their temporary files.
const TEMPORARY: &str = "/var/lib/harness/tmp";
/// The same program in other bytes: another build of it.
pub const OTHER: &str = "/var/lib/harness/nodeplug-cni.other";

/// How long a runtime may take to take everything apart on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node on which a container runtime can run. Everything on it vanishes with the thread; processes and cgroups go
/// when this is dropped.
#[derive(Debug)]
pub struct ContainerNode {
    /// Its network and its folders.
    pub node: Node,
    cgroups: Cgroups,
}

impl ContainerNode {
    /// Moves this thread into namespaces of its own, in which mounts are shared as systemd leaves them, and installs
    /// our plugin under its own name and as `loopback`. Call it on a thread that ends with the test.
    pub fn enter() -> Self {
        let node = Self::bare();
        node.install(&["--as-reference", "--only", "loopback"]);
        node
    }

    /// [`ContainerNode::enter`] without any plugin.
    pub fn bare() -> Self {
        // Opened before the folders that may hold it are covered.
        let program = File::open(our_binary()).expect("open our program");
        let node = Node::with(&[]);
        cgroups::mount_all();
        // `scripts/install` links the plugin into the latter.
        for folder in ["/etc", "/usr/local"] {
            node.own(folder);
        }
        // podman's locks are there.
        cover("/dev/shm");
        // Debian's containerd brings a configuration, which names folders that are not this node's.
        for folder in ["/etc/cni", "/etc/containerd"] {
            fs::create_dir_all(folder).expect(folder);
            cover(folder);
        }
        fs::create_dir_all(CONFIGURATION).expect("make the folder of networks");
        fs::create_dir_all(TEMPORARY).expect("make the folder of the harness");
        bring(program);
        propagate(MsFlags::MS_SHARED);
        Self { node, cgroups: Cgroups::make() }
    }

    /// The power goes off and on: nothing runs, [`Node::reboot`] tells the rest.
    pub fn reboot(&self) {
        self.cgroups.end();
        // With all that containers had mounted there.
        umount2("/run", MntFlags::MNT_DETACH).expect("unmount /run");
        self.node.reboot();
        cgroups::mount_all();
        propagate(MsFlags::MS_SHARED);
    }

    /// Where containers are to have their cgroups.
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// `nodeplug-cni install WORDS /opt/cni/bin`, which must succeed.
    #[track_caller]
    pub fn install(&self, words: &[&str]) {
        let answer = self.install_by(OURS, words);
        assert!(answer.ok(), "install {words:?}: {answer:?}");
    }

    /// `PROGRAM install WORDS /opt/cni/bin`.
    pub fn install_by(&self, program: &str, words: &[&str]) -> Answer {
        let mut command = Command::new(program);
        call::run(command.arg("install").args(words).arg(PLUGINS).env_remove("CNI_COMMAND"), b"")
    }

    /// `nodeplug-cni WORDS`, as an operator calls the program that came to the node.
    pub fn person(&self, words: &[&str]) -> Answer {
        call::run(Command::new(OURS).args(words).env_remove("CNI_COMMAND"), b"")
    }

    /// The reference's plugins under their own names, as Debian has them.
    pub fn install_reference(&self) {
        for name in ["bridge", "ptp", "host-local", "portmap", "bandwidth", "firewall", "tuning", "loopback"]
        {
            let from = Path::new(crate::node::REFERENCE).join(name);
            tool(&["cp", from.to_str().expect("ASCII"), PLUGINS]);
        }
    }

    /// Writes a file beside, and renames it to `NAME.conflist` in the folder of networks.
    pub fn network(&self, name: &str, list: &Value) {
        let hidden = Path::new(CONFIGURATION).join(format!(".{name}.new"));
        fs::write(&hidden, format!("{list:#}\n")).expect("write a conflist");
        fs::rename(&hidden, Path::new(CONFIGURATION).join(format!("{name}.conflist")))
            .expect("rename a conflist");
    }

    /// Takes the file of a network away.
    pub fn forget_network(&self, name: &str) {
        let path = Path::new(CONFIGURATION).join(format!("{name}.conflist"));
        fs::remove_file(path).expect("remove a conflist");
    }

    /// A program that is to run as a service of this node, in a cgroup of its own.
    pub fn service(&self, program: &str, name: &str) -> Command {
        let mut command = Command::new(program);
        // What a service forgets there goes with the node.
        command.env("TMPDIR", TEMPORARY);
        cgroup::join(&mut command, &self.cgroups.service(name));
        command
    }

    /// What pods left on the node, in whatever layer.
    pub fn leftovers(&self) -> Vec<String> {
        left::leftovers(&self.cgroups)
    }

    /// Stops the test when pods left anything.
    #[track_caller]
    pub fn assert_nothing_left(&self, when: &str) {
        self.assert_nothing_left_but(when, |_| false);
    }

    /// The same with excuses. A shim may take a moment to exit.
    #[track_caller]
    pub fn assert_nothing_left_but(&self, when: &str, excused: impl Fn(&str) -> bool) {
        let look = || {
            let mut left = self.leftovers();
            left.retain(|what| !excused(what));
            left
        };
        let left = volume_look::settled_within(PATIENCE, look);
        assert!(left.is_empty(), "{when}: {} left: {left:#?}", left.len());
    }
}

impl Drop for ContainerNode {
    fn drop(&mut self) {
        self.cgroups.end();
    }
}

/// Ends all that containers' nodes of this process still run when it goes: a test that took too long, or that stopped
/// where nobody waited for it, leaves a runtime. Kept by `main`, where the machine's own cgroups are seen.
#[derive(Debug)]
pub struct EndOfAll;

impl Drop for EndOfAll {
    fn drop(&mut self) {
        cgroups::end_own();
    }
}

/// Copies our program to the node. By processes of their own, as `write_program` of a volume's node does it. What
/// follows the program in its file is never read.
fn bring(program: File) {
    let mut command = Command::new("install");
    let status = command.args(["-m", "755", "/dev/stdin", OURS]).stdin(program).status();
    assert!(status.is_ok_and(|s| s.success()), "bring our program to the node");
    tool(&["sh", "-c", &format!("cp {OURS} {OTHER} && echo another build >>{OTHER}")]);
}

/// Mounts a kernel's filesystem.
fn mount_new(kind: &str, target: &Path, options: &str) {
    fs::create_dir_all(target).unwrap_or_else(|e| panic!("make `{}`: {e}", target.display()));
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options).filter(|o| !o.is_empty()))
        .unwrap_or_else(|e| panic!("mount {kind} ({options}) at `{}`: {e}", target.display()));
}

/// The name of a folder's entry.
fn name(path: &Path) -> String {
    path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}
