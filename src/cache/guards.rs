//! Why two near texts must not share an answer. Cosine hardly sees a "not", a number or a swapped order; these do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use super::align::{Alignment, Pair, is_name};
use super::frames::Want;
use super::lexicon::{self, Relation};
use super::reading::{Case, Kind, Negated, Phrase, Reading, Role, Said, Token};
use super::verifier::{self, Features, Verifier};
use super::words::{GENERIC, OPPOSITES, PIVOTS, SOFT, TURNING_PREFIXES};
use crate::domain::Language;

/// What kind of difference forbids sharing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    Numbers,
    Identifiers,
    Paths,
    Quotes,
    Technologies,
    Layout,
    Question,
    Negation,
    Opposites,
    Entities,
    Words,
    Case,
    Order,
}

/// A guard's no.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    pub guard: Guard,
    /// For a person: `"user" against "order"`.
    pub detail: String,
}

/// What two texts say, side by side.
pub(super) struct Both<'a> {
    pub(super) a: &'a Reading,
    pub(super) b: &'a Reading,
    pub(super) aligned: Alignment<'a>,
}

type Check = fn(&Both<'_>) -> Option<String>;

/// Each guard, its check, and why it is there. The first that says no names the refusal, so the telling ones stand
/// before those that catch everything. `Words` is the verifier's no and has no check of its own.
const TABLE: [(Guard, Check, &str); 13] = [
    (Guard::Numbers, |x| differ(x, Kind::Number), "other numbers and units want another answer"),
    (Guard::Quotes, |x| differ(x, Kind::Quote), "what is quoted stands in the answer letter by letter"),
    (Guard::Paths, |x| differ(x, Kind::Path), "a route or a file is another one if one letter differs"),
    (
        Guard::Identifiers,
        |x| differ(x, Kind::Identifier),
        "a name in code is another one if one letter or its case differs",
    ),
    (Guard::Technologies, technologies, "what is written for one technology is no answer for another"),
    (Guard::Layout, layout, "indentation is code: it says what belongs to a block"),
    (Guard::Question, question, "the two want to know different things, or one of them asks nothing"),
    (Guard::Negation, negation, "with a \"not\" the same words ask for the contrary"),
    (Guard::Opposites, opposites, "these are near in meaning and contrary as answers"),
    (Guard::Entities, entities, "what has a name must have the same in both"),
    (Guard::Case, case, "a capital in the middle of a text can make another name of it"),
    (Guard::Order, order, "from A to B is not from B to A: phrases may move, the words in them may not"),
    (Guard::Words, |_| None, "too much of what one of them says is not in the other"),
];

impl Guard {
    pub const ALL: [Self; 13] = {
        let mut all = [Self::Numbers; 13];
        let mut i = 0;
        while i < all.len() {
            all[i] = TABLE[i].0;
            i += 1;
        }
        all
    };

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Numbers => "numbers",
            Self::Identifiers => "identifiers",
            Self::Paths => "paths",
            Self::Quotes => "quotes",
            Self::Technologies => "technologies",
            Self::Layout => "layout",
            Self::Question => "question",
            Self::Negation => "negation",
            Self::Opposites => "opposites",
            Self::Entities => "entities",
            Self::Words => "words",
            Self::Case => "case",
            Self::Order => "order",
        }
    }

    /// Why this guard is there, in a sentence.
    pub fn reason(self) -> &'static str {
        TABLE.iter().find(|(guard, ..)| *guard == self).map_or("", |(.., reason)| reason)
    }
}

/// Whether the answer to `stored` may serve `asked`, by what the two say and at the greatest similarity that there is,
/// with the verifier that ships and the default rate of false hits. `language` is the one that both are in: naming it or
/// not changes nothing. Symmetric.
pub fn compare(asked: &str, stored: &str, language: Option<&Language>) -> Result<(), Refusal> {
    let (asked, stored) = (Reading::of(asked, language), Reading::of(stored, language));
    let verifier = Verifier::shipped();
    let rate = super::Options::default().max_false_hit_rate;
    check(&asked, &stored, 1.0, &Bar { verifier, needed: verifier.needed(rate) }).result
}

/// What a hit must reach.
pub(super) struct Bar<'a> {
    pub(super) verifier: &'a Verifier,
    /// How sure the verifier must be.
    pub(super) needed: f64,
}

/// What was found out about two texts.
pub(super) struct Judged {
    pub(super) result: Result<(), Refusal>,
    /// How sure the verifier is that the two want the same, 0 to 1; `None` where a guard spoke before it.
    pub(super) sure: Option<f64>,
}

/// What the verifier looks at, or the guard that refuses before it.
pub(super) fn features(asked: &Reading, stored: &Reading, similarity: f64) -> Result<Features, Guard> {
    let both = both(asked, stored).map_err(|refusal| refusal.guard)?;
    Ok(verifier::features(similarity, &both))
}

/// The two side by side, where no guard forbids sharing.
fn both<'a>(a: &'a Reading, b: &'a Reading) -> Result<Both<'a>, Refusal> {
    if a.tokens.is_empty() || b.tokens.is_empty() {
        return Err(Refusal { guard: Guard::Words, detail: "a text without words is like no other".into() });
    }
    let both = Both { a, b, aligned: Alignment::of(a, b) };
    for (guard, check, _) in TABLE {
        if let Some(detail) = check(&both) {
            return Err(Refusal { guard, detail });
        }
    }
    Ok(both)
}

pub(super) fn check(asked: &Reading, stored: &Reading, similarity: f64, bar: &Bar<'_>) -> Judged {
    let both = match both(asked, stored) {
        Ok(both) => both,
        Err(refusal) => return Judged { result: Err(refusal), sure: None },
    };
    let Bar { verifier, needed } = bar;
    let sure = verifier.sure(&verifier::features(similarity, &both));
    let result = if sure >= *needed {
        Ok(())
    } else {
        let words = against(&both.aligned.only_a, &both.aligned.only_b);
        let words = words.unwrap_or_else(|| "the same words, but not said alike enough".to_owned());
        let sure = if *needed > 1.0 {
            "nothing would be sure enough for `cache.max_false_hit_rate`".to_owned()
        } else {
            format!("{:.1} % sure that they want the same, {:.1} % are needed", sure * 100.0, needed * 100.0)
        };
        Err(Refusal { guard: Guard::Words, detail: format!("{words}; {sure}") })
    };
    Judged { result, sure: Some(sure) }
}

/// What only one of the texts has, each as often as it has it more.
fn only<'a>(a: &'a Reading, b: &'a Reading, kind: Kind) -> (Vec<&'a Token>, Vec<&'a Token>) {
    // Of most kinds most texts have nothing.
    if a.of_kind(kind).chain(b.of_kind(kind)).next().is_none() {
        return (vec![], vec![]);
    }
    let mut balance: HashMap<&str, i32> = HashMap::new();
    for token in a.of_kind(kind) {
        *balance.entry(&token.text).or_default() += 1;
    }
    for token in b.of_kind(kind) {
        *balance.entry(&token.text).or_default() -= 1;
    }
    let take = |reading: &'a Reading, sign: i32| {
        let mut left: HashMap<&str, i32> = balance.iter().map(|(text, n)| (*text, n * sign)).collect();
        let more = |token: &&Token| left.get_mut(token.text.as_str()).is_some_and(|n| std::mem::replace(n, *n - 1) > 0);
        reading.of_kind(kind).filter(more).collect::<Vec<_>>()
    };
    (take(a, 1), take(b, -1))
}

fn differ(both: &Both<'_>, kind: Kind) -> Option<String> {
    let (a, b) = only(both.a, both.b, kind);
    against(&a, &b)
}

/// As sets: naming a technology twice says nothing new.
fn technologies(Both { a, b, .. }: &Both<'_>) -> Option<String> {
    let missing = |from: &Reading, token: &&Token| !from.of_kind(Kind::Technology).any(|t| t.text == token.text);
    let only_a: Vec<_> = a.of_kind(Kind::Technology).filter(|t| missing(b, t)).collect();
    let only_b: Vec<_> = b.of_kind(Kind::Technology).filter(|t| missing(a, t)).collect();
    against(&only_a, &only_b)
}

fn layout(Both { a, b, .. }: &Both<'_>) -> Option<String> {
    (a.indentation != b.indentation).then(|| "the lines are indented otherwise".to_owned())
}

fn question(Both { a, b, .. }: &Both<'_>) -> Option<String> {
    match (a.asks, b.asks) {
        (true, false) => return Some("a question here, none there".to_owned()),
        (false, true) => return Some("a question there, none here".to_owned()),
        _ => {}
    }
    // What a thing is and what its name means is nearly the same; the verifier weighs the difference.
    let of = |reading: &Reading| -> Vec<Want> {
        let same = |want: &Want| if *want == Want::Meaning { Want::Thing } else { *want };
        reading.wants.iter().map(same).collect()
    };
    let unsaid = |reading: &Reading| reading.wants == [Want::Unsaid];
    if of(a) != of(b) && !unsaid(a) && !unsaid(b) {
        let say = |reading: &Reading| reading.wants.iter().map(|want| want.say()).collect::<Vec<_>>().join(" and ");
        return Some(format!("asked here: {}; asked there: {}", say(a), say(b)));
    }
    let words = |reading: &Reading| reading.of_kind(Kind::Question).next().is_some();
    let (only_a, only_b) = only(a, b, Kind::Question);
    if words(a) && words(b) { against(&only_a, &only_b) } else { None }
}

/// Where both texts say something by the case of the same word, it is the same. How often each has it is the words'
/// matter.
fn case(Both { a, b, .. }: &Both<'_>) -> Option<String> {
    // Who asks writes "Machine Learning" and "machine learning" as they come.
    if !a.is_order && !b.is_order {
        return None;
    }
    fn cases(reading: &Reading) -> BTreeMap<&str, BTreeSet<Case>> {
        let mut cases: BTreeMap<&str, BTreeSet<Case>> = BTreeMap::new();
        for (token, case) in reading.of_kind(Kind::Word).filter_map(|token| Some((token, token.case?))) {
            cases.entry(&token.text).or_default().insert(case);
        }
        cases
    }
    let (a, b) = (cases(a), cases(b));
    let differing = a.iter().find(|(word, cases)| b.get(*word).is_some_and(|others| others != *cases));
    differing.map(|(word, _)| format!("\"{}\" is written with other capitals", shown(word)))
}

fn negation(Both { a, b, .. }: &Both<'_>) -> Option<String> {
    if a.negated.is_empty() && b.negated.is_empty() {
        return None;
    }
    // "Why don't people…", "Why doesn't anyone…": who is no more than somebody.
    let says = |n: &Negated| !GENERIC.contains(&n.written.as_str()) && !SOFT.contains(&n.written.as_str());
    let words = |reading: &'_ Reading| -> Vec<String> {
        reading
            .negated
            .iter()
            .map(|n| if says(n) { n.text.clone() } else { String::new() })
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    let (here, there) = (words(a), words(b));
    if here == there && a.negated.len() % 2 == b.negated.len() % 2 {
        return None;
    }
    let say = |reading: &Reading| match reading.negated.as_slice() {
        [] => "nothing".to_owned(),
        some => some.iter().map(|n| format!("\"{}\"", shown(&n.written))).collect::<Vec<_>>().join(", "),
    };
    Some(format!("denied here: {}; denied there: {}", say(a), say(b)))
}

fn opposites(both: &Both<'_>) -> Option<String> {
    type Sided<'a> = (&'a Token, Vec<(usize, bool)>);
    fn words<'a>(tokens: &[&'a Token]) -> Vec<Sided<'a>> {
        tokens.iter().filter(|t| t.kind == Kind::Word).take(MANY).map(|t| (*t, sides(&t.written))).collect()
    }
    let (a, b) = (words(&both.aligned.only_a), words(&both.aligned.only_b));
    let opposed = |(a, sides): &Sided<'_>, (b, others): &Sided<'_>| {
        let listed = sides.iter().any(|&(row, left)| others.contains(&(row, !left)));
        let known = || Some(lexicon::relation(a.known?, b.known?)? == Relation::Opposite);
        listed || turned(&a.written, &b.written) || turned(&b.written, &a.written) || known() == Some(true)
    };
    let mut pairs = a.iter().flat_map(|x| b.iter().map(move |y| (x, y))).take(MANY);
    pairs.find(|(x, y)| opposed(x, y)).and_then(|(x, y)| against(&[x.0], &[y.0]))
}

/// The rows of [`OPPOSITES`] that a word stands in, perhaps with an ending ("increments", "increment"), and whether on the left.
fn sides(written: &str) -> Vec<(usize, bool)> {
    let ends = ["", "s", "d", "es", "ed", "ing"];
    let plain = ends.into_iter().filter_map(|ending| OPPOSED.get(written.strip_suffix(ending)?));
    plain.flatten().copied().collect()
}

static OPPOSED: LazyLock<HashMap<&str, Vec<(usize, bool)>>> = LazyLock::new(|| {
    let mut opposed: HashMap<&str, Vec<(usize, bool)>> = HashMap::new();
    for (row, (left, right)) in OPPOSITES.iter().enumerate() {
        opposed.entry(left).or_default().push((row, true));
        opposed.entry(right).or_default().push((row, false));
    }
    opposed
});

/// More pairs of differing words than this are not looked at one by one.
const MANY: usize = 64;

fn entities(both: &Both<'_>) -> Option<String> {
    fn named<'a>(tokens: &[&'a Token]) -> Vec<&'a str> {
        tokens.iter().filter(|t| is_name(t)).map(|t| t.written.as_str()).collect()
    }
    let (a, b) = (named(&both.aligned.only_a), named(&both.aligned.only_b));
    let say = |names: &[&str]| names.iter().take(4).map(|n| format!("\"{}\"", shown(n))).collect::<Vec<_>>().join(", ");
    match (a.as_slice(), b.as_slice()) {
        ([], []) => None,
        (a, []) => Some(format!("only the asked task has {}", say(a))),
        ([], b) => Some(format!("only the stored task has {}", say(b))),
        (a, b) => Some(format!("{} against {}", say(a), say(b))),
    }
}

/// "unsorted" and "sorted".
fn turned(long: &str, short: &str) -> bool {
    short.len() > 2 && long.strip_suffix(short).is_some_and(|prefix| TURNING_PREFIXES.contains(&prefix))
}

fn order(both: &Both<'_>) -> Option<String> {
    let Both { a, b, aligned } = both;
    fn roles(reading: &Reading, role: Role) -> Vec<&str> {
        reading.tokens.iter().filter(|t| t.role == Some(role)).map(|t| t.text.as_str()).collect()
    }
    let (sources, targets) = (roles(a, Role::Source), roles(a, Role::Target));
    let swapped = |token: &&Token| match token.role {
        Some(Role::Source) => targets.contains(&&*token.text) && !sources.contains(&&*token.text),
        Some(Role::Target) => sources.contains(&&*token.text) && !targets.contains(&&*token.text),
        None => false,
    };
    if let Some(token) = b.tokens.iter().find(swapped) {
        return Some(format!("\"{}\" is the source in one text and the target in the other", shown(&token.written)));
    }
    // How A differs from B is how B differs from A.
    let both_ways = a.wants == [Want::Difference] && a.wants == b.wants;
    if !both_ways && let Some((x, y)) = turned_things(aligned) {
        return Some(format!("\"{}\" and \"{}\" have changed places", shown(&x.written), shown(&y.written)));
    }
    if !both_ways && let Some(pivot) = turned_around(aligned) {
        return Some(format!("what stands before and after \"{}\" has changed places", shown(&pivot.written)));
    }
    if !both_ways && let Some([x, _, y]) = turned_over(aligned) {
        return Some(format!("\"{}\" and \"{}\" have changed sides", shown(&x.written), shown(&y.written)));
    }
    if !a.is_order || !b.is_order || !aligned.only_a.is_empty() || !aligned.only_b.is_empty() || !reordered(both) {
        return None;
    }
    let first = a.said().zip(b.said()).find(|(x, y)| x.text != y.text);
    Some(match first {
        Some((x, y)) => {
            format!("the same words in another order, from \"{}\" and \"{}\" on", shown(&x.written), shown(&y.written))
        }
        None => "the same words in another relation".to_owned(),
    })
}

/// Two things with names of their own that stand the other way round, unless an "and" or "or" joins them or each hangs
/// on the same preposition as before.
fn turned_things<'a>(aligned: &Alignment<'a>) -> Option<(&'a Token, &'a Token)> {
    let things: Vec<_> = aligned.pairs.iter().map(|p| (p, aligned.a[p.a], aligned.b[p.b])).collect();
    let things: Vec<_> = things.into_iter().filter(|(_, x, _)| x.kind != Kind::Word || is_name(x)).take(20).collect();
    for (i, (p, x, x2)) in things.iter().enumerate() {
        for (q, y, y2) in &things[..i] {
            let joined = (x.joined || y.joined) && (x2.joined || y2.joined);
            let hangs = |t: &Token, u: &Token| t.link.is_some() && t.link == u.link;
            if q.b > p.b && x.text != y.text && !joined && !hangs(x, x2) && !hangs(y, y2) {
                return Some((y, x));
            }
        }
    }
    None
}

/// A word like "than" that has on its left in one text what it has on its right in the other, and the other way round.
fn turned_around<'a>(aligned: &Alignment<'a>) -> Option<&'a Token> {
    let pivots = aligned.pairs.iter().filter(|p| PIVOTS.contains(&aligned.a[p.a].written.as_str()));
    pivots.take(4).find_map(|pivot| {
        let moved = |right: bool| {
            aligned.pairs.iter().any(|p| (p.a > pivot.a) == right && (p.b > pivot.b) != right && p.a != pivot.a)
        };
        (moved(true) && moved(false)).then_some(aligned.a[pivot.a])
    })
}

/// Three words that stand the other way round: "wolves kill bears", "bears kill wolves". Not where a "by" says that it
/// is told from the other side, nor where an "and" joins them.
fn turned_over<'a>(aligned: &Alignment<'a>) -> Option<[&'a Token; 3]> {
    let pairs = &aligned.pairs[..aligned.pairs.len().min(24)];
    let told = |tokens: &[&Token]| tokens.iter().filter(|t| t.link == Some("by")).count();
    if told(&aligned.a) != told(&aligned.b) {
        return None;
    }
    let joined = |p: &Pair| aligned.a[p.a].joined || aligned.b[p.b].joined;
    for (i, x) in pairs.iter().enumerate() {
        for (j, y) in pairs.iter().enumerate().skip(i + 1).filter(|(_, y)| y.b < x.b && !joined(y)) {
            if let Some(z) = pairs[j + 1..].iter().find(|z| z.b < y.b && !joined(z)) {
                return Some([x, y, z].map(|p| aligned.a[p.a]));
            }
        }
    }
    None
}

/// Whether what both texts say stands in other phrases, or the phrases' words in another order.
pub(super) fn reordered(both: &Both<'_>) -> bool {
    let (a, b) = both.aligned.shared();
    // How the first one hangs on nothing says nothing.
    let alike = |(i, (x, y)): (usize, (&Said<'_>, &Said<'_>))| x.text == y.text && (i == 0 || x.join.fits(y.join));
    let in_order = a.len() == b.len() && a.iter().zip(&b).enumerate().all(alike);
    !in_order && phrases(&a) != phrases(&b) && compounds(&a) != compounds(&b)
}

/// The phrases in an order of their own: as wholes they may stand anywhere.
fn phrases<'a>(said: &[Said<'a>]) -> Vec<Phrase<'a>> {
    let mut phrases = Reading::phrases(said);
    phrases.sort();
    phrases
}

fn compounds<'a>(said: &[Said<'a>]) -> Vec<Phrase<'a>> {
    let mut compounds = Reading::compounded(said);
    compounds.sort();
    compounds
}

fn against(a: &[&Token], b: &[&Token]) -> Option<String> {
    let say = |tokens: &[&Token]| {
        tokens.iter().take(4).map(|t| format!("\"{}\"", shown(&t.written))).collect::<Vec<_>>().join(", ")
    };
    match (a, b) {
        ([], []) => None,
        (a, []) => Some(format!("only the asked task has {}", say(a))),
        ([], b) => Some(format!("only the stored task has {}", say(b))),
        (a, b) => Some(format!("{} against {}", say(a), say(b))),
    }
}

/// A hostile token may be a megabyte long.
fn shown(text: &str) -> String {
    if text.len() <= 60 { text.to_owned() } else { format!("{}…", &text[..text.floor_char_boundary(60)]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways round, because which text was stored is chance.
    #[track_caller]
    fn refuses(guard: Guard, a: &str, b: &str) {
        for (a, b) in [(a, b), (b, a)] {
            match compare(a, b, None) {
                Err(refusal) => assert_eq!(refusal.guard, guard, "{a:?} and {b:?}: {}", refusal.detail),
                Ok(()) => panic!("{a:?} and {b:?} would share an answer"),
            }
        }
    }

    #[track_caller]
    fn shares(a: &str, b: &str) {
        for (a, b) in [(a, b), (b, a)] {
            assert_eq!(compare(a, b, None), Ok(()), "{a:?} and {b:?}");
        }
    }

    #[test]
    fn paraphrases_of_a_request_share() {
        let base = "Create a NATS consumer for processing user events";
        for other in [
            "Write a NATS consumer that processes user events",
            "Please build a NATS consumer which handles user events, thanks!",
            "Can you implement a NATS consumer for processing user events?",
            "I need you to write a NATS consumer to process user events.",
            "CREATE A NATS CONSUMER FOR PROCESSING USER EVENTS",
            "  create a nats   consumer for processing the user's events ",
        ] {
            shares(base, other);
        }
        shares("Write a function to find the largest number", "Implement a method that locates the biggest number");
        shares(
            "Write code to check whether a list is empty or not",
            "Create a program that verifies if a list is empty",
        );
        shares("Write a parser for CSV in streams", "In streams, write a parser for CSV");
        shares("Write a user events consumer", "Write a consumer for user events");
        shares("Write tests for the order service", "Write order service tests");
        shares("Count the elements of a list", "Count the elements in the list");
        shares("Write a consumer processing user events", "Write a consumer that processes user events");
        shares("How do I write a retry loop?", "Write a retry loop");
    }

    #[test]
    fn numbers_count_with_their_units_in_any_spelling() {
        refuses(Guard::Numbers, "Retry after 5 seconds", "Retry after 5 minutes");
        refuses(Guard::Numbers, "Check that a month has 31 days", "Check that a month has 36 days");
        refuses(Guard::Numbers, "Retry three times", "Retry four times");
        refuses(Guard::Numbers, "Limit it to -5", "Limit it to 5");
        refuses(Guard::Numbers, "Add a rate limit of 100", "Add a rate limit");
        shares("Retry after 5s", "Retry after 5 seconds");
        shares("Limit the queue to 1,000 messages", "Limit the queue to 1000 messages");
        shares("Retry three times", "Retry 3 times");
    }

    #[test]
    fn names_in_code_paths_and_quotes_are_compared_letter_by_letter() {
        refuses(Guard::Identifiers, "Name it get_user", "Name it get_user_v2");
        refuses(Guard::Identifiers, "Add a field userId", "Add a field userID");
        refuses(Guard::Identifiers, "Subscribe to orders.created", "Subscribe to orders.deleted");
        refuses(Guard::Identifiers, "Write a struct named User", "Write a struct named user");
        refuses(Guard::Identifiers, "Write a module called Billing", "Write a module called Invoices");
        refuses(Guard::Paths, "Add an endpoint at /api/orders", "Add an endpoint at /api/users");
        refuses(Guard::Paths, "Refactor lib/consumer.ex", "Refactor lib/producer.ex");
        refuses(Guard::Quotes, "Replace spaces with '%20'", "Replace spaces with '%25'");
        refuses(Guard::Quotes, "Print \"Hello\"", "Print \"hello\"");
        shares("Calculate a dog's age in dog's years", "Compute a dog's age in dog's years");
    }

    #[test]
    fn languages_and_technologies_must_be_the_same_and_the_own_language_says_nothing() {
        refuses(Guard::Technologies, "Write a Python function to sort", "Write a C++ function to sort");
        refuses(Guard::Technologies, "Write a Go function to sort", "Write a Perl function to sort");
        refuses(Guard::Technologies, "Write a C function to sort", "Write a C# function to sort");
        refuses(Guard::Technologies, "Store users in Postgres", "Store users in SQLite");
        refuses(Guard::Technologies, "Create a NATS consumer for events", "Create a Kafka consumer for events");
        shares("Store users in Postgres", "Store users in PostgreSQL");
        let rust = Some(&Language::Rust);
        assert_eq!(compare("Write a Rust parser for CSV", "Write a parser for CSV", rust), Ok(()));
        assert_eq!(compare("Write a parser for CSV in Rust", "In Rust, write a parser for CSV", rust), Ok(()));
        let other = compare("Write a Rust client for a Python service", "Write a client for a service", rust);
        assert_eq!(other.unwrap_err().guard, Guard::Technologies);
    }

    #[test]
    fn a_negation_counts_with_what_it_denies() {
        refuses(Guard::Negation, "Sort using regex", "Sort without using regex");
        refuses(Guard::Negation, "Remove characters that are present", "Remove characters that aren't present");
        refuses(Guard::Negation, "Find words not longer than n", "Find words longer than n");
        refuses(Guard::Negation, "Keep sorted words, not long words", "Keep not sorted words, long words");
        refuses(Guard::Negation, "Accept empty strings", "Accept non-empty strings");
        shares("Find words that are not present", "Find words that aren't present");
        shares("Check whether n is prime or not", "Check if n is prime");
    }

    #[test]
    fn a_question_is_no_order_and_no_statement() {
        refuses(Guard::Question, "Is a mutex needed for the counter?", "A mutex is needed for the counter");
        refuses(Guard::Question, "REST endpoint for zebras?", "REST endpoint for zebras");
        refuses(Guard::Question, "is the list sorted", "The list is sorted");
        refuses(Guard::Question, "What does the queue do", "Do the queue");
        refuses(Guard::Question, "Does the loop end?", "The loop does end.");
        shares("Write a sorted list", "Hi! Could you please write a sorted list?");
        shares("How do I write a retry loop?", "Write a retry loop");
        shares("Can I get a retry loop?", "Get a retry loop");
        shares("Is it possible to write a retry loop?", "is it possible to write a retry loop");
        shares("Is a mutex needed for the counter?", "is the mutex needed for a counter");
        shares("When a user signs up, send a mail", "when a user signs up, send a mail");
    }

    #[test]
    fn questions_that_want_other_things_are_other_questions() {
        refuses(Guard::Question, "Why do volcanoes erupt?", "When do volcanoes erupt?");
        refuses(Guard::Question, "Is coffee bad for you?", "Why is coffee bad for you?");
        refuses(Guard::Question, "How deep is the lake?", "How wide is the lake?");
        refuses(Guard::Question, "How do I restart the server?", "Why should I restart the server?");
        refuses(Guard::Question, "Should I learn to dance?", "How do I learn to dance?");
        shares("How do I lose weight?", "What is the best way to lose weight?");
        shares("What is the cause of earthquakes?", "What causes earthquakes?");
        shares("How many moons are there?", "What is the number of moons?");
        shares("What does the car cost?", "How much does the car cost?");
        shares("Can you explain how a pod is scheduled?", "How is a pod scheduled?");
    }

    #[test]
    fn what_has_a_name_must_have_the_same() {
        refuses(Guard::Entities, "What is the capital of France?", "What is the capital of Denmark?");
        refuses(Guard::Entities, "what is the capital of france", "what is the capital of denmark");
        refuses(Guard::Entities, "How do I get a job at Initech?", "How do I get a job at Globex?");
        refuses(Guard::Entities, "Is the shop open on Monday?", "Is the shop open on Tuesday?");
        shares("Who leads the United States?", "Who leads the USA?");
        shares("Why did World War II end?", "Why did the Second World War end?");
    }

    #[test]
    fn synonyms_serve_where_nothing_else_differs() {
        shares("How can I buy a used car?", "How do I purchase a used car?");
        shares("What are the advantages of electric cars?", "What are the benefits of electric cars?");
        refuses(Guard::Words, "How can I buy a car?", "How can I buy a used car?");
        refuses(Guard::Words, "What is the best laptop for students?", "What is the best laptop for gamers?");
        refuses(Guard::Words, "How do I remove a tattoo?", "How do I remove a tattoo at home?");
        refuses(Guard::Numbers, "Cache it for one hour", "Cache it for 2 hours");
        shares("Cache it for one hour", "Cache it for 1 hour");
    }

    #[test]
    fn case_counts_but_at_the_beginning_of_a_sentence_and_in_titles() {
        refuses(Guard::Case, "Write a program that prints Foo", "Write a program that prints foo");
        refuses(Guard::Case, "write a program that prints FOO", "write a program that prints Foo");
        refuses(Guard::Case, "A table for User events", "A table for user events");
        shares("Sort it. Users come first.", "sort it. users come first");
        shares("Sort: Users come first", "Sort: users come first");
        shares("Create A Program That Prints Numbers", "Create a program that prints numbers");
        shares("CREATE A PROGRAM THAT PRINTS NUMBERS", "Create a program that prints numbers");
        shares("Store users in NATS", "Store users in nats");
        shares("Steps:\n- Read the file\n- Sort lines", "Steps:\n- read the file\n- sort lines");
    }

    #[test]
    fn indentation_counts_and_other_white_space_does_not() {
        refuses(Guard::Layout, "Fix: if a:\n    b()\nc()", "Fix: if a:\n    b()\n    c()");
        refuses(Guard::Layout, "Fix: if a:\n\tb()", "Fix: if a: b()");
        shares("  Sort the lines\nof a file ", "Sort  the lines of\n\na file");
        shares("Compute the sum!", "Compute the sum");
        refuses(Guard::Words, "Compute n!", "Compute n");
    }

    #[test]
    fn opposites_are_named_as_such() {
        for (a, b) in [
            ("Find the first digit", "Find the last digit"),
            ("Find the maximum of a list", "Find the minimum of a list"),
            ("Sort in ascending order", "Sort in descending order"),
            ("Write a function that encodes a frame", "Write a function that decodes a frame"),
            ("Create a NATS consumer for user events", "Create a NATS producer for user events"),
            ("Write an HTTP client", "Write an HTTP server"),
            ("Search a sorted list", "Search an unsorted list"),
            ("Write a sync queue", "Write an async queue"),
        ] {
            refuses(Guard::Opposites, a, b);
        }
    }

    #[test]
    fn what_a_request_is_about_must_be_the_same() {
        for (a, b) in [
            ("Process user events", "Process order events"),
            ("Create a NATS consumer for user events", "Create a NATS consumer for user events and order events"),
            ("Write an endpoint for orders", "Write a consumer for orders"),
            ("Return a and b", "Return a or b"),
            ("Turn the feature on", "Turn the feature off"),
            ("Compute a + b", "Compute a * b"),
            ("Convert a list of lists to a list", "Convert a list to a list"),
            ("Write the value to a file", "Create the file"),
            ("Find the position", "Find the positive"),
            ("发送消息", "删除消息"),
            ("Add a 🔥 button", "Add a 🌧 button"),
        ] {
            refuses(Guard::Words, a, b);
        }
    }

    #[test]
    fn the_order_of_arguments_counts_and_phrases_may_move() {
        for (a, b) in [
            ("Convert radians to degrees", "Convert degrees to radians"),
            ("Convert JSON to CSV", "Convert CSV to JSON"),
            ("Count from 1 to n", "Count from n to 1"),
            ("Copy from A to B the rows", "Copy from B to A the rows"),
            ("Write a service that calls the worker", "Write a worker that calls the service"),
            ("Return a list of tuples", "Return a tuple of lists"),
            ("Divide n by m", "Divide m by n"),
            ("Convert A to B", "Convert B to A"),
            ("Write a client that sends to the server", "Write a server that sends to the client"),
            ("Copy b from a", "Copy a from b"),
            ("Write tests for the order service", "Write the order service with tests"),
            ("Write service tests", "Write a service with tests"),
            ("Write tests for the service", "Write the test service"),
            ("Check that Alice manages Bob", "Check that Bob manages Alice"),
        ] {
            refuses(Guard::Order, a, b);
        }
        refuses(Guard::Order, "Is physics harder than chemistry?", "Is chemistry harder than physics?");
        refuses(Guard::Order, "Why is Messi better than Ronaldo?", "Why is Ronaldo better than Messi?");
        refuses(Guard::Order, "Count orders per customer", "Count customers per order");
        shares("Copy rows from JSON to CSV", "Copy rows to CSV from JSON");
        shares("What is the difference between TCP and UDP?", "How does UDP differ from TCP?");
        shares("List all jobs that failed", "List all failed jobs");
    }

    #[test]
    fn texts_without_words_share_nothing() {
        for (a, b) in [("", ""), ("???", "!!!"), ("   ", "the"), ("please", "thanks")] {
            refuses(Guard::Words, a, b);
        }
    }

    #[test]
    fn every_guard_has_its_row_and_its_reason() {
        for guard in Guard::ALL {
            assert!(!guard.reason().is_empty());
            assert_eq!(serde_json::to_value(guard).unwrap(), guard.as_str());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic_and_is_like_itself(text in "\\PC{0,60}", other in "[ -~]{0,60}") {
            let same = compare(&text, &text, None);
            let empty = Reading::of(&text, None).tokens.is_empty();
            proptest::prop_assert_eq!(same.is_ok(), !empty);
            proptest::prop_assert_eq!(compare(&text, &other, None).is_ok(), compare(&other, &text, None).is_ok());
        }
    }
}
