//! What the access log is told of a connection of opaque bytes: one line at its
//! end, also where it was refused. Nothing is kept while the log is off.

use std::rc::Rc;
use std::sync::Arc;

use selvage_policy::flag::Flag;
use selvage_policy::snapshot::ServiceName;
use tokio::time::Instant;

use crate::forward::Carried;
use crate::request::Downstream;
use crate::telemetry::told::Told;
use crate::upstream::Destination;
use crate::worker::Worker;

/// See the module.
pub(super) struct ConnectionLog<'w> {
    worker: &'w Worker,
    begun: Instant,
    told: Option<Box<Told>>,
}

impl<'w> ConnectionLog<'w> {
    /// A connection has come.
    pub(super) fn begin(worker: &'w Rc<Worker>, downstream: &Downstream) -> Self {
        let told = worker.shared.logs();
        Self {
            worker,
            begun: Instant::now(),
            told: told.then(|| Box::new(downstream.told(worker))),
        }
    }

    /// Whom it asks for, where that is not known as a destination.
    pub(super) fn named(&mut self, service: &ServiceName) {
        if let Some(told) = &mut self.told {
            told.destination = Some(service.to_string().into());
        }
    }

    /// Where it goes is known.
    pub(super) fn goes_to(&mut self, destination: &Destination) {
        if let Some(told) = &mut self.told {
            told.destination = Some(destination.label.clone());
        }
    }

    /// The route that leads it.
    pub(super) fn follows(&mut self, label: &Arc<str>) {
        if let Some(told) = &mut self.told {
            told.route = Some(label.clone());
        }
    }

    /// An endpoint is tried.
    pub(super) fn tries(&mut self, destination: &Destination, index: usize) {
        let (Some(told), Some(endpoint)) = (&mut self.told, destination.port.endpoints.get(index))
        else {
            return;
        };
        told.tries += 1;
        told.is_sent_to(endpoint);
    }

    /// Its bytes.
    pub(super) fn carried(&mut self, carried: &Carried) {
        if let Some(told) = &mut self.told {
            told.bytes_received = carried.received;
            told.bytes_sent = carried.sent;
        }
    }

    /// The policy that denied it.
    pub(super) fn denied_by(&mut self, policy: &str) {
        if let Some(told) = &mut self.told {
            told.denied_by = Some(policy.into());
        }
    }

    /// It is over; `flag` says why, where it did not end by itself.
    pub(super) fn ends(mut self, flag: Option<Flag>) {
        if let Some(mut told) = self.told.take() {
            told.flag = flag;
            told.duration = self.begun.elapsed();
            self.worker.shared.tell(told);
        }
    }
}
