//! What the store promises, on SQLite and on PostgreSQL alike.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[macro_use]
#[path = "support/both.rs"]
mod both;
#[path = "support/postgres.rs"]
mod postgres;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem::domain::record::{CacheEntry, EdgeStats, EntryId, EntryKind, Execution, Sweep, Verdict};
use tandem::domain::{
    Answer, CorrelationId, Language, Method, NanoUsd, RequestId, TaskType, TemplateId, Tenant, Tier, Timestamp, Usage,
};
use tandem::store::{
    Amount, Backend, Changes, Claim, Durability, Error, Lead, Options, Recorder, RecorderOptions, Report, Sequence,
    Store, Use, Want, Write,
};

/// A new, empty database.
struct Place {
    options: Options,
    server: Option<postgres::Postgres>,
    folder: tempfile::TempDir,
}

impl Place {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("new/folder/tandem.db").display());
        Self { options: Options { url, ..Options::default() }, server: None, folder }
    }

    fn postgres() -> Self {
        let server = postgres::Postgres::start();
        let options = Options { url: server.url(), ..Options::default() };
        Self { options, server: Some(server), folder: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Store {
        Store::open(&self.options).await.unwrap()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("new/folder/tandem.db")
    }
}

on_both!(
    Place:
    an_execution_is_read_as_it_was_written_and_only_by_its_tenant,
    an_execution_that_comes_twice_counts_once,
    repeats_share_a_row_and_each_is_counted_once_and_can_be_judged,
    a_template_is_as_slow_as_it_is_and_not_as_the_request_was,
    samples_of_all_workers_are_folded_once_each,
    totals_are_of_requests_of_one_tenant,
    an_absurd_cost_does_not_take_the_figures_away,
    latencies_and_qualities_are_the_newest,
    a_wrong_verdict_withdraws_blocks_and_moves_the_score_once,
    a_block_stands_while_any_verdict_does,
    a_verdict_on_a_hit_reaches_the_entry_and_the_template_behind_it,
    a_verdict_on_a_hit_reaches_the_parts_of_what_was_served,
    another_tenant_can_not_judge_or_withdraw,
    an_entry_replaces_the_one_with_its_key_unless_that_is_newer,
    a_copy_of_the_cache_follows_by_sequence,
    no_change_is_missed_while_workers_write_at_once,
    what_expired_is_purged_and_a_withdrawal_is_not_forgotten_before,
    of_many_who_want_the_lead_one_gets_it_until_its_beat_stands_still,
    a_sweep_takes_what_fits_and_goes_on_where_it_stopped,
    of_twenty_claims_one_wins,
    a_claim_is_answered_taken_over_or_refused,
    of_claims_that_share_a_commit_one_of_each_id_wins,
    a_refused_call_does_not_spoil_those_it_shares_a_commit_with,
    texts_with_nul_and_worse_come_back_as_they_were,
    three_workers_may_start_on_a_new_database_at_once,
    a_reopened_database_knows_what_it_knew,
    the_recorder_writes_what_it_accepted,
    a_full_queue_drops_and_counts_without_waiting,
    one_refused_record_does_not_stop_the_others,
    an_older_tandem_works_on_a_database_that_a_newer_one_migrated,
    of_a_limit_no_more_is_leased_than_there_is_however_many_ask,
    what_was_used_of_a_limit_is_free_after_a_window_and_a_report_may_come_twice,
);

fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

fn template(name: &str) -> TemplateId {
    TemplateId::parse(name).unwrap()
}

fn correlation(name: &str) -> CorrelationId {
    CorrelationId::parse(name).unwrap()
}

fn new_entry_id() -> EntryId {
    EntryId(uuid::Uuid::now_v7())
}

fn execution(id: &str) -> Execution {
    Execution {
        correlation_id: correlation(id),
        part: String::new(),
        tenant: tenant("acme"),
        at: Timestamp(1_000),
        task_key: [7; 32],
        task_type: TaskType::ApiEndpoint,
        language: Language::Rust,
        method: Method::Autonomous,
        template: Some(template("rust-api")),
        model: None,
        usage: Usage::default(),
        cost: NanoUsd::ZERO,
        all_model_cost: None,
        quality: Some(0.75),
        success: true,
        time: Duration::from_micros(1_234),
        made_in: Duration::from_micros(1_234),
        tier: None,
        entry: None,
        origin: None,
        kept: false,
    }
}

fn by_model(id: &str) -> Execution {
    Execution {
        method: Method::LlmAssisted,
        template: None,
        model: Some("some-model-1".to_owned()),
        usage: Usage { input: 120, output: 45 },
        cost: NanoUsd(1_234_567),
        all_model_cost: Some(NanoUsd(9_000_000)),
        ..execution(id)
    }
}

fn answer(text: &str) -> Answer {
    Answer {
        text: text.into(),
        file: Some("src/main.rs".to_owned()),
        method: Method::Autonomous,
        task_type: TaskType::ApiEndpoint,
        language: Language::Rust,
        template: Some(template("rust-api")),
        model: None,
        usage: Usage::default(),
        cost: NanoUsd::ZERO,
        unknown: NanoUsd::ZERO,
        evaluation: None,
        success: true,
        left_out: vec![],
        reason: None,
        parts: Vec::new(),
        project: vec![],
        notes: vec!["read as Rust".to_owned()],
        tags: vec![],
        hit: None,
        time: Duration::ZERO,
        made_at: Timestamp(5),
    }
}

/// An entry with a key of its own.
fn entry(text: &str, created: i64) -> CacheEntry {
    let id = new_entry_id();
    let mut exact = [0; 32];
    exact[..16].copy_from_slice(id.0.as_bytes());
    CacheEntry {
        id,
        tenant: tenant("acme"),
        kind: EntryKind::Request,
        scope: [1; 32],
        exact,
        task: text.into(),
        answer: Arc::new(answer(text)),
        vector: None,
        origin: correlation("exec_origin"),
        created: Timestamp(created),
        expires: Timestamp(created + 1_000_000),
    }
}

async fn all_changes(store: &Store) -> Changes {
    store.changes_since(Sequence::default(), Timestamp(0), u32::MAX).await.unwrap()
}

async fn an_execution_is_read_as_it_was_written_and_only_by_its_tenant(place: Place) {
    let store = place.open().await;
    let whole = by_model("exec_1");
    let second = Execution {
        part: "root.2".to_owned(),
        method: Method::Cached,
        tier: Some(Tier::Semantic),
        entry: Some(new_entry_id()),
        origin: Some(correlation("exec_0")),
        made_in: Duration::from_micros(17),
        quality: None,
        success: false,
        language: Language::Other("kotlin".into()),
        ..execution("exec_1")
    };
    let first = Execution { part: "root.1".to_owned(), ..execution("exec_1") };
    store.record(&[second.clone(), whole.clone(), first.clone()]).await.unwrap();
    assert_eq!(store.execution(&tenant("acme"), &correlation("exec_1")).await.unwrap(), [whole, first, second]);
    assert_eq!(store.execution(&tenant("other"), &correlation("exec_1")).await.unwrap(), []);
    store.ping().await.unwrap();
    let expected = if place.server.is_some() { Backend::Postgres } else { Backend::Sqlite };
    assert_eq!(store.backend(), expected);
}

async fn an_execution_that_comes_twice_counts_once(place: Place) {
    let store = place.open().await;
    let good = execution("exec_1");
    let bad = Execution { at: Timestamp(2_000), success: false, quality: Some(0.25), ..execution("exec_2") };
    // Twice within a batch, and again in another; the later one first.
    store.record(&[bad.clone(), good.clone(), good.clone()]).await.unwrap();
    store.record(&[good.clone(), bad.clone()]).await.unwrap();

    let (key, sample) = good.sample().unwrap();
    let mut expected = EdgeStats::first(&sample);
    expected.learn(&bad.sample().unwrap().1);
    assert_eq!(store.edges().await.unwrap(), [(key, expected)]);
    assert_eq!(store.totals(&tenant("acme")).await.unwrap().executions, 2);
}

async fn repeats_share_a_row_and_each_is_counted_once_and_can_be_judged(place: Place) {
    let store = place.open().await;
    let made = execution("exec_origin");
    let stored = entry("answer", 1_000);
    let hit = |_| Execution {
        correlation_id: CorrelationId::generate(),
        method: Method::Cached,
        tier: Some(Tier::Exact),
        entry: Some(stored.id),
        origin: Some(made.correlation_id.clone()),
        ..made.clone()
    };
    let hits: Vec<Execution> = (0..50).map(hit).collect();
    store.record(std::slice::from_ref(&made)).await.unwrap();
    store.put_entries(std::slice::from_ref(&stored)).await.unwrap();
    store.record(&hits[..20]).await.unwrap();
    // The commit went unanswered: the same again, with more.
    store.record(&hits).await.unwrap();
    store.record(&hits).await.unwrap();
    assert_eq!(store.totals(&tenant("acme")).await.unwrap().executions, 51);
    // The ids were made within a few milliseconds: rarely, two spans.
    let rows = store.latencies(&tenant("acme"), 100).await.unwrap().len();
    assert!((3..=5).contains(&rows), "{rows} rows");

    let judge = async |who: &str, id: &CorrelationId| {
        store.judge(&tenant(who), id, Verdict::Wrong, None, Timestamp(2_000)).await.unwrap()
    };
    let last = &hits[49].correlation_id;
    assert_eq!(judge("other", last).await, None, "another tenant's");
    assert_eq!(judge("acme", &CorrelationId::generate()).await, None);
    let judged = judge("acme", last).await.unwrap();
    assert_eq!((judged.changed, judged.withdrawn, judged.blocked.len()), (true, vec![stored.id], 1));
    assert!(!judge("acme", last).await.unwrap().changed);
}

async fn a_template_is_as_slow_as_it_is_and_not_as_the_request_was(place: Place) {
    let store = place.open().await;
    let waited = Execution { time: Duration::from_secs(5), made_in: Duration::from_millis(2), ..execution("exec_1") };
    store.record(&[waited]).await.unwrap();
    assert!((store.edges().await.unwrap()[0].1.time_ms - 2.0).abs() < 1e-9);
    assert_eq!(store.latencies(&tenant("acme"), 1).await.unwrap(), [Duration::from_secs(5)]);
}

async fn samples_of_all_workers_are_folded_once_each(place: Place) {
    let (one, two) = (place.open().await, place.open().await);
    let templates = ["rust-a", "rust-b", "rust-c"];
    let mut workers = Vec::new();
    for worker in 0..4 {
        let store = if worker % 2 == 0 { one.clone() } else { two.clone() };
        workers.push(tokio::spawn(async move {
            for batch in 0..20 {
                let mut executions: Vec<Execution> = (0..6)
                    .map(|n| Execution {
                        template: Some(template(templates[n % 3])),
                        ..execution(&format!("exec_{worker}_{batch}_{n}"))
                    })
                    .collect();
                if worker > 1 {
                    executions.reverse();
                }
                store.record(&executions).await.unwrap();
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let edges = one.edges().await.unwrap();
    assert_eq!(edges.iter().map(|(_, stats)| stats.uses).collect::<Vec<_>>(), [160, 160, 160]);
    assert!(edges.iter().all(|(_, stats)| (stats.success - 1.0).abs() < 1e-9 && stats.quality.is_some()));
}

async fn totals_are_of_requests_of_one_tenant(place: Place) {
    let store = place.open().await;
    let none = store.totals(&tenant("acme")).await.unwrap();
    assert_eq!((none.executions, none.mean_time, none.mean_quality), (0, None, None));

    let hit = Execution { method: Method::Cached, quality: None, ..execution("exec_3") };
    let failed =
        Execution { method: Method::Fallback, template: None, success: false, quality: None, ..execution("exec_4") };
    let part = Execution { part: "root.1".to_owned(), ..by_model("exec_2") };
    let foreign = Execution { tenant: tenant("other"), ..by_model("exec_5") };
    store.record(&[execution("exec_1"), by_model("exec_2"), hit, failed, part, foreign]).await.unwrap();

    let totals = store.totals(&tenant("acme")).await.unwrap();
    assert_eq!((totals.executions, totals.successes), (4, 3));
    assert_eq!(
        totals.by_method,
        [(Method::Autonomous, 1), (Method::Cached, 1), (Method::LlmAssisted, 1), (Method::Fallback, 1)]
    );
    assert_eq!(totals.by_template, [(template("rust-api"), 2)]);
    assert_eq!(totals.cost, NanoUsd(1_234_567));
    assert_eq!((totals.all_model_cost, totals.all_model_priced), (NanoUsd(9_000_000), 1));
    assert_eq!(totals.tokens, Usage { input: 120, output: 45 });
    assert_eq!(totals.mean_time, Some(Duration::from_micros(1_234)));
    assert_eq!(totals.mean_quality, Some(0.75));
}

async fn an_absurd_cost_does_not_take_the_figures_away(place: Place) {
    let store = place.open().await;
    let absurd = |id| Execution {
        cost: NanoUsd(u64::MAX),
        usage: Usage { input: u64::MAX, output: u64::MAX },
        time: Duration::MAX,
        quality: Some(f64::NAN),
        ..by_model(id)
    };
    store.record(&[absurd("exec_1"), absurd("exec_2"), absurd("exec_3"), execution("exec_4")]).await.unwrap();
    let unmeasured = Execution { quality: Some(f64::NAN), ..execution("exec_5") };
    store.record(&[unmeasured]).await.unwrap();

    let totals = store.totals(&tenant("acme")).await.unwrap();
    assert_eq!(totals.executions, 5);
    assert_eq!(totals.cost, NanoUsd(u64::MAX), "the sum of three at the limit stays there");
    assert_eq!(totals.mean_quality, Some(0.75));
    let (_, stats) = store.edges().await.unwrap().remove(0);
    assert_eq!((stats.uses, stats.quality), (2, Some(0.75)), "what is no number is not learnt");
}

async fn latencies_and_qualities_are_the_newest(place: Place) {
    let store = place.open().await;
    let at = |n: i64| Execution {
        at: Timestamp(n),
        time: Duration::from_millis(n as u64),
        quality: Some(n as f64 / 10.0),
        ..execution(&format!("exec_{n}"))
    };
    let hit = Execution { method: Method::Cached, ..at(5) };
    store.record(&[at(3), at(1), at(4), at(2), hit]).await.unwrap();
    let newest = store.latencies(&tenant("acme"), 2).await.unwrap();
    assert_eq!(newest, [Duration::from_millis(5), Duration::from_millis(4)]);
    let trend = store.qualities(3).await.unwrap();
    assert_eq!(trend, [(Timestamp(2), 0.2), (Timestamp(3), 0.3), (Timestamp(4), 0.4)], "a hit measures nothing");
}

async fn a_wrong_verdict_withdraws_blocks_and_moves_the_score_once(place: Place) {
    let store = place.open().await;
    let stored = CacheEntry { origin: correlation("exec_1"), ..entry("a task", 1_000) };
    let bystander = entry("another task", 1_000);
    store.put_entries(&[stored.clone(), bystander.clone()]).await.unwrap();
    store.record(&[Execution { entry: Some(stored.id), ..execution("exec_1") }]).await.unwrap();
    let judge = |verdict| {
        let store = store.clone();
        async move {
            let comment = Some("not what I\0asked for");
            store.judge(&tenant("acme"), &correlation("exec_1"), verdict, comment, Timestamp(2_000)).await.unwrap()
        }
    };
    let success = || async { store.edges().await.unwrap()[0].1.success };

    let first = judge(Verdict::Wrong).await.unwrap();
    assert!(first.changed);
    assert_eq!(first.withdrawn, [stored.id]);
    assert_eq!(first.blocked, store.blocks().await.unwrap());
    assert_eq!(first.blocked.len(), 1);
    assert_eq!(first.blocked[0].template, template("rust-api"));
    assert_eq!(first.edges.len(), 1);
    assert!((success().await - 0.7).abs() < 1e-9);
    assert!(store.entry(stored.id).await.unwrap().is_none());
    assert!(store.entry(bystander.id).await.unwrap().is_some());

    let again = judge(Verdict::Wrong).await.unwrap();
    assert_eq!(again, tandem::store::Judgement { changed: false, ..first.clone() });
    assert!((success().await - 0.7).abs() < 1e-9, "the same verdict moves the score once");

    let good = judge(Verdict::Good).await.unwrap();
    assert!(good.changed);
    assert_eq!(good.unblocked, first.blocked);
    assert_eq!(store.blocks().await.unwrap(), []);
    for verdict in [Verdict::Wrong, Verdict::Good, Verdict::Wrong, Verdict::Good] {
        assert!(judge(verdict).await.unwrap().changed);
    }
    assert!((success().await - 0.7).abs() < 1e-9, "the first verdict on an answer is the one that counts");
    assert!(store.entry(stored.id).await.unwrap().is_none(), "what is withdrawn stays withdrawn");
    let none = store.judge(&tenant("acme"), &correlation("exec_0"), Verdict::Good, None, Timestamp(1)).await;
    assert_eq!(none.unwrap(), None);
}

async fn a_block_stands_while_any_verdict_does(place: Place) {
    let store = place.open().await;
    store.record(&[execution("exec_1"), execution("exec_2")]).await.unwrap();
    let judge = |id, verdict| {
        let store = store.clone();
        async move {
            let now = Timestamp(2_000);
            store.judge(&tenant("acme"), &correlation(id), verdict, None, now).await.unwrap().unwrap()
        }
    };
    judge("exec_1", Verdict::Wrong).await;
    judge("exec_2", Verdict::Wrong).await;
    assert_eq!(store.blocks().await.unwrap().len(), 1);
    assert_eq!(judge("exec_1", Verdict::Good).await.unblocked, []);
    assert_eq!(store.blocks().await.unwrap().len(), 1);
    assert_eq!(judge("exec_2", Verdict::Good).await.unblocked.len(), 1);
    assert_eq!(store.blocks().await.unwrap(), []);
}

async fn a_verdict_on_a_hit_reaches_the_entry_and_the_template_behind_it(place: Place) {
    let store = place.open().await;
    let stored = CacheEntry { origin: correlation("exec_1"), ..entry("a task", 1_000) };
    let part_entry = CacheEntry { kind: EntryKind::Task, ..entry("a part", 1_000) };
    store.put_entries(&[stored.clone(), part_entry.clone()]).await.unwrap();
    let hit = Execution {
        method: Method::Cached,
        tier: Some(Tier::Semantic),
        entry: Some(stored.id),
        task_key: [9; 32],
        ..execution("exec_2")
    };
    let part = Execution {
        part: "root.1".to_owned(),
        entry: Some(part_entry.id),
        template: None,
        model: Some("some-model-1".to_owned()),
        ..hit.clone()
    };
    store.record(&[execution("exec_1"), hit, part]).await.unwrap();
    let judged = store.judge(&tenant("acme"), &correlation("exec_2"), Verdict::Wrong, None, Timestamp(2_000)).await;
    let judged = judged.unwrap().unwrap();
    let ids = |ids: &[EntryId]| ids.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(ids(&judged.withdrawn), ids(&[stored.id, part_entry.id]));
    assert_eq!(judged.blocked.len(), 1, "what a model wrote blocks no template");
    assert_eq!(judged.blocked[0].task_key, [9; 32], "blocked for the task that was asked");
}

async fn a_verdict_on_a_hit_reaches_the_parts_of_what_was_served(place: Place) {
    let store = place.open().await;
    let whole = CacheEntry { origin: correlation("exec_1"), ..entry("a and b and c", 1_000) };
    let stored = CacheEntry { origin: correlation("exec_1"), kind: EntryKind::Task, ..entry("b", 1_000) };
    let recalled = CacheEntry { origin: correlation("exec_0"), kind: EntryKind::Task, ..entry("c", 900) };
    let bystander = CacheEntry { origin: correlation("exec_0"), ..entry("c and d", 900) };
    store.put_entries(&[whole.clone(), stored.clone(), recalled.clone(), bystander.clone()]).await.unwrap();
    let compound = Execution { template: None, entry: Some(whole.id), ..execution("exec_1") };
    let part = |part: &str, key: u8| Execution { part: part.to_owned(), task_key: [key; 32], ..execution("exec_1") };
    let by_rules = part("root.1", 1);
    let model = Execution { part: "root.2".to_owned(), task_key: [2; 32], ..by_model("exec_1") };
    let cached = Execution {
        part: "root.3".to_owned(),
        method: Method::Cached,
        entry: Some(recalled.id),
        origin: Some(correlation("exec_0")),
        ..by_model("exec_1")
    };
    // The request of which only part c was served.
    let elsewhere = [
        Execution { entry: Some(bystander.id), template: None, ..execution("exec_0") },
        Execution { part: "root.1".to_owned(), ..by_model("exec_0") },
        Execution {
            part: "root.2".to_owned(),
            task_key: [5; 32],
            template: Some(template("rust-d")),
            ..execution("exec_0")
        },
    ];
    let hit = |id| Execution {
        method: Method::Cached,
        tier: Some(Tier::Exact),
        template: None,
        entry: Some(whole.id),
        origin: Some(correlation("exec_1")),
        ..execution(id)
    };
    store.record(&elsewhere).await.unwrap();
    store.record(&[compound, by_rules, model, cached, hit("exec_2"), hit("exec_3")]).await.unwrap();
    let id = RequestId::parse("order-17").unwrap();
    let claim = async |now| {
        let holder = correlation("exec_3");
        let lease = Duration::from_millis(100);
        store.claim(&tenant("acme"), &id, &[1; 32], &holder, Timestamp(now), lease).await.unwrap()
    };
    assert_eq!(claim(1_000).await, Claim::Won);
    assert!(store.settle(&tenant("acme"), &id, &correlation("exec_3"), "the same text").await.unwrap());

    let judge = async |id: &str| {
        store.judge(&tenant("acme"), &correlation(id), Verdict::Wrong, None, Timestamp(2_000)).await.unwrap().unwrap()
    };
    let judged = judge("exec_2").await;
    let ids = |ids: &[EntryId]| ids.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(ids(&judged.withdrawn), ids(&[whole.id, stored.id, recalled.id]));
    let blocked: Vec<_> = judged.blocked.iter().map(|b| (b.task_key, b.template.as_str())).collect();
    assert_eq!(blocked, [([1; 32], "rust-api")], "the part's template, for the part's task");
    let success = async || {
        let edges = store.edges().await.unwrap();
        edges.iter().map(|(key, stats)| (key.template.to_string(), stats.success)).collect::<Vec<_>>()
    };
    let moved = [("rust-api".to_owned(), 0.7), ("rust-d".to_owned(), 1.0)];
    assert_eq!(success().await, moved);
    assert_eq!(claim(2_000).await, Claim::Won, "another hit's reply, kept for an id, held the same text");

    assert_eq!(judge("exec_3").await.blocked, judged.blocked);
    assert_eq!(success().await, moved, "it is the same answer that is judged");
}

async fn another_tenant_can_not_judge_or_withdraw(place: Place) {
    let store = place.open().await;
    let foreign = entry("a task", 1_000);
    store.put_entries(std::slice::from_ref(&foreign)).await.unwrap();
    store.record(&[execution("exec_1")]).await.unwrap();
    let claiming = Execution { tenant: tenant("other"), entry: Some(foreign.id), ..execution("exec_2") };
    store.record(&[claiming]).await.unwrap();
    let now = Timestamp(2_000);
    let none = store.judge(&tenant("other"), &correlation("exec_1"), Verdict::Wrong, None, now).await.unwrap();
    assert_eq!(none, None);
    let own = store.judge(&tenant("other"), &correlation("exec_2"), Verdict::Wrong, None, now).await.unwrap();
    assert_eq!(own.unwrap().withdrawn, []);
    assert!(store.entry(foreign.id).await.unwrap().is_some());
}

async fn an_entry_replaces_the_one_with_its_key_unless_that_is_newer(place: Place) {
    let store = place.open().await;
    let first = entry("a task", 1_000);
    let second = CacheEntry { id: new_entry_id(), created: Timestamp(2_000), ..first.clone() };
    let late = CacheEntry { id: new_entry_id(), created: Timestamp(1_500), ..first.clone() };
    let for_parts = CacheEntry { id: new_entry_id(), kind: EntryKind::Task, ..first.clone() };
    assert_eq!(store.put_entries(std::slice::from_ref(&first)).await.unwrap(), []);
    assert_eq!(store.put_entries(&[second.clone(), for_parts.clone()]).await.unwrap(), [first.id]);
    assert_eq!(store.put_entries(std::slice::from_ref(&late)).await.unwrap(), [late.id]);
    // A put whose commit went unanswered is repeated: nothing happens, and what was replaced stays so.
    assert_eq!(store.put_entries(std::slice::from_ref(&first)).await.unwrap(), []);

    assert!(store.entry(first.id).await.unwrap().is_none());
    assert!(store.entry(late.id).await.unwrap().is_none());
    assert!(store.entry(for_parts.id).await.unwrap().is_some());
    let read = store.entry(second.id).await.unwrap().unwrap();
    assert_eq!((read.task, &read.answer, read.created), (second.task, &second.answer, second.created));
    assert_eq!((read.scope, read.exact, read.origin), (second.scope, second.exact, second.origin));
}

async fn a_copy_of_the_cache_follows_by_sequence(place: Place) {
    let store = place.open().await;
    let entries: Vec<CacheEntry> = (0..5).map(|n| entry(&format!("task {n}"), 1_000)).collect();
    store.put_entries(&entries).await.unwrap();

    let mut loaded = Vec::new();
    let mut seen = Sequence::default();
    loop {
        let page = store.changes_since(seen, Timestamp(1_000), 2).await.unwrap();
        loaded.extend(page.put.iter().map(|e| e.id));
        seen = page.seen;
        if page.complete {
            break;
        }
    }
    assert_eq!(loaded, entries.iter().map(|e| e.id).collect::<Vec<_>>());
    let quiet = store.changes_since(seen, Timestamp(1_000), 100).await.unwrap();
    assert!(quiet.put.is_empty() && quiet.withdrawn.is_empty() && quiet.complete && quiet.seen == seen);

    let vector: Arc<[f32]> = Arc::from([0.6_f32, -0.8, f32::MIN_POSITIVE]);
    store.set_vectors(&[(entries[3].id, vector.clone()), (new_entry_id(), vector.clone())]).await.unwrap();
    let now = Timestamp(2_000);
    assert_eq!(store.withdraw(&[entries[1].id, new_entry_id()], now).await.unwrap(), [entries[1].id]);
    assert_eq!(store.withdraw(&[entries[1].id], now).await.unwrap(), []);
    store.set_vectors(&[(entries[1].id, vector.clone())]).await.unwrap();

    let news = store.changes_since(seen, now, 100).await.unwrap();
    assert_eq!(news.withdrawn, [entries[1].id]);
    assert_eq!(news.put.len(), 1);
    assert_eq!(news.put[0].id, entries[3].id);
    assert_eq!(news.put[0].vector.as_deref(), Some(&vector[..]));
    assert_eq!(news.seen, Sequence(seen.0 + 2), "what changed nothing takes no number");
}

async fn no_change_is_missed_while_workers_write_at_once(place: Place) {
    let stores = [place.open().await, place.open().await];
    // All workers write the same keys in different orders, each its own entries.
    let keys: Vec<CacheEntry> = (0..8).map(|n| entry(&format!("task {n}"), 1_000)).collect();
    let mut workers = Vec::new();
    for worker in 0..4_usize {
        let store = stores[worker % 2].clone();
        let keys = keys.clone();
        workers.push(tokio::spawn(async move {
            let mut own = Vec::new();
            for round in 0..10 {
                let mut batch: Vec<CacheEntry> =
                    keys.iter().map(|key| CacheEntry { id: new_entry_id(), ..key.clone() }).collect();
                batch.rotate_left((worker * 2 + round) % keys.len());
                own.extend(batch.iter().map(|e| e.id));
                store.put_entries(&batch).await.unwrap();
            }
            own
        }));
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let reader = tokio::spawn({
        let store = stores[0].clone();
        async move {
            let (mut live, mut seen) = (BTreeSet::new(), Sequence::default());
            loop {
                let last = *stopped.borrow();
                let news = store.changes_since(seen, Timestamp(0), 1_000).await.unwrap();
                for id in &news.withdrawn {
                    live.remove(id);
                }
                live.extend(news.put.iter().map(|e| e.id));
                seen = news.seen;
                if last && news.complete {
                    return live;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let mut written = 0;
    for worker in workers {
        written += worker.await.unwrap().len();
    }
    stop.send(true).unwrap();
    let followed = reader.await.unwrap();
    let all = all_changes(&stores[1]).await;
    assert_eq!(followed, all.put.iter().map(|e| e.id).collect());
    assert_eq!((all.put.len(), all.withdrawn.len()), (8, written - 8), "one live entry per key");
}

async fn what_expired_is_purged_and_a_withdrawal_is_not_forgotten_before(place: Place) {
    let store = place.open().await;
    let entries: Vec<CacheEntry> =
        [100, 200, 300].map(|end| CacheEntry { expires: Timestamp(end), ..entry(&format!("task {end}"), 0) }).to_vec();
    store.put_entries(&entries).await.unwrap();
    store.withdraw(&[entries[1].id], Timestamp(120)).await.unwrap();
    let id = RequestId::parse("order-1").unwrap();
    let week = Duration::from_secs(7 * 24 * 3600);
    let claim = |now| store.claim(&entries[0].tenant, &id, &[1; 32], &entries[0].origin, now, Duration::ZERO);
    claim(Timestamp(150)).await.unwrap();

    assert_eq!(store.purge_expired(Timestamp(150)).await.unwrap(), (1, 0));
    let left = all_changes(&store).await;
    assert_eq!((left.put.len(), left.withdrawn), (1, vec![entries[1].id]));
    let unexpired = store.changes_since(Sequence::default(), Timestamp(250), 10).await.unwrap();
    assert_eq!((unexpired.put.len(), unexpired.withdrawn.len()), (1, 0));
    assert_eq!(store.purge_expired(Timestamp(150).plus(week)).await.unwrap(), (2, 1));
}

async fn of_many_who_want_the_lead_one_gets_it_until_its_beat_stands_still(place: Place) {
    let stores = [place.open().await, place.open().await];
    let (exact, now) = ([7; 32], Timestamp(1_000));
    let wanted = (0..20_usize).map(|n| {
        let store = stores[n % 2].clone();
        tokio::spawn(async move { store.lead(&exact, &correlation(&format!("exec_{n}")), None, now).await.unwrap() })
    });
    let got: Vec<Lead> = futures::future::join_all(wanted).await.into_iter().map(Result::unwrap).collect();
    let winner = got.iter().position(|lead| *lead == Lead::Won).unwrap();
    assert_eq!(got.iter().filter(|lead| **lead == Lead::Held { beat: 0 }).count(), 19, "{got:?}");

    let (store, holder, other) = (&stores[0], correlation(&format!("exec_{winner}")), correlation("exec_other"));
    assert!(store.beat(&exact, &holder, now).await.unwrap());
    assert_eq!(store.lead_of(&exact).await.unwrap(), Some(1));
    assert_eq!(store.lead(&exact, &other, Some(0), now).await.unwrap(), Lead::Held { beat: 1 }, "it is not silent");
    assert_eq!(store.lead(&exact, &other, Some(1), now).await.unwrap(), Lead::Won);
    assert!(!store.beat(&exact, &holder, now).await.unwrap(), "another has taken over");
    store.land(&exact, &holder).await.unwrap();
    assert_eq!(store.lead_of(&exact).await.unwrap(), Some(2), "who lost the lead can't end it");
    store.land(&exact, &other).await.unwrap();
    assert_eq!(store.lead_of(&exact).await.unwrap(), None);
    assert_eq!(store.lead(&exact, &holder, None, now).await.unwrap(), Lead::Won);
    store.purge_expired(Timestamp(61_001)).await.unwrap();
    assert_eq!(store.lead_of(&exact).await.unwrap(), None, "what a dead worker left behind goes");

    let stored = entry("a task", 1_000);
    store.put_entries(std::slice::from_ref(&stored)).await.unwrap();
    let of =
        async |tenant: &Tenant| store.entry_of(tenant, stored.kind, &stored.exact, Timestamp(1_000)).await.unwrap();
    assert_eq!(of(&stored.tenant).await.unwrap().id, stored.id);
    assert!(of(&tenant("another")).await.is_none());
    store.withdraw(&[stored.id], now).await.unwrap();
    assert!(of(&stored.tenant).await.is_none());
}

async fn a_sweep_takes_what_fits_and_goes_on_where_it_stopped(place: Place) {
    let store = place.open().await;
    let made = |n: usize, template_name: &str, created| {
        let entry = entry(&format!("task {n}"), created);
        let answer = Answer { template: Some(template(template_name)), ..Answer::clone(&entry.answer) };
        CacheEntry { answer: Arc::new(answer), ..entry }
    };
    let entries: Vec<CacheEntry> =
        (0..10).map(|n| made(n, if n % 2 == 0 { "even" } else { "odd" }, if n < 8 { 1_000 } else { 3_000 })).collect();
    store.put_entries(&entries).await.unwrap();
    let owner = &entries[0].tenant;
    let what = Sweep { template: Some(template("even")), ..Sweep::default() };
    let (until, now) = (Timestamp(2_000), Timestamp(2_500));
    let (mut from, mut taken, mut pages) = (Some(Sequence::default()), vec![], 0);
    while let Some(seen) = from {
        let (ids, next) = store.sweep(owner, until, &what, seen, now, 3).await.unwrap();
        taken.extend(ids);
        (from, pages) = (next, pages + 1);
    }
    assert_eq!(taken, [0, 2, 4, 6].map(|n: usize| entries[n].id), "the later ones and those of others stay");
    assert!(pages > 2);
    let foreign =
        store.sweep(&tenant("another"), Timestamp(9_000), &Sweep::default(), Sequence::default(), now, 100).await;
    assert!(foreign.unwrap().0.is_empty());
    let (rest, _) =
        store.sweep(owner, Timestamp(9_000), &Sweep::default(), Sequence::default(), now, 100).await.unwrap();
    assert_eq!(rest.len(), 6, "without a field it takes everything");
}

async fn of_twenty_claims_one_wins(place: Place) {
    let stores = [place.open().await, place.open().await];
    let id = RequestId::parse("order-1").unwrap();
    let mut tasks = Vec::new();
    for n in 0..20_usize {
        let (store, id) = (stores[n % 2].clone(), id.clone());
        tasks.push(tokio::spawn(async move {
            let holder = correlation(&format!("exec_{n}"));
            let lease = Duration::from_secs(60);
            store.claim(&tenant("acme"), &id, &[1; 32], &holder, Timestamp(1_000), lease).await.unwrap()
        }));
    }
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Claim::Won => won += 1,
            Claim::Running { until } => assert_eq!(until, Timestamp(61_000)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(won, 1);
}

async fn a_claim_is_answered_taken_over_or_refused(place: Place) {
    let store = place.open().await;
    let id = RequestId::parse("order-1").unwrap();
    let (acme, ann, bob) = (tenant("acme"), correlation("exec_ann"), correlation("exec_bob"));
    let claim = |holder: &CorrelationId, body: u8, now: i64| {
        let (store, id, acme, holder) = (store.clone(), id.clone(), acme.clone(), holder.clone());
        async move {
            let lease = Duration::from_millis(100);
            store.claim(&acme, &id, &[body; 32], &holder, Timestamp(now), lease).await.unwrap()
        }
    };
    assert_eq!(claim(&ann, 1, 0).await, Claim::Won);
    assert_eq!(claim(&bob, 1, 99).await, Claim::Running { until: Timestamp(100) });
    let seen = async |body| store.claimed(&tenant("acme"), &id, &[body; 32]).await.unwrap();
    assert_eq!(seen(1).await, Some(Claim::Running { until: Timestamp(100) }));
    assert_eq!(seen(2).await, Some(Claim::Conflict));
    assert!(!store.renew(&acme, &id, &bob, Timestamp(900)).await.unwrap(), "bob holds nothing");
    assert!(store.renew(&acme, &id, &ann, Timestamp(120)).await.unwrap());
    assert_eq!(claim(&bob, 1, 119).await, Claim::Running { until: Timestamp(120) });
    assert_eq!(claim(&bob, 2, 500).await, Claim::Conflict, "even an expired lease is for its body");
    assert_eq!(claim(&bob, 1, 120).await, Claim::Won, "an expired lease is taken over");
    assert!(!store.settle(&acme, &id, &ann, "{}").await.unwrap(), "ann lost the lease");
    store.release(&acme, &id, &ann).await.unwrap();
    assert_eq!(claim(&ann, 1, 121).await, Claim::Running { until: Timestamp(220) }, "only the holder releases");

    store.release(&acme, &id, &bob).await.unwrap();
    assert_eq!(claim(&ann, 2, 122).await, Claim::Won, "a released id is free for any body");
    let reply = "{\"result\":\"a\0b\"}";
    assert!(store.settle(&acme, &id, &ann, reply).await.unwrap());
    assert!(store.settle(&acme, &id, &ann, reply).await.unwrap(), "settling again is fine");
    assert!(!store.settle(&acme, &id, &ann, "{}").await.unwrap(), "but not with another reply");
    store.release(&acme, &id, &ann).await.unwrap();
    assert_eq!(claim(&bob, 2, 9_999).await, Claim::Answered(reply.to_owned()));
    assert_eq!(claim(&bob, 1, 9_999).await, Claim::Conflict);
    let other = store.claim(&tenant("other"), &id, &[1; 32], &bob, Timestamp(0), Duration::ZERO).await;
    assert_eq!(other.unwrap(), Claim::Won, "ids of another tenant are others");
}

/// Another process that keeps writers waiting.
enum Busy {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Busy {
    async fn begin(place: &Place) -> Self {
        let url = &place.options.url;
        if place.server.is_none() {
            let pool = sqlx::SqlitePool::connect(url).await.unwrap();
            return Self::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await.unwrap());
        }
        let mut tx = sqlx::PgPool::connect(url).await.unwrap().begin().await.unwrap();
        sqlx::query("LOCK TABLE claims IN EXCLUSIVE MODE").execute(&mut *tx).await.unwrap();
        Self::Postgres(tx)
    }

    async fn end(self) {
        match self {
            Self::Sqlite(tx) => tx.rollback().await.unwrap(),
            Self::Postgres(tx) => tx.rollback().await.unwrap(),
        }
    }
}

async fn of_claims_that_share_a_commit_one_of_each_id_wins(place: Place) {
    let stores = [place.open().await, place.open().await];
    let (acme, lease) = (tenant("acme"), Duration::from_secs(60));
    let id = |n: usize| RequestId::parse(&format!("order-{}", n % 7)).unwrap();
    let holder = |n: usize| correlation(&format!("exec_{n}"));
    for round in 0..10 {
        let busy = Busy::begin(&place).await;
        let (now, of) = (Timestamp(round * 100_000), round as usize * 1_000..round as usize * 1_000 + 200);
        let claims = futures::future::join_all(of.clone().map(|n| {
            let (store, acme) = (&stores[n % 2], &acme);
            async move { store.claim(acme, &id(n), &[1; 32], &holder(n), now, lease).await.unwrap() }
        }));
        // All wait for the first of them.
        let (claims, ()) = tokio::join!(claims, busy.end());
        let won: Vec<bool> = claims.iter().map(|claim| *claim == Claim::Won).collect();
        for id in 0..7 {
            assert_eq!(of.clone().zip(&won).filter(|(n, won)| n % 7 == id && **won).count(), 1, "{round} {id}");
        }
        let ends = futures::future::join_all(of.clone().map(|n| {
            let (store, acme) = (&stores[(n + 1) % 2], &acme);
            async move { store.release(acme, &id(n), &holder(n)).await.unwrap() }
        }));
        assert_eq!(ends.await, won, "only who has won may let go");
    }
    // And of all that settle, only the holder.
    let claims = futures::future::join_all((0..200).map(|n| {
        let (store, acme) = (&stores[n % 2], &acme);
        async move { store.claim(acme, &id(n), &[1; 32], &holder(n), Timestamp(0), lease).await.unwrap() }
    }));
    let won: Vec<bool> = claims.await.iter().map(|claim| *claim == Claim::Won).collect();
    let kept = futures::future::join_all((0..200).map(|n| {
        let (store, acme) = (&stores[n % 2], &acme);
        async move { store.settle(acme, &id(n), &holder(n), &format!("reply {n}")).await.unwrap() }
    }));
    assert_eq!(kept.await, won);
    for (n, _) in won.iter().enumerate().filter(|(_, won)| **won) {
        let stands = stores[1].claimed(&acme, &id(n), &[1; 32]).await.unwrap();
        assert_eq!(stands, Some(Claim::Answered(format!("reply {n}"))));
    }
}

async fn a_refused_call_does_not_spoil_those_it_shares_a_commit_with(mut place: Place) {
    // On PostgreSQL: one transaction at a time.
    place.options.max_connections = 2;
    let store = place.open().await;
    // A rule of the database's own that a claim can break.
    let rule = "CREATE UNIQUE INDEX of_the_test ON claims (body_hash)";
    match place.server {
        Some(_) => sqlx::query(rule).execute(&sqlx::PgPool::connect(&place.options.url).await.unwrap()).await.map(drop),
        None => {
            sqlx::query(rule).execute(&sqlx::SqlitePool::connect(&place.options.url).await.unwrap()).await.map(drop)
        }
    }
    .unwrap();
    let busy = Busy::begin(&place).await;
    let (acme, lease) = (tenant("acme"), Duration::from_secs(60));
    let claims = futures::future::join_all((0..20_u8).map(|n| {
        let (store, acme) = (&store, &acme);
        async move {
            let (id, holder) = (RequestId::parse(&format!("order-{n:02}")).unwrap(), correlation(&format!("exec_{n}")));
            // The eleventh has the body of the one before it.
            let body = if n == 11 { 10 } else { n };
            store.claim(acme, &id, &[body; 32], &holder, Timestamp(0), lease).await
        }
    }));
    let (claims, ()) = tokio::join!(claims, busy.end());
    for (n, claim) in claims.into_iter().enumerate() {
        match claim {
            Ok(claim) => assert!(n != 11 && claim == Claim::Won, "{n}: {claim:?}"),
            Err(error) => assert!(n == 11 && error.is_refusal(), "{n}: {error:?}"),
        }
    }
}

// On one thread: nothing runs between a poll and what follows it.
#[tokio::test]
async fn a_caller_that_went_away_has_claimed_nothing() {
    for mut place in [Place::sqlite(), Place::postgres()] {
        place.options.max_connections = 2;
        let store = place.open().await;
        let busy = Busy::begin(&place).await;
        let (acme, lease) = (tenant("acme"), Duration::from_secs(60));
        let [first, gone, last] = ["first", "gone", "last"].map(|id| RequestId::parse(id).unwrap());
        let holder = correlation("exec_1");
        let claim = |id| store.claim(&acme, id, &[1; 32], &holder, Timestamp(0), lease);
        let mut waiting = Box::pin(claim(&first));
        assert!(futures::poll!(&mut waiting).is_pending());
        let mut left = Box::pin(claim(&gone));
        assert!(futures::poll!(&mut left).is_pending());
        drop(left);
        busy.end().await;
        assert_eq!(waiting.await.unwrap(), Claim::Won);
        assert_eq!(claim(&last).await.unwrap(), Claim::Won);
        assert_eq!(store.claimed(&acme, &gone, &[1; 32]).await.unwrap(), None);
    }
}

async fn texts_with_nul_and_worse_come_back_as_they_were(place: Place) {
    let store = place.open().await;
    let long = "x".repeat(100_000);
    let texts =
        ["a\0b", "'; DROP TABLE executions; --", "\u{feff}\u{202e}\u{10ffff}\r\n\t\u{7f}", "$1 ?1 {{ x }}", &long];
    for text in texts {
        let stored = entry(text, 1_000);
        store.put_entries(std::slice::from_ref(&stored)).await.unwrap();
        let read = store.entry(stored.id).await.unwrap().unwrap();
        assert_eq!((&*read.task, read.answer), (text, stored.answer));
    }
    let languages = ["a\0b", "'; --", &long];
    for (n, language) in languages.iter().enumerate() {
        let odd = Execution {
            language: Language::Other((*language).into()),
            model: Some((*language).to_owned()),
            method: Method::Autonomous,
            ..execution(&format!("exec_{n}"))
        };
        store.record(&[odd]).await.unwrap();
    }
    // Names are labels: NUL is replaced and the end cut, on both databases alike.
    let read: BTreeSet<String> = store.edges().await.unwrap().iter().map(|(k, _)| k.language.to_string()).collect();
    assert_eq!(read, BTreeSet::from(["a\u{fffd}b".to_owned(), "'; --".to_owned(), "x".repeat(200)]));
    assert_eq!(store.totals(&tenant("acme")).await.unwrap().executions, 3);
}

async fn three_workers_may_start_on_a_new_database_at_once(place: Place) {
    let options = Arc::new(place.options.clone());
    let starting: Vec<_> = (0..3)
        .map(|n| {
            let options = options.clone();
            tokio::spawn(async move {
                let store = Store::open(&options).await.unwrap();
                store.record(&[execution(&format!("exec_{n}"))]).await.unwrap();
            })
        })
        .collect();
    for worker in starting {
        worker.await.unwrap();
    }
    assert_eq!(place.open().await.edges().await.unwrap()[0].1.uses, 3);
}

async fn a_reopened_database_knows_what_it_knew(mut place: Place) {
    place.options.durability = Durability::Power;
    let store = place.open().await;
    store.record(&[execution("exec_1")]).await.unwrap();
    let known = store.edges().await.unwrap();
    match &mut place.server {
        // The server dies without a word and comes back.
        Some(server) => {
            server.pause();
            let error = store.record(&[execution("exec_2")]).await.unwrap_err();
            assert!(error.is_transient(), "{error:?}");
            assert!(server.resume());
            assert_eq!(store.edges().await.unwrap(), known, "the same pool finds the server again");
        }
        // What lies on the disk at this moment is what a killed worker leaves.
        None => {
            let (file, copy) = (place.file(), place.folder.path().join("copy.db"));
            std::fs::copy(&file, &copy).unwrap();
            std::fs::copy(file.with_extension("db-wal"), copy.with_extension("db-wal")).unwrap();
            place.options.url = format!("sqlite:{}", copy.display());
        }
    }
    assert_eq!(place.open().await.edges().await.unwrap(), known);
    store.close().await;
    assert!(store.ping().await.is_err());
}

async fn the_recorder_writes_what_it_accepted(place: Place) {
    let store = place.open().await;
    let slow = RecorderOptions { flush_interval_ms: 3_600_000, max_batch: 10, ..RecorderOptions::default() };
    let recorder = Recorder::start(store.clone(), &slow);
    let mut commits = recorder.commits();

    let stored = entry("a task", 1_000);
    recorder.record(Write::Entry(stored.clone()));
    recorder.record(Write::Vector(stored.id, Arc::from([1.0_f32])));
    recorder.record(Write::Execution(execution("exec_0")));
    recorder.flush().await.unwrap();
    assert_eq!(*commits.borrow_and_update(), 1, "three writes, one transaction");
    assert!(store.entry(stored.id).await.unwrap().unwrap().vector.is_some());

    recorder.record_durably(by_model("exec_1")).await.unwrap();
    assert_eq!(store.totals(&tenant("acme")).await.unwrap().executions, 2);
    assert_eq!(*commits.borrow_and_update(), 2);

    for n in 2..12 {
        recorder.record(Write::Execution(execution(&format!("exec_{n}"))));
    }
    commits.changed().await.unwrap();
    assert_eq!(store.totals(&tenant("acme")).await.unwrap().executions, 12, "a full batch does not wait");

    recorder.record(Write::Execution(execution("exec_12")));
    assert_eq!(recorder.waiting(), 1);
    assert_eq!(recorder.stop(Duration::from_secs(10)).await, 0);
    assert_eq!(store.totals(&tenant("acme")).await.unwrap().executions, 13, "stopping drains");
    recorder.record(Write::Execution(execution("exec_13")));
    assert_eq!(recorder.dropped(), 1);
    assert!(matches!(recorder.record_durably(execution("exec_14")).await, Err(Error::Stopped)));
}

async fn a_full_queue_drops_and_counts_without_waiting(place: Place) {
    let store = place.open().await;
    // One write is held by the writer at most, for an hour; three wait.
    let small = RecorderOptions { flush_interval_ms: 3_600_000, max_batch: 1_000, queue: 3 };
    let recorder = Recorder::start(store.clone(), &small);
    let executions = 100_000;
    let begun = Instant::now();
    let one = execution("exec_1");
    for _ in 0..executions {
        recorder.record(Write::Execution(one.clone()));
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    let (dropped, waiting) = (recorder.dropped(), recorder.waiting());
    assert!(dropped > 0);
    assert!(dropped + waiting <= executions, "{dropped} dropped, {waiting} waiting");
    recorder.flush().await.unwrap();
    assert_eq!(recorder.waiting(), 0);
}

async fn one_refused_record_does_not_stop_the_others(place: Place) {
    let store = place.open().await;
    // A rule of the database's own that a record can break.
    let rule = "CREATE UNIQUE INDEX of_the_test ON cache_entries (task)";
    match place.server {
        Some(_) => sqlx::query(rule).execute(&sqlx::PgPool::connect(&place.options.url).await.unwrap()).await.map(drop),
        None => {
            sqlx::query(rule).execute(&sqlx::SqlitePool::connect(&place.options.url).await.unwrap()).await.map(drop)
        }
    }
    .unwrap();
    let recorder = Recorder::start(store.clone(), &RecorderOptions::default());
    let (good, bad) = (entry("a task", 1_000), entry("a task", 1_000));
    recorder.record(Write::Entry(good.clone()));
    recorder.record(Write::Entry(bad));
    recorder.record_durably(execution("exec_1")).await.unwrap();
    assert_eq!((recorder.refused(), recorder.waiting()), (1, 0));
    assert!(store.entry(good.id).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_wait_for_a_database_that_went_away() {
    let mut place = Place::postgres();
    place.options.connect_timeout_ms = 1_000;
    let store = place.open().await;
    let recorder = Recorder::start(store.clone(), &RecorderOptions::default());
    place.server.as_mut().unwrap().pause();
    for n in 0..50 {
        recorder.record(Write::Execution(execution(&format!("exec_{n}"))));
    }
    let spent = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.record_durably(by_model("exec_50")).await }
    });
    while recorder.failures() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!spent.is_finished(), "what is not committed is not acknowledged");
    assert!(place.server.as_mut().unwrap().resume());
    spent.await.unwrap().unwrap();
    recorder.flush().await.unwrap();
    assert_eq!(store.totals(&tenant("acme")).await.unwrap().executions, 51);
    assert_eq!((recorder.dropped(), recorder.refused(), recorder.waiting()), (0, 0, 0));

    place.server.as_mut().unwrap().pause();
    recorder.record(Write::Execution(execution("exec_51")));
    assert_eq!(recorder.stop(Duration::from_millis(300)).await, 1, "what could not be written is counted");
}

/// The whole chain of causes, as a person would see it.
async fn refusal(url: &str, limit_ms: u64) -> (Error, String) {
    let options = Options { url: url.to_owned(), connect_timeout_ms: limit_ms, ..Options::default() };
    let begun = Instant::now();
    let error = Store::open(&options).await.expect_err(url);
    assert!(begun.elapsed() < Duration::from_millis(limit_ms + 1_000), "{url} took {:?}", begun.elapsed());
    let mut text = format!("{error}\n{error:?}");
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(source) = cause {
        text = format!("{text}\n{source}");
        cause = source.source();
    }
    (error, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_can_not_be_opened_says_what_to_do_and_no_password() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let (error, text) = refusal(&format!("postgres://ann:hunter2@127.0.0.1:{port}/tandem"), 500).await;
    assert!(matches!(error, Error::ConnectTimeout { .. }) && error.is_transient(), "{text}");
    assert!(text.contains(&format!("postgres://ann@127.0.0.1:{port}/tandem")) && !text.contains("hunter2"), "{text}");

    drop(silent);
    let (error, text) = refusal(&format!("postgres://ann:hunter2@127.0.0.1:{port}/tandem"), 5_000).await;
    assert!(error.is_transient() && text.contains("start the server") && !text.contains("hunter2"), "{text}");

    let place = Place::postgres();
    let wrong = place.options.url.replace(postgres::PASSWORD, "hunter2");
    let (error, text) = refusal(&wrong, 5_000).await;
    assert!(!error.is_transient() && text.contains("check user and password") && !text.contains("hunter2"), "{text}");
    let absent = place.options.url.replace("/postgres", "/absent").replace("postgres://", "postgresql://");
    let (error, text) = refusal(&absent, 5_000).await;
    assert!(!error.is_transient() && text.contains("createdb") && !text.contains(postgres::PASSWORD), "{text}");

    for url in ["", "mysql://ann:hunter2@localhost/x", "postgres://ann:hunter2@localhost:port/x", "sqlite::memory:"] {
        let (error, text) = refusal(url, 5_000).await;
        assert!(matches!(error, Error::Address { .. }) && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_file_that_can_not_be_a_database_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "not a database, but long enough to be looked at as one, which SQLite does".repeat(20))
        .unwrap();
    let (error, text) = refusal(&format!("sqlite:{}", file.display()), 5_000).await;
    assert!(!error.is_transient() && text.contains("notes.txt") && text.contains("no SQLite database"), "{text}");
    let (error, text) = refusal(&format!("sqlite:{}/below/tandem.db", file.display()), 5_000).await;
    assert!(matches!(error, Error::Folder { .. }) && text.contains("notes.txt"), "{text}");
}

/// What the rule for migrations allows a newer tandem to do: new tables, new columns that may be empty.
async fn migrate_as_a_newer_tandem(place: &Place) {
    let tables = ["executions", "template_edges", "feedback", "template_blocks", "cache_entries", "claims"];
    let mut statements: Vec<String> =
        tables.iter().map(|table| format!("ALTER TABLE {table} ADD COLUMN from_the_future TEXT")).collect();
    statements.push("CREATE TABLE from_the_future (id TEXT PRIMARY KEY)".to_owned());
    statements.push(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, '', 0)"
            .to_owned(),
    );
    for sql in statements {
        let sql = sqlx::AssertSqlSafe(sql);
        if place.server.is_some() {
            let pool = sqlx::PgPool::connect(&place.options.url).await.unwrap();
            sqlx::query(sql).execute(&pool).await.unwrap();
            pool.close().await;
        } else {
            let pool = sqlx::SqlitePool::connect(&place.options.url).await.unwrap();
            sqlx::query(sql).execute(&pool).await.unwrap();
            pool.close().await;
        }
    }
}

/// Everything that a worker asks, so that its statements are prepared.
async fn use_all(store: &Store, n: i64) {
    let name = format!("exec_{n}");
    let kept = CacheEntry { origin: correlation(&name), ..entry("a task", n) };
    store.put_entries(std::slice::from_ref(&kept)).await.unwrap();
    store.record(&[Execution { entry: Some(kept.id), ..execution(&name) }]).await.unwrap();
    assert_eq!(store.execution(&tenant("acme"), &correlation(&name)).await.unwrap().len(), 1);
    assert_eq!(store.entry(kept.id).await.unwrap().unwrap().task, kept.task);
    all_changes(store).await;
    store.edges().await.unwrap();
    store.totals(&tenant("acme")).await.unwrap();
    store.latencies(&tenant("acme"), 10).await.unwrap();
    store.qualities(10).await.unwrap();
    store.judge(&tenant("acme"), &correlation(&name), Verdict::Wrong, None, Timestamp(n)).await.unwrap();
    store.blocks().await.unwrap();
    store.purge_expired(Timestamp(0)).await.unwrap();
}

async fn an_older_tandem_works_on_a_database_that_a_newer_one_migrated(mut place: Place) {
    // One connection: its prepared statements are those of before.
    place.options.max_connections = 1;
    let running = place.open().await;
    use_all(&running, 1).await;
    use_all(&running, 2).await;
    migrate_as_a_newer_tandem(&place).await;
    use_all(&running, 3).await;
    let started_after = place.open().await;
    use_all(&started_after, 4).await;
    assert_eq!(started_after.totals(&tenant("acme")).await.unwrap().executions, 4);
}

/// The rule of docs/upgrading.md, as far as a text can be held against it.
#[test]
fn migrations_only_add_and_columns_are_named() {
    let store = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let read = |folder: &std::path::Path| -> Vec<(String, String)> {
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file());
        files.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
    };
    let mut seen = 0;
    for kind in ["sqlite", "postgres"] {
        for (file, text) in read(&store.join("migrations").join(kind)) {
            seen += 1;
            let bare: Vec<&str> = text.lines().map(|line| line.split("--").next().unwrap()).collect();
            for statement in bare.join(" ").to_uppercase().split(';') {
                let words: Vec<&str> = statement.split_whitespace().collect();
                let changes = words.contains(&"ALTER") || words.contains(&"DROP");
                let takes = ["DROP", "RENAME", "TYPE"].iter().any(|word| words.contains(word));
                let demands = statement.contains("NOT NULL") && !statement.contains("DEFAULT");
                assert!(!changes || !(takes || demands), "{file}: an older worker would break at {statement}");
            }
        }
    }
    assert!(seen >= 2);
    for (file, text) in read(&store) {
        for star in ["SELECT *", "RETURNING *", ".* FROM"] {
            assert!(!text.contains(star), "{file}: {star}: name the columns");
        }
    }
}

fn requests(requests: u64) -> Amount {
    Amount { requests, tokens: 0 }
}

/// Of a limit of 100, for a window.
fn report(window: Duration, uses: &[(i64, u64)], wants: u64) -> Report {
    let uses = uses.iter().map(|(slot, count)| Use { slot: *slot, ago: Duration::ZERO, amount: requests(*count) });
    Report {
        limit: requests(100),
        window,
        lease: Duration::from_secs(5),
        uses: uses.collect(),
        held: Amount::NONE,
        want: Want { head: requests(wants.min(1)), all: requests(wants), spare: Amount::NONE },
    }
}

async fn of_a_limit_no_more_is_leased_than_there_is_however_many_ask(place: Place) {
    let (one, other) = (place.open().await, place.open().await);
    let minute = Duration::from_secs(60);
    let asking = (0..16).map(|n| {
        let store = if n % 2 == 0 { one.clone() } else { other.clone() };
        tokio::spawn(async move {
            let (worker, mut held) = (format!("worker{n}"), 0);
            for _ in 0..10 {
                let mut report = report(minute, &[], 7);
                report.held = requests(held);
                held += store.limit("openai/x", &worker, &report).await.unwrap().granted.requests;
            }
            held
        })
    });
    let held: Vec<u64> = futures::future::join_all(asking).await.into_iter().map(|held| held.unwrap()).collect();
    assert_eq!(held.iter().sum::<u64>(), 100, "{held:?}");
    // Another model's limit is another one.
    assert_eq!(one.limit("openai/y", "worker0", &report(minute, &[], 100)).await.unwrap().granted, requests(100));
}

async fn what_was_used_of_a_limit_is_free_after_a_window_and_a_report_may_come_twice(place: Place) {
    let store = place.open().await;
    let window = Duration::from_secs(3);
    let turn = async |worker: &str, report: &Report| store.limit("openai/x", worker, report).await.unwrap();
    assert_eq!(turn("a", &report(window, &[], 60)).await.granted, requests(60));
    // What it used is said in place of what it leased; and again, for it heard no answer.
    let begun = Instant::now();
    for _ in 0..2 {
        let said = turn("a", &report(window, &[(1, 60)], 0)).await;
        assert_eq!((said.granted, said.soon), (Amount::NONE, requests(40)));
        let [(after, all)] = said.releases[..] else { panic!("{said:?}") };
        assert!(all == requests(60) && after <= window, "{said:?}");
    }
    let said = turn("b", &report(window, &[], 100)).await;
    assert_eq!((said.granted, said.scarce), (requests(40), true));
    // It took 10 tokens fewer than were set aside: the same moment, said anew.
    turn("a", &report(window, &[(1, 50)], 0)).await;
    let mut again = report(window, &[], 60);
    again.held = requests(40);
    assert_eq!(turn("b", &again).await.granted, requests(10));
    again.held = requests(50);
    let mut got = 0;
    while got == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came free");
        tokio::time::sleep(Duration::from_millis(100)).await;
        got = turn("b", &again).await.granted.requests;
    }
    assert_eq!(got, 50);
    assert!(begun.elapsed() >= window, "{:?}", begun.elapsed());
}
