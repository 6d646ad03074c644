//! The throw-away node for volumes: mounts, folders and drivers of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::call::{self, tool};
use crate::kernel::cgroup::Cgroup;
use crate::kubelet::{Kubelet, PLUGINS, hold};
use crate::node::{BOOT_ID, bind, built, cover, lay_over};
use crate::volume_look::{self, Kept, Loop, Territory};

/// The names under which our driver is installed: `nodeplug~NAME/NAME`.
pub const OURS: [&str; 9] = ["volume", "tmpfs", "bind", "image", "overlay", "block", "nfs", "cifs", "fuse"];

/// The harness's own files. They outlive a reboot.
const SCRATCH: &str = "/var/lib/harness";

/// Folders that are empty on a new node.
const COVERED: [&str; 5] = ["/var/lib", "/var/log", "/run", "/srv", "/opt"];

/// The path of our driver on the host: `$NODEPLUG_FLEXVOLUME`, or beside the test's own folder.
pub fn our_driver() -> PathBuf {
    built("NODEPLUG_FLEXVOLUME", "nodeplug-flexvolume")
}

/// A node: this thread's mount and network namespaces, and a cgroup. What outlives a thread (loop devices,
/// processes, the cgroup) goes when this is dropped.
#[derive(Debug)]
pub struct VolumeNode {
    cgroup: Option<Cgroup>,
    boots: AtomicU32,
    territory: Mutex<Territory>,
    /// The mounts of the bare node.
    bare: BTreeSet<(u64, PathBuf)>,
    kept: Mutex<Kept>,
}

impl VolumeNode {
    /// Moves this thread into namespaces of its own, where no mount is shared, and installs our driver under
    /// all its names. Call it on a thread that ends with the test.
    pub fn enter() -> Self {
        Self::lay_out(MsFlags::MS_PRIVATE, true)
    }

    /// The same with all mounts shared, as systemd leaves them on a real host.
    pub fn enter_shared() -> Self {
        Self::lay_out(MsFlags::MS_SHARED, true)
    }

    /// [`VolumeNode::enter`] without any driver.
    pub fn bare() -> Self {
        Self::lay_out(MsFlags::MS_PRIVATE, false)
    }

    /// [`VolumeNode::enter_shared`] without any driver.
    pub fn bare_shared() -> Self {
        Self::lay_out(MsFlags::MS_SHARED, false)
    }

    fn lay_out(propagation: MsFlags, with_ours: bool) -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("unshare");
        propagate(MsFlags::MS_PRIVATE);
        // Opened before the folders that may hold it are covered.
        let driver = with_ours.then(|| File::open(our_driver()).expect("open our driver"));
        let territory = cover_all();
        tool(&["ip", "link", "set", "lo", "up"]);
        let mut node = Self {
            cgroup: Cgroup::make(&unique_name()),
            boots: AtomicU32::new(0),
            territory: Mutex::new(territory),
            bare: BTreeSet::new(),
            kept: Mutex::default(),
        };
        node.start_kernel();
        propagate(propagation);
        if let Some(driver) = driver {
            install_ours(&driver);
        }
        node.keep();
        node.bare = volume_look::mounts().into_iter().map(|m| (m.id, m.path)).collect();
        node
    }

    /// A kubelet of this node; a second one knows nothing of the first.
    pub fn kubelet(&self) -> Kubelet {
        self.kubelet_with(Path::new(PLUGINS))
    }

    /// A kubelet with another `--volume-plugin-dir`.
    pub fn kubelet_with(&self, folder: &Path) -> Kubelet {
        let own = self.cgroup.as_ref().and_then(|c| Cgroup::make(&format!("{}/kubelet.service", c.name())));
        Kubelet::new(folder, own)
    }

    /// Installs a shell script as a driver, by renaming its folder into place, or its program where the
    /// folder is there.
    pub fn install_script(&self, driver: &str, script: &str) {
        let (name, program) = (driver.replace('/', "~"), driver.rsplit('/').next().unwrap_or_default());
        let folder = Path::new(PLUGINS).join(&name);
        if folder.exists() {
            let hidden = folder.join(format!(".{program}.new"));
            self.write_program(&hidden, script);
            fs::rename(&hidden, folder.join(program)).expect("rename a driver");
            return;
        }
        let hidden = Path::new(PLUGINS).join(format!(".{name}.new"));
        fs::create_dir(&hidden).expect("make a driver's folder");
        self.write_program(&hidden.join(program), script);
        fs::rename(&hidden, &folder).expect("rename a driver's folder");
    }

    /// Writes an executable script.
    pub fn write_program(&self, path: &Path, script: &str) {
        call::write_program(path, script.as_bytes());
    }

    /// Writes the node's policy for our driver, as root alone may.
    pub fn policy(&self, yaml: &str) {
        let path = Path::new("/etc/nodeplug/flexvolume.yaml");
        fs::create_dir_all("/etc/nodeplug").expect("make /etc/nodeplug");
        fs::write(path, yaml).expect("write the policy");
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("chmod the policy");
    }

    /// A disk of this size (`256M`) with an ext4 on it, mounted at `/srv/disk`: what a tmpfs cannot do, it
    /// can.
    pub fn disk(&self, size: &str) -> PathBuf {
        let (image, target) = (format!("{SCRATCH}/disk.img"), PathBuf::from("/srv/disk"));
        fs::create_dir_all(&target).expect("make /srv/disk");
        tool(&["truncate", "-s", size, &image]);
        tool(&["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", &image]);
        hold(&self.territory).claim("/srv/disk", |folder| {
            tool(&["mount", "-o", "loop", &image, folder]);
        });
        self.keep();
        target
    }

    /// What is there now (mounts, loop devices, processes) is the test's own, and nobody's leftover.
    pub fn keep(&self) {
        let kept = Kept::take(&hold(&self.territory), self.cgroup.as_ref());
        *hold(&self.kept) = kept;
    }

    /// What drivers left on the node.
    pub fn leftovers(&self) -> Vec<String> {
        volume_look::leftovers(&hold(&self.territory), &hold(&self.kept), self.cgroup.as_ref())
    }

    /// The loop devices whose file is on this node.
    pub fn loops(&self) -> Vec<Loop> {
        hold(&self.territory).loops()
    }

    /// The processes that see this node's folders, in whatever namespace they are.
    pub fn processes(&self) -> Vec<i32> {
        hold(&self.territory).processes()
    }

    /// Stops the test when drivers left anything. A daemon may take a moment to exit.
    #[track_caller]
    pub fn assert_nothing_left(&self, when: &str) {
        let left = volume_look::settled(|| self.leftovers());
        assert!(left.is_empty(), "{when}: {} left: {left:#?}", left.len());
    }

    /// The power goes off and on: files stay; mounts, loop devices, processes and `/run` do not, and the
    /// boot id is another one.
    pub fn reboot(&self) {
        self.stop_kernel();
        let _ = umount2(BOOT_ID, MntFlags::MNT_DETACH);
        hold(&self.territory).claim("/run", cover);
        fs::create_dir_all("/run/lock").expect("make /run/lock");
        self.start_kernel();
        self.keep();
    }

    /// Ends what was not kept: processes, mounts, loop devices. What cannot be ended, in words.
    fn stop_kernel(&self) -> Vec<String> {
        let kept = hold(&self.kept);
        let processes = volume_look::settled(|| {
            let all = self.processes();
            for pid in &all {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            all
        });
        let mut new = volume_look::mounts();
        new.retain(|m| !kept.mounts.contains(&(m.id, m.path.clone())));
        for mount in new.iter().rev() {
            let _ = umount2(&mount.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
        let loops = volume_look::settled(|| {
            let mut all = self.loops();
            all.retain(|l| !kept.loops.contains(&l.name));
            for device in &all {
                drop(call::try_tool(&["losetup", "-d", &device.name]));
            }
            all
        });
        let processes = processes.into_iter().map(volume_look::process);
        processes.chain(loops.into_iter().map(|l| format!("loop {} of {}", l.name, l.file))).collect()
    }

    fn start_kernel(&self) {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        fs::create_dir_all(SCRATCH).expect(SCRATCH);
        let id = Path::new(SCRATCH).join(format!("boot_id.{boot}"));
        fs::write(&id, format!("{boot:08x}-1111-4222-8333-444455556666\n")).expect("write a boot id");
        bind(&id, Path::new(BOOT_ID));
    }
}

impl Drop for VolumeNode {
    /// What would outlive the thread goes now, and a test that leaves something all the same fails.
    fn drop(&mut self) {
        // The disk that a test asked for goes with the mounts.
        let bare = std::mem::take(&mut self.bare);
        *hold(&self.kept) = Kept { mounts: bare, ..Kept::default() };
        let stuck = self.stop_kernel();
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
            cgroup.remove();
        }
        assert!(stuck.is_empty() || thread::panicking(), "left on this machine: {stuck:?}");
    }
}

/// Gives the node empty folders of its own, and folders of the host that it may change for itself.
fn cover_all() -> Territory {
    let mut territory = Territory::default();
    for folder in COVERED {
        territory.claim(folder, cover);
    }
    for folder in ["/etc", "/usr/libexec"] {
        lay_over(Path::new(SCRATCH), folder);
    }
    for folder in [PLUGINS, "/var/lib/kubelet/pods", "/run/lock"] {
        fs::create_dir_all(folder).expect(folder);
    }
    // Over the overlay, so that drivers lie on a filesystem of one layer.
    cover(PLUGINS);
    territory
}

/// Changes how all mounts of this thread propagate.
pub(crate) fn propagate(how: MsFlags) {
    mount(None::<&str>, "/", None::<&str>, how | MsFlags::MS_REC, None::<&str>).expect("change propagation");
}

/// One copy, and a hard link for each further name. By a process of its own, as
/// [`VolumeNode::write_program`] does it.
fn install_ours(file: &File) {
    let copy = Path::new(PLUGINS).join(".nodeplug-flexvolume");
    let mut command = Command::new("install");
    let source = file.try_clone().expect("a second descriptor");
    command.args(["-m", "755", "/dev/stdin"]).arg(&copy).stdin(source);
    let status = command.status().expect("install our driver");
    assert!(status.success(), "install our driver: {status}");
    for name in OURS {
        let folder = Path::new(PLUGINS).join(format!("nodeplug~{name}"));
        let made = fs::create_dir(&folder).and_then(|()| fs::hard_link(&copy, folder.join(name)));
        made.unwrap_or_else(|e: io::Error| panic!("install `{name}`: {e}"));
    }
    fs::remove_file(&copy).expect("remove the spare name");
}

fn unique_name() -> String {
    static NODES: AtomicU32 = AtomicU32::new(0);
    let n = NODES.fetch_add(1, Ordering::Relaxed);
    format!("nodeplug-tests-{}-{n}", std::process::id())
}
