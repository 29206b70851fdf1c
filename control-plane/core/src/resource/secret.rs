//! `Secret` of type `kubernetes.io/tls`: a certificate with its key, for the
//! listeners of gateways. The key is shown to nobody: not in diagnostics, not
//! in logs, not by the operator API; only the view of a gateway carries it.
//! Refuses to know other resources.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use selvage_certs::ServerPair;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Metadata;
use crate::config::Checker;
use crate::nearest::nearest;

/// The only type there is a use for.
pub const TLS: &str = "kubernetes.io/tls";
/// Under this name stands the chain, in PEM, leaf first.
pub const CERTIFICATE: &str = "tls.crt";
/// Under this name stands the key of the leaf, in PEM.
pub const KEY: &str = "tls.key";
/// Certificates of CAs, which issuers put beside the others. Nobody reads them here.
const AUTHORITY: &str = "ca.crt";

const NAMES: [&str; 3] = [CERTIFICATE, KEY, AUTHORITY];

/// A certificate and its key, as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSpec {
    kind: Option<String>,
    /// In base64.
    data: Texts,
    /// As they are; they count before `data`.
    string_data: Texts,
}

/// A `Secret` as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecretDocument {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    data: Texts,
    #[serde(default)]
    string_data: Texts,
}

impl From<SecretDocument> for (Metadata, SecretSpec) {
    fn from(document: SecretDocument) -> Self {
        let spec = SecretSpec {
            kind: document.kind,
            data: document.data,
            string_data: document.string_data,
        };
        (document.metadata, spec)
    }
}

impl SecretSpec {
    /// The chain, in PEM, leaf first.
    #[must_use]
    pub fn certificate(&self) -> Vec<u8> {
        self.value(CERTIFICATE).unwrap_or_default()
    }

    /// The key of the leaf, in PEM.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        self.value(KEY).unwrap_or_default()
    }

    fn value(&self, name: &str) -> Option<Vec<u8>> {
        let plain = self.string_data.0.get(name);
        let plain = plain.map(|text| text.clone().into_bytes());
        plain.or_else(|| decoded(self.data.0.get(name)?))
    }

    fn path(&self, name: &str) -> String {
        let list = match self.string_data.0.contains_key(name) {
            true => "stringData",
            false => "data",
        };
        format!("{list}.{name}")
    }

    pub(crate) fn check(&self, _own_namespace: &str, check: &mut Checker<'_>) {
        if self.kind.as_deref() != Some(TLS) {
            let found = self.kind.as_deref().unwrap_or("none");
            let message = format!("expected a Secret of type `{TLS}`, found `{found}`");
            check.error("type", message);
            return;
        }
        for (list, texts) in [("data", &self.data), ("stringData", &self.string_data)] {
            for name in texts
                .0
                .keys()
                .filter(|name| !NAMES.contains(&name.as_str()))
            {
                let help = match nearest(name, NAMES) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are `{}`", NAMES.join("`, `")),
                };
                let message = format!("`{name}` is not part of a Secret of type `{TLS}`");
                check.error_with_help(format!("{list}.{name}"), message, help);
            }
        }
        for (name, text) in &self.data.0 {
            let message = format!("`data.{name}` is not base64");
            check.require(decoded(text).is_some(), format!("data.{name}"), message);
        }
        for name in [CERTIFICATE, KEY] {
            let given = self.string_data.0.contains_key(name) || self.data.0.contains_key(name);
            check.require(given, "data", format!("the key `{name}` is missing"));
        }
        if let (Some(certificate), Some(key)) = (self.value(CERTIFICATE), self.value(KEY))
            && let Err(invalid) = ServerPair::parse(&certificate, &key)
        {
            let name = if invalid.is_of_chain() {
                CERTIFICATE
            } else {
                KEY
            };
            check.error(self.path(name), format!("`{name}`: {invalid}"));
        }
    }
}

/// The bytes of a base64 text, which may be broken into lines.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let whole: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(whole).ok()
}

/// A Secret's document as it may be shown: each value of a key is a fingerprint
/// instead, so that a change of it can be seen.
pub(super) fn hide(document: &Value) -> Value {
    let mut shown = document.clone();
    // What applied it elsewhere may have written all of it there.
    if let Some(metadata) = shown.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("annotations");
    }
    for list in ["data", "stringData"] {
        let Some(texts) = shown.get_mut(list).and_then(Value::as_object_mut) else {
            continue;
        };
        for (_, value) in texts.iter_mut().filter(|(name, _)| *name == KEY) {
            let text = value.as_str().unwrap_or_default();
            let hash = Sha256::digest(text.as_bytes());
            let start: String = hash.iter().take(8).map(|b| format!("{b:02x}")).collect();
            *value = Value::from(format!("(hidden, sha256 {start}…)"));
        }
    }
    shown
}

/// Texts by name. What it says of a malformed one repeats none of it, and its
/// `Debug` shows the names alone.
#[derive(Clone, PartialEq, Eq, Default)]
struct Texts(BTreeMap<String, String>);

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of names to texts")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Texts, E> {
        Err(E::custom("expected a mapping of names to texts"))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Texts, E> {
        Ok(Texts::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some((name, text)) = map.next_entry::<String, String>()? {
            if texts.insert(name, text).is_some() {
                return Err(A::Error::custom("a name is given twice"));
            }
        }
        Ok(Texts(texts))
    }
}
