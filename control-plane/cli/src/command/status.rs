//! `status` and `ca show`: what the control plane says of the mesh and of itself, as tables.

use serde_json::{Value, json};

use super::Outcome;
use crate::args::OperatorArgs;
use crate::client::Client;
use crate::print::{self, cell};

/// `selvage status`.
pub(crate) async fn status(args: &OperatorArgs) -> anyhow::Result<Outcome> {
    let client = Client::new(args)?;
    let services = fetch(&client, "/api/v1/services").await?;
    let proxies = fetch(&client, "/api/v1/proxies").await?;
    let (ready, _) = client.text("/ready").await?;
    let answer = json!({
        "server": client.url(), "ready": ready.is_success(), "services": services, "proxies": proxies,
    });
    print::answer(args.output.output, &answer, || {
        let ready = if ready.is_success() {
            "ready"
        } else {
            "not ready"
        };
        format!(
            "control plane {} is {ready}\n\n{}\n{}",
            client.url(),
            draw_services(&services),
            draw_proxies(&proxies)
        )
    });
    Ok(Outcome::Holds)
}

/// The items of a list of the operator API.
pub(crate) async fn fetch(client: &Client, path: &str) -> anyhow::Result<Vec<Value>> {
    let answer = client.get(path).await?;
    anyhow::ensure!(answer.status.is_success(), "{}", answer.complaint());
    Ok(list(&answer.body["items"]).to_vec())
}

/// The elements of a list; none where there is no list.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn draw_services(services: &[Value]) -> String {
    let rows: Vec<Vec<String>> = services
        .iter()
        .map(|service| {
            let workloads = list(&service["workloads"]);
            let healthy = workloads
                .iter()
                .filter(|workload| workload["healthy"] == true)
                .count();
            let mut ports: Vec<String> = workloads
                .iter()
                .flat_map(|workload| list(&workload["ports"]))
                .map(|port| cell(&port["service_port"]))
                .collect();
            ports.sort();
            ports.dedup();
            vec![
                format!("{}/{}", cell(&service["namespace"]), cell(&service["name"])),
                if ports.is_empty() {
                    "-".to_owned()
                } else {
                    ports.join(",")
                },
                format!("{healthy} of {}", workloads.len()),
                if service["documented"] == true {
                    "yes"
                } else {
                    "no"
                }
                .to_owned(),
            ]
        })
        .collect();
    let headings = ["service", "ports", "healthy workloads", "document"];
    print::table(&headings, &rows, "no services")
}

fn draw_proxies(proxies: &[Value]) -> String {
    let rows: Vec<Vec<String>> = proxies
        .iter()
        .map(|proxy| {
            let nacks = proxy["nacks"].as_array().map_or(0, Vec::len);
            vec![
                cell(&proxy["workload"]),
                cell(&proxy["identity"]),
                cell(&proxy["version"]),
                cell(&proxy["acked"]),
                if nacks == 0 {
                    "ok".to_owned()
                } else {
                    format!("{nacks} refused")
                },
                cell(&proxy["connectedSince"]),
            ]
        })
        .collect();
    print::table(
        &[
            "proxy",
            "identity",
            "version",
            "revision",
            "configuration",
            "connected since",
        ],
        &rows,
        "no proxies",
    )
}

/// `selvage ca show`.
pub(crate) async fn ca(args: &OperatorArgs) -> anyhow::Result<Outcome> {
    let client = Client::new(args)?;
    let answer = client.get("/api/v1/ca").await?;
    anyhow::ensure!(answer.status.is_success(), "{}", answer.complaint());
    print::answer(args.output.output, &answer.body, || {
        let mut rows = Vec::new();
        leaves("", &answer.body, &mut rows);
        print::table(&["field", "value"], &rows, "nothing to show")
    });
    Ok(Outcome::Holds)
}

/// Every leaf of a value, with its path.
fn leaves(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let below = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| leaves(&below(key), value, rows)),
        Value::Array(items) if items.iter().any(|item| item.is_object()) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| leaves(&below(&index.to_string()), value, rows));
        }
        // PEM and the like belong to `-o json`.
        Value::String(text) if text.contains('\n') => {}
        leaf => rows.push(vec![path.to_owned(), cell(leaf)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_drawn_with_its_ports_and_healthy_workloads() {
        let workload =
            |healthy: bool| json!({ "healthy": healthy, "ports": [{ "service_port": 80 }] });
        let service = json!({
            "namespace": "shop", "name": "orders", "documented": false,
            "workloads": [workload(true), workload(false)],
        });
        let drawn = draw_services(&[service]);
        assert!(drawn.contains("shop/orders  80     1 of 2"), "{drawn}");
    }

    #[test]
    fn a_certificate_is_shown_without_its_pem() {
        let mut rows = Vec::new();
        leaves(
            "",
            &json!({ "root": { "subject": "x", "pem": "-----\nAAA" }, "list": [{ "n": 1 }] }),
            &mut rows,
        );
        assert_eq!(rows, [["list.0.n", "1"], ["root.subject", "x"]]);
    }
}
