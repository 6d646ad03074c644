//! A connection to one of the kubelet's sockets: one call, and it is closed again.

use std::path::Path;

use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use node::{Context, Kind, Result};
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::codegen::http::uri::Uri;
use tonic::codegen::http::{Request, Response};
use tower::{Service, service_fn};

/// A Unix socket has no host, and a request has to name one: the name that the kubelet itself uses.
pub fn origin() -> Uri {
    Uri::from_static("http://localhost")
}

/// What sends requests for as long as it lives.
pub async fn dial(
    socket: &Path,
    doing: impl Fn() -> String,
) -> Result<
    impl Service<Request<Body>, Response = Response<Incoming>, Error = hyper::Error, Future: Send> + Clone,
> {
    let stream = UnixStream::connect(socket).await.doing(Kind::Unavailable, &doing)?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .doing(Kind::Unavailable, &doing)?;
    // It ends with its last sender; what goes wrong on it, the call says.
    tokio::spawn(connection);
    Ok(service_fn(move |request| {
        let mut sender = sender.clone();
        async move {
            sender.ready().await?;
            sender.send_request(request).await
        }
    }))
}
