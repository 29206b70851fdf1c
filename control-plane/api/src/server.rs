//! The control plane's half of a delta stream: it remembers what the client
//! is subscribed to and what it holds, and says what to push. One session per
//! stream; it performs no IO, keeps no time and knows no store: the view is a
//! function given to [`Session::next`].
//!
//! One push is outstanding at a time. Whatever changes meanwhile is not
//! queued: the next push is computed against the view of that moment, so a
//! slow client costs one push of memory and skips what it missed.

use std::collections::BTreeMap;

use crate::name::{self, InvalidName, MAX_SUBSCRIPTIONS};
use crate::v1::{Answer, DeltaRequest, DeltaResponse, Hello, Rejection, Resource, ResourceName};

/// A client that breaks the protocol; its stream is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The first message of a stream introduces the client.
    #[error("the first message of a stream must carry a hello")]
    NoHello,
    /// A stream has one hello.
    #[error("a stream carries one hello")]
    SecondHello,
    /// More than [`MAX_SUBSCRIPTIONS`] names at a time.
    #[error("more than {MAX_SUBSCRIPTIONS} subscriptions on one stream")]
    TooManySubscriptions,
    /// A name that cannot be subscribed to.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// What a request meant, beyond changing the subscriptions.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Nothing was answered, or the answer was to a push that is no longer outstanding.
    Quiet,
    /// The outstanding push is in force at the client.
    Acked {
        /// The store's revision of that push.
        revision: u64,
    },
    /// The client refused the outstanding push whole and holds what it held.
    Nacked {
        /// The store's revision of that push.
        revision: u64,
        /// Why, by resource.
        rejections: Vec<Rejection>,
    },
}

/// A version on the client's side; `None` means "told that it is absent".
type Version = Option<u64>;

/// What the server knows of the client's copy of one subscribed name.
#[derive(Debug, Default)]
struct Copy {
    /// What the client holds; outer `None`: it was told nothing yet.
    held: Option<Version>,
    /// What it refused last; not sent again until the view says something else.
    refused: Option<Version>,
}

#[derive(Debug)]
struct Outstanding {
    nonce: u64,
    revision: u64,
    sent: BTreeMap<ResourceName, Version>,
}

/// One stream, from the hello to its end.
#[derive(Debug, Default)]
pub struct Session {
    stream: u64,
    hello: Option<Hello>,
    subscriptions: BTreeMap<ResourceName, Copy>,
    outstanding: Option<Outstanding>,
    last_nonce: u64,
}

impl Session {
    /// A stream of which nothing was read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one message of the client. The subscriptions, the hello's known
    /// versions and an answer may come together.
    ///
    /// # Errors
    /// The client breaks the protocol. The session is then not to be used on.
    pub fn on_request(&mut self, request: DeltaRequest) -> Result<Event, ProtocolError> {
        let DeltaRequest {
            hello,
            subscribe,
            unsubscribe,
            answer,
            stream,
        } = request;
        let known = match hello {
            Some(_) if self.hello.is_some() => return Err(ProtocolError::SecondHello),
            Some(mut hello) => {
                self.stream = stream;
                let known = std::mem::take(&mut hello.known);
                self.hello = Some(hello);
                known
            }
            None if self.hello.is_none() => return Err(ProtocolError::NoHello),
            // Left over from an earlier stream of this client: its nonces mean nothing here.
            None if stream != self.stream => return Ok(Event::Quiet),
            None => Vec::new(),
        };
        for name in &unsubscribe {
            self.subscriptions.remove(name);
        }
        for name in subscribe {
            name::check(&name)?;
            self.subscriptions.entry(name).or_default();
            if self.subscriptions.len() > MAX_SUBSCRIPTIONS {
                return Err(ProtocolError::TooManySubscriptions);
            }
        }
        for entry in known {
            if let Some(copy) = entry
                .name
                .as_ref()
                .and_then(|name| self.subscriptions.get_mut(name))
            {
                copy.held = Some(Some(entry.version));
            }
        }
        Ok(answer.map_or(Event::Quiet, |answer| self.answered(answer)))
    }

    fn answered(&mut self, answer: Answer) -> Event {
        let Answer { nonce, rejections } = answer;
        let Some(Outstanding { revision, sent, .. }) = self
            .outstanding
            .take_if(|outstanding| outstanding.nonce == nonce)
        else {
            return Event::Quiet;
        };
        if rejections.is_empty() {
            for (name, version) in sent {
                // A name unsubscribed meanwhile is not held any more.
                if let Some(copy) = self.subscriptions.get_mut(&name) {
                    *copy = Copy {
                        held: Some(version),
                        refused: None,
                    };
                }
            }
            return Event::Acked { revision };
        }
        let named = |name: &ResourceName| rejections.iter().any(|r| r.name.as_ref() == Some(name));
        // A NACK that names nothing of the push is about all of it: sending
        // the same again would only be refused again.
        let all = !sent.keys().any(named);
        for (name, version) in &sent {
            if let Some(copy) = self.subscriptions.get_mut(name)
                && (all || named(name))
            {
                copy.refused = Some(*version);
            }
        }
        Event::Nacked {
            revision,
            rejections,
        }
    }

    /// How the client introduced itself (without its known versions), once it did.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// The names the client is subscribed to, in order.
    pub fn subscribed(&self) -> impl Iterator<Item = &ResourceName> {
        self.subscriptions.keys()
    }

    /// Whether a push waits for its answer. No other is made until then.
    pub fn is_waiting(&self) -> bool {
        self.outstanding.is_some()
    }

    /// The next push: what `view` says differently from what the client
    /// holds, except what it refused at that very version. `None` where there
    /// is nothing to say, a push is outstanding, or there was no hello.
    ///
    /// The first push of a stream is made even if it is empty: it tells the
    /// client that what it holds is that of `revision`.
    ///
    /// `view` gives the resource of a name with its version, or `None` where
    /// there is none; its name is set here.
    pub fn next(
        &mut self,
        mut view: impl FnMut(&ResourceName) -> Option<Resource>,
        revision: u64,
    ) -> Option<DeltaResponse> {
        if self.hello.is_none() || self.outstanding.is_some() {
            return None;
        }
        let mut push = DeltaResponse {
            revision,
            stream: self.stream,
            ..DeltaResponse::default()
        };
        let mut sent = BTreeMap::new();
        for (name, copy) in &mut self.subscriptions {
            let seen = view(name);
            let version = seen.as_ref().map(|resource| resource.version);
            if copy.refused.is_some_and(|refused| refused != version) {
                copy.refused = None;
            }
            if copy.held == Some(version) || copy.refused.is_some() {
                continue;
            }
            sent.insert(name.clone(), version);
            match seen {
                Some(resource) => {
                    push.resources.push(Resource {
                        name: Some(name.clone()),
                        ..resource
                    });
                }
                None => push.removed.push(name.clone()),
            }
        }
        if sent.is_empty() && self.last_nonce > 0 {
            return None;
        }
        self.last_nonce += 1;
        push.nonce = self.last_nonce;
        self.outstanding = Some(Outstanding {
            nonce: push.nonce,
            revision,
            sent,
        });
        Some(push)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::KnownVersion;

    fn a() -> ResourceName {
        name::service("shop", "a")
    }

    fn b() -> ResourceName {
        name::service("shop", "b")
    }

    fn resource(version: u64) -> Option<Resource> {
        Some(Resource {
            version,
            ..Resource::default()
        })
    }

    fn open(subscribe: Vec<ResourceName>, known: Vec<(ResourceName, u64)>) -> Session {
        let known = known
            .into_iter()
            .map(|(name, version)| KnownVersion {
                name: Some(name),
                version,
            })
            .collect();
        let mut session = Session::new();
        let hello = Some(Hello {
            known,
            ..Hello::default()
        });
        let request = DeltaRequest {
            hello,
            subscribe,
            stream: 1,
            ..DeltaRequest::default()
        };
        assert_eq!(session.on_request(request), Ok(Event::Quiet));
        session
    }

    fn answer(nonce: u64, rejected: &[ResourceName]) -> DeltaRequest {
        let rejections = rejected
            .iter()
            .map(|name| Rejection {
                name: Some(name.clone()),
                reason: "no".into(),
            })
            .collect();
        DeltaRequest {
            answer: Some(Answer { nonce, rejections }),
            stream: 1,
            ..DeltaRequest::default()
        }
    }

    #[test]
    fn hello_comes_first_and_once() {
        let mut session = Session::new();
        assert_eq!(
            session.on_request(DeltaRequest::default()),
            Err(ProtocolError::NoHello)
        );
        assert_eq!(session.next(|_| None, 1), None);
        let hello = DeltaRequest {
            hello: Some(Hello::default()),
            ..DeltaRequest::default()
        };
        let mut session = open(vec![], vec![]);
        assert_eq!(session.on_request(hello), Err(ProtocolError::SecondHello));
    }

    #[test]
    fn subscriptions_are_capped() {
        let names = |count: usize| {
            (0..count)
                .map(|i| name::service("n", &i.to_string()))
                .collect()
        };
        let mut session = open(names(MAX_SUBSCRIPTIONS), vec![]);
        let again = DeltaRequest {
            subscribe: names(1),
            stream: 1,
            ..DeltaRequest::default()
        };
        assert_eq!(
            session.on_request(again),
            Ok(Event::Quiet),
            "the same name counts once"
        );
        let more = DeltaRequest {
            subscribe: vec![a()],
            stream: 1,
            ..DeltaRequest::default()
        };
        assert_eq!(
            session.on_request(more),
            Err(ProtocolError::TooManySubscriptions)
        );
    }

    #[test]
    fn first_push_is_made_even_if_empty() {
        let mut session = open(vec![a()], vec![(a(), 7)]);
        let push = session.next(|_| resource(7), 3).expect("first push");
        assert_eq!((push.nonce, push.revision), (1, 3));
        assert!(push.resources.is_empty() && push.removed.is_empty());
        assert_eq!(
            session.on_request(answer(1, &[])),
            Ok(Event::Acked { revision: 3 })
        );
        assert_eq!(session.next(|_| resource(7), 4), None);
    }

    #[test]
    fn one_push_is_outstanding_and_later_changes_coalesce() {
        let mut session = open(vec![a()], vec![]);
        session.next(|_| resource(1), 1).expect("push");
        assert!(session.is_waiting());
        assert_eq!(session.next(|_| resource(2), 2), None);
        assert_eq!(
            session.on_request(answer(9, &[])),
            Ok(Event::Quiet),
            "another nonce"
        );
        assert_eq!(session.next(|_| resource(3), 3), None);
        session.on_request(answer(1, &[])).expect("answer");
        let push = session.next(|_| resource(4), 4).expect("push");
        assert_eq!((push.resources[0].version, push.nonce), (4, 2));
    }

    #[test]
    fn a_subscribed_name_that_is_not_there_is_said_once() {
        let mut session = open(vec![a()], vec![(b(), 3)]);
        let push = session.next(|_| None, 1).expect("push");
        assert_eq!(push.removed, [a()], "b is known but not subscribed");
        session.on_request(answer(1, &[])).expect("answer");
        assert_eq!(session.next(|_| None, 2), None);
        assert!(session.next(|_| resource(1), 3).is_some());
    }

    #[test]
    fn refused_versions_wait_for_a_change_and_the_rest_goes_on() {
        let mut session = open(vec![a(), b()], vec![]);
        session.next(|_| resource(1), 1).expect("push");
        let refused = session.on_request(answer(1, &[b()])).expect("answer");
        assert!(
            matches!(refused, Event::Nacked { revision: 1, ref rejections } if rejections.len() == 1)
        );
        let push = session.next(|_| resource(1), 1).expect("the rest");
        assert_eq!(push.resources.len(), 1);
        assert_eq!(push.resources[0].name, Some(a()));
        session.on_request(answer(2, &[])).expect("answer");
        assert_eq!(session.next(|_| resource(1), 2), None);
        let push = session
            .next(|name| resource(if *name == b() { 2 } else { 1 }), 3)
            .expect("b");
        assert_eq!(push.resources[0].name, Some(b()));
    }

    #[test]
    fn a_nack_that_names_nothing_refuses_everything_in_the_push() {
        let mut session = open(vec![a(), b()], vec![]);
        session.next(|_| resource(1), 1).expect("push");
        let mut nack = answer(1, &[]);
        nack.answer
            .as_mut()
            .expect("an answer")
            .rejections
            .push(Rejection::default());
        session.on_request(nack).expect("answer");
        assert_eq!(session.next(|_| resource(1), 1), None);
    }
}
