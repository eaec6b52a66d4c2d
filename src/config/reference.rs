//! The configuration reference, generated from the types: `docs/configuration.md`.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::Config;

/// The reference as Markdown. Keys, defaults and reasons are those of the types, so it can't be wrong.
pub fn markdown() -> String {
    let schema = schemars::schema_for!(Config).to_value();
    // By way of text: an f32 as a `Value` would be 0.800000011920929.
    let defaults =
        serde_json::to_string(&Config::default()).and_then(|text| serde_json::from_str(&text)).unwrap_or_default();
    let definitions = schema.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut text = String::from(
        "# Configuration\n\nGenerated from the types by `TANDEM_BLESS=1 cargo test --test docs`; do not edit.\n\n\
         Defaults, then the file (`TANDEM_CONFIG`, else `config/tandem.toml`), then `NATS_URL` (or `NATS_HOST`, `NATS_PORT`)\n\
         and `DATABASE_URL`, then `TANDEM__SECTION__KEY`. An unknown key is an error that names it. A list in the\n\
         environment is written `a,b`, a table as JSON; an empty variable is as none. `tandem config show` prints what is in force, `tandem config check` what is wrong.\n",
    );
    write_section(&mut text, "", &schema, &defaults, &definitions);
    text
}

fn write_section(text: &mut String, path: &str, schema: &Value, defaults: &Value, definitions: &Map<String, Value>) {
    let Some(properties) = resolve(schema, definitions).get("properties").and_then(Value::as_object).cloned() else {
        return;
    };
    let is_section = |s: &Value| resolve(s, definitions).get("properties").is_some();
    let keys: Vec<(&String, &Value)> = properties.iter().filter(|(_, s)| !is_section(s)).collect();
    if !keys.is_empty() {
        let _ = write!(text, "\n| key | default | meaning |\n|---|---|---|\n");
    }
    for (key, schema) in keys {
        let default = defaults.get(key).map_or_else(String::new, Value::to_string);
        let (key, default) = (format!("{path}{key}"), default.replace('|', "\\|"));
        let variable = format!("TANDEM__{}", key.replace('.', "__").to_uppercase());
        let _ = writeln!(text, "| `{key}`<br>`{variable}` | `{default}` | {} |", meaning(schema, definitions));
    }
    for (key, schema) in properties.iter().filter(|(_, s)| is_section(s)) {
        let path = format!("{path}{key}.");
        let level = "#".repeat(1 + path.matches('.').count());
        let _ = write!(text, "\n{level} {}\n\n{}\n", path.trim_end_matches('.'), description(schema));
        write_section(text, &path, schema, &defaults[key], definitions);
    }
}

fn resolve<'a>(schema: &'a Value, definitions: &'a Map<String, Value>) -> &'a Value {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
    target.and_then(|name| definitions.get(name)).unwrap_or(schema)
}

fn description(schema: &Value) -> String {
    schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What the field says, and the values that an enumeration allows.
fn meaning(schema: &Value, definitions: &Map<String, Value>) -> String {
    let resolved = resolve(schema, definitions);
    let listed = |v: &Value| {
        v.get("const").or_else(|| v.get("enum").and_then(|e| e.get(0))).and_then(Value::as_str).map(str::to_owned)
    };
    let named: Vec<String> = match (resolved.get("enum"), resolved.get("oneOf")) {
        (Some(Value::Array(values)), _) => values.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
        (_, Some(Value::Array(variants))) => variants.iter().filter_map(listed).collect(),
        _ => vec![],
    };
    let mut said = description(schema).replace('\n', " ").replace('|', "\\|");
    if !named.is_empty() {
        let _ = write!(said, " One of: `{}`.", named.join("`, `"));
    }
    said
}
