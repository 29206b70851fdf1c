//! To the collector: OTLP by gRPC, or as protobuf by HTTP/1.1. Plaintext alone: what leaves the
//! machine goes through a collector on it.
//!
//! Export requests carry a `traceparent` that is not sampled, so that one that itself passes
//! through a sidecar is not traced for ever.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;
use selvage_policy::trace::{Parent, Root, Sampler, Trace};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use super::attributes::text;
use super::otlp::Span;
use crate::config::{OtlpProtocol, Tracing};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 64 * 1024;
const AGENT: &str = concat!("selvage/", env!("CARGO_PKG_VERSION"));
/// The conventions that attributes are named by.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.27.0";

/// Why a batch was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// It may be later.
    ForNow(String),
    /// It never will.
    ForGood(String),
}

/// The way to one collector.
pub(super) struct Transport {
    endpoint: Uri,
    headers: HeaderMap,
    resource: Resource,
    timeout: std::time::Duration,
    way: Way,
}

enum Way {
    Grpc(TraceServiceClient<Channel>),
    Http,
}

impl Transport {
    /// Connects to nothing yet.
    pub(super) fn new(tracing: &Tracing) -> anyhow::Result<Self> {
        let way = match tracing.protocol {
            OtlpProtocol::HttpProtobuf => Way::Http,
            OtlpProtocol::Grpc => {
                let endpoint = Endpoint::from_shared(tracing.endpoint.to_string())?;
                let endpoint = endpoint
                    .connect_timeout(tracing.timeout)
                    .user_agent(AGENT)?;
                Way::Grpc(TraceServiceClient::new(endpoint.connect_lazy()))
            }
        };
        let attributes = &tracing.resource;
        Ok(Self {
            endpoint: tracing.endpoint.clone(),
            headers: tracing.headers.clone(),
            resource: Resource {
                attributes: attributes
                    .iter()
                    .map(|(key, value)| text(key, value))
                    .collect(),
                ..Resource::default()
            },
            timeout: tracing.timeout,
            way,
        })
    }

    pub(super) const fn endpoint(&self) -> &Uri {
        &self.endpoint
    }

    /// Spans as one message.
    pub(super) fn message(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: "selvage".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                    schema_url: SCHEMA.to_owned(),
                }],
                schema_url: SCHEMA.to_owned(),
            }],
        }
    }

    /// Sends a message once; how many of its spans the collector rejected.
    pub(super) async fn export(
        &mut self,
        message: &ExportTraceServiceRequest,
    ) -> Result<u64, Refused> {
        let mut headers = self.headers.clone();
        let quiet = Sampler::Always(Root::Off);
        Trace::begin(&Parent::default(), quiet, &mut fastrand::Rng::new()).write(&mut headers);
        let limit = self.timeout;
        let sending = async {
            match &mut self.way {
                Way::Grpc(client) => grpc(client, headers, message).await,
                Way::Http => http(&self.endpoint, headers, message).await,
            }
        };
        let answered = tokio::time::timeout(limit, sending).await;
        let answer = answered
            .unwrap_or_else(|_| Err(Refused::ForNow(format!("no answer within {limit:?}"))))?;
        let rejected = answer.partial_success.map_or(0, |partial| {
            if !partial.error_message.is_empty() {
                tracing::warn!(reason = ?partial.error_message, "the collector rejects spans");
            }
            partial.rejected_spans
        });
        Ok(u64::try_from(rejected).unwrap_or(0))
    }
}

async fn grpc(
    client: &mut TraceServiceClient<Channel>,
    headers: HeaderMap,
    message: &ExportTraceServiceRequest,
) -> Result<ExportTraceServiceResponse, Refused> {
    let mut request = tonic::Request::new(message.clone());
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    let answer = client.export(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| {
        let reason = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            // Those that OTLP says may be tried again.
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => Refused::ForNow(reason),
            _ => Refused::ForGood(reason),
        }
    })
}

async fn http(
    endpoint: &Uri,
    headers: HeaderMap,
    message: &ExportTraceServiceRequest,
) -> Result<ExportTraceServiceResponse, Refused> {
    let later = |error: &dyn std::fmt::Display| Refused::ForNow(error.to_string());
    let request =
        post(endpoint, headers, message).map_err(|error| Refused::ForGood(error.to_string()))?;
    let host = endpoint.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = endpoint.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| later(&error))?;
    let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.map_err(|error| later(&error))?;
    // A connection a batch: there is one every few seconds.
    let driving = tokio::spawn(connection);
    let answered = answer(sender.send_request(request)).await;
    driving.abort();
    let (status, body) = answered.map_err(|error| later(&error))?;
    match status {
        StatusCode::OK => ExportTraceServiceResponse::decode(body)
            .map_err(|error| Refused::ForGood(format!("the answer is no OTLP: {error}"))),
        // Those that OTLP says may be tried again.
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(Refused::ForNow(status.to_string())),
        _ => Err(Refused::ForGood(status.to_string())),
    }
}

async fn answer(
    sending: impl Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = sending.await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES).collect().await?;
    Ok((head.status, body.to_bytes()))
}

fn post(
    endpoint: &Uri,
    headers: HeaderMap,
    message: &ExportTraceServiceRequest,
) -> Result<Request<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let path = endpoint.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Full::from(message.encode_to_vec()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse()?;
    *request.headers_mut() = headers;
    let authority = endpoint
        .authority()
        .map_or("", |authority| authority.as_str());
    let own: [(HeaderName, HeaderValue); 4] = [
        (HOST, authority.parse()?),
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        ),
        (ACCEPT, HeaderValue::from_static("application/x-protobuf")),
        (USER_AGENT, HeaderValue::from_static(AGENT)),
    ];
    request.headers_mut().extend(own);
    Ok(request)
}
