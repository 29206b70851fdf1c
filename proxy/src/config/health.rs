//! `inbound.ports[].health`: how the application's health is found out, as it
//! is written, checked and built. The keys are those of a policy's
//! `healthCheck`, and a word may stand for the mapping.

use std::fmt;
use std::time::Duration;

use selvage_core::resource::health_check::{GrpcCheck, HealthCheck as Written, Nothing};
use selvage_core::resource::status::StatusRange;
use selvage_policy::failures::StatusSet;
use selvage_policy::health::{HealthCheck, Pace, Question};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::check::Findings;

/// An application that missed one check may only have been busy; one that
/// missed two is told to the registry.
const UNHEALTHY_THRESHOLD: u32 = 2;
/// It is beside us: one answer is enough to believe it.
const HEALTHY_THRESHOLD: u32 = 1;
const JITTER_PERCENT: u8 = 10;

/// A word (`tcp`, `grpc`, `off`), or a mapping with one of `tcp`, `http`, `grpc`, `off`.
#[derive(Debug, Clone, Default)]
pub(super) struct PortHealth(Written);

impl PortHealth {
    /// Reports what contradicts itself. `path` is where it stands.
    pub(super) fn check(&self, path: &str, found: &mut Findings) {
        for (field, message) in self.0.contradictions() {
            let dot = if field.is_empty() { "" } else { "." };
            found.add(format!("{path}{dot}{field}"), message);
        }
    }

    /// With its defaults; `None` where nobody asks.
    pub(super) fn build(&self) -> Option<HealthCheck> {
        let Self(written) = self;
        let question = match written {
            Written { off: Some(_), .. } => return None,
            Written {
                grpc: Some(grpc), ..
            } => Question::Grpc {
                service: grpc.service.as_str().into(),
            },
            Written {
                http: Some(http), ..
            } => Question::Http {
                path: http.path.as_str().into(),
                host: http.host.as_deref().map(Into::into),
                expected: expected(http.expected_statuses.as_deref()),
            },
            _ => Question::Tcp,
        };
        let jitter = written.jitter.map_or(JITTER_PERCENT, |jitter| jitter.0);
        Some(HealthCheck {
            question,
            pace: Pace {
                interval: Duration::from(written.interval()),
                jitter_percent: jitter.into(),
                timeout: Duration::from(written.timeout()),
                unhealthy_threshold: written.unhealthy_threshold.unwrap_or(UNHEALTHY_THRESHOLD),
                healthy_threshold: written.healthy_threshold.unwrap_or(HEALTHY_THRESHOLD),
            },
        })
    }
}

/// 2xx and 3xx where nothing is said.
fn expected(given: Option<&[StatusRange]>) -> StatusSet {
    let usual = StatusSet::EMPTY.with(200, 399);
    given.map_or(usual, |ranges| {
        let none = StatusSet::EMPTY;
        ranges
            .iter()
            .fold(none, |set, range| set.with(range.first, range.last))
    })
}

impl<'de> Deserialize<'de> for PortHealth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Health;
        impl<'de> Visitor<'de> for Health {
            type Value = PortHealth;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`tcp`, `grpc`, `off`, or a mapping such as {http: {path: /health}}")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<PortHealth, E> {
                // What YAML 1.1 makes of a bare `off`.
                self.visit_str(if value { "on" } else { "off" })
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<PortHealth, E> {
                let mut health = Written::default();
                match word {
                    "tcp" => health.tcp = Some(Nothing {}),
                    "grpc" => health.grpc = Some(GrpcCheck::default()),
                    "off" => health.off = Some(Nothing {}),
                    _ => return Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
                Ok(PortHealth(health))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PortHealth, A::Error> {
                Written::deserialize(MapAccessDeserializer::new(map)).map(PortHealth)
            }
        }
        deserializer.deserialize_any(Health)
    }
}
