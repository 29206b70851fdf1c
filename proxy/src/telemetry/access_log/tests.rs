//! What reaches the sink, line by line, and what does not.

use std::sync::mpsc;

use selvage_policy::flag::Flag;

use super::*;

fn full() -> AccessRecord {
    AccessRecord {
        peer: Some("10.0.0.1:4711".parse().expect("an address")),
        source: Some("spiffe://mesh.local/ns/shop/sa/gateway".into()),
        destination: Some("shop/orders".into()),
        route: Some("default".into()),
        endpoint: Some("shop/orders-1".into()),
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
        tries: 2,
        retry_reason: Some("503"),
        denied_by: Some("shop/strict".into()),
        trace_id: Some([0xab; 16]),
        tls: Tls::Resumed,
        ..AccessRecord::new(
            Direction::Inbound,
            SystemTime::UNIX_EPOCH + Duration::from_millis(1),
        )
    }
}

/// What the log writes of `records`, once it is closed.
fn written(format: AccessLogFormat, records: Vec<AccessRecord>) -> String {
    let (sender, receiver) = mpsc::channel();
    let metrics = Metrics::new(1);
    let log = AccessLog::to(format, &metrics, Box::new(Sink(sender))).expect("a thread");
    for record in records {
        log.record(|| record);
    }
    drop(log);
    assert_eq!(metrics.access_log_dropped().load(Relaxed), 0);
    String::from_utf8(receiver.try_iter().flatten().collect()).expect("UTF-8")
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
        "source": "spiffe://mesh.local/ns/shop/sa/gateway",
        "destination": "shop/orders",
        "route": "default",
        "endpoint": "shop/orders-1",
        "method": "GET",
        "path": "/a\r\nevil=1",
        "authority": "orders.shop",
        "version": "2",
        "status": 503,
        "grpc_status": 14,
        "flag": "timeout",
        "bytes_received": 1,
        "bytes_sent": 2,
        "duration_ms": 1.5,
        "tries": 2,
        "retry_reason": "503",
        "denied_by": "shop/strict",
        "trace_id": "ab".repeat(16),
        "tls": "resumed",
    });
    assert_eq!(line, expected);
}

#[test]
fn text_is_one_line_per_record() {
    let empty = AccessRecord::new(Direction::Outbound, SystemTime::UNIX_EPOCH);
    let text = written(AccessLogFormat::Text, vec![full(), empty]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].contains(r#" path="/a\u000d\u000aevil=1" authority=orders.shop "#),
        "{text}"
    );
    assert_eq!(
        lines[1],
        "access time=1970-01-01T00:00:00.000Z direction=outbound peer=- source=- destination=- \
         route=- endpoint=- method=- path=- authority=- version=- status=- grpc_status=- flag=- \
         bytes_received=0 bytes_sent=0 duration_ms=0.000 tries=0 retry_reason=- denied_by=- \
         trace_id=- tls=no"
    );
}

#[test]
fn what_json_lacks_is_left_out() {
    let empty = AccessRecord::new(Direction::Outbound, SystemTime::UNIX_EPOCH);
    assert_eq!(
        written(AccessLogFormat::Json, vec![empty]),
        "{\"event\":\"access\",\"time\":\"1970-01-01T00:00:00.000Z\",\"direction\":\"outbound\",\
         \"flag\":\"-\",\"bytes_received\":0,\"bytes_sent\":0,\"duration_ms\":0.000,\"tries\":0,\
         \"tls\":\"no\"}\n"
    );
}

#[test]
fn off_builds_no_record() {
    let metrics = Metrics::new(1);
    let log = AccessLog::new(AccessLogFormat::Off, &metrics).expect("no thread is needed");
    assert!(!log.is_on());
    log.record(|| panic!("nobody wants it"));
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
    let record = || AccessRecord::new(Direction::Inbound, SystemTime::UNIX_EPOCH);
    log.record(record);
    has_started
        .recv()
        .expect("the writer holds the first record");
    for _ in 0..ACCESS_LOG_QUEUE + 5 {
        log.record(record);
    }
    assert_eq!(metrics.access_log_dropped().load(Relaxed), 5);
    let text = String::from_utf8(metrics.encode()).expect("UTF-8");
    assert!(text.contains("\nselvage_access_log_dropped_total 5\n"));
    drop(go);
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
        log.record(|| AccessRecord::new(Direction::Inbound, SystemTime::UNIX_EPOCH));
    }
    drop(log);
    assert_eq!(metrics.access_log_dropped().load(Relaxed), 3);
}

#[test]
fn a_queued_record_is_bounded_in_bytes() {
    let mut record = full();
    let long = "x".repeat(100_000);
    record.path = Some(long.clone());
    record.authority = Some(long.clone());
    record.method = Method::from_bytes(long.as_bytes()).ok();
    record.shorten();
    assert!(
        record
            .path
            .is_some_and(|path| path.capacity() < 2 * ACCESS_LOG_FIELD_BYTES)
    );
    assert!(
        record
            .authority
            .is_some_and(|text| text.capacity() < 2 * ACCESS_LOG_FIELD_BYTES)
    );
    assert!(
        record
            .method
            .is_some_and(|method| method.as_str().len() == ACCESS_LOG_FIELD_BYTES)
    );
}

#[test]
fn only_a_well_formed_traceparent_names_a_trace() {
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (header, valid) in [
        (good.to_owned(), true),
        (good.to_uppercase(), false),
        (good.replace("00-", "ff-"), false),
        (
            good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            false,
        ),
        ("00-0af7".to_owned(), false),
        (String::new(), false),
    ] {
        let id = trace_id(&HeaderValue::from_str(&header).expect("ASCII"));
        assert_eq!(id.is_some(), valid, "{header}");
        if let Some(id) = id {
            assert_eq!(
                u128::from_be_bytes(id),
                0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c
            );
        }
    }
}
