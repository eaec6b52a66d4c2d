//! What a message says around its body: tenant, trace, deadline.

use std::time::Duration;

use async_nats::HeaderMap;

use super::{Code, Refusal};
use crate::domain::{CorrelationId, Tenant, Timestamp};

/// W3C trace context, in and out.
pub const TRACEPARENT: &str = "traceparent";
/// When the sender stops waiting: milliseconds since the Unix epoch.
pub const DEADLINE: &str = "Execution-Deadline";
/// Stands on every reply.
pub const CORRELATION_ID: &str = "Correlation-Id";

/// Around one message; checked.
#[derive(Debug, Clone)]
pub struct Envelope {
    pub tenant: Tenant,
    /// Made here, one per message.
    pub correlation_id: CorrelationId,
    pub traceparent: Option<String>,
    pub deadline: Option<Timestamp>,
}

impl Envelope {
    /// `base` is the subject without a tenant. The envelope comes back even with a refusal, so that the sender can be
    /// told; its tenant is then the default one and nothing may be done for it.
    pub fn read(base: &str, subject: &str, headers: Option<&HeaderMap>, now: Timestamp) -> (Self, Result<(), Refusal>) {
        let header = |name| headers.and_then(|h| h.get_last(name)).map(|value| value.as_str());
        let mut envelope = Self {
            tenant: Tenant::default(),
            correlation_id: CorrelationId::generate(),
            traceparent: header(TRACEPARENT).filter(|t| is_traceparent(t)).map(str::to_owned),
            deadline: None,
        };
        let checked = envelope.check(base, subject, header(DEADLINE), now);
        (envelope, checked)
    }

    /// The time that a request may take which asks for `timeout`: not beyond the deadline.
    pub fn within(&self, timeout: Duration, now: Timestamp) -> Duration {
        self.deadline.map_or(timeout, |deadline| timeout.min(deadline.since(now)))
    }

    fn check(&mut self, base: &str, subject: &str, deadline: Option<&str>, now: Timestamp) -> Result<(), Refusal> {
        if let Some(token) = subject.strip_prefix(base).and_then(|rest| rest.strip_prefix('.')) {
            self.tenant = Tenant::parse(token).map_err(|error| {
                Refusal::at(Code::InvalidField, "tenant", format!("the tenant in the subject {error}"))
            })?;
        }
        if let Some(deadline) = deadline {
            let ms = deadline.trim().parse().map_err(|_| {
                let message = format!("the header {DEADLINE} must be milliseconds since the Unix epoch");
                Refusal::at(Code::InvalidField, DEADLINE, message)
            })?;
            if ms <= now.0 {
                let late = now.since(Timestamp(ms)).as_millis();
                let message = format!("the request arrived {late} ms after its deadline; it was not begun");
                return Err(Refusal::new(Code::DeadlineExceeded, message));
            }
            self.deadline = Some(Timestamp(ms));
        }
        Ok(())
    }
}

/// The part of a `traceparent` that all of a trace have in common.
pub fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1)
}

/// The shape that W3C gives it: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero, version not `ff`.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return false };
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    hex(version, 2) && version != "ff" && hex(trace, 32) && some(trace) && hex(span, 16) && some(span) && hex(flags, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(subject: &str, headers: &[(&str, &str)]) -> (Envelope, Result<(), Refusal>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        Envelope::read("execution.request", subject, Some(&map), Timestamp(1_000))
    }

    #[test]
    fn a_trace_is_known_by_its_id() {
        let (envelope, _) =
            read("execution.request", &[(TRACEPARENT, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]);
        assert_eq!(envelope.traceparent.as_deref().and_then(trace_id), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(read("execution.request", &[]).0.traceparent, None);
    }

    #[test]
    fn the_last_token_is_the_tenant_and_none_is_the_default() {
        assert_eq!(read("execution.request", &[]).0.tenant, Tenant::default());
        assert_eq!(read("execution.request.acme", &[]).0.tenant.as_str(), "acme");
        let (_, refused) = read("execution.request.a b", &[]);
        assert_eq!(refused.unwrap_err().field.as_deref(), Some("tenant"));
    }

    #[test]
    fn a_deadline_in_the_past_is_refused_and_a_wrong_one_named() {
        assert_eq!(read("execution.request", &[(DEADLINE, "1001")]).0.deadline, Some(Timestamp(1_001)));
        let code = |value| read("execution.request", &[(DEADLINE, value)]).1.unwrap_err().code;
        assert_eq!(code("1000"), Code::DeadlineExceeded);
        assert_eq!(code("-9223372036854775808"), Code::DeadlineExceeded);
        assert_eq!(code("soon"), Code::InvalidField);
    }

    #[test]
    fn the_header_shortens_the_time_and_never_lengthens_it() {
        let within = |deadline| {
            let (envelope, _) = read("execution.request", &[(DEADLINE, deadline)]);
            envelope.within(Duration::from_millis(500), Timestamp(1_000))
        };
        assert_eq!(within("1020"), Duration::from_millis(20));
        assert_eq!(within("21000"), Duration::from_millis(500));
        assert_eq!(
            read("execution.request", &[]).0.within(Duration::from_secs(1), Timestamp(0)),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn a_traceparent_of_another_shape_is_ignored() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(read("execution.request", &[(TRACEPARENT, good)]).0.traceparent.as_deref(), Some(good));
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            assert_eq!(read("execution.request", &[(TRACEPARENT, bad)]).0.traceparent, None, "{bad:?}");
        }
    }
}
