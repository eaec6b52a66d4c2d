use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use tokio::sync::oneshot;

use super::{Embed, Error, FastEmbed, Options};
use crate::telemetry::meters;

/// A text longer than this is embedded by its beginning: the model reads 256 tokens, and cutting first keeps the
/// tokenizer from working through a megabyte for them.
const LONGEST: usize = 8 * 1024;

type Vector = Arc<[f32]>;
type Recent = moka::sync::Cache<Arc<str>, Vector>;

/// The shared handle to the embedding thread; cheap to clone. The thread ends with its last handle.
#[derive(Clone)]
pub struct Embedder {
    jobs: SyncSender<Job>,
    recent: Recent,
    version: Arc<str>,
}

struct Job {
    text: Arc<str>,
    reply: oneshot::Sender<Result<Vector, Error>>,
}

impl Embedder {
    /// Loads the model that ships from `assets` (`onnxruntime/libonnxruntime.so`, `embedding/minilm.onnx`,
    /// `embedding/tokenizer.json`). Blocks until it is ready or has failed.
    pub fn load(assets: &Path, options: Options) -> Result<Self, Error> {
        let (assets, threads) = (assets.to_owned(), options.threads);
        Self::start(move || FastEmbed::load(&assets, threads), &options)
    }

    /// Puts any model behind the handle.
    pub fn new(model: impl Embed + 'static, options: Options) -> Result<Self, Error> {
        Self::start(move || Ok(model), &options)
    }

    /// See [`Embed::version`].
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Forgets all texts that were embedded, of whomever.
    pub fn forget(&self) {
        self.recent.invalidate_all();
    }

    /// The text's unit vector. The work is queued by the call itself, so texts are embedded in the order of the calls.
    pub fn embed(&self, text: &str) -> impl Future<Output = Result<Vector, Error>> + Send + use<> {
        let text = beginning(text);
        let queued = match self.recent.get(text) {
            Some(vector) => Ok(Err(vector)),
            None => self.queue(text.into()).map(Ok),
        };
        async move {
            match queued? {
                Ok(reply) => reply.await.unwrap_or(Err(Error::Stopped)),
                Err(known) => Ok(known),
            }
        }
    }

    fn queue(&self, text: Arc<str>) -> Result<oneshot::Receiver<Result<Vector, Error>>, Error> {
        let (reply, answer) = oneshot::channel();
        match self.jobs.try_send(Job { text, reply }) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(Error::Busy),
            Err(TrySendError::Disconnected(_)) => Err(Error::Stopped),
        }
    }

    fn start<M: Embed>(
        load: impl FnOnce() -> Result<M, Error> + Send + 'static,
        options: &Options,
    ) -> Result<Self, Error> {
        let (jobs, waiting) = sync_channel(options.queue.max(1));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let recent = Recent::new(options.recent);
        let known = recent.clone();
        let run = move || match catch_unwind(AssertUnwindSafe(load)).unwrap_or(Err(Error::Panicked)) {
            Ok(model) => {
                // A loader that no longer waits has dropped the queue too: the loop then ends by itself.
                let _ = ready.send(Ok(Arc::from(model.version())));
                serve(model, &waiting, &known);
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        };
        std::thread::Builder::new()
            .name("embed".into())
            .spawn(run)
            .map_err(|source| Error::Start { source: Arc::new(source) })?;
        let version = is_ready.recv().unwrap_or(Err(Error::Stopped))?;
        Ok(Self { jobs, recent, version })
    }
}

fn serve(mut model: impl Embed, jobs: &Receiver<Job>, recent: &Recent) {
    while let Ok(Job { text, reply }) = jobs.recv() {
        // Whoever asked may have given up.
        if reply.is_closed() {
            continue;
        }
        // It may have waited twice: for who stored it, and for who looks near it.
        if let Some(vector) = recent.get(&text) {
            let _gone = reply.send(Ok(vector));
            continue;
        }
        let begun = Instant::now();
        let vector = catch_unwind(AssertUnwindSafe(|| model.embed(&text))).unwrap_or(Err(Error::Panicked));
        let vector = vector.and_then(unit);
        if let Ok(vector) = &vector {
            meters().embedded(begun.elapsed());
            recent.insert(text, vector.clone());
        }
        let _gone = reply.send(vector);
    }
}

fn unit(mut vector: Vec<f32>) -> Result<Vector, Error> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if !length.is_finite() || length <= f32::EPSILON {
        return Err(Error::Unusable("a vector without direction"));
    }
    vector.iter_mut().for_each(|x| *x /= length);
    Ok(vector.into())
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::Hashed;
    use super::*;

    #[tokio::test]
    async fn a_text_has_the_same_unit_vector_among_others_and_from_memory() {
        let embedder = Embedder::new(Hashed::default(), Options::default()).unwrap();
        let texts: Vec<String> = (0..40).map(|i| format!("text number {i}")).collect();
        let together = futures::future::join_all(texts.iter().map(|t| embedder.embed(t))).await;
        for (text, vector) in texts.iter().zip(together) {
            let vector = vector.unwrap();
            assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
            assert_eq!(vector, embedder.embed(text).await.unwrap());
        }
    }

    /// Panics on the word "panic"; otherwise waits until it may go on. Counts what it is asked.
    struct Gated(Arc<Mutex<usize>>);

    impl Embed for Gated {
        fn version(&self) -> &'static str {
            "gated"
        }

        fn embed(&mut self, text: &str) -> Result<Vec<f32>, Error> {
            *self.0.lock().unwrap() += 1;
            assert_ne!(text, "panic", "asked to");
            Ok(vec![3.0, 4.0])
        }
    }

    #[tokio::test]
    async fn a_panic_fails_the_text_that_caused_it_and_nothing_else() {
        let gate = Arc::new(Mutex::new(0));
        let embedder = Embedder::new(Gated(gate.clone()), Options::default()).unwrap();
        let closed = gate.lock().unwrap();
        let first = embedder.embed("first");
        let (bad, good) = (embedder.embed("panic"), embedder.embed("good"));
        drop(closed);
        assert_eq!(first.await.unwrap()[..], [0.6, 0.8]);
        assert!(matches!(bad.await, Err(Error::Panicked)));
        assert!(good.await.is_ok(), "it waited behind");
        assert!(embedder.embed("later").await.is_ok());
    }

    #[tokio::test]
    async fn a_text_that_waits_twice_is_embedded_once() {
        let gate = Arc::new(Mutex::new(0));
        let embedder = Embedder::new(Gated(gate.clone()), Options::default()).unwrap();
        let closed = gate.lock().unwrap();
        let waiting: Vec<_> = ["same", "other", "same"].into_iter().map(|text| embedder.embed(text)).collect();
        drop(closed);
        for vector in futures::future::join_all(waiting).await {
            assert_eq!(vector.unwrap()[..], [0.6, 0.8]);
        }
        assert_eq!(*gate.lock().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let gate = Arc::new(Mutex::new(0));
        let options = Options { queue: 2, ..Options::default() };
        let embedder = Embedder::new(Gated(gate.clone()), options).unwrap();
        let closed = gate.lock().unwrap();
        let waiting: Vec<_> = (0..8).map(|i| embedder.embed(&format!("text {i}"))).collect();
        drop(closed);
        let answers = futures::future::join_all(waiting).await;
        let busy = answers.iter().filter(|a| matches!(a, Err(Error::Busy))).count();
        // Two wait, and one more may have been taken out of the queue.
        assert!((5..=6).contains(&busy), "{busy} of 8 were refused");
        assert!(embedder.embed("after").await.is_ok());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "€".repeat(10_000);
        assert!(beginning(&long).len() <= LONGEST);
        assert_eq!(beginning("short"), "short");
    }
}
