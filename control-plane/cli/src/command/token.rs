//! `token create`: one join token on stdout, so that a shell can put it into a file.

use hyper::Method;
use serde_json::json;

use super::Outcome;
use crate::args::TokenArgs;
use crate::client::Client;
use crate::print;

/// `selvage token create`.
pub(crate) async fn create(args: &TokenArgs) -> anyhow::Result<Outcome> {
    if !args
        .workload
        .split_once('/')
        .is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
    {
        print::say("error: --workload is a namespace and a service account, as in shop/orders");
        return Ok(Outcome::WrongUsage);
    }
    let mut body = json!({
        "workload": args.workload,
        "ttl": args.ttl.to_string(),
        "uses": args.uses,
    });
    if !args.services.is_empty() {
        body["services"] = json!(args.services);
    }
    let client = Client::new(&args.operator)?;
    let answer = client
        .call(
            Method::POST,
            "/api/v1/tokens",
            "application/json",
            body.to_string(),
        )
        .await?;
    anyhow::ensure!(answer.status.is_success(), "{}", answer.complaint());
    let token = print::cell(&answer.body["token"]);
    print::answer(args.operator.output.output, &answer.body, || {
        format!("{token}\n")
    });
    Ok(Outcome::Holds)
}
