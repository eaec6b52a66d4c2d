use std::time::Duration;

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
    /// Cosine from which a near entry is considered at all; guards and verifier then decide. Low, because it decides
    /// nothing: it only spares them what is far.
    pub similarity_threshold: f32,
    /// Of the near tasks that must not share an answer, the share that may be served all the same. The verifier's
    /// threshold follows: the calibration holds, for each rate, from where the upper 95 % bound on labelled pairs keeps to
    /// it. Smaller serves less; below the smallest rate that the calibration can promise the semantic tier serves nothing.
    /// 0.005: half of the 1 % that is aimed at, because people write in more ways than the pairs that it was measured on.
    pub max_false_hit_rate: f64,
    /// A file of weights and thresholds that `tandem cache calibrate --write` made from pairs of your own. Empty: those
    /// that ship, made from the pairs in this repository.
    pub verifier: String,
    /// Nearest entries that the guards are asked about, per lookup. The nearest is often a near miss (another
    /// number), the right one a few places behind it.
    pub candidates: usize,
    /// Memory for entries, with all that belongs to them; one may take an eighth. Where it is full, what goes
    /// first is what is missed least: by what it costs to make again, how often and how lately it was used, and the room
    /// that it takes. 256 MiB hold some 90,000 answers of 2 KiB.
    pub max_bytes: usize,
    /// Entries kept, whatever their size.
    pub max_entries: usize,
    /// Tasks longer than this many bytes use the exact tier only: the model reads 256 tokens, about 1,000
    /// characters, and texts that begin alike would look alike.
    pub semantic_max_bytes: usize,
    /// How long a lookup waits for vectors of entries that were stored just before it. After that it goes on
    /// with those that are there.
    pub pending_wait_ms: u64,
    /// How long this worker serves from memory after it last knew that it had heard of every withdrawal: from the other
    /// workers, or from the database. A worker that can reach neither makes its answers anew after that. Longer than two
    /// signs of life (a second each), so that one that is late does no harm. 0: for ever.
    pub lease_ms: u64,
    /// `cache_first` is the mission's order. `rules_first` spares an embedding (some 2 ms) where rules are sure.
    pub order: Order,
    /// Context fields that change an answer and so belong to an entry's scope; `messages` is the conversation. All
    /// others, and always the workspace, are ignored.
    pub context_fields: Vec<String>,
}

impl Options {
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}

impl Default for Options {
    fn default() -> Self {
        let fields =
            ["target_file", "messages", "framework", "library", "database", "style", "version", "similar_code"];
        Self {
            enabled: true,
            ttl_ms: 24 * 60 * 60 * 1000,
            similarity_threshold: 0.70,
            max_false_hit_rate: 0.005,
            verifier: String::new(),
            candidates: 16,
            max_bytes: 256 * 1024 * 1024,
            max_entries: 1_000_000,
            semantic_max_bytes: 2048,
            pending_wait_ms: 250,
            lease_ms: 3_000,
            order: Order::CacheFirst,
            context_fields: fields.map(str::to_owned).to_vec(),
        }
    }
}
