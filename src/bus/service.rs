//! `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`, as NATS micro defines them.
//!
//! Own code, for the library's service stops without draining, sends empty bodies on errors and leaves metadata out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::door::Shared;
use super::submit::Counted;
use super::{Desk, Endpoint, Instance, NAME, WIRE};
use crate::domain::Timestamp;

/// How much the newest piece of work counts in the usual time.
const ALPHA: f64 = 0.1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Ping,
    Info,
    Stats,
}

/// What to listen on: all services, those of this name, this one.
pub(super) fn subjects(instance: &Instance) -> impl Iterator<Item = (Verb, String)> {
    let verbs = [(Verb::Ping, "PING"), (Verb::Info, "INFO"), (Verb::Stats, "STATS")];
    verbs.into_iter().flat_map(move |(verb, name)| {
        let root = format!("$SRV.{name}");
        [root.clone(), format!("{root}.{NAME}"), format!("{root}.{NAME}.{instance}")].map(|subject| (verb, subject))
    })
}

/// An endpoint's figures. Written by many tasks, read by `$SRV.STATS`.
#[derive(Default)]
pub(super) struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
    /// Moving average of the time that work took which was not known at once, in nanoseconds; 0 is none yet.
    usual: AtomicU64,
    last_error: Mutex<String>,
}

impl Tally {
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn took(&self, time: Duration) {
        self.nanos.fetch_add(nanos(time), Ordering::Relaxed);
    }

    pub(super) fn worked(&self, time: Duration) {
        let old = self.usual.load(Ordering::Relaxed);
        let new = nanos(time).max(1);
        // Two at once may lose one sample; an estimate bears it.
        let usual = if old == 0 { new } else { (old as f64 + ALPHA * (new as f64 - old as f64)) as u64 };
        self.usual.store(usual, Ordering::Relaxed);
    }

    pub(super) fn usual_work(&self) -> Option<Duration> {
        Some(self.usual.load(Ordering::Relaxed)).filter(|n| *n > 0).map(Duration::from_nanos)
    }

    /// `text` is ours, never the sender's.
    pub(super) fn error(&self, text: &str) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        last.clear();
        last.push_str(text);
    }
}

pub(super) fn describe(verb: Verb, door: &Shared) -> Result<Vec<u8>, serde_json::Error> {
    let identity = |kind| Identity {
        kind,
        name: NAME,
        id: &door.instance,
        version: env!("CARGO_PKG_VERSION"),
        metadata: BTreeMap::from([
            ("nats_server", door.connection.client.server_info().version),
            ("wire", WIRE.to_string()),
        ]),
    };
    match verb {
        Verb::Ping => serde_json::to_vec(&identity("io.nats.micro.v1.ping_response")),
        Verb::Info => {
            let infos = || door.endpoints.iter().map(|(endpoint, _)| EndpointInfo::new(endpoint)).collect();
            let endpoints = door.info.get_or_init(infos);
            let description = env!("CARGO_PKG_DESCRIPTION");
            serde_json::to_vec(&Info { identity: identity("io.nats.micro.v1.info_response"), description, endpoints })
        }
        Verb::Stats => {
            let endpoints =
                door.endpoints.iter().map(|(endpoint, tally)| EndpointStats::new(endpoint, tally)).collect();
            let counts = &door.counts;
            let (tenants_at_work, largest_share) = door.work.shares();
            let data = Data {
                shed: counts.shed.load(Ordering::Relaxed),
                over_share: counts.over_share.load(Ordering::Relaxed),
                tenants_at_work,
                largest_share,
                refused_replies: counts.refused_replies.load(Ordering::Relaxed),
                panics: counts.panics.load(Ordering::Relaxed),
                unsent: counts.unsent.load(Ordering::Relaxed),
                dropped: door.connection.signs.dropped(),
                submits: door.desk.get().map(Desk::counted),
            };
            let started = rfc3339(door.opened);
            serde_json::to_vec(&Stats {
                identity: identity("io.nats.micro.v1.stats_response"),
                started,
                endpoints,
                data,
            })
        }
    }
}

#[derive(Serialize)]
struct Identity<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
    id: &'a Instance,
    version: &'static str,
    metadata: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Info<'a> {
    #[serde(flatten)]
    identity: Identity<'a>,
    description: &'static str,
    endpoints: &'a [EndpointInfo],
}

/// Made once: the schemas are the dear part, and anybody may ask.
#[derive(Serialize)]
pub(super) struct EndpointInfo {
    name: &'static str,
    subject: &'static str,
    queue_group: &'static str,
    /// Micro allows texts only, so the schemas are JSON as text.
    metadata: BTreeMap<&'static str, String>,
}

impl EndpointInfo {
    fn new(endpoint: &Endpoint) -> Self {
        let metadata = BTreeMap::from([
            ("summary", endpoint.summary.to_owned()),
            ("tenant_subject", format!("{}.<tenant>", endpoint.subject)),
            ("request_schema", (endpoint.takes)().as_value().to_string()),
            ("response_schema", (endpoint.gives)().as_value().to_string()),
        ]);
        Self { name: endpoint.name, subject: endpoint.subject, queue_group: NAME, metadata }
    }
}

#[derive(Serialize)]
struct Stats<'a> {
    #[serde(flatten)]
    identity: Identity<'a>,
    started: String,
    endpoints: Vec<EndpointStats>,
    data: Data,
}

/// Times in nanoseconds.
#[derive(Serialize)]
struct EndpointStats {
    name: &'static str,
    subject: &'static str,
    queue_group: &'static str,
    num_requests: u64,
    num_errors: u64,
    last_error: String,
    processing_time: u64,
    average_processing_time: u64,
}

impl EndpointStats {
    fn new(endpoint: &Endpoint, tally: &Tally) -> Self {
        let (requests, processing_time) = (tally.requests.load(Ordering::Relaxed), tally.nanos.load(Ordering::Relaxed));
        Self {
            name: endpoint.name,
            subject: endpoint.subject,
            queue_group: NAME,
            num_requests: requests,
            num_errors: tally.errors.load(Ordering::Relaxed),
            last_error: tally.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            processing_time,
            average_processing_time: processing_time.checked_div(requests).unwrap_or(0),
        }
    }
}

/// Counted since the door opened, but for what is at work now.
#[derive(Serialize)]
struct Data {
    /// Told 503 because the worker was full, or the tenant had its share.
    shed: u64,
    /// Of them: because the tenant had its share.
    over_share: u64,
    /// Tenants that have requests at work now, and how many the busiest of them has.
    tenants_at_work: usize,
    largest_share: usize,
    /// Not served: without a reply subject, or with one that is not allowed.
    refused_replies: u64,
    /// Requests that ended in a fault of the worker.
    panics: u64,
    /// Replies that could not be sent.
    unsent: u64,
    /// Messages that the client library dropped, at least. Above zero is an alarm.
    dropped: u64,
    /// What became of submits at this worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    submits: Option<Counted>,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `2026-01-31T12:00:00.000Z`, by the days-to-civil rule of H. Hinnant.
fn rfc3339(at: Timestamp) -> String {
    let (days, ms) = (at.0.div_euclid(86_400_000), at.0.rem_euclid(86_400_000));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_dates() {
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(Timestamp(951_782_399_999)), "2000-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(Timestamp(951_782_400_000)), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(Timestamp(1_798_761_599_001)), "2026-12-31T23:59:59.001Z");
    }

    #[test]
    fn the_usual_time_follows_the_work() {
        let tally = Tally::default();
        assert_eq!(tally.usual_work(), None);
        tally.worked(Duration::from_millis(100));
        tally.worked(Duration::from_millis(200));
        assert_eq!(tally.usual_work(), Some(Duration::from_millis(110)));
    }
}
