//! Where each leaf of a policy comes from: for people who ask why. The layers
//! are those that are merged, and so is their order; what is shown of a leaf
//! is what its document says.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::route_policy::{OF_REQUESTS, RoutePolicies};
use crate::resource::{ResourceKey, ResourceKind, ServiceName};
use crate::world::{Stored, World};

/// Parts that are taken whole from one document.
const WHOLE: [&str; 6] = [
    "healthCheck",
    "fallback",
    "fault",
    "mirror",
    "directResponse",
    "headers",
];
/// Says what a policy is for, not what it does.
const TARGETS: &str = "targetRefs";

/// One leaf of a merged policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Leaf {
    /// As in its document: `timeouts.request`.
    pub path: String,
    /// As in its document.
    pub value: Value,
    /// What sets it.
    pub from: String,
}

/// A rule, as it is attached.
#[derive(Debug, Clone, Copy)]
pub struct RuleName<'n> {
    /// Its route.
    pub route: &'n ResourceKey,
    /// Its own name, else its index.
    pub rule: &'n str,
    /// The service that the route is attached to, if it is one.
    pub parent: Option<&'n ServiceName>,
}

/// One of several policies that are merged, as its document has it.
#[derive(Debug)]
struct Layer<'w> {
    from: String,
    spec: Cow<'w, Value>,
    requests_alone: bool,
}

impl<'w> Layer<'w> {
    fn of(stored: &'w Stored) -> Self {
        Self {
            from: stored.resource.key.to_string(),
            spec: Cow::Borrowed(&stored.resource.document["spec"]),
            requests_alone: false,
        }
    }

    fn says(&self, path: &str) -> bool {
        let is_below = |known: &&str| {
            path.strip_prefix(*known)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        !self.requests_alone || OF_REQUESTS.iter().any(is_below)
    }
}

/// What resources set of how a service is called from a namespace, by a rule
/// where one leads there, and which do.
#[must_use]
pub fn origins(
    world: &World,
    rule: Option<RuleName<'_>>,
    target: &ServiceName,
    caller_namespace: &str,
) -> Vec<Leaf> {
    let mut layers: Vec<Layer<'_>> = Vec::new();
    if let Some(rule) = rule {
        layers.extend(of_rule(world, rule));
        let named = is_named(world, rule).then_some(rule.rule);
        let policies = RoutePolicies::new(world, caller_namespace);
        let above = policies.above(world, rule.route, named, rule.parent);
        layers.extend(above.iter().map(|above| Layer {
            requests_alone: above.requests_alone,
            ..Layer::of(above.stored)
        }));
    }
    layers.extend(
        super::layers(world, target, caller_namespace).map(|(stored, _)| Layer::of(stored)),
    );
    let mesh = world.of_kind(ResourceKind::MeshConfig).next();
    layers.extend(mesh.map(|stored| Layer {
        spec: Cow::Borrowed(&stored.resource.document["spec"]["defaults"]),
        ..Layer::of(stored)
    }));
    leaves(&layers)
}

/// The rule in its document.
fn document<'w>(world: &'w World, rule: RuleName<'_>) -> Option<&'w Value> {
    let stored = world.resource(rule.route)?;
    let rules = stored.resource.document["spec"]["rules"].as_array()?;
    let named = rules.iter().find(|it| it["name"] == rule.rule);
    named.or_else(|| rules.get(rule.rule.parse::<usize>().ok()?))
}

fn is_named(world: &World, rule: RuleName<'_>) -> bool {
    document(world, rule).is_some_and(|it| it["name"] == rule.rule)
}

/// What a rule sets by itself, in the words of policies.
fn of_rule<'w>(world: &'w World, rule: RuleName<'_>) -> Option<Layer<'w>> {
    let document = document(world, rule)?;
    let mut spec = json!({ "timeouts": document["timeouts"] });
    if let Some(retry) = document["retry"].as_object() {
        let mut on = vec![json!("connect-failure"), json!("reset"), json!("timeout")];
        let codes = retry.get("codes").and_then(Value::as_array);
        on.extend(codes.into_iter().flatten().cloned());
        spec["retry"] = json!({
            "attempts": retry.get("attempts"),
            "on": on,
            "backoff": { "base": retry.get("backoff") },
        });
    }
    Some(Layer {
        from: format!("rule {} of {}", rule.rule, rule.route),
        spec: Cow::Owned(spec),
        requests_alone: false,
    })
}

/// Of layers, narrowest first, each leaf with the first that sets it; by path.
fn leaves(layers: &[Layer<'_>]) -> Vec<Leaf> {
    let mut found: BTreeMap<String, Leaf> = BTreeMap::new();
    for layer in layers {
        let mut own = Vec::new();
        for (key, value) in layer.spec.as_object().into_iter().flatten() {
            if key != TARGETS {
                gather(key, key, value, &mut own);
            }
        }
        own.retain(|(path, _)| layer.says(path));
        for (path, value) in own {
            found.entry(path.clone()).or_insert_with(|| Leaf {
                path,
                value: value.clone(),
                from: layer.from.clone(),
            });
        }
    }
    found.into_values().collect()
}

fn gather<'v>(key: &str, path: &str, value: &'v Value, into: &mut Vec<(String, &'v Value)>) {
    match value {
        Value::Null => {}
        Value::Object(fields) if !WHOLE.contains(&key) => {
            for (key, value) in fields {
                gather(key, &format!("{path}.{key}"), value, into);
            }
        }
        _ => into.push((path.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_narrowest_layer_sets_a_leaf() {
        let narrow = json!({"targetRefs": [{"kind": "Service"}], "timeouts": {"request": "1s"}, "fault": {"abort": {"percent": 1}}});
        let wide = json!({"timeouts": {"request": "9s", "idle": "5m"}, "fault": {"delay": {"percent": 2}}, "retry": {"on": [503], "backoff": {"base": "1s"}}});
        let layer = |from: &str, spec, requests_alone| Layer {
            from: from.to_owned(),
            spec: Cow::Borrowed(spec),
            requests_alone,
        };
        let told = |requests_alone: bool| -> Vec<String> {
            let found = leaves(&[
                layer("narrow", &narrow, false),
                layer("wide", &wide, requests_alone),
            ]);
            let told = found
                .iter()
                .map(|leaf| format!("{}={} {}", leaf.path, leaf.value, leaf.from));
            told.collect()
        };
        let all = [
            "fault={\"abort\":{\"percent\":1}} narrow",
            "retry.backoff.base=\"1s\" wide",
            "retry.on=[503] wide",
            "timeouts.idle=\"5m\" wide",
            "timeouts.request=\"1s\" narrow",
        ];
        assert_eq!(told(false), all);
        let [fault, base, on, _, request] = all;
        assert_eq!(told(true), [fault, base, on, request]);
    }
}
