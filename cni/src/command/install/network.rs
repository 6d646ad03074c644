//! The conflist in the runtime's folder: what has its name, the new one by rename, and what the runtime makes of it.

use std::fs;
use std::path::{Path, PathBuf};

use node::install::{self, Folder};
use node::{Context, Error, Kind, Result, store};

use super::conflist::{self, Network};
use super::place::{self, Place};
use super::record::{Record, hash};
use super::report::{Conflist, Outcome};
use crate::runtime::Runtime;
use crate::runtime::lists::{self, Pick};

/// Everybody may read a network.
const MODE: u32 = 0o644;

/// A conflist that is to be, or is.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub network: &'a Network,
    pub text: String,
    /// As the node has it.
    pub path: PathBuf,
}

/// What an install would do to the file. [`Kind::Conflict`] where it is somebody else's, or was changed, without
/// `force`.
pub(super) fn plan(place: &Place, wanted: &Wanted<'_>, record: &Record, force: bool) -> Result<Outcome> {
    let here = place.here(&wanted.path);
    let Some(there) = store::read(&here)? else { return Ok(Outcome::Installed) };
    if there == wanted.text.as_bytes() {
        return Ok(Outcome::Unchanged);
    }
    if record.wrote(&wanted.path, &there) {
        return Ok(Outcome::Upgraded);
    }
    if force {
        return Ok(Outcome::Replaced);
    }
    let (why, hint) = if record.conflists.contains_key(&wanted.path) {
        ("it was changed since it was made", "to keep it leave the subnets out; `--force` replaces it")
    } else {
        ("it is not this program's", "give another name by `--conflist`, or replace it by `--force`")
    };
    Err(Error::caused(Kind::Conflict, format!("write `{}`", here.display()), why).hint(hint))
}

/// Writes the conflist, as `plan` said, and takes an earlier one of another name away.
pub(super) fn perform(
    place: &Place,
    wanted: &Wanted<'_>,
    outcome: Outcome,
    record: &mut Record,
) -> Result<Vec<String>> {
    let here = place.here(&wanted.path);
    let new = hash(wanted.text.as_bytes());
    let known = record.conflists.get(&wanted.path).is_some_and(|hashes| *hashes == [new.clone()]);
    if outcome == Outcome::Unchanged && known && record.conflists.len() == 1 {
        return Ok(Vec::new());
    }
    record.made.extend(place::make(&place.root, &place.conf, "conf_dir")?);
    let folder = Folder::lock(&place.here(&place.conf))?;
    // Ours by either hash until it is known which one is there.
    record.conflists.entry(wanted.path.clone()).or_default().push(new.clone());
    record.save(&place.root)?;
    let mut notes = Vec::new();
    if outcome != Outcome::Unchanged {
        if outcome == Outcome::Replaced {
            notes.push(kept(&here)?);
        }
        let hidden = install::draft(&here, wanted.text.as_bytes(), MODE)?;
        let text = fs::read_to_string(&hidden).doing(Kind::Io, || format!("read `{}`", hidden.display()))?;
        conflist::check(&text)?;
        install::publish(&here)?;
    }
    record.conflists.insert(wanted.path.clone(), vec![new]);
    let earlier: Vec<PathBuf> =
        record.conflists.keys().filter(|path| **path != wanted.path).cloned().collect();
    for path in earlier {
        notes.extend(take_away(place, &path, record)?);
    }
    folder.sync()?;
    record.save(&place.root)?;
    Ok(notes)
}

/// Removes a conflist that the record knows, unless somebody changed it; the answer says so then. The record is the
/// caller's to save.
pub(super) fn take_away(place: &Place, path: &Path, record: &mut Record) -> Result<Option<String>> {
    let here = place.here(path);
    let ours = is_ours(place, path, record)?;
    store::remove(&store::beside(&here))?;
    if ours {
        store::remove(&here)?;
        if let Some(folder) = here.parent().filter(|folder| folder.is_dir()) {
            fs::File::open(folder)
                .and_then(|folder| folder.sync_all())
                .doing(Kind::Io, || format!("sync the folder `{}`", folder.display()))?;
        }
    }
    record.conflists.remove(path);
    Ok((!ours).then(|| changed(&here)))
}

/// What is said of a file that stays.
pub(super) fn changed(here: &Path) -> String {
    format!("`{}` was changed since it was made, and stays", here.display())
}

/// Whether the file is as an install left it, or gone.
pub(super) fn is_ours(place: &Place, path: &Path, record: &Record) -> Result<bool> {
    Ok(store::read(&place.here(path))?.is_none_or(|bytes| record.wrote(path, &bytes)))
}

/// Keeps what has the name under one that no runtime loads.
fn kept(here: &Path) -> Result<String> {
    let name = here.file_name().unwrap_or_default().to_string_lossy();
    let before = here.with_file_name(format!("{name}.before"));
    let doing = || format!("keep `{}` as `{}`", here.display(), before.display());
    store::remove(&before)?;
    fs::copy(here, &before).doing(Kind::Io, doing)?;
    Ok(format!("what was there is kept as `{}`", before.display()))
}

/// What the report says of the file.
pub(super) fn row(place: &Place, wanted: &Wanted<'_>, outcome: Outcome) -> Conflist {
    Conflist {
        path: place.here(&wanted.path),
        outcome,
        network: wanted.network.name.clone(),
        subnets: wanted.network.subnets.iter().map(ToString::to_string).collect(),
        version: wanted.network.version.as_str(),
        text: wanted.text.clone(),
    }
}

/// What the runtime will make of the folder with the file in it.
pub(super) fn remarks(place: &Place, wanted: &Wanted<'_>, outcome: Outcome) -> Result<Vec<String>> {
    let folder = place.here(&place.conf);
    let own = wanted.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut networks = lists::list(&folder)?;
    networks.retain(|network| network.file != own);
    let runtime = place.runtime.clone().unwrap_or_else(Runtime::unknown);
    let (mut notes, is_new) = (Vec::new(), outcome == Outcome::Installed);
    if let Some(before) = runtime.pick(&networks).taken.first().filter(|n| is_new && n.file > own) {
        notes.push(format!(
            "until now {} took the network `{}` of `{}`: pods that run keep it until they are made anew",
            runtime.who, before.name, before.file
        ));
    }
    networks.push(lists::parse(own.clone(), wanted.text.as_bytes()));
    networks.sort_by(|one, other| one.file.cmp(&other.file));
    notes.extend(instead(&runtime, &runtime.pick(&networks), &own, &place.conf));
    Ok(notes)
}

/// Why pods get another network than the one of `own`, or one more.
fn instead(runtime: &Runtime, pick: &Pick<'_>, own: &str, conf: &Path) -> Vec<String> {
    let who = &runtime.who;
    let away = |file: &str| format!("mv {0}/{file} {0}/{file}.off", conf.display());
    if let Some(broken) = pick.stopped_by {
        let why = broken.broken.as_deref().unwrap_or_default();
        return vec![format!(
            "{who} stops at `{}`, which {why}, and takes no network: {}",
            broken.file,
            away(&broken.file)
        )];
    }
    if !pick.taken.iter().any(|network| network.file == own) {
        if let Some(name) = &runtime.default_network {
            return vec![format!(
                "{who} is told to take the network `{name}`: install with `--network {name}`"
            )];
        }
        return pick.taken.first().map_or_else(Vec::new, |first| {
            vec![format!(
                "{who} takes `{}` (network `{}`), which comes first by name: {}",
                first.file,
                first.name,
                away(&first.file)
            )]
        });
    }
    let more: Vec<String> =
        pick.taken.iter().filter(|n| n.file != own).map(|n| format!("`{}`", n.file)).collect();
    if more.is_empty() {
        return Vec::new();
    }
    vec![format!("{who} gives each pod {} as well, by its max_conf_num", more.join(" and "))]
}
