//! A workload's own identity: its chain and the key that goes with it.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use crate::chain::INTERMEDIATES;
use crate::id::SpiffeId;
use crate::key::KeyPair;
use crate::leaf::{self, InvalidSvid, Leaf};
use crate::pem;

/// An X.509-SVID with its private key. Cheap enough to clone; `Debug` shows no private part.
#[derive(Debug, Clone)]
pub struct Svid {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    id: SpiffeId,
    not_before: SystemTime,
    not_after: SystemTime,
    issuer_not_after: Option<SystemTime>,
}

impl Svid {
    /// Checks that the leaf has the shape of an SVID and that `key` is its key. Neither its chain
    /// nor its life is judged: that is for those who verify it.
    pub fn parse(chain: Vec<CertificateDer<'static>>, key: KeyPair) -> Result<Self, InvalidSvid> {
        let (first, intermediates) = chain.split_first().ok_or(InvalidSvid::Empty)?;
        if intermediates.len() > INTERMEDIATES {
            return Err(InvalidSvid::TooLong);
        }
        let Leaf {
            id,
            not_before,
            not_after,
            public_key,
        } = Leaf::parse(first)?;
        if public_key.ok_or(InvalidSvid::NotP256)? != *key.public_key() {
            return Err(InvalidSvid::KeyMismatch);
        }
        let mut issuer_not_after = None;
        for (index, der) in intermediates.iter().enumerate() {
            let (_, end) = leaf::validity(&leaf::certificate(der)?);
            if index == 0 {
                issuer_not_after = Some(end);
            }
        }
        Ok(Self {
            chain,
            key,
            id,
            not_before,
            not_after,
            issuer_not_after,
        })
    }

    /// From two PEM texts: the chain, leaf first, and the key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, InvalidSvid> {
        let chain = pem::certificates(chain, 1 + INTERMEDIATES).ok_or(InvalidSvid::Pem)?;
        Self::parse(chain, KeyPair::from_pem(key)?)
    }

    /// The leaf first, then its intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The chain as PEM text.
    pub fn chain_pem(&self) -> String {
        pem::certificates_to_pem(&self.chain)
    }

    /// The leaf's key.
    pub fn key(&self) -> &KeyPair {
        &self.key
    }

    /// Whose it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// First second of the leaf's life.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Last second of the leaf's life.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Last second of the life of the leaf's issuer, where the chain holds it.
    pub fn issuer_not_after(&self) -> Option<SystemTime> {
        self.issuer_not_after
    }
}
