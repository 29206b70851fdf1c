//! How fast requests come in, of all or of each who sends them: the state
//! behind one rate limit, for a port of the application or a rule of a
//! gateway's route. What a rate is stands in `rate`, whose requests are counted
//! together in `keyed`.

use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use selvage_certs::SpiffeId;

use super::keyed::{KeyTable, OverRate};
use super::{RateKey, RateLimit, Refused, Shed};
use crate::since;
use crate::sync::atomic::AtomicU64;

/// Bytes of an IPv6 address.
const ADDRESS: usize = 16;

/// Whose request it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whose<'a> {
    /// The identity of its caller, where it has shown one.
    pub identity: Option<&'a SpiffeId>,
    /// Its headers; none for opaque bytes.
    pub headers: Option<&'a HeaderMap>,
    /// The address of its client.
    pub source: Option<IpAddr>,
}

/// See the module. Shared by the workers; it outlives every Snapshot.
pub struct Rates {
    epoch: Instant,
    seed: u64,
    arrival: AtomicU64,
    keys: OnceLock<KeyTable>,
}

impl Rates {
    /// Nobody has come. `epoch` is no later than any `now` that follows; `seed`
    /// is nobody else's to know.
    #[must_use]
    pub fn new(epoch: Instant, seed: u64) -> Self {
        Self {
            epoch,
            seed,
            arrival: AtomicU64::new(0),
            keys: OnceLock::new(),
        }
    }

    /// Lets a request pass.
    ///
    /// # Errors
    /// It is over the limit; when one like it would pass is known.
    pub fn take(&self, limit: &RateLimit, whose: &Whose<'_>, now: Instant) -> Result<(), Refused> {
        let refused = |why, wait: Duration| Refused {
            why,
            retry_after: Some(wait),
        };
        let at = since::nanos(now.saturating_duration_since(self.epoch));
        let address;
        let key = match &limit.key {
            RateKey::None => {
                let taken = limit.rate.take(&self.arrival, at);
                return taken.map_err(|wait| refused(Shed::RateLimited, wait));
            }
            RateKey::Identity => whose.identity.map(|id| id.as_str().as_bytes()),
            RateKey::Header(name) => whose
                .headers
                .and_then(|headers| headers.get(name))
                .map(HeaderValue::as_bytes),
            RateKey::SourceIp => {
                address = whose.source.map(octets);
                address.as_ref().map(<[u8; ADDRESS]>::as_slice)
            }
        };
        let keys = self.keys.get_or_init(|| KeyTable::new(self.seed));
        let over = |OverRate { wait, crowded }| match crowded {
            true => refused(Shed::RateTableFull, wait),
            false => refused(Shed::RateLimited, wait),
        };
        keys.take(&limit.rate, key.unwrap_or_default(), at)
            .map_err(over)
    }
}

/// One form for an address, however it came. Of IPv6 the first half counts:
/// whoever has one address has all of the network that shares it.
fn octets(address: IpAddr) -> [u8; ADDRESS] {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[ADDRESS / 2..].fill(0);
            octets
        }
    }
}

impl fmt::Debug for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Rate;
    use crate::testing::{millis, seconds, start};

    #[test]
    fn each_address_has_a_rate_of_its_own() {
        let start = start();
        let rates = Rates::new(start, 7);
        let limit = RateLimit {
            rate: Rate::new(1, seconds(1), 2),
            key: RateKey::SourceIp,
        };
        let take = |address: Option<&str>, now| {
            let whose = Whose {
                source: address.map(|text| text.parse().expect("an address")),
                ..Whose::default()
            };
            rates.take(&limit, &whose, now).map_err(|it| it.retry_after)
        };
        let over = Err(Some(seconds(1)));
        let table = [
            (Some("192.0.2.1"), Ok(())),
            (Some("192.0.2.1"), Ok(())),
            (Some("192.0.2.1"), over),
            (Some("::ffff:192.0.2.1"), over),
            (Some("192.0.2.2"), Ok(())),
            (Some("2001:db8::1"), Ok(())),
            (Some("2001:db8::2"), Ok(())),
            (Some("2001:db8::3"), over),
            (Some("2001:db8:0:1::1"), Ok(())),
            (None, Ok(())),
            (None, Ok(())),
            (None, over),
        ];
        for (address, expected) in table {
            assert_eq!(take(address, start), expected, "{address:?}");
        }
        let later = start + millis(1_000);
        assert_eq!(take(Some("192.0.2.1"), later), Ok(()));
        assert!(take(Some("192.0.2.1"), later).is_err());
    }
}
