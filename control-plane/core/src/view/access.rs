//! Who may call what, as it is sent.

use selvage_api::v1;

use crate::resource::ResourceKey;
use crate::resource::authorization_policy::{
    Action, AuthorizationPolicySpec, Mode, OperationSpec, PathMatch, PathMatchType, RuleSpec,
    SourceSpec,
};
use crate::resource::service::Identity;

pub(super) fn authorization(
    key: &ResourceKey,
    spec: &AuthorizationPolicySpec,
) -> v1::AuthorizationPolicy {
    let AuthorizationPolicySpec {
        target_refs: _,
        mode,
        rules,
    } = spec;
    let mode = match mode {
        Mode::Enforce => v1::AuthorizationMode::Enforce,
        Mode::Audit => v1::AuthorizationMode::Audit,
    };
    v1::AuthorizationPolicy {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        mode: mode.into(),
        rules: rules.iter().map(rule).collect(),
    }
}

fn rule(rule: &RuleSpec) -> v1::AuthorizationRule {
    let RuleSpec {
        name,
        action,
        from,
        to,
    } = rule;
    let action = match action {
        Action::Allow => v1::AuthorizationAction::Allow,
        Action::Deny => v1::AuthorizationAction::Deny,
    };
    v1::AuthorizationRule {
        name: name.clone(),
        action: action.into(),
        from: from.iter().flatten().map(source).collect(),
        to: to.iter().flatten().map(operation).collect(),
    }
}

fn source(source: &SourceSpec) -> v1::AuthorizationSource {
    let SourceSpec {
        identities,
        not_identities,
        namespaces,
        not_namespaces,
    } = source;
    let ids = |list: &Option<Vec<Identity>>| {
        list.iter()
            .flatten()
            .map(|id| id.0.as_str().to_owned())
            .collect()
    };
    v1::AuthorizationSource {
        identities: ids(identities),
        not_identities: ids(not_identities),
        namespaces: namespaces.clone().unwrap_or_default(),
        not_namespaces: not_namespaces.clone().unwrap_or_default(),
    }
}

fn operation(operation: &OperationSpec) -> v1::AuthorizationOperation {
    let OperationSpec {
        methods,
        not_methods,
        paths,
        not_paths,
    } = operation;
    let matches =
        |list: &Option<Vec<PathMatch>>| list.iter().flatten().filter_map(path_match).collect();
    v1::AuthorizationOperation {
        methods: methods.clone().unwrap_or_default(),
        not_methods: not_methods.clone().unwrap_or_default(),
        paths: matches(paths),
        not_paths: matches(not_paths),
    }
}

fn path_match(path: &PathMatch) -> Option<v1::PathMatch> {
    let kind = match path.kind {
        PathMatchType::Exact => v1::PathMatchType::Exact,
        PathMatchType::PathPrefix => v1::PathMatchType::Prefix,
        // No such document is ever taken.
        PathMatchType::RegularExpression => return None,
    };
    Some(v1::PathMatch {
        r#type: kind.into(),
        value: path.compared().to_owned(),
    })
}
