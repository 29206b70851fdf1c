//! A tree of nodes to any type that serde can fill. Knows at every step the
//! path and the place, reports every unknown key of a mapping (whatever the
//! type says of unknown keys), and phrases refusals for people. Refuses to
//! know YAML and the types.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, Expected, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::nearest::nearest;
use crate::yaml::{Entry, Kind, Node, Value};

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

/// Why a node was not taken.
#[derive(Debug)]
struct Refusal {
    message: String,
    help: Option<String>,
    /// The key of the mapping at hand that is meant.
    key: Option<String>,
    place: Option<(String, Span)>,
}

impl Refusal {
    fn new(message: String, help: Option<String>) -> Self {
        Self {
            message,
            help,
            key: None,
            place: None,
        }
    }

    fn unknown_key(name: &str, known: &[&str]) -> Self {
        let help = advise(name, known, "known here");
        let key = Some(name.to_owned());
        Self {
            key,
            ..Self::new(format!("unknown key `{name}`"), help)
        }
    }

    /// The innermost place wins.
    fn at(mut self, node: &Node, path: &Path<'_>) -> Self {
        if self.place.is_none() {
            let entry = self.key.take().and_then(|key| node.entry(&key));
            self.place = Some(match entry {
                Some(entry) => (Path::Key(path, &entry.key).to_string(), entry.span),
                None => (path.to_string(), node.span),
            });
        }
        self
    }

    fn into_diagnostic(self, source: &Source, root: &Node) -> Diagnostic {
        let (path, span) = self.place.unwrap_or_else(|| (String::new(), root.span));
        Diagnostic::error(&source.place(span), path, self.message).with_help(self.help)
    }
}

/// "did you mean" the nearest, else the list of what there is.
fn advise(name: &str, known: &[&str], caption: &str) -> Option<String> {
    match nearest(name, known.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if known.is_empty() => None,
        None => {
            let list: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            Some(format!("{caption}: {}", list.join(", ")))
        }
    }
}

/// What a visitor expected, in the words of the file rather than of Rust.
fn expectation(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    let words = match text.as_str() {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number, which may be negative",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "a mapping",
        "a string" => "text",
        "a boolean" => "true or false",
        other if other.starts_with("struct ") => "a mapping",
        other if other.starts_with("enum ") => "one of the known words",
        other => other,
    };
    words.to_owned()
}

fn encounter(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("`{value}`"),
        Unexpected::Signed(value) => format!("`{value}`"),
        Unexpected::Float(value) => format!("`{value}`"),
        Unexpected::Str(value) => format!("`{}`", value.chars().take(80).collect::<String>()),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), None)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(
            format!(
                "expected {}, found {}",
                expectation(expected),
                encounter(&found)
            ),
            None,
        )
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(
            format!("unknown value `{variant}`"),
            advise(variant, expected, "known here"),
        )
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown_key(field, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"), None)
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
                    let help = advise("", variants, "known here");
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
            .map_err(|mut refusal| {
                refusal.key = Some(entry.key.clone());
                refusal.at(self.decoder.node, self.decoder.path)
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

/// A key is text, and whatever that text can be parsed as where a number is asked for.
struct Key<'n>(&'n str);

macro_rules! parsed_keys {
    ($($method:ident $visit:ident $number:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            match self.0.parse::<$number>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => visitor.visit_str(self.0),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Key<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_str(self.0)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        StrDeserializer::new(self.0).deserialize_enum(name, variants, visitor)
    }

    parsed_keys! {
        deserialize_bool visit_bool bool;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
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
            Err(mut refusal) => {
                refusal.key = Some(self.name.to_owned());
                Err(refusal)
            }
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
