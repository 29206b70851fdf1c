//! Listeners that cannot be told apart. On one port HTTP stands alone, TLS and
//! HTTPS stand together where their hosts differ, and TCP takes all there is.
//! Of those that conflict none is served: which one was meant nobody can know.
//! Refuses to know routes.

use crate::resource::gateway::{Listener, ListenerProtocol};
use crate::world::Condition;

/// What keeps a listener from being served beside the others, if anything does.
pub(super) fn of(listeners: &[Listener], index: usize) -> Option<Condition> {
    let own = listeners.get(index)?;
    let others = listeners.iter().enumerate();
    let others = others.filter(|(other, it)| *other != index && it.port == own.port);
    let conflict = |(_, other): (usize, &Listener)| {
        let (reason, what) = match (own.protocol, other.protocol) {
            (ListenerProtocol::Tcp, ListenerProtocol::Tcp) => ("HostnameConflict", "host"),
            (one, two) if one != two && !(is_by_sni(one) && is_by_sni(two)) => {
                ("ProtocolConflict", "protocol")
            }
            _ if own.hostname == other.hostname => ("HostnameConflict", "host"),
            _ => return None,
        };
        Some(Condition {
            kind: "Conflicted",
            status: true,
            reason,
            message: format!(
                "its {what} and that of the listener `{}` cannot be told apart on port {}",
                other.name, own.port
            ),
        })
    };
    others.filter_map(conflict).next()
}

const fn is_by_sni(protocol: ListenerProtocol) -> bool {
    matches!(protocol, ListenerProtocol::Https | ListenerProtocol::Tls)
}
