//! One side of an HTTP/2 connection. It sends what it is given, remembers all
//! it hears, and does by itself only what keeps the other side talking:
//! SETTINGS and PING are acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::frame::{self, Frame, PREFACE, code, flag, kind, setting};
use super::hpack::{Decoder, Fields};
use crate::wait::{self, PATIENCE};
use crate::wire::Wire;

/// A socket, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// See the module.
pub struct Peer {
    stream: Box<dyn Stream>,
    ahead: Vec<u8>,
    decoder: Decoder,
    /// The first frame of a header block under way, and the block so far.
    block: Option<Frame>,
    /// What the other side has said.
    pub heard: Heard,
}

/// What came on a connection so far.
#[derive(Debug, Default)]
pub struct Heard {
    /// By number.
    pub streams: BTreeMap<u32, Exchange>,
    /// The last value of each setting.
    pub settings: BTreeMap<u16, u32>,
    /// SETTINGS of ours that were acknowledged.
    pub acknowledged: usize,
    /// The octets of PINGs that were answered.
    pub pongs: Vec<Vec<u8>>,
    /// Last stream and code of each GOAWAY.
    pub goaways: Vec<(u32, u32)>,
    /// Bytes by which windows were opened, by stream; 0 is the connection.
    pub windows: BTreeMap<u32, u64>,
    /// How the connection ended.
    pub closed: Option<Closed>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// By FIN.
    Cleanly,
    /// By a reset, or by an error of TLS.
    Broken,
}

/// What came on one stream.
#[derive(Debug, Default, Clone)]
pub struct Exchange {
    /// Heads and trailers, in order.
    pub heads: Vec<Fields>,
    /// The body so far.
    pub body: Vec<u8>,
    /// The length of each DATA frame.
    pub pieces: Vec<usize>,
    /// Whether it was ended from the other side.
    pub ended: bool,
    /// The code of its RST_STREAM.
    pub reset: Option<u32>,
}

impl Exchange {
    /// A field of the last head or trailers; empty where there is none.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        let found = self.heads.last().and_then(|fields| {
            let mut fields = fields.iter();
            fields.find(|(known, _)| known == name)
        });
        found.map_or("", |(_, value)| value.as_str())
    }

    /// The statuses of its heads: interim ones, then the final one.
    #[must_use]
    pub fn statuses(&self) -> Vec<u16> {
        let fields = self.heads.iter().flatten();
        let statuses = fields.filter(|(name, _)| name == ":status");
        statuses
            .filter_map(|(_, value)| value.parse().ok())
            .collect()
    }

    /// The final status; 0 while there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        let last = self.statuses().last().copied();
        last.filter(|status| *status >= 200).unwrap_or(0)
    }

    /// Whether a final answer came to its end.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.ended && self.status() > 0
    }
}

impl Heard {
    /// What came on a stream; nothing at all, where nothing did.
    #[must_use]
    pub fn stream(&self, stream: u32) -> Exchange {
        self.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// A setting of the other side, or what RFC 9113 §6.5.2 says it is unsaid.
    #[must_use]
    pub fn setting(&self, name: u16) -> u32 {
        let unsaid = match name {
            setting::HEADER_TABLE_SIZE => 4096,
            setting::ENABLE_PUSH => 1,
            setting::INITIAL_WINDOW_SIZE => 65_535,
            setting::MAX_FRAME_SIZE => 16_384,
            _ => u32::MAX,
        };
        self.settings.get(&name).copied().unwrap_or(unsaid)
    }

    /// The code of a GOAWAY that blames us.
    #[must_use]
    pub fn blame(&self) -> Option<u32> {
        let mut codes = self.goaways.iter().map(|(_, code)| *code);
        codes.rfind(|code| *code != code::NO_ERROR)
    }
}

/// How waiting for something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// It came.
    Came,
    /// The connection ended without.
    Closed,
    /// It did not come in time, and the connection is open.
    Silent,
}

impl Peer {
    /// Connects in plaintext, and says nothing yet.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::of(Wire::connect(address).await)
    }

    /// Connects by TLS with ALPN `h2`, and says nothing yet.
    ///
    /// # Panics
    /// When there is no handshake, or HTTP/2 is not agreed on.
    pub async fn connect_tls(
        address: SocketAddr,
        name: &str,
        config: Arc<rustls::ClientConfig>,
    ) -> Self {
        let (stream, _) = Wire::connect(address).await.into_parts();
        let name = ServerName::try_from(name.to_owned()).expect("a server has a name");
        let connecting = TlsConnector::from(config).connect(name, stream);
        let stream = wait::soon("a handshake", connecting)
            .await
            .unwrap_or_else(|error| panic!("{address}: {error}"));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        Self::over(Box::new(stream), Vec::new())
    }

    /// The server's side of a connection.
    #[must_use]
    pub fn of(wire: Wire<TcpStream>) -> Self {
        let (stream, ahead) = wire.into_parts();
        Self::over(Box::new(stream), ahead)
    }

    fn over(stream: Box<dyn Stream>, ahead: Vec<u8>) -> Self {
        Self {
            stream,
            ahead,
            decoder: Decoder::default(),
            block: None,
            heard: Heard::default(),
        }
    }

    /// Sends the client's preface with `settings`, and waits for the server's.
    ///
    /// # Panics
    /// When the server does not greet.
    pub async fn greet(&mut self, settings: &[(u16, u32)]) {
        let greeting = [PREFACE, &frame::settings(settings).encode()].concat();
        self.send_bytes(&greeting).await;
        self.expect("the server's greeting", |heard| heard.acknowledged == 1)
            .await;
    }

    /// Takes a client's preface; `false` where something else comes.
    pub async fn take_preface(&mut self) -> bool {
        while self.ahead.len() < PREFACE.len() {
            if !self.more().await {
                return false;
            }
        }
        let is_preface = self.ahead.starts_with(PREFACE);
        self.ahead.drain(..PREFACE.len());
        is_preface
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.encode()).await;
    }

    /// Sends frames in one write.
    pub async fn send_all(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        self.send_bytes(&bytes).await;
    }

    /// Sends bytes. A peer that is gone takes none, and is heard of by listening.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let _ = tokio::time::timeout(PATIENCE, sending).await;
    }

    /// Listens until `condition` holds.
    ///
    /// # Panics
    /// When the connection ends first, or nothing comes for long.
    pub async fn expect(&mut self, what: &str, condition: impl Fn(&Heard) -> bool) {
        let waited = self.wait(PATIENCE, condition).await;
        assert!(
            waited == Waited::Came,
            "{what}: {waited:?}; heard: {:?}",
            self.heard
        );
    }

    /// Listens until `condition` holds, for at most `limit`.
    pub async fn wait(&mut self, limit: Duration, condition: impl Fn(&Heard) -> bool) -> Waited {
        let listening = async {
            while !condition(&self.heard) {
                if !self.listen().await {
                    return condition(&self.heard);
                }
            }
            true
        };
        match tokio::time::timeout(limit, listening).await {
            Ok(true) => Waited::Came,
            Ok(false) => Waited::Closed,
            Err(_) => Waited::Silent,
        }
    }

    /// Listens until a stream has ended from the other side; what came on it.
    ///
    /// # Panics
    /// When the connection ends first, or nothing comes for long.
    pub async fn answer(&mut self, stream: u32) -> Exchange {
        self.expect(&format!("the end of stream {stream}"), |heard| {
            let heard = heard.stream(stream);
            heard.ended || heard.reset.is_some()
        })
        .await;
        self.heard.stream(stream)
    }

    /// Waits until the other side has read all that was sent so far: it answers a PING.
    ///
    /// # Panics
    /// When the connection ends first, or nothing comes for long.
    pub async fn settle(&mut self) {
        let octets = (0x5e77_1e00_u64 + self.heard.pongs.len() as u64).to_be_bytes();
        self.send(&frame::ping(octets)).await;
        self.expect("the answer to a PING", |heard| {
            heard.pongs.iter().any(|pong| *pong == octets)
        })
        .await;
    }

    /// Listens until the connection has ended.
    ///
    /// # Panics
    /// When it stays open.
    pub async fn expect_end(&mut self) -> Closed {
        self.expect("the connection's end", |heard| heard.closed.is_some())
            .await;
        self.heard.closed.unwrap_or(Closed::Broken)
    }

    /// Hears one frame; `false` once the connection has ended.
    pub async fn listen(&mut self) -> bool {
        loop {
            if let Some(frame) = Frame::decode(&mut self.ahead) {
                self.hear(frame).await;
                return true;
            }
            if !self.more().await {
                return false;
            }
        }
    }

    async fn more(&mut self) -> bool {
        if self.heard.closed.is_some() {
            return false;
        }
        self.heard.closed = match self.stream.read_buf(&mut self.ahead).await {
            Ok(1..) => None,
            Ok(0) => Some(Closed::Cleanly),
            Err(_) => Some(Closed::Broken),
        };
        self.heard.closed.is_none()
    }

    async fn hear(&mut self, frame: Frame) {
        let heard = &mut self.heard;
        match frame.kind {
            kind::DATA => {
                let exchange = heard.streams.entry(frame.stream).or_default();
                exchange.pieces.push(frame.payload.len());
                exchange.body.extend(&frame.payload);
                exchange.ended |= frame.has(flag::END_STREAM);
            }
            kind::HEADERS | kind::CONTINUATION => self.hear_block(frame),
            kind::RST_STREAM => {
                let exchange = heard.streams.entry(frame.stream).or_default();
                exchange.reset = Some(frame.number(0));
            }
            kind::SETTINGS if frame.has(flag::ACK) => heard.acknowledged += 1,
            kind::SETTINGS => {
                for one in frame.payload.chunks_exact(6) {
                    let name = u16::from_be_bytes([one[0], one[1]]);
                    let value = u32::from_be_bytes([one[2], one[3], one[4], one[5]]);
                    heard.settings.insert(name, value);
                }
                self.send(&Frame::new(kind::SETTINGS, flag::ACK, 0, []))
                    .await;
            }
            kind::PING if frame.has(flag::ACK) => heard.pongs.push(frame.payload),
            kind::PING => {
                let pong = Frame::new(kind::PING, flag::ACK, 0, frame.payload);
                self.send(&pong).await;
            }
            kind::GOAWAY => heard.goaways.push((frame.number(0), frame.number(4))),
            kind::WINDOW_UPDATE => {
                *heard.windows.entry(frame.stream).or_default() += u64::from(frame.number(0));
            }
            _ => {}
        }
    }

    fn hear_block(&mut self, frame: Frame) {
        let is_last = frame.has(flag::END_HEADERS);
        let mut block = match self.block.take() {
            None => frame,
            Some(mut block) => {
                block.payload.extend(frame.payload);
                block
            }
        };
        if !is_last {
            self.block = Some(block);
            return;
        }
        if block.has(flag::PRIORITY) {
            block.payload.drain(..5);
        }
        let fields = self.decoder.fields(&block.payload);
        let exchange = self.heard.streams.entry(block.stream).or_default();
        exchange.heads.push(fields);
        exchange.ended |= block.has(flag::END_STREAM);
    }

    /// The stream itself, for those who only write.
    #[must_use]
    pub fn into_stream(self) -> impl AsyncRead + AsyncWrite + Send + Unpin {
        self.stream
    }
}
