//! A crowd's list of its breakers: however breakers change and rotations
//! begin, it is in the end what they are, and never more are open than may be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use selvage_policy::classify::Class;
use selvage_policy::crowd::Crowd;
use selvage_policy::endpoint::{EndpointState, InFlight};
use selvage_policy::exposed::{is_true, try_open};
use selvage_policy::rotation::{Layout, Rotation};
use selvage_policy::snapshot::{Balancer, Endpoint, EndpointKey, ServiceName};

use crate::endpoint::{ends, take};
use crate::{all_at_once, at_once, every_order, millis, most_orders, start};

/// Endpoints that are all alike.
pub(crate) struct Port {
    pub(crate) crowd: Arc<Crowd>,
    endpoints: Vec<Arc<Endpoint>>,
    pub(crate) states: Vec<Arc<EndpointState>>,
    pub(crate) rotation: Rotation,
}

fn endpoint(number: u16) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        key: EndpointKey {
            service: ServiceName::new("shop", "ratings"),
            port: 80,
            address: SocketAddr::from(([10, 0, 0, 1], number)),
            identity: None,
        },
        id: "".into(),
        weight: 1,
        labels: BTreeMap::new(),
        healthy: true,
    })
}

impl Port {
    pub(crate) fn new(endpoints: u16, start: Instant) -> Self {
        let crowd = Arc::new(Crowd::new(start));
        let endpoints: Vec<_> = (0..endpoints).map(endpoint).collect();
        let fresh = |endpoint: &Arc<Endpoint>| {
            Arc::new(EndpointState::new(endpoint.key.clone(), Arc::clone(&crowd)))
        };
        let states: Vec<_> = endpoints.iter().map(fresh).collect();
        let rotation = Rotation::begin(
            &endpoints,
            &states,
            &crowd,
            &Layout::new(&Balancer::default(), start),
        );
        Self {
            crowd,
            endpoints,
            states,
            rotation,
        }
    }

    /// As when a Snapshot is swapped in.
    fn another(&self, start: Instant) -> Rotation {
        let balancer = Balancer::default();
        let layout = Layout::new(&balancer, start);
        Rotation::begin(&self.endpoints, &self.states, &self.crowd, &layout)
    }

    fn pending(&self) -> u32 {
        self.states.iter().map(|state| state.pending()).sum()
    }

    /// Two tries, to an endpoint each.
    fn two_tries(&self, start: Instant) -> [InFlight; 2] {
        let one = take(&self.rotation, start).expect("closed");
        // The first endpoint costs more while its try is in flight.
        let other = take(&self.rotation, start).expect("closed");
        assert!(!Arc::ptr_eq(one.endpoint(), other.endpoint()));
        [one, other]
    }
}

#[test]
fn two_that_open_at_once_are_both_listed() {
    let start = start();
    every_order(move || {
        let live = Arc::new(Port::new(2, start));
        let [one, other] = live.two_tries(start);
        let (one, other) = at_once(
            move || ends(one, Class::HardFailure, false, start),
            || ends(other, Class::HardFailure, false, start),
        );
        assert!(one.is_some() && other.is_some());
        assert!(is_true(&live.rotation));
    });
}

#[test]
fn one_comes_back_while_another_opens() {
    let start = start();
    every_order(move || {
        let live = Arc::new(Port::new(2, start));
        let [one, other] = live.two_tries(start);
        ends(one, Class::HardFailure, false, start).expect("it opens");
        let later = start + millis(1002);
        let probe = take(&live.rotation, later).expect("a vacant slot");
        assert!(probe.is_probe());
        at_once(
            move || ends(probe, Class::Success, false, later),
            || ends(other, Class::HardFailure, false, later),
        );
        assert!(is_true(&live.rotation));
        assert_eq!(live.pending(), 0);
    });
}

#[test]
fn a_rotation_that_begins_misses_no_verdict() {
    let start = start();
    most_orders(move || {
        let live = Arc::new(Port::new(2, start));
        let [one, other] = live.two_tries(start);
        ends(one, Class::HardFailure, false, start).expect("it opens");
        let later = start + millis(1002);
        let probe = take(&live.rotation, later).expect("a vacant slot");
        let begins = Arc::clone(&live);
        let (next, closed, opened) = all_at_once(
            move || begins.another(start),
            move || ends(probe, Class::Success, false, later),
            || ends(other, Class::HardFailure, false, later),
        );
        assert!(closed.is_some() && opened.is_some());
        assert!(is_true(&next));
    });
}

#[test]
fn the_last_place_to_open_is_given_once() {
    let start = start();
    every_order(move || {
        let live = Arc::new(Port::new(4, start));
        assert!(try_open(&live.crowd, 50));
        let other = Arc::clone(&live);
        let (one, two) = at_once(
            move || try_open(&other.crowd, 50),
            || try_open(&live.crowd, 50),
        );
        assert!(one != two, "{one} and {two}");
        assert_eq!(live.crowd.open(), 2);
    });
}
