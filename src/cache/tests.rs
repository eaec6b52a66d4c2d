use std::sync::atomic::AtomicBool;

use tokio::sync::mpsc::{self, Receiver};

use super::*;
use crate::domain::{Complexity, Context, Language, Message, NanoUsd, TaskType, Usage};
use crate::embed::{Embed, Hashed};

const NOW: Timestamp = Timestamp(1_000_000);
const BASE: &str = "Create a NATS consumer for processing user events";
const PARAPHRASE: &str = "Write a NATS consumer that processes user events";

fn embedder() -> Embedder {
    Embedder::new(Hashed::default(), embed::Options::default()).unwrap()
}

fn options() -> Options {
    // The word-hashing embedder puts paraphrases further apart than the real one.
    Options { similarity_threshold: 0.5, ..Options::default() }
}

/// Looks at the words alone: the similarities of the word-hashing embedder are not those that weights are fitted to.
fn verifier() -> Verifier {
    let weights = [("always", 5.0), ("words_more", -10.0), ("words_instead", -10.0)];
    Verifier {
        weights: weights.map(|(name, weight)| (name.to_owned(), weight)).into(),
        thresholds: vec![Threshold { max_false_hit_rate: 0.005, sure: 0.9, wrong_of_hits: 0.02 }],
    }
}

fn cache_of(options: Options) -> (Cache, Receiver<Change>) {
    let (tell, changes) = mpsc::channel(100_000);
    let cache =
        Cache::with_verifier(options, Some(embedder()), verifier(), move |change| tell.try_send(change).is_ok());
    (cache, changes)
}

fn goal(task: &str) -> Goal {
    Goal {
        description: task.into(),
        language: Language::Elixir,
        complexity: Complexity::Medium,
        acceptance_criteria: vec![],
        context: Context::default(),
        tags: vec![],
    }
}

fn key(cache: &Cache, task: &str) -> Key {
    cache.key(&Tenant::default(), EntryKind::Request, &goal(task))
}

fn answer(text: &str) -> Arc<Answer> {
    Arc::new(Answer {
        text: text.into(),
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
        left_out: vec![],
        reason: None,
        parts: vec![],
        project: vec![],
        notes: vec![],
        tags: vec![],
        hit: None,
        made_at: NOW,
        time: Duration::ZERO,
    })
}

fn put(cache: &Cache, key: &Key, text: &str, now: Timestamp) -> EntryId {
    cache.put(key, answer(text), CorrelationId::generate(), now).unwrap()
}

async fn served(cache: &Cache, key: &Key, now: Timestamp) -> Option<(Tier, String)> {
    let found = match cache.exact(key, now) {
        Some(found) => Some(found),
        None => cache.semantic(key, now).await.unwrap(),
    };
    found.map(|found| (found.hit.tier, found.answer.text.to_string()))
}

fn after(ms: i64) -> Timestamp {
    Timestamp(NOW.0 + ms)
}

#[tokio::test]
async fn the_same_task_is_an_exact_hit_and_a_paraphrase_a_semantic_one() {
    let (cache, _changes) = cache_of(options());
    let base = key(&cache, BASE);
    assert_eq!(served(&cache, &base, NOW).await, None);
    let origin = CorrelationId::generate();
    cache.put(&base, answer("answer"), origin.clone(), NOW).unwrap();
    let found = cache.exact(&key(&cache, "create a NATS consumer for  processing user events."), after(500)).unwrap();
    assert_eq!((found.hit.tier, found.hit.similarity), (Tier::Exact, 1.0));
    assert_eq!(found.hit.age, Duration::from_millis(500));
    assert_eq!(found.hit.origin, origin);
    assert_eq!(served(&cache, &key(&cache, PARAPHRASE), NOW).await, Some((Tier::Semantic, "answer".into())));
    for trap in [
        "Write a NATS consumer that processes order events",
        "Write a NATS producer that processes user events",
        "Write a NATS consumer that processes user events without acknowledging",
    ] {
        assert_eq!(served(&cache, &key(&cache, trap), NOW).await, None, "{trap}");
    }
    let stats = cache.stats(&Tenant::default());
    assert_eq!((stats.entries, stats.exact_hits, stats.semantic_hits, stats.misses), (1, 1, 1, 4));
    assert!(stats.refused.contains_key(&Guard::Opposites), "{:?}", stats.refused);
    assert_eq!(cache.stats(&Tenant::parse("other").unwrap()).entries, 0);
}

#[tokio::test]
async fn a_paraphrase_hits_right_after_the_put() {
    // The vector is being computed in the background: the lookup waits for it.
    for _ in 0..50 {
        let (cache, _changes) = cache_of(options());
        put(&cache, &key(&cache, BASE), "answer", NOW);
        let paraphrase = key(&cache, PARAPHRASE);
        assert!(cache.has_neighbours(&paraphrase));
        assert_eq!(served(&cache, &paraphrase, NOW).await, Some((Tier::Semantic, "answer".into())));
    }
}

#[tokio::test]
async fn nothing_is_shared_across_scopes() {
    let (cache, _changes) = cache_of(options());
    put(&cache, &key(&cache, BASE), "answer", NOW);
    let with = |change: &dyn Fn(&mut Goal)| {
        let mut goal = goal(PARAPHRASE);
        change(&mut goal);
        cache.key(&Tenant::default(), EntryKind::Request, &goal)
    };
    let field = |name: &str| (name.to_owned(), "\"x\"".to_owned());
    let mut others = vec![
        with(&|g| g.language = Language::Rust),
        with(&|g| g.complexity = Complexity::Complex),
        with(&|g| g.acceptance_criteria = vec!["acknowledges".into()]),
        with(&|g| g.context.messages = vec![Message { role: "user".into(), content: "in German".into() }]),
        cache.key(&Tenant::parse("other").unwrap(), EntryKind::Request, &goal(PARAPHRASE)),
        cache.key(&Tenant::default(), EntryKind::Task, &goal(PARAPHRASE)),
    ];
    for name in &options().context_fields {
        if name != "messages" {
            others.push(with(&|g| g.context.fields = [field(name)].into()));
        }
    }
    for other in &others {
        assert!(!cache.has_neighbours(other), "no embedding is needed to know that");
        assert_eq!(served(&cache, other, NOW).await, None);
    }
    let same = with(&|g| {
        g.context.workspace = Some("/elsewhere".into());
        g.context.fields = [field("editor")].into();
    });
    assert_eq!(served(&cache, &same, NOW).await, Some((Tier::Semantic, "answer".into())));
}

#[tokio::test]
async fn an_answer_ends_with_its_time_however_often_it_was_used() {
    let (cache, mut changes) = cache_of(Options { ttl_ms: 1000, ..options() });
    let id = put(&cache, &key(&cache, BASE), "answer", NOW);
    for ms in [1, 500, 999] {
        assert!(cache.exact(&key(&cache, BASE), after(ms)).is_some());
        assert!(cache.semantic(&key(&cache, PARAPHRASE), after(ms)).await.unwrap().is_some());
    }
    assert!(cache.exact(&key(&cache, BASE), after(1000)).is_none());
    assert!(cache.semantic(&key(&cache, PARAPHRASE), after(1000)).await.unwrap().is_none());
    assert_eq!((cache.expire(after(999)), cache.expire(after(1000)), cache.len()), (0, 1, 0));
    assert!(!cache.has_neighbours(&key(&cache, PARAPHRASE)));
    let mut last = None;
    while let Ok(change) = changes.try_recv() {
        last = Some(change);
    }
    assert!(matches!(last, Some(Change::Vector(of, _)) if of == id), "time is everywhere: nothing is handed out");
}

#[tokio::test]
async fn a_refreshed_answer_takes_the_place_of_the_old_one_in_both_tiers() {
    let (cache, mut changes) = cache_of(options());
    let old = put(&cache, &key(&cache, BASE), "old", NOW);
    let new = put(&cache, &key(&cache, BASE), "new", NOW);
    assert_eq!(cache.len(), 1);
    assert_eq!(served(&cache, &key(&cache, BASE), NOW).await, Some((Tier::Exact, "new".into())));
    assert_eq!(served(&cache, &key(&cache, PARAPHRASE), NOW).await, Some((Tier::Semantic, "new".into())));
    let mut told = vec![];
    while let Ok(change) = changes.try_recv() {
        match change {
            Change::Put(entry) => told.push(("put", entry.id)),
            Change::Removed(ids) => told.push(("removed", ids[0])),
            Change::Vector(id, _) => assert_eq!(id, new, "a replaced entry needs no vector"),
        }
    }
    assert_eq!(told, [("put", old), ("put", new)], "whoever takes in the new one drops the old one");
}

#[tokio::test]
async fn what_was_removed_is_never_served_again_not_even_if_its_put_arrives_later() {
    let (cache, mut changes) = cache_of(options());
    let id = put(&cache, &key(&cache, BASE), "wrong", NOW);
    let Some(Change::Put(entry)) = changes.recv().await else { panic!("no put was told") };
    let Some(Change::Vector(_, vector)) = changes.recv().await else { panic!("no vector was told") };
    cache.remove(&[id]);
    let (elsewhere, _changes) = cache_of(options());
    elsewhere.apply(Change::Removed(vec![id]));
    for cache in [&cache, &elsewhere] {
        cache.apply(Change::Put(entry.clone()));
        cache.apply(Change::Vector(id, vector.clone()));
        cache.load([CacheEntry::clone(&entry)]);
        assert_eq!(served(cache, &key(cache, BASE), NOW).await, None);
        assert_eq!(served(cache, &key(cache, PARAPHRASE), NOW).await, None);
        assert!(cache.explain(&key(cache, BASE), NOW, 5).await.unwrap().is_empty());
    }
    // A new answer for the same task is welcome.
    put(&cache, &key(&cache, BASE), "right", NOW);
    assert_eq!(served(&cache, &key(&cache, PARAPHRASE), NOW).await, Some((Tier::Semantic, "right".into())));
}

#[tokio::test]
async fn two_workers_end_with_the_same_entries_in_whatever_order_the_changes_arrive() {
    let (one, mut changes) = cache_of(options());
    put(&one, &key(&one, BASE), "old", NOW);
    put(&one, &key(&one, BASE), "new", after(5));
    assert!(one.semantic(&key(&one, PARAPHRASE), after(5)).await.unwrap().is_some(), "its vector is there now");
    let mut told = vec![];
    while let Ok(change) = changes.try_recv() {
        told.push(change);
    }
    for reversed in [false, true] {
        let (two, mut again) = cache_of(options());
        let changes: Vec<_> = if reversed { told.iter().rev().collect() } else { told.iter().collect() };
        changes.into_iter().for_each(|change| two.apply(change.clone()));
        assert_eq!(served(&two, &key(&two, BASE), after(5)).await, Some((Tier::Exact, "new".into())));
        assert!(again.try_recv().is_err(), "what came from elsewhere is not told again");
    }
}

#[tokio::test]
async fn an_entry_whose_worker_died_before_its_vector_came_gets_one_when_somebody_looks_near() {
    let (one, mut changes) = cache_of(options());
    put(&one, &key(&one, BASE), "answer", NOW);
    let Some(Change::Put(entry)) = changes.recv().await else { panic!("no put was told") };
    let (two, mut told) = cache_of(options());
    two.load([CacheEntry::clone(&entry)]);
    assert_eq!(served(&two, &key(&two, PARAPHRASE), after(1)).await, None, "another worker may be at it");
    let hit = served(&two, &key(&two, PARAPHRASE), after(2_000)).await;
    assert_eq!(hit, Some((Tier::Semantic, "answer".into())));
    assert!(matches!(told.recv().await, Some(Change::Vector(id, _)) if id == entry.id), "the store learns it");
}

#[tokio::test]
async fn an_entry_read_again_brings_the_vector_that_it_lacked_before() {
    let (one, mut changes) = cache_of(options());
    put(&one, &key(&one, BASE), "answer", NOW);
    let Some(Change::Put(entry)) = changes.recv().await else { panic!("no put was told") };
    let Some(Change::Vector(_, vector)) = changes.recv().await else { panic!("no vector was told") };
    let (two, _told) = cache_of(options());
    two.load([CacheEntry::clone(&entry)]);
    assert_eq!(served(&two, &key(&two, PARAPHRASE), NOW).await, None);
    two.load([CacheEntry { vector: Some(vector), ..CacheEntry::clone(&entry) }]);
    assert_eq!(served(&two, &key(&two, PARAPHRASE), NOW).await, Some((Tier::Semantic, "answer".into())));
}

#[tokio::test]
async fn failures_are_never_stored() {
    let (cache, mut changes) = cache_of(options());
    let base = answer("text");
    let bad = [
        Answer { success: false, ..Answer::clone(&base) },
        Answer { method: Method::Fallback, ..Answer::clone(&base) },
    ];
    for bad in bad {
        assert!(cache.put(&key(&cache, BASE), Arc::new(bad), CorrelationId::generate(), NOW).is_none());
    }
    assert!(cache.is_empty() && changes.try_recv().is_err());
}

#[tokio::test]
async fn switched_off_it_neither_stores_nor_serves() {
    let (cache, mut changes) = cache_of(Options { enabled: false, ..options() });
    let key = key(&cache, BASE);
    assert!(cache.put(&key, answer("text"), CorrelationId::generate(), NOW).is_none());
    assert!(cache.exact(&key, NOW).is_none() && !cache.has_neighbours(&key) && changes.try_recv().is_err());
}

#[tokio::test]
async fn the_least_recently_used_go_first_by_count_and_by_size() {
    let (cache, mut changes) = cache_of(Options { max_entries: 3, ..options() });
    let keys: Vec<Key> = (0..4).map(|i| key(&cache, &format!("task {i}"))).collect();
    for key in &keys[..3] {
        put(&cache, key, "text", NOW);
    }
    assert!(cache.exact(&keys[0], NOW).is_some());
    put(&cache, &keys[3], "text", NOW);
    let held: Vec<bool> = keys.iter().map(|key| cache.exact(key, NOW).is_some()).collect();
    assert_eq!(held, [true, false, true, true]);
    let mut removed = 0;
    while let Ok(change) = changes.try_recv() {
        removed += usize::from(matches!(change, Change::Removed(_)));
    }
    assert_eq!(removed, 0, "another worker or the store may have the room");

    let (cache, _changes) = cache_of(Options { max_bytes: 1024 * 1024, ..options() });
    for i in 0..100 {
        put(&cache, &key(&cache, &format!("task {i}")), &"x".repeat(60_000), NOW);
    }
    assert!((10..=17).contains(&cache.len()), "{} entries", cache.len());
    let huge = cache.put(&key(&cache, "huge"), answer(&"x".repeat(1024 * 1024)), CorrelationId::generate(), NOW);
    assert_eq!(huge, None);
}

#[tokio::test]
async fn what_is_dear_to_make_again_outlives_what_is_cheap_but_not_for_ever() {
    let (cache, _changes) = cache_of(Options { max_entries: 10, ..options() });
    let dear = Answer { time: Duration::from_secs(3), cost: NanoUsd(20_000_000), ..Answer::clone(&answer("text")) };
    let dear_key = key(&cache, "dear");
    cache.put(&dear_key, Arc::new(dear), CorrelationId::generate(), NOW).unwrap();
    let is_there = || cache.0.state().entries.by_exact(&dear_key.exact, NOW).is_some();
    for i in 0..30 {
        put(&cache, &key(&cache, &format!("cheap {i}")), "text", NOW);
        assert!(is_there(), "gone after {i} cheap ones");
    }
    let mut more = 0;
    while is_there() {
        put(&cache, &key(&cache, &format!("more {more}")), "text", NOW);
        more += 1;
        assert!(more < 1_000, "what nobody asks for stays for ever");
    }
    // Of equal answers the larger goes first: it takes the room of many.
    let (cache, _changes) = cache_of(Options { max_bytes: 256 * 1024, semantic_max_bytes: 0, ..options() });
    put(&cache, &key(&cache, "large"), &"x".repeat(30_000), NOW);
    for i in 0..160 {
        put(&cache, &key(&cache, &format!("small {i}")), &"x".repeat(1_000), NOW);
    }
    assert!(cache.exact(&key(&cache, "large"), NOW).is_none() && cache.exact(&key(&cache, "small 0"), NOW).is_some());
    assert!(cache.stats(&Tenant::default()).bytes <= 256 * 1024);
}

#[tokio::test]
async fn without_a_word_from_the_others_memory_serves_no_longer_than_its_lease() {
    let (cache, _changes) = cache_of(Options { lease_ms: 60_000, ..options() });
    let (asked, near) = (key(&cache, BASE), key(&cache, PARAPHRASE));
    put(&cache, &asked, "answer", NOW);
    cache.confirm(Instant::now());
    assert!(cache.is_in_step() && served(&cache, &near, NOW).await.is_some());
    cache.break_off();
    assert_eq!((served(&cache, &asked, NOW).await, served(&cache, &near, NOW).await), (None, None));
    cache.confirm(Instant::now() + Duration::from_millis(2));
    assert!(served(&cache, &asked, NOW).await.is_some() && served(&cache, &near, NOW).await.is_some());
}

#[tokio::test]
async fn a_full_channel_loses_the_change_and_not_the_answer() {
    let (tell, _changes) = mpsc::channel(1);
    let cache = Cache::new(options(), None, move |change| tell.try_send(change).is_ok());
    for i in 0..3 {
        put(&cache, &key(&cache, &format!("task {i}")), "text", NOW);
        assert!(cache.exact(&key(&cache, &format!("task {i}")), NOW).is_some());
    }
    assert_eq!(cache.stats(&Tenant::default()).changes_lost, 2);
}

/// Fails until it is mended.
struct Broken(Arc<AtomicBool>, Hashed);

impl Embed for Broken {
    fn version(&self) -> &'static str {
        "broken/1"
    }

    fn embed(&mut self, text: &str) -> Result<Vec<f32>, embed::Error> {
        if self.0.load(Ordering::Relaxed) { self.1.embed(text) } else { Err(embed::Error::Unusable("nothing")) }
    }
}

#[tokio::test]
async fn without_an_embedder_the_exact_tier_serves_and_the_other_says_why_not() {
    let (tell, _changes) = mpsc::channel(100);
    let cache = Cache::new(options(), None, move |change| tell.try_send(change).is_ok());
    put(&cache, &key(&cache, BASE), "answer", NOW);
    assert!(cache.exact(&key(&cache, BASE), NOW).is_some());
    assert!(!cache.has_neighbours(&key(&cache, PARAPHRASE)));
    assert!(matches!(cache.semantic(&key(&cache, PARAPHRASE), NOW).await, Err(Error::NoEmbedder)));

    let mended = Arc::new(AtomicBool::new(false));
    let model = Broken(mended.clone(), Hashed::default());
    let (tell, _changes) = mpsc::channel(100);
    let embedder = Embedder::new(model, embed::Options::default()).unwrap();
    let cache =
        Cache::with_verifier(options(), Some(embedder), verifier(), move |change| tell.try_send(change).is_ok());
    put(&cache, &key(&cache, BASE), "answer", NOW);
    assert!(cache.exact(&key(&cache, BASE), NOW).is_some());
    let broken = cache.semantic(&key(&cache, PARAPHRASE), NOW).await;
    assert!(matches!(broken, Err(Error::Unavailable(_))));
    mended.store(true, Ordering::Relaxed);
    // The first lookup may still wait for the attempt that failed; it or the next one makes a new one.
    let first = cache.semantic(&key(&cache, PARAPHRASE), after(5_000)).await.unwrap();
    let second = cache.semantic(&key(&cache, PARAPHRASE), after(5_000)).await.unwrap();
    assert!(first.or(second).is_some(), "it mends itself");
}

#[tokio::test]
async fn explain_names_the_guard_and_counts_as_no_lookup() {
    let (cache, _changes) = cache_of(options());
    put(&cache, &key(&cache, BASE), "answer", NOW);
    put(&cache, &key(&cache, "Create a NATS consumer for processing order events"), "answer", NOW);
    put(&cache, &key(&cache, "Say hello"), "answer", NOW);
    let near = cache.explain(&key(&cache, PARAPHRASE), after(10), 5).await.unwrap();
    assert_eq!(near.len(), 3);
    assert_eq!((&*near[0].task, &near[0].refusal), (BASE, &None));
    assert_eq!(near[1].refusal.as_ref().map(|r| r.guard), Some(Guard::Words));
    assert!(near[1].refusal.as_ref().unwrap().detail.contains("order"), "{:?}", near[1].refusal);
    assert!(near[0].near_enough && !near[2].near_enough);
    assert_eq!(near[0].age, Duration::from_millis(10));
    assert_eq!(cache.stats(&Tenant::default()).misses, 0);
}

#[tokio::test]
async fn verdicts_on_hits_move_what_is_needed_near_them_and_a_smaller_rate_serves_nothing() {
    let (cache, mut changes) = cache_of(options());
    let base = key(&cache, BASE);
    put(&cache, &base, "answer", NOW);
    let Some(Change::Put(_)) = changes.recv().await else { panic!("no put was told") };
    let Some(Change::Vector(_, vector)) = changes.recv().await else { panic!("no vector was told") };
    let said = |good: bool, times: usize| vec![CacheVerdict { scope: base.scope, vector: vector.clone(), good }; times];
    let paraphrase = key(&cache, PARAPHRASE);
    let needed = async || cache.explain(&paraphrase, NOW, 1).await.unwrap()[0].needed;
    assert!((needed().await - 0.9).abs() < 1e-9);
    cache.replace_evidence(said(true, 10));
    assert!(needed().await < 0.9);
    assert!(cache.semantic(&paraphrase, NOW).await.unwrap().is_some());
    cache.replace_evidence(said(false, 50));
    assert!(needed().await > 0.99);
    let refused = cache.semantic(&paraphrase, NOW).await.unwrap();
    assert!(refused.is_none(), "users said that hits near it are wrong");
    assert!(cache.exact(&base, NOW).is_some(), "the same words are the same task");
    cache.replace_evidence(vec![]);
    assert!(cache.semantic(&paraphrase, NOW).await.unwrap().is_some());

    let (strict, _changes) = cache_of(Options { max_false_hit_rate: 0.001, ..options() });
    put(&strict, &key(&strict, BASE), "answer", NOW);
    assert_eq!(served(&strict, &key(&strict, PARAPHRASE), NOW).await, None, "nobody can promise that");
}

#[tokio::test]
async fn hostile_texts_are_kept_apart_and_cost_no_more_than_a_lookup() {
    let (cache, _changes) = cache_of(options());
    let long = "word ".repeat(200_000);
    let texts = ["", " ", "???", "🔥🔥", "🌧", "发送消息", "\u{0}\u{1}", "a\u{301}", "%s{{ x }}", &long, &long[..1_000]];
    for (i, text) in texts.iter().enumerate() {
        assert_eq!(
            served(&cache, &key(&cache, text), NOW).await.filter(|_| !text.trim().is_empty()),
            None,
            "{text:.20?}"
        );
        put(&cache, &key(&cache, text), &i.to_string(), NOW);
    }
    for (i, text) in texts.iter().enumerate().skip(2) {
        assert_eq!(served(&cache, &key(&cache, text), NOW).await, Some((Tier::Exact, i.to_string())), "{text:.20?}");
    }
    assert!(!cache.has_neighbours(&key(&cache, &long)), "a megabyte is not embedded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_near_equal_texts_answer_only_themselves() {
    let (cache, _changes) = cache_of(Options { pending_wait_ms: 60_000, ..options() });
    let task = |i: usize| format!("Create a NATS consumer for processing user events of shard {i}");
    for i in 0..10_000 {
        put(&cache, &key(&cache, &task(i)), &i.to_string(), NOW);
    }
    assert_eq!(cache.len(), 10_000);
    for i in [0, 17, 9_999] {
        assert_eq!(served(&cache, &key(&cache, &task(i)), NOW).await, Some((Tier::Exact, i.to_string())));
        let paraphrase = format!("Write a NATS consumer that processes user events of shard {i}");
        // None is right too: among so many equals the right one may not be looked at. Another one's answer is not.
        let hit = served(&cache, &key(&cache, &paraphrase), NOW).await;
        assert!(hit.is_none() || hit == Some((Tier::Semantic, i.to_string())), "{i}: {hit:?}");
    }
    assert_eq!(served(&cache, &key(&cache, &task(10_001)), NOW).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_puts_removals_and_lookups_never_serve_what_was_removed() {
    let (cache, _changes) = cache_of(options());
    let task = tokio::spawn({
        let cache = cache.clone();
        async move {
            for i in 0..500 {
                let id = put(&cache, &key(&cache, BASE), &i.to_string(), NOW);
                tokio::task::yield_now().await;
                cache.remove(&[id]);
                assert!(cache.exact(&key(&cache, BASE), NOW).is_none());
                assert_eq!(cache.semantic(&key(&cache, PARAPHRASE), NOW).await.unwrap().map(|f| f.hit.entry), None);
            }
        }
    });
    let mut seen = 0;
    while !task.is_finished() {
        seen += usize::from(served(&cache, &key(&cache, PARAPHRASE), NOW).await.is_some());
        tokio::task::yield_now().await;
    }
    task.await.unwrap();
    assert!(cache.is_empty(), "{seen} hits on the way");
}
