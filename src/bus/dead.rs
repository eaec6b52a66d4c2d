//! Dead letters: submits that could not be done, as they came, with headers that say why.

use async_nats::{HeaderMap, Message, Subject};

use super::job::ID;
use super::reply::{HEADER_ROOM, header_text};
use super::wire::{CORRELATION_ID, Code};
use crate::domain::{CorrelationId, RequestId, Tenant, Timestamp};

/// What a letter's headers are called; the submit's own headers stand beside them.
pub(super) mod header {
    /// The code of the error.
    pub(in crate::bus) const REASON: &str = "Dead-Reason";
    /// The error in words.
    pub(in crate::bus) const MESSAGE: &str = "Dead-Message";
    /// When it was set aside, in milliseconds since the Unix epoch.
    pub(in crate::bus) const AT: &str = "Dead-At";
    /// Attempts, this one among them.
    pub(in crate::bus) const ATTEMPTS: &str = "Dead-Attempts";
    /// The subject that it was submitted on.
    pub(in crate::bus) const SUBJECT: &str = "Dead-Subject";
    /// Its place in the stream of submits.
    pub(in crate::bus) const SEQUENCE: &str = "Dead-Sequence";
    /// How many bytes the body had, where it is left out.
    pub(in crate::bus) const LEFT_OUT: &str = "Dead-Left-Out";
    /// The submit's own headers in base64, where no client can read them.
    pub(in crate::bus) const UNREADABLE: &str = "Dead-Unreadable-Headers";

    /// All of them with their meaning, for the documents.
    pub(in crate::bus) const ALL: [(&str, &str); 8] = [
        (REASON, "The code of the error."),
        (MESSAGE, "The error in words."),
        (AT, "When it was set aside, in milliseconds since the Unix epoch."),
        (ATTEMPTS, "Attempts, the last one among them."),
        (SUBJECT, "The subject that it was submitted on."),
        (SEQUENCE, "Its place in the stream of submits."),
        (LEFT_OUT, "How many bytes the body had, where it is left out."),
        (UNREADABLE, "The submit's own headers in base64, where no client can read them."),
    ];
}

/// Bytes of headers in one letter, with room for what the client adds. The server's limit for a stream is 64 KiB.
const MOST_HEADERS: usize = 63 * 1024;

/// Why a submit is set aside.
pub(super) struct Letter<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) id: &'a RequestId,
    pub(super) correlation_id: &'a CorrelationId,
    pub(super) reason: Code,
    pub(super) message: &'a str,
    pub(super) at: Timestamp,
    pub(super) attempts: u32,
    pub(super) sequence: u64,
    /// In nanoseconds, as the stream has it.
    pub(super) published: i64,
}

impl Letter<'_> {
    /// The letter of a submit: its subject, headers and body. A body that is too large, for us or for a server that
    /// carries `most` bytes, is left out: it could not be sent again either.
    pub(super) fn of(&self, message: &Message, most: usize) -> (Subject, HeaderMap, Vec<u8>) {
        let mut headers = HeaderMap::new();
        for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
            let name: &str = name.as_ref();
            // What the server acts on, and what only we may say.
            if !name.starts_with("Nats-") && !name.starts_with("Dead-") {
                values.iter().for_each(|value| headers.append(name, value.as_str()));
            }
        }
        self.written(headers, &message.subject, &message.payload, most)
    }

    /// The same from its parts, for a submit that no client can read.
    pub(super) fn written(
        &self,
        mut headers: HeaderMap,
        subject: &str,
        body: &[u8],
        most: usize,
    ) -> (Subject, HeaderMap, Vec<u8>) {
        headers.insert(header::REASON, self.reason.as_str());
        headers.insert(header::MESSAGE, header_text(self.message));
        headers.insert(header::AT, self.at.0.to_string());
        headers.insert(header::ATTEMPTS, self.attempts.to_string());
        headers.insert(header::SUBJECT, header_text(subject));
        headers.insert(header::SEQUENCE, self.sequence.to_string());
        headers.insert(ID, self.id.as_str());
        headers.insert(CORRELATION_ID, self.correlation_id.as_str());
        // Two workers that set the same one aside write one letter.
        headers.insert("Nats-Msg-Id", format!("dead-{}-{}", self.sequence, self.published));
        let size = |headers: &HeaderMap| -> usize {
            let line = |name: &str, value: &str| name.len() + value.len() + 4;
            headers.iter().flat_map(|(n, vs)| vs.iter().map(move |v| line(n.as_ref(), v.as_str()))).sum()
        };
        // A stream takes no message with more; a letter that it does not take would be tried again for ever.
        if size(&headers) > MOST_HEADERS.min(most.saturating_sub(HEADER_ROOM)) {
            return self.written(HeaderMap::new(), subject, body, most);
        }
        let body = if self.reason == Code::TooLarge || size(&headers) + body.len() + HEADER_ROOM > most {
            headers.insert(header::LEFT_OUT, body.len().to_string());
            vec![]
        } else {
            body.to_vec()
        };
        let subject = format!("execution.dead.{}.{}", self.tenant, self.id);
        (Subject::from(subject), headers, body)
    }
}
