//! The real model, from the files that `scripts/setup` fetches.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tandem::cache::fit::{Read, measure, read_pairs};
use tandem::cache::{Cache, Guard, Verifier};
use tandem::domain::record::EntryKind;
use tandem::domain::{
    Answer, Complexity, Context, CorrelationId, Goal, Language, Method, NanoUsd, TaskType, Tenant, Tier, Timestamp,
    Usage,
};
use tandem::embed::{Embedder, Error, MODEL_VERSION, Options};

const NOW: Timestamp = Timestamp(1_000_000);

fn assets() -> PathBuf {
    let folder = std::env::var_os("TANDEM_ASSETS").map_or_else(|| ".tandem".into(), PathBuf::from);
    assert!(
        folder.join("embedding/minilm.onnx").exists(),
        "the embedding model is not in {}: run ./scripts/setup, or set TANDEM_ASSETS",
        folder.display()
    );
    folder
}

fn embedder() -> Embedder {
    Embedder::load(&assets(), Options::default()).unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[tokio::test]
async fn vectors_are_unit_and_the_same_alone_and_in_a_batch() {
    let embedder = embedder();
    assert_eq!(embedder.version(), MODEL_VERSION);
    let texts =
        ["", "🔥", "Write a parser", "Create a NATS consumer for processing user events", &"long ".repeat(100_000)];
    let batch = futures::future::join_all(texts.map(|text| embedder.embed(text))).await;
    // Another handle has another memory of recent vectors.
    let alone = self::embedder();
    for (text, vector) in texts.iter().zip(batch) {
        let vector = vector.unwrap();
        assert_eq!(vector.len(), 384);
        assert!((cosine(&vector, &vector) - 1.0).abs() < 1e-4);
        assert!(cosine(&vector, &alone.embed(text).await.unwrap()) > 0.9999, "{text:.40?}");
    }
}

#[tokio::test]
async fn a_paraphrase_shares_the_answer_and_near_misses_do_not() {
    let (tell, _changes) = tokio::sync::mpsc::channel(100);
    let cache =
        Cache::new(tandem::cache::Options::default(), Some(embedder()), move |change| tell.try_send(change).is_ok());
    let key = |task: &str| {
        let goal = Goal {
            description: task.into(),
            language: Language::Elixir,
            complexity: Complexity::Medium,
            acceptance_criteria: vec![],
            context: Context::default(),
            tags: vec![],
        };
        cache.key(&Tenant::default(), EntryKind::Request, &goal)
    };
    let stored = "Create a NATS consumer for processing user events";
    cache.put(&key(stored), Arc::new(answer()), CorrelationId::generate(), NOW).unwrap();
    for paraphrase in [
        "Write a NATS consumer that processes user events",
        "Please implement a NATS consumer for handling user events",
        "In Elixir, build a NATS consumer which processes user events",
    ] {
        let found = cache.semantic(&key(paraphrase), NOW).await.unwrap();
        let hit = found.unwrap_or_else(|| panic!("{paraphrase:?} did not hit")).hit;
        assert_eq!(hit.tier, Tier::Semantic);
        assert!((0.8..=1.0).contains(&hit.similarity), "{paraphrase:?} at {}", hit.similarity);
    }
    for (near, guard) in [
        ("Create a NATS consumer for processing order events", Guard::Words),
        ("Create a NATS producer for processing user events", Guard::Opposites),
        ("Create a NATS consumer for processing user events without retries", Guard::Negation),
        ("Create a Kafka consumer for processing user events", Guard::Technologies),
        ("Create a NATS consumer for processing 3 user events", Guard::Numbers),
    ] {
        assert!(cache.semantic(&key(near), NOW).await.unwrap().is_none(), "{near:?} was served");
        let explained = cache.explain(&key(near), NOW, 1).await.unwrap();
        assert_eq!(explained[0].refusal.as_ref().map(|refusal| refusal.guard), Some(guard), "{near:?}");
    }
}

/// Nothing was fitted to these pairs.
#[tokio::test]
async fn of_the_held_out_pairs_half_of_the_paraphrases_are_served_and_hardly_a_trap() {
    let embedder = embedder();
    let pairs = read_pairs(include_str!("../config/pairs/held-out.txt")).unwrap();
    let verifier = Verifier::shipped();
    let (mut reads, mut sure) = (vec![], vec![]);
    for pair in &pairs {
        let (a, b) = (embedder.embed(&pair.a), embedder.embed(&pair.b));
        let read = Read::of(pair, f64::from(cosine(&a.await.unwrap(), &b.await.unwrap())));
        sure.push(read.sure(verifier));
        reads.push(read);
    }
    let found = measure(&reads, &sure, verifier.needed(tandem::cache::Options::default().max_false_hit_rate));
    assert!(found.false_hits.share.unwrap() <= 0.01 && found.recall.share.unwrap() >= 0.5, "{found:?}");
}

#[test]
fn a_missing_or_damaged_file_is_named_with_the_mend() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["onnxruntime/libonnxruntime.so", "embedding/tokenizer.json", "embedding/minilm.onnx"] {
        let to = folder.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(assets().join(file), &to).unwrap();
        // Spares this test the hashing of what it does not damage.
        let stamp = |folder: &Path| folder.join(format!("{file}.verified"));
        let _ = fs::copy(stamp(&assets()), stamp(folder.path()));
    }
    let load = || Embedder::load(folder.path(), Options::default()).map(|_| ()).unwrap_err();
    for file in ["embedding/tokenizer.json", "embedding/minilm.onnx", "onnxruntime/libonnxruntime.so"] {
        let path = folder.path().join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = load();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(file) && error.to_string().contains("scripts/setup"), "{error}");
        fs::remove_file(&path).unwrap();
        let error = load();
        assert!(matches!(error, Error::Missing { .. }), "{error}");
        assert!(error.to_string().contains(file) && error.to_string().contains("scripts/setup"), "{error}");
        fs::write(&path, whole).unwrap();
        if file.ends_with(".so") {
            Embedder::load(folder.path(), Options::default()).map(|_| ()).unwrap();
        }
    }
}

fn answer() -> Answer {
    Answer {
        text: "defmodule UserEventsConsumer do end".into(),
        file: None,
        method: Method::Autonomous,
        task_type: TaskType::NatsConsumer,
        language: Language::Elixir,
        template: None,
        model: None,
        usage: Usage::default(),
        cost: NanoUsd::default(),
        unknown: NanoUsd::ZERO,
        evaluation: None,
        success: true,
        reason: None,
        left_out: vec![],
        parts: vec![],
        project: vec![],
        notes: vec![],
        tags: vec![],
        hit: None,
        made_at: NOW,
        time: Duration::ZERO,
    }
}
