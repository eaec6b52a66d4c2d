//! What comes again and again is read and written once.
//!
//! Most requests of a busy service are repeats, byte for byte, and their answers come from the cache. Reading such a
//! body, hashing its goal and escaping its answer would cost several times what finding the answer costs.

use std::sync::Arc;

use moka::sync::Cache;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::domain::record::EntryId;
use crate::domain::{Request, Tenant};
use crate::pipeline::Name;

/// Bytes of bodies and of answers that are kept.
const BODIES: u64 = 4 * 1024 * 1024;
const ANSWERS: u64 = 16 * 1024 * 1024;
/// Bodies above this are rarely repeats.
const LONGEST: usize = 8 * 1024;
/// What a body that was read takes besides its bytes, roughly.
const READ: usize = 2 * 1024;
/// What each text in it takes besides its bytes, with its place in a list or a map.
const TEXT: usize = 96;

type Bodies = Cache<[u8; 32], Arc<Known>>;
type Answers = Cache<EntryId, Arc<RawValue>>;

/// A body that was read before. Its request's correlation id is another one's.
pub(super) struct Known {
    pub(super) request: Request,
    pub(super) name: Name,
}

/// In memory, roughly. A body of a few KiB may be a list of a thousand texts.
fn size(request: &Request) -> usize {
    let Request { goal, notes, .. } = request;
    let context = &goal.context;
    let texts = (goal.acceptance_criteria.iter().chain(notes).map(String::len))
        .chain(context.fields.iter().map(|(name, value)| name.len() + value.len()))
        .chain(context.messages.iter().map(|message| message.role.len() + message.content.len()))
        .chain(context.workspace.iter().map(String::len));
    READ + 2 * goal.description.len() + texts.map(|text| TEXT + text).sum::<usize>()
}

/// Shared by all calls of an endpoint. Clones are the same memory.
#[derive(Clone)]
pub struct Repeats {
    bodies: Bodies,
    answers: Answers,
}

impl Default for Repeats {
    fn default() -> Self {
        Self::new()
    }
}

impl Repeats {
    /// Forgets everything, of all tenants: what is asked again is read again.
    pub fn forget(&self) {
        self.bodies.invalidate_all();
        self.answers.invalidate_all();
    }

    pub fn new() -> Self {
        let bodies = Bodies::builder()
            .max_capacity(BODIES)
            .weigher(|_, known| u32::try_from(size(&known.request)).unwrap_or(u32::MAX));
        let answers = Answers::builder()
            .max_capacity(ANSWERS)
            .weigher(|_, text| u32::try_from(text.get().len()).unwrap_or(u32::MAX));
        Self { bodies: bodies.build(), answers: answers.build() }
    }

    /// The body as it was read when it first came from this tenant. Refused ones are read anew each time.
    pub(super) fn body<E>(
        &self,
        tenant: &Tenant,
        body: &[u8],
        read: impl FnOnce() -> Result<Known, E>,
    ) -> Result<Arc<Known>, E> {
        if body.len() > LONGEST {
            return read().map(Arc::new);
        }
        let mut hash = Sha256::new_with_prefix(tenant.as_str());
        hash.update([0]);
        hash.update(body);
        let hash = hash.finalize().into();
        if let Some(known) = self.bodies.get(&hash) {
            return Ok(known);
        }
        let known = Arc::new(read()?);
        self.bodies.insert(hash, known.clone());
        Ok(known)
    }

    /// The text of a cached answer as JSON.
    pub(super) fn answer(&self, entry: EntryId, text: &str) -> serde_json::Result<Arc<RawValue>> {
        if let Some(known) = self.answers.get(&entry) {
            return Ok(known);
        }
        let json: Arc<RawValue> = RawValue::from_string(serde_json::to_string(text)?)?.into();
        self.answers.insert(entry, json.clone());
        Ok(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::wire::{self, Envelope};
    use crate::domain::{Language, Timestamp};

    #[test]
    fn a_body_weighs_what_it_takes_though_it_is_a_list_of_a_thousand_texts() {
        let (envelope, checked) = Envelope::read("execution.request", "execution.request", None, Timestamp(0));
        checked.unwrap();
        let size = |body: &str| {
            let request = wire::decode(body.as_bytes(), &envelope, 1024, |_, _, _| Language::Rust).unwrap();
            size(&request)
        };
        let plain = size(r#"{"task": "x"}"#);
        let list = |item: &str| vec![item; 1_000].join(",");
        let many = [
            format!(r#"{{"task": "x", "acceptance_criteria": [{}]}}"#, list(r#""a""#)),
            format!(r#"{{"task": "x", "context": {{"messages": [{}]}}}}"#, list(r#"{"role":"user","content":"a"}"#)),
            format!(
                r#"{{"task": "x", "context": {{{}}}}}"#,
                (0..1_000).map(|n| format!(r#""{n}":1"#)).collect::<Vec<_>>().join(",")
            ),
        ];
        for body in many {
            assert!(size(&body) > plain + 50_000, "{}", size(&body));
        }
    }
}
