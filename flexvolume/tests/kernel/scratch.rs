//! What stands around each test: the namespace, the folder, the tools.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use flexvolume::kernel::{loop_device, mount, path};
use libtest_mimic::{Completion, Failed, Trial};
use nix::mount::{MsFlags, mount as nix_mount};
use nix::sched::{CloneFlags, unshare};
use node::{Kind, mountinfo};

/// No test takes longer.
const LIMIT: Duration = Duration::from_mins(2);
/// A folder that every distribution has; the tests' tmpfs covers it in their own namespaces.
const FOLDER: &str = "/mnt";
const NONE: Option<&str> = None;

/// A folder that is this test's alone.
pub struct Scratch {
    folder: PathBuf,
}

/// A test on a thread and in a mount namespace of its own.
pub fn test(name: &'static str, body: fn(&Scratch)) -> Trial {
    Trial::ignorable_test(name, move || run(name, body))
}

fn run(name: &str, body: fn(&Scratch)) -> Result<Completion, Failed> {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root, for mounts");
    }
    let (send, receive) = mpsc::channel();
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| {
            enter()
                .map(|()| body(&Scratch { folder: FOLDER.into() }))
                .map_err(|e| format!("needs a mount namespace: {e}"))
        }));
        drop(send.send(result.map_err(|panic| message(panic.as_ref()))));
    });
    thread.map_err(|e| format!("start a thread: {e}"))?;
    match receive.recv_timeout(LIMIT) {
        Ok(Ok(Ok(()))) => Ok(Completion::Completed),
        Ok(Ok(Err(why))) => skip(&why),
        Ok(Err(why)) => Err(why.into()),
        Err(_) => Err(format!("takes longer than {LIMIT:?}").into()),
    }
}

fn enter() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    nix_mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    nix_mount(Some("scratch"), FOLDER, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
}

/// A skipped test must not look like a passed one where a machine decides.
fn skip(why: &str) -> Result<Completion, Failed> {
    if std::env::var("CI").as_deref() == Ok("true") {
        return Err(format!("may not be skipped under CI: {why}").into());
    }
    Ok(Completion::ignored_with(why))
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

impl Scratch {
    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A new folder, open.
    pub fn folder(&self, name: &str) -> OwnedFd {
        fs::create_dir_all(self.path(name)).unwrap();
        self.open(name)
    }

    /// A folder that is there.
    pub fn open(&self, name: &str) -> OwnedFd {
        path::open_root(&self.path(name)).unwrap()
    }

    /// A file of `size` bytes, all of them a hole.
    pub fn image(&self, name: &str, size: u64) -> File {
        let path = self.path(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(size).unwrap();
        file
    }

    /// An image with a file system by the distribution's mkfs.
    pub fn formatted(&self, name: &str, size: u64, mkfs: &[&str]) -> File {
        let file = self.image(name, size);
        tool(&[mkfs, &[self.path(name).to_str().unwrap()]].concat());
        file
    }

    /// A device over an image, mounted at the folder `at`.
    pub fn mounted(&self, image: &File, kind: &str, at: &str) -> loop_device::Loop {
        let device = loop_device::attach(image, loop_device::Wish::default()).unwrap();
        let tree = mount::make(kind, Some(device.path().to_str().unwrap()), &[], false).unwrap();
        mount::attach(&tree, self.folder(at).as_fd()).unwrap();
        device
    }

    /// The mounts at a path in the folder.
    pub fn mounts_at(&self, name: &str) -> Vec<mountinfo::Mount> {
        mountinfo::at(&mountinfo::read().unwrap(), &self.path(name)).cloned().collect()
    }

    /// Unmounts the topmost layer at a name in the folder. A child that another test just starts may hold
    /// all descriptors of the process for a moment.
    pub fn unmount(&self, name: &str, how: mount::How) -> bool {
        let mut done = None;
        eventually("nobody uses the mount", || {
            match mount::detach(self.open("").as_fd(), OsStr::new(name), how) {
                Err(e) if e.kind() == Kind::TryAgain => false,
                other => {
                    done = Some(other.unwrap());
                    true
                }
            }
        });
        done.unwrap()
    }
}

/// Runs a program of the distribution.
pub fn tool(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|e| panic!("{words:?} is not installed: {e}"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until something is so: the kernel frees a loop device a moment after its last user.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
