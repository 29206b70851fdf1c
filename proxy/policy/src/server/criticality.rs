//! How much a request matters, in its caller's own words: who is shed first
//! where not all can be served. Knows the words, not what is done about them.

use http::HeaderName;

/// Carries the word: from an application to its own sidecar, and between
/// sidecars. Believed of an application about its own calls, and of an
/// authenticated peer.
pub const CRITICALITY: HeaderName = HeaderName::from_static("x-selvage-criticality");

/// How much a request matters; the first matters most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Criticality {
    /// Shed last.
    Critical,
    /// What says nothing.
    #[default]
    Default,
    /// Shed first: a prefetch, a batch, what can come again later.
    Sheddable,
}

/// A word that is none of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownCriticality;

impl Criticality {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Default, Self::Sheddable];

    /// The word of headers and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Default => "default",
            Self::Sheddable => "sheddable",
        }
    }

    /// Reads a header's value: the word alone, in lower case.
    ///
    /// # Errors
    /// For anything else; such a header is ignored and counted.
    pub fn parse(value: &[u8]) -> Result<Self, UnknownCriticality> {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str().as_bytes() == value)
            .ok_or(UnknownCriticality)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_words_and_no_others() {
        for known in Criticality::ALL {
            assert_eq!(Criticality::parse(known.as_str().as_bytes()), Ok(known));
        }
        for nonsense in [
            "",
            "Critical",
            " critical",
            "critical,default",
            "1",
            "\u{e9}",
        ] {
            let parsed = Criticality::parse(nonsense.as_bytes());
            assert_eq!(parsed, Err(UnknownCriticality), "{nonsense}");
        }
        assert!(Criticality::Critical < Criticality::Sheddable);
    }
}
