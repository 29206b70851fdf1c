//! Which hostnames a host meets, the most specific first.
//!
//! Exact names are one lookup, and of wildcards one for each label of the
//! host, from the longest suffix to the shortest: as many as the host has
//! labels, however many hostnames there are.

use std::collections::HashMap;
use std::sync::Arc;

use super::Hostname;

/// No name of DNS is longer (RFC 1035 §2.3.4), so no route is for one that is.
const HOST_BYTES: usize = 253;

/// Hostnames, each with the number it was given.
#[derive(Debug, Default)]
pub(super) struct Hostnames {
    exact: HashMap<Arc<str>, u32>,
    /// By the suffix, its dot included.
    below: HashMap<Arc<str>, u32>,
    /// The longest of those suffixes.
    longest: usize,
    any: Option<u32>,
}

impl Hostnames {
    /// Gives a hostname, or every host, its number.
    pub(super) fn insert(&mut self, hostname: Option<&Hostname>, number: u32) {
        match hostname {
            None => self.any = Some(number),
            Some(Hostname::Exact(host)) => {
                self.exact.insert(host.clone(), number);
            }
            Some(Hostname::Below(suffix)) => {
                self.longest = self.longest.max(suffix.len());
                self.below.insert(suffix.clone(), number);
            }
        }
    }

    /// The numbers of those that a host, as [`Host`] has it, meets.
    pub(super) fn of<'a>(&'a self, host: Option<&'a str>) -> impl Iterator<Item = u32> + use<'a> {
        let exact = host.and_then(|host| self.exact.get(host));
        let below = host
            .filter(|_| !self.below.is_empty())
            .into_iter()
            .flat_map(|host| self.suffixes(host));
        exact.into_iter().chain(below).copied().chain(self.any)
    }

    fn suffixes<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a u32> {
        // A suffix has something before it.
        let dots = host.bytes().enumerate().skip(1);
        dots.filter(|(_, byte)| *byte == b'.')
            .map(|(at, _)| &host[at..])
            .filter(|suffix| suffix.len() <= self.longest)
            .filter_map(|suffix| self.below.get(suffix))
    }
}

/// A place for a host in its one form: in lower case, without the dot that
/// may end it.
pub(super) struct Host([u8; HOST_BYTES]);

impl Host {
    pub(super) const fn new() -> Self {
        Self([0; HOST_BYTES])
    }

    /// The one form; `None` of what is no name.
    pub(super) fn of<'a>(&'a mut self, host: &'a str) -> Option<&'a str> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.len() > HOST_BYTES {
            return None;
        }
        if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Some(host);
        }
        let place = &mut self.0[..host.len()];
        place.copy_from_slice(host.as_bytes());
        place.make_ascii_lowercase();
        std::str::from_utf8(place).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_comes_first() {
        let mut hostnames = Hostnames::default();
        let below = |suffix: &str| Hostname::Below(suffix.into());
        hostnames.insert(None, 0);
        hostnames.insert(Some(&below(".com")), 1);
        hostnames.insert(Some(&below(".example.com")), 2);
        hostnames.insert(Some(&Hostname::Exact("a.example.com".into())), 3);
        let table: [(&str, &[u32]); 8] = [
            ("a.example.com", &[3, 2, 1, 0]),
            ("A.Example.COM.", &[3, 2, 1, 0]),
            ("b.a.example.com", &[2, 1, 0]),
            ("example.com", &[1, 0]),
            (".example.com", &[1, 0]),
            ("com", &[0]),
            ("", &[0]),
            ("a.example.org", &[0]),
        ];
        for (host, expected) in table {
            let mut place = Host::new();
            let found: Vec<u32> = hostnames.of(place.of(host)).collect();
            assert_eq!(found, expected, "{host}");
        }
        assert_eq!(hostnames.of(None).collect::<Vec<u32>>(), [0]);
        assert_eq!(Host::new().of(&"a".repeat(HOST_BYTES + 1)), None);
    }
}
