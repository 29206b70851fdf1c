//! Grants: whether a resource of one namespace may refer to one of another.
//! Within one namespace everybody may; across, only where a `ReferenceGrant`
//! beside what is referred to says so. Refuses to know why somebody refers.

use crate::resource::reference_grant::{GrantFrom, GrantTo};
use crate::resource::{ResourceKind, Spec};
use crate::world::World;

/// The group of routes and gateways.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Whether resources of `from_kind` in `from_namespace` may refer to
/// `to_kind` `to_name` in `to_namespace`. A grant for a Service of either
/// group is one for the Service: they are the same thing.
#[must_use]
pub fn granted(
    world: &World,
    from_group: &str,
    from_kind: &str,
    from_namespace: &str,
    to_kind: ResourceKind,
    to_namespace: &str,
    to_name: &str,
) -> bool {
    let from_matches = |from: &GrantFrom| {
        from.group == from_group && from.kind == from_kind && from.namespace == from_namespace
    };
    let to_matches = |to: &GrantTo| {
        is_group_of(to_kind, &to.group)
            && to.kind == to_kind.as_str()
            && to.name.as_deref().is_none_or(|name| name == to_name)
    };
    from_namespace == to_namespace
        || world
            .in_namespace(ResourceKind::ReferenceGrant, to_namespace)
            .any(|stored| match &stored.resource.spec {
                Spec::ReferenceGrant(grant) => {
                    grant.from.iter().any(from_matches) && grant.to.iter().any(to_matches)
                }
                _ => false,
            })
}

/// Whether a kind may be written as one of this group.
fn is_group_of(kind: ResourceKind, group: &str) -> bool {
    kind.api_versions().iter().any(|version| {
        let own = version.rsplit_once('/').map_or("", |(group, _)| group);
        own == group
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_of_a_group_that_the_kind_may_have() {
        for (kind, group, holds) in [
            (ResourceKind::Service, "", true),
            (ResourceKind::Service, "selvage.dev", true),
            (ResourceKind::Service, GATEWAY_GROUP, false),
            (ResourceKind::Secret, "", true),
            (ResourceKind::Secret, "selvage.dev", false),
        ] {
            assert_eq!(is_group_of(kind, group), holds, "{kind} {group}");
        }
    }
}
