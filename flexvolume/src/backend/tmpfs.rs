//! Memory with a size. Secrets become files in it before the pod sees it.

use std::collections::BTreeSet;

use node::Result;

use super::common::GroupPolicy;
use super::{Asked, Seen, Wish};
use crate::apply::Hands;
use crate::options::mount_options::{Attr, Fs};
use crate::options::{Quantity, Reader};
use crate::plan::{Limits, Setting, Source, Step};
use crate::record::Record;

/// A folder that its owner and the pod's group may use.
const MODE: u32 = 0o770;
/// New files of a folder with this bit belong to the folder's group.
const SETGID: u32 = 0o2000;

/// A tmpfs that is allowed.
#[derive(Debug)]
struct Tmpfs {
    size: u64,
    settings: Vec<Setting>,
    attributes: BTreeSet<Attr>,
    keys: Vec<String>,
    file_mode: u32,
    root: Root,
}

/// Owner of the root folder.
#[derive(Debug, Clone, Copy)]
struct Root {
    uid: u32,
    gid: u32,
}

/// Reads the options `size`, `inodes`, `huge`, `noswap`, `populate`, `fileMode`.
pub fn read(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Box<dyn Wish>> {
    let policy = asked.policy.tmpfs(&asked.pod.namespace)?;
    let common = asked.common.clone();
    let size = reader.quantity("size");
    let size = reader.allowed(policy.size(size)).unwrap_or_default();
    let inodes = reader.number("inodes", 1..=u64::from(u32::MAX));
    let inodes = reader.allowed(policy.inodes(inodes)).unwrap_or_default();
    let huge = reader.choice("huge", &["never", "always", "within_size", "advise"].map(|h| (h, h)));
    let noswap = reader.flag("noswap").unwrap_or(false);
    let secrets = reader.allowed(asked.options.secrets()).unwrap_or_default();
    let names: Vec<&str> = secrets.names().collect();
    let keys = populated(reader, &names);
    let group = common.fs_group.filter(|_| common.group_policy != Some(GroupPolicy::None));
    let file_mode = reader.mode("fileMode").unwrap_or(if group.is_some() { 0o440 } else { 0o400 });
    let mode = common.mode.unwrap_or(MODE) | if group.is_some() { SETGID } else { 0 };
    let root = Root { uid: common.uid.unwrap_or(0), gid: common.gid.or(group).unwrap_or(0) };
    let mut settings = vec![
        Setting::text("size", size.to_string()),
        Setting::text("nr_inodes", inodes.to_string()),
        Setting::text("mode", format!("{mode:o}")),
        Setting::text("uid", root.uid.to_string()),
        Setting::text("gid", root.gid.to_string()),
    ];
    settings.extend(huge.map(|h| Setting::text("huge", h)));
    settings.extend(noswap.then(|| Setting::flag("noswap")));
    settings.extend(common.selinux.iter().map(|label| Setting::text("context", label.as_str())));
    let extra = reader.mount_options("mountOptions", Fs::Tmpfs).unwrap_or_default();
    settings.extend(extra.options.iter().map(Setting::from));
    Ok(Box::new(Tmpfs { size, settings, attributes: extra.attributes, keys, file_mode, root }))
}

/// The secrets that become files: all, unless `populate` names some or says `false`.
fn populated(reader: &mut Reader<'_>, names: &[&str]) -> Vec<String> {
    let Some(wanted) = reader.list("populate") else {
        return names.iter().map(|n| (*n).to_owned()).collect();
    };
    match wanted.as_slice() {
        ["true"] => names.iter().map(|n| (*n).to_owned()).collect(),
        ["false"] => Vec::new(),
        some => {
            for missing in some.iter().filter(|key| !names.contains(key)) {
                reader.problem("populate", format!("names `{missing}`, which the Secret does not have"));
            }
            some.iter().map(|key| (*key).to_owned()).collect()
        }
    }
}

impl Wish for Tmpfs {
    fn observe(self: Box<Self>, _: &mut Hands<'_>) -> Result<Box<dyn Seen>> {
        Ok(self)
    }
}

impl Seen for Tmpfs {
    fn describe(&self, record: &mut Record) {
        record.source = format!("{} of memory", Quantity::of(self.size));
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Make {
            kind: "tmpfs",
            source: Source::Named("tmpfs".to_owned()),
            settings: self.settings.clone(),
            read_only: false,
        }];
        if !self.keys.is_empty() {
            let owner = (self.root.uid, self.root.gid);
            steps.push(Step::Populate { keys: self.keys.clone(), mode: self.file_mode, owner });
        }
        steps
    }

    fn limits(&self, limits: Limits) -> (Limits, bool) {
        (limits.with(&self.attributes), false)
    }
}
