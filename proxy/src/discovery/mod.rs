//! What this proxy knows of the mesh, and how it learns more: from local files
//! ([`files`]) or from the control plane ([`stream`]), on the same road. Holds
//! the one Snapshot that requests load; a swap is one store.

pub mod ask;
pub mod decode;
pub mod files;
pub mod health;
pub mod registration;
pub mod stream;
mod warm;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use selvage_policy::snapshot::{ServiceName, Snapshot};
use selvage_policy::table::{LiveService, LiveServices, LiveView};
use tokio::sync::{mpsc, watch};

/// A request waits at most this long for a service that is used for the first time.
pub const FIRST_USE: Duration = Duration::from_secs(1);
/// First uses on their way to the stream.
const WANTS: usize = 256;

/// A Snapshot with the live state beside it, and what is known not to be there.
#[derive(Debug)]
pub struct View {
    /// What there is.
    pub snapshot: Arc<Snapshot>,
    /// Load, breakers, budgets and limits of its services.
    pub live: LiveView,
    /// Services that were asked for and do not exist.
    pub absent: HashSet<ServiceName>,
}

/// Why a service is not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It does not exist.
    NoService,
    /// Nobody said so yet.
    NotReady,
}

/// A name that is being asked for; dropped, it may be asked for again.
struct Asking<'a> {
    asked: &'a Mutex<HashSet<ServiceName>>,
    name: ServiceName,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.asked.lock().remove(&self.name);
    }
}

/// Shared by all threads.
#[derive(Debug)]
pub struct Discovery {
    view: ArcSwapOption<View>,
    live: LiveServices,
    changed: watch::Sender<u64>,
    /// Where first uses go; nowhere in static mode, where all is known.
    wants: Option<mpsc::Sender<ServiceName>>,
    /// Names asked for by requests that wait, so bounded by those.
    asked: Mutex<HashSet<ServiceName>>,
    connected: AtomicBool,
}

impl Discovery {
    /// All is known from files. `zone` is where we stand, if that is known.
    #[must_use]
    pub fn of_files(zone: Option<Arc<str>>) -> Arc<Self> {
        Arc::new(Self::new(None, zone))
    }

    /// More is learnt on first use: the receiver gets the names asked for.
    #[must_use]
    pub fn on_demand(zone: Option<Arc<str>>) -> (Arc<Self>, mpsc::Receiver<ServiceName>) {
        let (sender, receiver) = mpsc::channel(WANTS);
        (Arc::new(Self::new(Some(sender), zone)), receiver)
    }

    fn new(wants: Option<mpsc::Sender<ServiceName>>, zone: Option<Arc<str>>) -> Self {
        Self {
            view: ArcSwapOption::empty(),
            live: LiveServices::in_zone(zone, Instant::now()),
            changed: watch::Sender::new(0),
            wants,
            asked: Mutex::default(),
            connected: AtomicBool::new(false),
        }
    }

    /// The view of now; `None` before the first.
    #[must_use]
    pub fn view(&self) -> Option<Arc<View>> {
        self.view.load_full()
    }

    /// Whether `view` is still the one of now. Cheap: asked for every request.
    #[must_use]
    pub fn is_current(&self, view: &Arc<View>) -> bool {
        self.view
            .load()
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(now, view))
    }

    /// The live state of every endpoint.
    #[must_use]
    pub const fn live(&self) -> &LiveServices {
        &self.live
    }

    /// Replaces the view; live state of what stays is kept.
    pub fn swap(&self, snapshot: Snapshot, absent: HashSet<ServiceName>) {
        tracing::debug!(
            revision = snapshot.revision,
            services = snapshot.services.len(),
            "snapshot"
        );
        let live = self.live.join(&snapshot, Instant::now());
        let view = View {
            snapshot: Arc::new(snapshot),
            live,
            absent,
        };
        self.view.store(Some(Arc::new(view)));
        self.changed.send_modify(|count| *count += 1);
    }

    /// Counts swaps.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether the control plane's stream is up; `None` where files take its place.
    #[must_use]
    pub fn is_connected(&self) -> Option<bool> {
        let connected = self.connected.load(Ordering::Relaxed);
        self.wants.is_some().then_some(connected)
    }

    fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// A service, with its live state. On first use it is asked for, and the
    /// caller waits up to [`FIRST_USE`].
    pub async fn service(&self, name: &ServiceName) -> Result<Arc<LiveService>, Missing> {
        if let Some(answer) = self.known(name) {
            return answer;
        }
        let Some(wants) = &self.wants else {
            return Err(Missing::NotReady);
        };
        let mut changed = self.changed.subscribe();
        // Asked for once, however many wait for it.
        let _asking = self.ask(wants, name);
        let learnt = async {
            loop {
                if let Some(answer) = self.known(name) {
                    return answer;
                }
                if changed.changed().await.is_err() {
                    return Err(Missing::NotReady);
                }
            }
        };
        tokio::time::timeout(FIRST_USE, learnt)
            .await
            .unwrap_or(Err(Missing::NotReady))
    }

    fn ask<'a>(
        &'a self,
        wants: &mpsc::Sender<ServiceName>,
        name: &ServiceName,
    ) -> Option<Asking<'a>> {
        if !self.asked.lock().insert(name.clone()) {
            return None;
        }
        let asking = Asking {
            asked: &self.asked,
            name: name.clone(),
        };
        if wants.try_send(name.clone()).is_err() {
            tracing::debug!(service = %name, "first use not asked for: the stream does not keep up");
        }
        Some(asking)
    }

    fn known(&self, name: &ServiceName) -> Option<Result<Arc<LiveService>, Missing>> {
        let view = self.view.load();
        let view = view.as_ref()?;
        if let Some(service) = view.live.service(name) {
            return Some(Ok(service.clone()));
        }
        (self.wants.is_none() || view.absent.contains(name)).then_some(Err(Missing::NoService))
    }
}
