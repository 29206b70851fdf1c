//! A tree of nodes to any type that serde can fill. Knows at every step the
//! path and the place, reports every unknown key of a mapping (whatever the
//! type says of unknown keys), and phrases refusals for people. Refuses to
//! know YAML and the types.

mod key;
mod refusal;

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, Expected, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::diagnostic::{Diagnostics, Source};
use crate::yaml::{Entry, Kind, Node, Value};
use key::Key;
use refusal::{Refusal, advise};

/// Decodes a node, or says all that is wrong with it as far as that can be told.
pub(crate) fn decode<T: DeserializeOwned>(source: &Source, node: &Node) -> Result<T, Diagnostics> {
    let found = RefCell::new(Vec::new());
    let root = Decoder {
        node,
        path: &Path::Root,
        found: &found,
    };
    let decoded = T::deserialize(root).map_err(|refusal| refusal.at(node, &Path::Root));
    let mut found = found.into_inner();
    let value = match decoded {
        Ok(value) => Some(value),
        Err(refusal) => {
            found.push(refusal);
            None
        }
    };
    match value {
        Some(value) if found.is_empty() => Ok(value),
        _ => {
            let mut diagnostics = Diagnostics::default();
            for refusal in found {
                diagnostics.push(refusal.into_diagnostic(source, node));
            }
            Err(diagnostics)
        }
    }
}

/// Where in the tree a decoder is. Kept on the stack.
enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Decoder<'n> {
    node: &'n Node,
    path: &'n Path<'n>,
    found: &'n RefCell<Vec<Refusal>>,
}

impl<'n> Decoder<'n> {
    fn found(self) -> Unexpected<'n> {
        match &self.node.value {
            Value::Null => Unexpected::Unit,
            Value::Scalar { kind, text } => match *kind {
                Kind::Bool(value) => Unexpected::Bool(value),
                Kind::Unsigned(value) => Unexpected::Unsigned(value),
                Kind::Signed(value) => Unexpected::Signed(value),
                Kind::Float(value) => Unexpected::Float(value),
                Kind::Text => Unexpected::Str(text),
            },
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        }
    }

    fn refuse(self, expected: &dyn Expected) -> Refusal {
        de::Error::invalid_type(self.found(), expected)
    }

    fn entries(self, entries: &'n [Entry], fields: Option<&'static [&'static str]>) -> Entries<'n> {
        Entries {
            decoder: self,
            rest: entries.iter(),
            value: None,
            fields,
        }
    }
}

impl<'de> de::Deserializer<'de> for Decoder<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Scalar { kind, text } => match *kind {
                Kind::Bool(value) => visitor.visit_bool(value),
                Kind::Unsigned(value) => visitor.visit_u64(value),
                Kind::Signed(value) => visitor.visit_i64(value),
                Kind::Float(value) => visitor.visit_f64(value),
                Kind::Text => visitor.visit_str(text),
            },
            Value::List(nodes) => visitor.visit_seq(Items {
                decoder: self,
                nodes,
                next: 0,
            }),
            Value::Map(entries) => visitor.visit_map(self.entries(entries, None)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.node.value {
            Value::Scalar { text, .. } => visitor.visit_str(text),
            _ => Err(self.refuse(&visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let entries = match &self.node.value {
            Value::Map(entries) => entries.as_slice(),
            // A key that ends with its colon: a mapping with nothing in it.
            Value::Null => &[],
            _ => return Err(self.refuse(&visitor)),
        };
        let unknown = entries
            .iter()
            .filter(|entry| !fields.contains(&entry.key.as_str()));
        self.found.borrow_mut().extend(
            unknown.map(|entry| Refusal::unknown_key(&entry.key, fields).at(self.node, self.path)),
        );
        visitor.visit_map(self.entries(entries, Some(fields)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match &self.node.value {
            Value::Scalar { text, .. } => visitor.visit_enum(Choice {
                name: text,
                content: None,
                decoder: self,
            }),
            Value::Map(entries) => match entries.as_slice() {
                [entry] => visitor.visit_enum(Choice {
                    name: &entry.key,
                    content: Some(&entry.node),
                    decoder: self,
                }),
                _ => {
                    let help = advise("", variants);
                    Err(Refusal::new(
                        "expected a mapping of exactly one key".to_owned(),
                        help,
                    ))
                }
            },
            _ => Err(self.refuse(&visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 bytes byte_buf unit unit_struct seq
        tuple tuple_struct map
    }
}

struct Items<'n> {
    decoder: Decoder<'n>,
    nodes: &'n [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refusal> {
        let Some(node) = self.nodes.get(self.next) else {
            return Ok(None);
        };
        let path = Path::Index(self.decoder.path, self.next);
        self.next += 1;
        let decoder = Decoder {
            node,
            path: &path,
            found: self.decoder.found,
        };
        seed.deserialize(decoder)
            .map(Some)
            .map_err(|refusal| refusal.at(node, &path))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.nodes.len() - self.next)
    }
}

struct Entries<'n> {
    decoder: Decoder<'n>,
    rest: std::slice::Iter<'n, Entry>,
    value: Option<&'n Entry>,
    fields: Option<&'static [&'static str]>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refusal> {
        let entry = self.rest.find(|entry| {
            self.fields
                .is_none_or(|fields| fields.contains(&entry.key.as_str()))
        });
        let Some(entry) = entry else { return Ok(None) };
        self.value = Some(entry);
        seed.deserialize(Key(&entry.key))
            .map(Some)
            .map_err(|refusal| {
                refusal
                    .about_key(&entry.key)
                    .at(self.decoder.node, self.decoder.path)
            })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Refusal> {
        let Some(entry) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let path = Path::Key(self.decoder.path, &entry.key);
        let decoder = Decoder {
            node: &entry.node,
            path: &path,
            found: self.decoder.found,
        };
        seed.deserialize(decoder)
            .map_err(|refusal| refusal.at(&entry.node, &path))
    }
}

/// A word, or a mapping of one key.
struct Choice<'n> {
    name: &'n str,
    content: Option<&'n Node>,
    decoder: Decoder<'n>,
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Refusal> {
        let name = seed.deserialize(StrDeserializer::<Refusal>::new(self.name));
        match name {
            Ok(name) => Ok((name, self)),
            Err(refusal) => Err(refusal.about_key(self.name)),
        }
    }
}

impl Choice<'_> {
    fn within<T>(
        &self,
        then: impl FnOnce(Decoder<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let Some(node) = self.content else {
            let message = format!("`{}` needs a value: write it as a mapping", self.name);
            return Err(Refusal::new(message, None));
        };
        let path = Path::Key(self.decoder.path, self.name);
        let decoder = Decoder {
            node,
            path: &path,
            found: self.decoder.found,
        };
        then(decoder).map_err(|refusal| refusal.at(node, &path))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        match self.content.map(|node| &node.value) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Map(entries)) if entries.is_empty() => Ok(()),
            Some(_) => Err(Refusal::new(
                format!("`{}` takes no value", self.name),
                None,
            )),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refusal> {
        self.within(|decoder| seed.deserialize(decoder))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.within(|decoder| de::Deserializer::deserialize_seq(decoder, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.within(|decoder| de::Deserializer::deserialize_struct(decoder, "", fields, visitor))
    }
}
