//! A plugin that does what the test says, and no more: it never registers by itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use harness::device_manager::{DeviceManager, Folders};
use hyper_util::rt::TokioIo;
use proto::deviceplugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use proto::deviceplugin::registration_client::RegistrationClient;
use proto::deviceplugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, ContainerPreferredAllocationRequest,
    ContainerPreferredAllocationResponse, Device, DevicePluginOptions, Empty, ListAndWatchResponse, NumaNode,
    PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse, RegisterRequest, TopologyInfo,
};
use proto::pluginregistration::registration_server::{Registration, RegistrationServer};
use proto::pluginregistration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use tower::service_fn;

/// The resource that tests of the kubelet use.
pub const RESOURCE: &str = "example.com/sample";

/// A kubelet below a folder that goes with it.
pub struct Place {
    root: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static PLACES: AtomicU32 = AtomicU32::new(0);
        let n = PLACES.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("npk-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&root).expect("make a folder");
        Self { root }
    }

    pub fn kubelet(&self) -> DeviceManager {
        DeviceManager::new(Folders::below(&self.root))
    }

    pub fn started(&self) -> DeviceManager {
        DeviceManager::started(&self.root)
    }

    pub fn plugins(&self) -> PathBuf {
        self.root.join("device-plugins")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.root));
    }
}

/// What the plugin does, as the test last said.
struct Script {
    lists: watch::Sender<ListAndWatchResponse>,
    /// Dropped, the streams end.
    streams: Mutex<watch::Sender<()>>,
    options: Mutex<DevicePluginOptions>,
    options_fail: Mutex<bool>,
    /// Whether Allocate waits.
    slow: watch::Sender<bool>,
    /// What GetPreferredAllocation was asked, and what it answers.
    asked: Mutex<Vec<ContainerPreferredAllocationRequest>>,
    advice: Mutex<Result<Vec<String>, String>>,
    empty_answers: Mutex<bool>,
    /// What the kubelet said of a registration by its watcher.
    notified: Mutex<Vec<(bool, String)>>,
}

/// A plugin that serves on a socket until it is dropped; the socket stays.
pub struct Plugin {
    script: Arc<Script>,
    handle: Handle,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    endpoint: String,
}

impl Plugin {
    /// Serves on a socket of this name in the folder.
    pub fn serve(folder: &Path, endpoint: &str) -> Self {
        let script = Arc::new(Script {
            lists: watch::Sender::new(ListAndWatchResponse::default()),
            streams: Mutex::new(watch::Sender::new(())),
            options: Mutex::default(),
            options_fail: Mutex::default(),
            slow: watch::Sender::new(false),
            asked: Mutex::default(),
            advice: Mutex::new(Ok(Vec::new())),
            empty_answers: Mutex::default(),
            notified: Mutex::default(),
        });
        let (end, path, own) = (watch::Sender::new(false), folder.join(endpoint), script.clone());
        let (mut ended, (tell, told)) = (end.subscribe(), mpsc::channel());
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                drop(std::fs::remove_file(&path));
                let listener = UnixListenerStream::new(UnixListener::bind(&path).expect("bind"));
                let server = Server::builder()
                    .add_service(DevicePluginServer::new(Served(own.clone())))
                    .add_service(RegistrationServer::new(Served(own)));
                tokio::spawn(server.serve_with_incoming(listener));
                tell.send(Handle::current()).unwrap();
                drop(ended.wait_for(|end| *end).await);
            });
        });
        let handle = told.recv().expect("a plugin that serves");
        Self { script, handle, end, thread: Some(thread), endpoint: endpoint.to_owned() }
    }

    /// A plugin that serves, has these healthy devices and is registered.
    pub fn registered(kubelet: &DeviceManager, endpoint: &str, ids: &[&str]) -> Self {
        let plugin = Self::serve(&kubelet.folders().device_plugins, endpoint);
        plugin.list(ids, &[]);
        plugin.register(kubelet, RESOURCE).expect("a registration");
        kubelet.wait_for_healthy(RESOURCE, ids.len());
        plugin
    }

    /// Calls Register, and waits for the answer.
    pub fn register(&self, kubelet: &DeviceManager, resource: &str) -> Result<(), String> {
        self.register_as(kubelet, "v1beta1", resource)
    }

    pub fn register_as(&self, kubelet: &DeviceManager, version: &str, resource: &str) -> Result<(), String> {
        let request = RegisterRequest {
            version: version.to_owned(),
            endpoint: self.endpoint.clone(),
            resource_name: resource.to_owned(),
            options: None,
        };
        let path = kubelet.folders().kubelet_socket();
        let (tell, told) = mpsc::channel();
        self.handle.spawn(async move {
            let dial = service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            let channel = Endpoint::from_static("http://localhost").connect_with_connector(dial).await;
            let answer = match channel {
                Ok(channel) => RegistrationClient::new(channel).register(request).await.map(drop),
                Err(e) => Err(Status::unavailable(e.to_string())),
            };
            drop(tell.send(answer.map_err(|status| status.message().to_owned())));
        });
        told.recv().expect("an answer")
    }

    /// Sends this list: healthy devices, and unhealthy ones.
    pub fn list(&self, healthy: &[&str], unhealthy: &[&str]) {
        let device = |health: &str| {
            let health = health.to_owned();
            move |id: &&str| Device { id: (*id).to_owned(), health: health.clone(), topology: None }
        };
        let devices = healthy.iter().map(device("Healthy")).chain(unhealthy.iter().map(device("Unhealthy")));
        self.list_of(devices.collect());
    }

    pub fn list_of(&self, devices: Vec<Device>) {
        self.script.lists.send_replace(ListAndWatchResponse { devices });
    }

    /// Ends its streams; the connections stay.
    pub fn end_streams(&self) {
        *self.script.streams.lock().unwrap() = watch::Sender::new(());
    }

    pub fn options(&self, options: DevicePluginOptions) {
        *self.script.options.lock().unwrap() = options;
    }

    pub fn fail_options(&self, fail: bool) {
        *self.script.options_fail.lock().unwrap() = fail;
    }

    /// Whether Allocate waits from now on.
    pub fn slow(&self, slow: bool) {
        self.script.slow.send_replace(slow);
    }

    pub fn answer_nothing(&self) {
        *self.script.empty_answers.lock().unwrap() = true;
    }

    pub fn advise(&self, advice: Result<&[&str], &str>) {
        let advice = advice.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect());
        *self.script.advice.lock().unwrap() = advice.map_err(str::to_owned);
    }

    pub fn asked(&self) -> Vec<ContainerPreferredAllocationRequest> {
        self.script.asked.lock().unwrap().clone()
    }

    pub fn notified(&self) -> Vec<(bool, String)> {
        self.script.notified.lock().unwrap().clone()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.end.send_replace(true);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// A healthy device near a NUMA node.
pub fn near(id: &str, node: i64) -> Device {
    let topology = Some(TopologyInfo { nodes: vec![NumaNode { id: node }] });
    Device { id: id.to_owned(), health: "Healthy".to_owned(), topology }
}

struct Served(Arc<Script>);

type Lists = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl DevicePlugin for Served {
    type ListAndWatchStream = Lists;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        if *self.0.options_fail.lock().unwrap() {
            return Err(Status::internal("scripted"));
        }
        Ok(Response::new(*self.0.options.lock().unwrap()))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Lists>, Status> {
        let lists = WatchStream::new(self.0.lists.subscribe()).map(|list| Some(Ok(list)));
        let end = WatchStream::from_changes(self.0.streams.lock().unwrap().subscribe()).map(|()| None);
        let ended = end.chain(tokio_stream::once(None));
        let both = lists.merge(ended).take_while(Option::is_some).filter_map(|list| list);
        Ok(Response::new(Box::pin(both)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        self.0.asked.lock().unwrap().extend(request.into_inner().container_requests);
        let advice = self.0.advice.lock().unwrap().clone().map_err(Status::internal)?;
        let container_responses = vec![ContainerPreferredAllocationResponse { device_i_ds: advice }];
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        drop(self.0.slow.subscribe().wait_for(|slow| !slow).await);
        let all = request.into_inner().container_requests.into_iter();
        let mut container_responses: Vec<_> = all
            .map(|one| ContainerAllocateResponse {
                envs: [("DEVICES".to_owned(), one.devices_ids.join(","))].into(),
                ..ContainerAllocateResponse::default()
            })
            .collect();
        if *self.0.empty_answers.lock().unwrap() {
            container_responses.clear();
        }
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        if request.into_inner().devices_ids.iter().any(|id| id == "refused") {
            return Err(Status::failed_precondition("scripted"));
        }
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

#[tonic::async_trait]
impl Registration for Served {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "DevicePlugin".to_owned(),
            name: RESOURCE.to_owned(),
            endpoint: String::new(),
            supported_versions: vec!["v1beta1".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        self.0.notified.lock().unwrap().push((status.plugin_registered, status.error));
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
