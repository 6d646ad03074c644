//! What an install made, so that uninstall takes away that and nothing else: JSON has no comments, so a conflist
//! cannot say whose it is.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use node::{Context, Kind, Result, install, store};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::attachment::STATE;
use crate::runtime::below;

const NAME: &str = "installed.json";
/// The folders of [`STATE`]; on a node that is in use only the last one can be empty.
const ABOVE: usize = 4;

/// The record below a root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    /// The release that installed last.
    pub version: String,
    /// The folder of plugins, as the node has it.
    pub folder: PathBuf,
    /// The conflists that were written, each with the SHA-256 of what it holds, or, while it is being replaced, of
    /// what it held and will hold.
    pub conflists: BTreeMap<PathBuf, Vec<String>>,
    /// Folders that were not there, the outermost first.
    pub made: Vec<PathBuf>,
}

impl Record {
    /// The record of the node below `root`; one that cannot be read counts as none, so that nothing is ours.
    pub fn load(root: &Path) -> Result<Option<Self>> {
        Ok(store::read(&path(root))?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Writes it, so that it outlives a power loss.
    pub fn save(&self, root: &Path) -> Result<()> {
        let path = path(root);
        store::make_folder(path.parent().unwrap_or(root))?;
        let mut text = serde_json::to_vec_pretty(self)
            .doing(Kind::Internal, || "encode the record of the install".to_owned())?;
        text.push(b'\n');
        install::draft(&path, &text, 0o644)?;
        install::publish(&path)
    }

    /// Removes it, and the folders above it that hold nothing else.
    pub fn remove(root: &Path) -> Result<()> {
        let path = path(root);
        store::remove(&store::beside(&path))?;
        store::remove(&path)?;
        for folder in path.ancestors().skip(1).take(ABOVE) {
            // What is not empty is the pods'.
            let _ = std::fs::remove_dir(folder);
        }
        Ok(())
    }

    /// Whether the record knows these bytes as what it wrote to `path`.
    pub fn wrote(&self, path: &Path, bytes: &[u8]) -> bool {
        let hash = hash(bytes);
        self.conflists.get(path).is_some_and(|hashes| hashes.contains(&hash))
    }
}

/// SHA-256, in hex.
pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not go wrong.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn path(root: &Path) -> PathBuf {
    below(root, Path::new(STATE)).join(NAME)
}
