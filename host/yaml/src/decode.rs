//! Reads Rust types from a document through serde, and reports every mistake instead of the
//! first: what cannot be read is noted with its place, left out, and the rest is read again.

use std::collections::HashSet;
use std::fmt::{self, Display};

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, Unexpected, Visitor,
};
use serde_yaml::Value;
use serde_yaml::mapping::Iter as MappingIter;

use crate::document::{Document, Part, Path};
use crate::problem::{Problem, Problems, quoted, similar};

/// With so many mistakes it is another file that is meant, or one slip that makes many.
const MOST_PROBLEMS: usize = 50;

/// What was read, and what could not be.
pub struct Decoded<T> {
    /// The value, without what could not be read.
    pub value: T,
    /// What could not be read, and why.
    pub problems: Vec<Problem>,
    /// Where the problems are.
    pub left_out: HashSet<Path>,
}

/// Reads a type whose fields are all optional.
///
/// # Errors
///
/// Where nothing can be read: the document as a whole has the wrong shape, or more is wrong than
/// anybody wants to be told at once.
pub fn decode<T: for<'de> Deserialize<'de>>(document: &Document) -> Result<Decoded<T>, Problems> {
    let mut problems = Vec::new();
    let mut left_out = HashSet::new();
    loop {
        let root = Reader { value: &document.value, path: Path::default(), left_out: &left_out };
        let fault = match T::deserialize(root) {
            Ok(value) => return Ok(Decoded { value, problems, left_out }),
            Err(fault) => fault,
        };
        let path = fault.path.clone().unwrap_or_default();
        problems.push(fault.problem(document));
        // A fault at the root, or one that leaving the value out did not cure, ends it.
        if path.is_root() || !left_out.insert(path) {
            return Err(Problems::some(problems));
        }
        if problems.len() == MOST_PROBLEMS {
            problems.push(
                Problem::new(None, "there is more, which is left out here")
                    .help("mend these first; see that this is the file that you mean"),
            );
            return Err(Problems::some(problems));
        }
    }
}

/// Why a value could not be read.
#[derive(Debug)]
struct Fault {
    path: Option<Path>,
    part: Part,
    what: String,
    help: Option<String>,
}

impl Fault {
    fn new(what: String, help: Option<String>) -> Self {
        Fault { path: None, part: Part::Value, what, help }
    }

    /// Notes where it happened, unless an inner value has done so.
    fn at(mut self, path: &Path, part: Part) -> Self {
        if self.path.is_none() {
            self.path = Some(path.clone());
            self.part = part;
        }
        self
    }

    fn problem(self, document: &Document) -> Problem {
        let path = self.path.unwrap_or_default();
        let message = match (self.part, path.is_root()) {
            (Part::Key, _) | (_, true) => self.what,
            (Part::Value, false) => format!("{path}: {}", self.what),
        };
        Problem { place: document.place(&path, self.part), message, help: self.help }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Fault::new(message.to_string(), None)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = kind(&expected.to_string()).to_owned();
        Fault::new(format!("expected {expected}, found {}", name(found)), None)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Fault::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let help = match similar(variant, expected.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("write {}", quoted(expected.iter().copied())),
        };
        Fault::new(format!("`{variant}` means nothing here"), Some(help))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let help = match similar(field, expected.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the fields here are {}", quoted(expected.iter().copied())),
        };
        Fault::new(format!("unknown field `{field}`"), Some(help))
    }
}

/// serde's words for what it expects, in those of somebody who writes YAML.
fn kind(expected: &str) -> &str {
    match expected {
        // `yes` and `no` were truth values in older YAML, and are text now.
        "a boolean" => "`true` or `false`",
        "a sequence" => "a list",
        "a map" => "a mapping",
        "a string" => "text",
        "u32" | "u64" => "a whole number",
        other => other,
    }
}

/// A value in the words of somebody who writes YAML.
fn name(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Str(value) => format!("`{value}`"),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// A value that is being read.
struct Reader<'a> {
    value: &'a Value,
    path: Path,
    left_out: &'a HashSet<Path>,
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(value) => visitor.visit_str(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), _, _) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (_, _, Some(number)) if number.is_finite() => visitor.visit_f64(number),
                _ => Err(Fault::new(format!("{number} is not a finite number"), None)),
            },
            Value::Sequence(items) => {
                visitor.visit_seq(Items { items: items.iter().enumerate(), inside: self })
            }
            Value::Mapping(fields) => {
                visitor.visit_map(Fields { fields: fields.iter(), next: None, inside: self })
            }
            Value::Tagged(tagged) => Err(Fault::new(
                format!("the tag {} means nothing here", tagged.tag),
                Some("remove it".to_owned()),
            )),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let unquoted = match self.value {
            Value::Bool(value) => value.to_string(),
            Value::Number(value) => value.to_string(),
            _ => return self.deserialize_any(visitor),
        };
        if self.path.is_secret() {
            return Err(Fault::new(
                "expected text".to_owned(),
                Some("put it in quotes".to_owned()),
            ));
        }
        Err(Fault::new(
            format!("expected text, found {unquoted}, which YAML does not read as text"),
            Some(format!("put it in quotes: \"{unquoted}\"")),
        ))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_string(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            // serde would also take the fields' values in their order.
            Value::Sequence(_) => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            Value::String(variant) => visitor.visit_enum(variant.as_str().into_deserializer()),
            _ => Err(Fault::new(format!("expected {}", quoted(variants.iter().copied())), None)),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
    inside: Reader<'a>,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        for (index, value) in self.items.by_ref() {
            let path = self.inside.path.index(index);
            if self.inside.left_out.contains(&path) {
                continue;
            }
            let item = Reader { value, path: path.clone(), left_out: self.inside.left_out };
            return seed.deserialize(item).map(Some).map_err(|fault| fault.at(&path, Part::Value));
        }
        Ok(None)
    }
}

struct Fields<'a> {
    fields: MappingIter<'a>,
    next: Option<(&'a Value, Path)>,
    inside: Reader<'a>,
}

impl<'de> de::MapAccess<'de> for Fields<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        for (key, value) in self.fields.by_ref() {
            let path = self.inside.path.key(&text(key));
            if self.inside.left_out.contains(&path) {
                continue;
            }
            self.next = Some((value, path.clone()));
            let key = Reader { value: key, path: path.clone(), left_out: self.inside.left_out };
            return seed.deserialize(key).map(Some).map_err(|fault| fault.at(&path, Part::Key));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (value, path) = self.next.take().expect("serde asks for a key first");
        let value = Reader { value, path: path.clone(), left_out: self.inside.left_out };
        seed.deserialize(value).map_err(|fault| fault.at(&path, Part::Value))
    }
}

/// A key as it stands in a path.
fn text(key: &Value) -> String {
    match key {
        Value::String(key) => key.clone(),
        Value::Bool(key) => key.to_string(),
        Value::Number(key) => key.to_string(),
        _ => "?".to_owned(),
    }
}
