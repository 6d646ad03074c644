//! Contradictions in a policy, all at once.

use std::path::Path;

use node::{Error, Kind, Result};

use super::argument::{self, Piece};
use super::glob::Glob;
use super::{Backends, ImageFs, Policy, Profile, Root, forbidden};
use crate::options::{RelativePath, quoted};

/// Options that every volume may have, or that choose the profile: no profile can have one of its own
/// under these names.
const TAKEN: [&str; 17] = [
    "backend",
    "readOnly",
    "mountOptions",
    "fsGroupPolicy",
    "mode",
    "uid",
    "gid",
    "noexec",
    "allowSuid",
    "allowDev",
    "timeout",
    "selinuxContext",
    "fsType",
    "profile",
    "source",
    "secretRef",
    "password",
];

/// The mistakes found, each with its place.
#[derive(Default)]
struct Problems(Vec<String>);

impl Policy {
    /// Reports every contradiction in one error of `Kind::Config`.
    pub fn check(&self) -> Result<()> {
        let mut problems = Problems::default();
        problems.path("kubeletRoot", &self.kubelet_root);
        if self.timeout.count() > 100 {
            problems.note("timeout", format!("({}) is longer than 100s", self.timeout));
        }
        if self.busy_wait >= self.timeout {
            problems.note(
                "busyWait",
                format!("({}) is not shorter than `timeout` ({})", self.busy_wait, self.timeout),
            );
        }
        if let Some(why) = self.log_problem() {
            problems.note("logMaxSize", why);
        }
        problems.namespaces("namespaces", &self.namespaces);
        problems.namespaces("allowSuid", &self.allow_suid);
        problems.namespaces("allowDev", &self.allow_dev);
        problems.namespaces("allowSelinuxContext", &self.allow_selinux_context);
        problems.backends(&self.backends, &self.kubelet_root);
        if problems.0.is_empty() {
            return Ok(());
        }
        Err(Error::caused(Kind::Config, "check the node's policy", problems.0.join("; "))
            .hint("`nodeplug-flexvolume validate` checks the file"))
    }
}

impl Problems {
    fn note(&mut self, at: &str, what: impl AsRef<str>) {
        self.0.push(format!("`{at}` {}", what.as_ref()));
    }

    /// An absolute path that says where it leads, and not the root folder.
    fn path(&mut self, at: &str, path: &Path) {
        let text = path.to_string_lossy();
        match text.strip_prefix('/').map(RelativePath::check) {
            None => self.note(at, format!("({text}) is not absolute; write a path such as /srv/x")),
            Some(Err(why)) => self.note(at, format!("({}) {why}", text.escape_debug())),
            Some(Ok(_)) => {}
        }
    }

    /// Namespaces are DNS labels (RFC 1123): letters in lower case, digits and dashes, at most 63.
    fn namespaces(&mut self, at: &str, globs: &[Glob]) {
        for glob in globs {
            let text = glob.as_str();
            let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-*?[]!".contains(c);
            if !text.chars().all(label) {
                self.note(at, format!("has {}, which no namespace's name can match", quoted(text)));
            }
        }
    }

    fn some<T>(&mut self, at: &str, list: &[T]) {
        if list.is_empty() {
            let backend = at.split('.').nth(1).unwrap_or(at);
            self.note(
                at,
                format!("is empty, so that nothing is allowed; list something or leave out `{backend}`"),
            );
        }
    }

    fn backends(&mut self, backends: &Backends, kubelet_root: &Path) {
        if let Some(tmpfs) = &backends.tmpfs {
            self.namespaces("backends.tmpfs.namespaces", &tmpfs.namespaces);
            if tmpfs.max_size < tmpfs.default_size {
                let what =
                    format!("({}) is less than `defaultSize` ({})", tmpfs.max_size, tmpfs.default_size);
                self.note("backends.tmpfs.maxSize", what);
            }
            if tmpfs.max_inodes == 0 {
                self.note("backends.tmpfs.maxInodes", "is 0; write at least 1");
            }
        }
        if let Some(bind) = &backends.bind {
            self.some("backends.bind.roots", &bind.roots);
            self.roots("backends.bind.roots", &bind.roots, kubelet_root);
        }
        if let Some(image) = &backends.image {
            self.some("backends.image.roots", &image.roots);
            self.some::<ImageFs>("backends.image.fsTypes", &image.fs_types);
            self.roots("backends.image.roots", &image.roots, kubelet_root);
        }
        if let Some(overlay) = &backends.overlay {
            self.some("backends.overlay.lower", &overlay.lower);
            self.roots("backends.overlay.lower", &overlay.lower, kubelet_root);
            self.roots("backends.overlay.upper", &overlay.upper, kubelet_root);
            if overlay.lower.iter().any(|root| root.create) {
                self.note(
                    "backends.overlay.lower",
                    "has `create`, but layers there are only read; leave it out",
                );
            }
            if overlay.upper.iter().any(|root| root.read_only) {
                self.note(
                    "backends.overlay.upper",
                    "has `readOnly`, but a layer there is written; leave it out",
                );
            }
        }
        self.devices_and_servers(backends);
        if let Some(fuse) = &backends.fuse {
            if fuse.profiles.is_empty() {
                self.note("backends.fuse.profiles", "is empty; list a profile or leave out `fuse`");
            }
            for (name, profile) in &fuse.profiles {
                self.profile(&format!("backends.fuse.profiles.{name}"), name, profile);
            }
        }
    }

    fn devices_and_servers(&mut self, backends: &Backends) {
        if let Some(block) = &backends.block {
            self.some("backends.block.devices", &block.devices);
            self.namespaces("backends.block.namespaces", &block.namespaces);
            for glob in &block.devices {
                let clean = glob.as_str().strip_prefix("/dev/").map(RelativePath::check);
                if !matches!(clean, Some(Ok(_))) {
                    let what =
                        format!("has {}, which no device can match; write /dev/…", quoted(glob.as_str()));
                    self.note("backends.block.devices", what);
                }
            }
        }
        let nfs = backends.nfs.as_ref().map(|b| ("nfs", &b.servers, &b.namespaces, &b.helper));
        let cifs = backends.cifs.as_ref().map(|b| ("cifs", &b.servers, &b.namespaces, &b.helper));
        for (name, servers, namespaces, helper) in nfs.into_iter().chain(cifs) {
            let at = format!("backends.{name}");
            self.some(&format!("{at}.servers"), servers);
            self.namespaces(&format!("{at}.namespaces"), namespaces);
            self.path(&format!("{at}.helper"), helper);
            for glob in servers.iter().filter(|glob| glob.as_str().contains(['/', ',', ' ', '\\'])) {
                let what = format!("has {}, which no server's name can match", quoted(glob.as_str()));
                self.note(&format!("{at}.servers"), what);
            }
        }
    }

    fn roots(&mut self, at: &str, roots: &[Root], kubelet_root: &Path) {
        for (index, root) in roots.iter().enumerate() {
            let at = format!("{at}[{index}]");
            let known = self.0.len();
            self.path(&format!("{at}.path"), &root.path);
            self.namespaces(&format!("{at}.namespaces"), &root.namespaces);
            let shown = root.path.display();
            // A path that is off in itself has been reported.
            let what = forbidden(&root.path, kubelet_root).filter(|_| self.0.len() == known);
            if let Some(what) = what {
                let what = format!("({shown}) is, lies in, or contains {what}; take another folder");
                self.note(&format!("{at}.path"), what);
            }
            if root.read_only && root.create {
                self.note(&at, "has both `readOnly` and `create`; leave one of them out");
            }
        }
    }

    fn profile(&mut self, at: &str, name: &str, profile: &Profile) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(plain) {
            self.note(at, "is not a name; write letters, digits, `-`, `_` and `.`");
        }
        self.path(&format!("{at}.program"), &profile.program);
        self.namespaces(&format!("{at}.namespaces"), &profile.namespaces);
        self.texts(at, profile);
        for (name, option) in &profile.options {
            let at = format!("{at}.options.{name}");
            if TAKEN.contains(&name.as_str()) {
                self.note(&at, "is an option that every volume has; take another name");
            }
            if name.is_empty() || !name.chars().all(plain) {
                self.note(&at, "is not a name; write letters, digits, `-`, `_` and `.`");
            }
            if option.default.is_none() && option.allow.is_empty() {
                self.note(&at, "has neither `default` nor `allow`, so that it can have no value");
            }
        }
        for variable in profile.environment.keys() {
            if variable.is_empty() || variable.contains(['=', '\0']) || variable.chars().any(char::is_control)
            {
                self.note(
                    &format!("{at}.environment"),
                    format!("has {}, which is not a name", quoted(variable)),
                );
            }
        }
    }

    /// The variables in arguments and environment.
    fn texts(&mut self, at: &str, profile: &Profile) {
        let arguments =
            profile.arguments.iter().enumerate().map(|(i, text)| (format!("{at}.arguments[{i}]"), text));
        let environment =
            profile.environment.iter().map(|(key, text)| (format!("{at}.environment.{key}"), text));
        let mut mountpoint = false;
        for (at, text) in arguments.chain(environment) {
            if text.contains('\0') {
                self.note(&at, "has a NUL");
            }
            let pieces = match argument::pieces(text) {
                Ok(pieces) => pieces,
                Err(why) => {
                    self.note(&at, why);
                    continue;
                }
            };
            mountpoint |= pieces.contains(&Piece::Mountpoint);
            for piece in pieces {
                self.piece(&at, piece, profile);
            }
        }
        if !mountpoint {
            self.note(
                &format!("{at}.arguments"),
                "lacks `${mountpoint}`, so that the program cannot know where to mount",
            );
        }
    }

    fn piece(&mut self, at: &str, piece: Piece<'_>, profile: &Profile) {
        match piece {
            Piece::Option(name) if !profile.options.contains_key(name) => {
                self.note(
                    at,
                    format!("has `${{option.{name}}}`, which is not among the profile's `options`"),
                );
            }
            Piece::Secret(key) if !profile.secrets.iter().any(|known| known == key) => {
                self.note(at, format!("has `${{secret.{key}}}`, which is not among the profile's `secrets`"));
            }
            Piece::Source if profile.sources.is_empty() => {
                self.note(at, "has `${source}`, but the profile's `sources` allow none");
            }
            _ => {}
        }
    }
}
