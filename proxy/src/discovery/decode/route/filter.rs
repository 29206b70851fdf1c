//! What a rule or a backend does to requests and responses.

use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderName, StatusCode};
use selvage_api::v1;
use selvage_policy::route::{Cors, Filters, HeaderEdits, PathEdit, Redirect, Rewrite};

use super::super::service::port_number;
use super::super::traffic::{headers, mirror};
use super::super::{InvalidResource, absent, invalid};

pub(super) fn filters(messages: &[v1::Filter]) -> Result<Filters, InvalidResource> {
    use v1::filter::Filter;
    let mut filters = Filters::default();
    for v1::Filter { filter } in messages {
        match filter.as_ref().ok_or_else(|| absent("filter"))? {
            Filter::RequestHeaders(message) => once(
                &mut filters.request_headers,
                "filter.request_headers",
                edits("filter.request_headers", message)?,
            )?,
            Filter::ResponseHeaders(message) => once(
                &mut filters.response_headers,
                "filter.response_headers",
                edits("filter.response_headers", message)?,
            )?,
            Filter::Redirect(message) => {
                once(&mut filters.redirect, "filter.redirect", redirect(message)?)?;
            }
            Filter::Rewrite(message) => {
                once(&mut filters.rewrite, "filter.rewrite", rewrite(message)?)?;
            }
            Filter::Mirror(message) => filters.mirrors.push(Arc::new(mirror(message)?)),
            Filter::Cors(message) => once(&mut filters.cors, "filter.cors", cors(message))?,
        }
    }
    Ok(filters)
}

/// Of one backend of a rule: what is decided before there is a backend is none.
pub(super) fn of_backend(messages: &[v1::Filter]) -> Result<Filters, InvalidResource> {
    let filters = filters(messages)?;
    match (&filters.redirect, &filters.cors) {
        (None, None) => Ok(filters),
        (Some(_), _) => Err(invalid("backend.filter.redirect", "is for a whole rule")),
        (None, Some(_)) => Err(invalid("backend.filter.cors", "is for a whole rule")),
    }
}

fn once<T>(slot: &mut Option<T>, field: &str, filter: T) -> Result<(), InvalidResource> {
    if slot.replace(filter).is_some() {
        return Err(invalid(field, "is there twice"));
    }
    Ok(())
}

/// None of the fields that are framing, or only Selvage's to set.
fn edits(field: &str, message: &v1::HeaderModifier) -> Result<HeaderEdits, InvalidResource> {
    let v1::HeaderModifier { set, add, remove } = message;
    let edits = HeaderEdits {
        set: headers(field, set)?,
        add: headers(field, add)?,
        remove: remove
            .iter()
            .map(|name| HeaderName::try_from(name).map_err(|error| invalid(field, error)))
            .collect::<Result<_, _>>()?,
    };
    match edits.protected() {
        Some(name) => Err(invalid(field, format!("`{name}` is not for filters"))),
        None => Ok(edits),
    }
}

fn name(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn redirect(message: &v1::Redirect) -> Result<Redirect, InvalidResource> {
    let v1::Redirect {
        scheme,
        hostname,
        path,
        port,
        status,
    } = message;
    let scheme = match scheme.as_str() {
        "" => None,
        "http" => Some(Scheme::HTTP),
        "https" => Some(Scheme::HTTPS),
        other => return Err(invalid("redirect.scheme", format!("`{other}` is none"))),
    };
    let status = match status {
        301 => StatusCode::MOVED_PERMANENTLY,
        302 => StatusCode::FOUND,
        303 => StatusCode::SEE_OTHER,
        307 => StatusCode::TEMPORARY_REDIRECT,
        308 => StatusCode::PERMANENT_REDIRECT,
        other => {
            return Err(invalid(
                "redirect.status",
                format!("{other} is no redirect"),
            ));
        }
    };
    Ok(Redirect {
        scheme,
        hostname: name(hostname),
        path: path_edit(path.as_ref())?,
        port: match port {
            0 => None,
            port => Some(port_number("redirect.port", *port)?),
        },
        status,
    })
}

fn rewrite(message: &v1::Rewrite) -> Result<Rewrite, InvalidResource> {
    let v1::Rewrite { hostname, path } = message;
    Ok(Rewrite {
        hostname: name(hostname),
        path: path_edit(path.as_ref())?,
    })
}

fn path_edit(message: Option<&v1::PathModifier>) -> Result<Option<PathEdit>, InvalidResource> {
    use v1::path_modifier::Path;
    let Some(v1::PathModifier { path }) = message else {
        return Ok(None);
    };
    Ok(Some(match path.as_ref().ok_or_else(|| absent("path"))? {
        Path::Full(path) => PathEdit::Full(path.as_str().into()),
        Path::Prefix(prefix) => PathEdit::Prefix(prefix.as_str().into()),
    }))
}

fn cors(message: &v1::Cors) -> Cors {
    let v1::Cors {
        allow_origins,
        allow_credentials,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
    } = message;
    let list = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
    Cors {
        allow_origins: list(allow_origins),
        allow_credentials: *allow_credentials,
        allow_methods: list(allow_methods),
        allow_headers: list(allow_headers),
        expose_headers: list(expose_headers),
        max_age: Duration::from_secs(u64::from(*max_age)),
    }
}
