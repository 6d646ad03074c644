//! A program that serves a file system, by a profile of the node's policy: a pod's author names no program, no
//! argument and no file of the node.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use node::{Error, Kind, Result};

use super::{Asked, Common, Seen, Wish};
use crate::apply::Hands;
use crate::options::mount_options::{Attr, Fs};
use crate::options::{Reader, quoted, template};
use crate::plan::{Limits, Part, Service, Setting, Step, Words};
use crate::policy::Profile;
use crate::policy::argument::{self, Piece};
use crate::record::Record;

/// Where the kubelet has the volumes of all pods, below its root.
const PODS: &str = "pods";

/// A profile with its options.
#[derive(Debug)]
struct Fuse {
    common: Common,
    service: Service,
    attributes: BTreeSet<Attr>,
}

/// Reads the options `profile` and `source`, and those of the profile.
pub fn read(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Box<dyn Wish>> {
    Ok(Box::new(fuse(asked, reader)?))
}

fn fuse(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Fuse> {
    let common = asked.common.clone();
    let name = reader.text("profile");
    let Some(name) = reader.required("profile", name, "the name of a profile of the node's policy") else {
        return Err(Error::caused(Kind::Config, "choose a profile", "`profile` is missing")
            .hint("set it to one that the node's policy has below `backends: {fuse: {profiles: …}}`"));
    };
    let profile = asked.policy.fuse(&asked.pod.namespace, name)?;
    for key in ["mode", "uid", "gid", "fsType"].into_iter().filter(|key| asked.options.get(key).is_some()) {
        reader.problem(key, "is nothing that a profile takes: its program says whose its files are");
    }
    let source = source(profile, reader)?;
    let values = values(profile, reader);
    let more = reader.mount_options("mountOptions", Fs::Fuse).unwrap_or_default();
    let given = Given { asked, source, values };
    let arguments = profile.arguments.iter().map(|text| given.words(text)).collect::<Result<Vec<_>>>()?;
    let environment = profile.environment.iter().map(|(name, text)| Ok((name.clone(), given.words(text)?)));
    let environment = environment.collect::<Result<Vec<_>>>()?;
    let secrets = secrets(asked, &arguments, &environment)?;
    let settings = settings(profile, &common, more.options.iter().map(Setting::from));
    let service = Service {
        volume: asked.target.id(),
        program: profile.program.clone(),
        arguments,
        environment,
        secrets,
        handover: profile.handover,
        source: source.unwrap_or(name).to_owned(),
        settings,
        others: asked.target.root().join(PODS),
    };
    Ok(Fuse { common, service, attributes: more.attributes })
}

/// The option `source`, where the profile has a use for it.
fn source<'o>(profile: &Profile, reader: &mut Reader<'o>) -> Result<Option<&'o str>> {
    let source = reader.text("source");
    let texts = profile.arguments.iter().chain(profile.environment.values());
    let mut pieces = texts.flat_map(|text| argument::pieces(text).unwrap_or_default());
    if !pieces.any(|piece| piece == Piece::Source) {
        if source.is_some() {
            reader.problem("source", "is nothing that this profile has a use for; leave it out");
        }
        return Ok(None);
    }
    let source = reader.required("source", source, "what the profile's program is to serve");
    source.map_or(Ok(()), |source| profile.source(source))?;
    Ok(source)
}

/// The values of the profile's own options.
fn values(profile: &Profile, reader: &mut Reader<'_>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (key, option) in &profile.options {
        match option.value(reader.text(key)) {
            Ok(value) => drop(values.insert(key.clone(), value)),
            Err(why) => reader.problem(key, why),
        }
    }
    values
}

/// What a profile's variables stand for.
struct Given<'g> {
    asked: &'g Asked<'g>,
    source: Option<&'g str>,
    values: BTreeMap<String, String>,
}

impl Given<'_> {
    /// A text of the profile with all that is known of it. What is missing has been noted, and keeps the
    /// volume from being made.
    fn words(&self, text: &str) -> Result<Words> {
        let doing = || format!("expand {} of the profile", quoted(text));
        let pieces = argument::pieces(text).map_err(|why| Error::caused(Kind::Config, doing(), why))?;
        let parts = pieces.into_iter().map(|piece| {
            Ok(match piece {
                Piece::Text(text) => Part::Text(text.to_owned()),
                Piece::Mountpoint => Part::Mountpoint,
                Piece::Secret(key) => Part::Secret(key.to_owned()),
                Piece::Source => Part::Text(self.source.unwrap_or_default().to_owned()),
                Piece::Option(key) => Part::Text(self.values.get(key).cloned().unwrap_or_default()),
                Piece::FsGroup => Part::Text(self.asked.common.fs_group.unwrap_or(0).to_string()),
                Piece::Pod(name) => {
                    let value = template::value(name, &self.asked.pod, self.asked.options.volume());
                    Part::Text(value.map_err(|why| Error::caused(Kind::Config, doing(), why))?.to_owned())
                }
            })
        });
        parts.collect::<Result<_>>().map(Words)
    }
}

/// The secrets that the texts speak of, each of which the volume's Secret has to have.
fn secrets(asked: &Asked<'_>, arguments: &[Words], environment: &[(String, Words)]) -> Result<Vec<String>> {
    let texts = arguments.iter().chain(environment.iter().map(|(_, words)| words));
    let wanted: BTreeSet<&String> = texts
        .flat_map(|words| &words.0)
        .filter_map(|part| if let Part::Secret(key) = part { Some(key) } else { None })
        .collect();
    let there = asked.options.secrets()?;
    match wanted.iter().find(|key| there.get(key).is_none()) {
        None => Ok(wanted.into_iter().cloned().collect()),
        Some(missing) => Err(Error::caused(
            Kind::Config,
            "hand the program its secrets",
            format!("the volume's Secret has no key `{missing}`"),
        )
        .hint("put it into the Secret that `secretRef` names, whose type has to be the driver's name")),
    }
}

/// What the kernel is told of a mount that is made here.
fn settings(profile: &Profile, common: &Common, more: impl Iterator<Item = Setting>) -> Vec<Setting> {
    let kind = profile.program.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut settings = vec![
        Setting::text("rootmode", "40000"),
        Setting::text("user_id", "0"),
        Setting::text("group_id", "0"),
        // The pod's users are others than the program's.
        Setting::flag("allow_other"),
    ];
    settings.extend(kind.map(|kind| Setting::text("subtype", kind)));
    settings.extend(profile.default_permissions.then(|| Setting::flag("default_permissions")));
    settings.extend(common.selinux.iter().map(|label| Setting::text("context", label.as_str())));
    let known: BTreeSet<String> = settings.iter().map(|setting| setting.name.clone()).collect();
    settings.extend(more.filter(|setting| !known.contains(&setting.name)));
    settings
}

impl Wish for Fuse {
    fn observe(self: Box<Self>, _: &mut Hands<'_>) -> Result<Box<dyn Seen>> {
        Ok(self)
    }
}

impl Seen for Fuse {
    fn describe(&self, record: &mut Record) {
        record.source.clone_from(&self.service.source);
        record.daemon = true;
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps =
            vec![Step::Stop(self.service.volume.clone()), Step::Serve(Box::new(self.service.clone()))];
        // Nothing unless the pod asks: behind the program there is somebody else's storage.
        steps.extend(self.common.give(None).map(|step| match step {
            Step::Give { gid, scope } => Step::GiveApart { gid, scope },
            other => other,
        }));
        steps
    }

    fn limits(&self, limits: Limits) -> (Limits, bool) {
        (limits.with(&self.attributes), false)
    }
}
