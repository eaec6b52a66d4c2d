//! What models are paid: the ledger, the statistics from it, and budgets. On both databases.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tandem::config::Config;
use tandem::domain::{Attempt, CorrelationId, Counted, NanoUsd, Outcome, Tenant, Timestamp};
use tandem::llm::{Credentials, Key, PriceOverride};
use tandem::store::{
    Caps, Entry, LeaseId, Leased, Reach, Recorder, RecorderOptions, RetentionOptions, Rows, Scope, Store, Write,
};
use uuid::Uuid;

use crate::nats::{Nats, header};
use crate::process::{output, tandem};
use crate::provider::{Reply, Server};
use crate::retention::Base;
use crate::worker::{Place, Running};
use crate::{ask, declined, until};

const DAY: i64 = 24 * 3600 * 1000;
const NOW: Timestamp = Timestamp(400 * DAY + 5_000);

on_both!(
    Base:
    an_attempt_counts_once_however_often_it_is_written,
    a_reset_begins_the_statistics_anew_and_no_budget,
    a_budget_begins_with_what_was_spent_before_it,
    of_many_workers_none_gets_more_than_a_budget_leaves,
    what_a_dead_worker_had_is_unknown_until_it_speaks_again,
    old_attempts_go_and_the_sums_stay,
);

fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

fn attempt(of: &str, cost: Option<u64>) -> Attempt {
    Attempt {
        at: NOW,
        tenant: tenant(of),
        correlation_id: CorrelationId::generate(),
        provider: "openai".to_owned(),
        model: "gpt-5-mini".to_owned(),
        outcome: if cost.is_some() { Outcome::Done } else { Outcome::Cut },
        sent: true,
        counted: Counted { input: cost.map(|_| 1_000), output: cost.map(|_| 77), ..Counted::default() },
        cost: cost.map(NanoUsd),
        worst: NanoUsd(100),
        duration: Duration::from_millis(250),
        first_token: None,
    }
}

async fn written(store: &Store, entries: &[Entry]) {
    let writes: Vec<Write> = entries.iter().cloned().map(Write::Attempt).collect();
    store.write(&writes.iter().collect::<Vec<_>>()).await.unwrap();
}

fn lease(of: &str) -> LeaseId {
    LeaseId { id: Uuid::now_v7(), tenant: tenant(of), day: NOW.day() }
}

/// All of a tenant, ever: [`Scope::TenantTotal`] is the third.
fn up_to(nanos: u64) -> Caps {
    [None, None, Some(NanoUsd(nanos)), None]
}

/// What is used, of it unknown, and leased.
async fn standing(store: &Store, of: &str, scope: Scope) -> (u64, u64, u64) {
    let all = store.standings(&tenant(of), NOW.day()).await.unwrap();
    let standing = all.into_iter().find(|(of, _)| *of == scope).unwrap().1;
    (standing.used.0, standing.unknown.0, standing.leased.0)
}

async fn an_attempt_counts_once_however_often_it_is_written(base: Base) {
    let store = Store::open(&base.options).await.unwrap();
    let entries: Vec<Entry> =
        [Some(7), Some(8), None].into_iter().map(|cost| Entry::new(attempt("acme", cost), None)).collect();
    written(&store, &entries).await;
    written(&store, &[entries, vec![Entry::new(attempt("other", Some(1)), None)]].concat()).await;
    let (tallies, since) = store.tallies(&tenant("acme")).await.unwrap();
    let of = |outcome| tallies.iter().find(|tally| tally.outcome == outcome).unwrap();
    let (done, cut) = (of(Outcome::Done), of(Outcome::Cut));
    assert_eq!((tallies.len(), since), (2, None));
    assert_eq!((done.attempts, done.sent, done.cost, done.unknown), (2, 2, NanoUsd(15), 0));
    assert_eq!(
        (done.tokens.input, done.tokens.output, done.time),
        (Some(2_000), Some(154), Duration::from_millis(500))
    );
    assert_eq!((cut.attempts, cut.cost, cut.unknown, cut.unknown_cost), (1, NanoUsd::ZERO, 1, NanoUsd(100)));

    // A full queue drops none of them.
    let small = RecorderOptions { queue: 1, ..RecorderOptions::default() };
    let recorder = Recorder::start(store.clone(), &small);
    (0..500).for_each(|_| recorder.keep(Write::Attempt(Entry::new(attempt("acme", Some(1)), None))));
    recorder.flush().await.unwrap();
    let (tallies, _) = store.tallies(&tenant("acme")).await.unwrap();
    assert_eq!((tallies.iter().map(|tally| tally.attempts).sum::<u64>(), recorder.dropped()), (503, 0));
}

async fn a_reset_begins_the_statistics_anew_and_no_budget(base: Base) {
    let store = Store::open(&base.options).await.unwrap();
    written(&store, &[Entry::new(attempt("acme", Some(7)), None), Entry::new(attempt("other", Some(1)), None)]).await;
    for round in 0..2 {
        store.reset_tallies(&tenant("acme"), Timestamp(NOW.0 + round)).await.unwrap();
        assert_eq!(store.tallies(&tenant("acme")).await.unwrap(), (vec![], Some(Timestamp(NOW.0 + round))));
        written(&store, &[Entry::new(attempt("acme", Some(2)), None)]).await;
        assert_eq!(store.tallies(&tenant("acme")).await.unwrap().0[0].cost, NanoUsd(2));
    }
    assert_eq!(store.tallies(&tenant("other")).await.unwrap().0[0].cost, NanoUsd(1));
    assert_eq!(standing(&store, "acme", Scope::TenantDay).await, (11, 0, 0));
    assert_eq!(standing(&store, "acme", Scope::AllTotal).await, (12, 0, 0));
}

async fn a_budget_begins_with_what_was_spent_before_it(base: Base) {
    let store = Store::open(&base.options).await.unwrap();
    written(&store, &[Entry::new(attempt("acme", Some(7)), None), Entry::new(attempt("acme", None), None)]).await;
    let ask =
        async |caps: Caps, need| store.lease(&lease("acme"), true, &caps, NanoUsd(need), NanoUsd(need), NOW).await;
    let short = Leased::Short { scope: Scope::TenantTotal, left: NanoUsd(1) };
    assert_eq!(ask(up_to(108), 2).await.unwrap(), short);
    assert_eq!(ask(up_to(108), 1).await.unwrap(), Leased::Granted(NanoUsd(1)));
    // What a worker without a budget spends counts from then on, too, and other budgets begin with what is leased.
    written(&store, &[Entry::new(attempt("acme", Some(5)), None)]).await;
    let all_day = [None, Some(NanoUsd(113)), None, None];
    assert_eq!(ask(all_day, 1).await.unwrap(), Leased::Short { scope: Scope::AllDay, left: NanoUsd::ZERO });
    for scope in Scope::ALL {
        assert_eq!(standing(&store, "acme", scope).await, (112, 100, 1), "{scope:?}");
    }
    // Purged is not unspent.
    let whole = Reach { until: Timestamp(NOW.0 + DAY), whole: true };
    assert_eq!(
        store.purge(&tenant("acme"), whole, NOW, 10).await.unwrap(),
        Rows { attempts: 3, days: 2, ..Rows::default() }
    );
    assert!(matches!(ask(up_to(108), 1).await.unwrap(), Leased::Short { .. }));
}

async fn of_many_workers_none_gets_more_than_a_budget_leaves(base: Base) {
    const BUDGET: u64 = 20_000;
    let mut workers = vec![];
    for worker in 0..4u64 {
        let options = base.options.clone();
        workers.push(tokio::spawn(async move {
            let store = Store::open(&options).await.unwrap();
            let caps = [Some(NanoUsd(3 * BUDGET)), None, Some(NanoUsd(BUDGET)), Some(NanoUsd(BUDGET + 1))];
            let (lease, mut fresh, mut spent) = (lease("acme"), true, 0);
            for round in 0..60 {
                let (need, want) = (NanoUsd(100 + (worker * 7 + round) % 50), NanoUsd(400));
                match store.lease(&lease, fresh, &caps, need, want, NOW.plus(Duration::from_secs(9))).await.unwrap() {
                    Leased::Granted(amount) => {
                        fresh = false;
                        let used = round % (need.0 + 1);
                        written(&store, &[Entry::new(attempt("acme", Some(used)), Some(lease.id))]).await;
                        spent += used;
                        if round % 3 > 0 {
                            store.give_back(&lease, NanoUsd(amount.0 - used)).await.unwrap();
                        }
                    }
                    Leased::Short { scope, left } => assert!(scope == Scope::TenantTotal && left < need, "{left}"),
                    Leased::Gone => panic!("it was held"),
                }
                assert!(store.standings(&lease.tenant, lease.day).await.unwrap()[2].1.taken() <= NanoUsd(BUDGET));
            }
            spent
        }));
    }
    let spent: u64 = futures::future::join_all(workers).await.into_iter().map(Result::unwrap).sum();
    let store = Store::open(&base.options).await.unwrap();
    let (used, unknown, leased) = standing(&store, "acme", Scope::TenantTotal).await;
    assert_eq!((used, unknown), (spent, 0));
    assert!(leased > 0 && used + leased <= BUDGET, "{used} used, {leased} leased");
}

async fn what_a_dead_worker_had_is_unknown_until_it_speaks_again(base: Base) {
    let store = Store::open(&base.options).await.unwrap();
    let (mine, caps) = (lease("acme"), up_to(8_000));
    let until = NOW.plus(Duration::from_secs(1));
    let granted = store.lease(&mine, true, &caps, NanoUsd(1_000), NanoUsd(1_000), until).await.unwrap();
    assert_eq!(granted, Leased::Granted(NanoUsd(1_000)));
    written(&store, &[Entry::new(attempt("acme", Some(60)), Some(mine.id))]).await;
    assert_eq!(store.settle_abandoned(NOW).await.unwrap(), 0, "it is not over yet");
    assert_eq!(standing(&store, "acme", Scope::TenantTotal).await, (60, 0, 940));

    assert_eq!(store.settle_abandoned(until).await.unwrap(), 1);
    assert_eq!(store.settle_abandoned(until).await.unwrap(), 0);
    assert_eq!(standing(&store, "acme", Scope::TenantTotal).await, (1_000, 940, 0));
    let (tallies, _) = store.tallies(&tenant("acme")).await.unwrap();
    let abandoned = tallies.iter().find(|tally| tally.outcome == Outcome::Abandoned).unwrap();
    assert_eq!((abandoned.attempts, abandoned.unknown, abandoned.unknown_cost), (1, 1, NanoUsd(940)));

    // It was only paused: what it knows is known again, and nothing is counted twice.
    assert_eq!(store.hold(&[mine.id], until).await.unwrap(), [false]);
    assert_eq!(store.lease(&mine, false, &caps, NanoUsd(1), NanoUsd(1), until).await.unwrap(), Leased::Gone);
    written(&store, &[Entry::new(attempt("acme", Some(40)), Some(mine.id))]).await;
    assert_eq!(standing(&store, "acme", Scope::TenantTotal).await, (1_000, 900, 0));
    store.give_back(&mine, NanoUsd(800)).await.unwrap();
    assert_eq!(standing(&store, "acme", Scope::TenantTotal).await, (200, 100, 0));
    written(&store, &[Entry::new(attempt("acme", None), Some(mine.id))]).await;
    assert_eq!(standing(&store, "acme", Scope::TenantTotal).await, (200, 100, 0));
    let (tallies, _) = store.tallies(&tenant("acme")).await.unwrap();
    let by: BTreeMap<Outcome, u64> = tallies.iter().map(|tally| (tally.outcome, tally.attempts)).collect();
    assert_eq!(by, [(Outcome::Done, 2), (Outcome::Cut, 1), (Outcome::Abandoned, 0)].into());
    // What cost more than it could is counted, too.
    let (other, cost) = (lease("acme"), attempt("acme", Some(130)));
    store.lease(&other, true, &caps, NanoUsd(100), NanoUsd(100), until).await.unwrap();
    written(&store, &[Entry::new(cost, Some(other.id))]).await;
    store.settle_abandoned(until).await.unwrap();
    assert_eq!(standing(&store, "acme", Scope::TenantTotal).await, (330, 100, 0));
}

/// Only PostgreSQL has more than one writer. A lock on rows holds those up that move money, after the first thing they did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_moves_while_all_of_it_is_looked_at_is_neither_lost_nor_counted_twice() {
    let base = Base::postgres();
    let (store, other) = (Store::open(&base.options).await.unwrap(), Store::open(&base.options).await.unwrap());
    let (until, nanos, caps) = (NOW.plus(Duration::from_secs(9)), NanoUsd, up_to(1_000));
    let (leasing, giving) = (lease("leasing"), lease("giving"));
    for lease in [&leasing, &giving] {
        store.lease(lease, true, &caps, nanos(100), nanos(100), until).await.unwrap();
    }
    let spends = async |cost| written(&store, &[Entry::new(attempt("spending", Some(cost)), None)]).await;
    spends(7).await;
    let pool = sqlx::PgPool::connect(&base.options.url).await.unwrap();
    let hold = async || {
        let mut held = pool.begin().await.unwrap();
        for sql in ["SELECT FROM model_days FOR UPDATE", "SELECT FROM budget_leases FOR UPDATE"] {
            sqlx::query(sql).fetch_all(&mut *held).await.unwrap();
        }
        held
    };
    let waiting = async |many: i64| {
        let sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        let (now,): (i64,) = sqlx::query_as(sql).fetch_one(&pool).await.unwrap();
        (now == many).then_some(())
    };

    // A budget that was never asked for begins with the sums of what is written and leased.
    let lends = async {
        let more = store.lease(&leasing, false, &caps, nanos(50), nanos(50), until).await.unwrap();
        assert_eq!(more, Leased::Granted(nanos(50)));
    };
    let gives_back = async { store.give_back(&giving, nanos(30)).await.unwrap() };
    let moves: [(BoxFuture<'_, ()>, u64); 3] =
        [(spends(8).boxed(), 200), (lends.boxed(), 250), (gives_back.boxed(), 220)];
    for ((moving, leased), looked) in moves.into_iter().zip(1..) {
        sqlx::query("DELETE FROM budgets WHERE tenant = ''").execute(&pool).await.unwrap();
        let held = hold().await;
        let beginning = async {
            super::until("who moves money waits", async || waiting(1).await).await;
            let (asking, mine) = (other.clone(), lease("looking"));
            let all = [Some(nanos(1_000)), None, None, None];
            let begun = tokio::spawn(async move { asking.lease(&mine, true, &all, nanos(1), nanos(1), until).await });
            let looks = async || if begun.is_finished() { Some(()) } else { waiting(2).await };
            super::until("it waits, too, or is done", looks).await;
            held.rollback().await.unwrap();
            assert_eq!(begun.await.unwrap().unwrap(), Leased::Granted(nanos(1)));
        };
        tokio::join!(moving, beginning);
        assert_eq!(standing(&store, "looking", Scope::AllTotal).await, (15, 0, leased + looked));
    }

    // Statistics that begin anew move what was written aside.
    let held = hold().await;
    let resetting = async {
        super::until("who writes waits", async || waiting(1).await).await;
        let release = async {
            super::until("so does who resets", async || waiting(2).await).await;
            held.rollback().await.unwrap();
        };
        let spender = tenant("spending");
        let (reset, ()) = tokio::join!(other.reset_tallies(&spender, NOW), release);
        reset.unwrap();
    };
    tokio::join!(spends(9), resetting);
    assert_eq!(standing(&store, "spending", Scope::TenantTotal).await, (24, 0, 0));
}

async fn old_attempts_go_and_the_sums_stay(base: Base) {
    let store = Store::open(&base.options).await.unwrap();
    let old = Attempt { at: Timestamp(NOW.0 - 91 * DAY), ..attempt("acme", Some(3)) };
    let entries = [Entry::new(old.clone(), None), Entry::new(old, None), Entry::new(attempt("acme", Some(4)), None)];
    written(&store, &entries).await;
    let before = store.tallies(&tenant("acme")).await.unwrap();
    let options = RetentionOptions { batch: 1, ..RetentionOptions::default() };
    for gone in [1, 1, 0] {
        assert_eq!(store.prune(&options, NOW).await.unwrap(), Rows { attempts: gone, ..Rows::default() });
    }
    assert_eq!(store.tallies(&tenant("acme")).await.unwrap(), before);
}

const MODEL: &str = "openai/gpt-5-mini";

/// 20 tokens in and 40 out, at 3 and 15 dollars for a million: what [`COST`] says.
fn says(text: &str) -> Reply {
    let message = json!({"role": "assistant", "content": text});
    let usage = json!({"prompt_tokens": 20, "completion_tokens": 40, "total_tokens": 60});
    let body = json!({"model": "gpt-5-mini", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                      "usage": usage});
    Reply::json(200, body.to_string())
}

const COST: u64 = 660_000;

async fn asking(nats: &Nats, place: &Place, provider: &str, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = place.config(nats);
    let price = PriceOverride { input_usd_per_mtok: 3.0, output_usd_per_mtok: 15.0 };
    config.llm.prices = [(MODEL.to_owned(), price)].into();
    config.llm.route = vec![MODEL.to_owned()];
    config.llm.max_retries = 0;
    config.llm.breaker.failures = 0;
    config.llm.max_output_tokens = 50;
    change(&mut config);
    let key = Some(Key { secret: "sk-test".into(), base_url: provider.to_owned() });
    place.worker_with(config, Credentials { openai: key, ..Credentials::default() }).await
}

fn question() -> Value {
    json!({"prompt": "why?"})
}

#[tokio::test]
async fn statistics_are_the_providers_own_figures_by_tenant_and_model() {
    let refused = Reply::json(400, r#"{"error": {"message": "no", "type": "invalid_request_error"}}"#);
    let provider = Server::script([says("a"), refused, Reply::Cut, says("b")]).await;
    let (nats, place) = (Nats::start().await, Place::new());
    let _one = asking(&nats, &place, &provider.url(), |_| ()).await;
    let _two = asking(&nats, &place, &provider.url(), |_| ()).await;
    let client = nats.client().await;
    assert_eq!(ask(&client, "llm.stats", &json!({})).await["total"]["success_rate"], Value::Null);
    for _ in 0..4 {
        ask(&client, "llm.query", &question()).await;
    }
    ask(&client, "llm.query.acme", &question()).await;
    let stats = ask(&client, "llm.stats", &json!({})).await;
    let total = &stats["total"];
    let counted = ["attempts", "sent", "successes", "failures", "unknown"].map(|name| total[name].as_u64().unwrap());
    assert_eq!(counted, [4, 4, 2, 2, 1], "{stats}");
    assert_eq!((total["cost_nanodollars"].as_u64(), total["input_tokens"].as_u64()), (Some(2 * COST), Some(40)));
    assert!(total["unknown_nanodollars"].as_u64().unwrap() > COST, "at its worst: {stats}");
    assert_eq!((&stats["models"][0]["model"], &stats["models"][0]["attempts"]), (&json!("gpt-5-mini"), &json!(4)));
    assert_eq!(stats["outcomes"], json!({"done": 2, "interrupted": 1, "rejected": 1}));
    assert_eq!(ask(&client, "llm.stats.acme", &json!({})).await["total"]["attempts"], 1);
    assert_eq!(provider.received().len(), 5);
    // The agent's calls are in it, and stay in the figures of executions.
    let spent = ask(&client, "execution.request", &declined()).await["metrics"]["cost_usd"].as_f64().unwrap();
    assert!((spent - 0.00066).abs() < 1e-12, "{spent}");
    assert_eq!(ask(&client, "llm.stats", &json!({})).await["total"]["cost_nanodollars"], 3 * COST);
    let executed = ask(&client, "execution.stats", &json!({})).await;
    assert_eq!(executed["cost"]["spent_usd"].as_f64(), Some(0.00066), "{executed}");

    let url = nats.server.url();
    let command = async |arguments: &[&str]| {
        let output = output(tandem(place.path(), &[("NATS_URL", url)], arguments)).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said} {}", String::from_utf8_lossy(&output.stderr));
        said
    };
    let shown = command(&["llm", "stats"]).await;
    assert!(shown.contains("openai/gpt-5-mini") && shown.contains("0.001980000"), "{shown}");
    let before: Value = serde_json::from_str(&command(&["llm", "reset", "--json"]).await).unwrap();
    assert_eq!((&before["total"]["attempts"], &before["since_ms"]), (&json!(5), &Value::Null));
    let after: Value = serde_json::from_str(&command(&["llm", "stats", "--json"]).await).unwrap();
    assert_eq!(after["total"]["attempts"], 0);
    assert!(after["since_ms"].as_i64().unwrap() > 0);
    assert_eq!(ask(&client, "llm.stats.acme", &json!({})).await["total"]["attempts"], 1, "another tenant's stay");
    assert!(command(&["llm", "budget"]).await.contains("nothing bounds"));
}

#[tokio::test]
async fn over_budget_is_an_answer_of_its_own_and_nobody_is_asked() {
    let provider = Server::start(says("because")).await;
    let (nats, place) = (Nats::start().await, Place::new());
    // Each call is worth 0.00066 dollars, and may cost some 0.001.
    let _worker = asking(&nats, &place, &provider.url(), |config| {
        config.llm.budget.tenant_per_day_usd = Some(0.004);
        config.llm.budget.per_day_usd = Some(0.01);
    })
    .await;
    let client = nats.client().await;
    let mut answers = vec![];
    for _ in 0..8 {
        answers.push(ask(&client, "llm.query", &question()).await);
    }
    let good = answers.iter().filter(|answer| answer["success"] == true).count();
    assert!((4..=6).contains(&good) && provider.received().len() == good, "{good}: {answers:?}");
    let error = &answers[7]["error"];
    assert_eq!(
        (&error["code"], &error["transient"], &answers[7]["attempts"]),
        (&json!("over_budget"), &json!(false), &json!(0))
    );
    assert!(error["message"].as_str().unwrap().contains("this tenant's budget for today"), "{error}");
    // A task that may cost as much is a fallback, and says why.
    let fallback = ask(&client, "execution.request", &declined()).await;
    assert_eq!(fallback["method"], "fallback", "{fallback}");
    assert!(fallback["reason"].as_str().unwrap().contains("over budget"), "{fallback}");
    assert_eq!(provider.received().len(), good);
    // Others have theirs, as long as there is something for all.
    assert_eq!(ask(&client, "llm.query.acme", &question()).await["success"], true);
    let state = until("what nobody needs was given back", async || {
        let state = ask(&client, "llm.budget", &json!({})).await;
        (state["budgets"][0]["reserved_nanodollars"] == 0).then_some(state)
    })
    .await;
    let of = |scope: &str| state["budgets"].as_array().unwrap().iter().find(|b| b["scope"] == scope).unwrap();
    let (all, own) = (of("all"), of("tenant"));
    assert_eq!((&own["used_nanodollars"], &own["unknown_nanodollars"]), (&json!(good as u64 * COST), &json!(0)));
    assert_eq!(own["left_nanodollars"], json!(4_000_000 - good as u64 * COST));
    assert_eq!((&all["used_nanodollars"], &all["period"]), (&json!((good as u64 + 1) * COST), &json!("day")));
    let shown = output(tandem(place.path(), &[("NATS_URL", nats.server.url())], &["llm", "budget"])).await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("this tenant") && shown.contains("0.004000000"), "{shown}");
}

#[tokio::test]
async fn what_was_never_sent_comes_back_and_a_restart_keeps_what_was_spent() {
    let (nats, place) = (Nats::start().await, Place::new());
    let client = nats.client().await;
    let budget = |config: &mut Config| config.llm.budget.total_usd = Some(0.004);
    let used = async || ask(&client, "llm.budget", &json!({})).await["budgets"][0].clone();
    // Nobody listens there, and soon it is left alone.
    let change = |config: &mut Config| {
        budget(config);
        config.llm.breaker.failures = 4;
    };
    let worker = asking(&nats, &place, "http://127.0.0.1:9", change).await;
    let mut codes = BTreeMap::new();
    for _ in 0..8 {
        let answer = ask(&client, "llm.query", &question()).await;
        *codes.entry(answer["error"]["code"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(codes, [("circuit_open".to_owned(), 4), ("unreachable".to_owned(), 4)].into());
    let back = async || {
        let state = used().await;
        (state["reserved_nanodollars"] == 0).then_some(state)
    };
    assert_eq!(until("what was set aside is back", back).await["used_nanodollars"], 0);
    worker.stop().await;
    let provider = Server::start(says("because")).await;
    let worker = asking(&nats, &place, &provider.url(), budget).await;
    let before = used().await;
    assert_eq!(
        (&before["reserved_nanodollars"], &before["left_nanodollars"]),
        (&json!(0), &json!(4_000_000)),
        "{before}"
    );
    ask(&client, "llm.query", &question()).await;
    worker.stop().await;
    let _worker = asking(&nats, &place, &provider.url(), budget).await;
    let after = used().await;
    assert_eq!((&after["reserved_nanodollars"], &after["used_nanodollars"]), (&json!(0), &json!(COST)), "{after}");
}

#[tokio::test]
async fn what_was_paid_is_in_the_database_before_the_answer_leaves() {
    let provider = Server::start(says("because")).await;
    let (nats, place) = (Nats::start().await, Place::new());
    // What nobody waits for is written in an hour.
    let _worker = asking(&nats, &place, &provider.url(), |config| config.recording.flush_interval_ms = 3_600_000).await;
    let client = nats.client().await;
    let pool = sqlx::SqlitePool::connect(&place.database()).await.unwrap();
    let paid = async || {
        let sql = "SELECT COUNT(*), COALESCE(SUM(cost_nanos), 0) FROM model_attempts";
        sqlx::query_as::<_, (i64, i64)>(sql).fetch_one(&pool).await.unwrap()
    };
    ask(&client, "llm.query", &question()).await;
    assert_eq!(paid().await, (1, COST as i64));
    let both = json!([{"prompt": "a"}, {"prompt": "b"}]);
    ask(&client, "llm.parallel", &json!({"queries": both})).await;
    assert_eq!(paid().await, (3, 3 * COST as i64));
    ask(&client, "llm.pipeline", &json!({"steps": both})).await;
    assert_eq!(paid().await, (5, 5 * COST as i64));
    ask(&client, "execution.request", &declined()).await;
    assert_eq!(paid().await, (6, 6 * COST as i64));
    pool.close().await;
}

#[tokio::test]
async fn without_its_database_a_bounded_call_is_refused_and_another_is_not() {
    let mut base = Base::postgres();
    let provider = Server::start(says("because")).await;
    let (nats, place) = (Nats::start().await, Place::new());
    let url = base.options.url.clone();
    let _worker = asking(&nats, &place, &provider.url(), |config| {
        config.database.url = url;
        config.database.connect_timeout_ms = 1_000;
        let none = tandem::llm::TenantBudget { total_usd: Some(1.0), per_day_usd: None };
        config.llm.budget.tenants.insert("acme".to_owned(), none);
    })
    .await;
    base.pause();
    let client = nats.client().await;
    let body = json!({"prompt": "why?", "options": {"timeout_ms": 3_000}});
    let refused = ask(&client, "llm.query.acme", &body).await;
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["transient"]),
        (&json!("no_budget"), &json!(true)),
        "{refused}"
    );
    assert!(provider.received().is_empty());
    // It is asked, and its answer kept back: what it cost can't be written down.
    let message = client.request("llm.query", body.to_string().into()).await.unwrap();
    assert_eq!(header(&message, "Nats-Service-Error-Code"), Some("503"));
    assert_eq!(provider.received().len(), 1);
}
