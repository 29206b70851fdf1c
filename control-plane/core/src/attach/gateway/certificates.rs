//! What a listener terminates TLS with: Secrets of its namespace, or of others
//! that grant it, and what its options name. Refuses to read files.

use crate::attach::grants::{GATEWAY_GROUP, granted};
use crate::resource::gateway::{CertificateRef, CertificateSource, Listener};
use crate::resource::secret::SecretSpec;
use crate::resource::{ResourceKey, ResourceKind, Spec};
use crate::world::{Condition, World};

/// A certificate that can be used.
#[derive(Debug)]
pub enum Found<'w> {
    /// A Secret.
    Secret(&'w SecretSpec),
    /// What the options of the listener name.
    Source(CertificateSource<'w>),
}

/// The certificates of a listener, and the first reference that leads to none.
/// Where TLS is passed through there are none to look for.
pub(super) fn of<'w>(
    world: &'w World,
    namespace: &str,
    listener: &'w Listener,
) -> (Vec<Found<'w>>, Option<Condition>) {
    let mut found = Vec::new();
    let mut problem = None;
    let tls = listener.tls.as_ref().filter(|_| !listener.is_passthrough());
    for reference in tls.into_iter().flat_map(|tls| &tls.certificate_refs) {
        match secret(world, namespace, reference) {
            Ok(secret) => found.push(Found::Secret(secret)),
            Err(broken) => problem = problem.or(Some(broken)),
        }
    }
    let source = tls.and_then(|tls| tls.source());
    found.extend(source.map(Found::Source));
    (found, problem)
}

fn secret<'w>(
    world: &'w World,
    own_namespace: &str,
    reference: &CertificateRef,
) -> Result<&'w SecretSpec, Condition> {
    let refuse = |reason, message| Condition {
        kind: "ResolvedRefs",
        status: false,
        reason,
        message,
    };
    let namespace = reference.namespace.as_deref().unwrap_or(own_namespace);
    let name = &reference.name;
    if !reference.is_secret() {
        let kind = reference.kind.as_deref().unwrap_or("Secret");
        let message = format!("a certificate is in a Secret of the core group, not in a {kind}");
        return Err(refuse("InvalidCertificateRef", message));
    }
    let permitted = granted(
        world,
        GATEWAY_GROUP,
        ResourceKind::Gateway.as_str(),
        own_namespace,
        ResourceKind::Secret,
        namespace,
        name,
    );
    if !permitted {
        let message = format!(
            "no ReferenceGrant in namespace `{namespace}` lets a Gateway of namespace `{own_namespace}` refer to the Secret {namespace}/{name}"
        );
        return Err(refuse("RefNotPermitted", message));
    }
    let key = ResourceKey {
        kind: ResourceKind::Secret,
        namespace: namespace.to_owned(),
        name: name.clone(),
    };
    match world.resource(&key).map(|stored| &stored.resource.spec) {
        Some(Spec::Secret(secret)) => Ok(secret),
        _ => Err(refuse(
            "InvalidCertificateRef",
            format!("there is no {key}"),
        )),
    }
}
