//! The dynamic table of the side that reads (RFC 7541 §2.3.2): the newest entry first, the oldest
//! pushed out where the sizes together exceed the limit.

use std::collections::VecDeque;

use super::name::Name;
use super::{Field, OVERHEAD};

/// What stands in one place of the table.
#[derive(Debug)]
pub(super) enum Entry {
    Field(Field),
    /// A name, and the octets of the value: of one of them no field can be made. The name itself
    /// may be a proper one, and a later field refer to it.
    Malformed(Name, usize),
}

impl Entry {
    /// The entry of a field that came with this name.
    pub(super) fn new(name: Name, field: &Field) -> Self {
        match field {
            Field::Malformed(_, value) => Self::Malformed(name, *value),
            field => Self::Field(field.clone()),
        }
    }

    /// The field it stands for; otherwise the lengths of what stands for none.
    #[inline]
    pub(super) fn field(&self) -> Result<&Field, Field> {
        match self {
            Self::Field(field) => Ok(field),
            Self::Malformed(name, value) => Err(Field::Malformed(name.len(), *value)),
        }
    }

    /// The name of its field.
    pub(super) fn name(&self) -> Name {
        match self {
            Self::Field(field) => Name::of(field),
            Self::Malformed(name, _) => name.clone(),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Field(field) => field.size(),
            Self::Malformed(name, value) => OVERHEAD + name.len() + value,
        }
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Entries {
    newest_first: VecDeque<Entry>,
    size: usize,
    limit: usize,
}

impl Entries {
    /// An empty one of at most `limit` octets.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            newest_first: VecDeque::new(),
            size: 0,
            limit,
        }
    }

    /// The entry before which `newer` others came in since.
    #[inline]
    pub(super) fn get(&self, newer: usize) -> Option<&Entry> {
        self.newest_first.get(newer)
    }

    /// Takes an entry in; one larger than the table leaves it empty (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, entry: Entry) {
        let size = entry.size();
        self.shrink(self.limit.saturating_sub(size));
        if size <= self.limit {
            self.size += size;
            self.newest_first.push_front(entry);
        }
    }

    /// From now on the table holds at most `limit` octets.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.shrink(limit);
    }

    fn shrink(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.newest_first.pop_back() else {
                return;
            };
            self.size -= oldest.size();
        }
    }

    /// Octets of all entries as §4.1 counts them, and the entries from the newest on.
    #[cfg(test)]
    pub(super) fn contents(&self) -> (usize, Vec<Field>) {
        let field = |entry: &Entry| entry.field().cloned().unwrap_or_else(|malformed| malformed);
        let fields = self.newest_first.iter().map(field).collect();
        (self.size, fields)
    }
}
