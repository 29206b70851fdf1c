//! What must hold of a connection that is awake and parked in turns.

use std::cell::RefCell;
use std::time::Instant;

use ::http::header::{CONNECTION, HeaderValue, UPGRADE};
use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::accept::Purpose;
use crate::connection::Ends;
use crate::http::body::{End, Ending};

const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(20);

/// A connection, its caller, and what became of it.
struct Scene {
    downstream: Rc<Downstream>,
    bell: Arc<DoorBell>,
    closing: CancellationToken,
    bounds: Bounds,
    /// The paths asked for, one by one.
    asked: Rc<RefCell<Vec<String>>>,
}

/// Counts a request out, as its record does.
struct Counts(Rc<Downstream>, bool);

impl Ending for Counts {
    fn moved(&self) {}

    fn waits(&self) {}

    fn end(self: Box<Self>, _: End, _: Option<&HeaderMap>, _: u64) {
        let Self(downstream, another) = *self;
        downstream.streams.set(downstream.streams.get() - 1);
        if let Some(bell) = downstream.bell.as_ref().filter(|_| another) {
            bell.response_ended();
        }
    }
}

impl Scene {
    async fn new() -> (Self, Option<Prefixed<TcpStream>>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (accepted, caller) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let (stream, remote) = accepted.expect("accepted");
        let bell = Arc::new(DoorBell::default());
        let side = Side::Outbound {
            purpose: Arc::new(Purpose::Outbound),
        };
        let ends = Ends {
            remote,
            port: address.port(),
        };
        let mut downstream = ends.downstream(side);
        downstream.bell = Some(bell.clone());
        let scene = Self {
            downstream: Rc::new(downstream),
            bell,
            closing: CancellationToken::new(),
            bounds: Bounds {
                limits: DoorLimits {
                    head: PATIENCE,
                    idle: Some(PATIENCE),
                    quiet: Some(SHORT),
                    drop_ends: true,
                },
                header_bytes: 64 * 1024,
                headers: HYPER_HEADERS,
            },
            asked: Rc::default(),
        };
        (scene, Some(Prefixed::bare(stream)), caller.expect("called"))
    }

    fn keeper(&self) -> Keeper<'_, impl Fn(Request<Incoming>) -> Answer> {
        Keeper {
            handle: |request| answer(self.downstream.clone(), &self.asked, request),
            downstream: &self.downstream,
            bell: &self.bell,
            closing: &self.closing,
            bounds: self.bounds,
            upgrades: Cell::new(false),
        }
    }

    /// Serves while `caller` runs; whether the connection ended before it.
    async fn plays<T>(
        &self,
        place: &mut Option<Prefixed<TcpStream>>,
        caller: impl Future<Output = T>,
    ) -> (T, bool) {
        let keeper = self.keeper();
        let mut ended = false;
        let mut keeping = pin!(keeper.keep(place));
        let mut caller = pin!(caller);
        // It has to wake by itself: the caller's steps would hide where it does not.
        let mut aside = Aside::default();
        let both = poll_fn(|cx| {
            if !ended {
                ended = aside.poll(keeping.as_mut(), cx).is_ready();
            }
            caller.as_mut().poll(cx)
        });
        let said = tokio::time::timeout(PATIENCE * 2, both).await;
        (said.expect("within the time of a test"), ended)
    }

    /// Waits until it is parked.
    async fn parked(&self) {
        while !self.is_parked() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn is_parked(&self) -> bool {
        // hyper was asked to go, and no door has opened since.
        self.bell.is_left()
    }
}

type Answer = Pin<Box<dyn Future<Output = Response<ResponseBody>>>>;

/// Says the path, whatever body comes; `/slow` after a while; `/up` becomes an echo.
fn answer(
    downstream: Rc<Downstream>,
    asked: &RefCell<Vec<String>>,
    mut request: Request<Incoming>,
) -> Answer {
    downstream.begins();
    let path = request.uri().path().to_owned();
    asked.borrow_mut().push(path.clone());
    Box::pin(async move {
        if path == "/slow" {
            tokio::time::sleep(SHORT * 4).await;
        }
        let upgraded = path == "/up";
        let counts = Box::new(Counts(downstream, !upgraded));
        if !upgraded {
            let body = ResponseBody::of_bytes(Bytes::from(format!("<{path}>")));
            return Response::new(body.ending(counts));
        }
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::task::spawn_local(async move {
            let mut stream = TokioIo::new(upgrade.await.expect("upgraded"));
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.expect("half an end");
            stream.write_all(&bytes).await.expect("the other half");
            stream.shutdown().await.expect("an end");
        });
        let mut response = Response::new(ResponseBody::empty().ending(counts));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("echo"));
        response
    })
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: orders\r\n\r\n")
}

/// Reads up to the end of one answer.
async fn heard(caller: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let read = caller.read_buf(&mut bytes).await.expect("bytes");
        assert!(
            read > 0,
            "closed after {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
    String::from_utf8(bytes).expect("text")
}

async fn asks(caller: &mut TcpStream, path: &str) {
    caller.write_all(get(path).as_bytes()).await.expect("sent");
    let answer = heard(caller, &format!("<{path}>")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

async fn is_closed(caller: &mut TcpStream) -> bool {
    let read = caller.read(&mut [0; 1]).await;
    read.is_ok_and(|count| count == 0)
}

#[tokio::test]
async fn a_parked_connection_answers_its_next_request() {
    let (scene, mut place, mut caller) = Scene::new().await;
    let ((), ended) = scene
        .plays(&mut place, async {
            for round in 0..4 {
                asks(&mut caller, &format!("/{round}")).await;
                scene.parked().await;
            }
        })
        .await;
    assert!(!ended);
    assert_eq!(*scene.asked.borrow(), ["/0", "/1", "/2", "/3"]);
    let ((), ended) = scene
        .plays(&mut place, async {
            drop(caller);
            while scene.downstream.streams.get() > 0 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(SHORT).await;
        })
        .await;
    assert!(ended, "its caller has gone");
}

#[tokio::test]
async fn what_comes_while_it_is_parked_or_taken_back_is_served_once() {
    let (mut scene, mut place, mut caller) = Scene::new().await;
    let quiet = Duration::from_millis(2);
    scene.bounds.limits.quiet = Some(quiet);
    let ((), ended) = scene
        .plays(&mut place, async {
            for round in 0..200_u32 {
                asks(&mut caller, &format!("/{round}")).await;
                // Around the moment at which it is parked, on both sides of it.
                tokio::time::sleep(quiet / 2 + quiet * (round % 8) / 4).await;
            }
        })
        .await;
    assert!(!ended);
    let expected: Vec<_> = (0..200).map(|round| format!("/{round}")).collect();
    assert_eq!(*scene.asked.borrow(), expected);
}

#[tokio::test]
async fn what_hyper_had_read_ahead_comes_back() {
    let (scene, mut place, mut caller) = Scene::new().await;
    let ((), ended) = scene
        .plays(&mut place, async {
            let (first, rest) = (get("/one"), get("/two"));
            for cut in [1, 9, rest.len() - 1] {
                let ahead = format!("{first}{}", &rest[..cut]);
                caller.write_all(ahead.as_bytes()).await.expect("sent");
                heard(&mut caller, "</one>").await;
                tokio::time::sleep(SHORT * 3).await;
                let behind = &rest.as_bytes()[cut..];
                caller.write_all(behind).await.expect("sent");
                heard(&mut caller, "</two>").await;
                scene.parked().await;
            }
        })
        .await;
    assert!(!ended);
    assert_eq!(scene.asked.borrow().len(), 6);
}

#[tokio::test]
async fn a_body_that_nobody_read_is_no_next_request() {
    let (scene, mut place, mut caller) = Scene::new().await;
    let within = get("/within");
    let ((), ended) = scene
        .plays(&mut place, async {
            let length = 2 * within.len();
            let head = format!("POST /one HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
            caller.write_all(head.as_bytes()).await.expect("sent");
            heard(&mut caller, "</one>").await;
            for _ in 0..2 {
                tokio::time::sleep(SHORT * 3).await;
                // It may have been closed: then nobody takes it.
                let _ = caller.write_all(within.as_bytes()).await;
            }
            tokio::time::sleep(SHORT * 3).await;
        })
        .await;
    assert!(ended, "what is left of a body cannot be told from a head");
    assert_eq!(*scene.asked.borrow(), ["/one"]);
}

#[tokio::test]
async fn an_empty_line_after_a_body_is_no_head() {
    let (mut scene, mut place, mut caller) = Scene::new().await;
    scene.bounds.limits.head = SHORT;
    let ((), ended) = scene
        .plays(&mut place, async {
            let post = "POST /one HTTP/1.1\r\nhost: orders\r\ncontent-length: 2\r\n\r\nok\r\n";
            caller.write_all(post.as_bytes()).await.expect("sent");
            heard(&mut caller, "</one>").await;
            tokio::time::sleep(SHORT * 6).await;
            asks(&mut caller, "/two").await;
        })
        .await;
    assert!(!ended);
}

#[tokio::test]
async fn idle_time_ends_a_parked_connection() {
    let (mut scene, mut place, mut caller) = Scene::new().await;
    scene.bounds.limits.idle = Some(SHORT * 5);
    let begun = Instant::now();
    let ((), ended) = scene
        .plays(&mut place, async {
            asks(&mut caller, "/one").await;
            assert!(is_closed(&mut caller).await);
        })
        .await;
    assert!(ended);
    assert!(begun.elapsed() >= SHORT * 5, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_drain_ends_a_parked_connection_at_once() {
    let (scene, mut place, mut caller) = Scene::new().await;
    let ((), ended) = scene
        .plays(&mut place, async {
            asks(&mut caller, "/one").await;
            scene.parked().await;
            scene.closing.cancel();
            let begun = Instant::now();
            assert!(is_closed(&mut caller).await);
            assert!(begun.elapsed() < LAST_WORD, "{:?}", begun.elapsed());
        })
        .await;
    assert!(ended);
}

#[tokio::test]
async fn a_drain_is_said_in_the_answer_that_is_on_its_way() {
    let (scene, mut place, mut caller) = Scene::new().await;
    let ((), ended) = scene
        .plays(&mut place, async {
            let slow = get("/slow");
            caller.write_all(slow.as_bytes()).await.expect("sent");
            while scene.downstream.streams.get() == 0 {
                tokio::task::yield_now().await;
            }
            scene.closing.cancel();
            let answer = heard(&mut caller, "</slow>").await;
            assert!(answer.contains("connection: close"), "{answer}");
            assert!(is_closed(&mut caller).await);
        })
        .await;
    assert!(ended);
}

#[tokio::test]
async fn what_follows_the_last_request_takes_nothing_from_its_answer() {
    for (more, path) in [(1, "/one"), (1, "/slow"), (10_000, "/one")] {
        let (scene, mut place, mut caller) = Scene::new().await;
        let last = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let ((), ended) = scene
            .plays(&mut place, async {
                let all = last + &"G".repeat(more);
                caller.write_all(all.as_bytes()).await.expect("sent");
                let answer = heard(&mut caller, &format!("<{path}>")).await;
                assert!(answer.contains("connection: close"), "{answer}");
                while scene.downstream.streams.get() > 0 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        assert!(ended, "{more} bytes more, {path}");
        assert_eq!(*scene.asked.borrow(), [path]);
    }
}

#[tokio::test]
async fn the_first_bytes_are_read_without_a_second_look_at_the_socket() {
    let (_scene, place, mut caller) = Scene::new().await;
    let mut stream = place.expect("accepted");
    caller.write_all(b"GET / HTTP/1.1").await.expect("sent");
    assert!(stream.fetch_now().await);
    assert_eq!(stream.prefix(), b"GET / HTTP/1.1");
    let looked = stream.looks(|| Err(std::io::ErrorKind::WouldBlock.into()));
    assert!(!looked, "the runtime knows that it is empty");
    caller.write_all(b"\r\n").await.expect("sent");
    assert_eq!(stream.fetch().await.expect("more"), 2);
}

#[tokio::test]
async fn a_slow_head_after_the_pause_is_answered_as_one() {
    let (mut scene, mut place, mut caller) = Scene::new().await;
    scene.bounds.limits.head = SHORT * 3;
    let ((), ended) = scene
        .plays(&mut place, async {
            asks(&mut caller, "/one").await;
            scene.parked().await;
            caller.write_all(b"GET /two HT").await.expect("sent");
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
            assert!(answer.contains("slow-request"), "{answer}");
        })
        .await;
    assert!(ended);
    assert_eq!(scene.bell.refused(), Some(Flag::SlowRequest));
    assert_eq!(*scene.asked.borrow(), ["/one"]);
}

#[tokio::test]
async fn a_connection_that_waited_for_its_answer_is_parked() {
    let (scene, mut place, mut caller) = Scene::new().await;
    let ((), ended) = scene
        .plays(&mut place, async {
            for _ in 0..2 {
                asks(&mut caller, "/slow").await;
                scene.parked().await;
            }
        })
        .await;
    assert!(!ended);
}

#[tokio::test]
async fn idle_time_ends_a_connection_that_waited_for_its_answer() {
    let (mut scene, mut place, mut caller) = Scene::new().await;
    scene.bounds.limits.idle = Some(SHORT * 2);
    scene.bounds.limits.quiet = None;
    let ((), ended) = scene
        .plays(&mut place, async {
            asks(&mut caller, "/slow").await;
            assert!(is_closed(&mut caller).await);
        })
        .await;
    assert!(ended);
}

#[tokio::test]
async fn a_request_that_takes_its_time_is_not_parked_upon() {
    let (scene, mut place, mut caller) = Scene::new().await;
    let ((), ended) = scene
        .plays(&mut place, async {
            asks(&mut caller, "/slow").await;
            asks(&mut caller, "/slow").await;
        })
        .await;
    assert!(!ended);
    assert_eq!(*scene.asked.borrow(), ["/slow", "/slow"]);
}

#[tokio::test]
async fn an_upgrade_is_never_parked() {
    let local = tokio::task::LocalSet::new();
    let played = async {
        let (scene, mut place, mut caller) = Scene::new().await;
        let played = async {
            let up = "connection: upgrade\r\nupgrade: echo\r\n\r\n";
            // Declined at first: hyper would still hand the socket to nobody.
            for path in ["/no", "/up"] {
                let request = format!("GET {path} HTTP/1.1\r\nhost: orders\r\n{up}");
                caller.write_all(request.as_bytes()).await.expect("sent");
                let end = if path == "/no" { "</no>" } else { "\r\n\r\n" };
                heard(&mut caller, end).await;
                tokio::time::sleep(SHORT * 3).await;
                assert!(!scene.is_parked());
            }
            caller.write_all(b"echo").await.expect("sent");
            tokio::time::sleep(SHORT * 3).await;
            caller.shutdown().await.expect("half an end");
            let mut echoed = String::new();
            caller.read_to_string(&mut echoed).await.expect("an echo");
            assert_eq!(echoed, "echo");
        };
        scene.plays(&mut place, played).await
    };
    let ((), ended) = local.run_until(played).await;
    assert!(ended, "it is a tunnel now");
}

/// The size of what a function returns.
fn size3<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn what_an_idle_connection_keeps_is_small() {
    let (task, parked) = (size3(super::super::serve), size3(http1::<TcpStream>));
    assert!(task <= 256, "a task moves {task} bytes");
    assert!(parked <= 768, "a parked connection holds {parked} bytes");
}

#[test]
fn what_a_request_moves_is_small() {
    let request = size3(crate::request::handle);
    assert!(request <= 1408, "a request's future has {request} bytes");
}
