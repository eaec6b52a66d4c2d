use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::domain::record::{Digest, EntryKind};
use crate::domain::{Context, Goal, Language, Tag, Tenant};

/// What an answer is looked up and stored by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub kind: EntryKind,
    pub tenant: Tenant,
    pub language: Language,
    /// Everything that must be equal for a semantic hit: tenant, kind, language, complexity, acceptance criteria, the
    /// listed context fields, and the embedder's version, because vectors of two versions do not compare.
    pub scope: Digest,
    /// The same without the embedder's version, and with the normalised task: a new embedder changes no letter of
    /// the task, so exact answers outlive it.
    pub exact: Digest,
    /// As its sender wrote it.
    pub task: Arc<str>,
    /// What is stored under it can be taken back by these.
    pub tags: Vec<Tag>,
}

impl Key {
    /// `fields` names the context fields that change an answer; `messages` stands for the conversation.
    /// The workspace is never part of a key, whatever `fields` says.
    pub fn new(tenant: &Tenant, kind: EntryKind, goal: &Goal, fields: &[String], embedder: &str) -> Self {
        let ground = ground(tenant, kind, goal, fields);
        let digest = |label: &str, last: &str| Fields::new(label).add(&ground).add(last.as_bytes()).digest();
        Self {
            kind,
            tenant: tenant.clone(),
            language: goal.language.clone(),
            scope: digest("scope/1", embedder),
            exact: digest("exact/1", &normalised(&goal.description)),
            task: goal.description.as_str().into(),
            tags: goal.tags.clone(),
        }
    }
}

fn ground(tenant: &Tenant, kind: EntryKind, goal: &Goal, fields: &[String]) -> Digest {
    let mut all = Fields::new("ground/1")
        .add(tenant.as_str().as_bytes())
        .add(&[match kind {
            EntryKind::Request => 0,
            EntryKind::Task => 1,
        }])
        .add(goal.language.as_str().as_bytes())
        .add(goal.complexity.as_str().as_bytes());
    let criteria = goal.acceptance_criteria.iter().map(|c| c.trim()).filter(|c| !c.is_empty());
    all = all.list(criteria.map(str::as_bytes));
    let mut fields: Vec<&str> = fields.iter().map(String::as_str).filter(|f| *f != "workspace").collect();
    fields.sort_unstable();
    fields.dedup();
    for field in fields {
        all = context_field(all.add(field.as_bytes()), &goal.context, field);
    }
    all.digest()
}

fn context_field(all: Fields, context: &Context, field: &str) -> Fields {
    if field == "messages" {
        return all.list(context.messages.iter().flat_map(|m| [m.role.as_bytes(), m.content.as_bytes()]));
    }
    all.list(context.fields.get(field).map(String::as_bytes))
}

/// SHA-256 over fields that can't run into each other: each stands behind its length, each list behind its count.
struct Fields(Sha256);

impl Fields {
    fn new(label: &str) -> Self {
        Self(Sha256::new()).add(label.as_bytes())
    }

    fn add(mut self, field: &[u8]) -> Self {
        self.0.update((field.len() as u64).to_le_bytes());
        self.0.update(field);
        self
    }

    fn list<'a>(mut self, items: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let items: Vec<_> = items.into_iter().collect();
        self.0.update((items.len() as u64).to_le_bytes());
        items.into_iter().fold(self, Self::add)
    }

    fn digest(self) -> Digest {
        self.0.finalize().into()
    }
}

/// The task in the one spelling that the exact tier compares. Only what says nothing in any text goes: white space
/// around it and at the ends of lines, runs of blanks, a full stop at the end, and the capital that begins the first word.
/// Lines and their indentation stay, for they are code; a text with quotations stays as it is between its ends; so do a
/// question mark and all other case, because `User` and `user` may be two names. What is spelt in yet other ways is for
/// the semantic tier and its guards.
fn normalised(task: &str) -> String {
    let task = task.trim();
    let task = match without_stop(task) {
        // Nothing but punctuation is its own text.
        "" => task,
        stopped => stopped,
    };
    let mut text = if task.contains(['"', '\'', '`', '“', '”', '‘', '’']) {
        task.to_owned()
    } else {
        task.lines().map(spaced).collect::<Vec<_>>().join("\n")
    };
    let first = text.split([' ', '\n', '\t']).next().unwrap_or_default();
    let bare = first.trim_end_matches([',', ':', ';']);
    let plain = bare.chars().all(|c| c.is_alphabetic() || c == '-') && !bare.chars().skip(1).any(char::is_uppercase);
    if plain {
        let lower = bare.to_lowercase();
        text.replace_range(..bare.len(), &lower);
    }
    text
}

/// Without the full stop or exclamation mark at the end; the one in `n!` is no punctuation.
fn without_stop(text: &str) -> &str {
    let bare = text.trim_end_matches(['.', '!', ' ', '\t', '\n', '\r']);
    let last = bare.split_whitespace().next_back().unwrap_or_default();
    let is_word =
        last.chars().nth(1).is_some() && last.chars().all(|c| c.is_alphabetic() || matches!(c, '-' | '\'' | '’'));
    if is_word || !text[bare.len()..].starts_with('!') { bare } else { text }
}

/// A line with its indentation, and with one blank between its words.
fn spaced(line: &str) -> String {
    let words = line.trim_start();
    let indentation = &line[..line.len() - words.len()];
    let words: Vec<&str> = words.split_whitespace().collect();
    if words.is_empty() { String::new() } else { format!("{indentation}{}", words.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Complexity, Message};

    fn goal(task: &str) -> Goal {
        Goal {
            description: task.into(),
            language: Language::Elixir,
            complexity: Complexity::Medium,
            acceptance_criteria: vec![],
            context: Context::default(),
            tags: vec![],
        }
    }

    fn key(goal: &Goal) -> Key {
        let fields = ["target_file".into(), "messages".into(), "workspace".into()];
        Key::new(&Tenant::default(), EntryKind::Request, goal, &fields, "v1")
    }

    #[test]
    fn spellings_that_say_the_same_have_one_exact_key() {
        let exact = |task| key(&goal(task)).exact;
        let base = exact("Create a NATS consumer for user events");
        for same in [
            "create a NATS consumer for user events",
            "  Create  a\tNATS consumer for user events. \n",
            "Create a NATS consumer for user events !",
        ] {
            assert_eq!(exact(same), base, "{same:?}");
        }
        for other in ["Create a NATS consumer for User events", "Create a NATS consumer for userEvents", ""] {
            assert_ne!(exact(other), base, "{other:?}");
        }
        assert_ne!(exact("Name it get_x"), exact("Name it GET_X"));
    }

    #[test]
    fn what_may_say_something_has_its_own_exact_key() {
        for (a, b) in [
            ("if a:\n    b()\nc()", "if a:\n    b()\n    c()"),
            ("# one\ntwo()", "# one two()"),
            ("Print `a  b`", "Print `a b`"),
            ("Print \"a\n b\"", "Print \"a b\""),
            ("REST endpoint for zebras?", "REST endpoint for zebras"),
            ("A program that prints foo. Bar", "A program that prints foo. bar"),
            ("A program that prints Swift", "A program that prints swift"),
            ("Compute n!", "Compute n"),
            ("PRINT FOO", "print foo"),
            ("...", "!"),
        ] {
            assert_ne!(normalised(a), normalised(b), "{a:?} and {b:?}");
        }
        assert_eq!(normalised("Fix:  \n\tif a  {\n\t\tb }.\r\n"), "fix:\n\tif a {\n\t\tb }");
        assert_eq!(normalised("Ändere das!"), "ändere das");
    }

    #[test]
    fn whatever_changes_an_answer_changes_scope_and_exact_key() {
        let base = key(&goal("task"));
        let criteria =
            |list: &[&str]| Goal { acceptance_criteria: list.iter().map(|c| (*c).into()).collect(), ..goal("task") };
        let context = |context: Context| Goal { context, ..goal("task") };
        let message = |content: &str| Message { role: "user".into(), content: content.into() };
        let field = |name: &str| Context { fields: [(name.into(), "\"x\"".into())].into(), ..Context::default() };
        let others = [
            Goal { language: Language::Rust, ..goal("task") },
            Goal { language: Language::Other("elixir ".into()), ..goal("task") },
            Goal { complexity: Complexity::Simple, ..goal("task") },
            criteria(&["a", "b"]),
            criteria(&["b", "a"]),
            criteria(&["ab"]),
            context(field("target_file")),
            context(Context { messages: vec![message("hello")], ..Context::default() }),
            context(Context { messages: vec![message("hello"), message("more")], ..Context::default() }),
        ];
        let mut seen = vec![base.clone()];
        for other in others.iter().map(key) {
            assert!(seen.iter().all(|k| k.scope != other.scope && k.exact != other.exact), "{other:?}");
            seen.push(other);
        }
        for (tenant, kind) in [("other", EntryKind::Request), ("default", EntryKind::Task)] {
            let key = Key::new(
                &Tenant::parse(tenant).unwrap(),
                kind,
                &goal("task"),
                &["target_file".into(), "messages".into()],
                "v1",
            );
            assert!(key.scope != base.scope && key.exact != base.exact);
        }
    }

    #[test]
    fn workspace_unlisted_fields_and_spaces_around_criteria_change_nothing() {
        let mut other = goal("task");
        other.context.workspace = Some("/somewhere".into());
        other.context.fields = [("workspace".into(), "\"/x\"".into()), ("editor".into(), "\"vim\"".into())].into();
        other.acceptance_criteria = vec!["  ".into()];
        assert_eq!(key(&other), key(&goal("task")));
    }

    #[test]
    fn a_new_embedder_changes_the_scope_and_leaves_the_exact_key() {
        let key = |version| Key::new(&Tenant::default(), EntryKind::Request, &goal("task"), &[], version);
        assert_ne!(key("v1").scope, key("v2").scope);
        assert_eq!(key("v1").exact, key("v2").exact);
    }
}
