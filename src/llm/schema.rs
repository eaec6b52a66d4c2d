//! What a structured answer must look like.

use std::fmt;
use std::sync::Arc;

use jsonschema::Validator;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Error;

/// A JSON Schema, checked once. Clones share it.
#[derive(Clone)]
pub struct Schema(Arc<Inner>);

struct Inner {
    /// As it is sent.
    json: Box<RawValue>,
    validator: Validator,
    is_strict: bool,
}

impl Schema {
    /// Names what is wrong with the schema. One that points outside itself is refused: nothing is fetched.
    pub fn new(schema: &Value) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Schema { problem: problem.chars().take(300).collect() };
        if !schema.is_object() {
            return Err(wrong("it is no JSON object".to_owned()));
        }
        let validator = jsonschema::validator_for(schema).map_err(|error| wrong(error.to_string()))?;
        let json = serde_json::value::to_raw_value(schema).map_err(|error| wrong(error.to_string()))?;
        Ok(Self(Arc::new(Inner { json, validator, is_strict: is_strict(schema) })))
    }

    pub(super) fn json(&self) -> &RawValue {
        &self.0.json
    }

    /// Whether OpenAI takes it in strict mode: every object is closed and all its fields are required.
    pub(super) fn is_strict(&self) -> bool {
        self.0.is_strict
    }

    /// Where and how a text does not fit. The text itself is not quoted: it may be anything.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        let Ok(value) = serde_json::from_str::<Value>(text) else { return Err("it is no JSON".to_owned()) };
        match self.0.validator.iter_errors(&value).next() {
            None => Ok(()),
            Some(error) => {
                let at = error.instance_path().to_string();
                let (at, rule) = (if at.is_empty() { "/" } else { &at }, error.schema_path().to_string());
                Err(format!("{at} breaks the rule {rule}").chars().take(300).collect())
            }
        }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema(..)")
    }
}

fn is_strict(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            let closed = match (map.get("properties").and_then(Value::as_object), map.get("type")) {
                (Some(properties), _) => {
                    let required = map.get("required").and_then(Value::as_array);
                    let is_required = |name: &String| {
                        required.is_some_and(|required| required.iter().any(|r| r.as_str() == Some(name)))
                    };
                    map.get("additionalProperties") == Some(&Value::Bool(false)) && properties.keys().all(is_required)
                }
                (None, Some(kind)) => kind != "object",
                (None, None) => true,
            };
            closed && map.values().all(is_strict)
        }
        Value::Array(items) => items.iter().all(is_strict),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_fits_or_the_place_is_named() {
        let schema = Schema::new(&json!({"type": "object", "properties": {"n": {"type": "integer"}},
            "required": ["n"], "additionalProperties": false}))
        .unwrap();
        assert!(schema.is_strict());
        assert_eq!(schema.check(r#"{"n": 3}"#), Ok(()));
        assert!(schema.check(r#"{"n": "secret"}"#).unwrap_err().contains("/n"));
        assert!(!schema.check(r#"{"n": "secret"}"#).unwrap_err().contains("secret"));
        assert!(schema.check("{}").is_err() && schema.check("no").is_err());
    }

    #[test]
    fn what_is_no_schema_is_refused_and_nothing_is_fetched() {
        for bad in [
            json!([]),
            json!({"type": 5}),
            json!({"$ref": "https://example.com/x"}),
            json!({"$ref": "file:///etc/passwd"}),
        ] {
            assert!(matches!(Schema::new(&bad), Err(Error::Schema { .. })), "{bad}");
        }
        let open = Schema::new(&json!({"type": "object", "properties": {"a": {"type": "object"}}})).unwrap();
        assert!(!open.is_strict());
    }
}
