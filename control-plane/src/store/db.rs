//! The tables of the store and its transactions. Every method that writes is
//! one transaction, on disk when it returns. Never called on a thread of the
//! runtime.

use std::path::Path;

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{decode, encode};
use super::{Binding, CHANGES_KEPT, Certificate, Key, StoreError, StoredResource, Token};
use crate::files;

/// Counters: `revision`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const RESOURCES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("resources");
const REGISTRATIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("registrations");
const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");
const TOKENS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("tokens");
const BINDINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bindings");
/// By end of life, so that what has ended is found at the front.
const CERTIFICATES: TableDefinition<'_, (u64, &str), &[u8]> = TableDefinition::new("certificates");

/// How many ended certificates or tokens one write clears away.
const PRUNED_AT_A_TIME: usize = 64;

/// Kept after their end, so that a renewal within the grace is still explained.
const CERTIFICATES_KEPT_SECONDS: u64 = 7 * 24 * 3600;

/// A change of one resource or registration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    /// `Kind/namespace/name`, or `registration/namespace/workload`.
    pub(crate) key: String,
    pub(crate) deleted: bool,
}

/// What a watcher gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Changes {
    /// In order.
    List(Vec<Change>),
    /// Some are not kept any more; this is the revision now.
    Reset { revision: u64 },
}

/// One edit of the resources.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Edit {
    /// With the rank of its first apply, which the caller gives: it has decided
    /// on the whole set, and writes are made one after the other.
    Put(Key, Value, u64),
    Delete(Key),
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Db {
    database: Database,
}

impl Db {
    /// Opens or creates the file, mode 0600.
    ///
    /// # Errors
    /// Another process has it open, or it cannot be read or created.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        files::private_file(path).map_err(redb::Error::Io)?;
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
            other => other.into(),
        })?;
        let db = Self { database };
        db.write(|tx| {
            tx.open_table(META)?;
            tx.open_table(RESOURCES)?;
            tx.open_table(REGISTRATIONS)?;
            tx.open_table(CHANGES)?;
            tx.open_table(TOKENS)?;
            tx.open_table(BINDINGS)?;
            tx.open_table(CERTIFICATES)?;
            Ok(())
        })?;
        Ok(db)
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let tx = self.database.begin_write()?;
        // Dropped without a commit on an error: nothing of it was done.
        let result = work(&tx)?;
        tx.commit()?;
        Ok(result)
    }

    /// The number of changes so far.
    pub(crate) fn revision(&self) -> Result<u64, StoreError> {
        let table = self.database.begin_read()?.open_table(META)?;
        Ok(table.get("revision")?.map_or(0, |count| count.value()))
    }

    /// All resources, by order of first apply.
    pub(crate) fn resources(&self) -> Result<Vec<StoredResource>, StoreError> {
        let table = self.database.begin_read()?.open_table(RESOURCES)?;
        let mut all = Vec::new();
        for entry in table.iter()? {
            all.push(decode::<StoredResource>("resources", entry?.1.value())?);
        }
        all.sort_by_key(|resource| resource.order);
        Ok(all)
    }

    /// Applies edits as one change: all are there, or none. Gives the revision;
    /// an edit that finds nothing to delete does not count.
    pub(crate) fn edit(&self, edits: &[Edit]) -> Result<u64, StoreError> {
        self.write(|tx| {
            let mut table = tx.open_table(RESOURCES)?;
            let mut revision = revision_of(tx)?;
            for edit in edits {
                match edit {
                    Edit::Put(key, document, order) => {
                        let encoded = key.encode();
                        revision = log(tx, &encoded, false)?;
                        let (key, order, document) = (key.clone(), *order, document.clone());
                        let record = StoredResource {
                            key,
                            order,
                            revision,
                            document,
                        };
                        table.insert(encoded.as_str(), encode(&record).as_slice())?;
                    }
                    Edit::Delete(key) => {
                        let encoded = key.encode();
                        if table.remove(encoded.as_str())?.is_some() {
                            revision = log(tx, &encoded, true)?;
                        }
                    }
                }
            }
            Ok(revision)
        })
    }

    /// A change of what is not kept here (a watched folder), for its revision alone.
    pub(crate) fn touch(&self, what: &str) -> Result<u64, StoreError> {
        self.write(|tx| log(tx, what, false))
    }

    #[cfg(test)]
    pub(crate) fn touch_many(&self, count: u64) -> Result<(), StoreError> {
        self.write(|tx| (0..count).try_for_each(|_| log(tx, "test", false).map(drop)))
    }

    /// All registrations, by `namespace/workload`.
    pub(crate) fn registrations(&self) -> Result<Vec<Value>, StoreError> {
        let table = self.database.begin_read()?.open_table(REGISTRATIONS)?;
        table
            .iter()?
            .map(|entry| decode("registrations", entry?.1.value()))
            .collect()
    }

    /// Writes one registration.
    pub(crate) fn put_registration(&self, name: &str, body: &Value) -> Result<u64, StoreError> {
        self.write(|tx| {
            tx.open_table(REGISTRATIONS)?
                .insert(name, encode(body).as_slice())?;
            log(tx, &format!("registration/{name}"), false)
        })
    }

    /// Removes registrations; those that are not there do not count.
    pub(crate) fn delete_registrations(&self, names: &[String]) -> Result<u64, StoreError> {
        self.write(|tx| {
            let mut table = tx.open_table(REGISTRATIONS)?;
            let mut revision = revision_of(tx)?;
            for name in names {
                if table.remove(name.as_str())?.is_some() {
                    revision = log(tx, &format!("registration/{name}"), true)?;
                }
            }
            Ok(revision)
        })
    }

    /// The changes after a revision.
    pub(crate) fn changes_since(&self, seen: u64) -> Result<Changes, StoreError> {
        let tx = self.database.begin_read()?;
        let revision = tx
            .open_table(META)?
            .get("revision")?
            .map_or(0, |count| count.value());
        let table = tx.open_table(CHANGES)?;
        let oldest = table
            .first()?
            .map_or(revision + 1, |(revision, _)| revision.value());
        if seen + 1 < oldest || seen > revision {
            return Ok(Changes::Reset { revision });
        }
        let list: Result<Vec<_>, StoreError> = table
            .range(seen + 1..)?
            .map(|entry| decode("changes", entry?.1.value()))
            .collect();
        list.map(Changes::List)
    }

    /// Keeps a token by the hash of its secret, and clears away some that have expired.
    pub(crate) fn put_token(
        &self,
        hash: [u8; 32],
        token: &Token,
        now: u64,
    ) -> Result<(), StoreError> {
        self.write(|tx| {
            let mut table = tx.open_table(TOKENS)?;
            let mut ended = Vec::new();
            for entry in table.iter()? {
                let (hash, bytes) = entry?;
                if decode::<Token>("tokens", bytes.value())?.expires_at <= now {
                    ended.push(*hash.value());
                }
                if ended.len() == PRUNED_AT_A_TIME {
                    break;
                }
            }
            for hash in &ended {
                table.remove(hash)?;
            }
            table.insert(&hash, encode(token).as_slice())?;
            Ok(())
        })
    }

    /// Whether a token of this hash would be taken now.
    pub(crate) fn token_is_valid(&self, hash: [u8; 32], now: u64) -> Result<bool, StoreError> {
        let table = self.database.begin_read()?.open_table(TOKENS)?;
        let token = table
            .get(&hash)?
            .map(|bytes| decode::<Token>("tokens", bytes.value()));
        Ok(token
            .transpose()?
            .is_some_and(|token| token.expires_at > now && token.uses_left > 0))
    }

    /// Spends one use of a token, binds its identity to its services, and
    /// records the certificate that `sign` makes: all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError::Token`], or those of `sign`; the token is then not spent.
    pub(crate) fn redeem<T>(
        &self,
        hash: [u8; 32],
        now: u64,
        sign: impl FnOnce(&Token) -> Result<(T, Certificate), StoreError>,
    ) -> Result<T, StoreError> {
        self.write(|tx| {
            let mut tokens = tx.open_table(TOKENS)?;
            let token = tokens
                .get(&hash)?
                .map(|bytes| decode::<Token>("tokens", bytes.value()));
            let mut token = token.transpose()?.ok_or(StoreError::Token)?;
            if token.expires_at <= now || token.uses_left == 0 {
                return Err(StoreError::Token);
            }
            let (issued, certificate) = sign(&token)?;
            token.uses_left -= 1;
            tokens.insert(&hash, encode(&token).as_slice())?;
            let mut bindings = tx.open_table(BINDINGS)?;
            let before = bindings
                .get(token.identity.as_str())?
                .map(|bytes| decode::<Binding>("bindings", bytes.value()));
            let mut binding = before.transpose()?.unwrap_or_default();
            binding.services.extend(token.services);
            binding.services.sort();
            binding.services.dedup();
            bindings.insert(token.identity.as_str(), encode(&binding).as_slice())?;
            insert_certificate(tx, &certificate, now)?;
            Ok(issued)
        })
    }

    /// What an identity may register; nothing if it never attested here.
    pub(crate) fn binding(&self, identity: &str) -> Result<Binding, StoreError> {
        let table = self.database.begin_read()?.open_table(BINDINGS)?;
        let binding = table
            .get(identity)?
            .map(|bytes| decode("bindings", bytes.value()));
        Ok(binding.transpose()?.unwrap_or_default())
    }

    /// Records a certificate, and clears away some that ended long ago.
    pub(crate) fn put_certificate(
        &self,
        certificate: &Certificate,
        now: u64,
    ) -> Result<(), StoreError> {
        self.write(|tx| insert_certificate(tx, certificate, now))
    }

    /// How many certificates are recorded.
    pub(crate) fn certificates(&self) -> Result<u64, StoreError> {
        Ok(self
            .database
            .begin_read()?
            .open_table(CERTIFICATES)?
            .len()?)
    }
}

fn revision_of(tx: &WriteTransaction) -> Result<u64, StoreError> {
    Ok(tx
        .open_table(META)?
        .get("revision")?
        .map_or(0, |count| count.value()))
}

/// Gives a change its revision and writes it to the bounded log.
fn log(tx: &WriteTransaction, key: &str, deleted: bool) -> Result<u64, StoreError> {
    let revision = revision_of(tx)? + 1;
    tx.open_table(META)?.insert("revision", revision)?;
    let mut changes = tx.open_table(CHANGES)?;
    let change = Change {
        revision,
        key: key.to_owned(),
        deleted,
    };
    changes.insert(revision, encode(&change).as_slice())?;
    if let Some(forgotten) = revision.checked_sub(CHANGES_KEPT) {
        changes.remove(forgotten)?;
    }
    Ok(revision)
}

fn insert_certificate(
    tx: &WriteTransaction,
    certificate: &Certificate,
    now: u64,
) -> Result<(), StoreError> {
    let mut table = tx.open_table(CERTIFICATES)?;
    let ended = now.saturating_sub(CERTIFICATES_KEPT_SECONDS);
    for _ in 0..PRUNED_AT_A_TIME {
        match table.first()? {
            Some((key, _)) if key.value().0 < ended => {}
            _ => break,
        }
        table.pop_first()?;
    }
    let key = (certificate.not_after, certificate.serial.as_str());
    table.insert(key, encode(certificate).as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests;
