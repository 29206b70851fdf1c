//! `get` and `delete`: single resources, and lists of them.
//!
//! It refuses to know what resources say: a list shows what they are known by.

use hyper::{Method, StatusCode};
use selvage_core::nearest::nearest;
use selvage_core::resource::{DEFAULT_NAMESPACE, ResourceKind};
use serde_json::{Value, json};

use super::Outcome;
use super::status::{fetch, list};
use crate::args::{Format, GetArgs};
use crate::client::Client;
use crate::print::{self, cell};

/// What is asked for: a kind, and a name of it.
struct Target {
    kind: ResourceKind,
    name: Option<String>,
}

/// Reads `KIND[/NAME]`; what is wrong with it is told, and then there is none.
fn target(text: &str) -> Option<Target> {
    let (kind, name) = match text.split_once('/') {
        Some((kind, name)) => (kind, Some(name.to_owned())),
        None => (text, None),
    };
    let known = ResourceKind::parse(kind);
    if known.is_none() {
        let names = ResourceKind::ALL.map(ResourceKind::as_str);
        let help = match nearest(kind, names) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", names.join(", ")),
        };
        print::say(&format!("error: unknown kind {kind}: {help}"));
    }
    let name = name.filter(|name| !name.is_empty());
    known.map(|kind| Target { kind, name })
}

/// The path of one resource in the operator API.
pub(crate) fn path(kind: &Value, namespace: &Value, name: &Value) -> String {
    let part = |value: &Value| encode(value.as_str().unwrap_or_default());
    format!("/api/v1/{}/{}/{}", part(kind), part(namespace), part(name))
}

/// Names are DNS labels: whatever else a person types must not become another path.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// `selvage get`.
pub(crate) async fn get(args: &GetArgs) -> anyhow::Result<Outcome> {
    let Some(Target { kind, name }) = target(&args.target) else {
        return Ok(Outcome::WrongUsage);
    };
    let client = Client::new(&args.operator)?;
    let format = args.operator.output.output;
    let Some(name) = name else {
        let all = fetch(&client, &format!("/api/v1/{kind}")).await?;
        let wanted = |item: &&Value| {
            args.namespace
                .as_ref()
                .is_none_or(|wanted| item["namespace"] == wanted.as_str())
        };
        let items: Vec<&Value> = all.iter().filter(wanted).collect();
        let documents = || items.iter().map(|item| print::yaml(&document(item)));
        match format {
            Format::Yaml => print::text(&documents().collect::<Vec<_>>().join("---\n")),
            Format::Json => print::answer(format, &json!(items), String::new),
            Format::Table => {
                let rows: Vec<Vec<String>> = items.iter().map(|item| row(item)).collect();
                let headings = ["namespace", "name", "from", "conditions"];
                print::text(&print::table(&headings, &rows, &format!("no {kind}")));
            }
        }
        return Ok(Outcome::Holds);
    };
    let namespace = args.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let answer = client
        .get(&format!(
            "/api/v1/{kind}/{}/{}",
            encode(namespace),
            encode(&name)
        ))
        .await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(absent(kind, namespace, &name));
    }
    anyhow::ensure!(answer.status.is_success(), "{}", answer.complaint());
    match format {
        Format::Json => print::answer(format, &answer.body, String::new),
        // One resource is shown as it was applied, and what is wrong with it beside that.
        Format::Yaml | Format::Table => {
            print::text(&print::yaml(&document(&answer.body)));
            let broken = conditions(&answer.body);
            if broken != "ok" {
                print::say(&format!("warning: {broken}"));
            }
        }
    }
    Ok(Outcome::Holds)
}

/// `selvage delete`.
pub(crate) async fn delete(args: &GetArgs) -> anyhow::Result<Outcome> {
    let Some(Target { kind, name }) = target(&args.target) else {
        return Ok(Outcome::WrongUsage);
    };
    let Some(name) = name else {
        print::say(&format!(
            "error: name the resource to delete, as in {kind}/NAME"
        ));
        return Ok(Outcome::WrongUsage);
    };
    let namespace = args.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let path = format!("/api/v1/{kind}/{}/{}", encode(namespace), encode(&name));
    let client = Client::new(&args.operator)?;
    let answer = client
        .call(Method::DELETE, &path, "application/json", String::new())
        .await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(absent(kind, namespace, &name));
    }
    anyhow::ensure!(answer.status.is_success(), "{}", answer.complaint());
    print::answer(args.operator.output.output, &answer.body, || {
        format!("{kind} {namespace}/{name} deleted\n")
    });
    Ok(Outcome::Holds)
}

fn absent(kind: ResourceKind, namespace: &str, name: &str) -> Outcome {
    print::say(&format!(
        "error: there is no {kind} {namespace}/{name}: `selvage get {kind}` lists those there are"
    ));
    Outcome::Finding
}

/// A resource as it was applied, with its `status` where it has one.
fn document(item: &Value) -> Value {
    let mut document = item["document"].clone();
    if let Some(status) = item.get("status") {
        document["status"] = status.clone();
    }
    document
}

fn row(item: &Value) -> Vec<String> {
    vec![
        cell(&item["namespace"]),
        cell(&item["name"]),
        cell(&item["source"]),
        conditions(item),
    ]
}

/// Conditions that do not hold, or `ok`.
fn conditions(item: &Value) -> String {
    let broken = list(&item["conditions"])
        .iter()
        .filter(|condition| condition["status"] == false);
    let broken: Vec<String> = broken
        .map(|condition| {
            format!(
                "{}: {}",
                cell(&condition["type"]),
                cell(&condition["message"])
            )
        })
        .collect();
    if broken.is_empty() {
        "ok".to_owned()
    } else {
        broken.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_kind_and_perhaps_a_name() {
        for (text, expected) in [
            ("TrafficPolicy", Some((ResourceKind::TrafficPolicy, None))),
            ("trafficpolicies", Some((ResourceKind::TrafficPolicy, None))),
            (
                "service/ratings",
                Some((ResourceKind::Service, Some("ratings"))),
            ),
            ("service/", Some((ResourceKind::Service, None))),
            ("httproutes", Some((ResourceKind::HttpRoute, None))),
            (
                "Gateway/public",
                Some((ResourceKind::Gateway, Some("public"))),
            ),
            ("UDPRoute", None),
            ("Pod", None),
            ("", None),
        ] {
            let found = target(text).map(|target| (target.kind, target.name));
            assert_eq!(
                found,
                expected.map(|(kind, name)| (kind, name.map(str::to_owned))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_row_names_the_conditions_that_do_not_hold() {
        let condition = |kind: &str, status: bool| json!({ "type": kind, "status": status, "message": "no such service" });
        let item = |conditions: &Value| json!({ "namespace": "shop", "name": "x", "source": "applied", "conditions": conditions });
        let good = item(&json!([condition("Accepted", true)]));
        assert_eq!(row(&good), ["shop", "x", "applied", "ok"]);
        let bad = item(&json!([
            condition("Accepted", true),
            condition("ResolvedRefs", false)
        ]));
        assert_eq!(row(&bad)[3], "ResolvedRefs: no such service");
    }

    #[test]
    fn a_name_never_becomes_another_path() {
        assert_eq!(encode("a/../b?c#d"), "a%2F..%2Fb%3Fc%23d");
        assert_eq!(encode("ratings-1"), "ratings-1");
    }
}
