//! `validate`, `apply` and `diff`: files of resources, offline and against the control plane.
//!
//! Parsing and judging is `selvage-core`'s, here as there; this names files, sends, and prints.

use std::collections::BTreeSet;

use hyper::{Method, StatusCode};
use selvage_core::diagnostic::Diagnostics;
use selvage_core::resource::{Resource, Spec};
use selvage_core::world::{Apply, World};
use serde_json::{Value, json};

use super::Outcome;
use super::status::list;
use crate::args::{FileArgs, Files, Format, ValidateArgs};
use crate::client::{Answer, Client};
use crate::source::{self, Source};
use crate::{args::OperatorArgs, print};

/// The trust domain of a mesh that names none.
const DEFAULT_TRUST_DOMAIN: &str = "mesh.local";

/// `selvage validate`: what a control plane that knows only these files would say.
pub(crate) fn validate(args: &ValidateArgs) -> anyhow::Result<Outcome> {
    let sources = source::read(&args.files.files)?;
    match judge(&sources, args) {
        Ok((count, warnings)) => {
            let answer = json!({ "valid": true, "resources": count, "warnings": warnings });
            if args.output.output == Format::Table {
                print::say(&warnings.render(print::colour()));
            }
            print::answer(args.output.output, &answer, || {
                format!(
                    "{count} valid resource{}\n",
                    if count == 1 { "" } else { "s" }
                )
            });
            Ok(Outcome::Holds)
        }
        Err(found) => Ok(refused(args.output.output, &found)),
    }
}

fn judge(sources: &[Source], args: &ValidateArgs) -> Result<(usize, Diagnostics), Diagnostics> {
    let resources = parse(sources)?;
    let count = resources.len();
    let given = resources.iter().find_map(|resource| match &resource.spec {
        Spec::MeshConfig(spec) => spec.trust_domain.clone(),
        _ => None,
    });
    let name = args
        .trust_domain
        .clone()
        .or(given)
        .unwrap_or_else(|| DEFAULT_TRUST_DOMAIN.to_owned());
    let trust_domain = name
        .parse()
        .map_err(|error| named("--trust-domain", &format!("`{name}`: {error}")))?;
    let registered = BTreeSet::new();
    let how = Apply {
        first_stamp: 0,
        registered: &registered,
        strict: args.files.strict,
    };
    let (_, change) = World::new(trust_domain).plan(resources, how)?;
    Ok((count, change.warnings))
}

fn named(source: &str, message: &str) -> Diagnostics {
    use selvage_core::diagnostic::{Diagnostic, Place};
    Diagnostic::error(&Place::of_source(source), "", message).into()
}

fn parse(sources: &[Source]) -> Result<Vec<Resource>, Diagnostics> {
    selvage_core::parse::parse_all(
        sources
            .iter()
            .map(|source| (source.name.as_str(), source.text.as_str())),
    )
}

fn refused(format: Format, found: &Diagnostics) -> Outcome {
    match format {
        Format::Table => print::say(&found.render(print::colour())),
        _ => print::answer(
            format,
            &json!({ "valid": false, "errors": found }),
            String::new,
        ),
    }
    Outcome::Finding
}

/// `selvage apply`.
pub(crate) async fn apply(args: &FileArgs) -> anyhow::Result<Outcome> {
    let Some((_, answer)) = send(args, false).await? else {
        return Ok(Outcome::Finding);
    };
    print::answer(args.operator.output.output, &answer.body, || {
        let lines = results(&answer.body)
            .map(|result| format!("{} {}\n", name(result), print::cell(&result["action"])));
        let lines: String = lines.collect();
        if lines.is_empty() {
            "nothing to apply\n".to_owned()
        } else {
            lines
        }
    });
    Ok(Outcome::Holds)
}

/// `selvage diff`.
pub(crate) async fn diff(args: &FileArgs) -> anyhow::Result<Outcome> {
    let Some((given, answer)) = send(args, true).await? else {
        return Ok(Outcome::Finding);
    };
    let client = Client::new(&args.operator)?;
    let mut differences = Vec::new();
    for result in results(&answer.body).filter(|result| result["action"] != "unchanged") {
        let mut changes = Vec::new();
        if result["action"] == "configured" {
            let path = super::objects::path(&result["kind"], &result["namespace"], &result["name"]);
            let stored = client.get(&path).await?;
            let new = given
                .iter()
                .find(|resource| name(&json!(resource.key)) == name(result));
            if let (StatusCode::OK, Some(new)) = (stored.status, new) {
                compare(
                    "",
                    Some(&stored.body["document"]),
                    Some(&new.shown()),
                    &mut changes,
                );
            }
        }
        let mut difference = result.clone();
        difference["changes"] = Value::from(changes);
        differences.push(difference);
    }
    let outcome = if differences.is_empty() {
        Outcome::Holds
    } else {
        Outcome::Finding
    };
    print::answer(
        args.operator.output.output,
        &json!({ "differences": differences }),
        || draw(&differences),
    );
    Ok(outcome)
}

fn draw(differences: &[Value]) -> String {
    let mut text = String::new();
    for difference in differences {
        let what = if difference["action"] == "created" {
            "would be created"
        } else {
            "would be changed"
        };
        text.push_str(&format!("{} {what}\n", name(difference)));
        for change in list(&difference["changes"]) {
            let value = |value: &Value| {
                if value.is_null() {
                    "(absent)".to_owned()
                } else {
                    value.to_string()
                }
            };
            text.push_str(&format!(
                "  {}: {} → {}\n",
                print::cell(&change["path"]),
                value(&change["old"]),
                value(&change["new"])
            ));
        }
    }
    if text.is_empty() {
        "no difference\n".to_owned()
    } else {
        text
    }
}

/// Notes every leaf that differs, as path, old and new value.
fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Value>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let below = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                compare(&below, a.get(key), b.get(key), changes);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                compare(
                    &format!("{path}[{index}]"),
                    a.get(index),
                    b.get(index),
                    changes,
                );
            }
        }
        _ => changes.push(json!({ "path": path, "old": old, "new": new })),
    }
}

/// Sends the files to be applied; none where something was found, which is then printed.
async fn send(args: &FileArgs, dry_run: bool) -> anyhow::Result<Option<(Vec<Resource>, Answer)>> {
    let FileArgs {
        files: Files { files, strict },
        operator,
    } = args;
    let sources = source::read(files)?;
    // What cannot be parsed here could not be parsed there: here its files have names.
    let given = match parse(&sources) {
        Ok(given) => given,
        Err(found) => {
            refused(operator.output.output, &found);
            return Ok(None);
        }
    };
    let path = format!("/api/v1/apply?dryRun={dry_run}&strict={strict}");
    let client = Client::new(operator)?;
    let mut answer = client
        .call(
            Method::POST,
            &path,
            "application/yaml",
            source::join(&sources),
        )
        .await?;
    if answer.status.is_success() {
        rename(&mut answer.body["warnings"], &sources);
        tell(&answer.body["warnings"], operator);
        return Ok(Some((given, answer)));
    }
    if answer.status != StatusCode::UNPROCESSABLE_ENTITY {
        anyhow::bail!("{}", answer.complaint());
    }
    rename(&mut answer.body["diagnostics"], &sources);
    tell(&answer.body["diagnostics"], operator);
    if operator.output.output != Format::Table {
        print::answer(operator.output.output, &answer.body, String::new);
    }
    Ok(None)
}

/// The control plane saw one text; its places become places in the files.
fn rename(found: &mut Value, sources: &[Source]) {
    for diagnostic in found.as_array_mut().into_iter().flatten() {
        let line = diagnostic["line"]
            .as_u64()
            .and_then(|line| usize::try_from(line).ok());
        if let Some((name, line)) = line
            .filter(|&line| line > 0)
            .and_then(|line| source::place(sources, line))
        {
            diagnostic["source"] = Value::from(name);
            diagnostic["line"] = Value::from(line);
        }
    }
}

/// Prints what the control plane found, for people.
fn tell(found: &Value, operator: &OperatorArgs) {
    if operator.output.output != Format::Table {
        return;
    }
    for diagnostic in list(found) {
        let text = |key: &str| print::cell(&diagnostic[key]);
        let mut lines = format!("{}: {}\n", text("severity"), text("message"));
        lines.push_str(&format!(
            "  --> {}:{}:{}",
            text("source"),
            text("line"),
            text("column")
        ));
        if diagnostic["path"]
            .as_str()
            .is_some_and(|path| !path.is_empty())
        {
            lines.push_str(&format!(" {}", text("path")));
        }
        if diagnostic["help"].is_string() {
            lines.push_str(&format!("\n  help: {}", text("help")));
        }
        print::say(&lines);
    }
}

fn results(body: &Value) -> impl Iterator<Item = &Value> {
    list(&body["results"]).iter()
}

/// `TrafficPolicy shop/ratings`
fn name(result: &Value) -> String {
    let text = |key: &str| print::cell(&result[key]);
    format!("{} {}/{}", text("kind"), text("namespace"), text("name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_names_the_leaves_that_differ() {
        let old = json!({ "spec": { "retry": { "attempts": 2, "on": [503] }, "gone": 1 } });
        let new =
            json!({ "spec": { "retry": { "attempts": 3, "on": [503, 504] }, "came": { "a": 1 } } });
        let mut changes = Vec::new();
        compare("", Some(&old), Some(&new), &mut changes);
        let lines = draw(&[
            json!({ "kind": "K", "namespace": "n", "name": "x", "action": "configured", "changes": changes }),
        ]);
        assert_eq!(
            lines,
            "K n/x would be changed\n  spec.came: (absent) → {\"a\":1}\n  spec.gone: 1 → (absent)\n  \
             spec.retry.attempts: 2 → 3\n  spec.retry.on[1]: (absent) → 504\n"
        );
    }
}
