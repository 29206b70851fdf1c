//! What a request must have to meet a rule, as it is sent: paths in the form
//! in which requests are compared, names of headers in lower case.

use selvage_api::v1;

use crate::resource::route::matching::{
    FieldMatch, GrpcRouteMatch, HttpPathMatch, HttpRouteMatch, MatchType, PathMatchType,
};
use crate::resource::route::path::canonical;

pub(super) fn http_match(matched: &HttpRouteMatch) -> v1::HttpMatch {
    let HttpRouteMatch {
        path,
        headers,
        query_params,
        method,
    } = matched;
    v1::HttpMatch {
        path: path.as_ref().map(path_match),
        grpc: None,
        method: method.clone().unwrap_or_default(),
        headers: headers.iter().map(header).collect(),
        query: query_params.iter().map(field).collect(),
    }
}

pub(super) fn grpc_match(matched: &GrpcRouteMatch) -> v1::HttpMatch {
    let GrpcRouteMatch { method, headers } = matched;
    let grpc = method.as_ref().map(|method| {
        let regex = method.kind == MatchType::RegularExpression;
        let service = match regex {
            true => &method.service,
            // Full names of Protocol Buffers may be written with a dot before them.
            false => method.service.strip_prefix('.').unwrap_or(&method.service),
        };
        v1::GrpcMatch {
            service: service.to_owned(),
            method: method.method.clone(),
            regex,
        }
    });
    v1::HttpMatch {
        // Every call, and yet by its service and method as in every gRPC route.
        grpc: Some(grpc.unwrap_or_default()),
        headers: headers.iter().map(header).collect(),
        ..v1::HttpMatch::default()
    }
}

fn path_match(HttpPathMatch { kind, value }: &HttpPathMatch) -> v1::RoutePathMatch {
    let (kind, value) = match kind {
        PathMatchType::Exact => (v1::RoutePathMatchType::Exact, canonical(value)),
        PathMatchType::PathPrefix => (v1::RoutePathMatchType::Prefix, prefix(&canonical(value))),
        PathMatchType::RegularExpression => (v1::RoutePathMatchType::Regex, value.clone()),
    };
    v1::RoutePathMatch {
        r#type: kind.into(),
        value,
    }
}

/// A prefix is the same with and without its last slash.
fn prefix(path: &str) -> String {
    match path.strip_suffix('/') {
        Some("") | None => path.to_owned(),
        Some(shorter) => shorter.to_owned(),
    }
}

fn header(given: &FieldMatch) -> v1::FieldMatch {
    v1::FieldMatch {
        name: given.name.to_ascii_lowercase(),
        ..field(given)
    }
}

fn field(FieldMatch { kind, name, value }: &FieldMatch) -> v1::FieldMatch {
    v1::FieldMatch {
        name: name.clone(),
        value: value.clone(),
        regex: *kind == MatchType::RegularExpression,
    }
}
