//! Records at rest: a version byte, then JSON. A record of an unknown version
//! is refused, never guessed at.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StoreError;

/// The version written in front of every record.
pub(super) const SCHEMA: u8 = 1;

/// Where a resource stands: kind, namespace (`""`: of the mesh) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(super) fn encode(&self) -> String {
        format!("{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// A resource as it was applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredResource {
    #[serde(flatten)]
    pub(crate) key: Key,
    /// Rank of its first apply; stays through later ones.
    pub(crate) order: u64,
    /// Of its last change.
    pub(crate) revision: u64,
    /// The document, as given.
    pub(crate) document: Value,
}

/// A join token; its key is the SHA-256 of its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Token {
    pub(crate) identity: String,
    /// Names of services in the identity's namespace it may register.
    pub(crate) services: Vec<String>,
    /// Seconds since the epoch.
    pub(crate) expires_at: u64,
    pub(crate) uses_left: u32,
}

/// What an identity may register; written when it attests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Binding {
    pub(crate) services: Vec<String>,
}

/// A certificate that was issued; recorded before it is handed out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Certificate {
    /// Hex.
    pub(crate) serial: String,
    pub(crate) identity: String,
    /// Seconds since the epoch.
    pub(crate) not_after: u64,
    /// `attest`, `renew`, `control-plane` or `intermediate`.
    pub(crate) kind: String,
}

pub(super) fn encode(record: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![SCHEMA];
    serde_json::to_writer(&mut bytes, record).expect("records have text keys and finite numbers");
    bytes
}

pub(super) fn decode<T: DeserializeOwned>(
    table: &'static str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&SCHEMA, body)) => {
            serde_json::from_slice(body).map_err(|_| StoreError::Damaged(table))
        }
        Some((&other, _)) => Err(StoreError::Schema(other)),
        None => Err(StoreError::Damaged(table)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_version_is_refused() {
        let binding = Binding {
            services: vec!["a".into()],
        };
        let mut bytes = encode(&binding);
        assert_eq!(decode::<Binding>("t", &bytes).ok(), Some(binding));
        bytes[0] = 9;
        assert!(matches!(
            decode::<Binding>("t", &bytes),
            Err(StoreError::Schema(9))
        ));
        assert!(matches!(
            decode::<Binding>("t", &[]),
            Err(StoreError::Damaged("t"))
        ));
        assert!(matches!(
            decode::<Binding>("t", &[SCHEMA, b'x']),
            Err(StoreError::Damaged("t"))
        ));
    }
}
