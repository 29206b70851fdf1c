//! Both halves of the delta protocol against each other: whatever happened on
//! the way, once it is quiet the client holds what the view says.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use selvage_api::client::{self, Received};
use selvage_api::server;
use selvage_api::v1::{
    DeltaRequest, DeltaResponse, Hello, Rejection, Resource, ResourceName, Service, resource::Body,
};

const NAMES: u8 = 4;
/// Versions that this client can never use.
fn is_bad(version: u64) -> bool {
    version.is_multiple_of(5)
}

fn name(index: u8) -> ResourceName {
    selvage_api::name::service("shop", &format!("s{index}"))
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Change(u8, Option<u64>),
    Subscribe(u8),
    Unsubscribe(u8),
    /// The server's debounce fires.
    Push,
    /// One message arrives at the client; it is judged later.
    ToClient {
        keep: bool,
    },
    /// The client has judged what is staged.
    Judge,
    /// One message arrives at the server.
    ToServer,
    /// The stream breaks; what was on the way may still arrive, later, on the next one.
    Break {
        reopen: bool,
    },
    Reopen,
    /// A message of an earlier stream arrives.
    LateAtClient(usize),
    LateAtServer(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..NAMES, proptest::option::weighted(0.8, 1..12_u64)).prop_map(|(n, v)| Step::Change(n, v)),
        2 => (0..NAMES).prop_map(Step::Subscribe),
        1 => (0..NAMES).prop_map(Step::Unsubscribe),
        4 => Just(Step::Push),
        4 => any::<bool>().prop_map(|keep| Step::ToClient { keep }),
        4 => Just(Step::Judge),
        5 => Just(Step::ToServer),
        1 => any::<bool>().prop_map(|reopen| Step::Break { reopen }),
        1 => Just(Step::Reopen),
        1 => (0..64_usize).prop_map(Step::LateAtClient),
        1 => (0..64_usize).prop_map(Step::LateAtServer),
    ]
}

struct World {
    view: BTreeMap<ResourceName, u64>,
    revision: u64,
    client: client::Session,
    server: server::Session,
    connected: bool,
    up: VecDeque<DeltaRequest>,
    down: VecDeque<DeltaResponse>,
    old_up: Vec<DeltaRequest>,
    old_down: Vec<DeltaResponse>,
}

impl World {
    fn new() -> Self {
        Self {
            view: BTreeMap::new(),
            revision: 0,
            client: client::Session::new(Hello::default()),
            server: server::Session::new(),
            connected: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            old_up: Vec::new(),
            old_down: Vec::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Change(index, version) => {
                self.revision += 1;
                match version {
                    Some(version) => self.view.insert(name(index), version),
                    None => self.view.remove(&name(index)),
                };
            }
            Step::Subscribe(index) => {
                let request = self.client.subscribe([name(index)]).expect("under the cap");
                self.up.extend(request);
            }
            Step::Unsubscribe(index) => self.up.extend(self.client.unsubscribe(&name(index))),
            Step::Push => self.push(),
            Step::ToClient { keep } => self.arrive_at_client(keep),
            Step::Judge => self.judge(),
            Step::ToServer => self.arrive_at_server(),
            Step::Break { reopen } => {
                self.client.close();
                self.connected = false;
                self.old_up.extend(self.up.drain(..));
                self.old_down.extend(self.down.drain(..));
                if reopen {
                    self.reopen();
                }
            }
            Step::Reopen => self.reopen(),
            Step::LateAtClient(index) => {
                if let Some(response) = self.old_down.get(index) {
                    assert_eq!(self.client.on_response(response.clone()), Received::Stale);
                }
            }
            Step::LateAtServer(index) => {
                if let Some(request) = self.old_up.get(index)
                    && request.hello.is_none()
                    && self.connected
                    && self.server.hello().is_some()
                {
                    let event = self.server.on_request(request.clone());
                    assert_eq!(event, Ok(server::Event::Quiet));
                }
            }
        }
    }

    fn reopen(&mut self) {
        if !self.connected {
            self.connected = true;
            self.server = server::Session::new();
            self.up.push_back(self.client.open());
        }
    }

    fn push(&mut self) {
        let view = |name: &ResourceName| {
            self.view.get(name).map(|version| Resource {
                name: None,
                version: *version,
                features: vec![],
                body: Some(Body::Service(Service::default())),
            })
        };
        if self.connected
            && let Some(push) = self.server.next(view, self.revision)
        {
            self.down.push_back(push);
        }
    }

    fn arrive_at_client(&mut self, keep: bool) {
        // A push waits until the last one is judged, as a reader loop does.
        if self.client.staged().is_some() {
            return;
        }
        let Some(response) = self.down.front().cloned() else {
            return;
        };
        if !keep {
            self.down.pop_front();
        }
        if let Received::Refused(nack) = self.client.on_response(response) {
            self.up.push_back(*nack);
        }
    }

    fn judge(&mut self) {
        let Some(push) = self.client.staged() else {
            return;
        };
        let bad: Vec<_> = push
            .upserts
            .iter()
            .filter(|resource| is_bad(resource.version))
            .map(|resource| Rejection {
                name: resource.name.clone(),
                reason: "bad".into(),
            })
            .collect();
        let answer = if bad.is_empty() {
            self.client.ack()
        } else {
            self.client.nack(bad)
        };
        self.up.extend(answer);
    }

    fn arrive_at_server(&mut self) {
        if let Some(request) = self.up.pop_front() {
            self.server
                .on_request(request)
                .expect("the client keeps the protocol");
        }
    }

    /// Lets everything arrive until nothing more happens.
    fn settle(&mut self) {
        self.reopen();
        for _ in 0..64 {
            self.judge();
            while !self.up.is_empty() {
                self.arrive_at_server();
            }
            self.push();
            while !self.down.is_empty() {
                self.arrive_at_client(false);
                self.judge();
            }
            if self.up.is_empty() && !self.server.is_waiting() {
                return;
            }
        }
        panic!("never quiet");
    }

    fn assert_equal_to_view(&self) {
        for index in 0..NAMES {
            let name = name(index);
            let held = self.client.resource(&name).map(|resource| resource.version);
            let seen = self.view.get(&name).copied();
            if !self.client.is_subscribed(&name) {
                assert_eq!(held, None);
            } else if seen.is_some_and(is_bad) {
                assert!(held.is_none_or(|version| !is_bad(version)));
            } else {
                assert_eq!(held, seen, "{name:?}");
                assert_eq!(self.client.is_absent(&name), seen.is_none());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn once_quiet_the_client_holds_the_view(steps in proptest::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.settle();
        world.assert_equal_to_view();
        // The operator mends what was refused: then everything is equal.
        for index in 0..NAMES {
            if world.view.get(&name(index)).copied().is_some_and(is_bad) {
                world.take(Step::Change(index, Some(101)));
            }
        }
        world.settle();
        world.assert_equal_to_view();
    }
}
