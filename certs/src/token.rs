//! Join tokens: one string that starts a workload.
//!
//! `selvage1.<SHA-256 of the root>.<secret>`, both in hex. The first part says whom to trust, the
//! second proves who asks. What a token allows, and until when, is kept by the control plane beside
//! the secret's hash; the token itself knows nothing of it.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::bundle::sha256;
use crate::hex;
use crate::key::InvalidKey;

const PREFIX: &str = "selvage1";

/// The text is not a join token. Says no more, so that no part of a secret reaches a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: expected `selvage1.`, 64 hex digits, `.`, 64 hex digits")]
pub struct InvalidJoinToken;

/// A join token. `Display` shows it whole, to be handed over; `Debug` hides the secret.
#[derive(Clone)]
pub struct JoinToken {
    root_fingerprint: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
}

impl JoinToken {
    /// A fresh secret beside the fingerprint of the root.
    pub fn generate(root_fingerprint: [u8; 32]) -> Result<Self, InvalidKey> {
        let mut secret = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *secret).map_err(|_| InvalidKey::Crypto)?;
        Ok(Self {
            root_fingerprint,
            secret,
        })
    }

    /// Parses a token; white space around it, as a file has it, is left out.
    pub fn parse(text: &str) -> Result<Self, InvalidJoinToken> {
        let mut parts = text.trim().split('.');
        let mut next = || parts.next().ok_or(InvalidJoinToken);
        let (prefix, fingerprint, secret) = (next()?, next()?, next()?);
        if prefix != PREFIX || parts.next().is_some() {
            return Err(InvalidJoinToken);
        }
        let root_fingerprint = hex::decode_32(fingerprint).ok_or(InvalidJoinToken)?;
        let secret = Zeroizing::new(hex::decode_32(secret).ok_or(InvalidJoinToken)?);
        Ok(Self {
            root_fingerprint,
            secret,
        })
    }

    /// SHA-256 of the root certificate to trust.
    pub fn root_fingerprint(&self) -> [u8; 32] {
        self.root_fingerprint
    }

    /// SHA-256 of the secret: what is stored of a token. The secret has 256 random bits, so a plain
    /// hash cannot be searched.
    pub fn secret_hash(&self) -> [u8; 32] {
        sha256(&*self.secret)
    }
}

/// Compares secrets, or hashes of them, in time that does not depend on where they differ.
pub fn secrets_equal(left: &[u8], right: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(left, right).is_ok()
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprint = hex::encode(&self.root_fingerprint);
        let secret = Zeroizing::new(hex::encode(&*self.secret));
        write!(f, "{PREFIX}.{fingerprint}.{}", *secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "JoinToken({}, secret hidden)",
            hex::encode(&self.root_fingerprint)
        )
    }
}

impl FromStr for JoinToken {
    type Err = InvalidJoinToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_round_trips_and_hides_its_secret() {
        let token = JoinToken::generate([0xab; 32]).expect("randomness");
        let text = token.to_string();
        let again = JoinToken::parse(&format!("{text}\n")).expect("a token");
        assert_eq!(again.root_fingerprint(), [0xab; 32]);
        assert!(secrets_equal(&again.secret_hash(), &token.secret_hash()));
        let secret = text.rsplit('.').next().expect("three parts");
        assert!(!format!("{token:?}").contains(secret));
        let other = JoinToken::generate([0xab; 32]).expect("randomness");
        assert!(!secrets_equal(&other.secret_hash(), &token.secret_hash()));
    }

    #[test]
    fn anything_else_is_refused() {
        let digits = "0".repeat(64);
        let table = [
            String::new(),
            "selvage1".into(),
            format!("selvage1.{digits}"),
            format!("selvage2.{digits}.{digits}"),
            format!("selvage1.{digits}.{digits}.x"),
            format!("selvage1.{digits}.{}", "0".repeat(63)),
            format!("selvage1.{digits}.{}", "A".repeat(64)),
            format!("selvage1.{digits}.{}", "é".repeat(32)),
        ];
        for text in table {
            assert_eq!(
                JoinToken::parse(&text).err(),
                Some(InvalidJoinToken),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(selvage1)?\\PC{0,40}") {
            let _ = JoinToken::parse(&text);
        }
    }
}
