//! The plugin watcher: sockets that appear in a folder are asked who they are, once a second.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::pluginregistration::registration_client::RegistrationClient;
use proto::pluginregistration::{InfoRequest, PluginInfo, RegistrationStatus};
use tonic::transport::Channel;

use super::core::Core;
use super::dial::dial;
use super::journal::What;
use super::names::is_extended_resource;
use super::plugins::{self, in_go};

/// The reconciler's pause.
const EVERY: Duration = Duration::from_secs(1);
/// The pause after a first failure; it doubles.
const BACK_OFF: Duration = Duration::from_millis(500);
/// The plugin has to say within this who it is.
const INFO_LIMIT: Duration = Duration::from_secs(1);

/// Which socket it is: an inode may be used again at once.
type Which = (u64, i64, i64);

/// A socket that was seen.
#[derive(Debug)]
struct Seen {
    which: Which,
    /// The resource, once it is registered.
    resource: Option<String>,
    failures: u32,
    again: Instant,
}

/// Looks at the folder once a second, until the kubelet's process ends. The real one is told of sockets by
/// inotify and acts upon them in the same rhythm.
pub(super) async fn run(core: Arc<Core>) {
    let mut known: BTreeMap<PathBuf, Seen> = BTreeMap::new();
    loop {
        let there = sockets(&core.folders.plugins_registry);
        // Gone, or another socket of the same name: its plugin is gone.
        known.retain(|path, seen| {
            let stays = there.get(path) == Some(&seen.which);
            if let Some(resource) = seen.resource.as_ref().filter(|_| !stays) {
                plugins::disconnect(&core, resource);
            }
            stays
        });
        for (path, which) in there {
            let now = Instant::now();
            let fresh = || Seen { which, resource: None, failures: 0, again: now };
            let seen = known.entry(path.clone()).or_insert_with(fresh);
            if seen.resource.is_none() && seen.again <= now {
                register(&core, &path, seen).await;
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn register(core: &Arc<Core>, path: &Path, seen: &mut Seen) {
    if let Ok(resource) = try_register(core, path).await {
        seen.resource = Some(resource);
    } else {
        seen.again = Instant::now() + BACK_OFF * 2_u32.saturating_pow(seen.failures.min(8));
        seen.failures += 1;
    }
}

/// A stream that is lost later is not tried again here: the socket would have to be made anew.
async fn try_register(core: &Arc<Core>, path: &Path) -> Result<String, String> {
    let mut api = RegistrationClient::new(dial(path).await?);
    let asked = tokio::time::timeout(INFO_LIMIT, api.get_info(InfoRequest {})).await;
    let info = asked.map_err(|_| "GetInfo: context deadline exceeded".to_owned())?;
    let info = info.map_err(|s| in_go(&s))?.into_inner();
    core.journal.note(&info.name, What::Called("GetInfo"));
    let taken = take(core, path, &info).await;
    notify(core, &mut api, &info.name, &taken).await;
    taken.map(|()| info.name)
}

async fn take(core: &Arc<Core>, path: &Path, info: &PluginInfo) -> Result<(), String> {
    if info.r#type != "DevicePlugin" {
        return Err(format!("no handler registered for plugin type: {}", info.r#type));
    }
    if !info.supported_versions.iter().any(|v| v == proto::VERSION) {
        return Err(format!("manager version, {}, is not among plugin supported versions", proto::VERSION));
    }
    if !is_extended_resource(&info.name) {
        return Err(format!("invalid name of device plugin resource: {:?}", info.name));
    }
    let endpoint = Some(&info.endpoint).filter(|e| !e.is_empty()).map_or(path, |e| Path::new(e));
    plugins::connect(core, &info.name, endpoint.to_owned()).await
}

async fn notify(core: &Core, api: &mut RegistrationClient<Channel>, name: &str, taken: &Result<(), String>) {
    let error = taken.as_ref().err().cloned().unwrap_or_default();
    core.journal.note(name, What::Called("NotifyRegistrationStatus"));
    drop(
        api.notify_registration_status(RegistrationStatus { plugin_registered: taken.is_ok(), error }).await,
    );
}

/// The sockets of the folder and those below, by path; hidden ones are not looked at.
fn sockets(folder: &Path) -> BTreeMap<PathBuf, Which> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            all.extend(sockets(&entry.path()));
        } else if about.file_type().is_socket() && !hidden {
            all.insert(entry.path(), (about.ino(), about.mtime(), about.mtime_nsec()));
        }
    }
    all
}
