//! Reads an object field by field, so that every complaint can name its field.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Code, Refusal};

/// How much of a sender's words may come back in a message, in characters.
const ECHO: usize = 40;

/// The pattern of a text that [`text`] takes, for schemas: no control characters but line feed, carriage return and tab.
pub(super) const PLAIN: &str = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$";
/// The same, for a text that is [`not_blank`].
pub(super) const SAYS: &str = concat!(
    r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*",
    r"[^\s\x00-\x1f\x7f-\x9f]",
    r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
);
/// The pattern of an id, as `domain` reads it.
pub(super) const ID: &str = "^[A-Za-z0-9_-]{1,64}$";

/// A JSON object whose fields are taken out one by one. `null` is the same as absent.
pub(super) struct Fields {
    /// Where the object stands: empty, or `context.` with its dot.
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Reads a body. `hint` says what to send instead of nothing.
    pub(super) fn parse(body: &[u8], hint: &str) -> Result<Self, Refusal> {
        let bad = |message: String| Err(Refusal::new(Code::InvalidJson, message));
        if body.iter().all(u8::is_ascii_whitespace) {
            return bad(format!("the body is empty; send {hint}"));
        }
        if let Err(error) = std::str::from_utf8(body) {
            let at = error.valid_up_to();
            return bad(format!("the body is not UTF-8: byte {at} is 0x{:02x}", body[at]));
        }
        // Depth is bounded by the parser (128), so that a tower of brackets is an error and no crash.
        match serde_json::from_slice(body) {
            Ok(Body::Object { twice: Some(name), .. }) => {
                let mut refusal = Refusal::new(
                    Code::InvalidJson,
                    format!("the field '{}' stands twice; which one is meant?", short(&name)),
                );
                refusal.field = (short(&name) == name).then_some(name);
                Err(refusal)
            }
            Ok(Body::Object { map, .. }) => Ok(Self { path: String::new(), map }),
            Ok(Body::Other(kind)) => bad(format!("the body is {kind}; send {hint}")),
            Err(error) => bad(format!("the body is no JSON: {error}")),
        }
    }

    /// The same object as part of something: its complaints say where it stands.
    pub(super) fn within(self, name: &str) -> Self {
        Self { path: format!("{name}."), ..self }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// A text without control characters; it may be blank.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        self.take(name).map(|value| text(value, &self.path(name))).transpose()
    }

    /// A text that must be there and say something.
    pub(super) fn needed_text(&mut self, name: &str) -> Result<String, Refusal> {
        let path = self.path(name);
        let found = self.text(name)?;
        let found = found.ok_or_else(|| {
            Refusal::at(Code::MissingField, &path, format!("the field '{path}' is missing; it must be a string"))
        })?;
        not_blank(&found, &path)?;
        Ok(found)
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, Refusal> {
        let path = self.path(name);
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { path: format!("{path}."), map })),
            Some(other) => Err(wrong_type(&path, "an object", &other)),
        }
    }

    pub(super) fn list(&mut self, name: &str) -> Result<Vec<(String, Value)>, Refusal> {
        let path = self.path(name);
        match self.take(name) {
            None => Ok(vec![]),
            Some(Value::Array(items)) => {
                Ok(items.into_iter().enumerate().map(|(i, item)| (format!("{path}[{i}]"), item)).collect())
            }
            Some(other) => Err(wrong_type(&path, "a list", &other)),
        }
    }

    /// Where an answer has no place for notes, a misspelt field is refused.
    pub(super) fn nothing_else(self) -> Result<(), Refusal> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => {
                let (name, path) = (quoted(name), &self.path);
                let field = format!("{path}{}", name.trim_matches('"'));
                Err(Refusal::at(Code::InvalidField, field, format!("the field {name} is not known here")))
            }
        }
    }

    /// What nobody took, with the names as they stand in the object.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.map
    }
}

/// What a body may be. Its own reader, because a `Value` keeps the last of several fields of one name without a word.
enum Body {
    Object { map: Map<String, Value>, twice: Option<String> },
    Other(&'static str),
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Body, A::Error> {
        let (mut map, mut twice) = (Map::new(), None);
        while let Some((name, value)) = fields.next_entry::<String, Value>()? {
            if map.contains_key(&name) {
                twice.get_or_insert_with(|| name.clone());
            }
            map.insert(name, value);
        }
        Ok(Body::Object { map, twice })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Body, A::Error> {
        while items.next_element::<Value>()?.is_some() {}
        Ok(Body::Other(kind(&Value::Array(vec![]))))
    }

    fn visit_str<E>(self, _: &str) -> Result<Body, E> {
        Ok(Body::Other(kind(&Value::String(String::new()))))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Body, E> {
        Ok(Body::Other(kind(&Value::Bool(true))))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Body, E> {
        Ok(Body::Other(kind(&Value::from(0))))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Body, E> {
        Ok(Body::Other(kind(&Value::from(0))))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Body, E> {
        Ok(Body::Other(kind(&Value::from(0))))
    }

    fn visit_unit<E>(self) -> Result<Body, E> {
        Ok(Body::Other(kind(&Value::Null)))
    }
}

/// An item of a list as an object.
pub(super) fn item_object(path: String, item: Value) -> Result<Fields, Refusal> {
    match item {
        Value::Object(map) => Ok(Fields { path: format!("{path}."), map }),
        other => Err(wrong_type(&path, "an object", &other)),
    }
}

pub(super) fn text(value: Value, path: &str) -> Result<String, Refusal> {
    let Value::String(text) = value else { return Err(wrong_type(path, "a string", &value)) };
    if let Some((at, found)) =
        text.chars().enumerate().find(|(_, c)| c.is_control() && !matches!(c, '\n' | '\t' | '\r'))
    {
        let name = if found == '\0' { " (NUL)" } else { "" };
        return Err(Refusal::at(
            Code::InvalidField,
            path,
            format!(
                "character {} of '{path}' is the control character U+{:04X}{name}; take it out (only line feed, carriage return and tab are allowed)",
                at + 1,
                u32::from(found)
            ),
        ));
    }
    Ok(text)
}

pub(super) fn not_blank(text: &str, path: &str) -> Result<(), Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::at(Code::InvalidField, path, format!("'{path}' must not be blank")));
    }
    Ok(())
}

pub(super) fn wrong_type(path: &str, wanted: &str, found: &Value) -> Refusal {
    Refusal::at(Code::InvalidField, path, format!("'{path}' must be {wanted}, not {}", kind(found)))
}

/// A sender's own word for a message, short and quoted.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", short(text))
}

fn short(text: &str) -> String {
    let mut start: String = text.chars().take(ECHO).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
