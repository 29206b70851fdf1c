//! What reaches the sink, line by line, and what does not.

use std::sync::mpsc;

use selvage_policy::flag::Flag;

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method, Version};
use selvage_certs::SpiffeId;
use selvage_policy::trace::{TRACEPARENT, trace_id};

use super::*;
use crate::lifecycle::Direction;
use crate::telemetry::told::{Spoken, Tls};

fn full() -> Told {
    let identity = |text| Some(SpiffeId::parse(text).expect("an identity"));
    let trace = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_static(TRACE))]);
    Told {
        peer: Some("10.0.0.1:4711".parse().expect("an address")),
        source: Some("shop/gateway".into()),
        source_identity: identity("spiffe://mesh.local/ns/shop/sa/gateway"),
        destination: Some("shop/orders".into()),
        destination_identity: identity("spiffe://mesh.local/ns/shop/sa/orders"),
        route: Some("default".into()),
        endpoint: Some("shop/orders-1".into()),
        endpoint_address: Some("[::1]:8080".parse().expect("an address")),
        spoken: Spoken::Grpc,
        method: Some(Method::GET),
        path: Some("/a\r\nevil=1?token=secret".to_owned()),
        authority: Some("orders.shop".to_owned()),
        version: Some(Version::HTTP_2),
        status: Some(503),
        grpc_status: Some(14),
        flag: Some(Flag::Timeout),
        bytes_received: 1,
        bytes_sent: 2,
        duration: Duration::from_micros(1500),
        first_byte: Some(Duration::from_micros(1250)),
        upstream: Some(Duration::from_micros(999)),
        tries: 2,
        retry_reason: Some("503"),
        retry_refused: Some("limit"),
        attempt: Some(2),
        denied_by: Some("shop/strict".into()),
        trace_id: trace_id(&trace),
        request_id: Some("id\u{1b}\"".to_owned()),
        user_agent: Some("curl/8 (x=1)".to_owned()),
        tls: Tls::Resumed,
        ..Told::new(
            Direction::Inbound,
            SystemTime::UNIX_EPOCH + Duration::from_millis(1),
        )
    }
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn finish(log: &AccessLog) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(log.finish());
}

/// What the log writes of `records`, once it is closed.
fn written(format: AccessLogFormat, records: Vec<Told>) -> String {
    let (sender, receiver) = mpsc::channel();
    let metrics = Metrics::new(1);
    let log = AccessLog::to(format, &metrics, Box::new(Sink(sender))).expect("a thread");
    for record in records {
        log.record(shortened(record));
    }
    finish(&log);
    assert_eq!(metrics.access_log_dropped().load(Relaxed), 0);
    String::from_utf8(receiver.try_iter().flatten().collect()).expect("UTF-8")
}

fn shortened(mut told: Told) -> Box<Told> {
    told.shorten();
    Box::new(told)
}

struct Sink(mpsc::Sender<Vec<u8>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn json_tells_every_field() {
    let text = written(AccessLogFormat::Json, vec![full()]);
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).expect("one line of JSON");
    let expected = serde_json::json!({
        "event": "access",
        "time": "1970-01-01T00:00:00.001Z",
        "direction": "inbound",
        "peer": "10.0.0.1:4711",
        "source": "shop/gateway",
        "source_identity": "spiffe://mesh.local/ns/shop/sa/gateway",
        "destination": "shop/orders",
        "destination_identity": "spiffe://mesh.local/ns/shop/sa/orders",
        "route": "default",
        "endpoint": "shop/orders-1",
        "endpoint_address": "[::1]:8080",
        "protocol": "grpc",
        "version": "2",
        "method": "GET",
        "authority": "orders.shop",
        "path": "/a\r\nevil=1",
        "status": 503,
        "grpc_status": 14,
        "flag": "timeout",
        "bytes_received": 1,
        "bytes_sent": 2,
        "duration_ms": 1.5,
        "first_byte_ms": 1.25,
        "upstream_ms": 0.999,
        "tries": 2,
        "retry_reason": "503",
        "retry_refused": "limit",
        "attempt": 2,
        "denied_by": "shop/strict",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "request_id": "id\u{1b}\"",
        "user_agent": "curl/8 (x=1)",
        "tls": "resumed",
    });
    assert_eq!(line, expected);
}

#[test]
fn text_is_one_line_per_record() {
    let empty = Told::new(Direction::Outbound, SystemTime::UNIX_EPOCH);
    let text = written(AccessLogFormat::Text, vec![full(), empty]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].contains(r#" authority=orders.shop path="/a\u000d\u000aevil=1" status=503 "#),
        "{text}"
    );
    assert_eq!(
        lines[1],
        "access time=1970-01-01T00:00:00.000Z direction=outbound peer=- source=- source_identity=- \
         destination=- destination_identity=- route=- endpoint=- endpoint_address=- protocol=tcp \
         version=- method=- authority=- path=- status=- grpc_status=- flag=- bytes_received=0 \
         bytes_sent=0 duration_ms=0.000 first_byte_ms=- upstream_ms=- tries=0 retry_reason=- \
         retry_refused=- attempt=- denied_by=- trace_id=- request_id=- user_agent=- tls=no"
    );
}

#[test]
fn what_json_lacks_is_left_out() {
    let empty = Told::new(Direction::Outbound, SystemTime::UNIX_EPOCH);
    assert_eq!(
        written(AccessLogFormat::Json, vec![empty]),
        "{\"event\":\"access\",\"time\":\"1970-01-01T00:00:00.000Z\",\"direction\":\"outbound\",\
         \"protocol\":\"tcp\",\"flag\":\"-\",\"bytes_received\":0,\"bytes_sent\":0,\"duration_ms\":0.000,\"tries\":0,\
         \"tls\":\"no\"}\n"
    );
}

#[test]
fn off_takes_nothing_and_drops_nothing() {
    let metrics = Metrics::new(1);
    let log = AccessLog::new(AccessLogFormat::Off, &metrics, true).expect("no thread is needed");
    assert!(!log.is_on());
    log.record(Box::new(Told::new(
        Direction::Inbound,
        SystemTime::UNIX_EPOCH,
    )));
    assert_eq!(metrics.access_log_dropped().load(Relaxed), 0);
}

/// Takes one write and holds it until it is told to go on.
struct Held {
    started: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
    done: mpsc::Sender<usize>,
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.started.send(());
        let _ = self.go.recv();
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        self.done.send(lines).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_queue_drops_and_counts_and_never_waits() {
    let (started, has_started) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let (done, lines) = mpsc::channel();
    let metrics = Metrics::new(1);
    let sink = Box::new(Held {
        started,
        go: may_go,
        done,
    });
    let log = AccessLog::to(AccessLogFormat::Text, &metrics, sink).expect("a thread");
    let record = || Box::new(Told::new(Direction::Inbound, SystemTime::UNIX_EPOCH));
    log.record(record());
    has_started
        .recv()
        .expect("the writer holds the first record");
    for _ in 0..ACCESS_LOG_QUEUE + 5 {
        log.record(record());
    }
    assert_eq!(metrics.access_log_dropped().load(Relaxed), 5);
    let text = String::from_utf8(metrics.encode()).expect("UTF-8");
    assert!(text.contains("\nselvage_access_log_dropped_total 5\n"));
    drop(go);
    finish(&log);
    drop(log);
    assert_eq!(
        lines.iter().sum::<usize>(),
        ACCESS_LOG_QUEUE + 1,
        "the rest was written"
    );
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_is_gone_costs_lines_and_nothing_else() {
    let metrics = Metrics::new(1);
    let log = AccessLog::to(AccessLogFormat::Json, &metrics, Box::new(Broken)).expect("a thread");
    for _ in 0..3 {
        log.record(Box::new(Told::new(
            Direction::Inbound,
            SystemTime::UNIX_EPOCH,
        )));
    }
    finish(&log);
    assert_eq!(metrics.access_log_dropped().load(Relaxed), 3);
}
