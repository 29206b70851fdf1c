//! A running proxy asked from outside whether it lives or is ready: for
//! containers that have no other program to ask with. Blocks; knows nothing of
//! the proxy but its telemetry port.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Octets of an answer that are read.
const ANSWER: u64 = 4096;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Whether the process serves at all.
    Live,
    /// Whether traffic is welcome.
    Ready,
}

impl Question {
    const fn path(self) -> &'static str {
        match self {
            Self::Live => "/live",
            Self::Ready => "/ready",
        }
    }
}

/// Why the answer is not yes.
#[derive(Debug, thiserror::Error)]
pub enum No {
    /// Nobody answered in time.
    #[error("{address} does not answer: {error}")]
    Silent {
        /// Who was asked.
        address: SocketAddr,
        /// What came instead.
        error: io::Error,
    },
    /// It said so.
    #[error("{0}")]
    Said(String),
}

/// Asks the telemetry port at `address`; one that stands for all addresses is asked on loopback.
///
/// # Errors
/// Where it does not say yes within `limit`.
pub fn ask(question: Question, address: SocketAddr, limit: Duration) -> Result<(), No> {
    let address = reachable(address);
    let answer = answer(question, address, limit);
    let text = answer.map_err(|error| No::Silent { address, error })?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split_ascii_whitespace().nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(());
    }
    let said = body.trim_end().replace('\n', ", ");
    Err(No::Said(if said.is_empty() {
        format!("{address} answers with status {status:?}")
    } else {
        said
    }))
}

fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn answer(question: Question, address: SocketAddr, limit: Duration) -> io::Result<String> {
    let until = Instant::now() + limit;
    let left = || {
        let left = until.saturating_duration_since(Instant::now());
        // No time at all would mean: for ever.
        if left.is_zero() {
            Err(io::ErrorKind::TimedOut)
        } else {
            Ok(left)
        }
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    let path = question.path();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer)? {
            0 => break,
            count => answer.extend_from_slice(&buffer[..count]),
        }
        if answer.len() as u64 > ANSWER {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    /// Asks somebody who says `text` and closes, or is silent.
    fn asked(text: Option<&'static str>) -> Result<(), No> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let said = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("asked");
            let mut request = Vec::new();
            // To its end: whoever closes on unread bytes resets the connection.
            while !request.ends_with(b"\r\n\r\n") {
                let mut octet = [0];
                stream.read_exact(&mut octet).expect("a request");
                request.extend_from_slice(&octet);
            }
            assert!(request.starts_with(b"GET /ready HTTP/1.1\r\n"));
            match text {
                Some(text) => stream.write_all(text.as_bytes()).expect("heard"),
                // Until whoever asked has gone.
                None => while stream.read(&mut [0; 256]).is_ok_and(|count| count > 0) {},
            }
        });
        let answer = ask(Question::Ready, address, LIMIT);
        said.join().expect("no panic");
        answer
    }

    #[test]
    fn only_200_is_yes() {
        assert!(asked(Some("HTTP/1.1 200 OK\r\n\r\nready\n")).is_ok());
        for (text, said) in [
            (
                "HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: a\nnot ready: b\n",
                "not ready: a, not ready: b",
            ),
            ("HTTP/1.1 404 Not Found\r\n\r\n", "status \"404\""),
            ("", "status \"\""),
        ] {
            let no = asked(Some(text)).expect_err(said).to_string();
            assert!(no.contains(said), "{no}");
        }
    }

    #[test]
    fn silence_is_no() {
        assert!(matches!(asked(None), Err(No::Silent { .. })));
        // Bound and closed again: nobody is there.
        let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let no = ask(Question::Live, nobody.expect("a port"), LIMIT);
        assert!(matches!(no, Err(No::Silent { .. })));
    }

    #[test]
    fn all_addresses_are_asked_on_loopback() {
        for (bound, asked) in [
            ("0.0.0.0:15020", "127.0.0.1:15020"),
            ("[::]:15020", "[::1]:15020"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            let bound = bound.parse().expect("an address");
            assert_eq!(reachable(bound).to_string(), asked);
        }
    }
}
