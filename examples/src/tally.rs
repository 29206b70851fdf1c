//! Counters that survive the restarts of those who count, and the report made of them. Pure.
//!
//! It stands between the scrapes and the report. It refuses to know where scrapes come from.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::exposition::Scrape;
use crate::role::load::{Counts, Kind, Seen};
use crate::schedule::Mode;

/// Breaker transitions by the state entered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Transitions {
    open: u64,
    half_open: u64,
    closed: u64,
}

/// What is summed over all processes of the mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    retries: f64,
    open: f64,
    half_open: f64,
    closed: f64,
    certificates: f64,
    /// Requests that inbound sides took, and those of them without a peer's identity.
    inbound: f64,
    anonymous: f64,
    handshakes: f64,
}

impl Sums {
    fn of(scrape: &Scrape) -> Self {
        let transitions = |to: &str| {
            scrape.sum("selvage_breaker_transitions_total", |sample| {
                sample.label("to") == to
            })
        };
        let inbound = |sample: &crate::exposition::Sample| sample.label("direction") == "inbound";
        Self {
            // The other outcomes say why no retry was sent.
            retries: scrape.sum("selvage_http_retries_total", |sample| {
                matches!(sample.label("outcome"), "success" | "failure")
            }),
            open: transitions("open"),
            half_open: transitions("half_open"),
            closed: transitions("closed"),
            certificates: scrape.sum("selvage_certificates_issued_total", |_| true),
            inbound: scrape.sum("selvage_http_requests_total", inbound),
            anonymous: scrape.sum("selvage_http_requests_total", |sample| {
                inbound(sample) && sample.label("source") == "-"
            }),
            handshakes: scrape.sum("selvage_tls_handshakes_total", |sample| {
                sample.label("side") == "server" && sample.label("outcome") == "ok"
            }),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            retries: self.retries + other.retries,
            open: self.open + other.open,
            half_open: self.half_open + other.half_open,
            closed: self.closed + other.closed,
            certificates: self.certificates + other.certificates,
            inbound: self.inbound + other.inbound,
            anonymous: self.anonymous + other.anonymous,
            handshakes: self.handshakes + other.handshakes,
        }
    }
}

/// One process's counts: of its earlier lives, and of this one.
#[derive(Debug, Default)]
struct Life {
    generation: u64,
    earlier: Sums,
    now: Sums,
}

/// The sums over every process that was ever scraped.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    lives: BTreeMap<String, Life>,
}

impl Tally {
    /// Notes a scrape of a process in its `generation`-th life.
    pub(crate) fn note(&mut self, process: &str, generation: u64, scrape: &Scrape) {
        let life = self.lives.entry(process.to_owned()).or_default();
        if life.generation != generation {
            life.earlier = life.earlier.plus(life.now);
            life.generation = generation;
        }
        life.now = Sums::of(scrape);
    }

    fn sums(&self) -> Sums {
        self.lives.values().fold(Sums::default(), |sums, life| {
            sums.plus(life.earlier).plus(life.now)
        })
    }

    /// Retries sent, by any sidecar.
    pub(crate) fn retries(&self) -> u64 {
        self.sums().retries as u64
    }

    /// Breaker transitions of all sidecars.
    pub(crate) fn transitions(&self) -> Transitions {
        let sums = self.sums();
        Transitions {
            open: sums.open as u64,
            half_open: sums.half_open as u64,
            closed: sums.closed as u64,
        }
    }

    /// Whether every request that an inbound side took came from a peer with an identity, over TLS.
    pub(crate) fn mtls(&self) -> bool {
        let sums = self.sums();
        sums.inbound > 0.0 && sums.anonymous == 0.0 && sums.handshakes > 0.0
    }

    /// The report of a run.
    pub(crate) fn report(&self, seen: &Seen, restarts: u64) -> Report {
        Report {
            requests: seen.all.requests,
            failures: seen.all.failures,
            retries: self.retries(),
            breaker_transitions: self.transitions(),
            p50_ms: seen.p50_ms,
            p99_ms: seen.p99_ms,
            certificates_issued: self.sums().certificates as u64,
            mtls: self.mtls(),
            failures_by_phase: Mode::ALL
                .into_iter()
                .map(|mode| {
                    (
                        mode,
                        seen.by_phase.get(&mode).map_or(0, |counts| counts.failures),
                    )
                })
                .collect(),
            by_kind: seen.by_kind.clone(),
            restarts,
        }
    }
}

/// What `--report` writes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    requests: u64,
    failures: u64,
    retries: u64,
    breaker_transitions: Transitions,
    p50_ms: f64,
    p99_ms: f64,
    certificates_issued: u64,
    mtls: bool,
    failures_by_phase: BTreeMap<Mode, u64>,
    by_kind: BTreeMap<Kind, Counts>,
    restarts: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(retries: u32) -> Scrape {
        Scrape::parse(&format!(
            "selvage_http_retries_total{{destination=\"shop/x\",outcome=\"success\"}} {retries}\n\
             selvage_http_retries_total{{destination=\"shop/x\",outcome=\"budget\"}} 100\n\
             selvage_breaker_transitions_total{{destination=\"shop/x\",to=\"half_open\"}} 2\n\
             selvage_tls_handshakes_total{{side=\"server\",outcome=\"ok\"}} 1\n\
             selvage_http_requests_total{{direction=\"inbound\",source=\"shop/load\"}} 5\n"
        ))
    }

    #[test]
    fn a_restart_loses_no_count() {
        let mut tally = Tally::default();
        tally.note("a", 0, &scrape(5));
        tally.note("b", 0, &scrape(1));
        tally.note("a", 0, &scrape(7));
        tally.note("a", 1, &scrape(2));
        assert_eq!(
            tally.retries(),
            10,
            "7 and 2 of a, 1 of b; what was not sent is no retry"
        );
        assert_eq!(tally.transitions().half_open, 6);
    }

    #[test]
    fn one_request_without_an_identity_is_no_mutual_tls() {
        let mut tally = Tally::default();
        assert!(!tally.mtls(), "nothing was seen");
        tally.note("a", 0, &scrape(0));
        assert!(tally.mtls());
        let anonymous = "selvage_http_requests_total{direction=\"inbound\",source=\"-\"} 1\n";
        tally.note("b", 0, &Scrape::parse(anonymous));
        assert!(!tally.mtls());
    }

    #[test]
    fn the_report_has_the_keys_that_are_promised() {
        let seen = Seen {
            all: Counts {
                requests: 9,
                failures: 1,
            },
            p50_ms: 1.0,
            p99_ms: 2.0,
            by_kind: BTreeMap::from([(
                Kind::Grpc,
                Counts {
                    requests: 9,
                    failures: 1,
                },
            )]),
            by_phase: BTreeMap::from([(
                Mode::Hang,
                Counts {
                    requests: 3,
                    failures: 1,
                },
            )]),
        };
        let report = serde_json::to_value(Tally::default().report(&seen, 0)).expect("serializes");
        for key in [
            "requests",
            "failures",
            "retries",
            "p50Ms",
            "p99Ms",
            "certificatesIssued",
        ] {
            assert!(report[key].is_number(), "{key} in {report}");
        }
        assert_eq!(report["breakerTransitions"]["half_open"], 0);
        assert_eq!(report["mtls"], false);
        assert_eq!(report["failuresByPhase"]["hang"], 1);
        assert_eq!(report["failuresByPhase"]["refuse"], 0);
        assert_eq!(report["byKind"]["grpc"]["requests"], 9);
    }
}
