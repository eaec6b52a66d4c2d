//! Answers that the server can't carry in one message: kept in JetStream's object store for a while, for senders who
//! say that they can fetch them.
//!
//! Each tenant has a bucket of its own: NATS permissions go by bucket, so nobody reads what was said to another. A
//! worker makes the default tenant's where `nats.provision` is "auto"; another's is made by whoever admits the tenant, else strangers could
//! make streams by inventing names.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream;
use async_nats::jetstream::object_store::{Config, ObjectMetadata, ObjectStore};
use tokio::io::AsyncReadExt;

use super::streams::Provision;
use crate::domain::{CorrelationId, Tenant};

/// Where the answer is.
pub const BUCKET: &str = "Object-Store-Bucket";
/// What it is called there.
pub const OBJECT: &str = "Object-Store-Name";

/// The default tenant's bucket; another's has `_<tenant>` after it.
const ANSWERS: &str = "TANDEM_ANSWERS";
/// How long an answer may be fetched. Its sender waits for it, so this is long.
const KEPT: Duration = Duration::from_secs(3600);
/// What a bucket holds at most; then the next answer is a 413 until others expire.
const MAX_BYTES: i64 = 256 << 20;
/// Putting takes no longer than this, or the answer is a 413.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Why an answer could not be stored or fetched.
#[derive(Debug, thiserror::Error)]
#[error("{action} in the bucket {bucket}")]
pub struct Error {
    action: &'static str,
    bucket: String,
    #[source]
    source: async_nats::Error,
}

/// The bucket of a tenant's answers.
pub fn bucket(tenant: &Tenant) -> String {
    if *tenant == Tenant::default() { ANSWERS.to_owned() } else { format!("{ANSWERS}_{tenant}") }
}

/// Makes a tenant's bucket where it is not there yet.
pub async fn create(client: &Client, tenant: &Tenant) -> Result<(), Error> {
    made(&jetstream::new(client.clone()), bucket(tenant)).await.map(drop)
}

/// Stores an answer, and says under which name: a correlation id may be a sender's word, and another's too.
pub(super) async fn put(
    client: &Client,
    tenant: &Tenant,
    correlation_id: &CorrelationId,
    mut body: &[u8],
    provision: Provision,
) -> Result<String, Error> {
    let name = format!("{correlation_id}-{}", uuid::Uuid::now_v7().simple());
    let (jetstream, bucket) = (jetstream::new(client.clone()), bucket(tenant));
    let store = match jetstream.get_object_store(&bucket).await {
        Ok(store) => store,
        Err(_) if provision == Provision::Auto && *tenant == Tenant::default() => {
            made(&jetstream, bucket.clone()).await?
        }
        Err(error) => return Err(failed("look", &bucket)(error)),
    };
    let chunk = (128 << 10).min(client.max_payload() / 2);
    let meta = ObjectMetadata { name: name.clone(), chunk_size: Some(chunk), ..ObjectMetadata::default() };
    store.put(meta, &mut body).await.map_err(failed("store an answer", &bucket))?;
    Ok(name)
}

/// Reads an answer that a reply names.
pub(super) async fn get(client: &Client, bucket: &str, name: &str, limit: Duration) -> Result<Vec<u8>, Error> {
    let read = async {
        let store = jetstream::new(client.clone()).get_object_store(bucket).await.map_err(failed("look", bucket))?;
        let mut object = store.get(name).await.map_err(failed("find the answer", bucket))?;
        let mut body = vec![];
        object.read_to_end(&mut body).await.map_err(failed("read the answer", bucket))?;
        Ok(body)
    };
    let read = tokio::time::timeout(limit, read).await;
    read.unwrap_or_else(|late| Err(failed("read the answer in time", bucket)(late)))
}

async fn made(jetstream: &jetstream::Context, bucket: String) -> Result<ObjectStore, Error> {
    let config = Config {
        bucket: bucket.clone(),
        description: Some("Answers of Tandem that are too large for a message".to_owned()),
        max_age: KEPT,
        max_bytes: MAX_BYTES,
        num_replicas: 1,
        ..Config::default()
    };
    jetstream.create_object_store(config).await.map_err(failed("create the store", &bucket))
}

fn failed<E: Into<async_nats::Error>>(action: &'static str, bucket: &str) -> impl FnOnce(E) -> Error {
    let bucket = bucket.to_owned();
    move |source| Error { action, bucket, source: source.into() }
}
