//! How a handshake ended, in the few words of `selvage_tls_handshakes_total{outcome}`.
//!
//! Our own verifier's reason where we refused, the alert where the other side did.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use crate::chain::RefusedPeer;

/// The `outcome` label of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeOutcome {
    /// It succeeded.
    Ok,
    /// A certificate was demanded and none presented.
    NoCertificate,
    /// A certificate is no longer, or not yet, valid.
    Expired,
    /// A chain leads to no trusted root, or is unsound.
    Untrusted,
    /// A trusted certificate of somebody else, or of nobody.
    WrongIdentity,
    /// Anything else: no common protocol, garbage, a connection cut short.
    Other,
}

impl HandshakeOutcome {
    /// Every outcome, to register a metric's children beforehand.
    pub const ALL: [Self; 6] = [
        Self::Ok,
        Self::NoCertificate,
        Self::Expired,
        Self::Untrusted,
        Self::WrongIdentity,
        Self::Other,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoCertificate => "no-certificate",
            Self::Expired => "expired",
            Self::Untrusted => "untrusted",
            Self::WrongIdentity => "wrong-identity",
            Self::Other => "other",
        }
    }

    /// Of an I/O error as asynchronous TLS streams give it, which wraps the error of rustls.
    pub fn of_io(error: &io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>());
        inner.map_or(Self::Other, handshake_outcome)
    }
}

impl RefusedPeer {
    /// The `outcome` label of this refusal.
    pub fn outcome(&self) -> HandshakeOutcome {
        match self {
            Self::NoCertificate => HandshakeOutcome::NoCertificate,
            Self::Expired | Self::NotYetValid => HandshakeOutcome::Expired,
            Self::Untrusted(_) => HandshakeOutcome::Untrusted,
            Self::NotAnSvid(reason) => of_shape(*reason),
            Self::ForeignTrustDomain(_) | Self::WrongIdentity { .. } => {
                HandshakeOutcome::WrongIdentity
            }
        }
    }
}

/// How a failed handshake ended. An alert says less than our own verifier does: our
/// `certificate_unknown` stands mostly for a name that was not expected, so it is counted as that.
pub fn handshake_outcome(error: &Error) -> HandshakeOutcome {
    match error {
        Error::NoCertificatesPresented => HandshakeOutcome::NoCertificate,
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::AlertReceived(alert) => of_alert(*alert),
        _ => HandshakeOutcome::Other,
    }
}

fn of_certificate(error: &CertificateError) -> HandshakeOutcome {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => HandshakeOutcome::Expired,
        CertificateError::Other(other) => other
            .0
            .downcast_ref::<RefusedPeer>()
            .map_or(HandshakeOutcome::Untrusted, RefusedPeer::outcome),
        _ => HandshakeOutcome::Untrusted,
    }
}

fn of_alert(alert: AlertDescription) -> HandshakeOutcome {
    match alert {
        AlertDescription::CertificateRequired => HandshakeOutcome::NoCertificate,
        AlertDescription::CertificateExpired => HandshakeOutcome::Expired,
        AlertDescription::CertificateUnknown | AlertDescription::AccessDenied => {
            HandshakeOutcome::WrongIdentity
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::UnsupportedCertificate => HandshakeOutcome::Untrusted,
        _ => HandshakeOutcome::Other,
    }
}

/// A trusted certificate without one good SPIFFE id is an identity problem; the rest is unsound.
fn of_shape(reason: crate::leaf::InvalidSvid) -> HandshakeOutcome {
    use crate::leaf::InvalidSvid as Reason;
    match reason {
        Reason::NoUri | Reason::SeveralUris | Reason::Id(_) | Reason::NoPath => {
            HandshakeOutcome::WrongIdentity
        }
        _ => HandshakeOutcome::Untrusted,
    }
}
