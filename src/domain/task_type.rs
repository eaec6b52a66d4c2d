use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The fifteen kinds of task, in the order in which the source tries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskType {
    Testing,
    Bugfix,
    NatsConsumer,
    ApiEndpoint,
    Database,
    Security,
    Microservice,
    WebComponent,
    Refactoring,
    Documentation,
    Configuration,
    Devops,
    Performance,
    DataProcessing,
    General,
}

impl TaskType {
    pub const ALL: [Self; 15] = [
        Self::Testing,
        Self::Bugfix,
        Self::NatsConsumer,
        Self::ApiEndpoint,
        Self::Database,
        Self::Security,
        Self::Microservice,
        Self::WebComponent,
        Self::Refactoring,
        Self::Documentation,
        Self::Configuration,
        Self::Devops,
        Self::Performance,
        Self::DataProcessing,
        Self::General,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Testing => "testing",
            Self::Bugfix => "bugfix",
            Self::NatsConsumer => "nats_consumer",
            Self::ApiEndpoint => "api_endpoint",
            Self::Database => "database",
            Self::Security => "security",
            Self::Microservice => "microservice",
            Self::WebComponent => "web_component",
            Self::Refactoring => "refactoring",
            Self::Documentation => "documentation",
            Self::Configuration => "configuration",
            Self::Devops => "devops",
            Self::Performance => "performance",
            Self::DataProcessing => "data_processing",
            Self::General => "general",
        }
    }

    /// How sure the source is of a type whose words it found. Ranks types; it gates nothing.
    pub fn confidence(self) -> f64 {
        match self {
            Self::Testing | Self::Bugfix | Self::NatsConsumer | Self::Security | Self::Documentation => 0.9,
            Self::General => 0.4,
            _ => 0.85,
        }
    }
}

impl FromStr for TaskType {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|t| t.as_str() == text);
        found.ok_or_else(|| format!("no task type {text:?}; there are: {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

impl fmt::Display for TaskType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
