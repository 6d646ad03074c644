//! The folder that the kubelet wants a volume at: `<kubelet root>/pods/<uid>/volumes/<vendor~driver>/<name>`.
//!
//! Pure: whether the folder is there, and what is mounted on it, is asked by [`crate::observe`].

use std::fmt;
use std::path::{Component, Path, PathBuf};

use node::{Error, Kind, Result};
use sha2::{Digest, Sha256};

/// A volume's identity on this node: a hash of its target path, 32 hex digits. Records, locks, cgroups and
/// daemons bear it, so that an unmount, which is told the path alone, finds them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first 16 bytes of a SHA-256, in hex.
pub fn digest(bytes: &[u8]) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(32);
    for byte in Sha256::digest(bytes).iter().take(16) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A target path that has the kubelet's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    root: PathBuf,
    uid: String,
    driver: String,
    volume: String,
}

impl Target {
    /// Reads `path`, which must lie beneath the kubelet's `root` in the shape above.
    pub fn parse(path: &Path, root: &Path) -> Result<Self> {
        let refuse = |why: &str| {
            let shape = format!("{}/pods/<uid>/volumes/<vendor~driver>/<name>", root.display());
            Error::caused(Kind::Usage, format!("take `{}` as a volume's folder", path.display()), why)
                .hint(format!("the kubelet asks for `{shape}`; if its root is another, set `kubeletRoot` in the node's policy"))
        };
        let Ok(rest) = path.strip_prefix(root) else {
            return Err(refuse("it is not beneath the kubelet's root"));
        };
        // Path::components drops `.` and doubled slashes in silence: the text has to be the path.
        let parts: Option<Vec<&str>> = rest
            .components()
            .map(|c| if let Component::Normal(name) = c { name.to_str() } else { None })
            .collect();
        let Some(parts) = parts else { return Err(refuse("it holds `..`, or is not UTF-8")) };
        if root.join(parts.join("/")).as_os_str() != path.as_os_str() {
            return Err(refuse("it is not written plainly"));
        }
        if parts.iter().any(|p| p.chars().any(char::is_control)) {
            return Err(refuse("it holds a control character"));
        }
        match parts.as_slice() {
            ["pods", uid, "volumes", driver, volume] => Ok(Self {
                root: root.to_owned(),
                uid: (*uid).to_owned(),
                driver: (*driver).to_owned(),
                volume: (*volume).to_owned(),
            }),
            _ => Err(refuse("it has another shape")),
        }
    }

    /// The kubelet's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder that holds this pod's volumes of this driver, relative to the root.
    pub fn parent(&self) -> PathBuf {
        ["pods", &self.uid, "volumes", &self.driver].iter().collect()
    }

    /// The folder itself, relative to the root.
    pub fn relative(&self) -> PathBuf {
        self.parent().join(&self.volume)
    }

    /// The whole path.
    pub fn path(&self) -> PathBuf {
        self.root.join(self.relative())
    }

    /// The pod's uid, as the path has it.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// `vendor~driver`.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The volume's name: the last part.
    pub fn volume(&self) -> &str {
        &self.volume
    }

    /// The volume's identity.
    pub fn id(&self) -> Id {
        Id(digest(self.path().as_os_str().as_encoded_bytes()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path().display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kubelets_shape_is_taken() {
        let root = Path::new("/var/lib/kubelet");
        let good =
            Target::parse(Path::new("/var/lib/kubelet/pods/u-1/volumes/nodeplug~tmpfs/data"), root).unwrap();
        assert_eq!((good.uid(), good.driver(), good.volume()), ("u-1", "nodeplug~tmpfs", "data"));
        assert_eq!(good.id().as_str().len(), 32);
        for bad in [
            "/etc",
            "/var/lib/kubelet",
            "/var/lib/kubelet2/pods/u/volumes/d/v",
            "/var/lib/kubelet/pods/u/volumes/d",
            "/var/lib/kubelet/pods/u/volumes/d/v/w",
            "/var/lib/kubelet/pods/../volumes/d/v",
            "/var/lib/kubelet/pods/u/volumes/d/..",
            "/var/lib/kubelet/pods//u/volumes/d/v",
            "/var/lib/kubelet/pods/./u/volumes/d/v",
            "/var/lib/kubelet/pods/u/volumes/d/v/",
            "/var/lib/kubelet/plugins/u/volumes/d/v",
            "/var/lib/kubelet/pods/u\n/volumes/d/v",
            "pods/u/volumes/d/v",
            "",
        ] {
            assert!(Target::parse(Path::new(bad), root).is_err(), "{bad}");
        }
    }
}
