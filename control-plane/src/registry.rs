//! The `Registry` service: workloads come, are heard of, and go. The identity
//! is the certificate's, the services those its token bound; of the message it
//! takes the rest, after the core has checked it.

use std::net::SocketAddr;
use std::sync::Arc;

use prost_types::Duration;
use selvage_api::v1::{
    self, DeregisterRequest, DeregisterResponse, HeartbeatRequest, HeartbeatResponse,
    RegisterRequest, RegisterResponse,
};
use selvage_core::registry::{
    InvalidRegistration, RegisteredPort, Registration, WorkloadKey, authorize_registration,
};
use selvage_core::resource::ServiceName;
use selvage_core::resource::service::Protocol;
use tonic::{Request, Response, Status};

use crate::identity::status;
use crate::mesh::{Mesh, RegisterError};
use crate::peer::{self, Caller};
use crate::rpc::registry_server::Registry;
use crate::store::Store;

/// The largest message of this service.
pub(crate) const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// The service.
pub(crate) struct RegistryService {
    mesh: Arc<Mesh>,
    store: Store,
}

impl RegistryService {
    pub(crate) fn new(mesh: Arc<Mesh>, store: Store) -> Self {
        Self { mesh, store }
    }

    fn lease(&self) -> Option<Duration> {
        let lease = self.mesh.read(|live| live.registry.lease());
        Duration::try_from(lease).ok()
    }
}

/// Whether an identity may register, and be told the inbound policy of, a
/// workload of this service.
///
/// # Errors
/// It is bound to other services, or the store cannot be read.
pub(crate) async fn authorize(
    store: &Store,
    caller: &Caller,
    service: &ServiceName,
) -> Result<(), Status> {
    let identity = caller.id.as_str().to_owned();
    let binding = store
        .call(move |db| db.binding(&identity))
        .await
        .map_err(|error| status(&error))?;
    let allowed: Vec<_> = binding
        .services
        .iter()
        .map(|name| ServiceName::new(&caller.namespace, name))
        .collect();
    authorize_registration(&caller.id, &allowed, service)
        .map_err(|error| Status::permission_denied(error.to_string()))
}

#[tonic::async_trait]
impl Registry for RegistryService {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let caller = peer::caller(&request)?;
        let registration = registration(&caller, request.into_inner())?;
        authorize(&self.store, &caller, &registration.service_name()).await?;
        self.mesh
            .register(registration)
            .await
            .map_err(|error| match error {
                RegisterError::Invalid(
                    error
                    @ (InvalidRegistration::Taken(_) | InvalidRegistration::NotAllowed { .. }),
                ) => Status::permission_denied(error.to_string()),
                RegisterError::Invalid(InvalidRegistration::Full) => {
                    Status::resource_exhausted(InvalidRegistration::Full.to_string())
                }
                RegisterError::Invalid(error) => Status::invalid_argument(error.to_string()),
                RegisterError::Store(error) => status(&error),
            })?;
        Ok(Response::new(RegisterResponse {
            lease: self.lease(),
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let caller = peer::caller(&request)?;
        let HeartbeatRequest {
            namespace,
            workload,
            ports,
        } = request.into_inner();
        let health = ports
            .iter()
            .map(|port| Ok((number(port.service_port)?, is_healthy(port.health))));
        let health: Vec<_> = health.collect::<Result<_, Status>>()?;
        self.mesh
            .heartbeat(
                &WorkloadKey::new(&namespace, &workload),
                &caller.id,
                &health,
            )
            .map_err(|error| Status::not_found(error.to_string()))?;
        Ok(Response::new(HeartbeatResponse {
            lease: self.lease(),
        }))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        let caller = peer::caller(&request)?;
        let DeregisterRequest {
            namespace,
            workload,
        } = request.into_inner();
        let key = WorkloadKey::new(&namespace, &workload);
        match self.mesh.deregister(&key, &caller.id).await {
            Ok(Some(())) => Ok(Response::new(DeregisterResponse {})),
            Ok(None) => Err(Status::not_found(
                "this identity has no registration of this name",
            )),
            Err(error) => Err(status(&error)),
        }
    }
}

fn registration(caller: &Caller, request: RegisterRequest) -> Result<Registration, Status> {
    let RegisterRequest {
        namespace,
        workload,
        service,
        address: text,
        ports,
        labels,
        weight,
        telemetry,
    } = request;
    let ports = ports.iter().map(|port| {
        Ok(RegisteredPort {
            service_port: number(port.service_port)?,
            protocol: protocol(port.protocol())?,
            healthy: is_healthy(port.health),
        })
    });
    Ok(Registration {
        namespace,
        workload,
        service,
        identity: caller.id.clone(),
        address: address("address", &text)?,
        ports: ports.collect::<Result<_, Status>>()?,
        labels,
        // Not said: an even share.
        weight: weight.max(1),
        telemetry: (!telemetry.is_empty())
            .then(|| address("telemetry", &telemetry))
            .transpose()?,
    })
}

/// An address that a proxy says of itself.
///
/// # Errors
/// It is none.
pub(crate) fn address(field: &str, text: &str) -> Result<SocketAddr, Status> {
    text.parse()
        .map_err(|_| Status::invalid_argument(format!("{field}: expected IP:PORT, found {text:?}")))
}

fn number(port: u32) -> Result<u16, Status> {
    u16::try_from(port).map_err(|_| Status::invalid_argument(format!("{port} is not a port")))
}

/// Health that is not said is good: the sidecar checks nothing then.
fn is_healthy(health: i32) -> bool {
    health != i32::from(v1::Health::Unhealthy)
}

fn protocol(protocol: v1::Protocol) -> Result<Protocol, Status> {
    match protocol {
        v1::Protocol::Unspecified => Err(Status::invalid_argument(
            "a port's protocol is not known here",
        )),
        v1::Protocol::Detect => Ok(Protocol::Detect),
        v1::Protocol::Http => Ok(Protocol::Http),
        v1::Protocol::Http2 => Ok(Protocol::Http2),
        v1::Protocol::Grpc => Ok(Protocol::Grpc),
        v1::Protocol::Tcp => Ok(Protocol::Tcp),
    }
}
