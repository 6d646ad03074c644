//! Whoever may open the daemon's sockets can say anything to it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use harness::device_node::{DeviceNode, HTTP};
use harness::suite::device;
use hyper_util::rt::TokioIo;
use libtest_mimic::Trial;
use proto::deviceplugin::device_plugin_client::DevicePluginClient;
use proto::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerPreferredAllocationRequest, Empty,
    PreStartContainerRequest, PreferredAllocationRequest,
};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{SERIAL, TWO, serial};

pub fn trials() -> Vec<Trial> {
    vec![
        device("nonsense_on_the_sockets_is_survived", &[], bytes),
        device("calls_that_make_no_sense_are_answered", &[], calls),
        device("many_connections_at_once_are_served", &[], many),
        device("whoever_does_not_read_holds_nobody_up", &[], does_not_read),
    ]
}

/// Calls the plugin's interface on its socket.
fn call<T>(socket: &Path, work: impl AsyncFnOnce(DevicePluginClient<Channel>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let path = socket.to_owned();
        let dial = service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost").timeout(Duration::from_secs(20));
        let channel = endpoint.connect_with_connector(dial).await.expect("connect to the plugin");
        work(DevicePluginClient::new(channel)).await
    })
}

/// One Allocate for these IDs; the refusal in its own words.
pub fn allocate(socket: &Path, ids: &[&str]) -> Result<(), String> {
    let devices_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    let request = AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids }] };
    call(socket, async |mut api| api.allocate(request).await.map(drop).map_err(|s| s.message().to_owned()))
}

/// Bytes that are the same at each run.
struct Noise(AtomicU64);

impl Noise {
    fn next(&self) -> u64 {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.store(x, Ordering::Relaxed);
        x
    }

    fn bytes(&self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

fn bytes(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
    let [socket] = node.sockets().try_into().expect("one socket");
    let noise = Noise(AtomicU64::new(0x9e37_79b9_7f4a_7c15));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // A frame of settings, as each side begins with.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    for round in 0..200 {
        let path = if round % 4 == 0 { Path::new(HTTP) } else { &socket };
        let mut peer = UnixStream::connect(path).expect("connect");
        peer.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let length = usize::try_from(noise.next() % 5000).unwrap();
        let mut said = noise.bytes(length);
        if round % 3 == 0 {
            said = [preface.as_slice(), &settings, &said].concat();
        }
        // Whoever hangs up may do so.
        drop(peer.write_all(&said));
        let mut answer = [0; 64];
        drop(peer.read(&mut answer));
    }
    assert!(daemon.is_alive());
    assert_eq!(kubelet.offer(SERIAL).unwrap().stream, stream);
    kubelet.allocate(SERIAL, 1);
    assert_eq!(node.http("/readyz").0, 200);
    assert!(daemon.log_lines() < 40, "it is not worth a line each: {}", daemon.log());
}

fn calls(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    let stream = kubelet.wait_for_healthy(SERIAL, 2).stream;
    let [socket] = node.sockets().try_into().expect("one socket");
    let long = "x".repeat(100_000);
    let odd = ["", "..", "/dev/null", "\u{202e}\u{0}", "a-0-0-0", "-", "-1", long.as_str()];
    for id in odd {
        let why = allocate(&socket, &[id]).expect_err(&id[..id.len().min(20)]);
        assert!(why.len() < 2000, "{} bytes of answer", why.len());
        let ids = vec![id.to_owned()];
        let pre = PreStartContainerRequest { devices_ids: ids.clone() };
        call(&socket, async |mut api| drop(api.pre_start_container(pre).await));
        for size in [i32::MIN, -1, 0, 1, i32::MAX] {
            let one = ContainerPreferredAllocationRequest {
                available_device_i_ds: ids.clone(),
                must_include_device_i_ds: ids.clone(),
                allocation_size: size,
            };
            let request = PreferredAllocationRequest { container_requests: vec![one] };
            call(&socket, async |mut api| drop(api.get_preferred_allocation(request).await));
        }
    }
    call(&socket, async |mut api| {
        drop(api.allocate(AllocateRequest::default()).await);
        drop(api.get_preferred_allocation(PreferredAllocationRequest::default()).await);
        let many = vec![ContainerAllocateRequest { devices_ids: vec!["x".to_owned(); 1000] }; 100];
        drop(api.allocate(AllocateRequest { container_requests: many }).await);
    });
    assert!(daemon.is_alive());
    assert_eq!(kubelet.offer(SERIAL).unwrap().stream, stream);
    kubelet.allocate(SERIAL, 2);
}

fn many(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 2);
    let [socket] = node.sockets().try_into().expect("one socket");
    let idle: Vec<UnixStream> = (0..300).map(|_| UnixStream::connect(&socket).expect("connect")).collect();
    kubelet.allocate(SERIAL, 1);
    drop(idle);
    node.unplug("ttyUSB0");
    kubelet.wait_for_healthy(SERIAL, 1);
    assert!(daemon.is_alive());
}

/// A stranger opens a stream of the list, and reads nothing of it; the kubelet's goes on.
fn does_not_read(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let many = "resources: [{name: example.com/serial, devices: [{path: {glob: [/dev/ttyUSB*]}}], replicas: 2000}]\n";
    serial(node);
    let _daemon = node.offer(many);
    kubelet.wait_for_healthy(SERIAL, 4000);
    let asked = kubelet.calls("ListAndWatch");
    let [socket] = node.sockets().try_into().expect("one socket");
    call(&socket, async |mut api| {
        let stranger = api.list_and_watch(Empty {}).await.expect("a stream");
        for _ in 0..10 {
            node.unplug("ttyUSB0");
            kubelet.wait_for_healthy(SERIAL, 2000);
            node.plug("ttyUSB0", 188, 0);
            kubelet.wait_for_healthy(SERIAL, 4000);
        }
        drop(stranger);
    });
    // That it leaves is not the kubelet's end: nothing is registered again, and no device is gone for a moment.
    let (pod, _) = kubelet.allocate(SERIAL, 1);
    kubelet.end(&pod);
    node.unplug("ttyUSB0");
    kubelet.wait_for_healthy(SERIAL, 2000);
    assert_eq!(kubelet.calls("ListAndWatch"), asked, "the kubelet's stream is the same");
}
