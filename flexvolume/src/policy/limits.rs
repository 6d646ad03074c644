//! How much of a backend a volume may have.

use node::{Error, Kind, Result};

use super::decide::hint;
use super::{BlockPolicy, ImageFs, ImagePolicy, OverlayPolicy, Root, TmpfsPolicy};
use crate::options::{Quantity, quoted};

impl TmpfsPolicy {
    /// The bytes for a volume that asks for `asked`.
    pub fn size(&self, asked: Option<u64>) -> Result<u64> {
        within("size", asked.unwrap_or(self.default_size.bytes()), self.max_size, "tmpfs: {maxSize")
    }

    /// The files and folders for a volume that asks for `asked`.
    pub fn inodes(&self, asked: Option<u64>) -> Result<u64> {
        match asked {
            None => Ok(self.max_inodes),
            Some(asked) if (1..=self.max_inodes).contains(&asked) => Ok(asked),
            Some(asked) => Err(Error::caused(
                Kind::Config,
                format!("allow `inodes` of {asked}"),
                format!("the node's policy allows from 1 to {}", self.max_inodes),
            )
            .hint(hint(&format!("`tmpfs: {{maxInodes: {asked}}}` below `backends`")))),
        }
    }
}

impl ImagePolicy {
    /// The bytes for a new image, or one that grows to `asked`.
    pub fn size(&self, asked: u64) -> Result<u64> {
        within("size", asked, self.max_size, "image: {maxSize")
    }

    /// Whether this filesystem may be mounted.
    pub fn fs_type(&self, asked: ImageFs) -> Result<()> {
        if self.fs_types.contains(&asked) {
            return Ok(());
        }
        let allowed: Vec<_> = self.fs_types.iter().map(|fs| fs.name()).collect();
        let why = format!("the node's policy allows {}", allowed.join(", "));
        let lines =
            format!("`image: {{fsTypes: [{}, {}]}}` below `backends`", allowed.join(", "), asked.name());
        Err(Error::caused(Kind::Config, format!("mount {} from an image", asked.name()), why)
            .hint(hint(&lines)))
    }
}

impl OverlayPolicy {
    /// The bytes for an upper layer in memory that asks for `asked`.
    pub fn size(&self, asked: Option<u64>) -> Result<u64> {
        within("size", asked.unwrap_or(self.max_size.bytes()), self.max_size, "overlay: {maxSize")
    }
}

impl BlockPolicy {
    /// Whether an empty device may be formatted.
    pub fn may_format(&self) -> Result<()> {
        if self.format {
            return Ok(());
        }
        let why = "the node's policy does not allow it";
        Err(Error::caused(Kind::Config, "format an empty device", why)
            .hint(hint("`block: {format: true}` below `backends`")))
    }
}

impl Root {
    /// Whether folders or images may be made here.
    pub fn may_create(&self) -> Result<()> {
        if self.create && !self.read_only {
            return Ok(());
        }
        let path = self.path.to_string_lossy();
        let lines = format!("`create: true` in the root {}", quoted(&path));
        let why = "the node's policy does not allow it";
        Err(Error::caused(Kind::Config, format!("make something new in {}", quoted(&path)), why)
            .hint(hint(&lines)))
    }
}

fn within(option: &str, asked: u64, most: Quantity, lines: &str) -> Result<u64> {
    if asked <= most.bytes() && asked > 0 {
        return Ok(asked);
    }
    let shown = Quantity::of(asked);
    let why = format!("the node's policy allows at most {most}");
    Err(Error::caused(Kind::Config, format!("allow `{option}` of {shown}"), why)
        .hint(hint(&format!("`{lines}: {shown}}}` below `backends`"))))
}
