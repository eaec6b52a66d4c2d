//! What a team sends, drawn at random: every draw but a repeat is a text that was not sent before.

use std::collections::HashSet;
use std::path::Path;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tandem::coordinator::agent::language_of;

use crate::Mix;

/// What a request is for the team; what becomes of it is the worker's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Repeat,
    Paraphrase,
    Template,
    Compound,
    Algorithm,
    Question,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Repeat, Self::Paraphrase, Self::Template, Self::Compound, Self::Algorithm, Self::Question];

    pub fn name(self) -> &'static str {
        match self {
            Self::Repeat => "exact repeats",
            Self::Paraphrase => "paraphrases",
            Self::Template => "template tasks",
            Self::Compound => "compound goals",
            Self::Algorithm => "algorithms",
            Self::Question => "questions",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    pub task: String,
    /// As the sender's editor fills it in; often it does not.
    pub language: Option<String>,
}

/// A labelled task whose name another can take the place of.
struct Labelled {
    task: String,
    /// What is sent as `language`.
    given: Option<String>,
    /// Whether neither the field nor the words say a language: then a sender's may stand there.
    open: bool,
    /// The name as it stands in the task.
    name: Option<String>,
}

pub struct Corpus {
    templates: Vec<Labelled>,
    compound: Vec<Labelled>,
    algorithms: Vec<&'static str>,
    questions: Vec<&'static str>,
}

const LANGUAGES: [&str; 6] = ["elixir", "rust", "typescript", "go", "python", "javascript"];

const NAMES: &str = "orders|invoices|user events|payments|shipments|customers|products|refunds|sessions|bookings|tickets|\
    comments|reviews|subscriptions|carts|coupons|devices|alerts|reports|accounts|audit entries|addresses|price changes|\
    stock levels|deliveries|order items|messages|contracts|leads|vouchers|returns|warehouses|sensors|readings|trips|\
    drivers|vehicles|courses|lessons|students|grades|teams|projects|milestones|time entries|expenses|budgets|quotes|\
    suppliers|purchase orders|campaigns|segments|notifications|webhooks|uploads|albums|tracks|playlists|recipes|meals";

impl Corpus {
    pub fn read() -> Self {
        let lines = |text: &'static str| text.lines().filter(|line| !line.starts_with('#')).collect();
        let mut corpus = Self {
            templates: vec![],
            compound: vec![],
            algorithms: lines(include_str!("algorithms.txt")),
            questions: lines(include_str!("questions.txt")),
        };
        for file in ["tasks-calibration.tsv", "tasks-development-3.tsv"] {
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file));
            for line in text.unwrap().lines().filter(|line| !line.starts_with('#')) {
                let [given, language, types, "rules", name, _, task] = line.split('\t').collect::<Vec<_>>()[..] else {
                    continue;
                };
                let labelled = Labelled {
                    task: task.to_owned(),
                    given: (given != "-").then(|| given.to_owned()),
                    open: given == "-" && language == "-",
                    name: name.split('|').filter(|name| *name != "-").find_map(|name| standing(name, task)),
                };
                let kind = if types.contains(',') { &mut corpus.compound } else { &mut corpus.templates };
                kind.push(labelled);
            }
        }
        for line in include_str!("../../tests/data/goals.tsv").lines().skip(1) {
            let (goal, parts) = line.split_once('\t').unwrap();
            if parts != "-" {
                let name = goal.contains("orders").then(|| "orders".to_owned());
                let open = language_of(goal).is_none();
                corpus.compound.push(Labelled { task: goal.replace(" / ", "\n"), given: None, open, name });
            }
        }
        corpus
    }

    /// Requests in the order in which they are sent.
    pub fn draw(&self, mix: Mix, count: usize, rng: &mut StdRng) -> Vec<(Kind, Request)> {
        let mut distinct: Vec<(Kind, Request)> = vec![];
        let mut seen = HashSet::new();
        let mut sent = vec![];
        while sent.len() < count {
            let kind = mix.draw(rng);
            if kind == Kind::Repeat {
                let Some((_, again)) = zipf(&distinct, rng) else { continue };
                sent.push((kind, again.clone()));
                continue;
            }
            let fresh = (0..1_000).find_map(|_| {
                let request = match kind {
                    Kind::Template => renamed(self.templates.choose(rng)?, rng),
                    Kind::Compound => renamed(self.compound.choose(rng)?, rng),
                    Kind::Algorithm => {
                        let language = LANGUAGES.choose(rng)?.to_string();
                        Request { task: varied(self.algorithms.choose(rng)?, rng), language: Some(language) }
                    }
                    Kind::Question => {
                        let task = varied(self.questions.choose(rng)?, rng);
                        Request {
                            task,
                            language: rng.random_bool(0.3).then(|| LANGUAGES.choose(rng).unwrap().to_string()),
                        }
                    }
                    Kind::Paraphrase | Kind::Repeat => {
                        let (of, earlier) = distinct.choose(rng)?;
                        Request { task: rephrased(*of, &earlier.task, rng), ..earlier.clone() }
                    }
                };
                (!seen.contains(&request)).then_some(request)
            });
            let Some(fresh) = fresh else {
                assert!(distinct.is_empty(), "there are no more {} to send", kind.name());
                continue;
            };
            seen.insert(fresh.clone());
            distinct.push((kind, fresh.clone()));
            sent.push((kind, fresh));
        }
        sent
    }
}

/// A name as it stands in a task, perhaps in the plural. Not one that is part of a subject or path, too.
fn standing(name: &str, task: &str) -> Option<String> {
    let lower = task.to_lowercase();
    let at = lower.find(name).filter(|_| task.is_ascii())?;
    let end = at + name.len();
    let named = task[at..end + usize::from(task[end..].starts_with('s'))].to_owned();
    const JOINTS: [char; 6] = ['.', '/', '_', '-', '=', '*'];
    let apart = |(at, found): (usize, &str)| {
        let (before, behind) = (&lower[..at], &lower[at + found.len()..]);
        // A full stop may end the sentence.
        let goes_on = |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '*' | '>'));
        !before.ends_with(JOINTS) && !behind.strip_prefix(JOINTS).is_some_and(goes_on)
    };
    lower.match_indices(&named.to_lowercase()).all(apart).then_some(named)
}

fn renamed(of: &Labelled, rng: &mut StdRng) -> Request {
    let names: Vec<&str> = NAMES.split('|').collect();
    let task = match &of.name {
        Some(name) => of.task.replace(name, names.choose(rng).unwrap()),
        None => of.task.clone(),
    };
    let own = of.open && rng.random_bool(0.5);
    let language = of.given.clone().or_else(|| own.then(|| LANGUAGES.choose(rng).unwrap().to_string()));
    Request { task, language }
}

/// One of each `[a|b|c]`.
fn varied(text: &str, rng: &mut StdRng) -> String {
    let mut said = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let (options, after) = after.split_once(']').unwrap();
        said.push_str(before);
        said.push_str(options.split('|').collect::<Vec<_>>().choose(rng).unwrap());
        rest = after;
    }
    said + rest
}

/// The nth is drawn as often as 1/n says.
fn zipf<'a, T>(from: &'a [T], rng: &mut StdRng) -> Option<&'a T> {
    let most = (from.len() + 1) as f64;
    let at = most.powf(rng.random::<f64>()) as usize;
    from.get(at.saturating_sub(1).min(from.len().checked_sub(1)?))
}

/// The same in other words: another beginning and end.
fn rephrased(of: Kind, task: &str, rng: &mut StdRng) -> String {
    const BEGINNINGS: [&str; 7] =
        ["Please create", "I need", "Build me", "Can you write", "We want", "Generate", "Could somebody add"];
    const VERBS: [&str; 16] = [
        "please create",
        "create",
        "please write",
        "can you write",
        "write",
        "build me",
        "build",
        "i need",
        "generate",
        "set up",
        "could somebody add",
        "add",
        "implement",
        "i want",
        "we want",
        "make",
    ];
    const GREETINGS: [&str; 4] = ["Hi, ", "Hello, ", "One more: ", "Again: "];
    const ENDS: [&str; 6] = ["", ", please", ". Thanks", " for our team", " (today)", " asap"];
    if of == Kind::Question || task.ends_with('?') {
        return format!("{}{task}", GREETINGS.choose(rng).unwrap());
    }
    let task = ENDS[1..].iter().find_map(|end| task.strip_suffix(end)).unwrap_or(task).trim_end_matches(['.', '!']);
    let lower = task.to_lowercase();
    let verb = VERBS.iter().find(|verb| lower.strip_prefix(**verb).is_some_and(|rest| rest.starts_with(' ')));
    match verb.and_then(|verb| task.get(verb.len()..)) {
        Some(rest) => format!("{}{rest}{}", BEGINNINGS.choose(rng).unwrap(), ENDS.choose(rng).unwrap()),
        // It may begin with a verb of its own.
        None => format!("{}{task}{}", GREETINGS.choose(rng).unwrap(), ENDS.choose(rng).unwrap()),
    }
}
