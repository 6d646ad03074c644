//! What the daemon says of itself: gRPC's health service, and when it is ready.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::device_manager::What;
use harness::device_node::{DeviceNode, HTTP};
use harness::suite::device;
use hyper_util::rt::TokioIo;
use libtest_mimic::Trial;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

use crate::{OTHER, SERIAL, TWO, serial, until, with_other};

pub fn trials() -> Vec<Trial> {
    vec![
        device("grpc_health_tells_of_the_daemon_and_of_each_resource", &[], grpc),
        device("nothing_is_ready_before_its_first_look", &[], first_look),
        device("nothing_is_ready_before_its_first_checks", &[], first_checks),
        device("what_ails_is_ready", &[], ailing),
        device("what_has_no_device_is_ready", &[], no_device),
    ]
}

const ADDRESS: &str = "127.0.0.1:9477";

/// Connects to the socket, or else to the port.
async fn connect(by_socket: bool) -> Channel {
    let endpoint =
        Endpoint::from_shared(format!("http://{ADDRESS}")).unwrap().timeout(Duration::from_secs(20));
    let dial = service_fn(async |_| tokio::net::UnixStream::connect(HTTP).await.map(TokioIo::new));
    let channel =
        if by_socket { endpoint.connect_with_connector(dial).await } else { endpoint.connect().await };
    channel.expect("connect to the daemon")
}

/// What Check says of a service, the same on the socket and on the port.
#[track_caller]
fn check(service: &str) -> Result<ServingStatus, Code> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ask = async |by_socket| {
        let mut api = HealthClient::new(connect(by_socket).await);
        let answer = api.check(HealthCheckRequest { service: service.to_owned() }).await;
        answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
    };
    let (socket, port) = runtime.block_on(async { (ask(true).await, ask(false).await) });
    assert_eq!(socket, port, "{service}");
    socket
}

fn grpc(node: &DeviceNode) {
    let kubelet = node.late_kubelet();
    serial(node);
    let http = format!("http: {{listen: \"{ADDRESS}\"}}\n");
    let daemon = node.offer(&format!("{http}{TWO}"));
    until(|| {
        let served = Path::new(HTTP).exists() && std::net::TcpStream::connect(ADDRESS).is_ok();
        served.then_some(()).ok_or_else(|| daemon.log())
    });
    assert_eq!(check(""), Ok(ServingStatus::Serving), "it is alive without a kubelet, too");
    assert_eq!(check(SERIAL), Ok(ServingStatus::NotServing));
    assert_eq!(check(OTHER), Err(Code::NotFound));
    kubelet.start();
    kubelet.wait_for_healthy(SERIAL, 2);
    until(|| match check(SERIAL) {
        Ok(ServingStatus::Serving) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // One that the kubelet does not listen to beside one that it listens to.
    kubelet.dial_slowly(Duration::from_mins(1));
    let start = Instant::now();
    node.configure(&format!("{http}{}", with_other(1)));
    kubelet.wait_for_event(start, |event| {
        event.resource == OTHER && matches!(event.what, What::RegisterCalled { .. })
    });
    assert_eq!(check(OTHER), Ok(ServingStatus::NotServing));
    assert_eq!(check(SERIAL), Ok(ServingStatus::Serving));
    assert_eq!(check(""), Ok(ServingStatus::Serving));
    assert_eq!(check("example.com/none"), Err(Code::NotFound));
    kubelet.stop();
    until(|| match check(SERIAL) {
        Ok(ServingStatus::NotServing) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// What takes until the test lets it go.
const LET_GO: &str = "/run/node/go";
const SLOW: &str = "while ! test -e /run/node/go; do /bin/sleep 0.05; done";

#[track_caller]
fn not_ready(node: &DeviceNode, resource: &str) {
    assert_eq!(node.http(&format!("/readyz?resource={resource}")).0, 503);
    let (status, text) = node.http("/readyz");
    assert!(status == 503 && text.contains(resource), "{status} {text}");
    for words in
        [&["wait-registered", "--timeout", "300ms"][..], &["wait-registered", "--timeout", "300ms", resource]]
    {
        let answer = node.command(words);
        assert_eq!(answer.exit, Some(1), "{answer:?}");
        assert!(answer.stderr.contains(resource), "{answer:?}");
    }
}

#[track_caller]
fn ready(node: &DeviceNode, resource: &str) {
    let answer = node.command(&["wait-registered", "--timeout", "20s", resource]);
    assert_eq!(answer.exit, Some(0), "{answer:?}");
    assert_eq!(node.http(&format!("/readyz?resource={resource}")).0, 200);
}

fn first_look(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(&format!(
        "resources:\n- {{name: {SERIAL}, devices: [{{path: {{glob: [/dev/ttyUSB*]}}}}]}}\n\
         - {{name: {OTHER}, devices: [{{command: {{run: [/bin/sh, -c, '{SLOW}; echo 3'], timeout: 30s}}}}]}}\n"
    ));
    kubelet.wait_for_healthy(SERIAL, 2);
    ready(node, SERIAL);
    not_ready(node, OTHER);
    fs::write(LET_GO, "").unwrap();
    ready(node, OTHER);
    kubelet.wait_for_healthy(OTHER, 3);
    assert_eq!(node.http("/readyz").0, 200);
}

fn checked(run: &str) -> String {
    format!(
        "resources:\n- {{name: {SERIAL}, devices: [{{path: {{glob: [/dev/ttyUSB*]}}}}], \
         health: {{every: 1s, checks: [{{command: {{run: {run}, timeout: 30s}}}}]}}}}\n\
         - {{name: {OTHER}, devices: [{{count: 1}}]}}\n"
    )
}

fn first_checks(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(&checked(&format!("[/bin/sh, -c, '{SLOW}']")));
    kubelet.wait_for_healthy(OTHER, 1);
    ready(node, OTHER);
    not_ready(node, SERIAL);
    fs::write(LET_GO, "").unwrap();
    ready(node, SERIAL);
    kubelet.wait_for_healthy(SERIAL, 2);
}

/// The kubelet knows that there is none to be had.
fn ailing(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(&checked("[/bin/false]"));
    kubelet.wait_for(SERIAL, |offer| offer.unhealthy.len() == 2);
    ready(node, SERIAL);
    assert_eq!(node.command(&["wait-registered", "--timeout", "20s"]).exit, Some(0));
}

fn no_device(node: &DeviceNode) {
    let kubelet = node.kubelet();
    let _daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 0);
    ready(node, SERIAL);
    assert_eq!(kubelet.offer(SERIAL).unwrap().capacity(), 0);
}
