//! What a structured answer must look like.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Error;

/// As JSON. What providers take at most is less.
const MAX_BYTES: usize = 16 << 10;
const MAX_VALUES: usize = 4_000;
const MAX_PATTERNS: usize = 32;
/// Of one compiled pattern: some classes of Unicode fit, their repetition by the dozen does not.
const MAX_PATTERN_BYTES: usize = 256 << 10;
/// Values, with what each reference stands for in its place: references that double make a few lines endless.
const MAX_EXPANDED: u64 = 10_000;
/// Values within values, through references.
const MAX_DEPTH: usize = 256;

/// A JSON Schema, built once. Clones share it.
#[derive(Clone)]
pub struct Schema(Arc<Inner>);

struct Inner {
    schema: Value,
    /// As it is sent.
    json: Box<RawValue>,
    built: OnceLock<Result<Validator, String>>,
    is_strict: bool,
}

impl Schema {
    /// Names what is wrong with the schema. One that points outside itself is refused: nothing is fetched. So is one that
    /// is too large, or points to itself: it is a stranger's, and neither building nor checking may take long.
    pub fn new(schema: &Value) -> Result<Self, Error> {
        let schema = Self::read(schema.clone())?;
        schema.build()?;
        Ok(schema)
    }

    /// Only what is cheap: its size. It must be [built](Self::build) off the asynchronous threads.
    pub(crate) fn read(schema: Value) -> Result<Self, Error> {
        if !schema.is_object() {
            return Err(wrong("it is no JSON object"));
        }
        let json = serde_json::value::to_raw_value(&schema).map_err(|error| wrong(&error.to_string()))?;
        if json.get().len() > MAX_BYTES {
            return Err(wrong(&format!("it has {} bytes; at most {MAX_BYTES} are allowed", json.get().len())));
        }
        bounded(&schema).map_err(|problem| wrong(&problem))?;
        let is_strict = is_strict(&schema);
        Ok(Self(Arc::new(Inner { schema, json, built: OnceLock::new(), is_strict })))
    }

    /// [`Self::read`] of a schema as JSON.
    pub(crate) fn parse(json: &str) -> Result<Self, Error> {
        Self::read(serde_json::from_str(json).map_err(|error| wrong(&error.to_string()))?)
    }

    /// Takes up to some milliseconds a pattern, the first time.
    pub(crate) fn build(&self) -> Result<(), Error> {
        self.validator().map(|_| ()).map_err(wrong)
    }

    pub(super) fn json(&self) -> &RawValue {
        &self.0.json
    }

    /// Whether OpenAI takes it in strict mode: every object is closed and all its fields are required.
    pub(super) fn is_strict(&self) -> bool {
        self.0.is_strict
    }

    /// Where and how a text does not fit. The text itself is not quoted: it may be anything. It takes as long as the text
    /// and the schema are large: not for an asynchronous thread.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        let Ok(value) = serde_json::from_str::<Value>(text) else { return Err("it is no JSON".to_owned()) };
        self.validator()?.validate(&value).map_err(|error| {
            let at = error.instance_path().to_string();
            let (at, rule) = (if at.is_empty() { "/" } else { &at }, error.schema_path().to_string());
            format!("{at} breaks the rule {rule}").chars().take(300).collect()
        })
    }

    fn validator(&self) -> Result<&Validator, &str> {
        let built = self.0.built.get_or_init(|| {
            // The engine that never backtracks.
            let patterns = PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES);
            let options = jsonschema::options().with_pattern_options(patterns);
            options.build(&self.0.schema).map_err(|error| error.to_string())
        });
        built.as_ref().map_err(String::as_str)
    }
}

fn wrong(problem: &str) -> Error {
    Error::Schema { problem: problem.chars().take(300).collect() }
}

/// Says why building or checking the schema could take long. What stands in `const` or `enum` is read as if it were schema:
/// too much is counted, never too little.
fn bounded(schema: &Value) -> Result<(), String> {
    let old = schema.get("$schema").and_then(Value::as_str).is_some_and(|draft| draft.contains("draft-04"));
    let (mut values, mut patterns, mut open) = (0, 0, vec![schema]);
    while let Some(value) = open.pop() {
        values += 1;
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(map) => {
                patterns += usize::from(map.get("pattern").is_some_and(Value::is_string));
                patterns += map.get("patternProperties").and_then(Value::as_object).map_or(0, serde_json::Map::len);
                let says = |name: &str| map.get(name).is_some_and(Value::is_string);
                let moves = says("$id") || (old && says("id"));
                if says("$dynamicRef") || says("$recursiveRef") || (moves && !std::ptr::eq(value, schema)) {
                    return Err("$dynamicRef, $recursiveRef and an inner $id are not taken".to_owned());
                }
                open.extend(map.values());
            }
            _ => {}
        }
    }
    if values > MAX_VALUES {
        return Err(format!("it has {values} values; at most {MAX_VALUES} are allowed"));
    }
    if patterns > MAX_PATTERNS {
        return Err(format!("it has {patterns} patterns; at most {MAX_PATTERNS} are allowed"));
    }
    let expanded = Expansion { schema, known: HashMap::new() }.of(schema, 0)?;
    if expanded.values > MAX_EXPANDED {
        return Err(format!("with its references it comes to more than {MAX_EXPANDED} values"));
    }
    Ok(())
}

/// How large a schema is with what each reference stands for in its place.
struct Expansion<'a> {
    schema: &'a Value,
    /// By where a value is in memory; `None` while it is being counted.
    known: HashMap<*const Value, Option<Extent>>,
}

#[derive(Clone, Copy)]
struct Extent {
    values: u64,
    depth: usize,
}

impl<'a> Expansion<'a> {
    fn of(&mut self, value: &'a Value, above: usize) -> Result<Extent, String> {
        match self.known.get(&std::ptr::from_ref(value)) {
            Some(Some(known)) if above + known.depth <= MAX_DEPTH => return Ok(*known),
            Some(None) => return Err("it refers to itself".to_owned()),
            _ if above >= MAX_DEPTH => return Err(format!("it is more than {MAX_DEPTH} values deep")),
            _ => {}
        }
        self.known.insert(value, None);
        let mut inner: Vec<&Value> = match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => vec![],
        };
        if let Some(to) = value.get("$ref").and_then(Value::as_str) {
            inner.push(self.target(to)?);
        }
        let mut extent = Extent { values: 1, depth: 1 };
        for value in inner {
            let found = self.of(value, above + 1)?;
            extent.values = extent.values.saturating_add(found.values);
            extent.depth = extent.depth.max(found.depth + 1);
        }
        self.known.insert(value, Some(extent));
        Ok(extent)
    }

    fn target(&self, reference: &str) -> Result<&'a Value, String> {
        let within = reference.strip_prefix('#').filter(|pointer| !pointer.contains('%'));
        let target = within.and_then(|pointer| self.schema.pointer(pointer));
        target.ok_or_else(|| "a $ref must point to a place in the schema itself, as in #/$defs/name".to_owned())
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

    #[test]
    fn a_schema_that_would_take_long_to_build_or_to_check_is_refused_soon() {
        let begun = std::time::Instant::now();
        let doubling = |of: &dyn Fn(usize) -> Value| {
            let mut defs = serde_json::Map::new();
            (0..40).for_each(|n| drop(defs.insert(format!("d{n}"), of(n + 1))));
            defs.insert("d40".to_owned(), json!({"type": "string"}));
            json!({"$defs": defs, "$ref": "#/$defs/d0"})
        };
        let next = |n: usize| json!({"$ref": format!("#/$defs/d{n}")});
        let patterns: Vec<Value> = (0..33).map(|n| json!({"pattern": format!("^{n}")})).collect();
        for (bad, why) in [
            (doubling(&|n| json!({"allOf": [next(n), next(n)]})), "10000 values"),
            (doubling(&|n| json!({"properties": {"a": next(n), "b": next(n)}})), "10000 values"),
            (json!({"allOf": [{"$ref": "#"}]}), "refers to itself"),
            (json!({"items": {"$dynamicRef": "#"}}), "not taken"),
            (json!({"properties": {"a": {"$id": "x:y", "$ref": "#"}}}), "not taken"),
            (json!({"$ref": "#name", "$defs": {"a": {"$anchor": "name"}}}), "must point"),
            (json!({"description": "x".repeat(MAX_BYTES)}), "bytes"),
            (json!({"enum": vec![1; MAX_VALUES]}), "values"),
            (json!({"anyOf": patterns}), "patterns"),
            (json!({"pattern": r"\p{L}{50}"}), "regex"),
        ] {
            let said = Schema::new(&bad).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
        let good = json!({"$id": "https://example.com/x", "type": "object", "$defs": {"name": {"pattern": r"^\p{L}+$"}},
            "properties": {"a": {"$ref": "#/$defs/name"}, "b": {"$ref": "#/$defs/name"}}});
        assert_eq!(Schema::new(&good).unwrap().check(r#"{"a": "x", "b": "y"}"#), Ok(()));
    }
}
