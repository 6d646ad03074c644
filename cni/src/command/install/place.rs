//! Which folders: where the node's runtime looks for plugins and networks.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use node::{Context, Error, Kind, Result};

use super::Install;
use crate::runtime::{self, BIN, CONF, Runtime, below};

/// The folders, as the node has them, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The node's root, as this process reaches it.
    pub root: PathBuf,
    /// The folder of plugins.
    pub bin: PathBuf,
    /// Why this one.
    pub why: String,
    /// The folder of networks.
    pub conf: PathBuf,
    /// The runtime that uses them, where one is known.
    pub runtime: Option<Runtime>,
    /// What a person should know besides.
    pub notes: Vec<String>,
    /// They were named by nobody, or are the runtime's: they may be made.
    pub may_make: bool,
}

/// What a person says of the folders.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub bin: Option<&'a Path>,
    pub conf: Option<&'a Path>,
    /// Nobody looks at what it says: it stays in a container that has parts of the node.
    pub unseen: bool,
    pub force: bool,
}

impl<'a> Told<'a> {
    /// `again`: it is done already. What was right for the folders then, or was forced, is right as long as it stays.
    pub fn of(wish: &'a Install, again: bool) -> Self {
        let unseen = wish.stay && wish.root.as_deref().is_some_and(|root| root != Path::new("/"));
        Self { bin: wish.dir.as_deref(), conf: wish.conf_dir.as_deref(), unseen, force: wish.force || again }
    }
}

/// Looks at the node below `root`, and chooses.
///
/// Errors: [`Kind::Config`] where a folder is named that the runtime does not use, where several runtimes use several
/// ones, or where none is known and nobody would see that the folder is a guess.
pub(super) fn choose(root: &Path, told: Told<'_>) -> Result<Place> {
    let mut place = chosen(root, told, runtime::find(root)?)?;
    for folder in [&place.bin, &place.conf] {
        runtime::stays_below(root, folder)?;
    }
    if let Some(runtime) = &mut place.runtime {
        // Nothing of another root is run.
        if runtime.release.is_none() && root == Path::new("/") {
            runtime.release = runtime::version::ask(runtime);
        }
    }
    Ok(place)
}

fn chosen(root: &Path, told: Told<'_>, found: Vec<Runtime>) -> Result<Place> {
    let serving: Vec<Runtime> = found.into_iter().filter(|r| r.serves).collect();
    let some_run = serving.iter().any(|r| r.pid.is_some());
    let candidates: Vec<Runtime> = serving.into_iter().filter(|r| !some_run || r.pid.is_some()).collect();
    let bin = match told.bin {
        Some(bin) => Some(absolute(bin)?),
        None => only(&candidates)?,
    };
    if bin.is_none() && told.unseen && !told.force {
        return Err(unknown(root));
    }
    let (may_make, uncertain) = (told.bin.is_none() || root != Path::new("/"), bin.is_none());
    let bin = bin.unwrap_or_else(|| PathBuf::from(BIN));
    let user = candidates.iter().find(|r| r.bin_dirs.iter().any(|dir| same(root, dir, &bin)));
    if let (Some(other), None, false) = (candidates.first(), user, told.force) {
        return Err(foreign("install into", &bin, other, "plugins", &other.bin_dirs));
    }
    let runtime = user.or(candidates.first());
    let conf = told.conf.map(absolute).transpose()?;
    let theirs = runtime.map(|r| r.conf_dir.clone());
    if let (Some(conf), Some(theirs), Some(user), false) = (&conf, &theirs, runtime, told.force)
        && !same(root, conf, theirs)
    {
        return Err(foreign("write the network into", conf, user, "networks", std::slice::from_ref(theirs)));
    }
    let mut notes: Vec<String> = runtime.map(|r| r.notes.clone()).unwrap_or_default();
    if uncertain {
        notes.push(
            "no container runtime is known here: if it looks for plugins elsewhere, name the folder".into(),
        );
    }
    let why = match user {
        Some(user) => format!("where {} looks for plugins", user.who),
        None if told.bin.is_some() => "as you said".to_owned(),
        None => "the default".to_owned(),
    };
    let conf = conf.or(theirs).unwrap_or_else(|| PathBuf::from(CONF));
    let may_make = may_make || user.is_some();
    Ok(Place { root: root.to_owned(), bin, why, conf, runtime: runtime.cloned(), notes, may_make })
}

/// The first folder of plugins that all of them mean; `None` where there is no runtime.
fn only(used: &[Runtime]) -> Result<Option<PathBuf>> {
    let mut folders: Vec<(&PathBuf, &str)> = Vec::new();
    for runtime in used {
        let first = runtime.bin_dirs.first();
        folders.extend(
            first.filter(|dir| folders.iter().all(|(f, _)| f != dir)).map(|d| (d, runtime.who.as_str())),
        );
    }
    if folders.len() < 2 {
        return Ok(folders.pop().map(|(folder, _)| folder.clone()));
    }
    let list: Vec<String> = folders.iter().map(|(dir, who)| format!("{} ({who})", dir.display())).collect();
    Err(Error::caused(Kind::Config, "find the folder of plugins", "several runtimes have several ones")
        .hint(format!("name one: {}", list.join(" or "))))
}

/// For a DaemonSet that would be ready on a node whose runtime looks elsewhere.
fn unknown(root: &Path) -> Box<Error> {
    let why = format!("no configuration of a container runtime is below `{}`", root.display());
    Error::caused(Kind::Config, "find the folder of plugins", why).hint(format!(
        "mount the folder of it at the same path below `{}`: /etc/containerd, /etc/crio, \
         /var/lib/rancher/k3s/agent/etc/containerd, /var/lib/rancher/rke2/agent/etc/containerd, \
         /var/snap/microk8s/current/args or /etc/k0s; where there is none, `--dir {BIN}` or `--force` goes by the default",
        root.display()
    ))
}

fn foreign(doing: &str, path: &Path, who: &Runtime, what: &str, theirs: &[PathBuf]) -> Box<Error> {
    let list: Vec<String> = theirs.iter().map(|dir| format!("`{}`", dir.display())).collect();
    let list = list.join(", ");
    let file = who.files.first().map_or_else(String::new, |file| format!(" (see `{}`)", file.display()));
    Error::caused(
        Kind::Config,
        format!("{doing} `{}`", path.display()),
        format!("{} looks for {what} in {list}{file}", who.who),
    )
    .hint("leave the folder out and the runtime's own is taken, or add `--force`")
}

/// Whether both paths are one folder of the node.
fn same(root: &Path, one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(below(root, path)).map(|a| (a.dev(), a.ino())).ok();
    one == other || identity(one).is_some_and(|id| Some(id) == identity(other))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let path =
        std::path::absolute(path).doing(Kind::Usage, || format!("use the folder `{}`", path.display()))?;
    Ok(path.components().collect())
}

impl Place {
    /// A path of the node, as this process reaches it.
    pub fn here(&self, path: &Path) -> PathBuf {
        below(&self.root, path)
    }

    /// The folder of plugins, as this process reaches it.
    pub fn bin_here(&self) -> PathBuf {
        self.here(&self.bin)
    }

    /// Whether the runtime finds `loopback` in none of its folders and needs it.
    pub fn lacks_loopback(&self) -> bool {
        let dirs = self.runtime.as_ref().map(|r| r.bin_dirs.as_slice()).unwrap_or_default();
        let has = |dir: &PathBuf| self.here(dir).join("loopback").exists();
        let own = self.runtime.as_ref().is_some_and(|r| r.own_loopback);
        !own && !dirs.iter().chain([&self.bin]).any(has)
    }
}

/// Makes a folder of the node and those above it; the answer is those that were not there, the outermost first.
pub(super) fn make(root: &Path, folder: &Path, setting: &str) -> Result<Vec<PathBuf>> {
    let missing = folder.ancestors().take_while(|above| !below(root, above).exists());
    let mut missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
    missing.reverse();
    let here = below(root, folder);
    fs::create_dir_all(&here).doing(Kind::Io, || format!("make the folder `{}`", here.display())).map_err(
        |e| match e.errno() {
            Some(libc::EROFS) if is_apart(root, &here) => e.hint(apart(folder, &here, setting)),
            Some(libc::EROFS) => e.hint(read_only(setting)),
            _ => e,
        },
    )?;
    Ok(missing)
}

/// Whether a folder that is not there would be this container's own, beside the node's folders that it has.
fn is_apart(root: &Path, here: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|about| about.dev()).ok();
    let there = here.ancestors().find_map(device);
    root != Path::new("/") && there.is_some() && there == device(Path::new("/"))
}

fn apart(folder: &Path, here: &Path, setting: &str) -> String {
    format!(
        "{setting} of this node's runtime is `{}`, which is not mounted here: mount the node's `{}` at `{}`",
        folder.display(),
        folder.display(),
        here.display()
    )
}

/// Refuses a folder on a read-only file system before anything is done, with what to do.
pub(super) fn writable(folder: &Path, setting: &str) -> Result<()> {
    let asked = nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK);
    let refused =
        asked.map_err(io::Error::from).doing(Kind::Io, || format!("write into `{}`", folder.display()));
    refused.map_err(|e| match e.errno() {
        Some(libc::EROFS) => e.hint(read_only(setting)),
        Some(libc::ENOENT) => e.hint("make the folder first, or name the one that the runtime uses"),
        // Root without capabilities, or a label that it may not write.
        Some(libc::EACCES) if nix::unistd::geteuid().is_root() => e.hint(not_roots(folder)),
        _ => e,
    })
}

fn not_roots(folder: &Path) -> String {
    let owner = fs::metadata(folder).map_or(0, |about| about.uid());
    let confined = "where SELinux confines the container, `seLinuxOptions: {type: spc_t}`";
    if owner == 0 {
        return confined.to_owned();
    }
    format!("it belongs to the user {owner}: `chown root:root {}` on the node; {confined}", folder.display())
}

fn read_only(setting: &str) -> String {
    format!(
        "the file system is read-only: set {setting} in the runtime's configuration to a folder that is not, and restart it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(who: &str, runs: bool, bin: &str, conf: &str) -> Runtime {
        Runtime {
            who: who.to_owned(),
            pid: runs.then_some(1),
            bin_dirs: bin.split(' ').map(PathBuf::from).collect(),
            conf_dir: PathBuf::from(conf),
            ..Runtime::unknown()
        }
    }

    #[test]
    fn the_runtimes_folder_is_taken_and_another_one_refused() {
        let containerd = runtime("containerd", false, "/usr/lib/cni /x", "/c");
        let running = runtime("cri-o", true, "/r", "/n");
        let silent = Runtime { serves: false, ..runtime("docker's", true, "/d", "/e") };
        let none = Told { bin: None, conf: None, unseen: false, force: false };
        let unseen = Told { unseen: true, ..none };
        let at = |path: &'static str| Told { bin: Some(Path::new(path)), ..none };
        // What is told, what there is; the folders, or a part of the refusal.
        let table = [
            (none, vec![], Ok((BIN, CONF))),
            (none, vec![silent.clone()], Ok((BIN, CONF))),
            (unseen, vec![], Err("/var/lib/rancher/k3s/agent/etc/containerd")),
            (unseen, vec![silent.clone()], Err("--force")),
            (unseen, vec![containerd.clone()], Ok(("/usr/lib/cni", "/c"))),
            (Told { unseen: true, ..at("/anywhere") }, vec![], Ok(("/anywhere", CONF))),
            (Told { force: true, ..unseen }, vec![], Ok((BIN, CONF))),
            (none, vec![containerd.clone(), silent], Ok(("/usr/lib/cni", "/c"))),
            (none, vec![containerd.clone(), running.clone()], Ok(("/r", "/n"))),
            (
                none,
                vec![containerd.clone(), Runtime { pid: None, ..running.clone() }],
                Err("/usr/lib/cni (containerd) or /r"),
            ),
            (at("/x"), vec![containerd.clone()], Ok(("/x", "/c"))),
            (at("/x/"), vec![containerd.clone()], Ok(("/x", "/c"))),
            (at("/opt/cni/bin"), vec![containerd.clone()], Err("--force")),
            (
                Told { force: true, ..at("/opt/cni/bin") },
                vec![containerd.clone()],
                Ok(("/opt/cni/bin", "/c")),
            ),
            (at("/anywhere"), vec![], Ok(("/anywhere", CONF))),
            (Told { conf: Some(Path::new("/other")), ..none }, vec![containerd], Err("--force")),
        ];
        for (n, (told, found, expect)) in table.into_iter().enumerate() {
            match (chosen(Path::new("/"), told, found), expect) {
                (Ok(place), Ok((bin, conf))) => {
                    assert_eq!(
                        (place.bin.as_path(), place.conf.as_path()),
                        (Path::new(bin), Path::new(conf)),
                        "{n}"
                    );
                }
                (Err(error), Err(part)) => assert!(error.advice().unwrap().contains(part), "{n}: {error:?}"),
                (found, expect) => panic!("{n}: {found:?} and not {expect:?}"),
            }
        }
    }
}
