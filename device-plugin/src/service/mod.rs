//! What the kubelet asks of one resource.

mod announcement;
mod offer;
mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use node::{Error, Kind, Result};
use proto::deviceplugin::{
    AllocateRequest, AllocateResponse, ContainerPreferredAllocationResponse, DevicePluginOptions, Empty,
    PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse,
};
use proto::encoded::device_plugin_server::DevicePlugin;
use tonic::{Request, Response, Status};
use tracing::warn;

pub use announcement::Announcement;
pub use offer::{Offer, Stream, Turns};
pub use stream::Lists;

/// The kubelet waits for an allocation without a deadline, and every other pod waits with it.
const ALLOCATE_BUDGET: Duration = Duration::from_secs(1);

/// The kubelet itself gives up after 30 seconds.
const START_BUDGET: Duration = Duration::from_secs(28);

/// The gRPC server of one resource.
#[derive(Debug)]
pub struct Plugin {
    offer: Arc<Offer>,
}

impl Plugin {
    /// A server of this offer.
    pub fn new(offer: Arc<Offer>) -> Self {
        Self { offer }
    }

    /// An error goes into the pod's event; here it is one line.
    fn refuse(&self, error: &Error) -> Status {
        warn!(resource = %self.offer.name(), hint = error.advice(), "{}", error.chain());
        status(error)
    }
}

#[tonic::async_trait]
impl DevicePlugin for Plugin {
    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(self.offer.options()))
    }

    type ListAndWatchStream = Lists;

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Lists>, Status> {
        Ok(Response::new(Lists::open(self.offer.clone())))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let containers = request.into_inner().container_requests;
        let container_responses = containers
            .iter()
            .map(|wanted| ContainerPreferredAllocationResponse { device_i_ds: self.offer.prefer(wanted) })
            .collect();
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let start = Instant::now();
        let mut container_responses = Vec::new();
        let mut outcome = Ok(());
        for container in request.into_inner().container_requests {
            match within(ALLOCATE_BUDGET, "allocate devices", self.offer.allocate(&container.devices_ids))
                .await
            {
                Ok(answer) => container_responses.push(answer),
                Err(error) => {
                    outcome = Err(self.refuse(&error));
                    break;
                }
            }
        }
        self.offer.metrics().allocated(self.offer.name(), outcome.is_ok(), start.elapsed());
        outcome.map(|()| Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        let ids = request.into_inner().devices_ids;
        let checked =
            within(START_BUDGET, "check devices before a container starts", self.offer.check(ids)).await;
        checked.map(|()| Response::new(PreStartContainerResponse {})).map_err(|error| self.refuse(&error))
    }
}

/// The outcome, or that it took too long.
async fn within<T>(budget: Duration, doing: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(budget, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::caused(Kind::TryAgain, doing, format!("it takes longer than {budget:?}"))),
    }
}

/// The gRPC code of each kind; the text is what a person reads in the pod's event.
fn status(error: &Error) -> Status {
    let text = match error.advice() {
        Some(hint) => format!("{}; {hint}", error.chain()),
        None => error.chain(),
    };
    match error.kind() {
        Kind::Usage | Kind::Decode | Kind::Config | Kind::UnsupportedField => Status::invalid_argument(text),
        Kind::Version => Status::unimplemented(text),
        Kind::UnknownContainer => Status::not_found(text),
        Kind::Conflict => Status::already_exists(text),
        Kind::Mismatch => Status::failed_precondition(text),
        Kind::TryAgain => Status::deadline_exceeded(text),
        Kind::Unavailable | Kind::Io | Kind::Kernel | Kind::Namespace | Kind::Delegate(_) => {
            Status::unavailable(text)
        }
        Kind::Internal => Status::internal(text),
    }
}
