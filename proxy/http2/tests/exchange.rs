//! Whole exchanges over a pipe: this engine with itself and with another
//! implementation of HTTP/2 at either end, bodies both ways, narrow windows.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use selvage_http2::{Config, Error, Reason, RecvStream, SendStream, client, server};
use tokio::io::{DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};

/// How an exchange is made: who is at each end, and how narrow the path is.
#[derive(Clone, Copy, Debug)]
struct Setup {
    client: Engine,
    server: Engine,
    pipe: usize,
    window: u32,
    body: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Engine {
    Ours,
    Other,
}

use Engine::{Other, Ours};

fn config(setup: &Setup) -> Config {
    Config {
        stream_window: setup.window,
        connection_window: 65_535.max(setup.window),
        ..Config::default()
    }
}

/// Octets that are not all alike.
fn body(len: usize, seed: usize) -> Bytes {
    (0..len).map(|n| (n * 31 + seed * 7) as u8).collect()
}

fn within<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let limited = async { tokio::time::timeout(Duration::from_secs(20), future).await };
    LocalSet::new()
        .block_on(&runtime, limited)
        .expect("no hang")
}

async fn read(
    mut body: impl Body<Data = Bytes, Error = Error> + Unpin,
) -> Result<(Bytes, Option<HeaderMap>), Error> {
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) => whole.extend_from_slice(&data),
            Err(frame) => return Ok((whole.freeze(), frame.into_trailers().ok())),
        }
    }
    Ok((whole.freeze(), None))
}

async fn read_other(mut body: h2::RecvStream) -> (Bytes, Option<HeaderMap>) {
    let mut whole = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.expect("data");
        let _ = body.flow_control().release_capacity(data.len());
        whole.extend_from_slice(&data);
    }
    (whole.freeze(), body.trailers().await.expect("trailers"))
}

async fn send(stream: &mut SendStream, mut data: Bytes, trailers: &HeaderMap) -> Result<(), Error> {
    poll_fn(|cx| stream.poll_data(cx, &mut data, false)).await?;
    stream.send_trailers(trailers)
}

async fn send_other(stream: &mut h2::SendStream<Bytes>, mut data: Bytes, trailers: HeaderMap) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|cx| stream.poll_capacity(cx))
            .await
            .expect("open")
            .expect("room");
        stream
            .send_data(data.split_to(room.min(data.len())), false)
            .expect("sent");
    }
    stream.send_trailers(trailers).expect("sent");
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

/// Answers every request by its own body.
async fn echo(setup: Setup, io: DuplexStream) {
    match setup.server {
        Ours => {
            let mut connection = server::Connection::new(io, config(&setup));
            while let Ok(Some((request, mut respond))) =
                poll_fn(|cx| connection.poll_accept(cx)).await
            {
                spawn_local(async move {
                    let (body, came) = read(request.into_body()).await.expect("a request");
                    assert_eq!(came, Some(trailers()));
                    let (head, ()) = Response::new(()).into_parts();
                    let mut stream = respond.send(&head, false).expect("sent").expect("a body");
                    send(&mut stream, body, &trailers()).await.expect("sent");
                });
            }
        }
        Other => {
            let mut builder = h2::server::Builder::new();
            builder.initial_window_size(setup.window);
            let mut connection = builder
                .handshake::<_, Bytes>(io)
                .await
                .expect("a handshake");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                spawn_local(async move {
                    let (body, came) = read_other(request.into_body()).await;
                    assert_eq!(came, Some(trailers()));
                    let mut stream = respond
                        .send_response(Response::new(()), false)
                        .expect("sent");
                    send_other(&mut stream, body, trailers()).await;
                });
            }
        }
    }
}

/// Asks `count` times at once; how many were answered by what was asked.
async fn ask(setup: Setup, io: DuplexStream, count: usize) -> usize {
    let mut asking = Vec::new();
    let request = || {
        Request::post("http://echo.shop/v1")
            .body(())
            .expect("a request")
    };
    match setup.client {
        Ours => {
            let (sender, mut connection) = client::handshake(io, config(&setup));
            spawn_local(async move { poll_fn(|cx| connection.poll(cx)).await });
            for seed in 0..count {
                let (head, ()) = request().into_parts();
                let (answer, stream) = sender.send(&head, false).expect("sent");
                let mut stream = stream.expect("a body");
                let whole = body(setup.body, seed);
                let sent = whole.clone();
                spawn_local(
                    async move { send(&mut stream, sent, &trailers()).await.expect("sent") },
                );
                asking.push(spawn_local(async move {
                    let answer = answer.await.expect("an answer");
                    assert_eq!(answer.status(), StatusCode::OK);
                    let (came, last) = read(answer.into_body()).await.expect("a body");
                    assert_eq!((came == whole, last), (true, Some(trailers())));
                }));
            }
        }
        Other => {
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(setup.window);
            let (mut sender, connection) = builder
                .handshake::<_, Bytes>(io)
                .await
                .expect("a handshake");
            spawn_local(connection);
            for seed in 0..count {
                poll_fn(|cx| sender.poll_ready(cx)).await.expect("ready");
                let (answer, mut stream) = sender.send_request(request(), false).expect("sent");
                let whole = body(setup.body, seed);
                let sent = whole.clone();
                spawn_local(async move { send_other(&mut stream, sent, trailers()).await });
                asking.push(spawn_local(async move {
                    let answer = answer.await.expect("an answer");
                    let (came, last) = read_other(answer.into_body()).await;
                    assert_eq!((came == whole, last), (true, Some(trailers())));
                }));
            }
        }
    }
    let mut answered = 0;
    for one in asking {
        one.await.expect("no panic");
        answered += 1;
    }
    answered
}

#[test]
fn bodies_arrive_whole_whoever_speaks_and_however_narrow_the_path() {
    let mut exchanges = 0;
    for (client, server) in [(Ours, Ours), (Ours, Other), (Other, Ours)] {
        for (pipe, window, body) in [
            (64, 65_535, 100),
            (1 << 20, 65_535, 0),
            (4096, 1, 500),
            (4096, 100, 20_000),
            (100_000, 65_535, 300_000),
            (1 << 20, 1 << 20, 300_000),
        ] {
            let setup = Setup {
                client,
                server,
                pipe,
                window,
                body,
            };
            let answered = within(async move {
                let (near, far) = duplex(setup.pipe);
                spawn_local(echo(setup, far));
                ask(setup, near, 20).await
            });
            assert_eq!(answered, 20, "{setup:?}");
            exchanges += answered;
        }
    }
    println!("{exchanges} exchanges");
}

/// One request of ours, to a server that does as `serve` says.
fn one<F, T>(
    serve: impl FnOnce(server::Connection<DuplexStream>) -> F + 'static,
    then: impl AsyncFnOnce(client::Sender) -> T,
) -> T
where
    F: Future<Output = ()> + 'static,
{
    within(async move {
        let (near, far) = duplex(1 << 16);
        spawn_local(serve(server::Connection::new(far, Config::default())));
        let (sender, mut connection) = client::handshake(near, Config::default());
        spawn_local(async move { poll_fn(|cx| connection.poll(cx)).await });
        then(sender).await
    })
}

fn get() -> http::request::Parts {
    Request::get("http://x.shop/")
        .body(())
        .expect("a request")
        .into_parts()
        .0
}

type Asked = (Request<RecvStream>, server::Respond);

async fn next(connection: &mut server::Connection<DuplexStream>) -> Asked {
    let asked = poll_fn(|cx| connection.poll_accept(cx)).await;
    asked.expect("no error").expect("a request")
}

#[test]
fn an_answer_that_is_not_wanted_cancels_its_request() {
    let (told, cancelled) = std::sync::mpsc::channel();
    let serve = move |mut connection: server::Connection<DuplexStream>| async move {
        let (_request, mut respond) = next(&mut connection).await;
        let reset = poll_fn(|cx| {
            assert!(connection.poll_accept(cx).is_pending());
            respond.poll_reset(cx)
        });
        told.send(reset.await).expect("heard");
        let _ = poll_fn(|cx| connection.poll_accept(cx)).await;
    };
    let reset = one(serve, async |sender| {
        let (answer, _) = sender.send(&get(), true).expect("sent");
        tokio::task::yield_now().await;
        drop(answer);
        loop {
            match cancelled.try_recv() {
                Ok(reset) => return reset,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(reset.reason(), Some(Reason::CANCEL));
}

#[test]
fn a_server_that_leaves_serves_what_it_has_and_no_more() {
    let serve = |mut connection: server::Connection<DuplexStream>| async move {
        let (_first, mut respond) = next(&mut connection).await;
        connection.leave();
        // The peer answers the PING; what it opened until then is served.
        let (_second, mut second) = next(&mut connection).await;
        for respond in [&mut respond, &mut second] {
            respond
                .send(&Response::new(()).into_parts().0, true)
                .expect("sent");
        }
        let ended = poll_fn(|cx| connection.poll_accept(cx)).await;
        assert!(matches!(ended, Ok(None)));
    };
    one(serve, async |sender| {
        let (first, _) = sender.send(&get(), true).expect("sent");
        let (second, _) = sender.send(&get(), true).expect("sent");
        assert_eq!(first.await.expect("an answer").status(), StatusCode::OK);
        assert_eq!(second.await.expect("an answer").status(), StatusCode::OK);
        assert!(!sender.is_open());
        assert!(matches!(sender.send(&get(), true), Err(Error::Unprocessed)));
    });
}

#[test]
fn no_more_streams_are_opened_than_the_peer_allows() {
    let serve = |mut connection: server::Connection<DuplexStream>| async move {
        let mut held = Vec::new();
        loop {
            match poll_fn(|cx| connection.poll_accept(cx)).await {
                Ok(Some(asked)) => held.push(asked),
                _ => return,
            }
        }
    };
    one(serve, async |sender| {
        // The answer to a first one says that the settings are there.
        let mut answers = Vec::new();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        for _ in 0..Config::default().streams {
            answers.push(sender.send(&get(), true).expect("sent").0);
        }
        assert!(matches!(sender.send(&get(), true), Err(Error::Unprocessed)));
        answers.pop();
        assert!(sender.send(&get(), true).is_ok());
    });
}

#[test]
fn a_transport_that_ends_fails_what_is_open() {
    within(async {
        let (near, far) = duplex(1 << 16);
        let (sender, mut connection) = client::handshake(near, Config::default());
        let driven = spawn_local(async move { poll_fn(|cx| connection.poll(cx)).await });
        let (answer, _) = sender.send(&get(), true).expect("sent");
        drop(far);
        assert!(matches!(answer.await, Err(Error::Io(_))));
        assert!(matches!(driven.await.expect("no panic"), Err(Error::Io(_))));
        assert!(!sender.is_open());
    });
}

#[test]
fn a_connection_ends_with_its_last_sender_and_stream() {
    within(async {
        let (near, far) = duplex(1 << 16);
        let served = spawn_local(async move {
            let mut connection = server::Connection::new(far, Config::default());
            let (_, mut respond) = next(&mut connection).await;
            respond
                .send(&Response::new(()).into_parts().0, true)
                .expect("sent");
            poll_fn(|cx| connection.poll_accept(cx))
                .await
                .map(|asked| asked.is_none())
        });
        let (sender, mut connection) = client::handshake(near, Config::default());
        let driven = spawn_local(async move { poll_fn(|cx| connection.poll(cx)).await });
        let (answer, _) = sender.send(&get(), true).expect("sent");
        drop(sender);
        assert!(answer.await.is_ok());
        assert_eq!(driven.await.expect("no panic"), Ok(()));
        assert_eq!(served.await.expect("no panic"), Ok(true));
    });
}

#[test]
fn a_peer_that_is_asked_answers() {
    within(async {
        let (near, far) = duplex(1 << 16);
        spawn_local(async move {
            let mut connection = server::Connection::new(far, Config::default());
            poll_fn(|cx| connection.poll_accept(cx)).await.map(drop)
        });
        let (_sender, mut connection) = client::handshake(near, Config::default());
        connection.ask();
        assert!(!connection.is_there());
        poll_fn(|cx| {
            assert!(connection.poll(cx).is_pending());
            if connection.is_there() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    });
}

#[test]
fn one_stalled_reader_does_not_hold_up_another() {
    // Both windows of the stalled stream are full; the connection's has room.
    let serve = |mut connection: server::Connection<DuplexStream>| async move {
        while let Ok(Some((_, mut respond))) = poll_fn(|cx| connection.poll_accept(cx)).await {
            spawn_local(async move {
                let (head, ()) = Response::new(()).into_parts();
                let mut stream = respond.send(&head, false).expect("sent").expect("a body");
                let _ = send(&mut stream, body(200_000, 1), &trailers()).await;
            });
        }
    };
    let setup = Config {
        stream_window: 65_535,
        connection_window: 10 * 65_535,
        ..Config::default()
    };
    let read = within(async move {
        let (near, far) = duplex(1 << 16);
        spawn_local(serve(server::Connection::new(far, Config::default())));
        let (sender, mut connection) = client::handshake(near, setup);
        spawn_local(async move { poll_fn(|cx| connection.poll(cx)).await });
        let (stalled, _) = sender.send(&get(), true).expect("sent");
        let stalled = stalled.await.expect("an answer");
        let (other, _) = sender.send(&get(), true).expect("sent");
        let (whole, last) = read(other.await.expect("an answer").into_body())
            .await
            .expect("a body");
        assert_eq!(last, Some(trailers()));
        drop(stalled);
        whole.len()
    });
    assert_eq!(read, 200_000);
}
