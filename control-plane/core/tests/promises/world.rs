//! Changes are all or nothing; what is missing is said, not refused.

use std::collections::BTreeSet;

use selvage_core::parse::parse;
use selvage_core::resource::call_policy::CallPolicy;
use selvage_core::resource::{ResourceKey, ResourceKind, ServiceName};
use selvage_core::world::{Action, Apply};

use crate::{LENIENT, apply, mesh, told, world_of};

const RATINGS: &str =
    "kind: Service\nmetadata: {name: ratings, namespace: shop}\nspec: {ports: [{port: 80}]}\n";
const POLICY: &str = "kind: TrafficPolicy\nmetadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: Service, name: ratngs}]}\n";

fn key(kind: ResourceKind, name: &str) -> ResourceKey {
    ResourceKey {
        kind,
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

#[test]
fn an_apply_says_what_it_did() {
    let mut world = mesh();
    let actions = |change: selvage_core::world::Change| -> Vec<_> {
        change
            .applied
            .into_iter()
            .map(|applied| (applied.action, applied.stamp))
            .collect()
    };
    let both = format!("{RATINGS}---\n{POLICY}");
    assert_eq!(
        actions(apply(&mut world, RATINGS).unwrap()),
        [(Action::Created, 1)]
    );
    assert_eq!(
        actions(apply(&mut world, &both).unwrap()),
        [(Action::Unchanged, 1), (Action::Created, 2)]
    );
    let other = RATINGS.replace("80", "81");
    assert_eq!(
        actions(apply(&mut world, &other).unwrap()),
        [(Action::Configured, 1)]
    );
    assert!(world.delete(&key(ResourceKind::Service, "ratings")));
    assert!(!world.delete(&key(ResourceKind::Service, "ratings")));
    assert_eq!(
        actions(apply(&mut world, RATINGS).unwrap()),
        [(Action::Created, 3)]
    );
}

#[test]
fn a_plan_changes_nothing() {
    let world = mesh();
    let (next, change) = world.plan(parse("t", RATINGS).unwrap(), LENIENT).unwrap();
    assert_eq!(change.applied[0].action, Action::Created);
    assert_eq!(world.resources().count(), 0);
    assert_eq!(next.resources().count(), 1);
}

#[test]
fn a_refused_set_changes_nothing() {
    let mut world = world_of(RATINGS);
    let set = format!("{POLICY}---\n{RATINGS}---\n{RATINGS}");
    let refused = apply(&mut world, &set).unwrap_err();
    assert_eq!(
        told(&refused),
        [
            "10:18 metadata.name: Service shop/ratings is given twice / it was first given at test.yaml:6:18"
        ]
    );
    assert_eq!(world.resources().count(), 1);
}

#[test]
fn a_dangling_reference_is_a_warning_unless_strict() {
    let expected = "3:43 spec.targetRefs[0].name: the service shop/ratngs has no document and no workload registers it / did you mean `ratings`?";
    let mut world = world_of(RATINGS);
    let change = apply(&mut world, POLICY).unwrap();
    assert_eq!(told(&change.warnings), [expected]);
    let strict = Apply {
        strict: true,
        ..LENIENT
    };
    let refused = world_of(RATINGS)
        .apply(parse("t", POLICY).unwrap(), strict)
        .unwrap_err();
    assert_eq!(told(&refused), [expected]);
    assert!(refused.render(false).starts_with("error: "));

    let registered = BTreeSet::from([ServiceName::new("shop", "ratngs")]);
    let known = Apply {
        registered: &registered,
        strict: true,
        ..LENIENT
    };
    assert!(
        mesh()
            .apply(parse("t", POLICY).unwrap(), known)
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[test]
fn a_service_that_is_made_use_of_is_looked_for_too_and_is_no_target() {
    let policy = "kind: TrafficPolicy
metadata: {name: p, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: orders}]
  mirror: {service: {name: ratngs}}
  fallback: {name: f, on: [503], service: {name: ratings, namespace: bank}}
";
    let orders = RATINGS.replace("ratings", "orders");
    let mut world = world_of(&format!("{RATINGS}---\n{orders}"));
    let change = apply(&mut world, policy).unwrap();
    let missing = |field, service, help| {
        format!(
            "{field}: the service {service} has no document and no workload registers it / {help}"
        )
    };
    assert_eq!(
        told(&change.warnings),
        [
            missing(
                "6:50 spec.fallback.service.name",
                "bank/ratings",
                "there is one in namespace `shop`"
            ),
            missing(
                "5:28 spec.mirror.service.name",
                "shop/ratngs",
                "did you mean `ratings`?"
            ),
        ]
    );
    let ratings = ServiceName::new("shop", "ratings");
    let policy = selvage_core::attach::call_policy(&world, &ratings, "shop");
    assert_eq!(policy, CallPolicy::default(), "it is for orders alone");
}

#[test]
fn a_service_elsewhere_is_pointed_at() {
    let other = RATINGS.replace("shop", "bank").replace("ratings", "ratngs");
    let change = apply(&mut world_of(&other), POLICY).unwrap();
    let help = change.warnings.as_slice()[0].help.clone();
    assert_eq!(help.as_deref(), Some("there is one in namespace `bank`"));
}

#[test]
fn order_does_not_matter() {
    for text in [
        format!("{POLICY}---\n{RATINGS}"),
        format!("{RATINGS}---\n{POLICY}"),
    ] {
        let text = text.replace("ratngs", "ratings");
        assert!(apply(&mut mesh(), &text).unwrap().warnings.is_empty());
    }
}

#[test]
fn a_mesh_has_one_config() {
    let config = "kind: MeshConfig\nmetadata: {name: mesh}\nspec: {mtls: permissive}\n";
    let mut world = world_of(config);
    assert!(apply(&mut world, config).is_ok());
    let other = config.replace("name: mesh", "name: other");
    assert_eq!(
        told(&apply(&mut world, &other).unwrap_err()),
        [
            "2:18 metadata.name: a mesh has one MeshConfig, and `mesh` is there / it stands at test.yaml:2:18"
        ]
    );
    assert!(apply(&mut mesh(), &format!("{config}---\n{other}")).is_err());
}

#[test]
fn the_trust_domain_has_one_owner() {
    let config = "kind: MeshConfig\nmetadata: {name: mesh}\nspec: {trustDomain: other.mesh}\n";
    assert_eq!(
        told(&apply(&mut mesh(), config).unwrap_err()),
        ["3:21 spec.trustDomain: the trust domain here is `mesh.local`, not `other.mesh`"]
    );
    let service = "kind: Service\nmetadata: {name: a}\nspec:\n  ports: [{port: 80}]\n  endpoints:\n  - address: 10.0.0.1:1\n    identity: spiffe://other.mesh/ns/a/sa/b\n";
    assert_eq!(
        told(&apply(&mut mesh(), service).unwrap_err()),
        [
            "7:15 spec.endpoints[0].identity: identities outside the trust domain `mesh.local` are not supported yet"
        ]
    );
}

#[test]
fn names_must_fit_into_sni() {
    let domain = ["a"; 100].join(".");
    let label = "b".repeat(63);
    let text = format!(
        "kind: Service\nmetadata: {{name: {label}, namespace: {label}}}\nspec: {{ports: [{{port: 80}}]}}\n"
    );
    let mut world =
        selvage_core::world::World::new(selvage_certs::TrustDomain::parse(&domain).unwrap());
    let refused = told(&apply(&mut world, &text).unwrap_err());
    assert_eq!(
        refused,
        [
            "2:18 metadata.name: with its namespace and the trust domain, the name has 331 bytes in SNI, where 253 fit"
        ]
    );
    assert!(apply(&mut mesh(), &text).is_ok());
}

#[test]
fn conditions_tell_where_a_resource_stands() {
    let mut world = world_of(POLICY);
    let second = POLICY.replace("name: p", "name: a");
    apply(&mut world, &second).unwrap();
    let of = |world: &selvage_core::world::World, name: &str| -> Vec<_> {
        world
            .conditions(&key(ResourceKind::TrafficPolicy, name), &BTreeSet::new())
            .into_iter()
            .map(|condition| (condition.kind, condition.status, condition.reason))
            .collect()
    };
    let dangling = ("ResolvedRefs", false, "TargetNotFound");
    assert_eq!(of(&world, "p"), [("Accepted", true, "Accepted"), dangling]);
    assert_eq!(
        of(&world, "a"),
        [("Accepted", false, "Conflicted"), dangling]
    );
    apply(&mut world, &RATINGS.replace("ratings", "ratngs")).unwrap();
    assert_eq!(of(&world, "p")[1], ("ResolvedRefs", true, "ResolvedRefs"));
    assert_eq!(of(&world, "none"), []);
}

#[test]
fn what_was_kept_comes_back_with_its_age() {
    let world = world_of(&format!("{RATINGS}---\n{POLICY}"));
    let kept: Vec<_> = world
        .resources()
        .map(|stored| (stored.resource.document.to_string(), stored.stamp))
        .collect();
    let mut again = mesh();
    again.reset(
        kept.into_iter()
            .map(|(json, stamp)| (parse("kept", &json).unwrap().remove(0), stamp)),
    );
    let listed = |world: &selvage_core::world::World| -> Vec<_> {
        world
            .resources()
            .map(|stored| (stored.resource.key.clone(), stored.stamp))
            .collect()
    };
    assert_eq!(listed(&again), listed(&world));
}
