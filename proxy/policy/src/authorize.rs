//! Who may call what: the inbound side's answer to one caller and one operation.
//!
//! Meets a request when its caller is authenticated and its path canonical. It
//! knows no certificates, no addresses and no headers: identity is what the
//! TLS handshake proved, or nothing.
//!
//! Deny wins. Once an enforced allow rule is there, what no allow rule matches
//! is denied. Else the default of the mesh applies. Audit policies never
//! change the outcome; they report what they would have denied.
//!
//! What cannot be told fails closed, in both directions: a method or path of
//! opaque TCP, or whether a caller without identity is *not* somebody, makes a
//! deny rule match and an allow rule not match. (Reading it as simply false
//! would let an anonymous caller through `allow notNamespaces: [shop]`, and a
//! raw connection past `deny paths: [/admin]`.)

use std::sync::Arc;

use http::Method;
use selvage_certs::SpiffeId;

use crate::snapshot::InboundPolicy;

/// Rules that select a workload's service together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Namespace of the resource.
    pub namespace: Arc<str>,
    /// Name of the resource.
    pub name: Arc<str>,
    /// Whether it decides or only reports.
    pub mode: Mode,
    /// Its rules; their order does not matter.
    pub rules: Vec<Rule>,
}

/// Whether a policy decides or only reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It decides.
    Enforce,
    /// It reports what it would have denied.
    Audit,
}

/// Matches where any `from` matches (or there is none) and any `to` matches (or there is none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// For logs; may be empty.
    pub name: Arc<str>,
    /// What a match means.
    pub action: Action,
    /// Who calls.
    pub from: Vec<Source>,
    /// What is called.
    pub to: Vec<Operation>,
}

/// What a match of a rule means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The call may pass.
    Allow,
    /// The call may not pass, whatever allows it.
    Deny,
}

/// A caller. Every list that is not empty must hold; in a list one entry is enough, of the `not_` lists none may match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// SPIFFE ids, compared whole.
    pub identities: Vec<SpiffeId>,
    /// SPIFFE ids that do not match.
    pub not_identities: Vec<SpiffeId>,
    /// Namespaces of the identity.
    pub namespaces: Vec<Arc<str>>,
    /// Namespaces that do not match.
    pub not_namespaces: Vec<Arc<str>>,
}

/// What is called. Lists as in [`Source`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operation {
    /// Methods, compared whole, in their own case.
    pub methods: Vec<Method>,
    /// Methods that do not match.
    pub not_methods: Vec<Method>,
    /// Paths.
    pub paths: Vec<PathMatch>,
    /// Paths that do not match.
    pub not_paths: Vec<PathMatch>,
}

/// Matches a canonical path, see [`crate::path::canonical_for_authorization`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(Arc<str>),
    /// The first segments: `/v1` matches `/v1` and `/v1/orders`, not `/v10`. A slash at its end does not matter.
    Prefix(Arc<str>),
}

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// What the TLS handshake proved; `None` for plaintext.
    pub identity: Option<&'a SpiffeId>,
}

/// What is called; `None` for opaque TCP, where there is none to be told.
#[derive(Debug, Clone, Copy)]
pub struct Operated<'a> {
    /// The method as it came.
    pub method: Option<&'a Method>,
    /// The canonical path, without its query.
    pub path: Option<&'a str>,
}

/// The answer, and who gave it.
#[derive(Debug)]
pub struct Verdict<'a> {
    /// Whether the call may pass.
    pub permitted: bool,
    /// The enforced policy that decided. For a call that no allow rule
    /// matched, the first policy with an allow rule. `None`: the default.
    pub policy: Option<&'a AuthorizationPolicy>,
    /// The rule that matched, if one did.
    pub rule: Option<&'a Rule>,
    /// Audit policies that would have denied the call. Empty without allocation where there are none.
    pub audited: Vec<&'a AuthorizationPolicy>,
}

impl InboundPolicy {
    /// Decides whether `caller` may do what it asks.
    #[must_use]
    pub fn authorize(&self, caller: Caller<'_>, operated: Operated<'_>) -> Verdict<'_> {
        let mut denied = None;
        let mut allowed = None;
        let mut selecting = None;
        for policy in self.in_mode(Mode::Enforce) {
            for rule in &policy.rules {
                let matches = || rule.matches(caller, operated);
                match rule.action {
                    Action::Deny if denied.is_none() && matches() => denied = Some((policy, rule)),
                    Action::Deny => {}
                    Action::Allow => {
                        selecting = selecting.or(Some(policy));
                        if allowed.is_none() && matches() {
                            allowed = Some((policy, rule));
                        }
                    }
                }
            }
        }
        let audited = self.audit(allowed.is_some(), caller, operated);
        let decided = denied.or(allowed);
        Verdict {
            permitted: denied.is_none()
                && (allowed.is_some() || selecting.is_none() && !self.default_deny),
            policy: decided.map(|(policy, _)| policy).or(selecting),
            rule: decided.map(|(_, rule)| rule),
            audited,
        }
    }

    /// Whether any rule reads paths: then [`crate::path::canonical_for_authorization`] is the form to use.
    #[must_use]
    pub fn looks_at_paths(&self) -> bool {
        self.authorization
            .iter()
            .flat_map(|policy| &policy.rules)
            .flat_map(|rule| &rule.to)
            .any(|operation| !operation.paths.is_empty() || !operation.not_paths.is_empty())
    }

    fn in_mode(&self, mode: Mode) -> impl Iterator<Item = &AuthorizationPolicy> {
        self.authorization
            .iter()
            .filter(move |policy| policy.mode == mode)
    }

    /// Each audit policy is judged as if it alone were enforced beside those that are.
    fn audit(
        &self,
        allowed: bool,
        caller: Caller<'_>,
        operated: Operated<'_>,
    ) -> Vec<&AuthorizationPolicy> {
        let any = |policy: &AuthorizationPolicy, action| {
            let mut rules = policy.rules.iter().filter(|rule| rule.action == action);
            rules.any(|rule| rule.matches(caller, operated))
        };
        let would_deny = |policy: &&AuthorizationPolicy| {
            let selects = policy.rules.iter().any(|rule| rule.action == Action::Allow);
            any(policy, Action::Deny) || (selects && !allowed && !any(policy, Action::Allow))
        };
        self.in_mode(Mode::Audit).filter(would_deny).collect()
    }
}

/// Whether something matches, where that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    No,
    Unknown,
    Yes,
}

impl From<bool> for Match {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// "Any of them, or there is none": the greatest, since `No < Unknown < Yes`.
fn any_of<T>(list: &[T], one: impl Fn(&T) -> Match) -> Match {
    if list.is_empty() {
        Match::Yes
    } else {
        list.iter().map(one).max().unwrap_or(Match::No)
    }
}

/// A positive list and a negative list about one attribute. `unknown` is what
/// the positive list says where the attribute is not there.
fn listed<T, V>(
    value: Option<V>,
    unknown: Match,
    lists: (&[T], &[T]),
    equal: impl Fn(&T, &V) -> bool,
) -> Match {
    let (within, without) = lists;
    let Some(value) = value else {
        let positive = if within.is_empty() {
            Match::Yes
        } else {
            unknown
        };
        let negative = if without.is_empty() {
            Match::Yes
        } else {
            Match::Unknown
        };
        return positive.min(negative);
    };
    let holds = (within.is_empty() || within.iter().any(|own| equal(own, &value)))
        && !without.iter().any(|own| equal(own, &value));
    holds.into()
}

impl Rule {
    fn matches(&self, caller: Caller<'_>, operated: Operated<'_>) -> bool {
        let from = any_of(&self.from, |source| source.matches(caller));
        let to = any_of(&self.to, |operation| operation.matches(operated));
        match (self.action, from.min(to)) {
            (_, Match::Yes) | (Action::Deny, Match::Unknown) => true,
            (_, Match::No) | (Action::Allow, Match::Unknown) => false,
        }
    }
}

impl Source {
    fn matches(&self, caller: Caller<'_>) -> Match {
        // Nobody is surely not one of the named; whether nobody is someone else is not known.
        let identities = listed(
            caller.identity,
            Match::No,
            (&self.identities, &self.not_identities),
            |own, identity| own == *identity,
        );
        let namespaces = listed(
            caller.identity.and_then(SpiffeId::namespace),
            Match::No,
            (&self.namespaces, &self.not_namespaces),
            |own, namespace| **own == **namespace,
        );
        identities.min(namespaces)
    }
}

impl Operation {
    fn matches(&self, operated: Operated<'_>) -> Match {
        let methods = listed(
            operated.method,
            Match::Unknown,
            (&self.methods, &self.not_methods),
            |own, method| own == *method,
        );
        let paths = listed(
            operated.path,
            Match::Unknown,
            (&self.paths, &self.not_paths),
            |own, path| own.matches(path),
        );
        methods.min(paths)
    }
}

impl PathMatch {
    /// Whether a canonical path matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(whole) => **whole == *path,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }
}

#[cfg(test)]
mod tests;
