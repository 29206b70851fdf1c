//! Leases: what silence means, and when it means nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use selvage_certs::SpiffeId;
use selvage_core::registry::{
    Alarm, Event, InvalidRegistration, NotRegistered, REMOVAL_AFTER, RegisteredPort, Registration,
    Registry, WorkloadKey, authorize_registration,
};
use selvage_core::resource::ServiceName;
use selvage_core::resource::service::Protocol;

const LEASE: Duration = Duration::from_secs(15);

pub(crate) fn id(account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://mesh.local/ns/shop/sa/{account}")).unwrap()
}

pub(crate) fn registration(workload: &str) -> Registration {
    Registration {
        namespace: "shop".to_owned(),
        workload: workload.to_owned(),
        service: "ratings".to_owned(),
        identity: id("ratings"),
        address: "10.0.0.1:15008".parse().unwrap(),
        ports: vec![RegisteredPort {
            service_port: 80,
            protocol: Protocol::Http,
            healthy: true,
        }],
        labels: BTreeMap::new(),
        weight: 1,
        telemetry: None,
    }
}

fn key(workload: &str) -> WorkloadKey {
    WorkloadKey::new("shop", workload)
}

/// A registry past its grace, with `count` workloads `w0`, `w1` and so on, heard of at `now`.
fn registry(count: usize) -> (Registry, Instant) {
    let start = Instant::now();
    let now = start + LEASE * 2;
    let mut registry = Registry::new(start, LEASE);
    for index in 0..count {
        registry
            .register(registration(&format!("w{index}")), now)
            .unwrap();
    }
    (registry, now)
}

fn hear(registry: &mut Registry, workloads: std::ops::Range<usize>, now: Instant) {
    for index in workloads {
        registry
            .heartbeat(&key(&format!("w{index}")), &id("ratings"), &[], now)
            .unwrap();
    }
}

fn events(registry: &mut Registry, now: Instant) -> Vec<(String, Event)> {
    let expiry = registry.expire(now);
    expiry
        .changes
        .into_iter()
        .map(|change| (change.workload.workload, change.event))
        .collect()
}

#[test]
fn a_lapsed_lease_is_unhealthy_then_removed() {
    let (mut registry, now) = registry(10);
    let late = now + LEASE;
    hear(&mut registry, 1..10, late);
    assert_eq!(events(&mut registry, late - Duration::from_millis(1)), []);
    assert_eq!(
        events(&mut registry, late),
        [("w0".to_owned(), Event::Lapsed)]
    );
    assert!(registry.entry(&key("w0")).unwrap().is_lapsed());
    assert_eq!(events(&mut registry, late), []);

    let gone = late + REMOVAL_AFTER;
    hear(&mut registry, 1..10, gone);
    assert_eq!(events(&mut registry, gone - Duration::from_millis(1)), []);
    assert_eq!(
        events(&mut registry, gone),
        [("w0".to_owned(), Event::Removed)]
    );
    assert!(registry.entry(&key("w0")).is_none());
}

#[test]
fn a_heartbeat_brings_a_lapsed_one_back() {
    let (mut registry, now) = registry(10);
    hear(&mut registry, 1..10, now + LEASE);
    registry.expire(now + LEASE);
    let back = registry
        .heartbeat(&key("w0"), &id("ratings"), &[], now + LEASE)
        .unwrap()
        .unwrap();
    assert_eq!(back.event, Event::Returned);
    assert!(!registry.entry(&key("w0")).unwrap().is_lapsed());
}

#[test]
fn nothing_expires_for_two_leases_after_the_start() {
    let start = Instant::now();
    let mut registry = Registry::new(start, LEASE);
    registry.restore(registration("w0"));
    assert_eq!(
        events(&mut registry, start + LEASE * 2 - Duration::from_millis(1)),
        []
    );
    assert_eq!(
        events(&mut registry, start + LEASE * 2),
        [("w0".to_owned(), Event::Lapsed)]
    );
}

#[test]
fn a_restart_that_hears_nobody_loses_nobody() {
    let start = Instant::now();
    let mut registry = Registry::new(start, LEASE);
    for index in 0..10 {
        registry.restore(registration(&format!("w{index}")));
    }
    for seconds in 0..3600 {
        assert!(
            registry
                .expire(start + Duration::from_secs(seconds))
                .changes
                .is_empty()
        );
    }
    assert_eq!(
        registry.expire(start + LEASE * 2).alarm,
        Some(Alarm { silent: 10, of: 10 })
    );
}

#[test]
fn more_than_a_fifth_within_one_lease_freezes() {
    for (silent, frozen) in [(1, false), (2, false), (3, true), (10, true)] {
        let (mut registry, now) = registry(10);
        hear(&mut registry, silent..10, now + LEASE);
        let expiry = registry.expire(now + LEASE);
        assert_eq!(expiry.alarm.is_some(), frozen, "{silent} of 10");
        assert_eq!(
            expiry.changes.len(),
            if frozen { 0 } else { silent },
            "{silent} of 10"
        );
    }
}

#[test]
fn one_silent_workload_never_freezes() {
    let (mut registry, now) = registry(2);
    hear(&mut registry, 1..2, now + LEASE);
    assert_eq!(
        events(&mut registry, now + LEASE),
        [("w0".to_owned(), Event::Lapsed)]
    );
}

#[test]
fn lapses_one_after_the_other_within_one_lease_freeze() {
    let (mut registry, now) = registry(10);
    hear(&mut registry, 2..10, now + Duration::from_secs(5));
    assert_eq!(events(&mut registry, now + LEASE).len(), 2);
    hear(&mut registry, 3..10, now + Duration::from_secs(10));
    let then = now + LEASE + Duration::from_secs(5);
    assert_eq!(
        registry.expire(then).alarm,
        Some(Alarm { silent: 3, of: 10 })
    );
    // Time alone never thaws.
    for seconds in 0..120 {
        let later = then + Duration::from_secs(seconds);
        hear(&mut registry, 3..10, later);
        assert!(registry.expire(later).alarm.is_some(), "{seconds}");
    }
    // One that is heard of again does.
    let later = then + Duration::from_secs(120);
    hear(&mut registry, 0..1, later);
    assert_eq!(
        events(&mut registry, later),
        [("w2".to_owned(), Event::Lapsed)]
    );
}

#[test]
fn deregistration_is_immediate_and_ends_an_alarm() {
    let (mut registry, now) = registry(10);
    hear(&mut registry, 3..10, now + LEASE);
    assert!(registry.expire(now + LEASE).alarm.is_some());
    for workload in ["w0", "w1", "w2"] {
        let change = registry.deregister(&key(workload), &id("ratings")).unwrap();
        assert_eq!(change.event, Event::Deregistered);
        assert!(registry.entry(&key(workload)).is_none());
    }
    assert_eq!(registry.expire(now + LEASE).alarm, None);
}

#[test]
fn health_is_taken_from_heartbeats() {
    let (mut registry, now) = registry(1);
    let mut beat = |health: &[(u16, bool)]| {
        let change = registry
            .heartbeat(&key("w0"), &id("ratings"), health, now)
            .unwrap();
        change.map(|change| change.event)
    };
    assert_eq!(beat(&[(80, true)]), None);
    assert_eq!(beat(&[(80, false)]), Some(Event::HealthChanged));
    assert_eq!(beat(&[(80, false), (9999, true)]), None);
    assert_eq!(beat(&[]), None);
    assert_eq!(beat(&[(80, true)]), Some(Event::HealthChanged));
}

#[test]
fn a_name_belongs_to_its_identity() {
    let (mut registry, now) = registry(1);
    let mut stranger = registration("w0");
    stranger.identity = id("stranger");
    assert_eq!(
        registry.register(stranger, now),
        Err(InvalidRegistration::Taken(key("w0")))
    );
    let beat = registry.heartbeat(&key("w0"), &id("stranger"), &[], now);
    assert_eq!(beat, Err(NotRegistered));
    assert_eq!(
        registry.deregister(&key("w0"), &id("stranger")),
        Err(NotRegistered)
    );
    assert_eq!(
        registry.heartbeat(&key("none"), &id("ratings"), &[], now),
        Err(NotRegistered)
    );
}

#[test]
fn registering_again_changes_only_what_changed() {
    let (mut registry, now) = registry(1);
    assert_eq!(registry.register(registration("w0"), now), Ok(vec![]));
    let mut moved = registration("w0");
    moved.service = "orders".to_owned();
    let changes = registry.register(moved, now).unwrap();
    let told: Vec<_> = changes
        .iter()
        .map(|change| (change.service.name.as_str(), change.event))
        .collect();
    assert_eq!(
        told,
        [("ratings", Event::Moved), ("orders", Event::Registered)]
    );
    assert_eq!(registry.services().len(), 1);
}

#[test]
fn registrations_are_checked() {
    type Damage = fn(&mut Registration);
    let table: [(&str, Damage); 7] = [
        ("name", |bad| bad.workload = "W".to_owned()),
        ("port 0", |bad| bad.ports[0].service_port = 0),
        ("port twice", |bad| bad.ports.push(bad.ports[0])),
        ("address", |bad| bad.address = "0.0.0.0:1".parse().unwrap()),
        ("port of address", |bad| {
            bad.address = "10.0.0.1:0".parse().unwrap()
        }),
        ("label", |bad| {
            drop(bad.labels.insert("a".to_owned(), "\n".to_owned()))
        }),
        ("weight", |bad| bad.weight = 1_000_001),
    ];
    for (what, damage) in table {
        let (mut registry, now) = registry(0);
        let mut bad = registration("w0");
        damage(&mut bad);
        assert!(registry.register(bad, now).is_err(), "{what}");
        assert_eq!(registry.entries().count(), 0, "{what}");
    }
}

#[test]
fn a_registration_is_bound_to_services_and_namespace() {
    let ratings = ServiceName::new("shop", "ratings");
    let orders = ServiceName::new("shop", "orders");
    let foreign = ServiceName::new("bank", "ratings");
    let table = [
        (vec![ratings.clone()], &ratings, true),
        (vec![ratings.clone(), orders.clone()], &orders, true),
        (vec![ratings.clone()], &orders, false),
        (vec![], &ratings, false),
        (vec![foreign.clone()], &foreign, false),
    ];
    for (allowed, service, expected) in table {
        let answer = authorize_registration(&id("ratings"), &allowed, service);
        assert_eq!(answer.is_ok(), expected, "{service} of {allowed:?}");
    }
}

#[test]
fn registrations_can_be_kept() {
    let json = serde_json::to_string(&registration("w0")).unwrap();
    assert_eq!(
        serde_json::from_str::<Registration>(&json).unwrap(),
        registration("w0")
    );
}

proptest! {
    /// Whatever the order of beats and silence, who was heard of within a
    /// lease is never lapsed, and no sweep lapses more than the share.
    #[test]
    fn silence_is_never_taken_for_death_of_many(
        steps in proptest::collection::vec((0u64..20, 0usize..12), 1..200),
    ) {
        let (mut registry, mut now) = registry(10);
        let mut heard = [now; 10];
        for (seconds, who) in steps {
            now += Duration::from_secs(seconds);
            if who < 10 {
                hear(&mut registry, who..who + 1, now);
                heard[who] = now;
            }
            let before = registry.entries().filter(|entry| !entry.is_lapsed()).count();
            let expiry = registry.expire(now);
            let lapsed =
                expiry.changes.iter().filter(|change| change.event == Event::Lapsed).count();
            prop_assert!(lapsed <= 1 || lapsed * 100 <= 20 * (before + 2), "{lapsed} of {before}");
            for (index, last) in heard.iter().enumerate() {
                if now < *last + LEASE
                    && let Some(entry) = registry.entry(&key(&format!("w{index}")))
                {
                    prop_assert!(!entry.is_lapsed());
                }
            }
            if expiry.changes.iter().any(|change| change.event == Event::Removed) {
                return Ok(());
            }
        }
    }
}
