//! `explain`: what would become of a request. The proxy's own library says so; this finds out what
//! is known, from files or from the control plane, and prints.

use std::time::Instant;

use selvage_core::diagnostic::Diagnostics;
use selvage_core::resource::{ResourceKind, ServiceName};
use selvage_proxy::explain::{Known, Question, explain};
use serde_json::{Value, json};

use super::Outcome;
use super::status::fetch;
use crate::args::RequestArgs;
use crate::client::Client;
use crate::{print, source};

/// `selvage explain request`.
pub(crate) async fn request(args: &RequestArgs) -> anyhow::Result<Outcome> {
    let Some(question) = question(args) else {
        return Ok(Outcome::WrongUsage);
    };
    let known = match known(args).await? {
        Ok(known) => known,
        Err(found) => {
            print::say(&found.render(print::colour()));
            return Ok(Outcome::WrongUsage);
        }
    };
    let explanation = match explain(&known, &question) {
        Ok(explanation) => explanation,
        Err(error) => {
            print::say(&format!("error: {error}"));
            return Ok(Outcome::WrongUsage);
        }
    };
    print::answer(args.operator.output.output, &json!(explanation), || {
        explanation.to_string()
    });
    Ok(if explanation.outcome.served {
        Outcome::Holds
    } else {
        Outcome::Finding
    })
}

/// What is asked; what is wrong with it is told, and then there is none.
fn question(args: &RequestArgs) -> Option<Question> {
    let gateway = match &args.gateway {
        Some(text) => Some(pair("--gateway", text)?),
        None => None,
    };
    let from = match &args.from {
        Some(text) => pair("--from", text)?,
        None => gateway.clone()?,
    };
    Some(Question {
        from,
        gateway,
        method: args.method.clone(),
        url: args.url.clone(),
        headers: args.headers.clone(),
    })
}

fn pair(option: &str, text: &str) -> Option<(String, String)> {
    let parsed = ServiceName::parse(text);
    if parsed.is_none() {
        print::say(&format!(
            "error: {option}: expected NAMESPACE/NAME, found {text}"
        ));
    }
    parsed.map(|it| (it.namespace, it.name))
}

async fn known(args: &RequestArgs) -> anyhow::Result<Result<Known, Diagnostics>> {
    let now = Instant::now();
    if !args.files.is_empty() {
        let sources = source::read(&args.files)?;
        let texts = sources
            .iter()
            .map(|source| (source.name.as_str(), source.text.as_str()));
        return Ok(Known::of_texts(texts, args.trust_domain.as_deref(), now));
    }
    let client = Client::new(&args.operator)?;
    let mut resources: Vec<Value> = Vec::new();
    for kind in ResourceKind::ALL {
        resources.extend(fetch(&client, &format!("/api/v1/{kind}")).await?);
    }
    let services = fetch(&client, "/api/v1/services").await?;
    let authority = client.get("/api/v1/ca").await?;
    anyhow::ensure!(authority.status.is_success(), "{}", authority.complaint());
    let domain = authority.body["trustDomain"].as_str().unwrap_or_default();
    Ok(Known::of_lists(&resources, &services, domain, now))
}
