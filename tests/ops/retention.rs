//! What is deleted by age, and that the sums lose nothing by it. On both databases.

use std::time::{Duration, Instant};

use tandem::domain::record::{CacheEntry, EntryId, EntryKind, Execution, Verdict};
use tandem::domain::{
    Answer, CorrelationId, Language, Method, NanoUsd, TaskType, TemplateId, Tenant, Timestamp, Usage,
};
use tandem::store::{Options, Reach, RetentionOptions, Rows, Sequence, Store};

use crate::postgres::Postgres;

const DAY: i64 = 24 * 3600 * 1000;
const NOW: Timestamp = Timestamp(400 * DAY + 5_000);

pub(crate) struct Base {
    pub(crate) options: Options,
    server: Option<Postgres>,
    _folder: tempfile::TempDir,
}

impl Base {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("tandem.db").display());
        Self { options: Options { url, ..Options::default() }, server: None, _folder: folder }
    }

    pub(crate) fn postgres() -> Self {
        let server = Postgres::start();
        let options = Options { url: server.url(), ..Options::default() };
        Self { options, server: Some(server), _folder: tempfile::tempdir().unwrap() }
    }

    /// Takes the server away.
    pub(crate) fn pause(&mut self) {
        self.server.as_mut().unwrap().pause();
    }

    /// Statements that only an older worker, or the test, would run.
    async fn sql(&self, statements: &str) {
        if self.options.url.starts_with("sqlite") {
            let pool = sqlx::SqlitePool::connect(&format!("{}?mode=rwc", self.options.url)).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&pool).await.unwrap();
            pool.close().await;
        } else {
            let pool = sqlx::PgPool::connect(&self.options.url).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&pool).await.unwrap();
            pool.close().await;
        }
    }

    /// The tables as they were before there were sums.
    async fn migrate_to_the_first(&self) {
        let is_sqlite = self.options.url.starts_with("sqlite");
        let dialect = if is_sqlite { "sqlite" } else { "postgres" };
        let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/migrations").join(dialect);
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(from.join("0001_spine.sql"), folder.path().join("0001_spine.sql")).unwrap();
        let migrator = sqlx::migrate::Migrator::new(folder.path()).await.unwrap();
        if is_sqlite {
            let pool = sqlx::SqlitePool::connect(&format!("{}?mode=rwc", self.options.url)).await.unwrap();
            migrator.run(&pool).await.unwrap();
            pool.close().await;
        } else {
            let pool = sqlx::PgPool::connect(&self.options.url).await.unwrap();
            migrator.run(&pool).await.unwrap();
            pool.close().await;
        }
    }
}

on_both!(
    Base:
    old_executions_go_and_the_sums_stay,
    what_was_there_before_the_sums_is_in_them,
    a_purge_takes_one_tenants_rows_and_no_others,
    a_withdrawn_text_goes_and_its_number_stays,
    deleting_much_keeps_nobody_waiting,
);

fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

fn execution(id: &str, of: &str, at: i64) -> Execution {
    Execution {
        correlation_id: CorrelationId::parse(id).unwrap(),
        part: String::new(),
        tenant: tenant(of),
        at: Timestamp(at),
        task_key: [7; 32],
        task_type: TaskType::ApiEndpoint,
        language: Language::Rust,
        method: Method::LlmAssisted,
        template: Some(TemplateId::parse("rust-api").unwrap()),
        model: Some("openai/x".to_owned()),
        usage: Usage { input: 10, output: 5 },
        cost: NanoUsd(1_000_001),
        all_model_cost: Some(NanoUsd(5)),
        quality: Some(0.75),
        success: true,
        time: Duration::from_micros(1_500),
        made_in: Duration::from_micros(1_500),
        tier: None,
        entry: None,
        origin: None,
        kept: false,
    }
}

fn entry(of: &str, exact: u8) -> CacheEntry {
    let answer =
        Answer::new(Method::Autonomous, TaskType::General, &Language::Rust, "fn main() {}".to_owned(), Timestamp(1));
    CacheEntry {
        id: EntryId(uuid::Uuid::now_v7()),
        tenant: tenant(of),
        kind: EntryKind::Request,
        scope: [1; 32],
        exact: [exact; 32],
        task: "a canary task".into(),
        answer: std::sync::Arc::new(answer),
        vector: None,
        origin: CorrelationId::parse("exec_1").unwrap(),
        created: Timestamp(NOW.0 - 1_000),
        expires: Timestamp(NOW.0 + DAY),
    }
}

async fn pruned(store: &Store, options: &RetentionOptions) -> Rows {
    while store.count_in(options.batch).await.unwrap() > 0 {}
    let mut all = Rows::default();
    loop {
        let gone = store.prune(options, NOW).await.unwrap();
        if gone.is_empty() {
            return all;
        }
        all.add(&gone);
    }
}

async fn old_executions_go_and_the_sums_stay(base: Base) {
    let store = Store::open(&base.options).await.unwrap();
    let old = |n: i64| execution(&format!("old_{n}"), "acme", NOW.0 - 91 * DAY - n);
    let mut all: Vec<Execution> = (0..7).map(old).collect();
    all.push(Execution { part: "root.1".to_owned(), ..old(0) });
    all.push(Execution { method: Method::Cached, quality: None, template: None, ..old(8) });
    all.push(execution("new", "acme", NOW.0 - 89 * DAY));
    all.push(execution("other", "other", NOW.0));
    store.record(&all).await.unwrap();
    store.record(&all).await.unwrap();
    let before = store.totals(&tenant("acme")).await.unwrap();
    assert_eq!((before.executions, before.cost), (9, NanoUsd(9_000_009)), "each once, however often it came");

    let options = RetentionOptions { batch: 3, ..RetentionOptions::default() };
    assert_eq!(pruned(&store, &options).await, Rows { executions: 9, ..Rows::default() });
    for n in [0, 3, 8] {
        let id = CorrelationId::parse(&format!("old_{n}")).unwrap();
        assert!(store.execution(&tenant("acme"), &id).await.unwrap().is_empty());
    }
    assert_eq!(store.execution(&tenant("acme"), &CorrelationId::parse("new").unwrap()).await.unwrap().len(), 1);
    assert_eq!(store.totals(&tenant("acme")).await.unwrap(), before, "no figure is lost");
    assert_eq!(store.totals(&tenant("other")).await.unwrap().executions, 1);
    let kept = RetentionOptions { executions_days: 0, ..options };
    assert_eq!(store.prune(&kept, Timestamp(NOW.0 * 2)).await.unwrap(), Rows::default(), "0 is for ever");
}

async fn what_was_there_before_the_sums_is_in_them(base: Base) {
    base.migrate_to_the_first().await;
    let insert = |id: &str, at: i64| {
        let hex = if base.options.url.starts_with("sqlite") { "X'07'" } else { "'\\x07'" };
        let key = hex.replace("07", &"07".repeat(32));
        let yes = if base.options.url.starts_with("sqlite") { "1" } else { "TRUE" };
        format!(
            "INSERT INTO executions (correlation_id, part, tenant, at_ms, task_key, task_type, language, method, template,
             input_tokens, output_tokens, cost_nanos, quality, success, time_ns, made_ns)
             VALUES ('{id}', '', 'acme', {at}, {key}, 'api_endpoint', 'rust', 'autonomous', 'rust-api', 3, 4, 5, 0.5, {yes}, 6, 6);"
        )
    };
    base.sql(&insert("exec_a", NOW.0 - 100 * DAY)).await;
    base.sql(&insert("exec_b", NOW.0)).await;
    let store = Store::open(&base.options).await.unwrap();
    let before = store.totals(&tenant("acme")).await.unwrap();
    assert_eq!((before.executions, before.cost, before.tokens), (2, NanoUsd(10), Usage { input: 6, output: 8 }));
    // An older worker beside this one goes on writing as it did.
    base.sql(&insert("exec_c", NOW.0 - 100 * DAY)).await;
    store.record(&[execution("exec_d", "acme", NOW.0)]).await.unwrap();
    let with_both = store.totals(&tenant("acme")).await.unwrap();
    assert_eq!(with_both.executions, 4);
    // What is in no sum is not deleted.
    assert_eq!(store.prune(&RetentionOptions::default(), NOW).await.unwrap().executions, 0);
    let (one, two) = tokio::join!(store.count_in(2), store.count_in(2));
    let rest = store.count_in(500).await.unwrap();
    assert_eq!(one.unwrap() + two.unwrap() + rest, 3, "each is counted in once, whoever does it");
    assert_eq!(store.totals(&tenant("acme")).await.unwrap(), with_both);
    assert_eq!(pruned(&store, &RetentionOptions::default()).await.executions, 2);
    assert_eq!(store.totals(&tenant("acme")).await.unwrap(), with_both);
}

async fn a_purge_takes_one_tenants_rows_and_no_others(base: Base) {
    let store = Store::open(&base.options).await.unwrap();
    for of in ["acme", "other"] {
        let made: Vec<Execution> = (0..5)
            .map(|n| Execution {
                method: Method::Autonomous,
                ..execution(&format!("{of}_{n}"), of, NOW.0 - n * 10 * DAY)
            })
            .collect();
        store.record(&made).await.unwrap();
        store
            .record(&[Execution { part: "root.1".to_owned(), ..execution(&format!("{of}_orphan"), of, NOW.0) }])
            .await
            .unwrap();
        store.put_entries(&[entry(of, 1), entry(of, 2), entry(of, 3)]).await.unwrap();
        let judged = CorrelationId::parse(&format!("{of}_0")).unwrap();
        store.judge(&tenant(of), &judged, Verdict::Wrong, Some("no"), NOW).await.unwrap().unwrap();
    }
    let seen = store.changes_since(Sequence::default(), NOW, 100).await.unwrap().seen;
    let purge = async |reach: Reach| {
        let told = store.reached(&tenant("acme"), reach).await.unwrap();
        let mut all = Rows::default();
        loop {
            let gone = store.purge(&tenant("acme"), reach, NOW, 2).await.unwrap();
            if gone.is_empty() {
                assert_eq!(all, told, "a dry run says what is done");
                return all;
            }
            all.add(&gone);
        }
    };
    let some = purge(Reach { until: Timestamp(NOW.0 - 15 * DAY), whole: false }).await;
    assert_eq!(some, Rows { executions: 3, days: 3, ..Rows::default() });
    let rest = purge(Reach { until: NOW, whole: true }).await;
    assert_eq!(rest, Rows { executions: 3, days: 2, feedback: 1, blocks: 1, cache_entries: 3, ..Rows::default() });
    assert_eq!(store.totals(&tenant("acme")).await.unwrap().executions, 0);
    assert_eq!(store.totals(&tenant("other")).await.unwrap().executions, 5);
    assert_eq!(store.blocks().await.unwrap().len(), 1);
    let changes = store.changes_since(seen, NOW, 100).await.unwrap();
    assert_eq!((changes.withdrawn.len(), changes.put.len()), (3, 0), "every worker learns of it by its number");
    assert_eq!(store.changes_since(Sequence::default(), NOW, 100).await.unwrap().put.len(), 3, "the other's are there");
}

async fn a_withdrawn_text_goes_and_its_number_stays(base: Base) {
    let store = Store::open(&base.options).await.unwrap();
    let (wrong, good) = (entry("acme", 1), entry("acme", 2));
    store.put_entries(&[wrong.clone(), good.clone()]).await.unwrap();
    store.withdraw(&[wrong.id], Timestamp(NOW.0 - 25 * 3600 * 1000)).await.unwrap();
    let fresh = RetentionOptions { withdrawn_texts_hours: 26, ..RetentionOptions::default() };
    assert_eq!(store.prune(&fresh, NOW).await.unwrap().cache_entries, 0);
    assert_eq!(pruned(&store, &RetentionOptions::default()).await, Rows { cache_entries: 1, ..Rows::default() });
    let changes = store.changes_since(Sequence::default(), NOW, 10).await.unwrap();
    assert_eq!(changes.withdrawn, [wrong.id]);
    assert_eq!(changes.put.len(), 1, "what is live keeps its text");
    assert_eq!(&*changes.put[0].task, "a canary task");
}

/// 20,000 old requests are deleted while others write. A batch is milliseconds, on whatever machine; the limit is for a
/// loaded one.
async fn deleting_much_keeps_nobody_waiting(base: Base) {
    let store = Store::open(&base.options).await.unwrap();
    for block in 0..40 {
        let made: Vec<Execution> = (0..500)
            .map(|n| execution(&format!("old_{block}_{n}"), "acme", NOW.0 - 100 * DAY - block * 1000 - n))
            .collect();
        store.record(&made).await.unwrap();
    }
    let deleting = tokio::spawn({
        let store = store.clone();
        async move {
            let begun = Instant::now();
            (pruned(&store, &RetentionOptions::default()).await, begun.elapsed())
        }
    });
    let (mut longest, mut written) = (Duration::ZERO, 0);
    while !deleting.is_finished() {
        let begun = Instant::now();
        store.record(&[execution(&format!("new_{written}"), "acme", NOW.0)]).await.unwrap();
        longest = longest.max(begun.elapsed());
        written += 1;
    }
    let (gone, time) = deleting.await.unwrap();
    assert_eq!(gone.executions, 20_000);
    eprintln!("20000 requests deleted in {time:?}; {written} writes meanwhile, the longest took {longest:?}");
    assert!(longest < Duration::from_secs(1), "a writer waited {longest:?}");
    // Of 40 batches: in one transaction, a writer of SQLite would have got in once.
    assert!(written >= 10, "only {written} writes got in between the batches");
    assert_eq!(store.totals(&tenant("acme")).await.unwrap().executions, 20_000 + written);
}
