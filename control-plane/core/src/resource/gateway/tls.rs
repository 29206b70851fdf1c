//! How a listener handles TLS: whether it ends there, and with which
//! certificates. Refuses to know whether these are there.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ListenerProtocol, Refused};
use crate::config::Checker;
use crate::nearest::nearest;
use crate::resource::{check_dns_label, is_dns_label};

/// Certificates of one listener, as in Gateway API.
const MAX_CERTIFICATES: usize = 64;
/// Longest path of a file.
const MAX_PATH_BYTES: usize = 4096;

/// The option that names a certificate's file, or the mesh's own certificate.
const CERTIFICATE: &str = "selvage.dev/certificate";
/// The option that names the file of the key.
const KEY: &str = "selvage.dev/key";

/// How a listener handles TLS.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// Where it ends.
    #[serde(default)]
    pub mode: TlsMode,
    /// Secrets with certificates; not read where TLS is passed through.
    #[serde(default)]
    pub certificate_refs: Vec<CertificateRef>,
    #[serde(default)]
    options: BTreeMap<String, String>,
    #[serde(rename = "frontendValidation")]
    _frontend_validation: Option<Refused>,
}

/// Where TLS ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum TlsMode {
    /// At the gateway.
    #[default]
    Terminate,
    /// At the backend.
    Passthrough,
}

/// A reference to a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CertificateRef {
    /// The core group if left out.
    pub group: Option<String>,
    /// `Secret` if left out. Others are taken, and cannot be used.
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// The gateway's own if left out.
    pub namespace: Option<String>,
}

/// A certificate that is no resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource<'s> {
    /// Files on the machine of the gateway.
    Files {
        /// The chain, in PEM.
        certificate: &'s str,
        /// The key, in PEM.
        key: &'s str,
    },
    /// The gateway's own identity.
    Mesh,
}

impl CertificateRef {
    /// Whether a Secret is meant.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        let group = self.group.as_deref().unwrap_or_default();
        self.kind.as_deref().is_none_or(|kind| kind == "Secret") && ["", "core"].contains(&group)
    }

    fn check(&self, path: &str, check: &mut Checker<'_>) {
        check_dns_label(check, format!("{path}.name"), &self.name);
        if let Some(namespace) = &self.namespace {
            check_dns_label(check, format!("{path}.namespace"), namespace);
        }
        if let Some(group) = &self.group {
            check.require(
                group.is_empty() || group.split('.').all(is_dns_label),
                format!("{path}.group"),
                format!("expected the name of a group, found `{group}`"),
            );
        }
        if let Some(kind) = &self.kind {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            check.require(
                (1..=63).contains(&kind.len()) && kind.bytes().all(allowed),
                format!("{path}.kind"),
                format!("expected the name of a kind, found `{kind}`"),
            );
        }
    }
}

impl ListenerTls {
    /// The certificate that its options name.
    #[must_use]
    pub fn source(&self) -> Option<CertificateSource<'_>> {
        let file = |key: &str| self.options.get(key)?.strip_prefix("file:");
        match self.options.get(CERTIFICATE)?.as_str() {
            "mesh" => Some(CertificateSource::Mesh),
            _ => Some(CertificateSource::Files {
                certificate: file(CERTIFICATE)?,
                key: file(KEY)?,
            }),
        }
    }

    pub(super) fn check(&self, path: &str, protocol: ListenerProtocol, check: &mut Checker<'_>) {
        let count = self.certificate_refs.len();
        check.require(
            count <= MAX_CERTIFICATES,
            format!("{path}.certificateRefs"),
            format!("expected at most {MAX_CERTIFICATES} certificates, found {count}"),
        );
        for (index, reference) in self.certificate_refs.iter().enumerate() {
            reference.check(&format!("{path}.certificateRefs[{index}]"), check);
        }
        match self.mode {
            TlsMode::Passthrough => check.require(
                protocol == ListenerProtocol::Tls,
                format!("{path}.mode"),
                "`Passthrough` is of protocol TLS: to speak HTTP, TLS ends at the gateway",
            ),
            TlsMode::Terminate => check.require(
                count > 0 || !self.options.is_empty(),
                path,
                "to terminate TLS, `certificateRefs` or `options` name a certificate",
            ),
        }
        self.check_options(&format!("{path}.options"), check);
    }

    fn check_options(&self, path: &str, check: &mut Checker<'_>) {
        for key in self.options.keys() {
            if ![CERTIFICATE, KEY].contains(&key.as_str()) {
                let near = nearest(key, [CERTIFICATE, KEY]).unwrap_or(CERTIFICATE);
                let help = format!("did you mean `{near}`?");
                check.error_with_help(path, format!("unknown option `{key}`"), help);
            }
        }
        if self.mode == TlsMode::Passthrough && !self.options.is_empty() {
            check.error(path, "where TLS is passed through, no certificate is shown");
        }
        let certificate = self.options.get(CERTIFICATE).map(String::as_str);
        let key = self.options.get(KEY).map(String::as_str);
        match (certificate, key) {
            (None, None) | (Some("mesh"), None) => {}
            (Some("mesh"), Some(_)) => check.error(
                path,
                format!("`{KEY}` is of a certificate in a file: the mesh's own has its key"),
            ),
            (Some(_), None) => check.error(path, format!("the option `{KEY}` is missing")),
            (None, Some(_)) => check.error(path, format!("the option `{CERTIFICATE}` is missing")),
            (Some(certificate), Some(key)) => {
                for (option, value) in [(CERTIFICATE, certificate), (KEY, key)] {
                    let file = value.strip_prefix("file:");
                    let fits = |file: &str| (1..=MAX_PATH_BYTES).contains(&file.len());
                    check.require(
                        file.is_some_and(fits) && !value.contains(char::is_control),
                        path,
                        format!("`{option}`: expected `file:` and a path, found `{value}`"),
                    );
                }
            }
        }
    }
}
