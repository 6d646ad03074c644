//! One line for each mount, unmount and expandfs, and for every other call that went wrong: which volume of which
//! pod, how it ended, how long it took and where the time went. Never an option, which may be
//! secret, but for the value that an error quotes.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use node::Error;
use node::log::{Context, Line, Log};
use node::times;

use crate::policy::{LOG, Policy};
use crate::record::Record;
use crate::request::{Call, Request};

/// The program's name in the journal.
pub const PROGRAM: &str = "nodeplug-flexvolume";

/// A path in a line.
const LONGEST_PATH: usize = 512;

/// What a line tells of a call beside its end. It grows as the call is served.
#[derive(Debug, Default)]
pub struct Entry {
    verb: String,
    /// Whether it is news also where it went well.
    is_kept: bool,
    /// Where the policy, as this call read it, has the log.
    pub log: Option<Log>,
    /// `namespace/name`.
    pub pod: Option<String>,
    uid: Option<String>,
    driver: Option<String>,
    volume: Option<String>,
    target: Option<String>,
    fs_type: Option<String>,
    /// The backend's name.
    pub backend: Option<String>,
}

impl Entry {
    /// That of a call whose words could not all be read; `verb` is the one of them that tells what was asked for.
    pub fn unread(verb: Option<&[u8]>) -> Self {
        let verb = String::from_utf8_lossy(verb.unwrap_or_default()).into_owned();
        Self { verb, ..Self::default() }
    }

    /// That of a call.
    pub fn of(request: &Request) -> Self {
        let mut entry = Self { verb: request.call.word().to_owned(), ..Self::default() };
        let (folder, options) = match &request.call {
            Call::Mount(folder, options) => (folder, Some(options)),
            Call::Unmount(folder) => (folder, None),
            Call::ExpandFs { options, target, .. } => (target, Some(options)),
            _ => return entry,
        };
        entry.is_kept = true;
        entry.placed(folder);
        if let Some(options) = options {
            let pod = options.pod();
            entry.pod = Some(format!("{}/{}", pod.namespace, pod.name)).filter(|pod| pod.len() > 1);
            entry.uid = Some(pod.uid).filter(|uid| !uid.is_empty()).or(entry.uid);
            entry.volume = Some(options.volume().to_owned()).filter(|v| !v.is_empty()).or(entry.volume);
            entry.fs_type = options.fs_type().map(str::to_owned);
        }
        entry
    }

    /// What the record of a volume knows more than its folder.
    pub fn remembered(&mut self, record: &Record) {
        self.pod = Some(format!("{}/{}", record.namespace, record.pod));
        self.backend = Some(record.backend.clone());
    }

    /// The folder's own words: `…/pods/UID/volumes/VENDOR~DRIVER/VOLUME`.
    fn placed(&mut self, folder: &Path) {
        let names: Vec<&str> = folder.iter().filter_map(OsStr::to_str).collect();
        if let [.., "pods", uid, "volumes", driver, volume] = names.as_slice() {
            self.uid = Some((*uid).to_owned());
            self.driver = Some(driver.replace('~', "/"));
            self.volume = Some((*volume).to_owned());
        }
        self.target = Some(folder.display().to_string());
    }

    /// Writes the line of a call that is over, where it is news. The clock stops (see [`times`]).
    pub fn append(self, error: Option<&Error>, note: &str, elapsed: Duration) {
        let laps = times::stop();
        if !self.is_kept && error.is_none() {
            return;
        }
        // An unmount asks no policy, and a mount may have failed over it.
        let usual = || Policy::load().map_or_else(|_| Log::usual(LOG), |policy| policy.log());
        let log = self.log.clone().unwrap_or_else(usual);
        if !log.is_on() {
            return;
        }
        let mut line = self.line();
        line.put("microseconds", u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        if let Some(error) = error {
            line.error(error);
        }
        line.list("notes", Some(note).filter(|n| !n.is_empty() && error.is_none()));
        line.steps(&laps);
        line.context(Context::of_process());
        log.append(PROGRAM, &line);
    }

    fn line(&self) -> Line {
        let mut line = Line::new(&self.verb);
        line.maybe("driver", self.driver.as_deref());
        line.maybe("backend", self.backend.as_deref());
        line.maybe("pod", self.pod.as_deref());
        line.maybe("podUID", self.uid.as_deref());
        line.maybe("volume", self.volume.as_deref());
        line.maybe("fsType", self.fs_type.as_deref());
        line.text_of("target", self.target.as_deref().unwrap_or_default(), LONGEST_PATH);
        line
    }
}
