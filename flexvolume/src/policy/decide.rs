//! The decisions: every one is a refusal with the lines that would allow it, or what is allowed.
//!
//! A refusal is `Kind::Config`. Its hint is one line of YAML for an administrator of the node; the words
//! of the pod stand in it as JSON strings, so that they can end nothing.

use std::path::{Path, PathBuf};

use node::{Error, Kind, Result};
use serde_json::json;

use super::glob::{Glob, matches_any};
use super::{
    Backends, BindPolicy, BlockPolicy, CifsPolicy, FusePolicy, ImagePolicy, NfsPolicy, OverlayPolicy, PATH,
    Policy, Profile, Root, TmpfsPolicy, forbidden,
};
use crate::options::{RelativePath, quoted};

/// A hint that shows an administrator what to write.
pub(super) fn hint(lines: &str) -> String {
    format!("an administrator can allow it in {PATH} on this node: {lines}")
}

fn refused(doing: String, why: impl Into<String>, lines: &str) -> Box<Error> {
    Error::caused(Kind::Config, doing, why.into()).hint(hint(lines))
}

impl Policy {
    /// Whether pods of `namespace` may use the driver at all.
    pub fn namespaces_allow(&self, namespace: &str) -> Result<()> {
        let lines = with(&self.namespaces, namespace);
        listed(&self.namespaces, namespace, "use the driver", &format!("`namespaces: {lines}`"))
    }

    /// Whether volumes of `namespace` may keep suid bits.
    pub fn suid(&self, namespace: &str) -> Result<()> {
        let lines = with(&self.allow_suid, namespace);
        listed(&self.allow_suid, namespace, "keep suid bits", &format!("`allowSuid: {lines}`"))
    }

    /// Whether volumes of `namespace` may keep device nodes.
    pub fn dev(&self, namespace: &str) -> Result<()> {
        let lines = with(&self.allow_dev, namespace);
        listed(&self.allow_dev, namespace, "keep device nodes", &format!("`allowDev: {lines}`"))
    }

    /// Whether volumes of `namespace` may choose their SELinux context.
    pub fn selinux_context(&self, namespace: &str) -> Result<()> {
        let lines = with(&self.allow_selinux_context, namespace);
        let lines = format!("`allowSelinuxContext: {lines}`");
        listed(&self.allow_selinux_context, namespace, "choose an SELinux context", &lines)
    }

    /// A tmpfs for `namespace`.
    pub fn tmpfs(&self, namespace: &str) -> Result<&TmpfsPolicy> {
        let found = self.backend(namespace, self.backends.tmpfs.as_ref(), "tmpfs", "{}")?;
        self.backend_lists(&found.namespaces, namespace, "tmpfs")?;
        Ok(found)
    }

    /// Whether bind is on.
    pub fn bind(&self, namespace: &str) -> Result<&BindPolicy> {
        let lines = roots("/srv/shared", namespace);
        self.backend(namespace, self.backends.bind.as_ref(), "bind", &lines)
    }

    /// The root that a bind's source lies in, and the rest of the path below it (empty for the root
    /// itself). `write` is whether the pod may write. By words alone: open the rest beneath the root.
    pub fn bind_root(&self, namespace: &str, source: &Path, write: bool) -> Result<(&Root, PathBuf)> {
        let entry = |text: &str| roots(text, namespace);
        let Some(found) = &self.backends.bind else { return Err(self.off(namespace, source, "bind", entry)) };
        self.root(namespace, source, write, &Place { roots: &found.roots, backend: "bind", list: "roots" })
    }

    /// Whether images are on.
    pub fn image(&self, namespace: &str) -> Result<&ImagePolicy> {
        let lines = roots("/var/lib/volumes", namespace);
        self.backend(namespace, self.backends.image.as_ref(), "image", &lines)
    }

    /// The same as [`Policy::bind_root`] for an image's file, or for the pool that one is made in.
    pub fn image_root(&self, namespace: &str, file: &Path, write: bool) -> Result<(&Root, PathBuf)> {
        let entry = |text: &str| roots(text, namespace);
        let Some(found) = &self.backends.image else { return Err(self.off(namespace, file, "image", entry)) };
        self.root(namespace, file, write, &Place { roots: &found.roots, backend: "image", list: "roots" })
    }

    /// Whether overlays are on.
    pub fn overlay(&self, namespace: &str) -> Result<&OverlayPolicy> {
        let lines = format!("{{lower: [{}]}}", root("/srv/layers", namespace));
        self.backend(namespace, self.backends.overlay.as_ref(), "overlay", &lines)
    }

    /// The same as [`Policy::bind_root`] for a lower layer, which is only read.
    pub fn overlay_lower(&self, namespace: &str, layer: &Path) -> Result<(&Root, PathBuf)> {
        let entry = |text: &str| format!("{{lower: [{}]}}", root(text, namespace));
        let Some(found) = &self.backends.overlay else {
            return Err(self.off(namespace, layer, "overlay", entry));
        };
        self.root(namespace, layer, false, &Place { roots: &found.lower, backend: "overlay", list: "lower" })
    }

    /// The same as [`Policy::bind_root`] for an upper layer on disk.
    pub fn overlay_upper(&self, namespace: &str, layer: &Path) -> Result<(&Root, PathBuf)> {
        let entry = |text: &str| format!("{{upper: [{}]}}", root(text, namespace));
        let Some(found) = &self.backends.overlay else {
            return Err(self.off(namespace, layer, "overlay", entry));
        };
        self.root(namespace, layer, true, &Place { roots: &found.upper, backend: "overlay", list: "upper" })
    }

    /// A block device, by the name that the pod writes.
    pub fn block(&self, namespace: &str, device: &str) -> Result<&BlockPolicy> {
        let doing = || format!("use the device {}", quoted(device));
        words(device).map_err(|why| unfit(doing(), why))?;
        if !device.starts_with("/dev/") {
            return Err(unfit(doing(), "it does not lie in /dev".to_owned()));
        }
        let lines = format!("{{devices: [{}]}}", json!(device));
        let found = self.backend(namespace, self.backends.block.as_ref(), "block", &lines)?;
        self.backend_lists(&found.namespaces, namespace, "block")?;
        if found.devices.iter().any(|glob| glob.matches_path(device)) {
            return Ok(found);
        }
        let lines = format!("{{devices: {}}}", with(&found.devices, device));
        Err(refused(doing(), "the node's policy does not list it", &self.entry("block", &lines)))
    }

    /// An NFS server, by the name that the pod writes; an IPv6 address without its brackets.
    pub fn nfs(&self, namespace: &str, server: &str) -> Result<&NfsPolicy> {
        let lines = format!("{{servers: [{}]}}", json!(server));
        let found = self.backend(namespace, self.backends.nfs.as_ref(), "nfs", &lines)?;
        self.backend_lists(&found.namespaces, namespace, "nfs")?;
        self.server(&found.servers, server, "nfs").map(|()| found)
    }

    /// An SMB server, by the name that the pod writes.
    pub fn cifs(&self, namespace: &str, server: &str) -> Result<&CifsPolicy> {
        let lines = format!("{{servers: [{}]}}", json!(server));
        let found = self.backend(namespace, self.backends.cifs.as_ref(), "cifs", &lines)?;
        self.backend_lists(&found.namespaces, namespace, "cifs")?;
        self.server(&found.servers, server, "cifs").map(|()| found)
    }

    /// A FUSE profile.
    pub fn fuse(&self, namespace: &str, profile: &str) -> Result<&Profile> {
        let example = json!(profile).to_string();
        let example = format!(
            "{{profiles: {{{example}: {{program: /usr/bin/PROGRAM, arguments: [\"${{mountpoint}}\"]}}}}}}"
        );
        let found: &FusePolicy = self.backend(namespace, self.backends.fuse.as_ref(), "fuse", &example)?;
        let doing = || format!("use the profile {}", quoted(profile));
        let Some(found) = found.profiles.get(profile) else {
            return Err(refused(
                doing(),
                "the node's policy has none of this name",
                &self.entry("fuse", &example),
            ));
        };
        let lines = format!("`namespaces: {}` in the profile", with(&found.namespaces, namespace));
        listed(&found.namespaces, namespace, &doing(), &lines).map(|()| found)
    }

    /// A backend that is on, for a namespace that may use the driver.
    fn backend<'p, T>(
        &self,
        namespace: &str,
        found: Option<&'p T>,
        name: &str,
        lines: &str,
    ) -> Result<&'p T> {
        self.namespaces_allow(namespace)?;
        found.ok_or_else(|| self.is_off(name, lines))
    }

    fn is_off(&self, name: &str, lines: &str) -> Box<Error> {
        refused(format!("use the backend `{name}`"), "it is off on this node", &self.entry(name, lines))
    }

    /// The refusal of a path for a backend that is off: the hint has the pod's own path, if it could be
    /// allowed at all.
    fn off(&self, namespace: &str, path: &Path, name: &str, entry: impl Fn(&str) -> String) -> Box<Error> {
        match self.namespaces_allow(namespace).and_then(|()| self.fit(path)) {
            Ok(text) => self.is_off(name, &entry(text)),
            Err(refusal) => refusal,
        }
    }

    fn backend_lists(&self, namespaces: &[Glob], namespace: &str, name: &str) -> Result<()> {
        let lines = self.entry(name, &format!("{{namespaces: {}}}", with(namespaces, namespace)));
        listed(namespaces, namespace, &format!("use the backend `{name}`"), &lines)
    }

    fn server(&self, servers: &[Glob], server: &str, name: &str) -> Result<()> {
        let doing = || format!("use the server {}", quoted(server));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_' | '%');
        if server.is_empty() || server.len() > 255 || server.starts_with('-') || !server.chars().all(plain) {
            return Err(unfit(doing(), "it is neither a host's name nor an address".to_owned()));
        }
        if servers.iter().any(|glob| glob.matches_host(server)) {
            return Ok(());
        }
        let lines = self.entry(name, &format!("{{servers: {}}}", with(servers, server)));
        Err(refused(doing(), "the node's policy does not list it", &lines))
    }

    /// A path that could be allowed, as text.
    fn fit<'t>(&self, path: &'t Path) -> Result<&'t str> {
        let doing = || format!("use {}", quoted(&path.to_string_lossy()));
        let text = path.to_str().ok_or_else(|| unfit(doing(), "it is not UTF-8".to_owned()))?;
        words(text).map_err(|why| unfit(doing(), why))?;
        match forbidden(path, &self.kubelet_root) {
            Some(what) => {
                Err(unfit(doing(), format!("it is, lies in, or contains {what}, which no policy allows")))
            }
            None => Ok(text),
        }
    }

    /// The longest root that contains `path` decides alone: a narrower one inside a wider one is meant to
    /// be an exception from it.
    fn root<'p>(
        &self,
        namespace: &str,
        path: &Path,
        write: bool,
        at: &Place<'p>,
    ) -> Result<(&'p Root, PathBuf)> {
        self.namespaces_allow(namespace)?;
        let text = self.fit(path)?;
        let doing = || format!("use {}", quoted(text));
        let wants = |root: &Root| matches_any(&root.namespaces, namespace) && !(write && root.read_only);
        let around: Vec<_> = at.roots.iter().filter(|root| path.starts_with(&root.path)).collect();
        let depth = around.iter().map(|root| root.path.components().count()).max();
        let nearest = || around.iter().filter(|root| Some(root.path.components().count()) == depth);
        let Some(found) = nearest().find(|root| wants(root)) else {
            let why = nearest().next().map_or(Why::Unlisted, |root| Why::of(root, namespace));
            return Err(refused(
                doing(),
                why.text(namespace),
                &self.entry(at.backend, &at.lines(&why, text, namespace)),
            ));
        };
        let within = at.roots.iter().filter(|root| root.path.starts_with(path) && root.path != found.path);
        if let Some(closed) = within.into_iter().find(|root| !wants(root)) {
            let inner = quoted(&closed.path.to_string_lossy());
            let why = format!(
                "it contains the root {inner}, which the namespace {} may not use so",
                quoted(namespace)
            );
            let lines = self.entry(at.backend, &at.lines(&Why::of(closed, namespace), text, namespace));
            return Err(refused(doing(), why, &lines));
        }
        let rest = path.strip_prefix(&found.path).unwrap_or(Path::new("")).to_owned();
        Ok((found, rest))
    }

    /// Where a backend's line goes. As long as `backends` is not there, adding it takes the default ones away.
    fn entry(&self, name: &str, lines: &str) -> String {
        if self.backends == Backends::default() && !["tmpfs", "nfs", "cifs"].contains(&name) {
            return format!("`backends: {{tmpfs: {{}}, nfs: {{}}, cifs: {{}}, {name}: {lines}}}`");
        }
        format!("`{name}: {lines}` below `backends`")
    }
}

/// A list of roots and where it stands.
struct Place<'p> {
    roots: &'p [Root],
    backend: &'static str,
    list: &'static str,
}

/// Why the nearest root is no good.
enum Why<'r> {
    Unlisted,
    Namespace(&'r Root),
    ReadOnly(&'r Root),
}

impl<'r> Why<'r> {
    fn of(root: &'r Root, namespace: &str) -> Self {
        if matches_any(&root.namespaces, namespace) { Self::ReadOnly(root) } else { Self::Namespace(root) }
    }

    fn text(&self, namespace: &str) -> String {
        match self {
            Self::Unlisted => "the node's policy lists no root that contains it".to_owned(),
            Self::Namespace(root) => format!(
                "the root {} is not for the namespace {}",
                quoted(&root.path.to_string_lossy()),
                quoted(namespace)
            ),
            Self::ReadOnly(root) => {
                format!(
                    "the root {} is read-only; ask for `readOnly: true`",
                    quoted(&root.path.to_string_lossy())
                )
            }
        }
    }
}

impl Place<'_> {
    /// The root that would allow it, as it would stand in the file.
    fn lines(&self, why: &Why<'_>, path: &str, namespace: &str) -> String {
        let entry = match why {
            Why::Unlisted => root(path, namespace),
            Why::Namespace(found) => {
                let path = json!(found.path.to_string_lossy());
                format!("{{path: {path}, namespaces: {}}}", with(&found.namespaces, namespace))
            }
            Why::ReadOnly(found) => format!(
                "{{path: {}, namespaces: {}, readOnly: false}}",
                json!(found.path.to_string_lossy()),
                json!(found.namespaces)
            ),
        };
        format!("{{{}: [{entry}]}}", self.list)
    }
}

fn root(path: &str, namespace: &str) -> String {
    format!("{{path: {}, namespaces: [{}]}}", json!(path), json!(namespace))
}

fn roots(path: &str, namespace: &str) -> String {
    format!("{{roots: [{}]}}", root(path, namespace))
}

/// A list with one more, as flow YAML.
fn with(globs: &[Glob], one: &str) -> String {
    let all: Vec<_> = globs.iter().map(Glob::as_str).chain([one]).collect();
    json!(all).to_string()
}

fn listed(globs: &[Glob], namespace: &str, doing: &str, lines: &str) -> Result<()> {
    if matches_any(globs, namespace) {
        return Ok(());
    }
    let why = format!("the node's policy does not allow it to the namespace {}", quoted(namespace));
    Err(refused(doing.to_owned(), why, lines))
}

/// A refusal that no policy can lift.
fn unfit(doing: String, why: String) -> Box<Error> {
    Error::caused(Kind::Config, doing, why).hint("write another one")
}

/// Whether an absolute path says where it leads.
fn words(path: &str) -> std::result::Result<(), String> {
    let rest = path.strip_prefix('/').ok_or("it does not start with `/`")?;
    RelativePath::check(rest).map(|_| ()).map_err(|why| format!("it {why}"))
}

#[cfg(test)]
mod tests;
