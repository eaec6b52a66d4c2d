use serde::{Deserialize, Serialize};

/// What the cache is asked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Exact tier, embedding tier, rules, model.
    #[default]
    CacheFirst,
    /// Exact tier, rules, and the embedding tier only where the rules are not sure.
    RulesFirst,
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Off: nothing is looked up and nothing stored.
    pub enabled: bool,
    /// How long an answer may be served, from when it was made; being used does not prolong it. A day: code that
    /// was right yesterday mostly still is, and what was learnt since should get its turn.
    pub ttl_ms: u64,
    /// Cosine from which a near entry is considered at all; the guards then decide. Calibrated together with them on
    /// 1,834 labelled pairs of coding requests: from 0 to 0.85 all 775 paraphrases and none of the 1,059 traps are
    /// served, at 0.95 only 91 % of the paraphrases (without guards, 0.80 serves 68 % of the traps). Of 3,708
    /// pairs of questions of all kinds that are no duplicates, 0.9 % are served at 0.80.
    pub similarity_threshold: f32,
    /// Nearest entries that the guards are asked about, per lookup. The nearest is often a near miss (another
    /// number), the right one a few places behind it.
    pub candidates: usize,
    /// Entries kept. The least recently used go first. Exact search stays under 1 ms up to some 20,000.
    pub max_entries: usize,
    /// Bytes of tasks and answers kept; one entry may take an eighth. So large texts can't fill the memory.
    pub max_bytes: usize,
    /// Tasks longer than this many bytes use the exact tier only: the model reads 256 tokens, about 1,000
    /// characters, and texts that begin alike would look alike.
    pub semantic_max_bytes: usize,
    /// How long a lookup waits for vectors of entries that were stored just before it. After that it goes on
    /// with those that are there.
    pub pending_wait_ms: u64,
    /// `cache_first` is the mission's order. `rules_first` spares an embedding (some 5 ms) where rules are sure.
    pub order: Order,
    /// Context fields that change an answer and so belong to an entry's scope; `messages` is the conversation. All
    /// others, and always the workspace, are ignored.
    pub context_fields: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        let fields =
            ["target_file", "messages", "framework", "library", "database", "style", "version", "similar_code"];
        Self {
            enabled: true,
            ttl_ms: 24 * 60 * 60 * 1000,
            similarity_threshold: 0.80,
            candidates: 16,
            max_entries: 20_000,
            max_bytes: 128 * 1024 * 1024,
            semantic_max_bytes: 2048,
            pending_wait_ms: 250,
            order: Order::CacheFirst,
            context_fields: fields.map(str::to_owned).to_vec(),
        }
    }
}
