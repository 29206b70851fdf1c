//! PEM: text around DER. Reading is left to `rustls-pki-types`; writing is here, into memory that
//! is wiped when it goes, because one of the things written is a private key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

const LINE: usize = 64;

/// Appends one PEM block to `out`. The capacity is taken at once, so that no half-grown copy of a
/// key is left behind by a reallocation.
pub(crate) fn encode(out: &mut Zeroizing<String>, label: &str, der: &[u8]) {
    let body = Zeroizing::new(STANDARD.encode(der));
    let lines = body.len().div_ceil(LINE);
    let mut grown = Zeroizing::new(String::with_capacity(
        out.len() + body.len() + lines + 2 * label.len() + 40,
    ));
    grown.push_str(out);
    grown.push_str(&format!("-----BEGIN {label}-----\n"));
    for start in (0..body.len()).step_by(LINE) {
        grown.push_str(&body[start..body.len().min(start + LINE)]);
        grown.push('\n');
    }
    grown.push_str(&format!("-----END {label}-----\n"));
    *out = grown;
}

/// Certificates as PEM text, in the order given.
pub fn certificates_to_pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut out = Zeroizing::new(String::new());
    for certificate in certificates {
        encode(&mut out, "CERTIFICATE", certificate);
    }
    out.to_string()
}

/// At most `limit` certificates of a PEM text; `None` where it is malformed or holds more.
pub(crate) fn certificates(text: &[u8], limit: usize) -> Option<Vec<CertificateDer<'static>>> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text) {
        if found.len() == limit {
            return None;
        }
        found.push(certificate.ok()?);
    }
    Some(found)
}
