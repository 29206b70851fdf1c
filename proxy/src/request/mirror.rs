//! Copies of requests for another service. A copy is a task of its own: the
//! original neither waits for it nor hears of it. It is sent once, is never
//! copied itself, and its answer is read and thrown away. A request with a
//! body is copied once its body was kept whole, with the head of its answer.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use selvage_policy::flag::Flag;
use selvage_policy::mirror::{MirrorOutcome, MirrorPolicy};
use selvage_policy::retry::Attempts;
use selvage_policy::service::CopyPermit;
use selvage_policy::snapshot::Protocol;

use super::outgoing::Outgoing;
use super::send::{Answered, choose, exchange_with, learn};
use crate::clock;
use crate::error::ProxyError;
use crate::upstream::Destination;
use crate::worker::Worker;

/// A copy that takes longer is given up, whatever the timeouts of its service.
const COPY_TIME: Duration = Duration::from_secs(30);

/// A place for a copy, from the original's first try to the end of the copy's answer.
pub(super) struct Copying {
    worker: Rc<Worker>,
    policy: Arc<MirrorPolicy>,
    /// Of the original.
    destination: Rc<Destination>,
    /// Where the original came from.
    source: IpAddr,
    outcome: MirrorOutcome,
    _permit: CopyPermit,
}

/// Copies a request for each mirror that chance has chosen: at once where it
/// has no body. Else what is returned copies it once its body is there.
pub(super) fn begin(
    worker: &Rc<Worker>,
    destination: &Rc<Destination>,
    outgoing: &Outgoing,
    source: IpAddr,
) -> Vec<Copying> {
    let own = destination.policy().mirror.as_ref();
    if own.is_none() && destination.mirrors.is_empty()
        || outgoing.asked.upgrade.is_some()
        // It is not sent itself.
        || outgoing.is_late(clock::recent().into_std())
    {
        return Vec::new();
    }
    let draws = |policy: &MirrorPolicy| worker.with_rng(|rng| policy.share.draw(rng));
    let own = own.filter(|policy| draws(policy)).map(|policy| {
        let permit = destination.live.admit_copy(policy.max_pending);
        (Arc::new(policy.clone()), permit)
    });
    let of_route = destination.mirrors.iter().filter(|policy| draws(policy));
    let of_route = of_route.map(|policy| {
        // Each under the bound of who gets the copies, however many routes send them.
        let to = worker.settled(&policy.to).ok().flatten();
        let permit = to.and_then(|to| to.live.admit_shadow(policy.max_pending));
        (policy.clone(), permit)
    });
    let mut waiting = Vec::new();
    for (policy, permit) in own.into_iter().chain(of_route) {
        let Some(permit) = permit else {
            let events = &destination.events;
            events.mirror(worker.index, MirrorOutcome::Dropped);
            continue;
        };
        let copying = Copying {
            worker: worker.clone(),
            policy,
            destination: destination.clone(),
            source,
            outcome: MirrorOutcome::Dropped,
            _permit: permit,
        };
        if outgoing.body.is_complete() {
            copying.copies(outgoing);
        } else {
            waiting.push(copying);
        }
    }
    waiting
}

impl Copying {
    /// Copies the request, if its body is there whole.
    pub(super) fn copies(self, outgoing: &Outgoing) {
        if let Some(copy) = outgoing.copy(clock::recent().into_std()) {
            tokio::task::spawn_local(Box::new(self).goes(copy));
        }
    }

    async fn goes(mut self: Box<Self>, mut copy: Box<Outgoing>) {
        self.outcome = MirrorOutcome::Failed;
        let policy = self.policy.clone();
        let sending = send(&self.worker, &policy, &mut copy, self.source);
        match tokio::time::timeout(COPY_TIME, sending).await {
            Ok(Ok(())) => self.outcome = MirrorOutcome::Sent,
            Ok(Err(error)) => {
                let (flag, service) = (error.flag.as_str(), &policy.to.service);
                tracing::debug!(%service, flag, detail = %error.detail, "mirror");
            }
            Err(_) => tracing::debug!(service = %policy.to.service, "mirror: no answer in time"),
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.destination
            .events
            .mirror(self.worker.index, self.outcome);
    }
}

/// Sends a copy, under the limits of the service that gets it, and reads its answer to the end.
async fn send(
    worker: &Rc<Worker>,
    policy: &MirrorPolicy,
    copy: &mut Outgoing,
    source: IpAddr,
) -> Result<(), ProxyError> {
    let to = worker.by_name(&policy.to.service, policy.to.port).await?;
    let refused = |flag, detail| Err(ProxyError::new(flag, detail));
    if to.port.protocol == Protocol::Tcp {
        return refused(Flag::NoRoute, "the mirror's port is declared tcp");
    }
    let Some(_permit) = to.live.admit_request(&to.policy().limits) else {
        return refused(
            Flag::Overflow,
            "limits.maxRequests of the mirror is reached",
        );
    };
    copy.is_for(policy);
    let mut attempts = Attempts::begin(to.policy(), &copy.method, copy.grpc);
    let now = clock::now().into_std();
    copy.bounded_by(to.policy(), &attempts, 0);
    copy.keyed_by(to.policy(), source, worker);
    to.live.budget().request(now);
    let chosen = choose(worker, &to, copy, &attempts, attempts.retryable())?;
    attempts.sent_to(chosen.index);
    let number = attempts.tries();
    let mut tried = exchange_with(worker, &to, chosen, number, copy).await?;
    let report = tried.report(tried.judged(&to.policy().failures));
    learn(worker, &to, &mut tried.in_flight, &report);
    let Some(answered) = tried.answered else {
        return Err(tried.error);
    };
    let Answered {
        mut response,
        lease,
        ..
    } = *answered;
    while let Some(frame) = response.body_mut().frame().await {
        frame.map_err(|error| ProxyError::new(Flag::Reset, error.to_string()))?;
    }
    lease.answered(true);
    Ok(())
}
