//! The throw-away node and the namespaces on it.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::call::{self, Answer, tool};

/// Where plugins lie on the node, as on a real one.
pub const PLUGINS: &str = "/opt/cni/bin";
/// Where the reference plugins are installed by Debian.
pub const REFERENCE: &str = "/usr/lib/cni";
/// Where leases lie by default.
pub const LEASES: &str = "/var/lib/cni/networks";
/// Where records of attachments lie.
pub const RECORDS: &str = "/var/lib/nodeplug/cni/attachments";
/// Where claims to the node's ports lie.
pub const CLAIMS: &str = "/var/lib/nodeplug/cni/ports";

pub(crate) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const SCRATCH: &str = "/run/harness";

/// The path of our plugin on the host: `$NODEPLUG_CNI`, or beside the test's own folder.
pub fn our_binary() -> PathBuf {
    built("NODEPLUG_CNI", "nodeplug-cni")
}

/// The path of a program of ours on the host: what `variable` says, or beside the test's own folder.
pub fn built(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let own = std::env::current_exe().expect("the test's own path");
    let folders = own.ancestors().skip(1).take(2);
    let mut found = folders.map(|f| f.join(name)).filter(|p| p.is_file());
    found.next().unwrap_or_else(|| own.with_file_name(name))
}

/// A node: this thread's network and mount namespaces. Everything on it vanishes with the thread.
#[derive(Debug)]
pub struct Node {
    boots: AtomicU32,
    pods: AtomicU32,
}

impl Node {
    /// Moves this thread into namespaces of its own and lays out a node there, with our plugin installed
    /// under both its names. Call it on a thread that ends with the test.
    pub fn enter() -> Self {
        let ours = our_binary();
        Self::with(&[(&ours, "nodeplug-cni"), (&ours, "loopback")])
    }

    /// [`Node::enter`] with these programs in place of ours. Those that are not there are left out.
    pub fn with(programs: &[(&Path, &str)]) -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("unshare");
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("make mounts private");
        // What looks for a runtime may find the host's, and its folders.
        for folder in [REFERENCE, "/etc/cni"].into_iter().filter(|folder| Path::new(folder).is_dir()) {
            read_only(folder).unwrap_or_else(|e| panic!("make `{folder}` read-only: {e}"));
        }
        // Opened before the folders that may hold them are covered.
        let programs: Vec<_> =
            programs.iter().filter_map(|(path, name)| Some((File::open(path).ok()?, *name))).collect();
        for folder in ["/var/lib", "/var/log", "/run", "/opt"] {
            cover(folder);
        }
        for folder in [PLUGINS, "/run/netns", SCRATCH, "/run/lock"] {
            fs::create_dir_all(folder).expect(folder);
        }
        for (file, name) in &programs {
            put_program(&PathBuf::from(format!("/proc/thread-self/fd/{}", file.as_raw_fd())), name);
        }
        let node = Self { boots: AtomicU32::new(0), pods: AtomicU32::new(0) };
        node.start_kernel();
        node
    }

    /// Makes a folder of the host's, such as /etc, this node's own: what is written there goes with the node.
    pub fn own(&self, folder: &str) {
        lay_over(Path::new(SCRATCH), folder);
    }

    /// Installs a program under another name, as an operator would by copying it.
    pub fn install(&self, from: &Path, name: &str) {
        put_program(from, name);
    }

    /// Installs the reference plugins beside ours. They bring their own `loopback`, which is left out.
    pub fn install_reference(&self) {
        for name in ["bridge", "ptp", "host-local", "portmap"] {
            put_program(&Path::new(REFERENCE).join(name), name);
        }
    }

    /// A pod's namespace, named as containerd names it.
    pub fn pod(&self) -> Namespace {
        let n = self.pods.fetch_add(1, Ordering::Relaxed);
        self.namespace(&format!("cni-{n:08x}-875a-41ad-870d-5955dca7ead1"))
    }

    /// A namespace at `/var/run/netns/NAME`, with `lo` down as the kernel makes it.
    pub fn namespace(&self, name: &str) -> Namespace {
        Namespace::create(Path::new("/var/run/netns").join(name))
    }

    /// A machine outside the cluster, on a cable to the node: `192.0.2.2` and `2001:db8:ff::2`. The node is
    /// `.1` and `::1` on `up0` and routes everything there. It knows no way back to the pods.
    pub fn outside(&self) -> Namespace {
        let outside = self.namespace("outside");
        tool(&["ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", outside.name()]);
        // A tentative link-local address asks for no neighbour, for a second or two.
        tool(&["sysctl", "-qw", "net.ipv6.conf.up0.accept_dad=0"]);
        outside.tool(&["sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0"]);
        for (family, address) in [("-4", "192.0.2.1/24"), ("-6", "2001:db8:ff::1/64")] {
            add_address(&[], family, address, "up0");
        }
        tool(&["ip", "link", "set", "up0", "up"]);
        let inside = outside.words();
        let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
        for (family, address) in [("-4", "192.0.2.2/24"), ("-6", "2001:db8:ff::2/64")] {
            add_address(&inside, family, address, "eth0");
        }
        outside.tool(&["ip", "link", "set", "lo", "up"]);
        outside.tool(&["ip", "link", "set", "eth0", "up"]);
        tool(&["ip", "route", "add", "default", "via", "192.0.2.2"]);
        tool(&["ip", "-6", "route", "add", "default", "via", "2001:db8:ff::2"]);
        outside
    }

    /// The power goes off and on: files in `/var/lib` stay, the kernel's state and `/run` do not, and
    /// the boot id is another one.
    pub fn reboot(&self) {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network");
        cover("/run");
        fs::create_dir_all("/run/netns").expect("make /run/netns");
        fs::create_dir_all(SCRATCH).expect(SCRATCH);
        self.start_kernel();
    }

    fn start_kernel(&self) {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        let id = Path::new(SCRATCH).join("boot_id");
        fs::write(&id, format!("{boot:08x}-1111-4222-8333-444455556666\n")).expect("write a boot id");
        bind(&id, Path::new(BOOT_ID));
        let none = MsFlags::empty();
        // A sysfs shows the network namespace of the thread that mounted it.
        mount(Some("sysfs"), "/sys", Some("sysfs"), none, None::<&str>).expect("mount sysfs");
        tool(&["ip", "link", "set", "lo", "up"]);
    }
}

/// A network namespace with a name. One that was made here goes when this does.
#[derive(Debug)]
pub struct Namespace {
    /// Its path below /var/run/netns.
    pub path: PathBuf,
    ours: bool,
}

impl Namespace {
    fn create(path: PathBuf) -> Self {
        File::create_new(&path).unwrap_or_else(|e| panic!("make `{}`: {e}", path.display()));
        let target = path.clone();
        // The new thread shares this one's mounts and takes only the network for itself.
        let made = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network");
            bind(Path::new("/proc/thread-self/ns/net"), &target);
        });
        made.join().expect("make a namespace");
        Self { path, ours: true }
    }

    /// One that a runtime made, and takes away.
    pub fn of_runtime(path: PathBuf) -> Self {
        Self { path, ours: false }
    }

    /// Its path as text.
    pub fn name(&self) -> &str {
        self.path.to_str().expect("a path of ASCII")
    }

    /// Runs `work` on a thread inside. Sockets made there stay of this namespace when they leave it.
    pub fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let file = File::open(&self.path).expect("open the namespace");
        let inside = thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            work()
        });
        match inside.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a tool inside that must succeed.
    #[track_caller]
    pub fn tool(&self, words: &[&str]) -> String {
        let answer = self.try_tool(words);
        assert!(answer.ok(), "{words:?} in {}: {answer:?}", self.path.display());
        answer.stdout
    }

    /// Runs a tool inside.
    #[track_caller]
    pub fn try_tool(&self, words: &[&str]) -> Answer {
        let enter = self.words();
        let (program, rest) = enter.split_first().expect("a program's name");
        call::run(Command::new(program).args(rest).args(words), b"")
    }

    /// The words that go before a command to run it inside.
    pub fn words(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net={}", self.path.display())]
    }

    /// Removes it now, whoever made it: the path is gone, and its links go with it.
    pub fn remove(mut self) {
        self.ours = true;
        drop(self);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.ours {
            let _ = umount2(&self.path, MntFlags::MNT_DETACH);
            drop(fs::remove_file(&self.path));
        }
    }
}

fn add_address(inside: &[&str], family: &str, address: &str, link: &str) {
    let mut words = inside.to_vec();
    words.extend(["ip", family, "addr", "add", address, "dev", link]);
    if family == "-6" {
        // Without this the address is tentative for a second or two.
        words.push("nodad");
    }
    tool(&words);
}

/// Makes a folder of the host writable without changing it; what is written lies below `scratch`.
pub(crate) fn lay_over(scratch: &Path, folder: &str) {
    let own = scratch.join(folder.trim_start_matches('/').replace('/', "-"));
    let (upper, work) = (own.join("upper"), own.join("work"));
    fs::create_dir_all(&upper).expect("make an upper folder");
    fs::create_dir_all(&work).expect("make a work folder");
    let options = format!("lowerdir={folder},upperdir={},workdir={}", upper.display(), work.display());
    let none = MsFlags::empty();
    mount(Some("overlay"), folder, Some("overlay"), none, Some(options.as_str()))
        .unwrap_or_else(|e| panic!("lay over `{folder}`: {e}"));
}

/// An empty folder in the place of one of the host's.
pub fn cover(folder: &str) {
    let options = Some("mode=755");
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), options)
        .unwrap_or_else(|e| panic!("cover `{folder}`: {e}"));
}

/// A folder of the host's, which nobody on this node changes.
fn read_only(folder: &str) -> nix::Result<()> {
    mount(Some(folder), folder, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, folder, None::<&str>, again, None::<&str>)
}

pub(crate) fn bind(source: &Path, target: &Path) {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .unwrap_or_else(|e| panic!("bind `{}` to `{}`: {e}", source.display(), target.display()));
}

/// A bind mount costs nothing, and the program's own path is then the one that it is called by.
fn put_program(source: &Path, name: &str) {
    let target = Path::new(PLUGINS).join(name);
    let _ = umount2(&target, MntFlags::MNT_DETACH);
    File::create(&target).unwrap_or_else(|e| panic!("make `{}`: {e}", target.display()));
    bind(source, &target);
}
