//! A connection to a plugin's socket, as grpc-go makes it: it stands once the server has spoken, and is tried
//! again until the time is over.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::kubelet::hold;

/// How long the kubelet waits for a plugin.
const LIMIT: Duration = Duration::from_secs(10);
/// grpc-go's first pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Dials until the server has answered with its first bytes, for ten seconds at most.
pub(super) async fn dial(path: &Path) -> Result<Channel, String> {
    let tries = async {
        loop {
            if let Ok(channel) = try_once(path).await {
                return channel;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, tries).await.map_err(|_| "context deadline exceeded".to_owned())
}

async fn try_once(path: &Path) -> Result<Channel, tonic::transport::Error> {
    let spoke = Arc::new(Notify::new());
    let once = Arc::new(Mutex::new(Some(spoke.clone())));
    let path: PathBuf = path.to_owned();
    let connect = service_fn(move |_| {
        let (path, spoke) = (path.clone(), hold(&once).take());
        async move {
            // A connection that has ended is not made anew: the kubelet has lost its plugin then.
            let spoke = spoke.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
            let stream = UnixStream::connect(path).await?;
            Ok::<_, io::Error>(TokioIo::new(Listened { stream, spoke }))
        }
    });
    // The authority is the word that the kubelet sends.
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connect).await?;
    spoke.notified().await;
    Ok(channel)
}

/// A stream that tells when the other side has spoken.
struct Listened {
    stream: UnixStream,
    spoke: Arc<Notify>,
}

impl AsyncRead for Listened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.spoke.notify_one();
        }
        read
    }
}

impl AsyncWrite for Listened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
