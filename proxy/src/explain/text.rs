//! An explanation for a terminal: a word at the left, what it says beside it.

use std::fmt;

use super::backend::{BackendShown, EndpointShown};
use super::{Explanation, Other};

/// Width of the left column.
const WIDTH: usize = 10;
/// Rules that do not take the request, and endpoints, of which more are only counted.
const SHOWN: usize = 20;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "request", &self.request)?;
        line(f, "from", &self.from)?;
        if let Some(to) = &self.to {
            line(f, "to", to)?;
        }
        if let Some(rule) = &self.rule {
            line(f, "rule", &format!("{}: {}", rule.label, rule.matched))?;
            for filter in &rule.filters {
                line(f, "", filter)?;
            }
            if let Some(session) = &rule.session {
                line(f, "", &format!("session by {session}"))?;
            }
        }
        for one in &self.backends {
            backend(f, one)?;
        }
        for (index, other) in self.others.iter().take(SHOWN).enumerate() {
            let Other { rule, matched, why } = other;
            let which = matched.map_or_else(String::new, |it| format!(", match {it}"));
            let word = if index == 0 { "not" } else { "" };
            line(f, word, &format!("{rule}{which}: {why}"))?;
        }
        more(f, self.others.len())?;
        let outcome = &self.outcome;
        let word = if outcome.served { "served" } else { "refused" };
        match (outcome.status, outcome.flag) {
            (Some(status), Some(flag)) => {
                line(f, word, &format!("{status} {flag}: {}", outcome.why))
            }
            _ => line(f, word, &outcome.why),
        }
    }
}

fn backend(f: &mut fmt::Formatter<'_>, backend: &BackendShown) -> fmt::Result {
    let BackendShown {
        to,
        percent,
        sees,
        filters,
        policy,
        effective: _,
        authorization,
        endpoints,
        refused,
    } = backend;
    line(
        f,
        "backend",
        &format!("{to}, {} %", (percent * 100.0).round() / 100.0),
    )?;
    line(f, "", &format!("gets {sees}"))?;
    for filter in filters {
        line(f, "", filter)?;
    }
    for leaf in policy {
        line(
            f,
            "",
            &format!("{}: {}, by {}", leaf.path, leaf.value, leaf.from),
        )?;
    }
    if let Some(judged) = authorization {
        let verdict = if judged.permitted {
            "permitted"
        } else {
            "denied"
        };
        line(f, "", &format!("{verdict} by {}", judged.by))?;
    }
    for endpoint in endpoints.iter().take(SHOWN) {
        line(f, "", &self::endpoint(endpoint))?;
    }
    more(f, endpoints.len())?;
    if let Some(refused) = refused {
        let text = format!(
            "refused, {} {}: {}",
            refused.status, refused.flag, refused.why
        );
        line(f, "", &text)?;
    }
    Ok(())
}

fn endpoint(endpoint: &EndpointShown) -> String {
    let EndpointShown {
        id,
        address,
        identity,
        weight,
        healthy,
    } = endpoint;
    let mut text = format!("endpoint {address}");
    if id != address {
        text.push_str(&format!(" {id}"));
    }
    match identity {
        Some(identity) => text.push_str(&format!(" as {identity}")),
        None => text.push_str(" in plaintext"),
    }
    if *weight != 1 {
        text.push_str(&format!(", weight {weight}"));
    }
    if !healthy {
        text.push_str(", unhealthy");
    }
    text
}

fn more(f: &mut fmt::Formatter<'_>, count: usize) -> fmt::Result {
    match count.checked_sub(SHOWN) {
        None | Some(0) => Ok(()),
        Some(more) => line(f, "", &format!("and {more} more")),
    }
}

fn line(f: &mut fmt::Formatter<'_>, word: &str, text: &str) -> fmt::Result {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    writeln!(f, "{word:WIDTH$}{text}")
}
