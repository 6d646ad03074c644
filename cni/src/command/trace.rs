//! `trace`: what the log has of a pod, and what is there of it now.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node::log::trace::{self, Found, Wanted};
use node::log::{self, Place};
use node::namespace::Namespace;
use node::{Error, Kind, Result, store};
use serde_json::{Value, json};

use super::ipam::ago;
use crate::apply::Hands;
use crate::attachment::Attachment;
use crate::config::log::{FILE, NetLog};
use crate::ipam::lease;
use crate::kernel::link;
use crate::owner::Owner;
use crate::plan::step::Place as Where;
use crate::role::OWN;
use crate::state::State;

/// Where the networks' configurations lie by default.
const CONF_DIR: &str = "/etc/cni/net.d";

/// What to look for, and where.
#[derive(Debug, clap::Args)]
pub struct Trace {
    /// `namespace/name` or name of the pod, its uid, container id (or the start of it), link or address.
    pod: String,
    /// Read this log, and not those that the configurations name. May be given several times.
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Only what is not older, such as `10m`, `2h` or `3days`.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Where the networks' configurations lie, which name the logs.
    #[arg(long, value_name = "DIR", default_value = CONF_DIR)]
    conf_dir: PathBuf,
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    word: String,
    found: Found,
    now: Vec<Now>,
}

/// What is there of an attachment.
#[derive(Debug)]
struct Now {
    owner: Owner,
    /// Its records: the interface's own, and those of plugins that were chained to it.
    records: Vec<Attachment>,
    /// Addresses that the record names and no lease holds.
    lost: Vec<IpAddr>,
    /// Whether its host end is there.
    link: bool,
}

impl Trace {
    /// Reads the logs and looks at what is there.
    pub fn run(&self) -> Result<Report> {
        if self.pod.trim().is_empty() {
            return Err(Error::new(Kind::Usage, "trace a pod without a name")
                .hint("give `namespace/name`, a container id, a link or an address"));
        }
        let since = self.since.and_then(|ago| SystemTime::now().checked_sub(ago));
        let wanted = Wanted { word: self.pod.clone(), since };
        let found = trace::find(&self.logs()?, OWN, &wanted);
        let now = now(&self.pod, &found)?;
        Ok(Report { word: self.pod.clone(), found, now })
    }

    fn logs(&self) -> Result<Vec<Place>> {
        if !self.file.is_empty() {
            return Ok(self.file.iter().cloned().map(Place::File).collect());
        }
        named(&self.conf_dir, &Path::new(log::FOLDER).join(FILE))
    }
}

/// The logs that the configurations in `folder` name; each once. Where there is none, and for plugins that name
/// none, it is the usual one. A DEL that came without its configuration is there as well, whatever that names.
fn named(folder: &Path, usual: &Path) -> Result<Vec<Place>> {
    let mut names = store::names(folder)?;
    names.sort_unstable();
    let mut logs: Vec<Place> = Vec::new();
    let mut entries = 0;
    for name in names.iter().filter(|n| [".conf", ".conflist", ".json"].iter().any(|e| n.ends_with(e))) {
        let path = folder.join(name);
        // What a runtime cannot read, it does not use, and one file of somebody keeps no other from being read.
        let Ok(bytes) = store::read_plain(&path, store::LARGEST) else { continue };
        let Ok(list) = serde_json::from_str::<Value>(&String::from_utf8_lossy(&bytes)) else { continue };
        let plugins = list.get("plugins").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![list]);
        for plugin in plugins {
            entries += 1;
            let log = NetLog::salvaged(plugin.to_string().as_bytes()).log.place;
            if !logs.contains(&log) {
                logs.push(log);
            }
        }
    }
    let is_there = [usual, &log::rotated(usual)].iter().any(|path| path.symlink_metadata().is_ok());
    let usual = Place::File(usual.to_owned());
    if (entries == 0 || is_there) && !logs.contains(&usual) {
        logs.push(usual);
    }
    Ok(logs)
}

/// What is there of the attachments that the lines name, and of those that are called `word`.
fn now(word: &str, found: &Found) -> Result<Vec<Now>> {
    let state = State::open()?;
    let mut records = Vec::new();
    for folder in state.everywhere()? {
        records.extend(folder.all()?);
    }
    let text = |line: &Value, key: &str| line.get(key).and_then(Value::as_str).map(str::to_owned);
    let lines = found.lines.iter().filter_map(|line| {
        Some(Owner { container_id: text(line, "containerID")?, ifname: text(line, "ifname")? })
    });
    let called = records.iter().filter(|r| is_called(r, word)).map(|r| r.owner.clone());
    // `lo` is the kernel's, and nothing of it is left or lost.
    let owners: BTreeSet<Owner> = lines.chain(called).filter(|o| o.ifname != "lo").collect();
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    owners.into_iter().map(|owner| of(owner, &records, &mut hands)).collect()
}

fn of(owner: Owner, records: &[Attachment], hands: &mut Hands) -> Result<Now> {
    let records: Vec<Attachment> = records.iter().filter(|r| r.owner == owner).cloned().collect();
    let host_end = records.iter().find_map(Attachment::host_end).unwrap_or_else(|| owner.host_ifname());
    let link = link::find(hands.socket(Where::Host)?, &host_end)?.is_some();
    let mut lost = Vec::new();
    for record in &records {
        let Some(folder) = &record.leases else { continue };
        let leases = lease::list(folder)?;
        let held = |a: &&IpAddr| leases.iter().any(|l| l.address == **a && l.owner.as_ref() == Some(&owner));
        lost.extend(record.addresses.iter().filter(|a| !held(a)));
    }
    Ok(Now { owner, records, lost, link })
}

fn is_called(record: &Attachment, word: &str) -> bool {
    let name = |pod: &String| pod == word || pod.split_once('/').is_some_and(|(_, name)| name == word);
    let address = word.parse::<IpAddr>();
    record.pod.as_ref().is_some_and(name)
        || record.owner.container_id == word
        || record.host_end().as_deref() == Some(word)
        || address.is_ok_and(|a| record.addresses.contains(&a))
}

impl Report {
    /// Whether anything was found.
    pub fn is_fine(&self) -> bool {
        !self.found.lines.is_empty() || !self.now.is_empty()
    }

    /// `{lines, sources, now: [{containerID, ifname, pod, records, addresses, lostLeases, link}]}`.
    pub fn to_json(&self) -> Value {
        let each = self.now.iter().map(|now| {
            json!({
                "containerID": now.owner.container_id,
                "ifname": now.owner.ifname,
                "pod": now.records.iter().find_map(|r| r.pod.clone()),
                "records": now.records.iter().map(plugin).collect::<Vec<_>>(),
                "addresses": now.addresses(),
                "lostLeases": now.lost,
                "link": now.link,
            })
        });
        self.found.to_json(&each.collect::<Vec<_>>())
    }

    /// The lines in the order of their time, and what is there now.
    pub fn to_table(&self) -> String {
        let mut out = self.found.to_text();
        if self.found.lines.is_empty() {
            out.push_str(&self.found.nothing(&self.word));
        } else {
            for source in &self.found.sources {
                if let Err(why) = &source.read {
                    // Writing to a String cannot fail.
                    let _ = writeln!(out, "{}: {why}", source.name);
                }
            }
        }
        for now in &self.now {
            let _ = writeln!(out, "now: {}: {}", now.owner, now.words());
        }
        out
    }
}

impl Now {
    fn addresses(&self) -> Vec<String> {
        self.records.iter().flat_map(|r| &r.addresses).map(ToString::to_string).collect()
    }

    fn words(&self) -> String {
        let Some(first) = self.records.first() else {
            let link = self.owner.host_ifname();
            let end =
                if self.link { format!("but its link `{link}` is there") } else { "nothing is left".into() };
            return format!("no record, {end}");
        };
        let since = ago(UNIX_EPOCH + Duration::from_secs(first.since));
        let plugins: Vec<&str> = self.records.iter().map(plugin).collect();
        let mut words = vec![format!("attached {since} ({})", plugins.join(", "))];
        words.extend(Some(self.addresses().join(" ")).filter(|a| !a.is_empty()));
        for address in &self.lost {
            words.push(format!("its lease of {address} is GONE"));
        }
        if let Some(end) = first.host_end() {
            words.push(format!("its link `{end}` is {}", if self.link { "there" } else { "GONE" }));
        }
        words.join(", ")
    }
}

fn plugin(record: &Attachment) -> &str {
    record.chained.as_deref().unwrap_or(OWN)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_logs_are_those_that_the_configurations_name() {
        let folder = std::env::temp_dir().join(format!("nodeplug-trace-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (usual, own) = (NetLog::default().log.place, folder.join("own.log"));
        assert_eq!(named(&folder.join("none"), &own).unwrap(), [Place::File(own.clone())]);
        fs::write(
            folder.join("10-a.conflist"),
            r#"{"plugins": [{"logFile": "/a"}, {"logFile": "journal"}]}"#,
        )
        .unwrap();
        fs::write(folder.join("20-b.conf"), r#"{"logFile": "/a"}"#).unwrap();
        fs::write(folder.join("30-c.conflist"), r#"{"plugins": [{}, {"logFile": "none"}]}"#).unwrap();
        // What is no configuration keeps nobody from reading the others.
        fs::create_dir(folder.join("05-x.conf")).unwrap();
        fs::write(folder.join("06-latin.conf"), b"{\"name\": \"caf\xe9\", \"logFile\": \"/l\"}").unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", folder.join("07-dangling.conf")).unwrap();
        nix::unistd::mkfifo(&folder.join("08-fifo.conf"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(folder.join("40-d.conflist"), "{").unwrap();
        fs::write(folder.join("50-e"), r#"{"logFile": "/e"}"#).unwrap();
        let found = named(&folder, &own).unwrap();
        // A DEL without configuration has its line in the usual one, of which a kill may have left the older file.
        fs::write(folder.join("own.log.1"), "").unwrap();
        let more = named(&folder, &own).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let expect =
            [Place::File("/l".into()), Place::File("/a".into()), Place::Journal, usual, Place::Nowhere];
        assert_eq!(found, expect);
        assert_eq!(more, [&expect[..], &[Place::File(own)]].concat());
    }
}
