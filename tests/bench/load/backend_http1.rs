//! The backend's HTTP/1.1: requests without bodies, answered in the order they
//! come, as many in one write as came in one read.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::response::end_of_head;

/// What a large body is made of.
const PIECE: usize = 256 * 1024;

/// What all connections answer with.
pub(crate) struct Answers {
    small: Vec<u8>,
    piece: Bytes,
}

impl Answers {
    /// The usual body is `body`.
    pub(crate) fn new(body: &[u8]) -> Self {
        let mut small = head(body.len()).into_bytes();
        small.extend_from_slice(body);
        Self {
            small,
            piece: Bytes::from(vec![b'x'; PIECE]),
        }
    }
}

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n")
}

/// Serves one connection until it ends.
pub(crate) async fn serve(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 8 * 1024];
    let mut filled = 0;
    let mut out = Vec::new();
    loop {
        let bytes = stream.read(&mut buffer[filled..]).await?;
        if bytes == 0 {
            return Ok(());
        }
        filled += bytes;
        let mut at = 0;
        let mut last = false;
        while let Some(end) = end_of_head(&buffer[at..filled]) {
            let request = &buffer[at..at + end];
            last = asks_to_close(request);
            match large(request) {
                Some(length) => {
                    stream.write_all(&out).await?;
                    out.clear();
                    send(&mut stream, length, &answers.piece).await?;
                }
                None => out.extend_from_slice(&answers.small),
            }
            at += end;
        }
        if !out.is_empty() {
            stream.write_all(&out).await?;
            out.clear();
        }
        if last {
            return stream.shutdown().await;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        if filled == buffer.len() {
            return Err(io::Error::other("a head that is too long"));
        }
    }
}

/// The length that `/bytes/LENGTH` asks for.
fn large(request: &[u8]) -> Option<usize> {
    let rest = request.strip_prefix(b"GET /bytes/")?;
    let digits = rest.split(|byte| *byte == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether it carries `Connection: close`, in any case of its letters.
fn asks_to_close(request: &[u8]) -> bool {
    const LINE: &[u8] = b"\nconnection: close\r";
    request
        .windows(LINE.len())
        .any(|line| line.eq_ignore_ascii_case(LINE))
}

async fn send(stream: &mut TcpStream, length: usize, piece: &[u8]) -> io::Result<()> {
    stream.write_all(head(length).as_bytes()).await?;
    let mut left = length;
    while left > 0 {
        let now = left.min(piece.len());
        stream.write_all(&piece[..now]).await?;
        left -= now;
    }
    Ok(())
}
