//! Applications that are no HTTP/2, or do not begin as HTTP/2 begins: nobody
//! waits for them for ever, and who comes later is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use selvage_tests::app::RawApp;
use selvage_tests::h2frames::Peer;
use selvage_tests::sidecar::Sidecar;
use selvage_tests::wire::Wire;

use super::{Seen, answer_all, ask, caller_of, good};

/// An application that plays `strange` on each connection until it is healed.
async fn strange<F, R>(strange: F) -> (RawApp, Arc<AtomicBool>)
where
    F: Fn(Wire) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let healed = Arc::new(AtomicBool::new(false));
    let (is_healed, strange) = (Arc::clone(&healed), Arc::new(strange));
    let app = RawApp::start(move |wire, _| {
        let (is_healed, strange) = (Arc::clone(&is_healed), Arc::clone(&strange));
        async move {
            if is_healed.load(Ordering::SeqCst) {
                let mut peer = Peer::of(wire);
                peer.take_preface().await;
                answer_all(peer).await;
            } else {
                strange(wire).await;
            }
        }
    })
    .await;
    (app, healed)
}

/// Each request fails with an answer of the sidecar's own, until the application is healed.
async fn assert_fails(caller: &Sidecar, healed: &AtomicBool, allowed: &[(u16, &str)]) {
    for method in [Method::GET, Method::POST] {
        let seen = ask(caller, &method, "/").await;
        assert!(
            matches!(&seen, Seen::Whole(answer)
                if allowed.contains(&(answer.status.as_u16(), answer.flag()))
                    && answer.header("proxy-status").starts_with("selvage; error=")),
            "{method}: {seen:?}"
        );
    }
    healed.store(true, Ordering::SeqCst);
    let next = ask(caller, &Method::POST, "/next").await;
    assert!(
        matches!(&next, Seen::Whole(answer) if answer.status == 200),
        "{next:?}"
    );
}

/// No HTTP/2 came.
const NONE: &[(u16, &str)] = &[
    (502, "bad-response"),
    (503, "reset"),
    (503, "connect-failure"),
];

#[tokio::test]
async fn an_application_that_speaks_http1_is_a_bad_gateway() {
    let (app, healed) = strange(|mut wire| async move {
        let refusal = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        let _ = wire.try_send(refusal).await;
        wire.rest().await.ok();
    })
    .await;
    let (_pki, caller) = caller_of(&app, "").await;
    assert_fails(&caller, &healed, NONE).await;
}

#[tokio::test]
async fn an_application_that_hangs_up_at_once_is_told_of() {
    let (app, healed) = strange(|wire| async move { drop(wire) }).await;
    let (_pki, caller) = caller_of(&app, "").await;
    assert_fails(&caller, &healed, NONE).await;
}

#[tokio::test]
async fn an_answer_before_settings_is_no_http2() {
    let (app, healed) = strange(|wire| async move {
        let mut peer = Peer::of(wire);
        peer.take_preface().await;
        let has_ended = |heard: &selvage_tests::h2frames::Heard| heard.stream(1).ended;
        peer.wait(selvage_tests::wait::PATIENCE, has_ended).await;
        peer.send_all(&good(1)).await;
        while peer.listen().await {}
    })
    .await;
    let (_pki, caller) = caller_of(&app, "").await;
    assert_fails(&caller, &healed, NONE).await;
}

#[tokio::test]
async fn an_application_that_never_says_settings_holds_nobody_for_ever() {
    let (app, _healed) = strange(|wire| async move {
        let mut peer = Peer::of(wire);
        while peer.listen().await {}
    })
    .await;
    let (_pki, caller) = caller_of(&app, "  timeouts: { request: 1s }\n").await;
    for method in [Method::GET, Method::POST] {
        let seen = ask(&caller, &method, "/").await;
        let allowed = [(504, "timeout"), (503, "connect-failure")];
        assert!(
            matches!(&seen, Seen::Whole(answer)
                if allowed.contains(&(answer.status.as_u16(), answer.flag()))),
            "{method}: {seen:?}"
        );
    }
}
