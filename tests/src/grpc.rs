//! gRPC made by hand, five-byte prefixes and all: an application with one
//! method per kind of call, and what a caller needs to speak to it. The
//! messages are plain bytes; nobody between the two may care.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::app::App;
use crate::body::{self, Body};
use crate::client::{Http2, request2};
use crate::wait;

/// One message in its frame.
#[must_use]
pub fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a test's message fits a frame");
    let mut frame = vec![0];
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    frame.into()
}

/// Trailers that end a call.
#[must_use]
pub fn trailers(status: u32, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status));
    if !message.is_empty() {
        trailers.insert(
            "grpc-message",
            HeaderValue::from_str(message).expect("a test's message is ASCII"),
        );
    }
    trailers
}

/// Reads messages as they come.
pub struct Messages {
    body: Incoming,
    bytes: BytesMut,
    ready: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Messages {
    /// The messages of a body.
    #[must_use]
    pub fn of(body: Incoming) -> Self {
        Self {
            body,
            bytes: BytesMut::new(),
            ready: VecDeque::new(),
            trailers: None,
        }
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// When the body breaks off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            let Some(frame) = wait::soon("the next message", self.body.frame()).await else {
                return Ok(None);
            };
            match frame?.into_data() {
                Ok(data) => self.take(&data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    /// The `grpc-status` of the trailers, after the end.
    #[must_use]
    pub fn status(&self) -> Option<u32> {
        status_of(self.trailers.as_ref()?)
    }

    fn take(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
        while let Some(length) = self.bytes.get(1..5) {
            let length = length
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            if self.bytes.len() < 5 + length {
                return;
            }
            self.bytes.advance(5);
            self.ready.push_back(self.bytes.split_to(length).freeze());
        }
    }
}

/// `grpc-status` as a number.
#[must_use]
pub fn status_of(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// How a call came out.
#[derive(Debug)]
pub struct Outcome {
    /// The HTTP status.
    pub http: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// All messages.
    pub messages: Vec<Bytes>,
    /// `grpc-status`, from the trailers or, without a body, from the headers.
    pub status: Option<u32>,
}

/// A request of a call.
#[must_use]
pub fn request(authority: &str, method: &str, body: Body) -> Request<Body> {
    let mut request = request2(
        Method::POST,
        authority,
        &format!("/test.Echo/{method}"),
        body,
    );
    request
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    request
        .headers_mut()
        .insert("te", HeaderValue::from_static("trailers"));
    request
}

/// Makes one call and reads it to its end.
///
/// # Errors
/// When the stream breaks off.
pub async fn call(connection: &Http2, request: Request<Body>) -> Result<Outcome, hyper::Error> {
    let response = connection.send(request).await?;
    let (head, body) = response.into_parts();
    let mut reader = Messages::of(body);
    let mut messages = Vec::new();
    while let Some(message) = reader.next().await? {
        messages.push(message);
    }
    let status = reader.status().or_else(|| status_of(&head.headers));
    Ok(Outcome {
        http: head.status.as_u16(),
        headers: head.headers,
        messages,
        status,
    })
}

/// An application with one method per kind of call:
/// `Unary` echoes; `ServerStream` answers the message's bytes one by one;
/// `ClientStream` answers all messages joined; `Bidi` echoes each as it comes;
/// `Fail` ends with status 9 and no message; `FailLate` with 14 after one message.
pub async fn application() -> App {
    App::start(serve).await
}

/// The same application, with at most `streams` calls at once on each connection.
pub async fn narrow_application(streams: u32) -> App {
    App::with_streams(streams, serve).await
}

async fn serve(request: Request<Incoming>) -> Response<Body> {
    let method = request.uri().path().to_owned();
    let mut messages = Messages::of(request.into_body());
    if method == "/test.Echo/Fail" {
        let mut response = Response::new(body::empty());
        *response.headers_mut() = trailers(9, "as you wish");
        response
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        return response;
    }
    let (feed, body) = body::channel();
    tokio::spawn(async move {
        let mut joined = Vec::new();
        while let Ok(Some(message)) = messages.next().await {
            match method.as_str() {
                "/test.Echo/ServerStream" => {
                    for byte in &message {
                        feed.data(frame(&[*byte])).await;
                    }
                }
                "/test.Echo/ClientStream" => joined.extend_from_slice(&message),
                _ => {
                    feed.data(frame(&message)).await;
                }
            }
        }
        if method == "/test.Echo/ClientStream" {
            feed.data(frame(&joined)).await;
        }
        let status = if method == "/test.Echo/FailLate" {
            14
        } else {
            0
        };
        feed.trailers(trailers(status, "")).await;
    });
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}
