//! Devices by their path.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::config::{FileKind, Glob, PathSelector};
use crate::inventory::{Found, Looked, Node};

use super::dev::Behind;
use super::rejected::Rejections;
use super::tree::by_name;
use super::view::View;
use super::walk::{Walk, has_pattern, start};
use super::watching::Watching;
use super::{identity, shown};

/// The files that match. A device that two paths lead to is one, by the first of them.
pub fn look(wanted: &PathSelector, view: &View) -> Looked {
    let mut rejected = Rejections::default();
    let mut taken: HashMap<PathBuf, PathBuf> = HashMap::new();
    let mut found = Vec::new();
    let walk = walk(wanted, view, &mut rejected);
    let stopped = walk.stopped.clone();
    let failed = stopped.clone().filter(|_| walk.exhausted);
    if let Some(why) = stopped {
        rejected.note("the rest", why);
    }
    for (path, folder) in hits(wanted, walk.hits) {
        match accept(wanted, &path, &folder, view) {
            Ok(behind) => {
                if let Some(first) = taken.get(&behind.real) {
                    rejected.note(shown(&path), format!("is in already, as `{}`", shown(first)));
                    continue;
                }
                taken.insert(behind.real.clone(), path.clone());
                found.push(device(&path, behind, view));
            }
            Err(why) => rejected.note(shown(&path), why),
        }
    }
    let missing = missing(wanted, view);
    if wanted.together {
        found = together(wanted, found, &missing);
    } else {
        found.extend(missing.into_iter().map(|(path, why)| expected(&path, why)));
    }
    Looked { found, rejected: rejected.finish(), failed }
}

/// What to watch: every folder where a match could appear, and those that symlinks lead to.
pub fn watch(wanted: &PathSelector, watching: &mut Watching) {
    let view = watching.view();
    let walk = walk(wanted, view, &mut Rejections::default());
    for (hit, folder) in &walk.hits {
        if let Ok(behind) = view.dev.behind_within(hit, folder)
            && let Some(folder) = behind.real.parent()
        {
            watching.folder(folder);
        }
    }
    walk.folders.iter().for_each(|folder| watching.folder(folder));
}

fn walk<'a>(wanted: &PathSelector, view: &'a View, rejected: &mut Rejections) -> Walk<'a> {
    let mut walk = Walk::new(&view.dev);
    for glob in &wanted.glob {
        let before = walk.hits.len();
        if let Err(why) = walk.glob(glob) {
            rejected.note(glob.as_str(), why);
        }
        if walk.hits.len() == before {
            explain_nothing(wanted, glob, view, &walk, rejected);
        }
    }
    if let Some(pattern) = &wanted.regex {
        let before = walk.hits.len();
        walk.regex(pattern, wanted.below.as_deref().unwrap_or(Path::new("/dev")));
        if walk.hits.len() == before {
            let anywhere = pattern.anywhere();
            for path in walk.nearest(|path| anywhere.matches(&path.to_string_lossy())) {
                rejected.note(shown(&path), format!("doesn't match `{pattern}` as a whole"));
            }
        }
    }
    walk
}

/// The paths that match, those of the first pattern first, with the folder that each was looked for in.
fn hits(wanted: &PathSelector, hits: BTreeMap<PathBuf, PathBuf>) -> Vec<(PathBuf, PathBuf)> {
    let first = |path: &Path| {
        let path = path.to_str();
        wanted.glob.iter().position(|glob| path.is_some_and(|path| glob.matches_path(path)))
    };
    let mut hits: Vec<(usize, (PathBuf, PathBuf))> =
        hits.into_iter().map(|hit| (first(&hit.0).unwrap_or(usize::MAX), hit)).collect();
    hits.sort_by(|(first, (a, _)), (second, (b, _))| first.cmp(second).then_with(|| by_name(a, b)));
    hits.into_iter().map(|(_, hit)| hit).collect()
}

/// A path that is not there, or what has a name like a pattern that matches nothing.
fn explain_nothing(
    wanted: &PathSelector,
    glob: &Glob,
    view: &View,
    walk: &Walk<'_>,
    rejected: &mut Rejections,
) {
    // What is expected is listed as a device, with the same reason.
    if !has_pattern(glob.as_str()) && !wanted.expected {
        let why = view.dev.behind(Path::new(glob.as_str())).err();
        rejected.note(glob.as_str(), why.unwrap_or_else(|| "is no whole path".to_owned()));
    }
    for path in walk.nearest(|_| false) {
        rejected.note(shown(&path), format!("doesn't match `{glob}`"));
    }
}

fn accept(wanted: &PathSelector, path: &Path, folder: &Path, view: &View) -> Result<Behind, String> {
    let text = path.to_string_lossy();
    if let Some(exclude) = wanted.exclude.iter().find(|exclude| exclude.matches_path(&text)) {
        return Err(format!("`exclude` has `{exclude}`"));
    }
    let behind = view.dev.behind_within(path, folder)?;
    let kinds: &[FileKind] =
        if wanted.kinds.is_empty() { &[FileKind::Char, FileKind::Block] } else { &wanted.kinds };
    if !kinds.contains(&behind.kind) {
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.words()).collect();
        return Err(format!("it is {}, not {}", behind.kind.words(), kinds.join(" or ")));
    }
    Ok(behind)
}

fn device(path: &Path, behind: Behind, view: &View) -> Found {
    let number = behind.number;
    let identity = format!("path:{}", shown(path));
    let node = behind.node(path);
    let name = super::clean(&path.file_name().unwrap_or_default().to_string_lossy());
    let kind = |block: bool| if block { "block" } else { "char" };
    let device = number.and_then(|n| view.sys.numbered(kind(n.block), n.major, n.minor));
    let known = device.map(|device| identity::found(&device, String::new(), view)).unwrap_or_default();
    Found { identity, name, nodes: vec![node], ..known }
}

/// Paths that have to be there, and why each is not.
fn missing(wanted: &PathSelector, view: &View) -> Vec<(PathBuf, String)> {
    if !wanted.expected {
        return Vec::new();
    }
    let paths = wanted.glob.iter().map(Glob::as_str).filter(|text| !has_pattern(text)).map(PathBuf::from);
    let folder = |path: &Path| start(path).to_owned();
    paths
        .filter_map(|path| accept(wanted, &path, &folder(&path), view).err().map(|why| (path, why)))
        .collect()
}

fn expected(path: &Path, why: String) -> Found {
    let name = super::clean(&path.file_name().unwrap_or_default().to_string_lossy());
    Found { identity: format!("path:{}", shown(path)), name, ailing: Some(why), ..Found::default() }
}

/// All that match as one device, known by the patterns: what matches comes and goes.
fn together(wanted: &PathSelector, found: Vec<Found>, missing: &[(PathBuf, String)]) -> Vec<Found> {
    let mut all = found.into_iter();
    let (first, ailing) = match (all.next(), missing.first()) {
        (None, None) if !wanted.expected => return Vec::new(),
        (None, None) => (Found::default(), Some("nothing matches".to_owned())),
        (first, missing) => (first.unwrap_or_default(), missing.map(|(_, why)| why.clone())),
    };
    let patterns = wanted.glob.iter().map(ToString::to_string);
    let patterns: Vec<String> = patterns.chain(wanted.regex.iter().map(ToString::to_string)).collect();
    let patterns = patterns.join(" ");
    let name = if first.name.is_empty() { patterns.clone() } else { first.name.clone() };
    let identity = format!("paths:{patterns}");
    let nodes: Vec<Node> = first.nodes.iter().cloned().chain(all.flat_map(|found| found.nodes)).collect();
    vec![Found { identity, name, nodes, ailing, ..first }]
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
