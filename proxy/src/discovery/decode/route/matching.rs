//! What a request must have, and the hosts it is for.

use std::sync::Arc;

use http::HeaderName;
use regex::Regex;
use selvage_api::v1;
use selvage_policy::route::{
    GrpcMatch, HeaderMatch, Hostname, Match, PathMatch, QueryMatch, TextMatch, whole,
};

use super::super::{InvalidResource, absent, invalid, method};

pub(super) fn hostnames(messages: &[String]) -> Result<Vec<Hostname>, InvalidResource> {
    messages.iter().map(|text| hostname(text)).collect()
}

/// An exact host, or `*.` and what it is below.
pub(in super::super) fn hostname(text: &str) -> Result<Hostname, InvalidResource> {
    let lower = text.to_ascii_lowercase();
    let host = match lower.strip_prefix('*') {
        None => Hostname::Exact(lower.as_str().into()),
        Some(suffix) => Hostname::Below(suffix.into()),
    };
    let well_formed = match &host {
        Hostname::Exact(host) => !host.is_empty(),
        Hostname::Below(suffix) => suffix.len() > 1 && suffix.starts_with('.'),
    };
    if well_formed && !lower.trim_start_matches('*').contains('*') {
        Ok(host)
    } else {
        Err(invalid("hostname", format!("`{text}` is none")))
    }
}

pub(super) fn matched(message: &v1::HttpMatch) -> Result<Match, InvalidResource> {
    let v1::HttpMatch {
        path,
        grpc,
        method: verb,
        headers,
        query,
    } = message;
    let path = match (path, grpc) {
        (None, None) => PathMatch::Any,
        (Some(path), None) => path_match(path)?,
        (None, Some(grpc)) => PathMatch::Grpc(grpc_match(grpc)?),
        (Some(_), Some(_)) => return Err(invalid("match", "a path and a gRPC method")),
    };
    let method = match verb.as_str() {
        "" => None,
        text => Some(method("match.method", text)?),
    };
    let headers = headers
        .iter()
        .map(|v1::FieldMatch { name, value, regex }| {
            Ok(HeaderMatch {
                name: HeaderName::try_from(name)
                    .map_err(|error| invalid("match.headers", error))?,
                value: text("match.headers", value, *regex)?,
            })
        })
        .collect::<Result<_, InvalidResource>>()?;
    let query = query
        .iter()
        .map(|v1::FieldMatch { name, value, regex }| {
            Ok(QueryMatch {
                name: name.as_str().into(),
                value: text("match.query", value, *regex)?,
            })
        })
        .collect::<Result<_, InvalidResource>>()?;
    Ok(Match {
        path,
        method,
        headers,
        query,
    })
}

fn path_match(message: &v1::RoutePathMatch) -> Result<PathMatch, InvalidResource> {
    let v1::RoutePathMatch { r#type: _, value } = message;
    let whole = |path: &str| -> Result<Arc<str>, InvalidResource> {
        if path.starts_with('/') {
            Ok(path.into())
        } else {
            Err(invalid(
                "match.path",
                format!("`{path}` begins without a slash"),
            ))
        }
    };
    match message.r#type() {
        v1::RoutePathMatchType::Exact => Ok(PathMatch::Exact(whole(value)?)),
        v1::RoutePathMatchType::Prefix => {
            let segments = value.trim_end_matches('/');
            let prefix = if segments.is_empty() { value } else { segments };
            Ok(PathMatch::Prefix(whole(prefix)?))
        }
        v1::RoutePathMatchType::Regex => Ok(PathMatch::Regex(regex("match.path", value)?)),
        v1::RoutePathMatchType::Unspecified => Err(absent("match.path.type")),
    }
}

fn grpc_match(message: &v1::GrpcMatch) -> Result<GrpcMatch, InvalidResource> {
    let v1::GrpcMatch {
        service,
        method,
        regex,
    } = message;
    let name = |field, value: &str| match value {
        "" => Ok(None),
        value => text(field, value, *regex).map(Some),
    };
    Ok(GrpcMatch {
        service: name("match.grpc.service", service)?,
        method: name("match.grpc.method", method)?,
    })
}

fn text(field: &str, value: &str, is_regex: bool) -> Result<TextMatch, InvalidResource> {
    if is_regex {
        regex(field, value).map(TextMatch::Regex)
    } else {
        Ok(TextMatch::Exact(value.into()))
    }
}

fn regex(field: &str, pattern: &str) -> Result<Regex, InvalidResource> {
    whole(pattern).map_err(|error| invalid(field, error))
}
