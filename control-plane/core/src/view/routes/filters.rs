//! What is done to requests and responses, as it is sent. A mirror that leads
//! nowhere, and one of no request, is left out.

use selvage_api::v1;
use v1::filter::Filter;

use super::backend;
use crate::attach::Resolved;
use crate::resource::backend::Header;
use crate::resource::route::BackendObjectRef;
use crate::resource::route::cors::{Cors, DEFAULT_MAX_AGE};
use crate::resource::route::filter::{
    FilterType, PathModifier, PathModifierType, RedirectScheme, RequestMirror, RequestRedirect,
    RouteFilter, UrlRewrite,
};
use crate::resource::route::header::HeaderModifier;

/// Copies under way to one mirror.
const MAX_PENDING: u32 = 64;
/// What a redirect answers where it does not say.
const FOUND: u16 = 302;

/// `resolved`: what a mirror leads to.
pub(super) fn filters(
    filters: &[RouteFilter],
    resolved: &dyn Fn(&BackendObjectRef) -> Option<Resolved>,
) -> Vec<v1::Filter> {
    let one = |filter: &RouteFilter| {
        let sent = match filter.kind {
            FilterType::RequestHeaderModifier => {
                Filter::RequestHeaders(modifier(filter.request_header_modifier.as_ref()?))
            }
            FilterType::ResponseHeaderModifier => {
                Filter::ResponseHeaders(modifier(filter.response_header_modifier.as_ref()?))
            }
            FilterType::RequestRedirect => {
                Filter::Redirect(redirect(filter.request_redirect.as_ref()?))
            }
            FilterType::UrlRewrite => Filter::Rewrite(rewrite(filter.url_rewrite.as_ref()?)),
            FilterType::RequestMirror => {
                Filter::Mirror(mirror(filter.request_mirror.as_ref()?, resolved)?)
            }
            FilterType::Cors => Filter::Cors(cors(filter.cors.as_ref()?)),
            // Refused by the parser.
            FilterType::ExternalAuth | FilterType::ExtensionRef => return None,
        };
        Some(v1::Filter { filter: Some(sent) })
    };
    filters.iter().filter_map(one).collect()
}

fn modifier(modifier: &HeaderModifier) -> v1::HeaderModifier {
    let HeaderModifier { set, add, remove } = modifier;
    let header = |Header { name, value }: &Header| v1::Header {
        name: name.to_ascii_lowercase(),
        value: value.clone(),
    };
    v1::HeaderModifier {
        set: set.iter().map(header).collect(),
        add: add.iter().map(header).collect(),
        remove: remove.iter().map(|it| it.to_ascii_lowercase()).collect(),
    }
}

fn redirect(redirect: &RequestRedirect) -> v1::Redirect {
    let RequestRedirect {
        scheme,
        hostname,
        path,
        port,
        status_code,
    } = redirect;
    let scheme = match scheme {
        Some(RedirectScheme::Http) => "http",
        Some(RedirectScheme::Https) => "https",
        None => "",
    };
    v1::Redirect {
        scheme: scheme.to_owned(),
        hostname: hostname.clone().unwrap_or_default(),
        path: path.as_ref().map(path_modifier),
        port: port.unwrap_or_default().into(),
        status: status_code.unwrap_or(FOUND).into(),
    }
}

fn rewrite(UrlRewrite { hostname, path }: &UrlRewrite) -> v1::Rewrite {
    v1::Rewrite {
        hostname: hostname.clone().unwrap_or_default(),
        path: path.as_ref().map(path_modifier),
    }
}

fn path_modifier(modifier: &PathModifier) -> v1::PathModifier {
    use v1::path_modifier::Path;
    let text = |given: &Option<String>| given.clone().unwrap_or_default();
    let path = match modifier.kind {
        PathModifierType::ReplaceFullPath => Path::Full(text(&modifier.replace_full_path)),
        PathModifierType::ReplacePrefixMatch => Path::Prefix(text(&modifier.replace_prefix_match)),
    };
    v1::PathModifier { path: Some(path) }
}

fn mirror(
    mirror: &RequestMirror,
    resolved: &dyn Fn(&BackendObjectRef) -> Option<Resolved>,
) -> Option<v1::Mirror> {
    let millionths = mirror.millionths();
    let to = resolved(&mirror.backend_ref)?;
    (millionths > 0).then(|| v1::Mirror {
        service: Some(backend(to)),
        millionths,
        max_pending: MAX_PENDING,
        host_suffix: String::new(),
    })
}

fn cors(cors: &Cors) -> v1::Cors {
    let Cors {
        allow_origins,
        allow_credentials,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
    } = cors;
    v1::Cors {
        allow_origins: allow_origins.clone(),
        allow_credentials: *allow_credentials,
        allow_methods: allow_methods.clone(),
        allow_headers: allow_headers.clone(),
        expose_headers: expose_headers.clone(),
        max_age: max_age.unwrap_or(DEFAULT_MAX_AGE),
    }
}
