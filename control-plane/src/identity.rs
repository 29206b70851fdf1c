//! The `Identity` service: first certificates against join tokens, and
//! renewals. Of a request it takes the public key; whose certificate it
//! becomes is said by the token or by the certificate the caller holds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use selvage_api::v1::{AttestRequest, RenewRequest, SvidResponse};
use selvage_certs::{Csr, IssuedSvid, JoinToken, SpiffeId, verify_renewal};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status};

use crate::ca::{Authority, seconds};
use crate::journal::Journal;
use crate::peer;
use crate::rpc::identity_server::Identity;
use crate::store::{Store, StoreError};

/// First certificates that are verified and signed at a time.
pub(crate) const MAX_ATTESTATIONS: usize = 8;
/// Renewals at a time; apart, so that a flood of strangers does not starve them.
pub(crate) const MAX_RENEWALS: usize = 32;
/// How long a request waits for its turn before it is refused.
pub(crate) const SIGNING_WAIT: Duration = Duration::from_secs(2);
/// The largest message of this service: a CSR, a chain, a signature.
pub(crate) const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// The service.
pub(crate) struct IdentityService {
    authority: Arc<Authority>,
    store: Store,
    journal: Arc<Journal>,
    attestations: Semaphore,
    renewals: Semaphore,
}

impl IdentityService {
    pub(crate) fn new(authority: Arc<Authority>, store: Store, journal: Arc<Journal>) -> Self {
        Self {
            authority,
            store,
            journal,
            attestations: Semaphore::new(MAX_ATTESTATIONS),
            renewals: Semaphore::new(MAX_RENEWALS),
        }
    }

    fn response(&self, issued: IssuedSvid) -> Response<SvidResponse> {
        Response::new(SvidResponse {
            chain: issued.chain.into_iter().map(|der| der.to_vec()).collect(),
            trust_bundle: Some(self.authority.bundle_message()),
        })
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn attest(
        &self,
        request: Request<AttestRequest>,
    ) -> Result<Response<SvidResponse>, Status> {
        let AttestRequest { token, csr } = request.into_inner();
        let token = JoinToken::parse(&token)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if token.root_fingerprint() != self.authority.fingerprint() {
            return Err(Status::unauthenticated(
                "the join token was made by another control plane",
            ));
        }
        let hash = token.secret_hash();
        let _turn = turn(&self.attestations).await?;
        // Looked up before any work is done for a stranger.
        let now = seconds(SystemTime::now());
        let valid = self
            .store
            .call(move |db| db.token_is_valid(hash, now))
            .await;
        if !valid.map_err(|error| status(&error))? {
            return Err(status(&StoreError::Token));
        }
        let csr = Csr::parse(&csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let issued = self
            .authority
            .attest(hash, csr)
            .await
            .map_err(|error| status(&error))?;
        self.journal
            .record("attested", issued.id.as_str(), "first certificate issued");
        Ok(self.response(issued))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<SvidResponse>, Status> {
        let caller = peer::caller(&request);
        let RenewRequest { csr, expired } = request.into_inner();
        let _turn = turn(&self.renewals).await?;
        let (id, csr): (SpiffeId, Csr) = match (caller, expired) {
            (Ok(caller), _) => {
                let csr = Csr::parse(&csr)
                    .map_err(|error| Status::invalid_argument(error.to_string()))?;
                (caller.id, csr)
            }
            (Err(_), Some(proof)) => {
                let chain: Vec<_> = proof.chain.into_iter().map(CertificateDer::from).collect();
                verify_renewal(
                    &chain,
                    &csr,
                    &proof.signature,
                    self.authority.bundle(),
                    SystemTime::now(),
                    self.authority.renew_grace(),
                )
                .map_err(|error| Status::unauthenticated(error.to_string()))?
            }
            (Err(refused), None) => return Err(refused),
        };
        if id.is_control_plane() {
            return Err(Status::permission_denied(
                "the control plane's identity is not renewed here",
            ));
        }
        let issued = self
            .authority
            .renew(&id, &csr)
            .await
            .map_err(|error| status(&error))?;
        Ok(self.response(issued))
    }
}

async fn turn(semaphore: &Semaphore) -> Result<SemaphorePermit<'_>, Status> {
    match tokio::time::timeout(SIGNING_WAIT, semaphore.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Status::resource_exhausted(
            "too many certificates are being signed; try again",
        )),
    }
}

/// What a caller is told of an error of the store.
pub(crate) fn status(error: &StoreError) -> Status {
    match error {
        StoreError::Token => Status::unauthenticated(error.to_string()),
        StoreError::Stopping => Status::unavailable(error.to_string()),
        other => {
            tracing::error!(error = %other, "the store refuses");
            Status::unavailable("the control plane cannot write its store")
        }
    }
}
