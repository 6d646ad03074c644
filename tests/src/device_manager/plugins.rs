//! The clients of plugins by their resource's name: made by a registration, run until their stream ends, and
//! taken away by name, so that one's end meets whoever has the name then.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use proto::deviceplugin::device_plugin_client::DevicePluginClient;
use proto::deviceplugin::{DevicePluginOptions, Empty};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::core::Core;
use super::dial::dial;
use super::journal::What;
use crate::kubelet::hold;

/// The kubelet's end of one registration.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) resource: String,
    path: PathBuf,
    channel: Mutex<Option<Channel>>,
    /// True ends the stream.
    ended: watch::Sender<bool>,
}

/// What a plugin is asked by.
pub(super) type Api = DevicePluginClient<Channel>;

impl Client {
    fn new(resource: &str, path: PathBuf) -> Self {
        let (channel, ended) = (Mutex::default(), watch::Sender::new(false));
        Self { resource: resource.to_owned(), path, channel, ended }
    }

    /// The plugin's interface while it is connected. No call has a limit but the message's: gRPC's own.
    pub(super) fn api(&self) -> Option<Api> {
        let channel = hold(&self.channel).clone()?;
        Some(Api::new(channel).max_decoding_message_size(proto::MESSAGE_LIMIT))
    }

    /// As if the stream alone had failed; what follows is the manager's affair.
    pub(super) fn drop_stream(&self) {
        self.ended.send_replace(true);
    }

    fn close(&self) {
        self.drop_stream();
        hold(&self.channel).take();
    }

    /// Dials, and asks for the options: both before Register is answered.
    async fn connect(self: &Arc<Self>, core: &Core) -> Result<(), String> {
        tokio::time::sleep(core.faults.dial()).await;
        let dialled = dial(&self.path).await.map_err(|e| format!("failed to dial device plugin: {e}"));
        *hold(&self.channel) = Some(dialled?);
        let options = self.options(core).await;
        let options = options.map_err(|e| format!("failed to get device plugin options: {e}"))?;
        hold(&core.memory).connected(self, options);
        Ok(())
    }

    async fn options(&self, core: &Core) -> Result<DevicePluginOptions, String> {
        core.journal.note(&self.resource, What::Called("GetDevicePluginOptions"));
        let mut api = self.api().ok_or("the connection is closing")?;
        let answer = api.get_device_plugin_options(Empty {}).await.map_err(|s| in_go(&s))?;
        if core.faults.options() {
            return Err("rpc error: code = Unavailable desc = error reading from server: EOF".to_owned());
        }
        Ok(answer.into_inner())
    }

    /// One ListAndWatch until it ends; never a second one.
    async fn run(&self, core: &Core) {
        core.journal.note(&self.resource, What::Called("ListAndWatch"));
        let stream = core.journal.next_stream();
        let why = self.watch(core, stream).await;
        core.journal.note(&self.resource, What::StreamEnded { stream, why });
    }

    async fn watch(&self, core: &Core, stream: u64) -> String {
        let Some(mut api) = self.api() else { return "the connection is closing".to_owned() };
        let mut ended = self.ended.subscribe();
        let opened = api.list_and_watch(Empty {});
        let mut lists = tokio::select! {
            opened = opened => match opened {
                Ok(lists) => lists.into_inner(),
                Err(status) => return in_go(&status),
            },
            _ = ended.wait_for(|ended| *ended) => return "the kubelet let go".to_owned(),
        };
        core.journal.note(&self.resource, What::StreamOpened(stream));
        loop {
            let list = tokio::select! {
                list = lists.message() => list,
                _ = ended.wait_for(|ended| *ended) => return "the kubelet let go".to_owned(),
            };
            match list {
                Ok(Some(_)) if core.faults.stream() => return "injected".to_owned(),
                Ok(Some(list)) => core.listed(&self.resource, stream, list),
                Ok(None) => return "EOF".to_owned(),
                Err(status) => return in_go(&status),
            }
        }
    }
}

/// A status as Go prints it.
pub(super) fn in_go(status: &tonic::Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

/// Registers a plugin: the new client takes the name at once, and loses it where it can't be reached. The one
/// before it is not closed.
pub(super) async fn connect(core: &Arc<Core>, resource: &str, path: PathBuf) -> Result<(), String> {
    let client = Arc::new(Client::new(resource, path));
    hold(&core.clients).insert(resource.to_owned(), client.clone());
    if let Err(why) = client.connect(core).await {
        hold(&core.clients).remove(resource);
        return Err(why);
    }
    tokio::spawn(run(core.clone(), client));
    Ok(())
}

async fn run(core: Arc<Core>, client: Arc<Client>) {
    client.run(&core).await;
    // Whoever has the name now, and not necessarily the one whose stream ended.
    disconnect(&core, &client.resource);
}

/// Takes the resource's plugin away, whichever it is.
pub(super) fn disconnect(core: &Core, resource: &str) {
    let Some(client) = hold(&core.clients).remove(resource) else { return };
    client.close();
    hold(&core.memory).disconnected(resource);
    core.journal.note(resource, What::Disconnected);
}
