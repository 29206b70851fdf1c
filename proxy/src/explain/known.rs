//! What is known when somebody asks: resources from files, or what a control
//! plane says it has.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use selvage_certs::TrustDomain;
use selvage_core::diagnostic::{Diagnostic, Diagnostics, Place};
use selvage_core::parse;
use selvage_core::registry::{Registration, Registry};
use selvage_core::resource::{Resource, Spec};
use selvage_core::world::{Apply, World};
use serde_json::{Value, json};

/// The trust domain of resources that name none.
const DEFAULT_TRUST_DOMAIN: &str = "mesh.local";
/// Nobody waits for a lease here.
const LEASE: Duration = Duration::from_secs(15);

/// Resources and workloads.
#[derive(Debug)]
pub struct Known {
    /// The resources.
    pub world: World,
    /// The workloads.
    pub registry: Registry,
}

impl Known {
    /// From texts, given as name and text. No workload is known.
    ///
    /// # Errors
    /// What a control plane that knows only these would refuse.
    pub fn of_texts<'t>(
        texts: impl IntoIterator<Item = (&'t str, &'t str)>,
        trust_domain: Option<&str>,
        now: Instant,
    ) -> Result<Self, Diagnostics> {
        let resources = parse::parse_all(texts)?;
        let given = resources.iter().find_map(named_domain);
        let name = trust_domain.or(given).unwrap_or(DEFAULT_TRUST_DOMAIN);
        let world = World::new(domain(name)?);
        let how = Apply {
            first_stamp: 0,
            registered: &BTreeSet::new(),
            strict: false,
        };
        let (world, _) = world.plan(resources, how)?;
        Ok(Self {
            world,
            registry: Registry::new(now, LEASE),
        })
    }

    /// From what the operator API lists: resources, with `document` and
    /// `stamp`, and services with their `workloads`.
    ///
    /// # Errors
    /// What is listed is nothing this version knows.
    pub fn of_lists(
        resources: &[Value],
        services: &[Value],
        trust_domain: &str,
        now: Instant,
    ) -> Result<Self, Diagnostics> {
        let mut kept = Vec::new();
        for item in resources.iter().filter(|it| it["kind"] != "Secret") {
            let stamp = item["stamp"].as_u64().unwrap_or_default();
            let Some(document) = without_secrets(item) else {
                continue;
            };
            let parsed = parse::parse("the control plane", &document.to_string())?;
            kept.extend(parsed.into_iter().map(|resource| (resource, stamp)));
        }
        let mut world = World::new(domain(trust_domain)?);
        world.reset(kept);
        let mut registry = Registry::new(now, LEASE);
        let workloads = services
            .iter()
            .filter_map(|service| service["workloads"].as_array());
        for workload in workloads.flatten() {
            registry.restore(registration(workload)?);
        }
        Ok(Self { world, registry })
    }
}

/// A document that refers to no Secret: none is handed out. Of a gateway the
/// listeners that are programmed stay, whatever they terminate TLS with; `None`:
/// none is.
fn without_secrets(item: &Value) -> Option<Value> {
    let mut document = item["document"].clone();
    let shown = item["status"]["listeners"].as_array();
    let is_programmed = |name: &Value| {
        let of_name = |it: &&Value| it["name"] == *name;
        let conditions = shown.and_then(|all| all.iter().find(of_name));
        let conditions = conditions.and_then(|it| it["conditions"].as_array());
        let holds = |it: &Value| it["type"] == "Programmed" && it["status"] == "True";
        conditions.is_some_and(|all| all.iter().any(holds))
    };
    let listeners = document.pointer_mut("/spec/listeners");
    if let Some(listeners) = listeners.and_then(Value::as_array_mut) {
        listeners.retain(|listener| is_programmed(&listener["name"]));
        if listeners.is_empty() {
            return None;
        }
        for listener in listeners {
            let tls = listener.get_mut("tls").and_then(Value::as_object_mut);
            if let Some(tls) = tls.filter(|tls| tls.contains_key("certificateRefs")) {
                tls.remove("certificateRefs");
                if tls.get("mode") != Some(&json!("Passthrough")) {
                    let options = json!({ "selvage.dev/certificate": "mesh" });
                    tls.insert("options".to_owned(), options);
                }
            }
        }
    }
    Some(document)
}

/// A lapsed workload is as good as an unhealthy one.
fn registration(workload: &Value) -> Result<Registration, Diagnostics> {
    let mut registration: Registration = serde_json::from_value(workload.clone())
        .map_err(|error| refused("the control plane", error))?;
    let lapsed = workload["lapsed"] == true;
    for port in &mut registration.ports {
        port.healthy &= !lapsed;
    }
    Ok(registration)
}

fn named_domain(resource: &Resource) -> Option<&str> {
    match &resource.spec {
        Spec::MeshConfig(spec) => spec.trust_domain.as_deref(),
        _ => None,
    }
}

fn domain(name: &str) -> Result<TrustDomain, Diagnostics> {
    let parsed = TrustDomain::parse(name);
    parsed.map_err(|error| refused("--trust-domain", format!("`{name}`: {error}")))
}

fn refused(source: &str, why: impl std::fmt::Display) -> Diagnostics {
    Diagnostic::error(&Place::of_source(source), "", why.to_string()).into()
}
