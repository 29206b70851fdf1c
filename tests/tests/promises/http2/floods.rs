//! More of something than any peer needs. Whoever floods is ended or bounded,
//! the sidecar's memory stays below a stated bound, and well-behaved callers of
//! the same worker lose no request meanwhile.

mod rows; // what is sent

use std::time::{Duration, Instant};

use selvage_tests::h2frames::Frame;
use selvage_tests::h2frames::frame::kind;
use selvage_tests::load::Load;
use selvage_tests::process::Process;
use selvage_tests::sidecar::ORDERS;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use self::rows::{Flood, floods};
use super::{Scene, Way};

/// How long a flood lasts that nobody ends.
const LASTS: Duration = Duration::from_millis(1500);
/// A write that takes nothing for so long is one whose reader has stopped.
const STOPPED: Duration = Duration::from_millis(500);
/// Memory that a flood may cost (resident, in bytes): twice the windows of the streams that a caller may
/// have open, which are there to be filled.
const MEMORY: u64 = 2 * 90 * (256 << 10);
/// Well-behaved callers, each one request at a time with a pause between.
const CALLERS: usize = 2;
const PAUSE: Duration = Duration::from_millis(2);
/// Requests of theirs before the flood, so that what they take is there.
const WARM: usize = 100;
/// Requests of theirs that must be served during the flood.
const SERVED: usize = 10;

/// What the sidecar must do with the flooding connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    /// End it.
    End,
    /// Stop reading from it, or end it: whoever does not read is not answered for ever.
    Stop,
    /// Bound what it costs; it may go on.
    Bound,
}

/// How the flooding connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Ended(Option<u32>),
    Stopped,
    GoesOn,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_ended_or_bounded_and_hurts_nobody_else() {
    suffer_all("http", floods(), 22).await;
}

/// All callers share the sidecar's connection to an application of HTTP/2: what
/// one of them does must not end it, nor fill it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_pass_on_to_a_connection_that_others_share() {
    let mut rows = floods();
    rows.retain(|row| row.goes_on);
    suffer_all("http2", rows, 6).await;
}

async fn suffer_all(protocol: &str, rows: Vec<Flood>, count: usize) {
    assert_eq!(rows.len(), count, "rows of this table");
    let mut wrong = Vec::new();
    for row in &rows {
        let (text, faults) = suffer(protocol, row).await;
        let mark = if faults.is_empty() { "ok " } else { "BAD" };
        println!("{mark} {} ({}): {text}", row.name, row.seen_in);
        let told = |fault: &String| format!("{}: {fault}; {text}", row.name);
        wrong.extend(faults.iter().map(told));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Runs one flood; what came of it, and what should not have.
async fn suffer(protocol: &str, row: &Flood) -> (String, Vec<String>) {
    let scene = Scene::speaking(protocol, Way::Plaintext, &[]).await;
    let load = Load::start(scene.sidecar.outbound(), ORDERS, CALLERS, PAUSE);
    load.passes(WARM).await;
    let mut peer = scene.greeted(&row.settings).await;
    peer.send_all(&row.begins).await;
    let before = scene.sidecar.process.resident();
    let served = load.sent();
    let start = Instant::now();
    let flooding = flood(peer.into_stream(), row);
    let ((fate, bytes), most) = watched(&scene.sidecar.process, flooding).await;
    let lasted = start.elapsed();
    // A flood that is ended at once leaves no time to suffer from it.
    load.passes(SERVED).await;
    let served = load.sent() - served;
    let tally = load.stop().await;
    let grown = most.saturating_sub(before);
    let mut faults = Vec::new();
    let is_due = match row.must {
        Must::End => matches!(fate, Fate::Ended(_)),
        Must::Stop => fate != Fate::GoesOn,
        Must::Bound => true,
    };
    if !is_due {
        faults.push(format!("must {:?}", row.must));
    }
    if grown > MEMORY {
        faults.push(format!("{} MiB more than before", grown >> 20));
    }
    if tally.failed > 0 {
        faults.push(format!("others failed: {tally:?}"));
    }
    let hidden = scene
        .app
        .seen()
        .iter()
        .filter(|seen| seen.uri.path() == "/refuse-me")
        .count();
    if hidden > 0 {
        faults.push(format!("{hidden} requests at the application"));
    }
    let text = format!(
        "{fate:?} after {} ms and {} KiB sent, {} KiB more memory, {served} others served",
        lasted.as_millis(),
        bytes >> 10,
        grown >> 10,
    );
    (text, faults)
}

/// Awaits `flooding`, and says how much memory there was at most meanwhile.
async fn watched<T>(process: &Process, flooding: impl Future<Output = T>) -> (T, u64) {
    let mut flooding = std::pin::pin!(flooding);
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    let mut most = 0;
    loop {
        tokio::select! {
            flooded = &mut flooding => return (flooded, most.max(process.resident())),
            _ = looks.tick() => most = most.max(process.resident()),
        }
    }
}

/// Sends the flood until it is ended, stopped, or has lasted; and how many bytes were taken.
async fn flood(stream: impl AsyncRead + AsyncWrite, row: &Flood) -> (Fate, usize) {
    let (mut reading, mut writing) = split(stream);
    let mut sent = 0;
    // The system's own buffers must be full before anything stops.
    let lasts = if row.must == Must::Stop {
        3 * LASTS
    } else {
        LASTS
    };
    let sending = async {
        let start = Instant::now();
        for round in 0.. {
            if start.elapsed() > lasts {
                break;
            }
            let bytes = (row.round)(round);
            if bytes.is_empty() {
                tokio::time::sleep(lasts).await;
                break;
            }
            match tokio::time::timeout(STOPPED, writing.write_all(&bytes)).await {
                Ok(Ok(())) => sent += bytes.len(),
                Ok(Err(_)) => return Fate::Ended(None),
                Err(_) => return Fate::Stopped,
            }
        }
        Fate::GoesOn
    };
    let fate = if row.reads {
        tokio::select! {
            biased;
            code = last_words(&mut reading) => Fate::Ended(code),
            fate = sending => fate,
        }
    } else {
        sending.await
    };
    (fate, sent)
}

/// Reads until the connection ends or says that it will; the code of its GOAWAY.
async fn last_words(reading: &mut (impl AsyncRead + Unpin)) -> Option<u32> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reading.read(&mut buffer).await {
            Ok(read @ 1..) => bytes.extend_from_slice(&buffer[..read]),
            Ok(0) | Err(_) => return None,
        }
        while let Some(frame) = Frame::decode(&mut bytes) {
            if frame.kind == kind::GOAWAY {
                return Some(frame.number(4));
            }
        }
    }
}
