//! Where the routes of one world stand with its gateways: which name a gateway,
//! and which of those each listener takes. Found out at the first question and
//! kept with the world, so that asking about each of many routes does not look
//! at all the others each time. Refuses to know why a route is not taken.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::{AttachedRoute, attached, gateway};
use crate::attach::routes::parents;
use crate::resource::route::Parent;
use crate::resource::{ResourceKey, ResourceKind};
use crate::world::{Stored, World};

/// The kinds of routes that attach to gateways.
const KINDS: [ResourceKind; 4] = [
    ResourceKind::HttpRoute,
    ResourceKind::GrpcRoute,
    ResourceKind::TlsRoute,
    ResourceKind::TcpRoute,
];

/// See the module. It belongs to the resources it was first asked with: where
/// those change there is a new one.
#[derive(Debug, Default)]
pub(crate) struct Standings(OnceLock<BTreeMap<ResourceKey, Standing>>);

/// Of one gateway, whether or not it is there.
#[derive(Debug, Default)]
struct Standing {
    /// The routes that name it, oldest first.
    routes: Vec<Stored>,
    /// For each of its listeners, whether it takes the route of that place.
    taken: OnceLock<Vec<Vec<bool>>>,
}

impl Standings {
    /// The routes that name a gateway as a parent, oldest first.
    pub(super) fn routes(&self, world: &World, gateway: &ResourceKey) -> &[Stored] {
        let of_gateway = self.of(world, gateway);
        of_gateway.map_or(&[], |standing| standing.routes.as_slice())
    }

    /// Whether the listener at this place of a gateway takes a route.
    pub(super) fn is_attached(
        &self,
        world: &World,
        gateway: &ResourceKey,
        listener: usize,
        stored: &Stored,
    ) -> bool {
        let Some(standing) = self.of(world, gateway) else {
            return false;
        };
        let taken = standing.taken.get_or_init(|| standing.take(world, gateway));
        let taken = taken.get(listener);
        let place = standing.place(stored);
        taken.zip(place).is_some_and(|(taken, place)| taken[place])
    }

    fn of(&self, world: &World, gateway: &ResourceKey) -> Option<&Standing> {
        self.0.get_or_init(|| by_gateway(world)).get(gateway)
    }
}

impl Standing {
    fn take(&self, world: &World, key: &ResourceKey) -> Vec<Vec<bool>> {
        let found = gateway(world, &key.namespace, &key.name);
        let listeners = found.into_iter().flat_map(|(_, spec)| &spec.listeners);
        let of_listener = |listener| self.marked(&attached(world, key, listener));
        listeners.map(of_listener).collect()
    }

    fn marked(&self, attached: &[AttachedRoute<'_>]) -> Vec<bool> {
        let mut taken = vec![false; self.routes.len()];
        for place in attached.iter().filter_map(|it| self.place(it.stored)) {
            taken[place] = true;
        }
        taken
    }

    fn place(&self, stored: &Stored) -> Option<usize> {
        let found = self.routes.binary_search_by(|it| age(it).cmp(&age(stored)));
        found.ok()
    }
}

fn age(stored: &Stored) -> (u64, &ResourceKey) {
    (stored.stamp, &stored.resource.key)
}

fn by_gateway(world: &World) -> BTreeMap<ResourceKey, Standing> {
    let mut found: BTreeMap<ResourceKey, Standing> = BTreeMap::new();
    let mut routes: Vec<&Stored> = KINDS
        .into_iter()
        .flat_map(|kind| world.of_kind(kind))
        .collect();
    routes.sort_by(|one, other| age(one).cmp(&age(other)));
    for stored in routes {
        let own = &stored.resource.key;
        let of_gateways = parents(&stored.resource)
            .iter()
            .filter(|parent| parent.parent() == Parent::Gateway);
        for parent in of_gateways {
            let routes = &mut found
                .entry(parent.target(&own.namespace))
                .or_default()
                .routes;
            // Several of its parents may mean listeners of one gateway.
            if routes.last().is_none_or(|last| last.resource.key != *own) {
                routes.push(stored.clone());
            }
        }
    }
    found
}
