//! Which folder of plugins a kubelet was told to use: by its arguments, by its configuration, or by the
//! configuration of a distribution that starts it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use node::{Context, Error, Kind, Result, store};
use serde::Deserialize;

use super::find::below;

/// What `--dir` is for.
const HINT: &str = "name the folder with --dir";
/// Files that packages and kubeadm let the service's unit read; their words are arguments.
const ENVIRONMENTS: [&str; 3] =
    ["/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet", "/etc/sysconfig/kubelet"];
/// KubeletConfiguration files: kubeadm's, then Amazon's.
const CONFIGURATIONS: [&str; 3] = [
    "/var/lib/kubelet/config.yaml",
    "/etc/kubernetes/kubelet/kubelet-config.json",
    "/etc/kubernetes/kubelet/config.json",
];
const MICROK8S: &str = "/var/snap/microk8s/current/args/kubelet";

/// A kubelet that runs, or what would start one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kubelet {
    /// `kubelet (process 812)`, `k3s`.
    pub who: String,
    /// 0 where it does not run.
    pub pid: u32,
    /// It runs, and nothing that it was told is out of sight.
    pub is_plain: bool,
    /// Its arguments without its own name.
    pub arguments: Vec<String>,
    /// Its KubeletConfiguration and drop-ins with their text; the last one that says something wins.
    pub files: Vec<(PathBuf, String)>,
}

/// A folder, and what names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub folder: PathBuf,
    pub by: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct KubeletConfiguration {
    volume_plugin_dir: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RancherConfiguration {
    #[serde(rename = "kubelet-arg")]
    set: Option<Words>,
    #[serde(rename = "kubelet-arg+")]
    added: Option<Words>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

impl Kubelet {
    /// What it was told. Arguments go before files
    /// (<https://kubernetes.io/docs/tasks/administer-cluster/kubelet-config-file/>).
    pub fn plugin_folder(&self) -> Result<Option<Named>> {
        if let Some(folder) = flag(&self.arguments, "volume-plugin-dir") {
            return self.named(&folder, "--volume-plugin-dir").map(Some);
        }
        for (path, text) in self.files.iter().rev() {
            let read = serde_saphyr::from_str::<KubeletConfiguration>(text);
            let configuration = read
                .doing(Kind::Config, || format!("read the kubelet's configuration `{}`", path.display()))
                .map_err(|e| e.hint(HINT))?;
            if let Some(folder) = configuration.volume_plugin_dir.filter(|folder| !folder.is_empty()) {
                return self.named(&folder, &format!("volumePluginDir in {}", path.display())).map(Some);
            }
        }
        Ok(None)
    }

    fn named(&self, folder: &str, by: &str) -> Result<Named> {
        let folder = PathBuf::from(folder);
        let by = format!("{by} of {}", self.who);
        if folder.is_absolute() {
            return Ok(Named { folder, by });
        }
        let why = format!("{by} is the relative path `{}`", folder.display());
        Err(Error::caused(Kind::Config, "find the plugin folder", why).hint(HINT))
    }
}

/// The value of the last `--name=value` or `--name value`. The kubelet takes `_` in names for `-`.
fn flag(arguments: &[String], name: &str) -> Option<String> {
    let mut found = None;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let Some(word) = word.strip_prefix("--") else { continue };
        let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
        if key.replace('_', "-") == name {
            found = value.map(str::to_owned).or_else(|| words.next().cloned());
        }
    }
    found.filter(|value| !value.is_empty())
}

/// The kubelets that run. `proc` is where /proc is mounted.
pub(super) fn running(root: &Path, proc: &Path) -> Result<Vec<Kubelet>> {
    let mut found = Vec::new();
    let mut pids: Vec<u32> = store::names(proc)?.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    for pid in pids {
        let process = proc.join(pid.to_string());
        // A process may end at any moment.
        let Ok(command) = fs::read_to_string(process.join("comm")) else { continue };
        let Ok(line) = fs::read(process.join("cmdline")) else { continue };
        let words = words_of(&line);
        let Some(mut kubelet) = recognise(command.trim(), &words, root)? else { continue };
        kubelet.pid = pid;
        kubelet.who = format!("{} (process {pid})", kubelet.who);
        kubelet.files = files(&kubelet.arguments, &[process.join("root"), root.to_owned()])?;
        found.push(kubelet);
    }
    Ok(found)
}

fn words_of(line: &[u8]) -> Vec<String> {
    let words = line.split(|b| *b == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Whether a process is a kubelet or has one in it: the kubelet itself or hyperkube's, microk8s's
/// kubelite, k3s (rke2 runs a kubelet of its own).
fn recognise(command: &str, words: &[String], root: &Path) -> Result<Option<Kubelet>> {
    let rest = |n: usize| words.iter().skip(n).cloned().collect::<Vec<_>>();
    let second = words.get(1).map(String::as_str);
    let plain =
        |arguments| Kubelet { who: "kubelet".into(), is_plain: true, arguments, ..Default::default() };
    match command {
        "kubelet" if !words.is_empty() => Ok(Some(plain(rest(1)))),
        "hyperkube" if second == Some("kubelet") => Ok(Some(plain(rest(2)))),
        "kubelite" => {
            let file = flag(&rest(1), "kubelet-args-file").unwrap_or_else(|| MICROK8S.to_owned());
            Ok(arguments_file(&below(root, Path::new(&file)))?.map(|k| Kubelet { is_plain: true, ..k }))
        }
        "k3s" | "k3s-server" | "k3s-agent" => {
            // k3s hides what follows its first two words, so its configuration has to tell.
            let mut kubelet = rancher(root, "k3s")?.unwrap_or_default();
            let own = rest(1);
            kubelet.arguments.extend(own.iter().enumerate().filter_map(|(i, word)| {
                let value = match word.strip_prefix("--kubelet-arg=") {
                    Some(value) => Some(value),
                    None if word == "--kubelet-arg" => own.get(i + 1).map(String::as_str),
                    None => None,
                };
                value.map(|value| format!("--{value}"))
            }));
            "k3s".clone_into(&mut kubelet.who);
            Ok(Some(kubelet))
        }
        _ => Ok(None),
    }
}

/// What would start a kubelet on this node.
pub(super) fn configured(root: &Path) -> Result<Vec<Kubelet>> {
    let mut service = Kubelet { who: "the kubelet's service".to_owned(), ..Default::default() };
    for path in ENVIRONMENTS {
        let text = text(&below(root, Path::new(path)))?.unwrap_or_default();
        service.arguments.extend(environment_words(&text));
    }
    for path in CONFIGURATIONS {
        let text = text(&below(root, Path::new(path)))?;
        service.files.extend(text.map(|text| (PathBuf::from(path), text)));
    }
    let mut found = vec![service];
    found.extend(rancher(root, "k3s")?);
    found.extend(rancher(root, "rke2")?);
    found.extend(arguments_file(&below(root, Path::new(MICROK8S)))?);
    Ok(found)
}

/// The words that are arguments: `KUBELET_EXTRA_ARGS="--a=b --c"`.
fn environment_words(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(str::split_whitespace).map(|word| word.trim_matches(['"', '\'']));
    let from_dashes = |word: &str| match word.split_once('=') {
        Some((_, value)) if !word.starts_with('-') => value.trim_matches(['"', '\'']).to_owned(),
        _ => word.to_owned(),
    };
    words.map(from_dashes).collect()
}

/// `kubelet-arg` of /etc/rancher/NAME/config.yaml and its drop-ins, as the kubelet's own arguments
/// (<https://docs.k3s.io/installation/configuration>).
fn rancher(root: &Path, name: &str) -> Result<Option<Kubelet>> {
    let base = below(root, &Path::new("/etc/rancher").join(name));
    let mut paths = vec![base.join("config.yaml")];
    paths.extend(drop_ins(&base.join("config.yaml.d"), ".yaml")?);
    let mut arguments = Vec::new();
    let mut seen = false;
    for path in paths {
        let Some(text) = text(&path)? else { continue };
        seen = true;
        let read = serde_saphyr::from_str::<RancherConfiguration>(&text);
        let configuration = read
            .doing(Kind::Config, || format!("read the configuration `{}`", path.display()))
            .map_err(|e| e.hint(HINT))?;
        for words in [configuration.set, configuration.added].into_iter().flatten() {
            let words = match words {
                Words::One(word) => vec![word],
                Words::Many(words) => words,
            };
            arguments.extend(words.into_iter().map(|word| format!("--{word}")));
        }
    }
    Ok(seen.then(|| Kubelet { who: name.to_owned(), arguments, ..Default::default() }))
}

/// microk8s: a file with one argument a line, and two variables of its own.
fn arguments_file(path: &Path) -> Result<Option<Kubelet>> {
    let Some(text) = text(path)? else { return Ok(None) };
    let text = text
        .replace("${SNAP_COMMON}", "/var/snap/microk8s/common")
        .replace("${SNAP_DATA}", "/var/snap/microk8s/current");
    Ok(Some(Kubelet { who: "microk8s".into(), arguments: environment_words(&text), ..Default::default() }))
}

/// The configuration and the drop-ins that `arguments` name, looked for below each of `roots`.
fn files(arguments: &[String], roots: &[PathBuf]) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    if let Some(path) = flag(arguments, "config").map(PathBuf::from) {
        let texts = roots.iter().find_map(|root| text(&below(root, &path)).transpose());
        let text = texts.transpose()?.ok_or_else(|| {
            let doing = format!("read the kubelet's configuration `{}`", path.display());
            Error::caused(Kind::Io, doing, io::Error::from(io::ErrorKind::NotFound)).hint(HINT)
        })?;
        found.push((path, text));
    }
    if let Some(folder) = flag(arguments, "config-dir").map(PathBuf::from) {
        let folders = roots.iter().map(|root| below(root, &folder));
        let folder = folders.into_iter().find(|folder| folder.is_dir()).unwrap_or(folder);
        for path in drop_ins(&folder, ".conf")? {
            let text = text(&path)?;
            found.extend(text.map(|text| (path, text)));
        }
    }
    Ok(found)
}

fn drop_ins(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut names = store::names(folder)?;
    names.retain(|name| name.ends_with(ending));
    names.sort();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn text(path: &Path) -> Result<Option<String>> {
    let bytes = store::read(path).map_err(|e| e.hint(HINT))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_flag_is_read_as_the_kubelet_reads_it() {
        let table = [
            ("--volume-plugin-dir=/a", Some("/a")),
            ("--volume-plugin-dir /a --v=2", Some("/a")),
            ("--volume_plugin_dir=/a", Some("/a")),
            ("--volume-plugin-dir=/a --volume-plugin-dir=/b", Some("/b")),
            ("--flex-volume-plugin-dir=/a", None),
            ("--config=/volume-plugin-dir", None),
            ("volume-plugin-dir=/a", None),
            ("--volume-plugin-dir=", None),
            ("--volume-plugin-dir", None),
            ("", None),
        ];
        for (line, expect) in table {
            assert_eq!(flag(&words(line), "volume-plugin-dir").as_deref(), expect, "{line}");
        }
    }

    #[test]
    fn arguments_go_before_drop_ins_and_drop_ins_before_the_configuration() {
        let file = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
        let main = file("/c.yaml", "kind: KubeletConfiguration\nvolumePluginDir: /main\nmaxPods: 9\n");
        let json = file("/c.json", r#"{"kind": "KubeletConfiguration", "volumePluginDir": "/json"}"#);
        let drop_in = file("/d/10.conf", "volumePluginDir: /drop\n");
        let silent = file("/d/20.conf", "maxPods: 3\nevictionHard: {memory.available: 1Gi}\n");
        let relative = file("/c.yaml", "volumePluginDir: plugins\n");
        let broken = file("/c.yaml", "volumePluginDir: [\n");
        let table = [
            (
                "--volume-plugin-dir=/flag",
                vec![main.clone()],
                Some(("/flag", "--volume-plugin-dir of kubelet")),
            ),
            ("", vec![main.clone()], Some(("/main", "volumePluginDir in /c.yaml of kubelet"))),
            ("", vec![json], Some(("/json", "volumePluginDir in /c.json of kubelet"))),
            (
                "",
                vec![main, drop_in, silent.clone()],
                Some(("/drop", "volumePluginDir in /d/10.conf of kubelet")),
            ),
            ("", vec![silent], None),
            ("", vec![], None),
        ];
        let kubelet = |line, files| Kubelet {
            who: "kubelet".to_owned(),
            arguments: words(line),
            files,
            ..Default::default()
        };
        for (line, files, expect) in table {
            let found = kubelet(line, files).plugin_folder().unwrap();
            let expect = expect.map(|(folder, by)| Named { folder: folder.into(), by: by.to_owned() });
            assert_eq!(found, expect, "{line}");
        }
        for file in [relative, broken] {
            let error = kubelet("", vec![file]).plugin_folder().unwrap_err();
            assert_eq!((error.kind(), error.advice()), (Kind::Config, Some(HINT)));
        }
    }

    #[test]
    fn a_services_files_are_read_for_their_arguments() {
        let table = [
            ("KUBELET_KUBEADM_ARGS=\"--a=b --volume-plugin-dir=/x\"\n", Some("/x")),
            ("KUBELET_EXTRA_ARGS=--volume-plugin-dir=/x\n", Some("/x")),
            ("KUBELET_EXTRA_ARGS='--volume-plugin-dir /x'\n", Some("/x")),
            ("# KUBELET_EXTRA_ARGS=--volume-plugin-dir=/x\nKUBELET_EXTRA_ARGS=\n", None),
        ];
        for (text, expect) in table {
            let found = flag(&environment_words(text), "volume-plugin-dir");
            assert_eq!(found.as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn a_process_is_a_kubelet_by_its_name_and_first_words() {
        let table = [
            ("kubelet", "/usr/bin/kubelet --v=2", Some(("kubelet", true, "--v=2"))),
            ("hyperkube", "/hyperkube kubelet --v=2", Some(("kubelet", true, "--v=2"))),
            ("hyperkube", "/hyperkube apiserver", None),
            ("k3s-server", "/usr/local/bin/k3s server", Some(("k3s", false, ""))),
            ("k3s-agent", "k3s agent --kubelet-arg=v=2", Some(("k3s", false, "--v=2"))),
            ("k3s-agent", "k3s agent --kubelet-arg v=2", Some(("k3s", false, "--v=2"))),
            ("kubelet", "", None),
            ("kube-proxy", "kube-proxy", None),
        ];
        for (command, line, expect) in table {
            let found = recognise(command, &words(line), Path::new("/nonexistent")).unwrap();
            let found = found.map(|k| (k.who, k.is_plain, k.arguments.join(" ")));
            let expect =
                expect.map(|(who, plain, line): (&str, bool, &str)| (who.into(), plain, line.into()));
            assert_eq!(found, expect, "{command} {line}");
        }
    }
}
