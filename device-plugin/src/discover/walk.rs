//! Which files match a pattern, and in which folders one that matches could appear. A walk is bounded: a folder may
//! hold anything, and pods can write to some.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use crate::config::{Glob, Pattern};

use super::dev::Dev;
use super::tree::by_name;

/// So many files are looked at for one selector.
const MOST: usize = 100_000;
/// So deep goes `**`, and a regular expression.
const DEEPEST: usize = 8;
/// The nearest names that are told where nothing matches.
const NEAREST: usize = 3;
/// They are so much alike, of at most 1.
const ALIKE: f64 = 0.75;
/// So many folders, and files in them, are looked at for them.
const MOST_MISSED: usize = 64;
const MOST_COMPARED: usize = 2_000;

/// Folders and matches, as the node names them.
#[derive(Debug)]
pub struct Walk<'a> {
    dev: &'a Dev,
    left: usize,
    /// What matches, with the folder that it was looked for in: symlinks outside /dev must not leave it.
    pub hits: BTreeMap<PathBuf, PathBuf>,
    /// Where more could appear; they need not be there.
    pub folders: BTreeSet<PathBuf>,
    /// Why no more was looked at.
    pub stopped: Option<String>,
    /// There were too many files, so that what was not found may be there.
    pub exhausted: bool,
    /// Where the pattern at hand begins.
    start: PathBuf,
    /// Folders where it matched nothing, and what was looked for there.
    missed: Vec<(PathBuf, String)>,
}

#[derive(Debug)]
enum Part {
    Name(String),
    Matches(Glob),
    AnyFolders,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    name: String,
    folder: bool,
    link: bool,
}

impl<'a> Walk<'a> {
    /// Nothing yet.
    pub fn new(dev: &'a Dev) -> Self {
        Self {
            dev,
            left: MOST,
            hits: BTreeMap::new(),
            folders: BTreeSet::new(),
            stopped: None,
            exhausted: false,
            start: PathBuf::new(),
            missed: Vec::new(),
        }
    }

    /// Adds what matches a shell pattern.
    pub fn glob(&mut self, glob: &Glob) -> Result<(), String> {
        let (start, parts) = parts(glob)?;
        self.start.clone_from(&start);
        self.missed.clear();
        self.descend(&start, &parts, 0);
        Ok(())
    }

    fn hit(&mut self, path: PathBuf) {
        let within = self.hits.entry(path).or_insert_with(|| self.start.clone());
        // Of two patterns, the one that looks further.
        if within.starts_with(&self.start) {
            within.clone_from(&self.start);
        }
    }

    fn descend(&mut self, folder: &Path, parts: &[Part], depth: usize) {
        let Some((first, rest)) = parts.split_first() else { return };
        self.folders.insert(folder.to_owned());
        match first {
            Part::Name(name) => {
                let path = folder.join(name);
                let there = self.is_there(folder, name);
                if !there {
                    self.miss(folder, name);
                }
                if !rest.is_empty() {
                    self.descend(&path, rest, depth);
                } else if there {
                    self.hit(path);
                }
            }
            Part::Matches(glob) => {
                let entries = self.entries(folder);
                if !entries.iter().any(|entry| glob.matches(&entry.name)) {
                    self.miss(folder, glob.as_str());
                }
                for entry in entries.into_iter().filter(|entry| glob.matches(&entry.name)) {
                    if rest.is_empty() {
                        self.hit(entry.path);
                    } else if entry.folder || entry.link {
                        self.descend(&entry.path, rest, depth);
                    }
                }
            }
            Part::AnyFolders => self.descend_any(folder, parts, rest, depth),
        }
    }

    /// `**`: the rest here, and in every folder below; symlinks are not followed, since they lead back.
    fn descend_any(&mut self, folder: &Path, parts: &[Part], rest: &[Part], depth: usize) {
        self.descend(folder, rest, depth);
        for entry in self.entries(folder) {
            if entry.folder && depth >= DEEPEST {
                self.stop(format!("stopped after {DEEPEST} folders, at `{}`", super::shown(&entry.path)));
            } else if entry.folder && self.is_trusted(&entry.path) {
                self.descend(&entry.path, parts, depth + 1);
            } else if rest.is_empty() {
                self.hit(entry.path);
            }
        }
    }

    /// Adds what matches a regular expression below a folder, the shallow ones first.
    pub fn regex(&mut self, pattern: &Pattern, below: &Path) {
        self.missed.clear();
        let name = pattern.as_str().rsplit('/').next().unwrap_or_default();
        tree(below).unwrap_or(below).clone_into(&mut self.start);
        let mut next = VecDeque::from([(below.to_owned(), 0)]);
        while let Some((folder, depth)) = next.pop_front() {
            self.folders.insert(folder.clone());
            self.miss(&folder, name);
            for entry in self.entries(&folder) {
                if pattern.matches(&entry.path.to_string_lossy()) {
                    self.hit(entry.path.clone());
                }
                if !entry.folder || !self.is_trusted(&entry.path) {
                    continue;
                }
                if depth >= DEEPEST {
                    self.stop(format!("stopped after {DEEPEST} folders, at `{}`", super::shown(&entry.path)));
                } else {
                    next.push_back((entry.path, depth + 1));
                }
            }
        }
    }

    /// Whether a file is in a folder, which must not lead out of /dev either.
    fn is_there(&self, folder: &Path, name: &str) -> bool {
        let folder = self.dev.seen_behind(folder);
        folder.is_some_and(|folder| fs::symlink_metadata(folder.join(name)).is_ok())
    }

    /// /dev/shm and /dev/mqueue are everybody's: no devices are there, and files without end can be.
    fn is_trusted(&self, folder: &Path) -> bool {
        let found = fs::symlink_metadata(self.dev.seen(folder));
        !self.dev.holds(folder) || found.is_ok_and(|found| found.permissions().mode() & 0o002 == 0)
    }

    fn entries(&mut self, folder: &Path) -> Vec<Entry> {
        // A symlink that leads out of /dev has nothing behind it here.
        let Some(seen) = self.dev.seen_behind(folder) else { return Vec::new() };
        let mut entries = Vec::new();
        for entry in fs::read_dir(seen).into_iter().flatten().flatten() {
            if self.left == 0 {
                self.exhausted = true;
                self.stop(format!("stopped after {MOST} files, in `{}`", super::shown(folder)));
                break;
            }
            self.left -= 1;
            let Ok(kind) = entry.file_type() else { continue };
            let name = entry.file_name();
            entries.push(Entry {
                path: folder.join(&name),
                name: name.to_string_lossy().into_owned(),
                folder: kind.is_dir(),
                link: kind.is_symlink(),
            });
        }
        entries
    }

    fn stop(&mut self, why: String) {
        self.stopped.get_or_insert(why);
    }

    fn miss(&mut self, folder: &Path, name: &str) {
        if self.missed.len() < MOST_MISSED {
            self.missed.push((folder.to_owned(), name.to_owned()));
        }
    }

    /// Names that a person may have meant by the last pattern, which matched nothing; first those that it matches
    /// `in_part`. It is looked for them with less patience, and without a word of where that ended.
    pub fn nearest(&self, in_part: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
        let mut walk = Walk { left: MOST_COMPARED, ..Walk::new(self.dev) };
        let mut near = Vec::new();
        for (folder, name) in &self.missed {
            let word = word(name);
            for entry in walk.entries(folder) {
                let likeness = strsim::jaro_winkler(&word, &entry.name.to_ascii_lowercase());
                let likeness = if in_part(&entry.path) { 1.0 } else { likeness };
                near.push((likeness, entry.path));
            }
        }
        near.retain(|(likeness, _)| *likeness > ALIKE);
        near.sort_by(|a: &(f64, PathBuf), b| b.0.total_cmp(&a.0).then_with(|| by_name(&a.1, &b.1)));
        near.into_iter().take(NEAREST).map(|(_, path)| path).collect()
    }
}

/// What of a pattern is letters and digits, without what stands for any of several.
fn word(pattern: &str) -> String {
    let mut word = String::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '[' => letters.by_ref().take_while(|c| *c != ']').for_each(drop),
            '{' => letters.by_ref().take_while(|c| *c != '}').for_each(drop),
            '\\' => drop(letters.next()),
            _ if letter.is_alphanumeric() => word.push(letter.to_ascii_lowercase()),
            _ => {}
        }
    }
    word
}

/// Whether a text is a pattern, and not the name of one file.
pub fn has_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The kernel's own tree that a path is in: whoever else writes there may write everywhere.
fn tree(path: &Path) -> Option<&'static Path> {
    ["/dev", "/sys"].into_iter().map(Path::new).find(|tree| path.starts_with(tree))
}

/// Where the walk begins, and the names from there: /dev or /sys, and elsewhere the folder before the first pattern.
fn parts(glob: &Glob) -> Result<(PathBuf, Vec<Part>), String> {
    let text = glob.as_str();
    let Some(rest) = text.strip_prefix('/') else {
        return Err("is no whole path: write `/dev/…`".to_owned());
    };
    let names = rest.split('/').filter(|name| !name.is_empty());
    let parts: Result<Vec<Part>, String> = names.map(part).collect();
    let mut parts = parts?;
    if parts.is_empty() {
        return Err("names no file".to_owned());
    }
    let mut start = PathBuf::from("/");
    let mut passed = 0;
    while let Some([Part::Name(name), _, ..]) = parts.get(passed..)
        && tree(&start).is_none()
    {
        start.push(name);
        passed += 1;
    }
    parts.drain(..passed);
    Ok((start, parts))
}

/// Where the walk to a file by its whole path begins.
pub fn start(path: &Path) -> &Path {
    tree(path).or_else(|| path.parent()).unwrap_or(path)
}

fn part(name: &str) -> Result<Part, String> {
    if name == "**" {
        return Ok(Part::AnyFolders);
    }
    if has_pattern(name) {
        return name.parse().map(Part::Matches);
    }
    match Path::new(name).components().next() {
        Some(Component::Normal(_)) => Ok(Part::Name(name.to_owned())),
        _ => Err(format!("has `{name}` in it")),
    }
}
