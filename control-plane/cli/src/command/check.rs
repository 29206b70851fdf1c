//! `check`: what is wrong in the mesh, as far as the control plane can tell; every finding says what to do.
//!
//! Findings are made from what the operator API answers, without a further word to anyone.

use std::time::Duration;

use jiff::Timestamp;
use selvage_core::resource::ResourceKind;
use serde_json::{Value, json};

use super::Outcome;
use super::status::{fetch, list};
use crate::args::OperatorArgs;
use crate::client::Client;
use crate::print::{self, cell};

/// A certificate of the authority that ends sooner than this is a finding; it is renewed by itself
/// before, unless its whole life is shorter.
const NEAR_EXPIRY: Duration = Duration::from_secs(24 * 3600);

/// Something that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    what: String,
    help: String,
}

impl Finding {
    fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            help: help.into(),
        }
    }
}

/// `selvage check`.
pub(crate) async fn check(args: &OperatorArgs) -> anyhow::Result<Outcome> {
    let client = Client::new(args)?;
    let mut findings = Vec::new();
    let (ready, reasons) = client.text("/ready").await?;
    if !ready.is_success() {
        let reasons = cell(&Value::from(reasons.trim()));
        let what = format!(
            "the control plane at {} is not ready: {reasons}",
            client.url()
        );
        findings.push(Finding::new(what, "wait until it is, or read its log"));
    }
    let answer = client.get("/api/v1/services").await?;
    anyhow::ensure!(answer.status.is_success(), "{}", answer.complaint());
    let services = list(&answer.body["items"]);
    findings.extend(frozen(&answer.body["expiryFrozen"]));
    let proxies = fetch(&client, "/api/v1/proxies").await?;
    for kind in ResourceKind::ALL {
        findings.extend(of_resources(
            &fetch(&client, &format!("/api/v1/{kind}")).await?,
        ));
    }
    findings.extend(of_services(services));
    findings.extend(of_proxies(services, &proxies));
    let authority = client.get("/api/v1/ca").await?;
    if authority.status.is_success() {
        findings.extend(of_authority(&authority.body, Timestamp::now()));
    } else {
        findings.push(Finding::new(
            authority.complaint(),
            "read the control plane's log",
        ));
    }
    let items: Vec<Value> = findings
        .iter()
        .map(|finding| json!({ "finding": finding.what, "help": finding.help }))
        .collect();
    let answer = json!({
        "server": client.url(), "services": services.len(), "proxies": proxies.len(), "findings": items,
    });
    print::answer(args.output.output, &answer, || {
        draw(&findings, services.len(), proxies.len())
    });
    Ok(if findings.is_empty() {
        Outcome::Holds
    } else {
        Outcome::Finding
    })
}

fn draw(findings: &[Finding], services: usize, proxies: usize) -> String {
    let mut text =
        format!("control plane reachable; {services} services, {proxies} proxies connected\n");
    for finding in findings {
        text.push_str(&format!("✗ {}\n  {}\n", finding.what, finding.help));
    }
    if findings.is_empty() {
        text.push_str("nothing is wrong\n");
    }
    text
}

/// The alarm of the registry: so many leases lapsed at once that none is ended any more.
fn frozen(alarm: &Value) -> Option<Finding> {
    let silent = alarm["silent"].as_u64()?;
    let what = format!(
        "{silent} of {} workloads fell silent at once; no lease is ended meanwhile",
        cell(&alarm["of"])
    );
    let help = "see what they have in common: their network to the control plane, or the machine they run on";
    Some(Finding::new(what, help))
}

fn of_services(services: &[Value]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for service in services {
        let name = format!("{}/{}", cell(&service["namespace"]), cell(&service["name"]));
        let workloads = list(&service["workloads"]);
        let ill: Vec<&Value> = workloads
            .iter()
            .filter(|workload| workload["healthy"] != true)
            .collect();
        // A documented service may have all its endpoints in its document.
        if !ill.is_empty() && ill.len() == workloads.len() && service["documented"] != true {
            let help = "look at its applications: their sidecars report them unhealthy, or have stopped reporting";
            findings.push(Finding::new(
                format!("service {name} has no healthy workload"),
                help,
            ));
            continue;
        }
        for workload in ill {
            let why = if workload["lapsed"] == true {
                "has stopped reporting"
            } else {
                "is unhealthy"
            };
            let what = format!("workload {} of {name} {why}", cell(&workload["workload"]));
            findings.push(Finding::new(
                what,
                "look at that application and its sidecar; the others serve meanwhile",
            ));
        }
    }
    findings
}

fn of_proxies(services: &[Value], proxies: &[Value]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for service in services {
        for workload in list(&service["workloads"]) {
            let id = format!(
                "{}/{}",
                cell(&service["namespace"]),
                cell(&workload["workload"])
            );
            if !proxies.iter().any(|proxy| proxy["workload"] == id.as_str()) {
                let help = "it runs on with what it last knew: see whether its sidecar is alive and reaches the \
                    control plane's gRPC port";
                findings.push(Finding::new(
                    format!("the proxy of {id} is registered and not connected"),
                    help,
                ));
            }
        }
    }
    for proxy in proxies {
        let workload = cell(&proxy["workload"]);
        let nacks = list(&proxy["nacks"]);
        for nack in nacks {
            let (resource, revision) = (cell(&nack["resource"]), cell(&nack["revision"]));
            let what = format!(
                "{workload} refused {resource} of revision {revision}: {}",
                cell(&nack["reason"])
            );
            let help =
                "it runs on with the revision before: correct the resource, or update that proxy";
            findings.push(Finding::new(what, help));
        }
        if nacks.is_empty() && proxy["sent"].is_u64() && proxy["acked"] != proxy["sent"] {
            let (sent, acked) = (cell(&proxy["sent"]), cell(&proxy["acked"]));
            let what =
                format!("{workload} has not acknowledged revision {sent} (it is at {acked})");
            findings.push(Finding::new(
                what,
                "look again in a second; if it stays, read that proxy's log",
            ));
        }
    }
    findings
}

/// Resources with a condition that does not hold: a reference into nothing, a conflict.
fn of_resources(resources: &[Value]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for resource in resources {
        for condition in list(&resource["conditions"])
            .iter()
            .filter(|condition| condition["status"] == false)
        {
            let name = format!(
                "{} {}/{}",
                cell(&resource["kind"]),
                cell(&resource["namespace"]),
                cell(&resource["name"])
            );
            let what = format!(
                "{name} is not {}: {}",
                cell(&condition["type"]),
                cell(&condition["message"])
            );
            findings.push(Finding::new(what, "correct it, or apply what it refers to"));
        }
    }
    findings
}

fn of_authority(authority: &Value, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, key) in [
        ("root", "rootNotAfter"),
        ("intermediate", "intermediateNotAfter"),
    ] {
        let Some(Ok(end)) = authority[key].as_str().map(str::parse::<Timestamp>) else {
            continue;
        };
        let left = end.as_second() - now.as_second();
        if left <= 0 {
            let help = "no certificate under it is valid any more: read the control plane's log";
            findings.push(Finding::new(
                format!("the {name} certificate has expired"),
                help,
            ));
        } else if left.unsigned_abs() < NEAR_EXPIRY.as_secs() {
            let help = "the intermediate is renewed by itself and the root is not: read the control plane's log";
            findings.push(Finding::new(
                format!("the {name} certificate expires in {} min", left / 60),
                help,
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(workloads: &Value) -> Value {
        json!({ "namespace": "shop", "name": "orders", "documented": false, "workloads": workloads })
    }

    fn workload(name: &str, healthy: bool) -> Value {
        json!({ "workload": name, "healthy": healthy, "lapsed": false })
    }

    /// One finding with these words, or none.
    fn expect(findings: &[Finding], words: Option<&str>) {
        assert_eq!(findings.len(), usize::from(words.is_some()), "{findings:?}");
        assert!(
            findings
                .iter()
                .all(|found| found.what.contains(words.unwrap_or_default())),
            "{findings:?}"
        );
        assert!(
            findings.iter().all(|found| !found.help.is_empty()),
            "{findings:?}"
        );
    }

    #[test]
    fn a_workload_that_is_not_healthy_is_a_finding() {
        for (workloads, words) in [
            (json!([]), None),
            (
                json!([workload("a", false)]),
                Some("service shop/orders has no healthy workload"),
            ),
            (
                json!([workload("a", false), workload("b", true)]),
                Some("workload a of shop/orders is unhealthy"),
            ),
            (json!([workload("a", true)]), None),
        ] {
            expect(&of_services(&[service(&workloads)]), words);
        }
        expect(
            &Vec::from_iter(frozen(&json!({ "silent": 4, "of": 9 }))),
            Some("4 of 9 workloads"),
        );
        expect(&Vec::from_iter(frozen(&Value::Null)), None);
    }

    #[test]
    fn a_proxy_that_is_away_behind_or_refusing_is_a_finding() {
        let services = [service(&json!([workload("a", true)]))];
        let proxy = |sent: u64, acked: u64, nacks: &Value| json!({ "workload": "shop/a", "sent": sent, "acked": acked, "nacks": nacks });
        let nack = json!([{ "resource": "shop/x", "reason": "unknown feature", "revision": 4 }]);
        for (proxies, words) in [
            (vec![], Some("not connected")),
            (vec![proxy(4, 4, &json!([]))], None),
            (
                vec![proxy(4, 3, &json!([]))],
                Some("has not acknowledged revision 4 (it is at 3)"),
            ),
            (
                vec![proxy(4, 3, &nack)],
                Some("refused shop/x of revision 4: unknown feature"),
            ),
        ] {
            expect(&of_proxies(&services, &proxies), words);
        }
    }

    #[test]
    fn a_condition_that_does_not_hold_is_a_finding() {
        let resource = |status: bool| {
            let condition = json!({ "type": "ResolvedRefs", "status": status, "reason": "R", "message": "no shop/x" });
            [
                json!({ "kind": "TrafficPolicy", "namespace": "shop", "name": "p", "conditions": [condition] }),
            ]
        };
        expect(&of_resources(&resource(true)), None);
        expect(
            &of_resources(&resource(false)),
            Some("TrafficPolicy shop/p is not ResolvedRefs: no shop/x"),
        );
    }

    #[test]
    fn a_certificate_near_its_end_is_a_finding() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        for (end, words) in [
            ("2025-12-31T23:59:59Z", Some("root certificate has expired")),
            (
                "2026-01-01T02:00:00Z",
                Some("root certificate expires in 120 min"),
            ),
            ("2026-02-01T00:00:00Z", None),
        ] {
            expect(
                &of_authority(
                    &json!({ "rootNotAfter": end, "trustDomain": "mesh.local" }),
                    now,
                ),
                words,
            );
        }
    }
}
