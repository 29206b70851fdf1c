//! Authorization policies as the engine decides by them. Knows names and
//! identities, not the sidecars they are about.

use selvage_api::v1;
use selvage_certs::SpiffeId;
use selvage_policy::authorize::{
    Action, AuthorizationPolicy, Mode, Operation, PathMatch, Rule, Source,
};

use super::{InvalidResource, absent, invalid, method};

pub(super) fn policy(
    message: &v1::AuthorizationPolicy,
) -> Result<AuthorizationPolicy, InvalidResource> {
    let v1::AuthorizationPolicy {
        namespace,
        name,
        mode: _,
        rules,
    } = message;
    let mode = match message.mode() {
        v1::AuthorizationMode::Enforce => Mode::Enforce,
        v1::AuthorizationMode::Audit => Mode::Audit,
        v1::AuthorizationMode::Unspecified => return Err(absent("authorization.mode")),
    };
    let rules = rules.iter().map(rule).collect::<Result<_, _>>()?;
    Ok(AuthorizationPolicy {
        namespace: namespace.as_str().into(),
        name: name.as_str().into(),
        mode,
        rules,
    })
}

fn rule(message: &v1::AuthorizationRule) -> Result<Rule, InvalidResource> {
    let v1::AuthorizationRule {
        name,
        action: _,
        from,
        to,
    } = message;
    let action = match message.action() {
        v1::AuthorizationAction::Allow => Action::Allow,
        v1::AuthorizationAction::Deny => Action::Deny,
        v1::AuthorizationAction::Unspecified => return Err(absent("rule.action")),
    };
    Ok(Rule {
        name: name.as_str().into(),
        action,
        from: from.iter().map(source).collect::<Result<_, _>>()?,
        to: to.iter().map(operation).collect::<Result<_, _>>()?,
    })
}

fn source(message: &v1::AuthorizationSource) -> Result<Source, InvalidResource> {
    let v1::AuthorizationSource {
        identities,
        not_identities,
        namespaces,
        not_namespaces,
    } = message;
    let ids = |list: &[String]| {
        list.iter()
            .map(|id| SpiffeId::parse(id).map_err(|error| invalid("rule.from.identities", error)))
            .collect::<Result<Vec<_>, _>>()
    };
    let names = |list: &[String]| list.iter().map(|name| name.as_str().into()).collect();
    Ok(Source {
        identities: ids(identities)?,
        not_identities: ids(not_identities)?,
        namespaces: names(namespaces),
        not_namespaces: names(not_namespaces),
    })
}

fn operation(message: &v1::AuthorizationOperation) -> Result<Operation, InvalidResource> {
    let v1::AuthorizationOperation {
        methods,
        not_methods,
        paths,
        not_paths,
    } = message;
    let verbs = |list: &[String]| {
        list.iter()
            .map(|text| method("rule.to.methods", text))
            .collect::<Result<Vec<_>, _>>()
    };
    let matches = |list: &[v1::PathMatch]| list.iter().map(path).collect::<Result<Vec<_>, _>>();
    Ok(Operation {
        methods: verbs(methods)?,
        not_methods: verbs(not_methods)?,
        paths: matches(paths)?,
        not_paths: matches(not_paths)?,
    })
}

fn path(message: &v1::PathMatch) -> Result<PathMatch, InvalidResource> {
    let v1::PathMatch { r#type: _, value } = message;
    match message.r#type() {
        v1::PathMatchType::Exact => Ok(PathMatch::Exact(value.as_str().into())),
        v1::PathMatchType::Prefix => Ok(PathMatch::Prefix(value.as_str().into())),
        v1::PathMatchType::Unspecified => Err(absent("rule.to.paths.type")),
    }
}
