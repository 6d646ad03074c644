//! /metrics, /healthz, /readyz, and gRPC's own health service, on a Unix socket and, where it is asked for, a port.

pub mod ask;
mod health;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use node::{Context, Kind, Result};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::board::{Board, Standing};
use crate::config::Http;

/// What is served, until it is stopped.
#[derive(Debug)]
pub struct Served {
    tasks: Vec<AbortHandle>,
    socket: PathBuf,
}

impl Served {
    /// Ends it; the socket is gone.
    pub fn stop(self) {
        for task in self.tasks {
            task.abort();
        }
        let _ = fs::remove_file(self.socket);
    }
}

/// Serves from now on.
pub fn serve(http: &Http, board: Arc<Board>) -> Result<Served> {
    let routes = routes(board);
    let unix = unix(&http.socket)?;
    let served = routes.clone();
    let mut tasks = vec![tokio::spawn(async move { axum::serve(unix, served).await }).abort_handle()];
    if let Some(address) = http.listen {
        let listener = tcp(address)?;
        tasks.push(tokio::spawn(async move { axum::serve(listener, routes).await }).abort_handle());
    }
    Ok(Served { tasks, socket: http.socket.clone() })
}

fn unix(socket: &Path) -> Result<UnixListener> {
    let doing = || format!("serve on `{}`", socket.display());
    if let Some(folder) = socket.parent() {
        node::store::make_folder(folder)?;
    }
    match fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).doing(Kind::Io, doing),
        _ => {}
    }
    UnixListener::bind(socket).doing(Kind::Io, doing)
}

fn tcp(address: SocketAddr) -> Result<TcpListener> {
    let doing = || format!("listen on `{address}`");
    let listener = std::net::TcpListener::bind(address)
        .doing(Kind::Io, doing)
        .map_err(|error| error.hint("choose another `http.listen`, or end who has it"))?;
    listener.set_nonblocking(true).doing(Kind::Io, doing)?;
    TcpListener::from_std(listener).doing(Kind::Io, doing)
}

fn routes(board: Arc<Board>) -> Router {
    let grpc = Routes::new(HealthServer::new(health::Health::new(board.clone()))).prepare();
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(board)
        .merge(grpc.into_axum_router().reset_fallback())
}

async fn metrics(State(board): State<Arc<Board>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], board.metrics_text().await).into_response()
}

/// The loop comes around.
async fn healthz(State(board): State<Arc<Board>>) -> Response {
    if board.is_alive().await {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the loop does not come around\n").into_response()
    }
}

/// The kubelet listens to every resource, or to those of `?resource=NAME&resource=NAME`.
async fn readyz(State(board): State<Arc<Board>>, RawQuery(query): RawQuery) -> Response {
    let asked: Vec<String> = query
        .as_deref()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.strip_prefix("resource="))
        .map(|name| name.replace("%2F", "/").replace("%2f", "/"))
        .collect();
    let standings = if asked.is_empty() {
        board.standings()
    } else {
        asked.into_iter().map(|name| (name.clone(), board.standing(&name))).collect()
    };
    let lines = |wanted: Standing, says: &str| -> String {
        let those = standings.iter().filter(|(_, standing)| *standing == wanted);
        those.fold(String::new(), |all, (name, _)| all + name + ": " + says + "\n")
    };
    let unknown = lines(Standing::Unknown, "not offered here");
    if !unknown.is_empty() {
        return (StatusCode::NOT_FOUND, unknown).into_response();
    }
    let waiting = lines(Standing::Waiting, "the kubelet has no list of it yet");
    if waiting.is_empty() {
        (StatusCode::OK, "ok\n".to_owned()).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, waiting).into_response()
    }
}
