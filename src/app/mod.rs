//! The only wiring: builds the rooms, connects what they hand out, starts, drains, stops.

mod assets;
pub mod follower;
pub mod nats_server;
mod retention;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::bus::{self, Change, Connection, Door, Instance, Repeats, Submits, Sync, endpoints};
use crate::cache::{self, Cache, Verifier};
use crate::config::{Config, Paths};
use crate::coordinator::library::{Library, files_under};
use crate::coordinator::{Agent, Coordinator};
use crate::domain::Timestamp;
use crate::embed::Embedder;
use crate::http::{self, Page};
use crate::llm::{self, Books, Client, Credentials};
use crate::pipeline::{self, Pipeline};
use crate::store::{self, Recorder, Store};
use crate::telemetry::meters;
use crate::workflow::Workflows;
use follower::Follower;
use nats_server::NatsServer;
use watch::Watch;

/// Why a worker does not start or does not stay.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("read what is kept in the database")]
    Load(#[source] pipeline::Error),
    #[error("configure the models")]
    Llm(#[from] llm::Error),
    #[error(transparent)]
    Bus(#[from] bus::Error),
    #[error(transparent)]
    Http(#[from] http::Error),
    #[error(transparent)]
    NatsServer(#[from] nats_server::Error),
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("listen for signals")]
    Signals(#[source] std::io::Error),
    #[error("`cache.verifier`")]
    Verifier(#[from] cache::VerifierError),
    #[error("load the embedding model")]
    Join(#[from] tokio::task::JoinError),
    #[error("the own nats-server ended ({status}); its log is {}", log.display())]
    ServerGone { status: std::process::ExitStatus, log: PathBuf },
    #[error("a task of this worker ended that must not: {why}")]
    TaskGone { why: String },
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct Serve {
    /// Start an own nats-server, and end it at the end.
    pub with_nats: bool,
    /// Its port; `None`: a free one.
    pub nats_port: Option<u16>,
    /// How long to wait at the end for what is being done.
    pub grace: Duration,
    /// Where requests are done, so that they leave the threads of the door alone.
    pub workshop: Handle,
}

/// How often expired answers are dropped.
const EXPIRY: Duration = Duration::from_secs(30);

/// What runs while there is no way to answer any more is given this long.
const HASTE: Duration = Duration::from_millis(100);

/// For the last words to the server.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT; a second signal ends the process at once. Ends with an error where the own server or
/// a part of the worker ends by itself: what supervises this process starts it anew, and half a worker would only seem
/// to serve.
pub async fn serve(mut config: Config, paths: Paths, credentials: Credentials, options: Serve) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let log = paths.state.join("nats").join("nats-server.log");
    let mut server = if options.with_nats {
        let server =
            NatsServer::start(&assets::nats_server(&paths), &paths.state.join("nats"), options.nats_port).await?;
        config.nats.urls = vec![server.url().to_owned()];
        Some(server)
    } else {
        None
    };
    let start = || Box::pin(Worker::start_with(config.clone(), &paths, credentials.clone(), options.workshop.clone()));
    let mut worker = start().await?;
    if let Some(server) = &server {
        write_address(&paths, server.url())?;
    }
    let broken = loop {
        info!("ready {}", worker.urls.join(","));
        let ended = tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            status = ended(server.as_mut()) => break Some(match status {
                Ok(status) => Error::ServerGone { status, log },
                Err(error) => error.into(),
            }),
            ended = worker.ended() => ended,
        };
        match ended {
            Ended::Task { why } => break Some(Error::TaskGone { why }),
            // Whoever may publish can do that with one header; everything but the client is sound.
            Ended::Client => error!("the NATS client could not go on; this worker begins anew with another one"),
        }
        worker.stop(HASTE).await;
        worker = start().await?;
    };
    match &broken {
        Some(problem) => error!(%problem, "stopping"),
        None => info!("stopping: answering what was taken; a second signal ends at once"),
    }
    tokio::select! {
        () = worker.stop(options.grace) => {}
        _ = terminate.recv() => std::process::exit(130),
        _ = interrupt.recv() => std::process::exit(130),
    }
    if let Some(server) = server {
        let _ = std::fs::remove_file(paths.nats_url());
        server.stop().await?;
    }
    if let Some(problem) = broken {
        return Err(problem);
    }
    info!("stopped");
    Ok(())
}

/// Waits for the end of the own server; for ever where there is none.
async fn ended(server: Option<&mut NatsServer>) -> Result<std::process::ExitStatus, nats_server::Error> {
    match server {
        Some(server) => server.ended().await,
        None => std::future::pending().await,
    }
}

/// What ended that must not.
#[derive(Debug)]
pub enum Ended {
    /// The NATS client, for good: see [`bus::connection::Signs`].
    Client,
    /// A task: what is made is written down, other workers are followed, what is expired is dropped.
    Task { why: String },
}

/// The verifier that ships, or the user's own.
fn verifier(options: &cache::Options) -> Result<Verifier, Error> {
    if options.verifier.is_empty() {
        return Ok(Verifier::shipped().clone());
    }
    Ok(Verifier::read(Path::new(&options.verifier))?)
}

/// A worker at work, without signals and servers: what tests start, and [`serve`].
pub struct Worker {
    pub pipeline: Pipeline,
    pub workflows: Workflows,
    /// Where it is connected, without passwords.
    pub urls: Vec<String>,
    connection: Connection,
    door: Door,
    submits: Submits,
    sync: Sync,
    follower: Follower,
    recorder: Recorder,
    llm: Client,
    store: Store,
    tasks: JoinSet<()>,
    watch: Watch,
    /// Open from the beginning of the start to the end of the stop.
    page: Option<Page>,
}

impl Worker {
    /// When this returns, the door is open.
    pub async fn start(config: Config, paths: &Paths, credentials: Credentials) -> Result<Self, Error> {
        Box::pin(Self::start_with(config, paths, credentials, Handle::current())).await
    }

    /// [`Self::start`], with the requests done on the runtime `workshop`.
    pub async fn start_with(
        config: Config,
        paths: &Paths,
        credentials: Credentials,
        workshop: Handle,
    ) -> Result<Self, Error> {
        let urls = bus::shown(&config.nats.urls);
        let watch = Watch::default();
        let page = Page::open(&config.http, watch.sources()).await?;
        if let Some(page) = &page {
            info!(http.address = %page.address(), "health, readiness and metrics are at http://{}", page.address());
        }
        // The model takes a few hundred milliseconds to load: the database opens meanwhile.
        let (assets, options) = (paths.assets.clone(), config.embedding.clone());
        let embedder = tokio::task::spawn_blocking(move || Embedder::load(&assets, options));
        let store = Store::open(&config.database).await?;
        let recorder = Recorder::start(store.clone(), &config.recording);
        let journal = Some(paths.state.join("leases").join(config.database.fingerprint()));
        let books = Books { store: store.clone(), recorder: recorder.clone(), journal };
        let llm = Client::new(config.llm.clone(), credentials, Some(books))?;
        let connection = bus::connect(&config.nats).await?;
        check_server(&connection);
        let embedder = embedder.await?.map_err(|problem| {
            error!(%problem, "there is no embedding model: exact answers and rules still serve");
            problem.to_string()
        });

        let keeper = recorder.clone();
        let keep = move |change| follower::keep(&keeper, change);
        let cache = Cache::with_verifier(config.cache.clone(), embedder.clone().ok(), verifier(&config.cache)?, keep);
        // Before they are read: what changes meanwhile is read again.
        let seen = config.templates.folder().map(look);
        let (library, broken) = Library::load(config.templates.folder());
        broken.iter().for_each(|problem| error!(%problem, "a template is left out"));
        let coordinator = Coordinator::new(Agent::new(config.agent.clone(), library, cache.clone(), llm.clone()));
        let pipeline = Pipeline::new(config.requests.clone(), coordinator, store.clone(), recorder.clone(), embedder);

        let (instance, repeats) = (Instance::generate(), Repeats::new());
        let (sync, heard) = Sync::open(&connection, instance.clone(), &config.nats).await?;
        let (others, begun) = (sync.clone(), Instant::now());
        // At first they may not have been heard yet.
        pipeline.has_company(move || begun.elapsed() < bus::LEASE || !others.live().is_empty());
        let follower = Follower::new(pipeline.clone(), store.clone(), sync.clone(), repeats.clone());
        follower.begin().await.map_err(Error::Load)?;

        let mut tasks = JoinSet::new();
        tasks.spawn(follower.clone().run(heard, recorder.commits()));
        tasks.spawn(expire(cache.clone(), store.clone()));
        tasks.spawn(retention::run(store.clone(), config.retention.clone()));
        tasks.spawn(upkeep());
        tasks.spawn(budgets(llm.clone()));
        if let Some(seen) = seen.filter(|_| config.templates.reload_ms > 0) {
            tasks.spawn(reload(pipeline.clone(), config.templates.clone(), seen));
        }
        let workflows = Workflows::start(
            &mut tasks,
            instance.as_str(),
            config.workflow.clone(),
            store.clone(),
            pipeline.coordinator().clone(),
            recorder.clone(),
            config.requests.default_language.clone(),
            workshop.clone(),
        );
        workflows.serve(Arc::new(bus::Services::new(&connection, &config.workflow, &config.nats)));
        follower.tells(workflows.clone());
        tasks.spawn(workflows.clone().announce(Arc::new(bus::Events::new(&connection, &config.nats))));
        tasks.spawn(tell(workflows.clone(), sync.clone()));
        let submits = Submits::open(pipeline.clone(), &config.nats, Timestamp::now).await;
        let page_address = page.as_ref().map(Page::address);
        let desk = submits.desk();
        let endpoints =
            endpoints::all(&pipeline, &workflows, &connection, &sync, &desk, &config.nats, page_address, &repeats);
        let door =
            Door::open_with(connection.clone(), instance, endpoints, &config.nats, Timestamp::now, workshop).await?;
        door.tells_of(submits.desk());
        watch.opened(watch::Parts {
            store: store.clone(),
            connection: connection.clone(),
            door: door.counts(),
            desk: submits.desk(),
            cache,
            recorder: recorder.clone(),
            llm: llm.clone(),
            workflows: workflows.clone(),
        });
        trim();
        Ok(Self {
            llm,
            pipeline,
            workflows,
            urls,
            connection,
            door,
            submits,
            sync,
            follower,
            recorder,
            store,
            tasks,
            watch,
            page,
        })
    }

    /// Its name in `$SRV` and among the workers.
    pub fn instance(&self) -> &Instance {
        self.door.instance()
    }

    /// Rows of the cache that it has read from the database since its start.
    pub fn rows_read(&self) -> u64 {
        self.follower.rows_read()
    }

    /// Where health, readiness and metrics are; `None` where the configuration says that they are nowhere.
    pub fn page(&self) -> Option<std::net::SocketAddr> {
        self.page.as_ref().map(Page::address)
    }

    /// Waits for the end of something that keeps this worker whole and ends by itself only by a fault.
    pub async fn ended(&mut self) -> Ended {
        tokio::select! {
            biased;
            () = self.connection.signs.ended() => Ended::Client,
            ended = self.tasks.join_next() => match ended {
                Some(Err(error)) => Ended::Task { why: error.to_string() },
                Some(Ok(())) => Ended::Task { why: "it came to its end".to_owned() },
                None => std::future::pending().await,
            },
        }
    }

    /// Takes no more requests, answers those it has, writes down what is left, and lets go.
    pub async fn stop(mut self, grace: Duration) {
        let end = tokio::time::Instant::now() + grace;
        self.watch.stopping.cancel();
        let (stopped, (), ()) =
            tokio::join!(self.door.stop(grace), self.submits.stop(grace), self.workflows.stop(grace));
        if stopped.given_up > 0 || !stopped.drained {
            warn!(given_up = stopped.given_up, "the grace was over before all requests were answered");
        }
        let _late = tokio::time::timeout(grace, self.llm.let_go()).await;
        let lost = self.recorder.stop(grace).await;
        if lost > 0 {
            error!(lost, "records could not be written before the end");
        }
        // Whoever still follows could speak of a commit after the goodbye.
        self.tasks.shutdown().await;
        if let Err(error) = self.sync.publish(&Change::Committed).await {
            warn!(%error, "the other workers were not told of the last commit");
        }
        self.sync.stop().await;
        self.store.close().await;
        // Without a server a flush never ends. What is left of the grace, but time enough to send a goodbye.
        let end = end.max(tokio::time::Instant::now() + FAREWELL / 4).min(tokio::time::Instant::now() + FAREWELL);
        let _ = tokio::time::timeout_at(end, self.connection.client.flush()).await;
    }
}

/// Gives back what starting took and no longer needs: loading the model and the cache leaves some 60 MiB of holes, which
/// the C library would keep.
#[allow(unsafe_code, reason = "the C library has no safe way to be asked")]
fn trim() {
    // SAFETY: it takes no pointer and may be called at any time from any thread.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Features below this version are silently ignored by the server, so its operator is told.
fn check_server(connection: &Connection) {
    let server = connection.client.server_info();
    let mut numbers = server.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    info!(server.version = server.version, server.name = server.server_name, "found a nats-server");
    if version < (2, 11) {
        warn!(
            server.version = server.version,
            "this nats-server is older than 2.11: requests work, later features will not"
        );
    }
}

fn write_address(paths: &Paths, url: &str) -> Result<(), Error> {
    let path = paths.nats_url();
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(&paths.state)?;
        let new = path.with_extension("new");
        std::fs::write(&new, format!("{url}\n"))?;
        std::fs::rename(&new, &path)
    };
    write().map_err(|source| Error::Write { path: path.clone(), source })
}

/// Words about workflows come at most this often; one says as much as ten.
const WORDS: Duration = Duration::from_millis(10);

/// Tells the other workers that there are workflows to carry on. A word that is lost costs them a sweep's pause.
async fn tell(workflows: Workflows, sync: Sync) {
    let mut news = workflows.news();
    while news.changed().await.is_ok() {
        if let Err(error) = sync.publish(&Change::Workflows).await {
            warn!(%error, "the other workers were not told of workflows");
        }
        tokio::time::sleep(WORDS).await;
    }
}

/// How often measured times are sorted into their buckets: what piles up between is memory.
const UPKEEP: Duration = Duration::from_secs(1);

async fn upkeep() {
    let mut tick = tokio::time::interval(UPKEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        meters().upkeep();
    }
}

/// How often what is leased of the budgets is made to follow what is needed.
const BUDGETS: Duration = Duration::from_millis(250);

async fn budgets(llm: Client) {
    let mut tick = tokio::time::interval(BUDGETS);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        llm.keep_budget(Timestamp::now()).await;
    }
}

async fn expire(cache: Cache, store: Store) {
    let mut tick = tokio::time::interval(EXPIRY);
    loop {
        tick.tick().await;
        let now = Timestamp::now();
        cache.expire(now);
        if let Err(error) = store.purge_expired(now).await {
            warn!(%error, "expired answers could not be purged");
        }
    }
}

/// The user's templates with the time and length of each: another list means that one was added, changed or removed.
type Seen = Vec<(PathBuf, Option<SystemTime>, Option<u64>)>;

fn look(folder: &Path) -> Seen {
    let stamp = |path: PathBuf| {
        let meta = std::fs::metadata(&path).ok();
        (path, meta.as_ref().and_then(|m| m.modified().ok()), meta.map(|m| m.len()))
    };
    files_under(folder).into_iter().map(stamp).collect()
}

/// Reads the user's templates anew when they are no longer those that were `seen`.
async fn reload(pipeline: Pipeline, options: crate::config::Templates, mut seen: Seen) {
    let mut tick = tokio::time::interval(Duration::from_millis(options.reload_ms));
    let Some(folder) = options.folder().map(Arc::<Path>::from) else { return };
    loop {
        tick.tick().await;
        let looked = folder.clone();
        let Ok(state) = tokio::task::spawn_blocking(move || look(&looked)).await else { continue };
        if seen != state {
            let broken = pipeline.coordinator().agent().reload(Some(&folder));
            broken.iter().for_each(|problem| error!(%problem, "a template is left out"));
            info!(templates = pipeline.coordinator().agent().library().len(), "read the templates anew");
            seen = state;
        }
    }
}
