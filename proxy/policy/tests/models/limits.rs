//! The permits of a service: as many as the limit of that moment, whatever was
//! held before it changed.

use std::sync::Arc;

use proptest::prelude::*;
use selvage_policy::service::{ConnectionPermit, PendingPermit, RequestPermit, ServiceState};
use selvage_policy::snapshot::{BudgetPolicy, Limits, ServiceName};

use crate::chance::{sequence, sequences};
use crate::start;

/// Whatever is held.
enum Permit {
    Request(#[expect(dead_code, reason = "held for its drop")] RequestPermit),
    Pending(#[expect(dead_code, reason = "held for its drop")] PendingPermit),
    Connection(#[expect(dead_code, reason = "held for its drop")] ConnectionPermit),
}

proptest! {
    #![proptest_config(sequences())]

    #[test]
    fn as_many_are_held_as_the_limits_allow((_, _, events) in sequence(60)) {
        let name = ServiceName::new("shop", "ratings");
        let service = Arc::new(ServiceState::new(name, BudgetPolicy::default(), start()));
        let mut limits = Limits { max_connections: 2, max_requests: 3, max_pending: 1 };
        let mut held: [Vec<Permit>; 3] = Default::default();
        for mut event in events {
            let kind = event.index(3);
            match event.below(8) {
                0 => limits = Limits {
                    max_connections: event.below(4) as u32,
                    max_requests: event.below(6) as u32,
                    max_pending: event.below(3) as u32,
                },
                1..=3 => {
                    let one = event.index(held[kind].len().max(1));
                    if one < held[kind].len() {
                        held[kind].swap_remove(one);
                    }
                }
                _ => {
                    let (permit, limit) = match kind {
                        0 => (service.admit_request(&limits).map(Permit::Request), limits.max_requests),
                        1 => (service.admit_pending(&limits).map(Permit::Pending), limits.max_pending),
                        _ => (
                            service.admit_connection(&limits).map(Permit::Connection),
                            limits.max_connections,
                        ),
                    };
                    prop_assert_eq!(permit.is_some(), held[kind].len() < limit as usize);
                    held[kind].extend(permit);
                }
            }
            let [requests, pending, connections] = held.each_ref().map(|all| all.len() as u32);
            prop_assert_eq!(service.in_use(), (requests, pending, connections));
        }
    }
}
