//! A pod's containers as a runtime makes them: runc's, with what the manifest says of mounts, user, capabilities,
//! privileges, seccomp, root, memory and network, and nothing that it does not say.
//!
//! The node is the thread's: a hostPath is the path in its mount namespace.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use harness::call::{self, Answer, LIMIT};
use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};
use serde_json::{Value, json};

use crate::archive;
use crate::laws::IMAGE;
use crate::seccomp;

/// The programs that this needs.
pub const TOOLS: &[&str] = &["runc", "umoci", "tar", "readelf", "od"];
/// runc's state, on the node.
const STATE: &str = "/run/harness-runc";

/// A pod on the node of this thread.
#[derive(Debug)]
pub struct Pod<'a> {
    spec: &'a PodSpec,
    folder: PathBuf,
    /// The node's name.
    pub node: String,
    /// The files of the ConfigMaps that it names.
    pub maps: BTreeMap<String, BTreeMap<String, String>>,
    /// What the API server's side puts into projected volumes: token, ca.crt, namespace.
    pub projected: BTreeMap<String, String>,
    /// What the kubelet adds to every container's environment.
    pub services: Vec<(String, String)>,
}

impl<'a> Pod<'a> {
    pub fn new(spec: &'a PodSpec, node: &str) -> Self {
        static PODS: AtomicU32 = AtomicU32::new(0);
        let n = PODS.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(format!("/run/harness-pods/{n}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("make a pod's folder");
        Self {
            spec,
            folder,
            node: node.to_owned(),
            maps: BTreeMap::new(),
            projected: BTreeMap::new(),
            services: Vec::new(),
        }
    }

    /// Where a volume lies on the node.
    pub fn volume(&self, name: &str) -> PathBuf {
        let volume = self.spec.volumes.iter().flatten().find(|volume| volume.name == name);
        self.source(volume.unwrap_or_else(|| panic!("no volume `{name}`")))
    }

    fn source(&self, volume: &Volume) -> PathBuf {
        let own = self.folder.join("volumes").join(&volume.name);
        if let Some(host) = &volume.host_path {
            let path = PathBuf::from(&host.path);
            match host.type_.as_deref() {
                Some("Directory") => {
                    assert!(path.is_dir(), "the kubelet refuses a pod without `{}`", host.path);
                }
                Some("DirectoryOrCreate") => fs::create_dir_all(&path).expect("make a folder of the node"),
                other => panic!("`{}`: no kubelet here for the type {other:?}", host.path),
            }
            return path;
        }
        fs::create_dir_all(&own).expect("make a volume");
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).expect("chmod a volume");
        if let Some(map) = &volume.config_map {
            fill(
                &own,
                self.maps.get(&map.name).unwrap_or_else(|| panic!("no ConfigMap `{}`", map.name)),
                0o644,
            );
        } else if volume.projected.is_some() {
            fill(&own, &self.projected, 0o600);
        } else {
            assert!(volume.empty_dir.is_some(), "no kubelet here for the volume `{}`", volume.name);
        }
        own
    }

    /// Starts one of its containers.
    pub fn start(&self, name: &str) -> Running {
        let container = self.spec.containers.iter().find(|container| container.name == name);
        let container = container.unwrap_or_else(|| panic!("no container `{name}`"));
        let bundle = self.folder.join(name);
        fs::create_dir_all(&bundle).expect("make a bundle");
        let entrypoint = root_of(container, &bundle);
        let config = self.config(container, entrypoint, &bundle);
        fs::write(bundle.join("config.json"), config.to_string()).expect("write a configuration");
        Running::start(&bundle)
    }

    fn environment(&self, container: &Container) -> Vec<(String, String)> {
        let mut environment = self.services.clone();
        for variable in container.env.iter().flatten() {
            let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
            let value = match field.map(|field| field.field_path.as_str()) {
                Some("spec.nodeName") => self.node.clone(),
                Some(other) => panic!("no kubelet here for the field `{other}`"),
                None => variable.value.clone().unwrap_or_default(),
            };
            environment.push((variable.name.clone(), value));
        }
        environment
    }

    fn config(&self, container: &Container, entrypoint: Option<&str>, bundle: &Path) -> Value {
        let mut config = usual(bundle);
        let environment = self.environment(container);
        let expand = |word: &String| {
            let known = environment.iter();
            known.fold(word.clone(), |word, (name, value)| word.replace(&format!("$({name})"), value))
        };
        let command =
            container.command.clone().unwrap_or_else(|| vec![entrypoint.expect("a command").to_owned()]);
        let words = command.iter().chain(container.args.iter().flatten()).map(expand);
        config["process"]["args"] = words.collect();
        config["process"]["env"] =
            environment.iter().map(|(name, value)| json!(format!("{name}={value}"))).collect();
        let security = container.security_context.as_ref().expect("a security context");
        config["process"]["user"] = json!({"uid": security.run_as_user, "gid": security.run_as_group});
        let dropped = security.capabilities.as_ref().expect("capabilities");
        assert_eq!((&dropped.add, dropped.drop.as_deref()), (&None, Some(&["ALL".to_owned()][..])));
        config["process"]["capabilities"] = json!({});
        config["process"]["noNewPrivileges"] = json!(security.allow_privilege_escalation == Some(false));
        config["root"] =
            json!({"path": "rootfs", "readonly": security.read_only_root_filesystem == Some(true)});
        let list = config["mounts"].as_array_mut().expect("mounts");
        for mount in container.volume_mounts.iter().flatten() {
            let how = if mount.read_only == Some(true) { "ro" } else { "rw" };
            list.push(json!({
                "destination": mount.mount_path, "type": "bind", "source": self.volume(&mount.name),
                "options": ["rbind", "rprivate", how],
            }));
        }
        if self.spec.host_network == Some(true) {
            config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "network");
        }
        let profile =
            self.spec.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
        assert_eq!(profile.expect("a profile").type_, "RuntimeDefault");
        config["linux"]["seccomp"] = seccomp::runtime_default();
        let limit = container.resources.as_ref().and_then(|r| r.limits.as_ref()?.get("memory"));
        let mib = limit.and_then(|limit| limit.0.strip_suffix("Mi")?.parse::<u64>().ok());
        let mib = mib.expect("a limit in Mi");
        // What is copied onto the node's tmpfs counts, and a debug build is larger than all that a pod may have.
        if archive::is_release() {
            config["linux"]["resources"]["memory"] = json!({"limit": mib << 20});
        }
        config
    }
}

/// What runc gives to every container: /proc, /dev and so on, and its namespaces.
fn usual(bundle: &Path) -> Value {
    let answer = call::run(Command::new("runc").arg("spec").current_dir(bundle), b"");
    assert!(answer.ok(), "{answer:?}");
    let text = fs::read_to_string(bundle.join("config.json")).expect("runc's configuration");
    fs::remove_file(bundle.join("config.json")).expect("remove it");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["process"]["terminal"] = json!(false);
    config["hostname"] = json!("pod");
    config
}

/// The image's files in the bundle, and its entrypoint where it has one.
fn root_of(container: &Container, bundle: &Path) -> Option<&'static str> {
    let image = container.image.as_deref().expect("an image");
    if image == IMAGE {
        let rootfs = archive::unpack(&archive::made().archive, &bundle.with_extension("image"));
        fs::rename(rootfs, bundle.join("rootfs")).expect("move the image's files");
        return None;
    }
    assert!(image.starts_with("kubectl:"), "{image}");
    // As Kubernetes' own image has it; it needs nothing beside.
    fs::create_dir_all(bundle.join("rootfs/bin")).expect("make a root");
    let kubectl = call::tool(&["which", "kubectl"]);
    fs::copy(kubectl.trim(), bundle.join("rootfs/bin/kubectl")).expect("copy kubectl");
    Some("/bin/kubectl")
}

fn fill(folder: &Path, files: &BTreeMap<String, String>, mode: u32) {
    for (name, text) in files {
        fs::write(folder.join(name), text).expect("write a volume's file");
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode))
            .expect("chmod a volume's file");
    }
}

/// A container that was started. It is gone when this is dropped.
#[derive(Debug)]
pub struct Running {
    id: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(bundle: &Path) -> Self {
        static CONTAINERS: AtomicU32 = AtomicU32::new(0);
        let n = CONTAINERS.fetch_add(1, Ordering::Relaxed);
        // It names the container's cgroup, too: not one of a node's.
        let id = format!("nodeplug-pods-{}-{n}", std::process::id());
        let log = bundle.join("log");
        let (out, err) = (File::create(&log).unwrap(), File::options().append(true).open(&log).unwrap());
        let mut command = Command::new("runc");
        command.args(["--root", STATE, "run", "--bundle"]).arg(bundle).arg(&id);
        let child =
            command.stdin(std::process::Stdio::null()).stdout(out).stderr(err).spawn().expect("start runc");
        Self { id, child, log }
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a command in it, as a probe does.
    pub fn exec(&self, words: &[impl AsRef<str>]) -> Answer {
        let words = words.iter().map(AsRef::as_ref);
        call::run(Command::new("runc").args(["--root", STATE, "exec", &self.id]).args(words), b"")
    }

    /// The process on the node.
    pub fn pid(&self) -> u64 {
        let state = call::tool(&["runc", "--root", STATE, "state", &self.id]);
        let state: Value = serde_json::from_str(&state).expect("a state");
        state["pid"].as_u64().expect("a process")
    }

    /// A line of its /proc/PID/status.
    pub fn status(&self, key: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {key}")).trim().to_owned()
    }

    /// Asks until it is so. The container must run meanwhile.
    #[track_caller]
    pub fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !so(self) {
            let ended = self.child.try_wait().expect("look at runc");
            assert!(ended.is_none(), "it ended with {ended:?} before {what}: {}", self.log());
            assert!(start.elapsed() < LIMIT, "not {what}: {}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// What the kubelet does first: SIGTERM. Its exit code.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        call::tool(&["runc", "--root", STATE, "kill", &self.id, "TERM"]);
        self.wait()
    }

    /// Its exit code, when it ends.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("look at runc") {
                return status.code().unwrap_or_else(|| panic!("runc was killed: {status}"));
            }
            assert!(start.elapsed() < LIMIT, "it does not end: {}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    /// Its `runc run` takes the cgroups away when it ends, and leaves them where it is killed before.
    fn drop(&mut self) {
        drop(call::try_tool(&["runc", "--root", STATE, "kill", &self.id, "KILL"]));
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < LIMIT {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        drop(self.child.kill());
        drop(self.child.wait());
        drop(call::try_tool(&["runc", "--root", STATE, "delete", "--force", &self.id]));
        let start = Instant::now();
        while !without_cgroups(&self.id) && start.elapsed() < LIMIT {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Removes what runc left because its last process was still dying; whether nothing is left.
fn without_cgroups(id: &str) -> bool {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut own =
        controllers.chain([root.to_owned()]).map(|folder| folder.join(id)).filter(|path| path.exists());
    own.all(|path| fs::remove_dir(path).is_ok())
}
