//! The client's half alone: what it holds, refuses and remembers.

use selvage_api::client::{Received, Session, SubscribeError};
use selvage_api::name::{self, MAX_SUBSCRIPTIONS};
use selvage_api::v1::{DeltaResponse, Hello, Resource, ResourceName, Service, resource::Body};

fn a() -> ResourceName {
    name::service("shop", "a")
}

fn resource(version: u64) -> Resource {
    Resource {
        name: Some(a()),
        version,
        features: vec![],
        body: Some(Body::Service(Service::default())),
    }
}

fn push(stream: u64, nonce: u64, resources: Vec<Resource>) -> DeltaResponse {
    DeltaResponse {
        nonce,
        resources,
        stream,
        ..DeltaResponse::default()
    }
}

fn open() -> Session {
    let mut session = Session::new(Hello::default());
    assert_eq!(session.subscribe([a()]), Ok(None), "no stream is open");
    assert_eq!(session.open().subscribe, [a()]);
    session
}

#[test]
fn a_push_is_held_only_after_its_ack() {
    let mut session = open();
    let response = push(1, 1, vec![resource(4)]);
    assert!(matches!(
        session.on_response(response.clone()),
        Received::Push(_)
    ));
    assert_eq!(session.resource(&a()), None);
    assert_eq!(session.candidate().count(), 1);
    assert_eq!(
        session.on_response(response),
        Received::Stale,
        "a duplicate"
    );
    let ack = session.ack().expect("ack").answer.expect("answer");
    assert_eq!((ack.nonce, ack.rejections.len()), (1, 0));
    assert_eq!(session.resource(&a()), Some(&resource(4)));
    assert_eq!(session.ack(), None);
}

#[test]
fn an_unknown_feature_refuses_the_whole_push() {
    let mut session = open();
    let mut odd = resource(4);
    odd.features.push("telepathy".into());
    let response = push(1, 1, vec![resource(3), odd]);
    let Received::Refused(nack) = session.on_response(response) else {
        panic!("must be refused");
    };
    let rejections = nack.answer.expect("answer").rejections;
    assert_eq!(rejections.len(), 1);
    assert!(rejections[0].reason.contains("telepathy"));
    assert_eq!(session.resources().count(), 0);
}

#[test]
fn absence_is_remembered_until_told_otherwise() {
    let mut session = open();
    assert!(!session.is_absent(&a()), "not told yet");
    let mut response = push(1, 1, vec![]);
    response.removed.push(a());
    session.on_response(response);
    session.ack();
    session.close();
    session.open();
    assert!(session.is_absent(&a()));
    let response = push(2, 1, vec![resource(1)]);
    session.on_response(response);
    session.ack();
    assert!(!session.is_absent(&a()));
}

#[test]
fn a_restored_session_offers_what_it_holds() {
    let mut session = Session::new(Hello::default());
    session.restore([resource(9), Resource::default()]);
    let hello = session.open();
    assert_eq!(hello.subscribe, [a()]);
    assert_eq!(hello.hello.expect("hello").known[0].version, 9);
}

#[test]
fn a_nack_without_reasons_is_not_an_ack() {
    let mut session = open();
    let response = push(1, 1, vec![resource(4)]);
    session.on_response(response);
    let nack = session.nack(vec![]).expect("nack").answer.expect("answer");
    assert_eq!(nack.rejections.len(), 1);
    assert_eq!(session.resource(&a()), None);
}

#[test]
fn subscriptions_are_capped_and_all_or_nothing() {
    let mut session = Session::new(Hello::default());
    let names = (0..=MAX_SUBSCRIPTIONS).map(|i| name::service("n", &i.to_string()));
    assert_eq!(session.subscribe(names), Err(SubscribeError::TooMany));
    assert_eq!(session.open().subscribe, []);
}
