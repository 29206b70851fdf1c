//! Raw bytes through a TCP listener. The first byte that a caller sends says
//! which way the rest flows.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use clap::{Args, ValueEnum};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;
use crate::tally::{self, Tally, Timing};

/// Bytes per read and write.
const PIECE: usize = 256 * 1024;
const DOWN: u8 = b'D';
const UP: u8 = b'U';

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    timing: Timing,
    /// Where to connect to.
    #[arg(long)]
    target: SocketAddr,
    /// Connections.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Which way the bytes flow.
    #[arg(long)]
    way: Way,
}

/// As the caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// From the backend to the caller.
    Down,
    /// From the caller to the backend.
    Up,
}

/// Moves bytes and prints what it measured.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let (target, way) = (options.target, options.way);
    tally::measure(&options.timing, async |tally: Rc<Tally>| {
        for _ in 0..options.connections {
            let tally = tally.clone();
            tokio::task::spawn_local(async move {
                let moved = match way {
                    Way::Down => download(target, &tally).await,
                    Way::Up => upload(target, &tally).await,
                };
                if let Err(error) = moved {
                    tally.failed(&error);
                }
            });
        }
        Ok(())
    })
}

async fn open(target: SocketAddr, way: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&[way]).await?;
    Ok(stream)
}

async fn download(target: SocketAddr, tally: &Tally) -> io::Result<()> {
    let mut stream = open(target, DOWN).await?;
    let mut buffer = vec![0; PIECE];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => tally.moved(bytes),
        }
    }
}

async fn upload(target: SocketAddr, tally: &Tally) -> io::Result<()> {
    let mut stream = open(target, UP).await?;
    let piece = vec![b'x'; PIECE];
    loop {
        tally.moved(stream.write(&piece).await?);
    }
}

/// The backend's side of one connection.
pub(crate) async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![b'x'; PIECE];
    if stream.read_u8().await? == DOWN {
        loop {
            stream.write_all(&buffer).await?;
        }
    }
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}
