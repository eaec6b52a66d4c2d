//! What stands on the server is looked at, never believed.

use std::time::Duration;

use async_nats::jetstream;
use tandem::bus::streams::{self, Made, Options, create_all, provide};
use tandem::bus::{Error, Provision};

use crate::nats::Nats;

const WAIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_is_missing_is_created_and_what_exists_is_left_as_it_is() {
    let nats = Nats::start().await;
    let client = nats.client().await;
    provide(&client, Provision::Auto, &Options::default(), WAIT).await.unwrap();
    streams::provide_events(&client, Provision::Auto, &Options::default()).await.unwrap();
    // Other amounts in the configuration change nothing on the server.
    let other = Options { submit_max_bytes: 1_000_000, ..Options::default() };
    let standing = provide(&client, Provision::Auto, &other, Duration::from_secs(2)).await.unwrap();
    assert_eq!(standing.ack_wait, WAIT);
    let context = jetstream::new(client.clone());
    let config = context.get_stream(streams::SUBMIT).await.unwrap().cached_info().config.clone();
    assert_eq!(config.max_bytes, 512 * 1024 * 1024);
    assert_eq!(config.retention, jetstream::stream::RetentionPolicy::WorkQueue);
    // An administrator's command does.
    let made = create_all(&client, &other, Duration::from_secs(2)).await.unwrap();
    let expected = [Made::Changed, Made::Unchanged, Made::Unchanged, Made::Unchanged, Made::Changed];
    assert_eq!(made.iter().map(|(_, made)| *made).collect::<Vec<_>>(), expected, "{made:?}");
    let standing = provide(&client, Provision::Verify, &other, WAIT).await.unwrap();
    assert_eq!(standing.ack_wait, Duration::from_secs(2));
}

#[tokio::test]
async fn a_worker_that_only_verifies_creates_nothing_and_says_what_is_missing() {
    let nats = Nats::start().await;
    let client = nats.client().await;
    let error = provide(&client, Provision::Verify, &Options::default(), WAIT).await.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, Error::Streams { .. }));
    for word in [streams::SUBMIT, streams::RESULT, streams::DEAD, "tandem provision"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let events = streams::provide_events(&client, Provision::Verify, &Options::default()).await.unwrap_err();
    assert!(events.to_string().contains(streams::EVENTS), "{events}");
    assert!(jetstream::new(client.clone()).get_stream(streams::SUBMIT).await.is_err());
    let made = create_all(&client, &Options::default(), WAIT).await.unwrap();
    assert!(made.iter().all(|(_, made)| *made == Made::Created) && made.len() == 5, "{made:?}");
    provide(&client, Provision::Verify, &Options::default(), WAIT).await.unwrap();
    streams::provide_events(&client, Provision::Verify, &Options::default()).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_would_not_keep_work_is_refused() {
    let nats = Nats::start().await;
    let client = nats.client().await;
    let context = jetstream::new(client.clone());
    let config = jetstream::stream::Config {
        name: streams::SUBMIT.to_owned(),
        subjects: vec!["execution.submit".to_owned()],
        storage: jetstream::stream::StorageType::Memory,
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    for how in [Provision::Auto, Provision::Verify] {
        let said = provide(&client, how, &Options::default(), WAIT).await.unwrap_err().to_string();
        for word in ["the retention Limits", "the storage Memory", "the subjects", "the discard policy"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}
