//! Many routes that one thing alone tells apart, and requests for some of them.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use selvage_policy::route::{
    Filters, GrpcMatch, HeaderMatch, Hostname, HttpRoute, Match, PathMatch, QueryMatch, Rule,
    TextMatch, whole,
};

/// What tells routes apart.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    Hosts,
    Wildcards,
    Exact,
    Prefixes,
    /// That begin differently.
    Patterns,
    /// That end differently.
    Endings,
    Headers,
    Query,
    Calls,
}

/// A request, owned.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) host: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
}

/// As many different requests are made, spread over the routes.
const QUESTIONS: usize = 200;

impl Shape {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "hosts" => Self::Hosts,
            "wildcards" => Self::Wildcards,
            "exact" => Self::Exact,
            "prefixes" => Self::Prefixes,
            "patterns" => Self::Patterns,
            "endings" => Self::Endings,
            "headers" => Self::Headers,
            "query" => Self::Query,
            "calls" => Self::Calls,
            _ => return None,
        })
    }

    pub(crate) fn routes(self, count: usize) -> Vec<HttpRoute> {
        (0..count).map(|number| self.route(number)).collect()
    }

    /// Requests that meet a route.
    pub(crate) fn hits(self, count: usize) -> Vec<Question> {
        let asked = QUESTIONS.min(count);
        let spread = (0..asked).map(|at| at * count / asked);
        spread.map(|number| self.question(number)).collect()
    }

    /// Requests that differ from those in the one thing that tells routes apart.
    pub(crate) fn misses(self, count: usize) -> Vec<Question> {
        let numbers = count..count + QUESTIONS.min(count);
        numbers.map(|number| self.question(number)).collect()
    }

    fn route(self, number: usize) -> HttpRoute {
        let mut hostnames = vec![Hostname::Exact("api.example.com".into())];
        let mut matched = Match::every();
        match self {
            Self::Hosts => {
                hostnames = vec![Hostname::Exact(format!("s{number}.example.com").into())];
            }
            Self::Wildcards => {
                hostnames = vec![Hostname::Below(format!(".s{number}.example.com").into())];
            }
            Self::Exact => matched.path = PathMatch::Exact(format!("/v1/s{number}/items").into()),
            Self::Prefixes => matched.path = PathMatch::Prefix(format!("/v1/s{number}").into()),
            Self::Patterns => matched.path = pattern(&format!("/v1/s{number}/items/[0-9]+")),
            Self::Endings => matched.path = pattern(&format!("/v1/[a-z]+/items/s{number}")),
            Self::Headers => {
                matched.headers = vec![HeaderMatch {
                    name: HeaderName::from_static("x-tenant"),
                    value: TextMatch::Exact(format!("tenant-{number}").into()),
                }]
            }
            Self::Query => {
                matched.query = vec![QueryMatch {
                    name: "tenant".into(),
                    value: TextMatch::Exact(format!("tenant-{number}").into()),
                }]
            }
            Self::Calls => {
                matched.path = PathMatch::Grpc(GrpcMatch {
                    service: Some(TextMatch::Exact(
                        format!("shop.Service{}", number / 10).into(),
                    )),
                    method: Some(TextMatch::Exact(format!("Method{}", number % 10).into())),
                })
            }
        }
        HttpRoute {
            name: format!("shop/route-{number}").into(),
            hostnames,
            rules: vec![Arc::new(Rule {
                label: format!("shop/route-{number}/0").into(),
                matches: vec![matched],
                filters: Filters::default(),
                backends: Vec::new(),
                session: None,
                response: None,
                rate_limit: None,
            })],
        }
    }

    fn question(self, number: usize) -> Question {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "*/*"),
            ("accept-encoding", "gzip"),
            ("authorization", "Bearer 0123456789abcdef"),
            ("content-type", "application/json"),
            ("host", "api.example.com"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            ("user-agent", "cost"),
            ("x-request-id", "0123456789"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut question = Question {
            host: "api.example.com".to_owned(),
            method: Method::GET,
            path: "/v1/orders/items".to_owned(),
            query: None,
            headers,
        };
        match self {
            Self::Hosts => question.host = format!("s{number}.example.com"),
            Self::Wildcards => question.host = format!("eu.s{number}.example.com"),
            Self::Exact => question.path = format!("/v1/s{number}/items"),
            Self::Prefixes => question.path = format!("/v1/s{number}/items"),
            Self::Patterns => question.path = format!("/v1/s{number}/items/4711"),
            Self::Endings => question.path = format!("/v1/orders/items/s{number}"),
            Self::Headers => {
                let value = HeaderValue::try_from(format!("tenant-{number}"));
                question
                    .headers
                    .insert("x-tenant", value.expect("letters and digits"));
            }
            Self::Query => question.query = Some(format!("page=2&tenant=tenant-{number}")),
            Self::Calls => {
                question.path = format!("/shop.Service{}/Method{}", number / 10, number % 10);
            }
        }
        question
    }
}

fn pattern(text: &str) -> PathMatch {
    PathMatch::Regex(whole(text).expect("a pattern"))
}
