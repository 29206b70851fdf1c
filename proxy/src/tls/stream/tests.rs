//! Streams over sockets that take little, stop, and break off.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::ServerName;
use selvage_certs::{KeyPair, MeshTls, RootCa, SpiffeId, Svid, TrustBundle, TrustDomain};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A socket that counts what is done with it.
struct Counting {
    io: DuplexStream,
    writes: Rc<Cell<usize>>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.set(self.writes.get() + 1);
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes.set(self.writes.get() + 1);
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn identity() -> MeshTls {
    let now = SystemTime::now();
    let domain = TrustDomain::parse("mesh.local").expect("a proper identity");
    let root = RootCa::generate(&domain, HOUR, now).expect("a proper identity");
    let issuer = root
        .issue_intermediate(HOUR, now)
        .expect("a proper identity");
    let key = KeyPair::generate().expect("a proper identity");
    let id = SpiffeId::parse("spiffe://mesh.local/ns/shop/sa/orders").expect("a proper identity");
    let issued = issuer
        .issue_svid(key.public_key(), &id, HOUR, now)
        .expect("a proper identity");
    let svid = Svid::parse(issued.chain, key).expect("a proper identity");
    let bundle =
        TrustBundle::from_der(domain, 1, [root.certificate().clone()]).expect("a proper identity");
    MeshTls::new(&svid, &bundle).expect("a proper identity")
}

/// A client and a server after their handshake, over a pipe of this many bytes.
async fn pair(pipe: usize) -> (TlsStream<Counting>, TlsStream<Counting>) {
    let identity = identity();
    let (near, far) = duplex(pipe);
    let counting = |io| Counting {
        io,
        writes: Rc::default(),
    };
    let connector = TlsConnector::from(identity.client_config(identity.id(), &[b"h2"]));
    let acceptor = TlsAcceptor::from(identity.server_config(&[b"h2"]));
    let name = ServerName::try_from("orders.shop.mesh.local").expect("a handshake");
    let (client, server) = tokio::join!(
        connector.connect(name, counting(near)),
        acceptor.accept(counting(far)),
    );
    let (io, session) = client.expect("a handshake").into_inner();
    let client = TlsStream::new(io, session);
    let (io, session) = server.expect("a handshake").into_inner();
    (client, TlsStream::new(io, session))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

#[tokio::test]
async fn bytes_arrive_whole_however_little_the_socket_takes() {
    for pipe in [1_000, 40_000, 1 << 20] {
        let (mut client, mut server) = pair(pipe).await;
        let sent = pattern(3 << 20);
        let mut received = Vec::new();
        let (wrote, read) = tokio::join!(
            async {
                client.write_all(&sent).await?;
                client.shutdown().await
            },
            server.read_to_end(&mut received),
        );
        wrote.expect("a pipe");
        read.expect("a pipe");
        assert!(received == sent, "over a pipe of {pipe} bytes");
    }
}

#[tokio::test]
async fn slices_keep_their_order() {
    let (mut client, mut server) = pair(1 << 20).await;
    let sent = pattern(200_000);
    let (head, body) = sent.split_at(9);
    let mut left = [IoSlice::new(head), IoSlice::new(body)];
    let mut left = &mut left[..];
    while !left.is_empty() {
        let count = client.write_vectored(left).await.expect("a pipe");
        IoSlice::advance_slices(&mut left, count);
    }
    client.flush().await.expect("a pipe");
    let mut received = vec![0; sent.len()];
    server.read_exact(&mut received).await.expect("a pipe");
    assert!(received == sent);
}

#[tokio::test]
async fn small_writes_leave_together_with_the_flush() {
    let (mut client, mut server) = pair(1 << 20).await;
    let before = client.get_ref().writes.get();
    for _ in 0..50 {
        client.write_all(&[7; 100]).await.expect("a pipe");
    }
    assert_eq!(client.get_ref().writes.get(), before);
    client.flush().await.expect("a pipe");
    assert_eq!(client.get_ref().writes.get(), before + 1);
    let mut received = [0; 5_000];
    server.read_exact(&mut received).await.expect("a pipe");
    assert_eq!(received, [7; 5_000]);
}

#[tokio::test]
async fn an_end_that_was_not_announced_is_an_error_after_what_came_before() {
    let (mut client, mut server) = pair(1 << 20).await;
    client.write_all(b"half").await.expect("a pipe");
    client.flush().await.expect("a pipe");
    drop(client);
    let mut received = [0; 4];
    server.read_exact(&mut received).await.expect("a pipe");
    assert_eq!(&received, b"half");
    let error = server.read(&mut received).await.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn an_end_that_was_announced_leaves_the_other_direction_open() {
    let (mut client, mut server) = pair(1 << 20).await;
    client.shutdown().await.expect("a pipe");
    let mut nothing = [0; 1];
    assert_eq!(server.read(&mut nothing).await.expect("a pipe"), 0);
    assert_eq!(server.read(&mut nothing).await.expect("a pipe"), 0);
    server.write_all(b"still here").await.expect("a pipe");
    server.shutdown().await.expect("a pipe");
    let mut received = String::new();
    client.read_to_string(&mut received).await.expect("a pipe");
    assert_eq!(received, "still here");
}

#[tokio::test]
async fn garbage_is_an_error_of_the_session() {
    let (mut client, mut server) = pair(1 << 20).await;
    client
        .io
        .write_all(&[23, 3, 3, 0, 32])
        .await
        .expect("a pipe");
    client.io.write_all(&[0; 32]).await.expect("a pipe");
    let error = server.read(&mut [0; 1]).await.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(server.ahead.is_none());
}

#[tokio::test]
async fn a_reader_that_takes_little_leaves_the_rest_and_one_that_has_all_holds_nothing() {
    let (mut client, mut server) = pair(1 << 20).await;
    let sent = pattern(100_000);
    client.write_all(&sent).await.expect("a pipe");
    client.flush().await.expect("a pipe");
    let mut received = vec![0; sent.len()];
    server
        .read_exact(&mut received[..10])
        .await
        .expect("a pipe");
    assert!(server.ahead.is_some());
    server
        .read_exact(&mut received[10..])
        .await
        .expect("a pipe");
    assert!(received == sent);
    let waiting = tokio::time::timeout(Duration::ZERO, server.read_u8()).await;
    assert!(waiting.is_err(), "there is nothing more");
    assert!(server.ahead.is_none());
}

#[test]
fn pieces_are_short_and_fill_whole_records() {
    let (head, body) = ([0; 9], vec![1; 300_000]);
    let bufs = [IoSlice::new(&head), IoSlice::new(&body)];
    let mut places = [IoSlice::new(&[]); PIECES];
    let pieces = in_pieces(&bufs, &mut places);
    assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    assert_eq!(total, RECORDS);
}
