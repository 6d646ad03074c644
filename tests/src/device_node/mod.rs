//! The throw-away node for devices: a /dev and a sysfs that the test makes, and the daemon of the device plugin.
//!
//! The daemon gets the made folders as `host.dev` and `host.sys`; the real ones are where they always are. The
//! kubelet's folders are the real paths on filesystems of the node's own.

mod daemon;
mod sysfs;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use crate::call::{Answer, tool, try_tool};
use crate::device_manager::{DeviceManager, Folders};
use crate::node::{bind, built, cover};

pub use daemon::Daemon;
pub use sysfs::{Sysfs, UsbSerial};

/// The kubelet's `--root-dir`.
pub const KUBELET: &str = "/var/lib/kubelet";
/// The /dev that tests fill.
pub const DEV: &str = "/run/node/dev";
/// The /sys that tests fill.
pub const SYS: &str = "/run/node/sys";
/// Where CDI specifications are written.
pub const CDI: &str = "/run/cdi";
/// The daemon's configuration.
pub const CONFIG: &str = "/run/node/etc/device-plugin.yaml";
/// The socket of metrics and health.
pub const HTTP: &str = "/run/nodeplug/device-plugin.sock";

const PROGRAM: &str = "/run/harness/nodeplug-device-plugin";

/// What every configuration of a test begins with: the made node.
const MADE: &str = "host: {dev: /run/node/dev, sys: /run/node/sys, cdi: /run/cdi}\n";

/// The path of the daemon on the host: `$NODEPLUG_DEVICE_PLUGIN`, or beside the test's own folder.
pub fn our_daemon() -> PathBuf {
    built("NODEPLUG_DEVICE_PLUGIN", "nodeplug-device-plugin")
}

/// A node: this thread's mount and network namespaces. Everything on it vanishes with the thread, but for
/// daemons, which end when they are dropped.
#[derive(Debug)]
pub struct DeviceNode {
    /// The sysfs that the test fills.
    pub sysfs: Sysfs,
}

impl DeviceNode {
    /// Moves this thread into namespaces of its own and lays out a node there. Call it on a thread that ends with
    /// the test.
    pub fn enter() -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("unshare");
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("make mounts private");
        // Opened before the folders that may hold it are covered.
        let program = File::open(our_daemon()).expect("open the daemon's program");
        for folder in ["/var/lib", "/run"] {
            cover(folder);
        }
        let config = Path::new(CONFIG).parent().expect("a folder");
        for folder in [Path::new("/run/harness"), Path::new(DEV), Path::new(SYS), Path::new(CDI), config] {
            fs::create_dir_all(folder).unwrap_or_else(|e| panic!("make `{}`: {e}", folder.display()));
        }
        File::create(PROGRAM).expect("make a place for the program");
        bind(&PathBuf::from(format!("/proc/thread-self/fd/{}", program.as_raw_fd())), Path::new(PROGRAM));
        // A sysfs shows the network namespace of the thread that mounted it.
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).expect("mount sysfs");
        tool(&["ip", "link", "set", "lo", "up"]);
        Self { sysfs: Sysfs::new(Path::new(SYS)) }
    }

    // --- the kubelet ------------------------------------------------------------------------------------

    /// A kubelet that runs.
    pub fn kubelet(&self) -> DeviceManager {
        DeviceManager::started(Path::new(KUBELET))
    }

    /// A kubelet that does not run yet.
    pub fn late_kubelet(&self) -> DeviceManager {
        DeviceManager::new(Folders::below(Path::new(KUBELET)))
    }

    /// The sockets in the kubelet's folder that are not its own.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let folder = Path::new(KUBELET).join("device-plugins");
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        let mut all: Vec<PathBuf> = entries
            .filter(|p| p.extension().is_some_and(|e| e == "sock") && !p.ends_with("kubelet.sock"))
            .collect();
        all.sort();
        all
    }

    // --- the daemon -------------------------------------------------------------------------------------

    /// Writes a configuration over the made /dev and /sys: `text` is the rest of it. By a rename, as careful
    /// programs do.
    pub fn configure(&self, text: &str) {
        self.configure_real(&format!("{MADE}{text}"));
    }

    /// The same over the node's real /dev and /sys.
    pub fn configure_real(&self, text: &str) {
        let hidden = format!("{CONFIG}.new");
        fs::write(&hidden, text).expect("write the configuration");
        fs::rename(&hidden, CONFIG).expect("rename the configuration");
    }

    /// Puts the configuration where a ConfigMap's volume has it: behind a link of a link, `..data`, that is
    /// changed by a rename.
    pub fn configure_as_config_map(&self, text: &str, version: u32) {
        let config = Path::new(CONFIG);
        let folder = config.parent().expect("a folder");
        let name = config.file_name().expect("a name");
        let data = format!("..2026_01_01_00_00_00.{version}");
        fs::create_dir(folder.join(&data)).expect("make the version's folder");
        fs::write(folder.join(&data).join(name), format!("{MADE}{text}")).expect("write the configuration");
        let link =
            |target: &Path, path: &Path| std::os::unix::fs::symlink(target, path).expect("make a link");
        link(Path::new(&data), &folder.join("..data_tmp"));
        let before = fs::read_link(folder.join("..data"));
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("rename the link");
        if before.is_err() {
            link(&Path::new("..data").join(name), config);
        }
        if let Ok(before) = before {
            fs::remove_dir_all(folder.join(before)).expect("remove the version before");
        }
    }

    /// Starts the daemon.
    pub fn daemon(&self) -> Daemon {
        self.daemon_by(&[])
    }

    /// Starts the daemon by a program that execs it, such as `setpriv` with its arguments.
    pub fn daemon_by(&self, words: &[&str]) -> Daemon {
        let words: Vec<&str> = words.iter().copied().chain([PROGRAM, "--config", CONFIG, "run"]).collect();
        Daemon::start(&words)
    }

    /// Configures and starts it.
    pub fn offer(&self, text: &str) -> Daemon {
        self.configure(text);
        self.daemon()
    }

    /// Runs one of its commands for people, with the node's configuration.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> Answer {
        let words: Vec<&str> = [PROGRAM, "--config", CONFIG].iter().chain(words).copied().collect();
        try_tool(&words)
    }

    /// Asks the daemon over its socket: the status and the body.
    #[track_caller]
    pub fn http(&self, target: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(HTTP).expect("connect to the daemon");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set a limit");
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("ask the daemon");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the daemon's answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, body.to_owned())
    }

    // --- devices ----------------------------------------------------------------------------------------

    /// Where this is below the made /dev.
    pub fn dev(&self, name: &str) -> PathBuf {
        let path = Path::new(DEV).join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder below /dev");
        path
    }

    /// Plugs a character device in: its node appears in the made /dev.
    pub fn plug(&self, name: &str, major: u64, minor: u64) {
        self.make_node(name, SFlag::S_IFCHR, major, minor);
    }

    /// Plugs a block device in.
    pub fn plug_block(&self, name: &str, major: u64, minor: u64) {
        self.make_node(name, SFlag::S_IFBLK, major, minor);
    }

    fn make_node(&self, name: &str, kind: SFlag, major: u64, minor: u64) {
        let mode = Mode::from_bits_truncate(0o660);
        mknod(&self.dev(name), kind, mode, makedev(major, minor))
            .unwrap_or_else(|e| panic!("mknod {name}: {e}"));
    }

    /// Makes a symlink in the made /dev, as udev does.
    pub fn link(&self, name: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.dev(name)).unwrap_or_else(|e| panic!("link {name}: {e}"));
    }

    /// Makes a FIFO in the made /dev.
    pub fn fifo(&self, name: &str) {
        mkfifo(&self.dev(name), Mode::from_bits_truncate(0o660))
            .unwrap_or_else(|e| panic!("mkfifo {name}: {e}"));
    }

    /// Takes a node or a link off the made /dev.
    pub fn unplug(&self, name: &str) {
        fs::remove_file(self.dev(name)).unwrap_or_else(|e| panic!("remove {name}: {e}"));
    }
}
