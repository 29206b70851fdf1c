//! Whether what came is what was due. Each judgement is a sentence when it is
//! not, and says nothing when it is.

use std::collections::BTreeMap;

use http::Uri;
use serde_json::Value;

use super::backend::{Arrival, text};
use super::caller::Came;
use super::case::{Condition, Expectation, Few, Redirected, Speaks};

/// By how many of a hundred a share may be off, unless the file says otherwise.
const TOLERANCE: f64 = 1.0;

/// What was asked, for the judgement of what came.
pub struct Asked<'a> {
    /// The host.
    pub host: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// What was due.
    pub due: &'a Expectation,
}

/// `name` is in `infra` unless it says where.
#[must_use]
pub fn full_name(name: &str) -> String {
    if name.contains('/') {
        name.to_owned()
    } else {
        format!("infra/{name}")
    }
}

impl Asked<'_> {
    /// What is wrong with one answer.
    #[must_use]
    pub fn judge(&self, came: &Came) -> Vec<String> {
        let mut wrong = Vec::new();
        self.status(came, &mut wrong);
        self.backend(came, &mut wrong);
        self.seen(&came.account, &mut wrong);
        self.answer(came, &mut wrong);
        if let Some(due) = &self.due.redirect {
            self.redirect(due, came, &mut wrong);
        }
        wrong
    }

    fn status(&self, came: &Came, wrong: &mut Vec<String>) {
        if self.due.speaks == Speaks::Tcp {
            return;
        }
        let usual = match self.due.speaks {
            Speaks::Websocket => 101,
            _ => 200,
        };
        let due = self.due.status.clone().unwrap_or(Few::One(usual));
        if !due.has(&came.status) {
            let flag = text(&came.headers, "x-selvage-flag");
            wrong.push(format!("status {} {flag}, expected {due:?}", came.status));
        }
        let grpc = self
            .due
            .grpc
            .or((self.due.speaks == Speaks::Grpc && self.due.status.is_none()).then_some(0));
        if grpc.is_some() && came.grpc != grpc {
            wrong.push(format!("grpc-status {:?}, expected {grpc:?}", came.grpc));
        }
    }

    fn backend(&self, came: &Came, wrong: &mut Vec<String>) {
        let Some(due) = &self.due.backend else {
            return;
        };
        let said = match came.account["backend"].as_str() {
            Some(said) => said.to_owned(),
            None => text(&came.headers, "x-backend"),
        };
        if said != full_name(due) {
            wrong.push(format!(
                "answered by `{said}`, expected `{}`",
                full_name(due)
            ));
        }
    }

    fn seen(&self, account: &Value, wrong: &mut Vec<String>) {
        let due = &self.due.seen;
        let plain = [
            ("path", &due.path),
            ("host", &due.host),
            ("method", &due.method),
            ("version", &due.version),
        ];
        for (what, due) in plain {
            if let Some(due) = due
                && account[what] != due.as_str()
            {
                wrong.push(format!(
                    "the backend saw {what} {}, expected {due:?}",
                    account[what]
                ));
            }
        }
        for (name, due) in &due.headers {
            let seen = &account["headers"][name.to_ascii_lowercase()];
            if seen != due.as_str() {
                wrong.push(format!("the backend saw {name}: {seen}, expected {due:?}"));
            }
        }
        for name in &due.absent {
            let seen = &account["headers"][name.to_ascii_lowercase()];
            if !seen.is_null() {
                wrong.push(format!("the backend saw {name}: {seen}, expected none"));
            }
        }
    }

    fn answer(&self, came: &Came, wrong: &mut Vec<String>) {
        let due = &self.due.answer;
        for (name, due) in &due.headers {
            let said: String = text(&came.headers, name.as_str())
                .split_whitespace()
                .collect();
            let due = match due {
                Few::One(one) => vec![one],
                Few::Any(all) => all.iter().collect(),
            };
            if !due
                .iter()
                .any(|due| said == due.split_whitespace().collect::<String>())
            {
                wrong.push(format!("answered with {name}: {said:?}, expected {due:?}"));
            }
        }
        for name in &due.absent {
            if came.headers.contains_key(name) {
                let said = text(&came.headers, name.as_str());
                wrong.push(format!("answered with {name}: {said:?}, expected none"));
            }
        }
        if let Some(due) = &due.body
            && came.body != due.as_bytes()
        {
            wrong.push(format!("answered {:?}, expected {due:?}", came.body));
        }
    }

    fn redirect(&self, due: &Redirected, came: &Came, wrong: &mut Vec<String>) {
        let location = text(&came.headers, "location");
        let host = self.host.split(':').next().unwrap_or_default();
        let port = due.port.map(|port| format!(":{port}")).unwrap_or_default();
        let due = format!(
            "{}://{}{port}{}",
            due.scheme.as_deref().unwrap_or(self.scheme),
            due.host.as_deref().unwrap_or(host),
            due.path.as_deref().unwrap_or(&self.due.path),
        );
        if location.parse::<Uri>().ok() != due.parse::<Uri>().ok() {
            wrong.push(format!("redirected to `{location}`, expected `{due}`"));
        }
    }
}

/// What is wrong with how `total` requests fell on backends.
#[must_use]
pub fn shares(due: &Expectation, by: &BTreeMap<String, usize>, total: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let tolerance = due.tolerance.unwrap_or(TOLERANCE);
    for (name, share) in &due.shares {
        let got = by.get(&full_name(name)).copied().unwrap_or_default();
        let got = percent(got, total);
        if (got - share).abs() > tolerance {
            wrong.push(format!(
                "`{name}` got {got:.1} %, expected {share} ± {tolerance} %"
            ));
        }
    }
    for name in by.keys() {
        if !due.shares.is_empty() && !due.shares.keys().any(|due| full_name(due) == *name) {
            wrong.push(format!("`{name}` got requests, expected none"));
        }
    }
    wrong
}

/// What is wrong with the copies of `total` requests.
#[must_use]
pub fn copies(due: &Expectation, arrivals: &[Arrival], total: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, share) in &due.mirrored {
        let these = arrivals.iter().filter(|one| one.backend == full_name(name));
        let paths: Vec<_> = these.map(|one| one.path.as_str()).collect();
        let got = percent(paths.len(), total);
        let tolerance = due.tolerance.unwrap_or_default();
        if (got - share).abs() > tolerance {
            wrong.push(format!(
                "`{name}` got copies of {got:.1} %, expected {share} ± {tolerance} %"
            ));
        }
        let path = due.seen.path.as_deref().unwrap_or(&due.path);
        if let Some(other) = paths.iter().find(|one| **one != path) {
            wrong.push(format!(
                "`{name}` got a copy of `{other}`, expected `{path}`"
            ));
        }
    }
    wrong
}

fn percent(part: usize, total: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    100.0 * number(part) / number(total.max(1))
}

/// What is wrong with what a resource says of itself, given whole.
#[must_use]
pub fn condition(due: &Condition, resource: &Value) -> Vec<String> {
    let status = &resource["status"];
    let place = match (&due.parent, &due.listener) {
        (Some(parent), _) => of_parent(status, parent, &due.of),
        (None, Some(listener)) => named(&status["listeners"], listener),
        (None, None) => Some(status),
    };
    let Some(place) = place else {
        return if due.nothing {
            Vec::new()
        } else {
            vec![format!("{} says nothing of it: {status}", due.of)]
        };
    };
    let mut wrong = Vec::new();
    if due.nothing {
        wrong.push(format!("{} says {place}, expected nothing", due.of));
    }
    for (name, due_status) in &due.says {
        let all = place["conditions"].as_array().cloned().unwrap_or_default();
        let one = all.iter().find(|one| one["type"] == name.as_str());
        let said = one.map(|one| {
            let status = one["status"].as_str().unwrap_or_default();
            let reason = one["reason"].as_str().unwrap_or_default();
            if due_status.contains(' ') {
                format!("{status} {reason}")
            } else {
                status.to_owned()
            }
        });
        if said.as_ref() != Some(due_status) {
            wrong.push(format!(
                "{} says {name}: {said:?}, expected {due_status:?}; all: {}",
                due.of, place["conditions"]
            ));
        }
    }
    if let Some(attached) = due.attached
        && place["attachedRoutes"] != attached
    {
        wrong.push(format!(
            "{}: attachedRoutes {}, expected {attached}",
            due.of, place["attachedRoutes"]
        ));
    }
    if let Some(kinds) = &due.kinds {
        let said = place["supportedKinds"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let said: Vec<_> = said.iter().filter_map(|one| one["kind"].as_str()).collect();
        if said != *kinds {
            wrong.push(format!(
                "{}: supportedKinds {said:?}, expected {kinds:?}",
                due.of
            ));
        }
    }
    wrong
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|one| one["name"] == name)
}

/// The part of a route's status that is about one parent, `Kind/namespace/name[/section]`.
fn of_parent<'a>(status: &'a Value, parent: &str, route: &str) -> Option<&'a Value> {
    let own = route.split('/').nth(1).unwrap_or_default();
    status["parents"].as_array()?.iter().find(|one| {
        let reference = &one["parentRef"];
        let said = |key: &str, usual: &str| reference[key].as_str().unwrap_or(usual).to_owned();
        let mut name = format!(
            "{}/{}/{}",
            said("kind", "Gateway"),
            said("namespace", own),
            said("name", "")
        );
        if let Some(section) = reference["sectionName"].as_str() {
            name = format!("{name}/{section}");
        }
        name == parent
    })
}

#[cfg(test)]
mod tests;
