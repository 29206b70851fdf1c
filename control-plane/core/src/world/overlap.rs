//! Routes in each other's way, and rules that lead nowhere: what is certain to
//! be wrong with routes, beside each other, though each of them may be right.
//! Warnings, with both places. Stands beside the world.

mod conditions;
mod dead_ends;
mod losses;

use std::collections::{BTreeMap, BTreeSet};

use self::losses::{Attached, Claim, Loss, claims, losses};
use super::{Stored, World};
use crate::attach;
use crate::diagnostic::{Diagnostic, Diagnostics, Place};
use crate::resource::route::{Parent, ParentRef};
use crate::resource::{Resource, ResourceKey, ResourceKind};

/// Routes that are asked about one request by one, most specific kind first.
pub(super) const KINDS: [ResourceKind; 2] = [ResourceKind::GrpcRoute, ResourceKind::HttpRoute];

/// What is certain to be wrong with the routes of a set that was applied.
pub(super) fn warnings(world: &World, given: &[&Resource], found: &mut Diagnostics) {
    let keys: BTreeSet<&ResourceKey> = given.iter().map(|route| &route.key).collect();
    overlaps(world, &keys, found);
    for route in given {
        dead_ends::dead_ends(route, |rule| is_answered(world, route, rule), found);
    }
}

/// Matches that no request reaches, as far as one of `given` is or causes it.
fn overlaps(world: &World, given: &BTreeSet<&ResourceKey>, warnings: &mut Diagnostics) {
    let mut told = BTreeSet::new();
    let of_services = tables(world, given);
    for (parent, routes) in of_services.into_iter().chain(listeners(world, given)) {
        for pair in pairs(&parent, &routes) {
            let known = (pair.loser.key.clone(), pair.lost.clone());
            if told.contains(&known) {
                continue;
            }
            if given.contains(&pair.loser.key) {
                warnings.push(pair.tell_loser());
            } else if given.contains(&pair.winner.key) {
                warnings.push(pair.tell_winner());
            }
            told.insert(known);
        }
    }
}

/// A service, and the namespace of routes that name it: its own, or that of
/// the callers they are for.
type Bound = (ResourceKey, String);

/// What a parent names of a service: all of it, or one port by number or name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Scope {
    port: Option<u16>,
    section: Option<String>,
}

impl Scope {
    /// Whether routes of another scope are in this one's table too.
    fn is_within(&self, other: &Self) -> bool {
        let everywhere = other.port.is_none() && other.section.is_none();
        everywhere || self == other
    }

    fn shown(&self, service: &ResourceKey) -> String {
        let mut text = service.to_string();
        if let Some(port) = self.port {
            text.push_str(&format!(", port {port}"));
        }
        if let Some(section) = &self.section {
            text.push_str(&format!(", port `{section}`"));
        }
        text
    }
}

/// The tables that routes of a set are in, each with the name of its parent
/// and its routes, oldest first.
fn tables<'w>(
    world: &'w World,
    given: &BTreeSet<&ResourceKey>,
) -> Vec<(String, Vec<Attached<'w>>)> {
    let mut bound: BTreeMap<Bound, BTreeMap<Scope, Vec<&Stored>>> = BTreeMap::new();
    let mut touched = BTreeSet::new();
    for stored in KINDS.into_iter().flat_map(|kind| world.of_kind(kind)) {
        let is_given = given.contains(&stored.resource.key);
        for (service, scope) in scopes_of(&stored.resource) {
            let of = (service, stored.resource.key.namespace.clone());
            if is_given {
                touched.insert(of.clone());
            }
            let scopes = bound.entry(of).or_default();
            scopes.entry(scope).or_default().push(stored);
        }
    }
    let mut tables = Vec::new();
    for (of, scopes) in bound.iter().filter(|(of, _)| touched.contains(of)) {
        for scope in scopes.keys() {
            let within = scopes.iter().filter(|(other, _)| scope.is_within(other));
            let routes = within.flat_map(|(_, routes)| routes.iter().copied());
            tables.push((scope.shown(&of.0), table(routes.collect())));
        }
    }
    tables
}

/// The routes of one table. Where a gRPC route is attached, HTTP routes are not accepted.
fn table(mut routes: Vec<&Stored>) -> Vec<Attached<'_>> {
    let is_there = |kind: &ResourceKind| routes.iter().any(|it| it.resource.key.kind == *kind);
    let first = KINDS.into_iter().find(is_there);
    routes.retain(|it| Some(it.resource.key.kind) == first);
    routes.sort_by_key(|it| (it.stamp, &it.resource.key));
    routes.dedup_by_key(|it| &it.resource.key);
    routes
        .into_iter()
        .map(|it| Attached::new(&it.resource, Vec::new()))
        .collect()
}

/// The same for the listeners of the gateways that routes of a set name.
fn listeners<'w>(
    world: &'w World,
    given: &BTreeSet<&ResourceKey>,
) -> Vec<(String, Vec<Attached<'w>>)> {
    let mut gateways = BTreeSet::new();
    for stored in given.iter().filter_map(|key| world.resource(key)) {
        let parents = attach::parents(&stored.resource).iter();
        let of_gateways = parents.filter(|it| it.parent() == Parent::Gateway);
        gateways.extend(of_gateways.map(|it| it.target(&stored.resource.key.namespace)));
    }
    let mut tables = Vec::new();
    for gateway in gateways {
        for state in attach::gateway::listeners(world, &gateway.namespace, &gateway.name) {
            let of_requests = state
                .routes
                .into_iter()
                .filter(|it| KINDS.contains(&it.stored.resource.key.kind));
            let attached = of_requests.map(|it| Attached::new(&it.stored.resource, it.hostnames));
            let parent = format!("{gateway}, listener `{}`", state.listener.name);
            tables.push((parent, attached.collect()));
        }
    }
    tables
}

/// The services that a route is attached to, and what of them.
fn scopes_of(route: &Resource) -> BTreeSet<(ResourceKey, Scope)> {
    let of_services = attach::parents(route)
        .iter()
        .filter(|parent| parent.parent() == Parent::Service);
    let scope = |parent: &ParentRef| {
        let scope = Scope {
            port: parent.port,
            section: parent.section_name.clone(),
        };
        (parent.target(&route.key.namespace), scope)
    };
    of_services.map(scope).collect()
}

/// What is lost in one table, one entry for a rule that is lost whole.
fn pairs<'r>(parent: &'r str, routes: &'r [Attached<'_>]) -> Vec<Pair<'r>> {
    let lost = losses(routes);
    let mut alive = BTreeSet::new();
    for (claim, _) in claims(routes) {
        if lost.get(&claim).is_none_or(|loss| loss.host.is_some()) {
            alive.insert((claim.route, claim.rule));
        }
    }
    let mut told = BTreeSet::new();
    let mut pairs = Vec::new();
    for (claim, loss) in lost {
        let whole_rule = !alive.contains(&(claim.route, claim.rule));
        if whole_rule && !told.insert((claim.route, claim.rule)) {
            continue;
        }
        let (loser, winner) = (&routes[claim.route], &routes[loss.winner.route]);
        pairs.push(Pair {
            parent,
            loser: loser.route,
            lost: if whole_rule {
                rule_path(claim)
            } else {
                match_path(loser.route, claim)
            },
            whole_rule,
            winner: winner.route,
            won: match_path(winner.route, loss.winner),
            loss,
        });
    }
    pairs
}

fn rule_path(claim: Claim) -> String {
    format!("spec.rules[{}]", claim.rule)
}

/// The field of a match: the rule where it has none written.
fn match_path(route: &Resource, claim: Claim) -> String {
    let path = format!("{}.matches[{}]", rule_path(claim), claim.matched);
    if route.knows(&path) {
        path
    } else {
        rule_path(claim)
    }
}

/// A match, or a whole rule, that loses its requests to another.
struct Pair<'r> {
    parent: &'r str,
    loser: &'r Resource,
    lost: String,
    whole_rule: bool,
    winner: &'r Resource,
    won: String,
    loss: Loss,
}

impl Pair<'_> {
    /// At the place of what loses.
    fn tell_loser(&self) -> Diagnostic {
        let what = if self.whole_rule { "rule" } else { "match" };
        let own = self.loser.key == self.winner.key;
        let winner = match own {
            true => format!("`{}`", self.won),
            false => format!("`{}` of {}", self.won, self.winner.key),
        };
        let why = match (self.loss.by_catch_all, own) {
            (true, _) => "takes every path, and an expression goes before a prefix",
            (false, true) => "asks for the same, and the first one wins",
            (false, false) => "asks for the same, and the older route wins, then the first by name",
        };
        let place = self.loser.place_of(&self.lost);
        let other = self.winner.place_of(&self.won);
        let message = format!(
            "no request reaches this {what}{}: {winner} {why}",
            self.limits()
        );
        told(place, &self.lost, message, other)
    }

    /// At the place of what wins, where what loses was there before.
    fn tell_winner(&self) -> Diagnostic {
        let place = self.winner.place_of(&self.won);
        let other = self.loser.place_of(&self.lost);
        let message = format!(
            "this takes every request from `{}` of {}{}",
            self.lost,
            self.loser.key,
            self.limits()
        );
        told(place, &self.won, message, other)
    }

    /// Where and for what it is lost; within one route that is wherever it is attached.
    fn limits(&self) -> String {
        let mut text = String::new();
        if self.loser.key != self.winner.key {
            text.push_str(&format!(" at {}", self.parent));
        }
        if let Some(host) = &self.loss.host {
            text.push_str(&format!(" for {host}"));
        }
        text
    }
}

fn told(place: &Place, path: &str, message: String, other: &Place) -> Diagnostic {
    let help = format!("that one stands at {other}");
    Diagnostic::warning(place, path, message).with_help(Some(help))
}

/// Whether a policy answers what a rule takes, whatever its backends.
fn is_answered(world: &World, route: &Resource, rule: Option<&str>) -> bool {
    let answers = |namespace| {
        let policies = attach::RoutePolicies::new(world, namespace);
        policies.response(&route.key, rule).is_some()
    };
    let policies = world.of_kind(ResourceKind::TrafficPolicy);
    let namespaces: BTreeSet<&str> = policies
        .map(|stored| stored.resource.key.namespace.as_str())
        .collect();
    namespaces.into_iter().any(answers)
}
