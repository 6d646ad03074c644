//! A driver as the kubelet knows it between two probes: its name, what it can do, and what it was found
//! not to support.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::exec::{self, DriverCall, Finished};
use super::journal::{Journal, Recorded, hold};
use super::reply::{self, Capabilities, Fault, Reply};
use crate::kernel::cgroup::Cgroup;

/// Who execs drivers.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) name: &'static str,
    pub(crate) journal: Arc<Journal>,
    pub(crate) cgroup: Option<Cgroup>,
}

/// A loaded driver.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) driver: String,
    pub(crate) capabilities: Capabilities,
    program: PathBuf,
    unsupported: Mutex<BTreeSet<String>>,
    caller: Caller,
}

/// Why there is no plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unloaded {
    /// `init` failed.
    Failed(String),
    /// The kubelet itself died of the answer.
    Crash(String),
}

impl Plugin {
    /// Asks the driver in `folder` (`…/vendor~driver`) what it can do.
    pub(crate) fn load(caller: &Caller, folder: &Path) -> Result<Self, Unloaded> {
        let mut plugin = Self {
            driver: driver_of(folder),
            capabilities: Capabilities::default(),
            program: executable(folder),
            unsupported: Mutex::default(),
            caller: caller.clone(),
        };
        let reply = plugin.call("init", &[]).map_err(|f| Unloaded::Failed(f.text().to_owned()))?;
        // Go writes this without a look at the pointer.
        plugin.capabilities = reply.capabilities.ok_or_else(|| {
            let text = "panic: runtime error: invalid memory address or nil pointer dereference";
            Unloaded::Crash(text.to_owned())
        })?;
        Ok(plugin)
    }

    /// Calls the driver, unless it is known not to support `verb`.
    #[track_caller]
    pub(crate) fn call(&self, verb: &str, arguments: &[&str]) -> Result<Reply, Fault> {
        if hold(&self.unsupported).contains(verb) {
            return Err(Fault::NotSupported);
        }
        let finished = self.exec(verb, arguments);
        let (answer, line) = reply::read(verb, &finished.output);
        if let Some(line) = line {
            self.caller.journal.log(line);
        }
        if answer == Err(Fault::NotSupported) {
            hold(&self.unsupported).insert(verb.to_owned());
            return answer;
        }
        let Some(error) = finished.error else { return answer };
        if answer.is_ok() {
            let program = self.program.display();
            let line =
                format!("E FlexVolume: driver bug: {program}: exec error ({error}) but no error in response");
            self.caller.journal.log(line);
            return Err(Fault::Failed(error));
        }
        // The one line that shows secrets to whoever reads the node's log.
        self.caller.journal.log(format!(
            "W FlexVolume: driver call failed: executable: {}, args: [{verb} {}], error: {error}, output: {:?}",
            self.program.display(),
            arguments.join(" "),
            String::from_utf8_lossy(&finished.output),
        ));
        answer
    }

    #[track_caller]
    fn exec(&self, verb: &str, arguments: &[&str]) -> Finished {
        let arguments: Vec<String> = [&[verb], arguments].concat().iter().map(|s| (*s).to_owned()).collect();
        let Caller { name, journal, cgroup } = &self.caller;
        journal.call(Recorded { caller: name, driver: self.driver.clone(), arguments: arguments.clone() });
        let call = DriverCall { program: self.program.clone(), arguments, cgroup: cgroup.clone() };
        match journal.doom_of(verb) {
            None => exec::run(&call),
            Some(doom) => {
                let (finished, fate) = exec::run_doomed(&call, &doom);
                journal.fulfil(fate);
                finished
            }
        }
    }
}

/// The driver's name: its folder's, with every `~` as `/`.
fn driver_of(folder: &Path) -> String {
    name_of(folder).replace('~', "/")
}

/// The executable of a driver's folder: named like the last part of the driver's name.
pub(crate) fn executable(folder: &Path) -> PathBuf {
    let name = name_of(folder);
    folder.join(name.rsplit('~').next().unwrap_or_default())
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
