//! One question about health, put over a stream that is open already: to the
//! application beside us, or to an endpoint. It waits for nothing but the
//! answer; who asks sets the time. It decides nothing: what so many answers
//! mean is `selvage_policy::health`.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvage_policy::blame::was_late;
use selvage_policy::classify::{Class, Outcome, classify};
use selvage_policy::failures::Failures;
use selvage_policy::flag::Flag;
use selvage_policy::health::{Checked, Question};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tonic::Code;

use crate::error::FLAG;
use crate::stubs::health::health_check_response::ServingStatus;
use crate::stubs::health::health_client::HealthClient;
use crate::stubs::health::{HealthCheckRequest, HealthCheckResponse};

const AGENT: &str = "selvage-health";

/// How a question is put.
#[derive(Debug, Clone, Copy)]
pub struct Manner<'a> {
    /// Whose name it goes to, where the question names no host.
    pub authority: &'a str,
    /// HTTP is spoken in version 2.
    pub http2: bool,
    /// Another sidecar is at the other end: its word about itself is believed.
    pub mesh: bool,
}

/// Asks, and hears nothing after `timeout`. A wait whose end was noticed late
/// decides nothing: it was this proxy that did not get to run.
pub async fn within(timeout: Duration, asking: impl Future<Output = Checked>) -> Checked {
    let due = Instant::now() + timeout;
    match tokio::time::timeout_at(due, asking).await {
        Ok(checked) => checked,
        Err(_) if was_late(timeout, due.into_std(), Instant::now().into_std()) => {
            Checked::Undecided
        }
        Err(_) => failed(format_args!("no answer within {timeout:?}")),
    }
}

/// Puts a question. That there is a stream is the answer to [`Question::Tcp`].
pub async fn ask<S>(stream: S, question: &Question, manner: Manner<'_>) -> Checked
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match question {
        Question::Tcp => Checked::Passed,
        Question::Grpc { service } => grpc(stream, service, manner).await,
        Question::Http {
            path,
            host,
            expected,
        } => {
            let host = host.as_deref().unwrap_or(manner.authority);
            let request = match get(path, host, manner.http2) {
                Ok(request) => request,
                Err(error) => return failed(error),
            };
            let answered = if manner.http2 {
                over_http2(stream, request).await
            } else {
                over_http1(stream, request).await
            };
            match answered {
                Err(error) => failed(error),
                Ok(answer) if expected.has(answer.status().as_u16()) => Checked::Passed,
                Ok(answer) => {
                    let status = answer.status();
                    let flag = answer.headers().get(FLAG);
                    let flag = flag.and_then(|flag| flag.to_str().ok());
                    judge(flag, manner, format_args!("status {}", status.as_u16()))
                }
            }
        }
    }
}

/// Why a check did not pass.
pub fn failed(why: impl Display) -> Checked {
    Checked::Failed(why.to_string().into())
}

/// An answer that was not hoped for. Where the other sidecar gave it for a
/// reason of its own (denied, over a limit), the application was not asked.
fn judge(flag: Option<&str>, manner: Manner<'_>, why: impl Display) -> Checked {
    let flag = flag.filter(|_| manner.mesh).and_then(Flag::parse);
    let outcome = Outcome::Response {
        status: StatusCode::OK,
        grpc_status: None,
        flag,
    };
    match classify(&Failures::USUAL, &outcome) {
        Class::Neutral | Class::Throttled => Checked::Undecided,
        Class::Success | Class::Failure | Class::HardFailure => failed(why),
    }
}

fn get(path: &str, host: &str, http2: bool) -> http::Result<Request<Empty<Bytes>>> {
    let target = if http2 {
        format!("http://{host}{path}")
    } else {
        path.to_owned()
    };
    let mut request = Request::get(target).header(USER_AGENT, AGENT);
    if !http2 {
        request = request.header(HOST, host);
    }
    request.body(Empty::new())
}

/// An exchange, while its connection is driven; a connection that ends first is an error.
async fn exchange<T>(
    exchange: impl Future<Output = T>,
    connection: impl Future<Output = Result<(), hyper::Error>>,
) -> Result<T, String> {
    tokio::select! {
        biased;
        answered = exchange => Ok(answered),
        ended = connection => Err(match ended {
            Ok(()) => "closed without an answer".to_owned(),
            Err(error) => error.to_string(),
        }),
    }
}

async fn over_http1<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<http::Response<Incoming>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    let answered = exchange(sender.send_request(request), connection).await?;
    answered.map_err(|error| error.to_string())
}

async fn over_http2<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<http::Response<Incoming>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    let answered = exchange(sender.send_request(request), connection).await?;
    answered.map_err(|error| error.to_string())
}

async fn grpc<S>(stream: S, service: &str, manner: Manner<'_>) -> Checked
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Ok(origin) = Uri::try_from(format!("http://{}", manner.authority)) else {
        return failed("its authority is malformed");
    };
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = match shaken {
        Ok(shaken) => shaken,
        Err(error) => return failed(error),
    };
    let channel = tower::service_fn(move |request: Request<tonic::body::Body>| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    let mut client = HealthClient::with_origin(channel, origin);
    let mut request = tonic::Request::new(HealthCheckRequest {
        service: service.to_owned(),
    });
    let agent = tonic::metadata::MetadataValue::from_static(AGENT);
    request.metadata_mut().insert("user-agent", agent);
    match exchange(client.check(request), connection).await {
        Err(error) => failed(error),
        Ok(Ok(answer)) => serving(answer.get_ref()),
        Ok(Err(status)) => {
            let flag = status.metadata().get(FLAG.as_str());
            let flag = flag.and_then(|flag| flag.to_str().ok());
            judge(flag, manner, why(&status))
        }
    }
}

fn serving(answer: &HealthCheckResponse) -> Checked {
    match answer.status() {
        ServingStatus::Serving => Checked::Passed,
        other => failed(other.as_str_name()),
    }
}

fn why(status: &tonic::Status) -> String {
    match status.code() {
        Code::NotFound => "it knows no such service".to_owned(),
        Code::Unimplemented => "it does not serve grpc.health.v1.Health".to_owned(),
        code => format!("gRPC status {}", i32::from(code)),
    }
}
