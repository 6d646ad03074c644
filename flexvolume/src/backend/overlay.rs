//! Layers of the node that are only read, and one above them that is written: in memory, or on disk and kept.

mod layer;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use node::{Error, Kind, Result};

use super::{Asked, Common, Seen, Wish};
use crate::apply::Hands;
use crate::kernel::overlay::LAYERS;
use crate::kernel::own::Scope;
use crate::options::mount_options::{Attr, Fs};
use crate::options::{Quantity, Reader, template};
use crate::plan::{Face, Layers, Limits, Lower, Setting, Source, Step, Upper};
use crate::policy::ImageFs;
use crate::record::Record;

/// File systems of images that can lie below: what is there is mounted read-only.
const KINDS: [ImageFs; 3] = [ImageFs::Erofs, ImageFs::Squashfs, ImageFs::Ext4];

/// Layers that are allowed.
#[derive(Debug)]
struct Overlay {
    common: Common,
    lower: Vec<Place>,
    upper: Above,
    kinds: Vec<ImageFs>,
    settings: Vec<Setting>,
    attributes: BTreeSet<Attr>,
    kubelet_root: PathBuf,
}

/// A path beneath a root of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    root: PathBuf,
    relative: PathBuf,
}

impl Place {
    fn path(&self) -> PathBuf {
        // Joining nothing would add a slash.
        if self.relative.as_os_str().is_empty() { self.root.clone() } else { self.root.join(&self.relative) }
    }
}

/// Where the upper layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Above {
    Memory { size: u64 },
    Disk { place: Place, create: bool },
}

/// Reads the options `lower`, `upper`, `size`, `redirectDir`, `volatile`, `index`.
pub fn read(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Box<dyn Wish>> {
    Ok(Box::new(overlay(asked, reader)?))
}

fn overlay(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Overlay> {
    let common = asked.common.clone();
    let lower = lower(asked, reader)?;
    let upper = upper(asked, reader, &lower)?;
    let settings = settings(asked, reader, &upper);
    let more = reader.mount_options("mountOptions", Fs::Overlay).unwrap_or_default();
    let settings = settings.into_iter().chain(more.options.iter().map(Setting::from)).collect();
    let images = asked.policy.backends.image.as_ref();
    let kinds = KINDS.into_iter().filter(|kind| images.is_none_or(|i| i.fs_types.contains(kind))).collect();
    let kubelet_root = asked.policy.kubelet_root.clone();
    let attributes = more.attributes;
    Ok(Overlay { common, lower, upper, kinds, settings, attributes, kubelet_root })
}

fn lower(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Vec<Place>> {
    let paths = reader.lines("lower");
    let write = "the folders or images below, topmost first, such as `/srv/layers/app,/srv/layers/base`";
    let Some(paths) = reader.required("lower", paths, write) else { return Ok(Vec::new()) };
    if paths.len() > LAYERS {
        reader.problem("lower", format!("names {} layers; write at most {LAYERS}", paths.len()));
    }
    let place = |path: &&str| -> Result<Place> {
        let (root, relative) = asked.policy.overlay_lower(&asked.pod.namespace, Path::new(path))?;
        Ok(Place { root: root.path.clone(), relative })
    };
    paths.iter().map(place).collect()
}

fn upper(asked: &Asked<'_>, reader: &mut Reader<'_>, lower: &[Place]) -> Result<Above> {
    let policy = asked.policy.overlay(&asked.pod.namespace)?;
    let size = reader.quantity("size");
    let wanted = reader.text("upper").unwrap_or("tmpfs");
    if wanted == "tmpfs" {
        return Ok(Above::Memory { size: policy.size(size)? });
    }
    if size.is_some() {
        reader
            .problem("size", "is that of an upper layer in memory; leave it out, or set `upper` to `tmpfs`");
    }
    let path = template::expand(wanted, &asked.pod, asked.options.volume())?;
    let (root, relative) = asked.policy.overlay_upper(&asked.pod.namespace, Path::new(&path))?;
    if relative.as_os_str().is_empty() {
        reader.problem("upper", "is a whole root of the policy; name a folder beneath it");
    }
    let place = Place { root: root.path.clone(), relative };
    let nested = |l: &&Place| l.path().starts_with(place.path()) || place.path().starts_with(l.path());
    if let Some(layer) = lower.iter().find(nested) {
        let what = format!("lies in the lower layer `{}`, or that in it", layer.path().display());
        reader.problem("upper", what + "; take another folder");
    }
    Ok(Above::Disk { place, create: root.create })
}

fn settings(asked: &Asked<'_>, reader: &mut Reader<'_>, upper: &Above) -> Vec<Setting> {
    let on_disk = matches!(upper, Above::Disk { .. });
    let word = |on: bool| if on { "on" } else { "off" };
    let mut settings = Vec::new();
    // With an index the kernel itself refuses an upper layer that another overlay has.
    let index = reader.flag("index").or(on_disk.then_some(true));
    settings.extend(index.map(|on| Setting::text("index", word(on))));
    let redirect = reader.flag("redirectDir");
    settings.extend(redirect.map(|on| Setting::text("redirect_dir", word(on))));
    if reader.flag("volatile") == Some(true) {
        if on_disk {
            let why = "contradicts an `upper` on disk, which is to be kept: after a crash of the node the \
                       kernel would never take it again; leave one of them out";
            reader.problem("volatile", why);
        }
        settings.push(Setting::flag("volatile"));
    }
    settings.extend(asked.common.selinux.iter().map(|label| Setting::text("context", label.as_str())));
    settings
}

/// What was found of the layers.
#[derive(Debug)]
struct Found {
    overlay: Overlay,
    lower: Vec<Lower>,
    /// The upper layer's lock, and whether its folder is missing.
    upper: Option<(String, bool)>,
}

impl Wish for Overlay {
    fn observe(self: Box<Self>, hands: &mut Hands<'_>) -> Result<Box<dyn Seen>> {
        let mut lower = Vec::new();
        for (number, place) in self.lower.iter().enumerate() {
            lower.push(layer::lower(number, place, &self.kinds, &self.kubelet_root, hands)?);
        }
        let upper = match &self.upper {
            Above::Memory { .. } => None,
            Above::Disk { place, create } => Some(layer::upper(place, *create, &self.kubelet_root, hands)?),
        };
        Ok(Box::new(Found { overlay: *self, lower, upper }))
    }
}

impl Seen for Found {
    fn describe(&self, record: &mut Record) {
        let Overlay { lower, upper, .. } = &self.overlay;
        let above = match upper {
            Above::Memory { size } => format!("{} of memory", Quantity::of(*size)),
            Above::Disk { place, .. } => place.path().display().to_string(),
        };
        let below: Vec<String> = lower.iter().map(|l| l.path().display().to_string()).collect();
        record.source = format!("{above} over {}", below.join(", "));
        record.key = self.upper.as_ref().map_or_else(String::new, |(key, _)| key.clone());
    }

    fn steps(&self) -> Vec<Step> {
        let Overlay { common, upper, settings, .. } = &self.overlay;
        let mut steps: Vec<Step> = self.lower.iter().cloned().map(Step::Lower).collect();
        let missing = self.upper.as_ref().is_some_and(|(_, missing)| *missing);
        steps.push(match upper {
            Above::Memory { size } => memory(*size),
            Above::Disk { place, .. } => {
                Step::Upper(Upper { path: place.path(), relative: place.relative.clone(), missing })
            }
        });
        let face = Face { mode: common.mode, uid: common.uid, gid: common.gid };
        steps.push(Step::Layer(Layers { settings: settings.clone(), face }));
        // The root folder alone: to give a file of a lower layer to a group is to copy it up, all of it.
        steps.extend(common.give(Some(Scope::Root)));
        steps
    }

    fn limits(&self, limits: Limits) -> (Limits, bool) {
        (limits.with(&self.overlay.attributes), false)
    }
}

/// The step that makes an upper layer in memory.
pub fn memory(size: u64) -> Step {
    Step::Make {
        kind: "tmpfs",
        source: Source::Named("tmpfs".to_owned()),
        settings: vec![Setting::text("size", size.to_string()), Setting::text("mode", "0700")],
        read_only: false,
    }
}

/// The error of a layer that another volume has.
fn taken(path: &Path, why: String) -> Box<Error> {
    Error::caused(Kind::Conflict, format!("use `{}` as the upper layer", path.display()), why).hint(
        "only one volume at a time can write to an upper layer: give each pod its own, such as \
         `upper: /srv/upper/${pod.namespace}/${pod.name}`",
    )
}
