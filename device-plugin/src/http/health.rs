//! gRPC's own health service (grpc.health.v1), for the kubelet's gRPC probes.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::board::{Board, Standing};

/// Answers for the daemon as a whole (no name), and for each resource by its name.
pub(super) struct Health {
    board: Arc<Board>,
}

impl Health {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board }
    }
}

#[tonic::async_trait]
impl tonic_health::pb::health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let fine = if name.is_empty() {
            self.board.is_alive().await
        } else {
            match self.board.standing(&name) {
                Standing::Streamed => true,
                Standing::Waiting => false,
                Standing::Unknown => return Err(Status::not_found(format!("`{name}` is not offered here"))),
            }
        };
        let status = if fine { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("ask by Check"))
    }
}
