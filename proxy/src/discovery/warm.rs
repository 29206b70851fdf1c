//! What routes lead to: services that are subscribed to with the push that
//! brings the routes, so that no request has to wait for them. It looks at
//! messages alone; what is wrong with them is found where they are decoded.

use std::collections::HashSet;

use selvage_api::v1;
use selvage_policy::snapshot::ServiceName;

/// The services that routes of these resources lead to, or that stand in for
/// them, or get copies.
pub(super) fn ahead(resources: &[v1::Resource]) -> HashSet<ServiceName> {
    let mut found = HashSet::new();
    for resource in resources {
        match &resource.body {
            Some(v1::resource::Body::Service(service)) => {
                of_http(&service.http_routes, &mut found);
                of_streams(&service.stream_routes, &mut found);
            }
            Some(v1::resource::Body::Gateway(gateway)) => {
                for listener in &gateway.listeners {
                    of_http(&listener.http_routes, &mut found);
                    of_streams(&listener.stream_routes, &mut found);
                }
            }
            _ => {}
        }
    }
    found
}

fn of_http(routes: &[v1::HttpRoute], found: &mut HashSet<ServiceName>) {
    for rule in routes.iter().flat_map(|route| &route.rules) {
        of_filters(&rule.filters, found);
        of_backends(&rule.backends, found);
    }
}

fn of_streams(routes: &[v1::StreamRoute], found: &mut HashSet<ServiceName>) {
    for route in routes {
        of_backends(&route.backends, found);
    }
}

fn of_backends(backends: &[v1::RouteBackend], found: &mut HashSet<ServiceName>) {
    for backend in backends {
        if let Some(v1::route_backend::To::Service(service)) = &backend.to {
            leads_to(Some(service), found);
        }
        of_filters(&backend.filters, found);
        let Some(policy) = &backend.policy else {
            continue;
        };
        of_mirror(policy.mirror.as_ref(), found);
        let fallback = policy.fallback.as_ref();
        if let Some(v1::fallback::To::Service(service)) = fallback.and_then(|it| it.to.as_ref()) {
            leads_to(Some(service), found);
        }
    }
}

fn of_filters(filters: &[v1::Filter], found: &mut HashSet<ServiceName>) {
    for filter in filters {
        if let Some(v1::filter::Filter::Mirror(mirror)) = &filter.filter {
            of_mirror(Some(mirror), found);
        }
    }
}

fn of_mirror(mirror: Option<&v1::Mirror>, found: &mut HashSet<ServiceName>) {
    leads_to(mirror.and_then(|mirror| mirror.service.as_ref()), found);
}

fn leads_to(backend: Option<&v1::Backend>, found: &mut HashSet<ServiceName>) {
    if let Some(v1::Backend {
        namespace, name, ..
    }) = backend
    {
        found.insert(ServiceName::new(namespace, name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str) -> v1::Backend {
        v1::Backend {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            port: 80,
        }
    }

    fn mirror(name: &str) -> v1::Mirror {
        v1::Mirror {
            service: Some(backend(name)),
            ..v1::Mirror::default()
        }
    }

    fn copies(name: &str) -> v1::Filter {
        v1::Filter {
            filter: Some(v1::filter::Filter::Mirror(mirror(name))),
        }
    }

    fn leads(name: &str) -> v1::RouteBackend {
        v1::RouteBackend {
            to: Some(v1::route_backend::To::Service(backend(name))),
            ..v1::RouteBackend::default()
        }
    }

    #[test]
    fn all_that_routes_may_send_to_is_found_once() {
        let rule = v1::HttpRule {
            filters: vec![copies("shadow")],
            backends: vec![
                v1::RouteBackend {
                    filters: vec![copies("second-shadow")],
                    policy: Some(v1::TrafficPolicy {
                        fallback: Some(v1::Fallback {
                            to: Some(v1::fallback::To::Service(backend("stand-in"))),
                            ..v1::Fallback::default()
                        }),
                        mirror: Some(mirror("third-shadow")),
                        ..v1::TrafficPolicy::default()
                    }),
                    ..leads("one")
                },
                leads("one"),
                v1::RouteBackend {
                    to: Some(v1::route_backend::To::Invalid("RefNotPermitted".to_owned())),
                    ..v1::RouteBackend::default()
                },
            ],
            ..v1::HttpRule::default()
        };
        let service = v1::Service {
            http_routes: vec![v1::HttpRoute {
                rules: vec![rule],
                ..v1::HttpRoute::default()
            }],
            stream_routes: vec![v1::StreamRoute {
                backends: vec![leads("database")],
                ..v1::StreamRoute::default()
            }],
            ..v1::Service::default()
        };
        let resource = v1::Resource {
            body: Some(v1::resource::Body::Service(service)),
            ..v1::Resource::default()
        };
        let expected = [
            "shadow",
            "second-shadow",
            "third-shadow",
            "stand-in",
            "one",
            "database",
        ];
        let expected = expected.map(|name| ServiceName::new("shop", name));
        assert_eq!(ahead(&[resource]), HashSet::from(expected));
    }
}
