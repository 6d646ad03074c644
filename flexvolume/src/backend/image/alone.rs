//! An image that one volume at a time has, and may write to.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use node::{Error, Kind, Result};

use super::open::{self, Opened};
use super::options::{Image, New};
use crate::apply::{Handle, Hands, wait_until_free};
use crate::backend::Seen;
use crate::backend::medium::{self, Found, Mounted, Wanted};
use crate::kernel::path;
use crate::plan::{Allocate, Limits, Medium, Step};
use crate::record::Record;

/// What was found, and how it will be mounted.
#[derive(Debug)]
struct Alone {
    path: PathBuf,
    lock: String,
    is: Is,
    wanted: Wanted,
    mounted: Mounted,
    allocate: Allocate,
    delete: bool,
}

/// Whether the image is there.
#[derive(Debug)]
enum Is {
    /// It is made under the second name first, after the others are removed.
    Missing(New, PathBuf, Vec<PathBuf>),
    /// It is there, and gets at least so many bytes.
    There(Found, u64),
}

/// An image that is not there; `abandoned` is what was to become it.
pub fn missing(image: Image, opened: Opened, abandoned: Vec<PathBuf>) -> Result<Box<dyn Seen>> {
    let Some(new) = image.new else {
        let doing = format!("open the image `{}`", opened.path.display());
        return Err(Error::caused(Kind::Config, doing, "it is not there")
            .hint("put it there, or have one made by `create: ifMissing` and `size`"));
    };
    let scratch = open::scratch(&opened.path, &image.id);
    let mounted = image.wanted.mounted(new.fs, image.wanted.common.read_only)?;
    Ok(Box::new(Alone {
        path: opened.path,
        lock: opened.lock,
        is: Is::Missing(new, scratch, abandoned),
        wanted: image.wanted,
        mounted,
        allocate: image.allocate,
        delete: image.delete,
    }))
}

/// An image that is there; nobody else may have it.
pub fn found(image: Image, opened: Opened, found: Found, hands: &mut Hands<'_>) -> Result<Box<dyn Seen>> {
    if let Some(file) = &opened.file {
        wait_until_free(file, &opened.path)?;
        hands.open.insert(Handle::Image, path::reopen(file.as_fd(), true)?);
    }
    let length = image.size.unwrap_or(0).max(found.length);
    let mounted = image.wanted.mounted(found.fs, image.wanted.common.read_only)?;
    Ok(Box::new(Alone {
        path: opened.path,
        lock: opened.lock,
        is: Is::There(found, length),
        wanted: image.wanted,
        mounted,
        allocate: image.allocate,
        delete: image.delete,
    }))
}

impl Alone {
    fn new_image(&self, new: &New, scratch: &Path, abandoned: &[PathBuf]) -> Vec<Step> {
        let first = abandoned.iter().cloned().map(Medium::Remove);
        let steps = [
            Medium::Create(scratch.to_owned()),
            Medium::Lengthen { to: new.size, allocate: self.allocate },
            Medium::Loop { read_only: false, alone: true },
            Medium::Format { fs: new.fs, arguments: new.arguments.clone() },
            Medium::Publish { from: scratch.to_owned(), to: self.path.clone() },
        ];
        let mut steps: Vec<Step> = first.chain(steps).map(Step::Medium).collect();
        if self.mounted.read_only {
            steps.push(Step::Medium(Medium::Loop { read_only: true, alone: true }));
        }
        steps.push(self.mounted.make());
        steps
    }

    fn old_image(&self, found: &Found, length: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        let put = |read_only| Step::Medium(Medium::Loop { read_only, alone: true });
        if length > found.length {
            steps.push(Step::Medium(Medium::Lengthen { to: length, allocate: self.allocate }));
        }
        let before = found.before(&self.wanted, &self.path, length);
        let after = found.after(length);
        if !before.is_empty() || !self.mounted.read_only {
            steps.push(put(false));
        }
        steps.extend(before);
        if self.mounted.read_only {
            steps.push(put(true));
        }
        steps.push(self.mounted.make());
        steps.extend(after.filter(|_| !self.mounted.read_only));
        steps
    }
}

impl Seen for Alone {
    fn describe(&self, record: &mut Record) {
        record.source = self.path.display().to_string();
        record.lock.clone_from(&self.lock);
        record.medium = Some(self.path.clone());
        if let Is::Missing(_, scratch, _) = &self.is {
            record.scratch.push(scratch.clone());
        }
        if self.delete {
            record.delete.push(self.path.clone());
        }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = match &self.is {
            Is::Missing(new, scratch, abandoned) => self.new_image(new, scratch, abandoned),
            Is::There(found, length) => self.old_image(found, *length),
        };
        steps.extend(medium::give(&self.wanted.common));
        steps
    }

    fn limits(&self, limits: Limits) -> (Limits, bool) {
        self.mounted.limits(limits)
    }
}
