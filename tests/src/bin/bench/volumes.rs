//! A throw-away node for volumes, and the calls of drivers on it as the kubelet makes them.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use harness::call::{Launch, tool};
use harness::kernel::bare_volume;
use harness::measure::{Sample, once};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// Where drivers lie, as on a node whose system folders are read-only.
const DRIVERS: &str = "/var/lib/kubelet/volumeplugins";
/// The drivers that people write, by their path below [`DRIVERS`].
const SCRIPTS: [(&str, &str); 3] = [
    ("bench~tmpfs/tmpfs", include_str!("drivers/tmpfs.sh")),
    ("bench~image/image", include_str!("drivers/image.sh")),
    ("bench~script/script", include_str!("drivers/script.sh")),
];
/// Where images lie.
const IMAGES: &str = "/var/lib/volumes";

/// Runs `work` on a thread that is a node, to its end.
pub fn on_node<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let run = move || {
        become_node();
        work()
    };
    thread::spawn(run).join().expect("a benchmark's thread")
}

/// Moves this thread onto a node of its own, with all drivers installed: its mount namespace. Everything on
/// it vanishes with the thread.
pub fn become_node() {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("make mounts private");
    // Opened before the folders that may hold them are covered.
    let programs = programs();
    for folder in ["/var/lib", "/run"] {
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).expect(folder);
    }
    for (name, file) in &programs {
        let target = placed(name, "");
        let source = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
        mount(Some(source.as_str()), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .expect("install a driver");
    }
    for (name, script) in SCRIPTS {
        fs::set_permissions(placed(name, script), fs::Permissions::from_mode(0o755))
            .expect("make it a program");
    }
    for folder in ["locks", "volumes"] {
        fs::create_dir_all(Path::new(bare_volume::STATE).join(folder)).expect("make the floor's state");
    }
    fs::create_dir_all(IMAGES).expect(IMAGES);
    std::env::set_current_dir("/").expect("go to /");
}

/// The drivers that are binaries, by their path below the plugin folder.
fn programs() -> [(&'static str, File); 4] {
    let beside = |name: &str| std::env::current_exe().expect("my own path").with_file_name(name);
    let ours = std::env::var_os("NODEPLUG_FLEXVOLUME");
    let ours = ours.map_or_else(|| beside("nodeplug-flexvolume"), PathBuf::from);
    let programs = [
        ("nodeplug~tmpfs/tmpfs", ours.clone()),
        ("nodeplug~image/image", ours),
        ("bench~nothing/nothing", beside("nothing")),
        ("bench~floor/floor", beside("mountfloor")),
    ];
    programs.map(|(name, path)| {
        (name, File::open(&path).unwrap_or_else(|e| panic!("open `{}`: {e}", path.display())))
    })
}

/// A driver's file with its folder.
fn placed(name: &str, content: &str) -> PathBuf {
    let target = Path::new(DRIVERS).join(name);
    fs::create_dir_all(target.parent().expect("a driver's folder")).expect("make a driver's folder");
    fs::write(&target, content).expect("write a driver");
    target
}

/// Puts a policy onto this thread's node. The folder `/etc` of the host stays as it is, below an overlay.
pub fn policy(text: &str) {
    for part in ["upper", "work"] {
        fs::create_dir_all(format!("/run/etc/{part}")).expect("make an overlay's folder");
    }
    let options = Some("lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work");
    mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), options).expect("cover /etc");
    fs::create_dir_all("/etc/nodeplug").expect("make the policy's folder");
    fs::write("/etc/nodeplug/flexvolume.yaml", text).expect("write the policy");
}

/// An image with an empty ext4 on it, on this thread's node.
pub fn ext4(name: &str) -> String {
    let path = format!("{IMAGES}/{name}");
    let file = File::create_new(&path).expect("make an image");
    file.set_len(64 << 20).expect("size an image");
    tool(&["mkfs.ext4", "-q", "-F", &path]);
    path
}

/// One call of a driver.
#[derive(Debug, Clone)]
pub struct Call {
    driver: &'static str,
    words: Vec<String>,
}

impl Call {
    /// A call of the driver at this path below the plugin folder.
    pub fn new(driver: &'static str, words: &[&str]) -> Self {
        Self { driver, words: words.iter().map(|w| (*w).to_owned()).collect() }
    }

    /// Makes the call, which must answer with success.
    pub fn succeed(&self) -> Sample {
        let (sample, answer) = once(self);
        assert_eq!(answer["status"], "Success", "{self:?}: {answer}");
        sample
    }
}

impl Launch for Call {
    /// The environment that systemd gives the kubelet; the working folder is the kubelet's own, `/`.
    fn command(&self) -> Command {
        let mut command = Command::new(Path::new(DRIVERS).join(self.driver));
        command.args(&self.words).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    fn one_stream(&self) -> bool {
        true
    }
}

/// A pod's volume.
#[derive(Debug, Clone)]
pub struct Volume {
    driver: &'static str,
    folder: PathBuf,
    options: String,
}

impl Volume {
    /// The volume `data` of the pod with this number, by the driver at this path below the plugin folder.
    pub fn new(driver: &'static str, pod: usize, options: &[(&str, &str)]) -> Self {
        let uid = format!("{pod:08x}-875a-41ad-870d-5955dca7ead1");
        let plugin = driver.split('/').next().unwrap_or_default();
        let folder = PathBuf::from(format!("/var/lib/kubelet/pods/{uid}/volumes/{plugin}/data"));
        let mut all = json!({
            "kubernetes.io/fsType": "", "kubernetes.io/pod.name": "web", "kubernetes.io/pod.namespace": "default",
            "kubernetes.io/pod.uid": uid, "kubernetes.io/pvOrVolumeName": "data", "kubernetes.io/readwrite": "rw",
            "kubernetes.io/serviceAccount.name": "default",
        });
        for (key, value) in options {
            all[*key] = Value::from(*value);
        }
        all.sort_all_objects();
        Self { driver, folder, options: all.to_string() }
    }

    /// The same volume with something else for its options.
    pub fn with(self, argument: &str) -> Self {
        Self { options: argument.to_owned(), ..self }
    }

    /// The call that mounts it, on its folder as the kubelet makes it.
    pub fn mount(&self) -> Call {
        fs::create_dir_all(&self.folder).expect("make a volume's folder");
        Call::new(self.driver, &["mount", self.folder_name(), &self.options])
    }

    /// The call that unmounts it.
    pub fn unmount(&self) -> Call {
        Call::new(self.driver, &["unmount", self.folder_name()])
    }

    /// Unmounts it, and takes its folder away as the kubelet does.
    pub fn unmounted(&self) -> Sample {
        let sample = self.unmount().succeed();
        // The shell driver has done so itself.
        if self.folder.exists() {
            fs::remove_dir(&self.folder).expect("remove a volume's folder");
        }
        sample
    }

    /// Mounts it and unmounts it: what each of the two costs.
    pub fn round(&self) -> [Sample; 2] {
        let mounted = self.mount().succeed();
        [mounted, self.unmounted()]
    }

    fn folder_name(&self) -> &str {
        self.folder.to_str().expect("a path of ASCII")
    }
}
