//! The proxy's half of a delta stream: what it is subscribed to, what it
//! holds, and what it answers. One session for the life of the proxy, across
//! streams: what it holds survives a broken stream and is offered as known
//! versions to the next one. It performs no IO, keeps no time, and does not
//! look into the bodies of resources.
//!
//! The life of a push, as its user sees it:
//!
//! ```text
//! let mut session = Session::new(hello);
//! session.restore(from_disk);                    // optional: the last good resources
//! session.subscribe([workload, trust_bundle])?;
//! loop {                                         // one turn per stream
//!     send(session.open());                      // hello, known versions, all subscriptions
//!     while let Some(response) = receive().await {
//!         match session.on_response(response) {
//!             Received::Stale => continue,       // duplicate or of an old stream: no answer
//!             Received::Refused(nack) => send(*nack),
//!             Received::Push(push) => match decode(session.candidate()) {
//!                 Ok(snapshot) => { warm(&snapshot).await; send(session.ack()); swap(snapshot); }
//!                 Err(reasons) => send(session.nack(reasons)),
//!             },
//!         }
//!     }
//! }
//! ```
//!
//! A first use subscribes at any time: what [`Session::subscribe`] gives is
//! sent on the open stream; without one it goes with the next
//! [`Session::open`]. A push changes what is held only when it is
//! acknowledged, and then by the subscriptions of that moment, as the server
//! will see them: so both sides agree whatever was in flight.

use std::collections::{BTreeMap, BTreeSet};

use crate::feature;
use crate::name::{self, InvalidName, MAX_SUBSCRIPTIONS};
use crate::v1::{
    Answer, DeltaRequest, DeltaResponse, Hello, KnownVersion, Rejection, Resource, ResourceName,
};

/// A subscription that is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// [`MAX_SUBSCRIPTIONS`] are there already.
    #[error("more than {MAX_SUBSCRIPTIONS} subscriptions")]
    TooMany,
    /// A name the server would refuse.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// What is known of one subscribed name.
#[derive(Debug, Clone, PartialEq)]
enum Known {
    /// The server has not spoken of it yet.
    Pending,
    /// The server says there is none.
    Absent,
    /// The last version acknowledged.
    Held(Box<Resource>),
}

/// One push, until it is answered. It may still hold names that were
/// unsubscribed while it was on the way; [`Session::candidate`] leaves them out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Push {
    /// The store's revision.
    pub revision: u64,
    /// Resources that are new or differ, each with its name.
    pub upserts: Vec<Resource>,
    /// Subscribed names that are not there (any more).
    pub removed: Vec<ResourceName>,
    nonce: u64,
}

/// What a message of the server asks for.
#[derive(Debug, PartialEq)]
pub enum Received<'a> {
    /// A duplicate, or a message of an earlier stream: nothing to do, nothing to answer.
    Stale,
    /// Refused before anybody looked inside (an unknown feature, a malformed
    /// push): send this NACK.
    Refused(Box<DeltaRequest>),
    /// To be judged against [`Session::candidate`], then [`Session::ack`] or [`Session::nack`].
    Push(&'a Push),
}

/// The subscriptions and holdings of one proxy.
#[derive(Debug)]
pub struct Session {
    hello: Hello,
    names: BTreeMap<ResourceName, Known>,
    /// Counts the streams opened; 0: none yet.
    stream: u64,
    open: bool,
    last_nonce: u64,
    staged: Option<Push>,
    revision: Option<u64>,
}

impl Session {
    /// A session that holds nothing. `hello.known` is filled in by [`Session::open`].
    pub fn new(hello: Hello) -> Self {
        Self {
            hello,
            names: BTreeMap::new(),
            stream: 0,
            open: false,
            last_nonce: 0,
            staged: None,
            revision: None,
        }
    }

    /// Subscribes to what an earlier life of this proxy held, and holds it.
    /// Resources without a name or beyond the cap are left out: they will be
    /// subscribed on use.
    pub fn restore(&mut self, resources: impl IntoIterator<Item = Resource>) {
        for resource in resources {
            let Some(name) = resource.name.clone() else {
                continue;
            };
            if name::check(&name).is_ok() && self.names.len() < MAX_SUBSCRIPTIONS {
                self.names.insert(name, Known::Held(Box::new(resource)));
            }
        }
    }

    /// Begins a stream: its first message, with what is held and all
    /// subscriptions. A push of an earlier stream that was not answered is forgotten.
    pub fn open(&mut self) -> DeltaRequest {
        self.stream += 1;
        self.open = true;
        self.last_nonce = 0;
        self.staged = None;
        let known = self
            .resources()
            .map(|resource| KnownVersion {
                name: resource.name.clone(),
                version: resource.version,
            })
            .collect();
        DeltaRequest {
            hello: Some(Hello {
                known,
                ..self.hello.clone()
            }),
            subscribe: self.names.keys().cloned().collect(),
            ..self.request()
        }
    }

    /// The stream broke: subscriptions wait for the next [`Session::open`];
    /// what is held stays.
    pub fn close(&mut self) {
        self.open = false;
        self.staged = None;
    }

    /// Subscribes to names; those already subscribed are left as they are.
    /// Gives the message to send, if a stream is open and there is anything new.
    ///
    /// # Errors
    /// A name is invalid or the cap is reached; then none of them is subscribed.
    pub fn subscribe(
        &mut self,
        names: impl IntoIterator<Item = ResourceName>,
    ) -> Result<Option<DeltaRequest>, SubscribeError> {
        let mut new = BTreeSet::new();
        for name in names {
            name::check(&name)?;
            if !self.names.contains_key(&name) {
                new.insert(name);
            }
            if self.names.len() + new.len() > MAX_SUBSCRIPTIONS {
                return Err(SubscribeError::TooMany);
            }
        }
        let nothing_to_send = new.is_empty() || !self.open;
        let subscribe: Vec<_> = new.iter().cloned().collect();
        self.names
            .extend(new.into_iter().map(|name| (name, Known::Pending)));
        Ok((!nothing_to_send).then(|| DeltaRequest {
            subscribe,
            ..self.request()
        }))
    }

    /// Ends a subscription and drops what was held under it. Gives the
    /// message to send, if a stream is open and there was such a subscription.
    pub fn unsubscribe(&mut self, name: &ResourceName) -> Option<DeltaRequest> {
        self.names.remove(name)?;
        self.open.then(|| DeltaRequest {
            unsubscribe: vec![name.clone()],
            ..self.request()
        })
    }

    /// Takes one message of the server. Changes nothing that is held; a push
    /// waits, staged, for [`Session::ack`] or [`Session::nack`].
    pub fn on_response(&mut self, response: DeltaResponse) -> Received<'_> {
        let DeltaResponse {
            nonce,
            revision,
            resources,
            removed,
            stream,
        } = response;
        if !self.open || stream != self.stream || nonce <= self.last_nonce {
            return Received::Stale;
        }
        self.last_nonce = nonce;
        let rejections: Vec<_> = resources.iter().filter_map(refuse).collect();
        if !rejections.is_empty() {
            self.staged = None;
            return Received::Refused(Box::new(self.answer(nonce, rejections)));
        }
        // Not filtered here: a name may be subscribed again before the answer.
        let upserts = resources;
        Received::Push(self.staged.insert(Push {
            revision,
            upserts,
            removed,
            nonce,
        }))
    }

    /// The push that waits for an answer.
    pub fn staged(&self) -> Option<&Push> {
        self.staged.as_ref()
    }

    /// What would be held if the staged push were acknowledged now, by name:
    /// what a new Snapshot is made from. Without a staged push the same as
    /// [`Session::resources`].
    pub fn candidate(&self) -> impl Iterator<Item = &Resource> {
        let mut all: BTreeMap<&ResourceName, &Resource> = self
            .names
            .iter()
            .filter_map(|(name, known)| match known {
                Known::Held(resource) => Some((name, &**resource)),
                Known::Pending | Known::Absent => None,
            })
            .collect();
        if let Some(push) = &self.staged {
            for name in &push.removed {
                all.remove(name);
            }
            for resource in &push.upserts {
                if let Some(name) = &resource.name
                    && self.names.contains_key(name)
                {
                    all.insert(name, resource);
                }
            }
        }
        all.into_values()
    }

    /// Takes the staged push into what is held and gives its ACK. `None`
    /// where none is staged (the stream broke meanwhile): nothing changes.
    pub fn ack(&mut self) -> Option<DeltaRequest> {
        let Push {
            revision,
            upserts,
            removed,
            nonce,
        } = self.staged.take()?;
        // By the subscriptions of this moment: the server has seen the same
        // ones when the ACK reaches it.
        for resource in upserts {
            if let Some(known) = resource
                .name
                .as_ref()
                .and_then(|name| self.names.get_mut(name))
            {
                *known = Known::Held(Box::new(resource));
            }
        }
        for name in removed {
            if let Some(known) = self.names.get_mut(&name) {
                *known = Known::Absent;
            }
        }
        self.revision = Some(revision);
        Some(self.answer(nonce, Vec::new()))
    }

    /// Forgets the staged push and gives its NACK with the reasons by
    /// resource; without any reason it still is a NACK, of everything in the
    /// push. `None` where none is staged.
    pub fn nack(&mut self, mut reasons: Vec<Rejection>) -> Option<DeltaRequest> {
        let push = self.staged.take()?;
        if reasons.is_empty() {
            reasons.push(Rejection {
                name: None,
                reason: "refused".to_owned(),
            });
        }
        Some(self.answer(push.nonce, reasons))
    }

    /// Everything held, by name.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.names.values().filter_map(|known| match known {
            Known::Held(resource) => Some(&**resource),
            Known::Pending | Known::Absent => None,
        })
    }

    /// The resource held under a name.
    pub fn resource(&self, name: &ResourceName) -> Option<&Resource> {
        match self.names.get(name)? {
            Known::Held(resource) => Some(resource),
            Known::Pending | Known::Absent => None,
        }
    }

    /// Whether the name is subscribed, and the server said there is none. It
    /// stays said until the server says otherwise, also across streams.
    pub fn is_absent(&self, name: &ResourceName) -> bool {
        self.names.get(name) == Some(&Known::Absent)
    }

    /// Whether the name is subscribed, whatever is known of it.
    pub fn is_subscribed(&self, name: &ResourceName) -> bool {
        self.names.contains_key(name)
    }

    /// The revision of the last push acknowledged, if any was in this life.
    pub fn revision(&self) -> Option<u64> {
        self.revision
    }

    fn answer(&self, nonce: u64, rejections: Vec<Rejection>) -> DeltaRequest {
        DeltaRequest {
            answer: Some(Answer { nonce, rejections }),
            ..self.request()
        }
    }

    fn request(&self) -> DeltaRequest {
        DeltaRequest {
            stream: self.stream,
            ..DeltaRequest::default()
        }
    }
}

/// Why a resource cannot even be staged.
fn refuse(resource: &Resource) -> Option<Rejection> {
    let reason = if resource.name.is_none() {
        "a resource without a name".to_owned()
    } else if let Some(feature) = feature::first_unknown(resource) {
        format!("feature {feature:?} is not known to this proxy")
    } else if resource.body.is_none() {
        "a resource without a body this proxy knows".to_owned()
    } else {
        return None;
    };
    Some(Rejection {
        name: resource.name.clone(),
        reason,
    })
}
