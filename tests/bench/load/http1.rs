//! Closed loops over HTTP/1.1: each connection sends its next request when the
//! answer to the last one is whole. With large bodies, this is also a download.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;
use crate::response;
use crate::tally::{self, Tally, Timing};

/// Room for a head, and for the pieces of a large body.
const SMALL: usize = 8 * 1024;
const LARGE: usize = 256 * 1024;
/// After a failure, so that one is not a storm.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    target: Target,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Ask for a body of this many bytes.
    #[arg(long, conflicts_with = "path")]
    size: Option<usize>,
}

/// Whom to ask for what.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// Where to connect to.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// The authority to ask for; `{}` stands for the numbers below `--spread`.
    #[arg(long, default_value = "orders.shop")]
    pub(crate) authority: String,
    /// What to ask it for, over HTTP/1.1; `{}` as in the authority.
    #[arg(long, default_value = "/")]
    pub(crate) path: String,
    /// Spread requests over this many authorities or paths.
    #[arg(long, default_value_t = 1)]
    pub(crate) spread: usize,
}

impl Target {
    /// The requests to send, in turn, as bytes.
    pub(crate) fn requests(&self, close: bool) -> Vec<Vec<u8>> {
        let end = if close { "connection: close\r\n" } else { "" };
        (0..self.spread)
            .map(|number| {
                let number = number.to_string();
                let path = self.path.replace("{}", &number);
                let authority = self.authority.replace("{}", &number);
                format!(
                    "GET {path} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: bench\r\n{end}\r\n"
                )
                .into_bytes()
            })
            .collect()
    }
}

/// What happens to a connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// It carries the next request.
    KeepAlive,
    /// The request asks for its end, and it is read to it.
    Close,
}

/// Everything a connection needs.
struct Plan {
    target: SocketAddr,
    requests: Vec<Vec<u8>>,
    next: Cell<usize>,
    buffer: usize,
    reuse: Reuse,
    tally: Rc<Tally>,
}

impl Plan {
    /// The requests take turns over all connections.
    fn request(&self) -> &[u8] {
        let number = self.next.get();
        self.next.set((number + 1) % self.requests.len());
        &self.requests[number]
    }
}

/// One connection and what was read from it.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(target: SocketAddr, room: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; room],
        })
    }

    /// Sends `request` and reads the answer whole; `moved` is told the bytes of the body as they come.
    pub(crate) async fn call(&mut self, request: &[u8], moved: impl Fn(usize)) -> io::Result<()> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let head = loop {
            filled += self.read(filled).await?;
            match response::head(&self.buffer[..filled]).map_err(io::Error::other)? {
                Some(head) => break head,
                None if filled == self.buffer.len() => {
                    return Err(io::Error::other("a head that is too long"));
                }
                None => {}
            }
        };
        if head.status != 200 {
            return Err(io::Error::other(format!("status {}", head.status)));
        }
        let mut body = filled - head.end;
        moved(body);
        while body < head.length {
            let more = self.read(0).await?;
            moved(more);
            body += more;
        }
        if body > head.length {
            return Err(io::Error::other("more than was asked for"));
        }
        Ok(())
    }

    async fn read(&mut self, from: usize) -> io::Result<usize> {
        match self.stream.read(&mut self.buffer[from..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => Ok(bytes),
        }
    }

    /// Waits until the other side closes, as it was asked to.
    async fn end(mut self) -> io::Result<()> {
        match self.stream.read(&mut self.buffer).await? {
            0 => Ok(()),
            _ => Err(io::Error::other("bytes after the answer")),
        }
    }
}

/// Runs the loop and prints what it measured.
pub(crate) fn run(options: &Options, reuse: Reuse) -> Result<(), Failure> {
    tally::measure(&options.timing, async |tally| {
        let mut target = options.target.clone();
        if let Some(size) = options.size {
            target.path = format!("/bytes/{size}");
        }
        let plan = Rc::new(Plan {
            target: target.target,
            requests: target.requests(reuse == Reuse::Close),
            next: Cell::new(0),
            buffer: if options.size.is_some() { LARGE } else { SMALL },
            reuse,
            tally,
        });
        for _ in 0..options.connections {
            tokio::task::spawn_local(repeat(plan.clone()));
        }
        Ok(())
    })
}

async fn repeat(plan: Rc<Plan>) {
    loop {
        let ended = match plan.reuse {
            Reuse::KeepAlive => keep_alive(&plan).await,
            Reuse::Close => once(&plan).await,
        };
        if let Err(error) = ended {
            plan.tally.failed(&error);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn keep_alive(plan: &Plan) -> io::Result<()> {
    let mut connection = Connection::open(plan.target, plan.buffer).await?;
    loop {
        let began = Instant::now();
        connection
            .call(plan.request(), |bytes| plan.tally.moved(bytes))
            .await?;
        plan.tally.done(began);
    }
}

async fn once(plan: &Plan) -> io::Result<()> {
    let began = Instant::now();
    let mut connection = Connection::open(plan.target, plan.buffer).await?;
    connection
        .call(plan.request(), |bytes| plan.tally.moved(bytes))
        .await?;
    connection.end().await?;
    plan.tally.done(began);
    Ok(())
}
