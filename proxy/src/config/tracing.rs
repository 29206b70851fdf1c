//! Tracing, as OpenTelemetry's own variables say it (`OTEL_…`).
//!
//! Nothing of it stands in sidecar.yaml: the applications beside us read the same variables. An
//! empty variable is one that is not set. What is not supported is refused, because a trace that is
//! silently not there is found out about when it is needed. Variables of other signals are not ours.

use std::fmt;
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue};
use selvage_policy::trace::{Ratio, Root, Sampler};

use super::{ConfigError, Workload};

/// How spans are made and exported.
#[derive(Clone, PartialEq)]
pub struct Tracing {
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// Where they go.
    pub endpoint: Uri,
    /// How.
    pub protocol: OtlpProtocol,
    /// Added to every export; may hold secrets.
    pub headers: HeaderMap,
    /// For one export request.
    pub timeout: Duration,
    /// Who sends them: attributes in the order they are sent.
    pub resource: Vec<(String, String)>,
    /// How they are gathered.
    pub batch: Batch,
}

/// How spans are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Between two exports.
    pub delay: Duration,
    /// Spans that wait at most; more are dropped and counted.
    pub queue: usize,
    /// Spans in one request.
    pub size: usize,
    /// For one batch, with all its attempts.
    pub timeout: Duration,
}

/// `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// `grpc`.
    Grpc,
    /// `http/protobuf`, the default.
    HttpProtobuf,
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracing")
            .field("sampler", &self.sampler)
            .field("endpoint", &self.endpoint)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// What is read from the environment, under its names.
struct Variables<E>(E);

/// Refused: the variable, and what is wrong with it.
fn refuse(variable: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Override {
        origin: variable.to_owned(),
        reason: reason.into(),
    }
}

const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
const PROTOCOLS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
const HEADERS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
];
const TIMEOUTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
];
const COMPRESSIONS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
];
/// Of a TLS that is not spoken.
const CERTIFICATES: [&str; 6] = [
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
];
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// Propagators that are spoken, or that need nothing of us: baggage passes as it is.
const PROPAGATORS: [&str; 4] = ["tracecontext", "baggage", "b3", "b3multi"];

/// Reads how spans are exported; `None` where nobody asked for it.
pub(super) fn read(
    env: &impl Fn(&str) -> Option<String>,
    workload: &Workload,
) -> Result<Option<Tracing>, ConfigError> {
    let variables = Variables(env);
    if !variables.wanted()? {
        return Ok(None);
    }
    variables.refuse_unsupported()?;
    let protocol = variables.protocol()?;
    Ok(Some(Tracing {
        sampler: variables.sampler()?,
        endpoint: variables.endpoint(protocol)?,
        protocol,
        headers: variables.headers()?,
        timeout: variables.milliseconds(&TIMEOUTS, 10_000)?,
        resource: variables.resource(workload)?,
        batch: variables.batch()?,
    }))
}

impl<E: Fn(&str) -> Option<String>> Variables<E> {
    fn get(&self, name: &str) -> Option<String> {
        let text = (self.0)(name)?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The first that is set, with its name.
    fn first(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names
            .iter()
            .find_map(|name| self.get(name).map(|text| (*name, text)))
    }

    fn wanted(&self) -> Result<bool, ConfigError> {
        const DISABLED: &str = "OTEL_SDK_DISABLED";
        const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
        match self.get(DISABLED).as_deref().map(str::to_ascii_lowercase) {
            Some(text) if text == "true" => return Ok(false),
            Some(text) if text != "false" => {
                return Err(refuse(
                    DISABLED,
                    format!("`{text}` is neither true nor false"),
                ));
            }
            _ => {}
        }
        match self.get(EXPORTER).as_deref() {
            None => Ok(self.first(&ENDPOINTS).is_some()),
            Some("otlp") => Ok(true),
            Some("none") => Ok(false),
            Some(other) => Err(refuse(
                EXPORTER,
                format!("`{other}` is not supported yet; use otlp or none"),
            )),
        }
    }

    fn refuse_unsupported(&self) -> Result<(), ConfigError> {
        if let Some((name, _)) = self.first(&CERTIFICATES) {
            let reason = "TLS to the collector is not supported yet; send to one on this machine, in plaintext";
            return Err(refuse(name, reason));
        }
        if let Some((name, text)) = self.first(&COMPRESSIONS)
            && text != "none"
        {
            return Err(refuse(
                name,
                format!("`{text}` is not supported yet; use none"),
            ));
        }
        const NAME: &str = "OTEL_PROPAGATORS";
        let propagators = self.get(NAME).unwrap_or_default();
        let strange = propagators
            .split(',')
            .map(str::trim)
            .find(|one| !one.is_empty() && !PROPAGATORS.contains(one));
        match strange {
            Some(one) => {
                let known = PROPAGATORS.join(", ");
                Err(refuse(
                    NAME,
                    format!("`{one}` is not supported yet; there are {known}"),
                ))
            }
            None => Ok(()),
        }
    }

    fn protocol(&self) -> Result<OtlpProtocol, ConfigError> {
        match self.first(&PROTOCOLS) {
            None => Ok(OtlpProtocol::HttpProtobuf),
            Some((_, text)) if text == "grpc" => Ok(OtlpProtocol::Grpc),
            Some((_, text)) if text == "http/protobuf" => Ok(OtlpProtocol::HttpProtobuf),
            Some((name, text)) => Err(refuse(
                name,
                format!("`{text}` is not supported yet; use grpc or http/protobuf"),
            )),
        }
    }

    /// The URL of a signal is used as it is; below the one of all signals, traces have their path.
    fn endpoint(&self, protocol: OtlpProtocol) -> Result<Uri, ConfigError> {
        let (default, path) = match protocol {
            OtlpProtocol::Grpc => ("http://localhost:4317", "/"),
            OtlpProtocol::HttpProtobuf => ("http://localhost:4318", "/v1/traces"),
        };
        let (name, text) = match self.first(&ENDPOINTS) {
            Some(set) => set,
            None => (ENDPOINTS[1], default.to_owned()),
        };
        let bad = || {
            refuse(
                name,
                format!("`{text}` is no URL such as http://127.0.0.1:4317"),
            )
        };
        let uri: Uri = text.parse().map_err(|_| bad())?;
        if uri.scheme() == Some(&Scheme::HTTPS) {
            let reason = "TLS to the collector is not supported yet; send to one on this machine, by http://";
            return Err(refuse(name, reason));
        }
        if uri.scheme() != Some(&Scheme::HTTP) || uri.host().is_none_or(str::is_empty) {
            return Err(bad());
        }
        if uri
            .authority()
            .is_some_and(|whole| whole.as_str().contains('@'))
        {
            return Err(refuse(
                name,
                "it may hold no user; use OTEL_EXPORTER_OTLP_HEADERS",
            ));
        }
        let mut parts = uri.into_parts();
        let whole = match protocol {
            OtlpProtocol::Grpc => path.to_owned(),
            OtlpProtocol::HttpProtobuf => {
                let given = parts
                    .path_and_query
                    .as_ref()
                    .map_or("/", PathAndQuery::as_str);
                if name == ENDPOINTS[0] {
                    given.to_owned()
                } else {
                    format!("{}{path}", given.trim_end_matches('/'))
                }
            }
        };
        parts.path_and_query = Some(whole.parse().map_err(|_| bad())?);
        Uri::from_parts(parts).map_err(|_| bad())
    }

    fn headers(&self) -> Result<HeaderMap, ConfigError> {
        let mut headers = HeaderMap::new();
        let Some((name, text)) = self.first(&HEADERS) else {
            return Ok(headers);
        };
        for (key, value) in pairs(name, &text)? {
            // What is no name may be a secret: `Authorization: Basic …=` has a `=` too.
            let field = HeaderName::from_bytes(key.as_bytes())
                .map_err(|_| refuse(name, "a key in it is no name of a header".to_owned()))?;
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| refuse(name, format!("the value of `{key}` is none of a header")))?;
            value.set_sensitive(true);
            headers.append(field, value);
        }
        Ok(headers)
    }

    fn sampler(&self) -> Result<Sampler, ConfigError> {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let name = self.get(NAME);
        let name = name.as_deref().unwrap_or("parentbased_always_on");
        let (based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => Root::On,
            "always_off" => Root::Off,
            "traceidratio" => {
                let text = self.get(ARGUMENT).unwrap_or_else(|| "1".to_owned());
                let share = text.parse().ok().and_then(Ratio::new);
                Root::Ratio(share.ok_or_else(|| {
                    refuse(ARGUMENT, format!("`{text}` is no number from 0 to 1"))
                })?)
            }
            _ => {
                let reason = format!(
                    "`{name}` is not supported yet; use always_on, always_off or traceidratio, \
                     with or without parentbased_ before it"
                );
                return Err(refuse(NAME, reason));
            }
        };
        Ok(if based {
            Sampler::ParentBased(root)
        } else {
            Sampler::Always(root)
        })
    }

    /// Who we are; `OTEL_RESOURCE_ATTRIBUTES` beats that, and `OTEL_SERVICE_NAME` both.
    fn resource(&self, workload: &Workload) -> Result<Vec<(String, String)>, ConfigError> {
        let mut attributes: Vec<(String, String)> = [
            ("service.name", &workload.service),
            ("service.namespace", &workload.namespace),
            ("service.instance.id", &workload.name),
        ]
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .into();
        let text = self.get(ATTRIBUTES).unwrap_or_default();
        let mut given = pairs(ATTRIBUTES, &text)?;
        if let Some(name) = self.get("OTEL_SERVICE_NAME") {
            given.push(("service.name".to_owned(), name));
        }
        for (key, value) in given {
            match attributes.iter_mut().find(|known| known.0 == key) {
                Some(known) => known.1 = value,
                None => attributes.push((key, value)),
            }
        }
        Ok(attributes)
    }

    fn batch(&self) -> Result<Batch, ConfigError> {
        const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
        const SIZE: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
        let queue = self.count(&[QUEUE], 2048)?;
        let size = match self.get(SIZE) {
            None => queue.min(512),
            Some(_) => self.count(&[SIZE], 512)?,
        };
        if size > queue {
            return Err(refuse(
                SIZE,
                format!("{size} is more than {QUEUE}, {queue}"),
            ));
        }
        Ok(Batch {
            delay: self.milliseconds(&["OTEL_BSP_SCHEDULE_DELAY"], 5_000)?,
            queue,
            size,
            timeout: self.milliseconds(&["OTEL_BSP_EXPORT_TIMEOUT"], 30_000)?,
        })
    }

    fn milliseconds(&self, names: &[&'static str], default: u32) -> Result<Duration, ConfigError> {
        let count = self.count(names, default)?;
        Ok(Duration::from_millis(count as u64))
    }

    fn count(&self, names: &[&'static str], default: u32) -> Result<usize, ConfigError> {
        let Some((name, text)) = self.first(names) else {
            return Ok(default as usize);
        };
        match text.parse::<u32>() {
            Ok(count) if count > 0 => Ok(count as usize),
            _ => Err(refuse(
                name,
                format!("`{text}` is no whole number from 1 on"),
            )),
        }
    }
}

/// `key=value,key=value`, with values percent-encoded, as W3C Baggage has it. What is wrong is told
/// without the value, which may be a secret.
fn pairs(variable: &str, text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let malformed = || refuse(variable, "it is no list of key=value, with commas between");
        let (key, value) = part.split_once('=').ok_or_else(malformed)?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() {
            return Err(malformed());
        }
        let value = decoded(value).ok_or_else(|| {
            refuse(
                variable,
                format!("the value of `{key}` is not percent-encoded"),
            )
        })?;
        Ok((key.to_owned(), value))
    };
    parts.map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high << 4 | low).ok()?);
    }
    String::from_utf8(bytes).ok()
}
