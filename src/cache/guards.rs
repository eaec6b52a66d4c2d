//! Why two near texts must not share an answer. Cosine hardly sees a "not", a number or a swapped order; these do.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::reading::{Case, Join, Kind, Phrase, Reading, Role, Token};
use super::words::{OPPOSITES, TURNING_PREFIXES};
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

type Check = fn(&Reading, &Reading) -> Option<String>;

/// Each guard, its check, and why it is there. The first that says no names the refusal, so the telling ones stand
/// before those that catch everything.
const TABLE: [(Guard, Check, &str); 12] = [
    (Guard::Numbers, |a, b| differ(a, b, Kind::Number), "31 days are not 36, 5 s not 5 min; 1,000 is 1000"),
    (Guard::Quotes, |a, b| differ(a, b, Kind::Quote), "what is quoted stands in the answer letter by letter"),
    (Guard::Paths, |a, b| differ(a, b, Kind::Path), "a route or a file is another one if one letter differs"),
    (Guard::Identifiers, |a, b| differ(a, b, Kind::Identifier), "a name in code is another one if its case differs"),
    (Guard::Technologies, technologies, "an answer for PostgreSQL is none for SQLite; order is another guard's matter"),
    (Guard::Layout, layout, "indentation is code: it says what belongs to a block"),
    (
        Guard::Question,
        question,
        "\"is a mutex needed\" asks for an answer, \"a mutex is needed\" states it (cosine 0.95)",
    ),
    (Guard::Negation, negation, "the same words with a \"not\" ask for the contrary (cosine 0.99)"),
    (Guard::Opposites, opposites, "first and last, encode and decode: near in meaning, contrary as answers"),
    (Guard::Words, words, "user events are no order events: what remains after fillers and synonyms must be the same"),
    (Guard::Case, case, "\"Foo\" and \"foo\" are two texts; a capital that begins a sentence or a title says nothing"),
    (Guard::Order, order, "from A to B is not from B to A; whole phrases may move, words may not"),
];

impl Guard {
    pub const ALL: [Self; 12] = {
        let mut all = [Self::Numbers; 12];
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

/// Whether the answer to `stored` may serve `asked`, by what the two say. `language` is the one that both are in:
/// naming it or not changes nothing. Symmetric. Linear in the texts' lengths.
pub fn compare(asked: &str, stored: &str, language: Option<&Language>) -> Result<(), Refusal> {
    check(&Reading::of(asked, language), &Reading::of(stored, language))
}

pub(super) fn check(asked: &Reading, stored: &Reading) -> Result<(), Refusal> {
    if asked.tokens.is_empty() || stored.tokens.is_empty() {
        return Err(Refusal { guard: Guard::Words, detail: "a text without words is like no other".into() });
    }
    for (guard, check, _) in TABLE {
        if let Some(detail) = check(asked, stored) {
            return Err(Refusal { guard, detail });
        }
    }
    Ok(())
}

/// What only one of the texts has, each as often as it has it more.
fn only<'a>(a: &'a Reading, b: &'a Reading, kind: Kind) -> (Vec<&'a Token>, Vec<&'a Token>) {
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

fn differ(a: &Reading, b: &Reading, kind: Kind) -> Option<String> {
    let (a, b) = only(a, b, kind);
    against(&a, &b)
}

/// As sets: naming a technology twice says nothing new.
fn technologies(a: &Reading, b: &Reading) -> Option<String> {
    let missing = |from: &Reading, token: &&Token| !from.of_kind(Kind::Technology).any(|t| t.text == token.text);
    let only_a: Vec<_> = a.of_kind(Kind::Technology).filter(|t| missing(b, t)).collect();
    let only_b: Vec<_> = b.of_kind(Kind::Technology).filter(|t| missing(a, t)).collect();
    against(&only_a, &only_b)
}

fn layout(a: &Reading, b: &Reading) -> Option<String> {
    (a.indentation != b.indentation).then(|| "the lines are indented otherwise".to_owned())
}

fn question(a: &Reading, b: &Reading) -> Option<String> {
    match (a.asks, b.asks) {
        (true, false) => Some("a question here, none there".to_owned()),
        (false, true) => Some("a question there, none here".to_owned()),
        _ => None,
    }
}

/// Where both texts say something by the case of the same word, it is the same. How often each has it is the words'
/// matter.
fn case(a: &Reading, b: &Reading) -> Option<String> {
    let cases = |reading: &Reading| {
        let mut cases: BTreeMap<String, BTreeSet<Case>> = BTreeMap::new();
        for token in reading.of_kind(Kind::Word) {
            if let Some(case) = token.case {
                cases.entry(token.text.clone()).or_default().insert(case);
            }
        }
        cases
    };
    let (a, b) = (cases(a), cases(b));
    let differing = a.iter().find(|(word, cases)| b.get(*word).is_some_and(|others| others != *cases));
    differing.map(|(word, _)| format!("\"{}\" is written with other capitals", shown(word)))
}

fn negation(a: &Reading, b: &Reading) -> Option<String> {
    if a.negated == b.negated {
        return None;
    }
    let say = |negated: &[String]| match negated {
        [] => "nothing".to_owned(),
        some => some.iter().map(|word| format!("\"{}\"", shown(word))).collect::<Vec<_>>().join(", "),
    };
    Some(format!("denied here: {}; denied there: {}", say(&a.negated), say(&b.negated)))
}

fn opposites(a: &Reading, b: &Reading) -> Option<String> {
    let (a, b) = only(a, b, Kind::Word);
    let opposed = |x: &str, y: &str| {
        let listed = OPPOSITES.iter().any(|(p, q)| (same(x, p) && same(y, q)) || (same(x, q) && same(y, p)));
        listed || turned(x, y) || turned(y, x)
    };
    let pairs = a.iter().flat_map(|x| b.iter().map(move |y| (x, y)));
    pairs.into_iter().find(|(x, y)| opposed(&x.written, &y.written)).and_then(|(x, y)| against(&[x], &[y]))
}

/// The same word, one of them perhaps with an ending: "increments" and "increment".
fn same(written: &str, word: &str) -> bool {
    written == word
        || written.strip_prefix(word).is_some_and(|ending| matches!(ending, "s" | "d" | "es" | "ed" | "ing"))
}

/// "unsorted" and "sorted".
fn turned(long: &str, short: &str) -> bool {
    short.len() > 2 && TURNING_PREFIXES.iter().any(|prefix| long.strip_prefix(prefix).is_some_and(|rest| rest == short))
}

fn words(a: &Reading, b: &Reading) -> Option<String> {
    let (only_a, only_b) = only(a, b, Kind::Word);
    if let Some(difference) = against(&only_a, &only_b) {
        return Some(difference);
    }
    let asks = |reading: &Reading| reading.of_kind(Kind::Question).next().is_some();
    if asks(a) && asks(b) { differ(a, b, Kind::Question) } else { None }
}

fn order(a: &Reading, b: &Reading) -> Option<String> {
    let roles = |reading: &Reading, role: Role| -> Vec<String> {
        reading.tokens.iter().filter(|t| t.role == Some(role)).map(|t| t.text.clone()).collect()
    };
    let (sources, targets) = (roles(a, Role::Source), roles(a, Role::Target));
    let swapped = |token: &&Token| match token.role {
        Some(Role::Source) => targets.contains(&token.text) && !sources.contains(&token.text),
        Some(Role::Target) => sources.contains(&token.text) && !targets.contains(&token.text),
        None => false,
    };
    if let Some(token) = b.tokens.iter().find(swapped) {
        return Some(format!("\"{}\" is the source in one text and the target in the other", shown(&token.written)));
    }
    if said(a) == said(b) || phrases(a) == phrases(b) || a.compounded() == b.compounded() {
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

fn said(reading: &Reading) -> Vec<(Join, &str)> {
    // How the first one hangs on nothing says nothing.
    reading.said().enumerate().map(|(i, t)| (if i == 0 { Join::Plain } else { t.join() }, t.text.as_str())).collect()
}

/// The phrases in an order of their own: as wholes they may stand anywhere.
fn phrases(reading: &Reading) -> Vec<Phrase<'_>> {
    let mut phrases = reading.phrases();
    phrases.sort();
    phrases
}

fn against(a: &[&Token], b: &[&Token]) -> Option<String> {
    let say = |tokens: &[&Token]| {
        tokens.iter().take(4).map(|t| format!("\"{}\"", shown(&t.written))).collect::<Vec<_>>().join(", ")
    };
    match (a, b) {
        ([], []) => None,
        (a, []) => Some(format!("{} only here", say(a))),
        ([], b) => Some(format!("{} only there", say(b))),
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
        shares("Copy rows from JSON to CSV", "Copy rows to CSV from JSON");
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
