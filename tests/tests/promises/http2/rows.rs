//! A table of what RFCs demand: each row has a connection of its own, sends
//! what it says, and names every answer that is allowed. All rows are run, and
//! those that fail are told together.

use selvage_tests::h2frames::frame::{self, code, setting};
use selvage_tests::h2frames::{Frame, Heard, Peer, Waited};

use super::{JUDGEMENT, NEXT_STREAM, Scene, Way, get};

/// One demand.
pub(super) struct Row {
    name: &'static str,
    section: &'static str,
    greets: bool,
    steps: Vec<Step>,
    expects: Expects,
}

/// What a row does.
pub(super) enum Step {
    /// Sends frames in one write.
    Send(Vec<Frame>),
    /// Sends bytes.
    Bytes(Vec<u8>),
    /// Sends a frame one octet longer than the sidecar allows.
    TooLong { kind: u8, flags: u8, stream: u32 },
    /// Waits until the stream's answer has ended.
    Answered(u32),
    /// Waits until the sidecar has reset the stream.
    Reset(u32),
    /// Waits until the sidecar has read everything.
    Settle,
}

/// Which answers are allowed.
#[derive(Clone, Copy)]
pub(super) enum Expects {
    /// RFC 9113 §5.4.1: a GOAWAY with one of these codes, or none at all, and
    /// the end of the connection.
    ConnectionError(&'static [u32]),
    /// RFC 9113 §5.4.2: a reset of the stream with one of these codes, and the
    /// connection goes on; or it is taken as a connection error.
    StreamError(u32, &'static [u32]),
    /// A stream error with one of the first codes, or a connection error with
    /// any: where two sections say different things of the same frame.
    StreamOr(u32, &'static [u32], &'static [u32]),
    /// RFC 9113 §8.1.1: a stream error of type PROTOCOL_ERROR, or an answer
    /// that says whose fault it is.
    Malformed(u32),
    /// The same as if nothing had been sent.
    Nothing,
    /// Nothing, or a stream error with one of these codes.
    NothingOr(u32, &'static [u32]),
    /// This status, and this body where it is given.
    Answer(u32, u16, Option<&'static str>),
    /// What a test says, once everything was read; the connection goes on.
    Heard(fn(&Heard) -> bool),
}

impl Row {
    pub(super) fn new(
        name: &'static str,
        section: &'static str,
        steps: Vec<Step>,
        expects: Expects,
    ) -> Self {
        Self {
            name,
            section,
            greets: true,
            steps,
            expects,
        }
    }

    /// A row of one write.
    pub(super) fn sends(
        name: &'static str,
        section: &'static str,
        frames: Vec<Frame>,
        expects: Expects,
    ) -> Self {
        Self::new(name, section, vec![Step::Send(frames)], expects)
    }

    /// Its bytes are the first of the connection.
    pub(super) fn first(mut self) -> Self {
        self.greets = false;
        self
    }
}

/// What came of a row, in words; `Err` where the RFC does not allow it.
type Judged = Result<String, String>;

/// Runs all rows against a sidecar of their own; there must be `count` of them.
pub(super) async fn run(rows: Vec<Row>, count: usize, way: Way) {
    let scene = Scene::of(way).await;
    assert_eq!(rows.len(), count, "rows of this table");
    let (mut run, mut wrong) = (0, Vec::new());
    for row in rows {
        let judged = judge(&scene, &row).await;
        run += 1;
        let mark = if judged.is_ok() { "ok " } else { "BAD" };
        let text = judged.as_deref().unwrap_or_else(|text| text);
        println!("{mark} {way:?} {} ({}): {text}", row.name, row.section);
        if let Err(text) = judged {
            wrong.push(format!("{} ({}): {text}", row.name, row.section));
        }
    }
    assert_eq!(run, count, "rows that were run");
    let whole = scene.completed();
    if !whole.is_empty() {
        let text = "malformed requests were whole at the application";
        wrong.push(format!("{} {text}", whole.len()));
    }
    assert!(wrong.is_empty(), "{} of {count}: {wrong:#?}", wrong.len());
}

async fn judge(scene: &Scene, row: &Row) -> Judged {
    let mut peer = scene.connect().await;
    if row.greets {
        peer.greet(&[]).await;
    }
    for step in &row.steps {
        perform(&mut peer, step).await?;
    }
    let judged = match &row.expects {
        Expects::ConnectionError(codes) => return connection_error(&mut peer, codes).await,
        Expects::StreamError(stream, codes) => {
            stream_error(&mut peer, *stream, codes, codes, |_| false).await?
        }
        Expects::StreamOr(stream, codes, others) => {
            let either = [*codes, *others].concat();
            stream_error(&mut peer, *stream, codes, &either, |_| false).await?
        }
        Expects::Malformed(stream) => {
            let refuses = |status: u16| (400..500).contains(&status);
            let codes = &[code::PROTOCOL_ERROR];
            stream_error(&mut peer, *stream, codes, codes, refuses).await?
        }
        Expects::Nothing => nothing(&mut peer, None).await?,
        Expects::NothingOr(stream, codes) => nothing(&mut peer, Some((*stream, codes))).await?,
        Expects::Answer(stream, status, body) => answer(&mut peer, *stream, *status, *body).await?,
        Expects::Heard(holds) => {
            settled(&mut peer).await?;
            if !holds(&peer.heard) {
                return Err(format!("{:?}", peer.heard));
            }
            "as demanded".to_owned()
        }
    };
    if peer.heard.closed.is_none() && peer.heard.blame().is_none() {
        goes_on(&mut peer).await?;
    }
    Ok(judged)
}

async fn perform(peer: &mut Peer, step: &Step) -> Result<(), String> {
    match step {
        Step::Send(frames) => peer.send_all(frames).await,
        Step::Bytes(bytes) => peer.send_bytes(bytes).await,
        Step::TooLong {
            kind,
            flags,
            stream,
        } => {
            let most = peer.heard.setting(setting::MAX_FRAME_SIZE) as usize;
            // A header block that is too long need not be one to be refused.
            let payload = vec![0; most + 1];
            peer.send(&Frame::new(*kind, *flags, *stream, payload))
                .await;
        }
        Step::Answered(stream) => {
            let waited = peer
                .wait(JUDGEMENT, |heard| heard.stream(*stream).is_answered())
                .await;
            if waited != Waited::Came {
                return Err(format!("stream {stream} is not answered: {:?}", peer.heard));
            }
        }
        Step::Reset(stream) => {
            let waited = peer
                .wait(JUDGEMENT, |heard| heard.stream(*stream).reset.is_some())
                .await;
            if waited != Waited::Came {
                return Err(format!("stream {stream} is not reset: {:?}", peer.heard));
            }
        }
        Step::Settle => {
            settled(peer).await?;
        }
    }
    Ok(())
}

/// The connection ends; where a GOAWAY says why, it says one of `codes`.
async fn connection_error(peer: &mut Peer, codes: &[u32]) -> Judged {
    let waited = peer.wait(JUDGEMENT, |heard| heard.closed.is_some()).await;
    let heard = &peer.heard;
    if waited == Waited::Silent {
        return Err(format!("the connection stays open: {heard:?}"));
    }
    match heard.blame() {
        None => Ok("closed".to_owned()),
        Some(code) if codes.contains(&code) => Ok(format!("GOAWAY {code}")),
        Some(code) => Err(format!("GOAWAY {code} instead of {codes:?}")),
    }
}

/// The stream is reset with one of `codes` or answered as `refuses` allows, or the connection ends
/// with one of `ending`.
async fn stream_error(
    peer: &mut Peer,
    stream: u32,
    codes: &[u32],
    ending: &[u32],
    refuses: impl Fn(u16) -> bool,
) -> Judged {
    // Answered before the frame that is to be judged: then only a reset can judge it.
    let had_answer = peer.heard.stream(stream).is_answered();
    let is_judged = |heard: &Heard| {
        let exchange = heard.stream(stream);
        exchange.reset.is_some()
            || (exchange.is_answered() && !had_answer)
            || heard.closed.is_some()
            || heard.blame().is_some()
    };
    let waited = peer.wait(JUDGEMENT, is_judged).await;
    let exchange = peer.heard.stream(stream);
    if peer.heard.closed.is_some() || peer.heard.blame().is_some() {
        return connection_error(peer, ending).await;
    }
    if waited == Waited::Silent {
        return Err("nothing follows".to_owned());
    }
    match exchange.reset {
        // A refusal may be followed by a reset that stops the rest (RFC 9113 §8.1).
        _ if refuses(exchange.status()) => Ok(exchange.status().to_string()),
        Some(code) if codes.contains(&code) => Ok(format!("RST_STREAM {code}")),
        Some(code) => Err(format!("RST_STREAM {code} instead of {codes:?}")),
        None => Err(format!("answered with {}", exchange.status())),
    }
}

async fn nothing(peer: &mut Peer, or: Option<(u32, &[u32])>) -> Judged {
    settled(peer).await?;
    goes_on(peer).await?;
    let mut resets = peer.heard.streams.iter().filter_map(|(stream, exchange)| {
        let code = exchange.reset?;
        let is_allowed = or.is_some_and(|(known, codes)| known == *stream && codes.contains(&code));
        Some((*stream, code, is_allowed))
    });
    match resets.find(|(_, _, is_allowed)| !is_allowed) {
        Some((stream, code, _)) => Err(format!("stream {stream} is reset with {code}")),
        None => Ok("goes on".to_owned()),
    }
}

async fn answer(peer: &mut Peer, stream: u32, status: u16, body: Option<&str>) -> Judged {
    peer.wait(JUDGEMENT, |heard| {
        let exchange = heard.stream(stream);
        exchange.ended || exchange.reset.is_some()
    })
    .await;
    let exchange = peer.heard.stream(stream);
    let is_as_said = exchange.is_answered()
        && exchange.status() == status
        && body.is_none_or(|body| exchange.body == body.as_bytes());
    if !is_as_said {
        return Err(format!("{exchange:?}, goaways {:?}", peer.heard.goaways));
    }
    Ok(status.to_string())
}

/// Everything that was sent is read: a PING is answered.
async fn settled(peer: &mut Peer) -> Result<(), String> {
    let octets = *b"settled?";
    let answers = |heard: &Heard| heard.pongs.iter().filter(|pong| **pong == octets).count();
    let before = answers(&peer.heard);
    peer.send(&frame::ping(octets)).await;
    let waited = peer.wait(JUDGEMENT, |heard| answers(heard) > before).await;
    if waited != Waited::Came {
        let heard = &peer.heard;
        return Err(format!("a PING is not answered: {waited:?}, {heard:?}"));
    }
    Ok(())
}

/// A proper request on the same connection is answered.
async fn goes_on(peer: &mut Peer) -> Result<(), String> {
    if peer.heard.stream(NEXT_STREAM).is_answered() {
        return Ok(());
    }
    peer.send(&get(NEXT_STREAM, "/next")).await;
    answer(peer, NEXT_STREAM, 200, None)
        .await
        .map(drop)
        .map_err(|text| format!("the next request is not answered: {text}"))
}
