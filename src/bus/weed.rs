//! Finds submits that the client library can't even read, and sets them aside.
//!
//! Such a frame breaks the connection when it is delivered, and would do so after each ack wait. The server tells its
//! content as JSON, though, and takes an acknowledgement from whoever may acknowledge. So after each break of the
//! connection the submits in hand, everybody's, are looked through.

use std::str::FromStr;
use std::sync::Arc;

use async_nats::header::HeaderName;
use async_nats::jetstream::AckKind;
use async_nats::jetstream::response::Response;
use async_nats::{HeaderMap, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::json;
use tracing::{error, warn};

use super::Error;
use super::dead::{Letter, header};
use super::streams::{SUBMIT, WORKERS};
use super::submit::{Lane, SUBJECT};
use super::wire::{Causes, Code, Refusal};
use crate::domain::{CorrelationId, RequestId, Tenant};

/// A message as the server's API tells it: bytes in base64, so that whatever is in it can be read.
#[derive(Deserialize)]
struct Told {
    message: Raw,
}

#[derive(Deserialize)]
struct Raw {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

/// Looks through what was delivered and is not acknowledged; what was looked at before is left out.
pub(super) async fn weed(lane: Arc<Lane>) {
    let mut searched = lane.shared.searched.lock().await;
    if let Err(error) = search(&lane, &mut searched).await {
        warn!(error = %Causes(&error), "unreadable submits could not be searched for; the next break makes another try");
    }
}

async fn search(lane: &Lane, searched: &mut u64) -> Result<(), Error> {
    let failed = |action: &str, source: async_nats::Error| Error::JetStream { action: action.to_owned(), source };
    let stream = lane.context.get_stream_no_info(SUBMIT).await;
    let stream = stream.map_err(|e| failed("look at the stream of submits", e.into()))?;
    let info = stream.consumer_info(WORKERS).await;
    let delivered = info.map_err(|e| failed("look at the workers' consumer", e.into()))?.delivered.stream_sequence;
    if *searched > delivered {
        // The stream was made anew.
        *searched = 0;
    }
    while *searched < delivered {
        let subject = format!("STREAM.MSG.GET.{SUBMIT}");
        let query = json!({"seq": *searched + 1, "next_by_subj": ">"});
        let told: Response<Told> = lane
            .context
            .request(subject, &query)
            .await
            .map_err(|error| failed("read a submit from its stream", error.into()))?;
        let message = match told {
            Response::Ok(told) => told.message,
            // None is left.
            Response::Err { .. } => return Ok(()),
        };
        if message.seq > delivered {
            return Ok(());
        }
        let headers = BASE64_STANDARD.decode(&message.hdrs).unwrap_or_default();
        if let Err(why) = readable(&message.subject, &headers) {
            set_aside(lane, &message, why).await?;
        }
        *searched = message.seq;
    }
    Ok(())
}

async fn set_aside(lane: &Lane, message: &Raw, why: &'static str) -> Result<(), Error> {
    let now = (lane.shared.clock)();
    let tenant = message.subject.strip_prefix(SUBJECT).and_then(|rest| rest.strip_prefix('.'));
    let tenant = tenant.and_then(|tenant| Tenant::parse(tenant).ok()).unwrap_or_default();
    let id = RequestId::numbered(message.seq, u64::try_from(now.0).unwrap_or(0));
    let refusal = Refusal::new(Code::InvalidField, format!("no client can read this message: {why}"));
    let letter = Letter {
        tenant: &tenant,
        id: &id,
        correlation_id: &CorrelationId::generate(),
        reason: refusal.code,
        message: &refusal.message,
        at: now,
        attempts: 1,
        sequence: message.seq,
        published: 0,
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::UNREADABLE, message.hdrs.as_str());
    let body = BASE64_STANDARD.decode(&message.data).unwrap_or_default();
    let most = lane.connection.client.max_payload();
    let (subject, headers, body) = letter.written(headers, &message.subject, &body, most);
    let failed = |source: async_nats::Error| Error::JetStream { action: "write a dead letter".to_owned(), source };
    let sent = lane.context.publish_with_headers(subject, headers, body.into()).await;
    sent.map_err(|e| failed(e.into()))?.await.map_err(|e| failed(e.into()))?;
    // As its delivery would have named it: the server looks at the stream's sequence alone.
    let acknowledge = format!("$JS.ACK.{SUBMIT}.{WORKERS}.1.{}.{}.0.0", message.seq, message.seq);
    let client = &lane.connection.client;
    let sent = client.publish(acknowledge.clone(), AckKind::Term.into()).await;
    sent.map_err(|source| Error::Publish { subject: acknowledge, source })?;
    lane.shared.counts.dead.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    error!(submit.sequence = message.seq, "a submit that no client can read was set aside: {why}");
    Ok(())
}

/// Whether the client library takes such a message without dropping the connection: as async-nats 0.51 reads frames.
fn readable(subject: &str, headers: &[u8]) -> Result<(), &'static str> {
    // Bytes that are not UTF-8 stand as this character in the server's JSON.
    if subject.contains(char::REPLACEMENT_CHARACTER) {
        return Err("its subject is not UTF-8");
    }
    if headers.is_empty() {
        return Ok(());
    }
    // Only with headers is the line taken apart at every kind of space.
    if subject.trim().contains(char::is_whitespace) {
        return Err("its subject has a space");
    }
    let text = std::str::from_utf8(headers).map_err(|_| "its headers are not UTF-8")?;
    let mut lines = text.lines().peekable();
    let status = lines.next().and_then(|line| line.strip_prefix("NATS/1.0"));
    let status = status.ok_or("its headers do not begin with NATS/1.0")?.trim();
    let status = status.split_once(' ').map_or(status, |(status, _)| status.trim());
    if !status.is_empty() && StatusCode::from_str(status).is_err() {
        return Err("its status is no number");
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or("a header has no colon")?;
        HeaderName::from_str(name).map_err(|_| "a header's name is none")?;
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        // The client does not survive it.
        if value.trim_end().contains('\r') {
            return Err("a header's value has a carriage return");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn what_breaks_the_connection_is_told_from_what_is_only_odd() {
        let good = |headers: &[u8]| readable("execution.submit", headers).is_ok();
        for odd in [
            &b""[..],
            b"NATS/1.0\r\n\r\n",
            b"NATS/1.0 503 No\r\n\r\n",
            b"NATS/1.0\r\na:b\r\n  c\r\n\r\n",
            b"NATS/1.0\r\na: b\r\r\n\r\n",
        ] {
            assert!(good(odd), "{odd:?}");
        }
        for bad in [
            &b"NATS/1.0\r\na: \xff\r\n\r\n"[..],
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"a: b\r\n\r\n",
            b"NATS/1.0 abc\r\n\r\n",
            b"NATS/1.0\r\na b: c\r\n\r\n",
            b"NATS/1.0\r\na: b\rc\r\n\r\n",
            b"NATS/1.0\r\na: b\r\n\rc\r\n\r\n",
        ] {
            assert!(!good(bad), "{bad:?}");
        }
        assert!(readable("execution.submit.\u{fffd}", b"").is_err());
        let spaced = "execution.submit.a\u{2003}b";
        assert!(readable(spaced, b"NATS/1.0\r\n\r\n").is_err() && readable(spaced, b"").is_ok());
    }
}
