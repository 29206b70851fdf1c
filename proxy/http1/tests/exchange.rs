//! Exchanges over a pipe, with hyper's server and with raw octets at the other end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use selvage_http1::{Connection, Error, Home};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};

/// A body of known frames, whose length nobody is told.
struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

fn frames(parts: &[Bytes], trailers: Option<HeaderMap>) -> Frames {
    let data = parts.iter().cloned().map(Frame::data);
    Frames(data.chain(trailers.map(Frame::trailers)).collect())
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

fn home() -> Home<DuplexStream> {
    Rc::new(RefCell::new(None))
}

/// A server that answers by what it is sent.
fn echo(io: DuplexStream) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| async {
        let mut response = Response::new(request.into_body());
        let trailer = HeaderValue::from_static("x-sum");
        response.headers_mut().insert("trailer", trailer);
        Ok::<_, Infallible>(response)
    });
    let serving = hyper::server::conn::http1::Builder::new();
    let serving = serving.serve_connection(TokioIo::new(io), service);
    spawn_local(async move {
        let _ = serving.await;
    });
}

async fn read(
    mut body: impl Body<Data = Bytes, Error = Error> + Unpin,
) -> Result<(Bytes, Option<HeaderMap>), Error> {
    let mut whole = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) => whole.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((whole.freeze(), trailers))
}

fn octets(len: usize) -> Bytes {
    (0..len).map(|n| (n * 31) as u8).collect()
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    trailers
}

#[test]
fn bodies_go_there_and_back_and_the_connection_is_used_again() {
    let mut exchanges = 0;
    for pipe in [7, 1000, 1 << 20] {
        exchanges += within(async move {
            let (near, far) = duplex(pipe);
            echo(far);
            let mut connection = Connection::new(near);
            let mut count = 0;
            for len in [0, 1, 100, 5_000, 100_000] {
                let parts = [octets(len / 3), octets(len - len / 3)];
                let sent = parts.concat();
                let request = Request::post("/echo").header("te", "trailers");
                let request = request
                    .body(frames(&parts, Some(trailers())))
                    .expect("a request");
                let home = home();
                let answer = connection.send(request, &home).await.expect("an answer");
                assert_eq!(answer.status(), StatusCode::OK);
                let (body, last) = read(answer.into_body()).await.expect("a body");
                assert!(body == sent, "{len} octets by {pipe}");
                assert_eq!(last, Some(trailers()));
                connection = home.take().expect("the connection is back");
                assert!(connection.is_open());
                count += 1;
            }
            count
        });
    }
    assert_eq!(exchanges, 15);
}

/// What comes of one GET that is answered by `text`, after which the peer closes if it is told to.
fn answered(text: &'static str, closes: bool) -> (Result<(u16, Bytes), Error>, bool) {
    within(async move {
        let (near, mut far) = duplex(1 << 16);
        let peer = spawn_local(async move {
            let mut asked = BytesMut::new();
            while !asked.ends_with(b"\r\n\r\n") {
                assert!(far.read_buf(&mut asked).await.expect("read") > 0);
            }
            far.write_all(text.as_bytes()).await.expect("written");
            // Kept to the end of the test, where it does not close.
            (!closes).then_some(far)
        });
        let home = home();
        let request = Request::get("/")
            .body(frames(&[], None))
            .expect("a request");
        let exchange = async {
            let answer = Connection::new(near).send(request, &home).await?;
            let status = answer.status().as_u16();
            read(answer.into_body())
                .await
                .map(|(body, _)| (status, body))
        };
        let result = exchange.await;
        let _far = peer.await.expect("no panic");
        let mut back = home.take();
        (result, back.as_mut().is_some_and(Connection::is_open))
    })
}

#[test]
fn an_answer_ends_where_it_says_and_the_connection_is_kept_where_it_can() {
    let table: [(&str, bool, &str, bool); 9] = [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            false,
            "hi",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            false,
            "",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            false,
            "hi",
            true,
        ),
        (
            "HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            false,
            "hi",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi",
            false,
            "hi",
            false,
        ),
        (
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            false,
            "hi",
            false,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhi", true, "hi", false),
        // More than was asked for.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200",
            false,
            "hi",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            true,
            "hi",
            false,
        ),
    ];
    for (text, closes, body, kept) in table {
        let (result, back) = answered(text, closes);
        assert_eq!(result, Ok((200, Bytes::from(body))), "{text}");
        assert_eq!(back, kept, "{text}");
    }
}

#[test]
fn what_breaks_off_is_no_answer() {
    let table: [(&str, Error); 6] = [
        ("", Error::Closed),
        ("HTTP/1.1 200 OK\r\ncontent-le", Error::Incomplete),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi",
            Error::Incomplete,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
            Error::Incomplete,
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n", Error::Incomplete),
        (
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            Error::Malformed("an upgrade that nobody asked for"),
        ),
    ];
    for (text, error) in table {
        assert_eq!(answered(text, true), (Err(error), false), "{text}");
    }
}

/// A body that is fed from outside.
struct Fed(tokio::sync::mpsc::UnboundedReceiver<Bytes>);

impl Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = std::task::ready!(self.0.poll_recv(cx));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// What a peer hears until the end of some octets.
async fn until(far: &mut DuplexStream, end: &str) -> String {
    let mut heard = BytesMut::new();
    while !heard.ends_with(end.as_bytes()) {
        assert!(
            far.read_buf(&mut heard).await.expect("read") > 0,
            "{heard:?}"
        );
    }
    String::from_utf8(heard.to_vec()).expect("text")
}

#[test]
fn one_exchange_follows_another_octet_by_octet() {
    within(async {
        let (near, mut far) = duplex(1 << 16);
        let home = home();
        let mut connection = Connection::new(near);
        let table = [
            (
                Request::get("/a"),
                frames(&[], None),
                "GET /a HTTP/1.1\r\n\r\n",
            ),
            (
                Request::post("/b"),
                frames(&[], None),
                "POST /b HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            ),
            (
                Request::post("/c"),
                frames(&[Bytes::from_static(b"hello")], Some(trailers())),
                "POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n",
            ),
            (
                Request::put("/d").header("content-length", "5"),
                frames(&[Bytes::from_static(b"hello")], None),
                "PUT /d HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello",
            ),
        ];
        for (request, body, octets) in table {
            let request = request.body(body).expect("a request");
            let peer = async {
                let heard = until(&mut far, &octets[octets.len() - 4..]).await;
                far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await
                    .expect("written");
                heard
            };
            let (answer, heard) = tokio::join!(connection.send(request, &home), peer);
            assert_eq!(heard, octets);
            let (body, _) = read(answer.expect("an answer").into_body())
                .await
                .expect("a body");
            assert_eq!(body, "ok");
            connection = home.take().expect("the connection is back");
        }
    });
}

#[test]
fn a_request_that_is_accepted_early_is_still_sent_whole() {
    within(async {
        let (near, mut far) = duplex(1 << 16);
        let (feed, fed) = tokio::sync::mpsc::unbounded_channel();
        let request = Request::post("/").body(Fed(fed)).expect("a request");
        let home = home();
        let answer = Connection::new(near).send(request, &home);
        far.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
            .await
            .expect("written");
        let mut body = answer.await.expect("an answer").into_body();
        let rest = spawn_local(body.rest().expect("the body is not there yet"));
        assert!(body.rest().is_none(), "it is taken");
        assert!(
            body.is_end_stream(),
            "nothing comes that had to be asked for"
        );
        drop(body);
        for piece in ["one", "two"] {
            feed.send(Bytes::from(piece)).expect("somebody reads it");
        }
        drop(feed);
        let heard = until(&mut far, "0\r\n\r\n").await;
        assert!(
            heard.ends_with("\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
            "{heard}"
        );
        rest.await.expect("no panic");
        assert!(home.take().is_none());
        assert_eq!(far.read(&mut [0]).await.expect("an end"), 0);
    });
}

#[test]
fn what_is_left_ends_with_the_reader_of_the_answer() {
    within(async {
        let (near, mut far) = duplex(1 << 16);
        let (feed, fed) = tokio::sync::mpsc::unbounded_channel();
        let request = Request::post("/").body(Fed(fed)).expect("a request");
        let answer = Connection::new(near).send(request, &home());
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegun")
            .await
            .expect("written");
        let mut body = answer.await.expect("an answer").into_body();
        let rest = spawn_local(body.rest().expect("the body is not there yet"));
        feed.send(Bytes::from("one")).expect("somebody reads it");
        until(&mut far, "one\r\n").await;
        drop(body);
        rest.await.expect("no panic");
        assert_eq!(far.read(&mut [0]).await.expect("an end"), 0);
        assert!(feed.is_closed());
    });
}

#[test]
fn a_request_that_breaks_off_ends_its_answer() {
    within(async {
        let (near, mut far) = duplex(1 << 16);
        // A byte more than it says.
        let body = frames(
            &[Bytes::from_static(b"hello"), Bytes::from_static(b"!")],
            None,
        );
        let request = Request::post("/").header("content-length", "5");
        let request = request.body(body).expect("a request");
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\n")
            .await
            .expect("written");
        let answer = Connection::new(near).send(request, &home()).await;
        assert_eq!(answer.err(), Some(Error::Request));
        assert!(until(&mut far, "hello").await.contains("content-length: 5"));
        assert_eq!(far.read(&mut [0]).await.expect("an end"), 0);
    });
}

#[test]
fn nothing_was_sent_where_the_first_write_fails() {
    within(async {
        let (near, far) = duplex(64);
        drop(far);
        let request = Request::get("/")
            .body(frames(&[], None))
            .expect("a request");
        let answer = Connection::new(near).send(request, &home()).await;
        assert!(matches!(answer, Err(Error::Unsent(_))), "{answer:?}");
    });
}

#[test]
fn an_answer_before_the_end_of_the_question_is_heard() {
    within(async {
        let (near, mut far) = duplex(64);
        let peer = spawn_local(async move {
            let mut octet = [0];
            far.read_exact(&mut octet).await.expect("read");
            far.write_all(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n")
                .await
                .expect("written");
            far
        });
        let home = home();
        let request = Request::post("/")
            .body(frames(&[octets(100_000)], None))
            .expect("a request");
        let answer = Connection::new(near)
            .send(request, &home)
            .await
            .expect("an answer");
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(
            home.take().is_none(),
            "the rest of the request is still owed"
        );
        drop(peer);
    });
}
