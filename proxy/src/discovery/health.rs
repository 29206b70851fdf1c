//! Whether the application beside us answers, port by port: what the registry
//! is told. Checks are small and bounded; they never touch the request path.

use std::net::SocketAddr;

use selvage_policy::health::{Checked, Health, HealthChange, HealthCheck, Pace};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ask::{Manner, ask, failed, within};

/// One port of the application.
#[derive(Debug, Clone)]
pub struct Probed {
    /// The port callers name.
    pub service_port: u16,
    /// Where the application listens.
    pub address: SocketAddr,
    /// How to ask it; `None`: it is taken to be well.
    pub check: Option<HealthCheck>,
    /// Whether it speaks HTTP/2 alone.
    pub http2: bool,
}

/// Whether each port answers, in the order given.
pub type Healths = Vec<bool>;

/// The application's ports, and what checks have said of each.
#[derive(Debug)]
pub struct Application<N> {
    ports: Vec<(Probed, Health)>,
    note: N,
}

impl<N: Fn(&Probed, HealthChange)> Application<N> {
    /// Asks every port once: the first word decides, whatever the thresholds.
    /// `note` is told of every change, from then on.
    pub async fn meet(ports: Vec<Probed>, note: N) -> Self {
        let asked = futures_util::future::join_all(ports.iter().map(Probed::ask)).await;
        let meet = |(port, checked): (Probed, Checked)| {
            let mut health = Health::default();
            if let Some(check) = &port.check {
                let at_once = Pace {
                    unhealthy_threshold: 1,
                    ..check.pace
                };
                let now = Instant::now().into_std();
                if let Some(change) = health.hear(&checked, &at_once, now) {
                    note(&port, change);
                }
            }
            (port, health)
        };
        let ports = ports.into_iter().zip(asked).map(meet).collect();
        Self { ports, note }
    }

    /// What is known of each.
    pub fn healths(&self) -> Healths {
        let known = self.ports.iter().map(|(_, health)| health.is_healthy());
        known.collect()
    }

    /// Asks every port in its interval for as long as it is polled; `sender` is told of changes only.
    pub async fn watch(self, sender: watch::Sender<Healths>) {
        let (sender, note) = (&sender, &self.note);
        let watched = self.ports.into_iter().enumerate();
        let watches = watched.map(|(index, (port, mut health))| async move {
            let Some(HealthCheck { pace, .. }) = port.check else {
                return;
            };
            let mut rng = fastrand::Rng::new();
            let mut next = Instant::now() + pace.wait(&mut rng);
            loop {
                tokio::time::sleep_until(next).await;
                next = Instant::now() + pace.wait(&mut rng);
                let checked = port.ask().await;
                let now = Instant::now().into_std();
                if let Some(change) = health.hear(&checked, &pace, now) {
                    sender.send_modify(|healths| healths[index] = change.healthy);
                    note(&port, change);
                }
            }
        });
        futures_util::future::join_all(watches).await;
    }
}

impl Probed {
    /// Asks once.
    async fn ask(&self) -> Checked {
        let Some(HealthCheck { question, pace }) = &self.check else {
            return Checked::Passed;
        };
        let authority = self.address.to_string();
        let manner = Manner {
            authority: &authority,
            http2: self.http2,
            mesh: false,
        };
        let asking = async {
            match TcpStream::connect(self.address).await {
                Ok(stream) => ask(stream, question, manner).await,
                Err(error) => failed(error),
            }
        };
        within(pace.timeout, asking).await
    }
}
