//! Where the control plane is: what its name stands for, remembered, because
//! what knows names may be away when it is needed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::lookup_host;

/// How long a name may take once there are addresses that it stood for.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the module. Clones remember together.
#[derive(Debug, Clone)]
pub struct Place {
    name: Arc<str>,
    known: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Place {
    /// Of a `host:port` that nobody has looked up yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            known: Arc::default(),
        }
    }

    /// What its name stands for now, or did when it was last heard.
    ///
    /// # Errors
    /// When nobody knows the name and nobody ever did.
    pub async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let looking = lookup_host(&*self.name);
        let known = self.known.lock().clone();
        let found = if known.is_empty() {
            looking.await
        } else {
            let late = |_| Err(io::ErrorKind::TimedOut.into());
            tokio::time::timeout(PATIENCE, looking)
                .await
                .unwrap_or_else(late)
        };
        let chosen = choose(found.map(Iterator::collect), known)?;
        self.known.lock().clone_from(&chosen);
        Ok(chosen)
    }
}

/// What was found, or what is known where nothing was. IPv4 stands first: `localhost` and many other names have
/// both, and a listener on 0.0.0.0 hears nothing else.
fn choose(
    found: io::Result<Vec<SocketAddr>>,
    known: Vec<SocketAddr>,
) -> io::Result<Vec<SocketAddr>> {
    match found {
        Ok(mut found) if !found.is_empty() => {
            found.sort_by_key(SocketAddr::is_ipv6);
            Ok(found)
        }
        _ if !known.is_empty() => Ok(known),
        Ok(_) => Err(io::ErrorKind::NotFound.into()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_stands_in_for_a_name_that_nobody_knows() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (old, new) = (address("10.0.0.1:1"), address("10.0.0.2:1"));
        let six = address("[::1]:1");
        let away = || Err(io::ErrorKind::TimedOut.into());
        let table = [
            (Ok(vec![new]), vec![old], Some(vec![new])),
            (Ok(vec![six, new]), vec![], Some(vec![new, six])),
            (away(), vec![old], Some(vec![old])),
            (Ok(vec![]), vec![old], Some(vec![old])),
            (away(), vec![], None),
            (Ok(vec![]), vec![], None),
        ];
        for (found, known, expected) in table {
            let shown = format!("{found:?} {known:?}");
            assert_eq!(choose(found, known).ok(), expected, "{shown}");
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_remembered() {
        let place = Place::new("127.0.0.1:15010");
        let found = place.addresses().await.expect("no name at all");
        assert_eq!(found, ["127.0.0.1:15010".parse().expect("an address")]);
        assert_eq!(*place.clone().known.lock(), found);
        assert!(Place::new("nobody.invalid:1").addresses().await.is_err());
    }
}
