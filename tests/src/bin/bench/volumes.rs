//! A throw-away node with all sides' drivers, and their calls as the kubelet makes them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use harness::call::{Launch, tool};
use harness::kernel::bare_volume;
use harness::kubelet::{PLUGINS, ROOT};
use harness::measure::{Sample, once};
use harness::volume_node::VolumeNode;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

/// The drivers that people write.
const SCRIPTS: [(&str, &str); 3] = [
    ("bench/tmpfs", include_str!("drivers/tmpfs.sh")),
    ("bench/image", include_str!("drivers/image.sh")),
    ("bench/script", include_str!("drivers/script.sh")),
];
/// The programs, by the file beside this one. What is less than a driver has a driver's place all the same.
const PROGRAMS: [(&str, &str); 4] = [
    ("nodeplug-flexvolume", "nodeplug~tmpfs/tmpfs"),
    ("nodeplug-flexvolume", "nodeplug~image/image"),
    ("nothing", "bench~nothing/nothing"),
    ("mountfloor", "bench~floor/floor"),
];
/// Where images lie.
const IMAGES: &str = "/srv/volumes";
/// What the node allows for them; the rest of the policy is as without the file.
const POLICY: &str = r#"backends:
  tmpfs: {}
  image:
    roots: [{path: /srv/volumes, namespaces: ["*"]}]
"#;

/// Runs `work` on a thread that is a node, to its end.
pub fn on_node<T: Send + 'static>(work: impl FnOnce(&VolumeNode) -> T + Send + 'static) -> T {
    thread::spawn(|| work(&node())).join().expect("a benchmark's thread")
}

/// Makes this thread a node with all drivers on it.
pub fn node() -> VolumeNode {
    let node = VolumeNode::enter();
    for (driver, script) in SCRIPTS {
        node.install_script(driver, script);
    }
    for (file, driver) in PROGRAMS {
        let source = std::env::current_exe().expect("my own path").with_file_name(file);
        let target = Path::new(PLUGINS).join(driver);
        fs::create_dir_all(target.parent().expect("a driver's folder")).expect("make a driver's folder");
        File::options().append(true).create(true).open(&target).expect("make a driver's place");
        // The file on the disk, where real nodes have it: a start from a tmpfs takes a tenth of a
        // millisecond longer.
        mount(Some(&source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .unwrap_or_else(|e| panic!("install `{}`: {e}", source.display()));
    }
    for folder in ["locks", "volumes"] {
        fs::create_dir_all(Path::new(bare_volume::STATE).join(folder)).expect("make the floor's state");
    }
    // Calls inherit it: a process that has to change its folder is forked and not spawned, which costs more
    // than what is measured here.
    std::env::set_current_dir("/").expect("go to /");
    node
}

/// Images of these names with an empty ext4 on each, which pods of this node may use.
pub fn images<const N: usize>(node: &VolumeNode, names: [&str; N]) -> [String; N] {
    node.policy(POLICY);
    fs::create_dir_all(IMAGES).expect(IMAGES);
    names.map(|name| {
        let path = format!("{IMAGES}/{name}.ext4");
        let file = File::create_new(&path).expect("make an image");
        file.set_len(64 << 20).expect("size an image");
        tool(&["mkfs.ext4", "-q", "-F", &path]);
        path
    })
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
        let mut command = Command::new(Path::new(PLUGINS).join(self.driver));
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
        let folder = PathBuf::from(format!("{ROOT}/pods/{uid}/volumes/{plugin}/data"));
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

    /// Takes away what the floor has mounted, which nobody measures.
    pub fn cleared(&self) -> Sample {
        umount2(&self.folder, MntFlags::UMOUNT_NOFOLLOW).expect("unmount the floor's volume");
        fs::remove_file(bare_volume::RECORD).expect("remove the floor's record");
        fs::remove_dir(&self.folder).expect("remove the floor's folder");
        Sample::default()
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
