//! Rules that answer every request with an error, by what they say themselves.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::resource::route::HttpBackendRef;
use crate::resource::route::filter::{FilterType, RouteFilter};
use crate::resource::{Resource, Spec};

/// Rules without any backend that could take a request. `answered`: the rules
/// of this index for which a policy answers instead.
pub(super) fn dead_ends(
    route: &Resource,
    answered: impl Fn(Option<&str>) -> bool,
    warnings: &mut Diagnostics,
) {
    for (index, rule) in rules(&route.spec).enumerate() {
        if let Some(why) = rule.leads_nowhere()
            && !answered(rule.name)
        {
            let path = format!("spec.rules[{index}]");
            let place = route.place_of(&path);
            let message = format!("{why}: every request it takes is answered with 500");
            warnings.push(Diagnostic::warning(place, path, message));
        }
    }
}

/// What is alike in rules of HTTP and gRPC.
struct Rule<'r> {
    name: Option<&'r str>,
    filters: &'r [RouteFilter],
    backends: &'r [HttpBackendRef<RouteFilter>],
}

impl Rule<'_> {
    fn leads_nowhere(&self) -> Option<&'static str> {
        let redirects = |it: &RouteFilter| it.kind == FilterType::RequestRedirect;
        match self.backends {
            [] if self.filters.iter().any(redirects) => None,
            [] => Some("this rule has no backend"),
            some if some.iter().all(|it| it.weight() == 0) => {
                Some("no backend of this rule has any weight")
            }
            _ => None,
        }
    }
}

fn rules(spec: &Spec) -> Box<dyn Iterator<Item = Rule<'_>> + '_> {
    match spec {
        Spec::HttpRoute(spec) => Box::new(spec.rules.iter().map(|rule| Rule {
            name: rule.name.as_deref(),
            filters: &rule.filters,
            backends: &rule.backend_refs,
        })),
        Spec::GrpcRoute(spec) => Box::new(spec.rules.iter().map(|rule| Rule {
            name: rule.name.as_deref(),
            filters: &rule.filters,
            backends: &rule.backend_refs,
        })),
        _ => Box::new(std::iter::empty()),
    }
}
