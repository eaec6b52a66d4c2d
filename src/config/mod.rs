//! One typed tree out of defaults, file and environment. Read once, at start; every wrong or unknown key is named.

mod paths;
pub mod reference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use paths::Paths;

use crate::coordinator::agent;
use crate::llm::{Credentials, Key};
use crate::{bus, cache, embed, http, llm, pipeline, store, telemetry, workflow};

/// Everything that can be set. A key `section.key` of the file is `TANDEM__SECTION__KEY` in the environment.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The bus. `NATS_URL`, or `NATS_HOST` and `NATS_PORT`, set `nats.urls`; the variables of the `nats` command line set
    /// who logs in and with which certificates.
    pub nats: bus::Options,
    /// Where everything is kept. `DATABASE_URL` sets `database.url`.
    pub database: store::Options,
    /// How executions are written down.
    pub recording: store::RecorderOptions,
    /// What holds for every request.
    pub requests: pipeline::Options,
    /// The semantic cache.
    pub cache: cache::Options,
    /// The local embedding model.
    pub embedding: embed::Options,
    /// Rules: when they are sure, and how templates are chosen.
    pub agent: agent::Options,
    /// A user's own templates.
    pub templates: Templates,
    /// Models.
    pub llm: llm::Options,
    /// Workflows: what this worker does of them, and within which bounds.
    pub workflow: workflow::Options,
    /// Log lines.
    pub log: telemetry::Options,
    /// Traces for an OpenTelemetry collector; off by default.
    pub telemetry: telemetry::trace::Options,
    /// The page for operators: health, readiness, metrics.
    pub http: http::Options,
    /// What is deleted after which time.
    pub retention: store::RetentionOptions,
}

/// Where a user's own templates lie.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Templates {
    /// Every `.jinja` file below it is a template. Empty: only those in the binary.
    pub folder: String,
    /// How often the folder is looked at for changes, in milliseconds. 0: only at start.
    pub reload_ms: u64,
}

impl Default for Templates {
    fn default() -> Self {
        Self { folder: String::new(), reload_ms: 2_000 }
    }
}

impl Templates {
    pub fn folder(&self) -> Option<&Path> {
        (!self.folder.is_empty()).then(|| Path::new(&self.folder))
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the configuration file {} is not there; TANDEM_CONFIG names it", path.display())]
    Missing { path: PathBuf },
    /// The message names the key, and the file or variable that it came from.
    #[error("configuration: {message}")]
    Wrong { message: String },
}

/// The process's environment as a list, so that tests bring their own.
pub type Variables = std::collections::HashMap<String, String>;

/// Reads the process's environment. Values that are not UTF-8 are left out: no key takes them.
pub fn variables() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Config {
    /// Defaults, then the file, then the source's variables (`NATS_URL`, `DATABASE_URL`, …), then `TANDEM__…`.
    pub fn load(variables: &Variables) -> Result<Self, Error> {
        let wrong = |error: config::ConfigError| Error::Wrong { message: without_secrets(&error.to_string()) };
        let mut config: Self = gather(variables)?.try_deserialize().map_err(wrong)?;
        if let Some(text) = set(variables, PRICES) {
            config.llm.prices.extend(table("llm.prices", PRICES, text)?);
        }
        if let Some(text) = set(variables, LIMITS) {
            config.llm.limits.extend(table("llm.limits", LIMITS, text)?);
        }
        // The names in variables have no case, and tenants' have: a budget must not be another tenant's.
        if let Some(name) = variables.keys().find(|name| name.starts_with(&format!("{TENANT_BUDGETS}__"))) {
            let message = format!("{name}: write {TENANT_BUDGETS} as JSON: {{\"acme\": {{\"per_day_usd\": 1}}}}");
            return Err(Error::Wrong { message });
        }
        if let Some(text) = set(variables, TENANT_BUDGETS) {
            config.llm.budget.tenants.extend(table("llm.budget.tenants", TENANT_BUDGETS, text)?);
        }
        if config.database.url.is_empty() {
            config.database.url = format!("sqlite://{}", Paths::new(variables).data.join("tandem.db").display());
        }
        config.check()?;
        Ok(config)
    }

    /// Whether the environment or the file says where the NATS server is.
    pub fn names_server(variables: &Variables) -> Result<bool, Error> {
        Ok(gather(variables)?.get::<config::Value>("nats.urls").is_ok())
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::Wrong { message });
        let share = |value: f64| (0.0..=1.0).contains(&value);
        if !share(self.agent.max_unknown_share) {
            return wrong(format!("agent.max_unknown_share: {} is not between 0 and 1", self.agent.max_unknown_share));
        }
        if !share(self.agent.choice.explore) || !share(self.agent.choice.near) {
            return wrong("agent.choice: explore and near are shares between 0 and 1".to_owned());
        }
        if let Some(folder) = self.templates.folder().filter(|f| !f.is_dir()) {
            return wrong(format!("templates.folder: {} is no folder", folder.display()));
        }
        if let Err(message) = self.workflow.check() {
            return wrong(message);
        }
        self.nats.check().map_err(|e| Error::Wrong { message: e.to_string() })
    }
}

/// Defaults are in the types; this is the file, then the source's variables, then `TANDEM__…`.
fn gather(variables: &Variables) -> Result<config::Config, Error> {
    let wrong = |error: config::ConfigError| Error::Wrong { message: without_secrets(&error.to_string()) };
    let mut builder = config::Config::builder();
    match variables.get("TANDEM_CONFIG").filter(|p| !p.is_empty()).map(PathBuf::from) {
        Some(path) if !path.is_file() => return Err(Error::Missing { path }),
        Some(path) => builder = builder.add_source(File::from(path).format(FileFormat::Toml)),
        None => builder = builder.add_source(File::new("config/tandem.toml", FileFormat::Toml).required(false)),
    }
    if let Some(url) = nats_url(variables) {
        builder = builder.set_override("nats.urls", vec![url]).map_err(wrong)?;
    }
    if let Some(url) = variables.get("DATABASE_URL").filter(|u| !u.is_empty()) {
        builder = builder.set_override("database.url", url.as_str()).map_err(wrong)?;
    }
    let telemetry =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"), ("OTEL_SERVICE_NAME", "telemetry.service_name")];
    for (name, key) in NATS.into_iter().chain(telemetry) {
        if let Some(text) = set(variables, name) {
            builder = builder.set_override(key, text).map_err(wrong)?;
        }
    }
    for (key, value) in overrides(variables) {
        builder = builder.set_override(&key, value).map_err(wrong)?;
    }
    builder.build().map_err(wrong)
}

/// An error of the reader without the line of the file that it shows, and without an address that stands at a wrong
/// place: either may hold a password.
fn without_secrets(message: &str) -> String {
    let shows = |line: &&str| line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|');
    let text: Vec<&str> = message.lines().filter(|line| !shows(line)).collect();
    let text = text.join("; ");
    match (text.find("string \""), text.rfind("\", expected")) {
        (Some(from), Some(to)) if text[from..to].contains("://") => {
            format!("{}string{}", &text[..from], &text[to + 1..])
        }
        _ => text,
    }
}

/// As the `nats` command line names them.
const NATS: [(&str, &str); 8] = [
    ("NATS_CREDS", "nats.credentials_file"),
    ("NATS_NKEY", "nats.nkey_seed_file"),
    ("NATS_USER", "nats.user"),
    ("NATS_PASSWORD", "nats.password"),
    ("NATS_TOKEN", "nats.token"),
    ("NATS_CA", "nats.tls.ca_file"),
    ("NATS_CERT", "nats.tls.cert_file"),
    ("NATS_KEY", "nats.tls.key_file"),
];

/// Taken as they are: a password may look like a number, and `007` is not `7`.
const TEXTS: [(&str, &str); 3] = [
    ("TANDEM__NATS__USER", "nats.user"),
    ("TANDEM__NATS__PASSWORD", "nats.password"),
    ("TANDEM__NATS__TOKEN", "nats.token"),
];

/// The keys that are tables.
const PRICES: &str = "TANDEM__LLM__PRICES";
const LIMITS: &str = "TANDEM__LLM__LIMITS";
const TENANT_BUDGETS: &str = "TANDEM__LLM__BUDGET__TENANTS";

/// `TANDEM__SECTION__KEY=value` as `section.key` and the value's type. A list is written `a,b`.
fn overrides(variables: &Variables) -> Vec<(String, config::Value)> {
    let ours: Variables = variables
        .iter()
        .filter(|(name, value)| name.starts_with("TANDEM__") && !value.is_empty())
        .filter(|(name, _)| ![PRICES, LIMITS, TENANT_BUDGETS].contains(&name.as_str()))
        .filter(|(name, _)| !TEXTS.iter().any(|(text, _)| name == text))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    let lists = [
        "nats.urls",
        "nats.reply_prefixes",
        "cache.context_fields",
        "llm.route",
        "workflow.step_subjects",
        "workflow.notifications.event_types",
    ];
    let mut environment = Environment::with_prefix("TANDEM")
        .prefix_separator("__")
        .separator("__")
        .try_parsing(true)
        .list_separator(",")
        .source(Some(ours.into_iter().collect()));
    for key in lists {
        environment = environment.with_list_parse_key(key);
    }
    let collected = config::Source::collect(&environment).unwrap_or_default();
    let texts = TEXTS.iter().filter_map(|(name, key)| Some(((*key).to_owned(), set(variables, name)?.into())));
    collected.into_iter().chain(texts).collect()
}

/// What a variable says that stands for a table.
fn table<T: serde::de::DeserializeOwned>(key: &str, name: &str, text: &str) -> Result<BTreeMap<String, T>, Error> {
    let from_json = |json: serde_json::Error| match toml::from_str::<BTreeMap<String, BTreeMap<String, T>>>(&format!(
        "it = {text}"
    )) {
        Ok(mut tables) => Ok(tables.remove("it").unwrap_or_default()),
        // What begins like JSON was meant as JSON.
        Err(_) if text.trim_start().starts_with("{\"") && !text.contains('=') => Err(json.to_string()),
        Err(toml) => Err(toml.message().to_owned()),
    };
    let read = serde_json::from_str(text).or_else(from_json);
    read.map_err(|why| Error::Wrong {
        message: format!("{key}, from {name}, is neither JSON nor an inline table of TOML: {why}"),
    })
}

/// A variable that is set and says something: an empty one is as none.
fn set<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
    variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

fn nats_url(variables: &Variables) -> Option<String> {
    let set = |name: &str| variables.get(name).filter(|v| !v.is_empty());
    if let Some(url) = set("NATS_URL") {
        return Some(url.clone());
    }
    let (host, port) = (set("NATS_HOST"), set("NATS_PORT"));
    if host.is_none() && port.is_none() {
        return None;
    }
    let host = host.map_or("127.0.0.1", String::as_str);
    Some(format!("nats://{host}:{}", port.map_or("4222", String::as_str)))
}

/// Keys and addresses of the providers, from the variables that the source names.
pub fn credentials(variables: &Variables) -> Credentials {
    let set = |name: &str| variables.get(name).filter(|v| !v.is_empty()).cloned();
    let key = |secret: Option<String>, base_url: Option<String>, default: &str| {
        secret.map(|secret| Key {
            secret: SecretString::from(secret),
            base_url: base_url.unwrap_or_else(|| default.to_owned()),
        })
    };
    let openai_url = set("OPENAI_BASE_URL");
    // A server of one's own may need no key: its address is enough.
    let openai_key = set("OPENAI_API_KEY").or_else(|| openai_url.as_ref().map(|_| String::new()));
    Credentials {
        anthropic: key(set("ANTHROPIC_API_KEY"), set("ANTHROPIC_BASE_URL"), ""),
        openai: key(openai_key, openai_url, ""),
        google: key(set("GOOGLE_AI_STUDIO_API_KEY"), set("GOOGLE_GEMINI_BASE_URL"), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<Config, Error> {
        let mut variables: Variables = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        variables.entry("HOME".to_owned()).or_insert_with(|| "/home/someone".to_owned());
        Config::load(&variables)
    }

    #[test]
    fn what_can_not_be_read_is_not_shown() {
        let read = |text: &str| {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("tandem.toml");
            std::fs::write(&file, text).unwrap();
            load(&[("TANDEM_CONFIG", file.to_str().unwrap())]).unwrap_err().to_string()
        };
        let open = read("[nats]\npassword = \"hunter2\n");
        assert!(open.contains("line 2") && !open.contains("hunter2"), "{open}");
        let misplaced = read("[nats]\nurls = \"nats://u:hunter2@h\"\n");
        assert!(misplaced.contains("nats.urls") && !misplaced.contains("hunter2"), "{misplaced}");
    }

    #[test]
    fn variables_of_the_source_and_of_every_key_are_taken() {
        let config = load(&[
            ("NATS_HOST", "bus"),
            ("TANDEM__CACHE__ORDER", "rules_first"),
            ("TANDEM__AGENT__CHOICE__EXPLORE", "0.2"),
            ("TANDEM__NATS__REPLY_PREFIXES", "_INBOX.,answers."),
        ])
        .unwrap();
        assert_eq!(config.nats.urls, ["nats://bus:4222"]);
        assert_eq!(config.cache.order, cache::Order::RulesFirst);
        assert!((config.agent.choice.explore - 0.2).abs() < 1e-9);
        assert_eq!(config.nats.reply_prefixes, ["_INBOX.", "answers."]);
        assert_eq!(config.database.url, "sqlite:///home/someone/.local/share/tandem/tandem.db");
    }

    #[test]
    fn who_logs_in_is_taken_as_it_is() {
        for pairs in [
            [("NATS_USER", "1e3"), ("NATS_PASSWORD", "007")],
            [("TANDEM__NATS__USER", "1e3"), ("TANDEM__NATS__PASSWORD", "007")],
        ] {
            let nats = load(&pairs).unwrap().nats;
            assert_eq!((nats.user.as_str(), nats.password), ("1e3", "007".into()));
        }
        let files = [("NATS_CREDS", "a.creds"), ("NATS_CA", "ca.pem"), ("NATS_CERT", "c.pem"), ("NATS_KEY", "k.pem")];
        let nats = load(&files).unwrap().nats;
        assert_eq!(nats.credentials_file, "a.creds");
        let tls = bus::login::Tls {
            ca_file: "ca.pem".into(),
            cert_file: "c.pem".into(),
            key_file: "k.pem".into(),
            ..Default::default()
        };
        assert_eq!(nats.tls, tls);
        let error = load(&[("NATS_CREDS", "a.creds"), ("NATS_NKEY", "b.nk")]).unwrap_err().to_string();
        assert!(error.contains("nats.credentials_file") && error.contains("nats.nkey_seed_file"), "{error}");
    }

    #[test]
    fn a_tenants_budget_is_written_with_its_name_as_it_is() {
        let config = load(&[(TENANT_BUDGETS, r#"{"Acme": {"per_day_usd": 2}}"#)]).unwrap();
        assert_eq!(config.llm.budget.tenants["Acme"].per_day_usd, Some(2.0));
        let refused = load(&[("TANDEM__LLM__BUDGET__TENANTS__Acme__PER_DAY_USD", "2")]).unwrap_err().to_string();
        assert!(refused.contains("Acme") && refused.contains("JSON"), "{refused}");
    }

    #[test]
    fn prices_come_from_the_environment_as_json_or_toml() {
        for text in [
            r#"{"openai/x.y": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2.5}}"#,
            r#"{"openai/x.y" = {input_usd_per_mtok = 1.0, output_usd_per_mtok = 2.5}}"#,
        ] {
            let config = load(&[("TANDEM__LLM__PRICES", text)]).unwrap();
            let price = config.llm.prices["openai/x.y"];
            assert_eq!((price.input_usd_per_mtok, price.output_usd_per_mtok), (1.0, 2.5), "{text}");
        }
    }

    #[test]
    fn an_empty_variable_is_as_none() {
        let empty = [
            ("TANDEM__LLM__PRICES", ""),
            ("TANDEM__CACHE__TTL_MS", ""),
            ("TANDEM__NATS__URLS", ""),
            ("TANDEM__LLM__TEMPERATURE", ""),
            ("NATS_URL", ""),
        ];
        let config = load(&empty).unwrap();
        assert_eq!((config.nats, config.llm), Default::default());
        assert_eq!(config.cache.ttl_ms, cache::Options::default().ttl_ms);
    }

    #[test]
    fn a_server_is_named_by_environment_or_file_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tandem.toml");
        let names = |text: &str, more: &[(&str, &str)]| {
            std::fs::write(&file, text).unwrap();
            let mut variables: Variables = more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            variables.insert("TANDEM_CONFIG".to_owned(), file.display().to_string());
            Config::names_server(&variables).unwrap()
        };
        assert!(!names("", &[]));
        assert!(!names("[nats]\nname = \"x\"", &[("NATS_URL", "")]));
        assert!(names("[nats]\nurls = [\"nats://127.0.0.1:4222\"]", &[]));
        assert!(names("", &[("NATS_HOST", "bus")]));
        assert!(names("", &[("TANDEM__NATS__URLS", "nats://bus:1")]));
    }

    #[test]
    fn a_wrong_key_is_named() {
        for (name, value, said) in [
            ("TANDEM__CACHE__TTL", "5", "ttl"),
            ("TANDEM__CACHE__TTL_MS", "soon", "ttl_ms"),
            ("TANDEM__CASH__TTL_MS", "5", "cash"),
            ("TANDEM__AGENT__MAX_UNKNOWN_SHARE", "3", "agent.max_unknown_share"),
            ("TANDEM__LLM__PRICES", "{\"openai/x\": 5}", "TANDEM__LLM__PRICES"),
            ("TANDEM__LLM__PRICES", "nonsense", "TANDEM__LLM__PRICES"),
            ("TANDEM__LLM__PRICES", "{\"openai/x\": {\"input\": 1}}", "input"),
            ("TANDEM_CONFIG", "/nowhere/tandem.toml", "/nowhere/tandem.toml"),
        ] {
            let message = load(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains(said), "{name}={value}: {message}");
        }
    }
}
