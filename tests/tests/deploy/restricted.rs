//! The containers of the manifests do their work with the rights that the manifests give them, and with no more.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use harness::call;
use harness::device_manager::DeviceManager;
use harness::device_node::KUBELET;
use harness::kubelet::PLUGINS;
use harness::node::{cover, our_binary};
use harness::suite::scripted;
use harness::volume_node::VolumeNode;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::PodSpec;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::archive;
use crate::container::{Pod, Running, TOOLS};
use crate::folders::{documents, text};
use crate::laws;
use crate::manifests::set;

pub fn trials() -> Vec<Trial> {
    vec![
        scripted("the_programs_run_in_the_image_s_otherwise_empty_root", TOOLS, empty_root),
        scripted("kubectl_lets_one_question_through_with_the_rights_of_its_container", API_TOOLS, proxy),
        scripted(
            "the_cni_installer_asks_the_api_and_installs_with_the_rights_of_its_daemonset",
            API_TOOLS,
            cni_by_api,
        ),
        scripted(
            "the_cni_installer_reads_a_list_of_nodes_and_is_uninstalled_from_a_debug_pod",
            TOOLS,
            cni_by_file,
        ),
        scripted("the_cni_installer_installs_where_debian_s_containerd_looks", API_TOOLS, debian),
        scripted("the_cni_installer_finds_the_configuration_of_k3s", API_TOOLS, k3s),
        scripted("the_cni_installer_refuses_folders_that_the_runtime_does_not_use", TOOLS, elsewhere),
        scripted("the_cni_installer_refuses_a_node_whose_runtime_it_does_not_know", TOOLS, unknown),
        scripted("the_drivers_are_installed_with_the_rights_of_their_daemonset", TOOLS, flexvolume),
        scripted("the_device_plugin_serves_with_the_rights_of_its_daemonset", TOOLS, device_plugin),
    ]
}

/// The files of a folder's ConfigMap.
fn map(path: &str) -> (String, BTreeMap<String, String>) {
    let map = documents(path, &text(path)).remove(0);
    let data = map["data"].as_object().unwrap().iter();
    let files = data.map(|(name, text)| (name.clone(), text.as_str().unwrap().to_owned())).collect();
    (map["metadata"]["name"].as_str().unwrap().to_owned(), files)
}

/// The kernel's word for it.
fn assert_bare(container: &Running) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(container.status(set), "0000000000000000", "{set}");
    }
    assert_eq!(container.status("NoNewPrivs"), "1");
    assert_eq!(container.status("Seccomp"), "2");
    assert_eq!(container.status("Uid"), "0\t0\t0\t0");
}

fn empty_root(_: &VolumeNode) {
    let rootfs = archive::unpack(&archive::made().archive, Path::new("/run/image"));
    for name in archive::PROGRAMS {
        let answer = call::try_tool(&["chroot", rootfs.to_str().unwrap(), &format!("/{name}"), "--version"]);
        assert!(answer.ok(), "{answer:?}");
        assert_eq!(answer.stdout.trim(), format!("{name} {}", env!("CARGO_PKG_VERSION")));
    }
    let answer = call::try_tool(&["chroot", rootfs.to_str().unwrap(), "/bin/sh", "-c", "true"]);
    assert!(!answer.ok(), "there is no shell: {answer:?}");
}

fn get(socket: &Path, target: &str) -> String {
    let Ok(mut stream) = UnixStream::connect(socket) else { return String::new() };
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    drop(stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer)));
    answer
}

fn device_plugin(_: &VolumeNode) {
    let kubelet = DeviceManager::started(Path::new(KUBELET));
    fs::create_dir_all(Path::new(KUBELET).join("pod-resources")).unwrap();
    let set = set("device-plugin/deploy");
    let mut pod = Pod::new(laws::pod(&set), "worker-1");
    let (name, files) = map("device-plugin/deploy/configmap.yaml");
    pod.maps.insert(name, files);
    let mut container = pod.start("device-plugin");
    let licences = kubelet.wait_for_healthy("example.com/licence", 4);
    assert_eq!(licences.capacity(), 4);
    assert_bare(&container);
    let socket = pod.volume("run").join("device-plugin.sock");
    for probe in ["/healthz", "/readyz"] {
        container.until(probe, |_| get(&socket, probe).starts_with("HTTP/1.1 200"));
    }
    let answer = container.exec(&["/nodeplug-device-plugin", "explain", "example.com/licence"]);
    assert!(answer.ok() && answer.stdout.contains("4 devices"), "{answer:?}");
    assert_eq!(container.stop(), 0, "{}", container.log());
}

// --- networks -----------------------------------------------------------------------------------------------

const API_TOOLS: &[&str] = &["runc", "umoci", "tar", "readelf", "od", "kubectl", "openssl"];
const PLUGIN: &str = "/opt/cni/bin/nodeplug-cni";
const CONFLIST: &str = "/etc/cni/net.d/10-nodeplug.conflist";

/// The node's runtime, as the installer finds it.
fn containerd() {
    for folder in ["/etc/containerd", "/etc/cni"] {
        drop(fs::remove_dir_all(folder));
    }
    fs::create_dir_all("/etc/containerd").unwrap();
    fs::write("/etc/containerd/config.toml", "version = 2\n").unwrap();
}

/// What an API server is to the installer: TLS by a certificate of the cluster's, and a Node object at its path.
#[derive(Debug)]
struct Api(Child);

impl Api {
    const FOLDER: &str = "/run/harness-api";

    fn start(node: &str, cidr: &str) -> Self {
        let folder = Path::new(Self::FOLDER);
        let objects = folder.join("api/v1/nodes");
        fs::create_dir_all(&objects).unwrap();
        let object = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        });
        fs::write(objects.join(node), object.to_string()).unwrap();
        let (key, ca) = (folder.join("key.pem"), folder.join("ca.crt"));
        let words =
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kubernetes", "-days", "2"];
        let mut request = Command::new("openssl");
        request
            .args(words)
            .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&ca);
        let answer = call::run(&mut request, b"");
        assert!(answer.ok(), "{answer:?}");
        let mut serve = Command::new("openssl");
        serve
            .args(["s_server", "-quiet", "-accept", "127.0.0.1:6443", "-WWW", "-key"])
            .arg(key)
            .arg("-cert")
            .arg(ca);
        serve.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(serve.spawn().expect("start openssl"))
    }

    /// What the kubelet makes of it for a pod.
    fn introduce(pod: &mut Pod<'_>) {
        let ca = fs::read_to_string(Path::new(Self::FOLDER).join("ca.crt")).unwrap();
        let files = [("token", "made-up"), ("ca.crt", &ca), ("namespace", laws::NAMESPACE)];
        pod.projected = files.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let services = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", "6443")];
        pod.services = services.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// As the kubelet asks: by the probe that the manifest names.
fn is_ready(set: &DaemonSet, container: &Running) -> bool {
    let probe = laws::pod(set).containers[0].readiness_probe.as_ref().unwrap();
    container.exec(probe.exec.as_ref().unwrap().command.as_ref().unwrap()).ok()
}

fn subnets() -> Vec<String> {
    let conflist: Value = serde_json::from_slice(&fs::read(CONFLIST).unwrap()).unwrap();
    let mut found = Vec::new();
    let mut left = vec![&conflist];
    while let Some(value) = left.pop() {
        found.extend(value["subnet"].as_str().map(str::to_owned));
        left.extend(value.as_object().into_iter().flat_map(|map| map.values()));
        left.extend(value.as_array().into_iter().flatten());
    }
    found.sort();
    found
}

fn assert_installed(container: &Running) {
    assert_eq!(fs::read(PLUGIN).unwrap(), fs::read(our_binary()).unwrap());
    let answer = call::tool(&["env", "CNI_COMMAND=VERSION", PLUGIN]);
    assert!(answer.contains("1.1.0"), "{answer}");
    assert!(container.log().contains(CONFLIST), "{}", container.log());
}

fn proxy(_: &VolumeNode) {
    let set = set("cni/deploy");
    let _api = Api::start("worker-1", "10.244.7.0/24");
    let mut pod = Pod::new(laws::pod(&set), "worker-1");
    Api::introduce(&mut pod);
    let mut proxy = pod.start("kubectl");
    let socket = pod.volume("kube").join("api.sock");
    proxy.until("it answers", |_| get(&socket, "/api/v1/nodes/worker-1").contains("10.244.7.0/24"));
    assert_bare(&proxy);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o022, 0, "the socket is its owner's");
    for other in ["/api/v1/nodes/worker-2", "/api/v1/nodes", "/api/v1/namespaces/kube-system/secrets"] {
        let answer = get(&socket, other);
        assert!(answer.starts_with("HTTP/1.1 403"), "{other}: {answer}");
    }
}

fn cni_by_api(_: &VolumeNode) {
    containerd();
    let set = set("cni/deploy");
    let _api = Api::start("worker-1", "10.244.7.0/24");
    let mut pod = Pod::new(laws::pod(&set), "worker-1");
    Api::introduce(&mut pod);
    let mut install = pod.start("install");
    install.until("it waits for the proxy", |c| c.log().contains("/run/kube/api.sock"));
    assert!(!is_ready(&set, &install) && !Path::new(CONFLIST).exists());
    let mut proxy = pod.start("kubectl");
    install.until("it is ready", |c| is_ready(&set, c));
    assert_eq!(subnets(), ["10.244.7.0/24"]);
    assert_installed(&install);
    assert_bare(&install);
    // What somebody takes away comes back.
    fs::remove_file(CONFLIST).unwrap();
    install.until("the conflist is back", |c| is_ready(&set, c));
    assert_eq!(install.stop(), 0, "{}", install.log());
    proxy.until("it runs on", |_| true);
    assert!(Path::new(PLUGIN).exists() && Path::new(CONFLIST).exists(), "pods need both");
}

fn cni_by_file(_: &VolumeNode) {
    containerd();
    let set = set("cni/deploy-file");
    let (name, files) = map("cni/deploy-file/configmap.yaml");
    let mut pod = Pod::new(laws::pod(&set), "worker-2");
    pod.maps.insert(name.clone(), files.clone());
    let mut install = pod.start("install");
    install.until("it is ready", |c| is_ready(&set, c));
    assert_eq!(subnets(), ["10.244.2.0/24", "fd00:10:244:2::/64"]);
    assert_installed(&install);
    assert_bare(&install);
    assert_eq!(install.stop(), 0, "{}", install.log());
    // The next version of the DaemonSet finds it all there.
    let mut again = Pod::new(laws::pod(&set), "worker-2");
    again.maps.insert(name, files);
    let mut install = again.start("install");
    install.until("it is ready", |c| is_ready(&set, c));
    // By hand, as the page says, while the installer still runs: it does not put it back.
    let debug = debug_pod(&["/nodeplug-cni", "uninstall", "--root", "/host"]);
    let mut uninstall = Pod::new(&debug, "worker-2").start("debugger");
    assert_eq!(uninstall.wait(), 0, "{}", uninstall.log());
    install.until("it knows", |c| c.log().contains("uninstalled"));
    assert!(!Path::new(PLUGIN).exists() && !Path::new(CONFLIST).exists(), "{}", uninstall.log());
    assert_eq!(install.stop(), 0, "{}", install.log());
}

fn debian(_: &VolumeNode) {
    containerd();
    fs::write(
        "/etc/containerd/config.toml",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n",
    )
    .unwrap();
    // The folder of the host stays as it is.
    cover("/usr/lib/cni");
    let set = set("cni/deploy-debian");
    installs_by_api(&set);
    assert!(!Path::new(PLUGIN).exists());
    assert_eq!(fs::read("/usr/lib/cni/nodeplug-cni").unwrap(), fs::read(our_binary()).unwrap());
}

/// Without flannel its containerd has the usual folders.
fn k3s(_: &VolumeNode) {
    containerd();
    fs::remove_file("/etc/containerd/config.toml").unwrap();
    let folder = "/var/lib/rancher/k3s/agent/etc/containerd";
    fs::create_dir_all(folder).unwrap();
    fs::write(
        format!("{folder}/config.toml"),
        "version = 3\nroot = \"/var/lib/rancher/k3s/agent/containerd\"\n",
    )
    .unwrap();
    installs_by_api(&set("cni/deploy-k3s"));
    assert_eq!(fs::read(PLUGIN).unwrap(), fs::read(our_binary()).unwrap());
}

fn installs_by_api(set: &DaemonSet) {
    let _api = Api::start("worker-1", "10.244.7.0/24");
    let mut pod = Pod::new(laws::pod(set), "worker-1");
    Api::introduce(&mut pod);
    let _proxy = pod.start("kubectl");
    let mut install = pod.start("install");
    install.until("it is ready", |c| is_ready(set, c));
    assert_eq!(subnets(), ["10.244.7.0/24"]);
    assert_bare(&install);
    assert_eq!(install.stop(), 0, "{}", install.log());
}

/// The manifest's mounts are not what this node's runtime uses: nothing is installed where nobody looks.
fn elsewhere(_: &VolumeNode) {
    containerd();
    let cni = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '/usr/lib/elsewhere'\n";
    fs::write("/etc/containerd/config.toml", cni).unwrap();
    let set = set("cni/deploy-file");
    let (name, files) = map("cni/deploy-file/configmap.yaml");
    let mut pod = Pod::new(laws::pod(&set), "worker-2");
    pod.maps.insert(name, files);
    let mut install = pod.start("install");
    assert_ne!(install.wait(), 0, "{}", install.log());
    let advice = "mount the node's `/usr/lib/elsewhere` at `/host/usr/lib/elsewhere`";
    assert!(install.log().contains(advice), "{}", install.log());
    assert!(!Path::new(PLUGIN).exists() && !Path::new(CONFLIST).exists());
}

/// As on a node of k3s, whose configuration is not in /etc/containerd: it is not ready where nobody looks.
fn unknown(_: &VolumeNode) {
    containerd();
    fs::remove_file("/etc/containerd/config.toml").unwrap();
    let set = set("cni/deploy-file");
    let (name, files) = map("cni/deploy-file/configmap.yaml");
    let mut pod = Pod::new(laws::pod(&set), "worker-2");
    pod.maps.insert(name, files);
    let mut install = pod.start("install");
    assert_ne!(install.wait(), 0, "{}", install.log());
    assert!(install.log().contains("no configuration of a container runtime"), "{}", install.log());
    assert!(!Path::new(PLUGIN).exists() && !Path::new(CONFLIST).exists());
}

/// What `kubectl debug node/NAME` makes, with fewer rights.
fn debug_pod(command: &[&str]) -> PodSpec {
    serde_json::from_value(json!({
        "hostNetwork": true,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "debugger", "image": laws::IMAGE, "command": command,
            "resources": {"limits": {"memory": "32Mi"}},
            "securityContext": {
                "runAsUser": 0, "runAsGroup": 0, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "host-root", "mountPath": "/host"}],
        }],
        "volumes": [{"name": "host-root", "hostPath": {"path": "/", "type": "Directory"}}],
    }))
    .unwrap()
}

// --- volumes ------------------------------------------------------------------------------------------------

fn flexvolume(node: &VolumeNode) {
    let set = set("flexvolume/deploy");
    let pod = Pod::new(laws::pod(&set), "worker-1");
    assert_eq!(pod.volume("plugins"), Path::new(PLUGINS), "the kubelet's default");
    let mut install = pod.start("install");
    install.until("it is ready", |c| is_ready(&set, c));
    assert_bare(&install);
    // The kubelet runs them on the node.
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "cache").option("size", "1Mi");
    kubelet.set_up(&volume).mounted();
    fs::remove_dir_all(Path::new(PLUGINS).join("nodeplug~nfs")).unwrap();
    install.until("the driver is back", |_| Path::new(PLUGINS).join("nodeplug~nfs/nfs").exists());
    assert_eq!(install.stop(), 0, "{}", install.log());
    kubelet.tear_down(&volume).unmounted();
    let debug = debug_pod(&["/nodeplug-flexvolume", "uninstall", "--root", "/host"]);
    let mut uninstall = Pod::new(&debug, "worker-1").start("debugger");
    assert_eq!(uninstall.wait(), 0, "{}", uninstall.log());
    assert!(!Path::new(PLUGINS).join("nodeplug~tmpfs").exists(), "{}", uninstall.log());
}
