use std::sync::Arc;

use crate::domain::record::CacheEntry;
use crate::domain::{Answer, CorrelationId};

/// What of an entry only a hit needs, in one run of bytes: as a record, with a text here and an empty list there, it takes
/// twice as much. Clones are the same bytes.
#[derive(Clone)]
pub(super) struct Packed(Arc<[u8]>);

impl Packed {
    /// `None` for what has no such form, which no answer is known to be.
    pub(super) fn of(entry: &CacheEntry) -> Option<Self> {
        let bytes = postcard::to_allocvec(&(&*entry.task, &entry.origin, &*entry.answer));
        match bytes {
            Ok(bytes) => Some(Self(bytes.into())),
            Err(error) => {
                tracing::error!(cache.entry = %entry.id.0, %error, "an answer can't be kept in memory");
                None
            }
        }
    }

    /// The task as its sender wrote it.
    pub(super) fn task(&self) -> &str {
        read(postcard::take_from_bytes(&self.0)).map_or("", |(task, _)| task)
    }

    /// Where the answer came from, and the answer. `None` where that can't be read back.
    pub(super) fn unpack(&self) -> Option<(CorrelationId, Answer)> {
        read(postcard::from_bytes::<(&str, CorrelationId, Answer)>(&self.0)).map(|(_, origin, answer)| (origin, answer))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn read<T>(result: postcard::Result<T>) -> Option<T> {
    result.inspect_err(|error| tracing::error!(%error, "an entry in memory can't be read back")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::record::{EntryId, EntryKind};
    use crate::domain::{
        Evaluation, Hit, Language, Method, NanoUsd, Part, ProjectFile, Tag, TaskType, TemplateId, Tenant, Tier,
        Timestamp, Usage,
    };

    #[test]
    fn whatever_an_answer_holds_comes_back_as_it_was() {
        let plain =
            Answer::new(Method::Autonomous, TaskType::General, &Language::Elixir, "x = 1\n".into(), Timestamp(5));
        let hit = Hit {
            tier: Tier::Semantic,
            similarity: 0.9,
            age: Duration::from_millis(7),
            entry: EntryId(uuid::Uuid::now_v7()),
            origin: CorrelationId::generate(),
        };
        let full = Answer {
            file: Some("lib/é.ex".into()),
            method: Method::LlmAssisted,
            task_type: TaskType::DataProcessing,
            language: Language::Other("cobol".into()),
            template: Some(TemplateId::parse("elixir-nats-consumer").unwrap()),
            model: Some("a model".into()),
            usage: Usage { input: 1, output: u64::MAX },
            cost: NanoUsd(3),
            unknown: NanoUsd(4),
            evaluation: Some(Evaluation { quality: 0.7, parses: true, lines: 3, cyclomatic: Some(2) }),
            reason: Some("why".into()),
            project: vec![ProjectFile { path: "mix.exs".into(), text: "m".into() }],
            notes: vec!["a".into(), String::new()],
            tags: vec![Tag::parse("billing").unwrap()],
            hit: Some(hit),
            time: Duration::new(3, 141_592_653),
            made_at: Timestamp(-1),
            ..plain.clone()
        };
        let part =
            Part { id: "root.1".into(), depends_on: vec!["root.0".into()], description: "d".into(), answer: plain };
        let whole = Answer { parts: vec![part.clone(), Part { answer: full.clone(), ..part }], ..full };
        let entry = CacheEntry {
            id: EntryId(uuid::Uuid::now_v7()),
            tenant: Tenant::default(),
            kind: EntryKind::Request,
            scope: [1; 32],
            exact: [2; 32],
            task: "Write a 🦀".into(),
            answer: Arc::new(whole),
            vector: None,
            origin: CorrelationId::generate(),
            created: Timestamp(1),
            expires: Timestamp(2),
        };
        let packed = Packed::of(&entry).unwrap();
        assert_eq!(packed.task(), &*entry.task);
        let (origin, answer) = packed.unpack().unwrap();
        assert_eq!((origin, &answer), (entry.origin.clone(), &*entry.answer));
    }
}
