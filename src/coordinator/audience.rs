//! For whom and for what a thing is made: words that say nothing of the code.

use super::classify::types_of;
use super::lexicon;
use super::words::{Form, Word};

/// The words of a phrase that only says for whom: at most so many, or it says more.
const LONGEST: usize = 4;

/// Where the task itself begins: after "Hello again:", and "I'm building a staffing app and need" or "Our team needs".
pub(super) fn opening(words: &[Word]) -> usize {
    let greeted = greeting(words);
    greeted + wish(&words[greeted..])
}

/// After "Hi all,", "One more:", "Quick task:": a phrase of its own that says nothing.
fn greeting(words: &[Word]) -> usize {
    let says_nothing = |w: &Word| w.form == Form::Plain && (w.is_filler() || lexicon::opens(&w.lower));
    // "GYM-412", "DISP-88:"
    let ticket = words.len() > 2
        && words[0].text.len() > 1
        && words[0].text.bytes().all(|b| b.is_ascii_uppercase())
        && words[1].form == Form::Number
        && words[1].before == "-";
    let mut from = if ticket { 2 } else { 0 };
    while let Some(end) = (from + 1..words.len().min(from + 1 + LONGEST)).find(|&i| words[i].after_break)
        && words[from..end].iter().all(says_nothing)
    {
        from = end;
    }
    from
}

fn wish(words: &[Word]) -> usize {
    const WISHES: [&str; 8] = ["need", "needs", "want", "wants", "require", "needed", "ask", "asks"];
    let first = words.first().map_or("", |w| w.lower.as_str());
    if !matches!(first, "i" | "we" | "i'm" | "im" | "we're" | "as" | "my" | "our" | "the") {
        return 0;
    }
    let Some(wish) = words.iter().take(16).position(|w| WISHES.contains(&w.lower.as_str())) else { return 0 };
    // "our frontend needs", "my team wants"
    let whose = |w: &Word| {
        w.lower == "people"
            || lexicon::is_purpose(&w.lower)
            || lexicon::is_group(&w.lower)
            || lexicon::is_whole(&w.lower)
    };
    let wishes = matches!(first, "my" | "our" | "the") && wish > 1 && wish <= LONGEST && whose(&words[wish - 1]);
    let harmless = |w: &Word| w.form == Form::Plain && !lexicon::is_foreign(&w.lower) && !w.limits();
    let tells = |w: &Word| {
        w.text.to_lowercase().starts_with("start")
            || matches!(
                w.lower.as_str(),
                "as" | "start"
                    | "am"
                    | "building"
                    | "writing"
                    | "making"
                    | "developing"
                    | "creating"
                    | "starting"
                    | "working"
            )
    };
    if words[..wish].iter().all(harmless) && (wishes || words[..wish].iter().any(tells)) { wish } else { 0 }
}

/// "for the billing team": people, never the name of what is made.
pub(super) fn groups(words: &[Word]) -> Vec<bool> {
    let mut found = vec![false; words.len()];
    for at in (1..words.len()).filter(|&at| lexicon::is_group(&words[at].lower)) {
        if let Some(from) = possessed(words, at) {
            found[from..=at].fill(true);
        }
    }
    // "for my university project"
    for at in (1..words.len()).filter(|&at| lexicon::is_whole(&words[at].lower)) {
        if let Some(from) = possessed(words, at).filter(|&from| matches!(words[from].lower.as_str(), "my" | "our")) {
            found[from..=at].fill(true);
        }
    }
    found
}

/// "for our app", "so that other services can use it".
pub(super) fn account(words: &[Word], taken: &mut [bool]) {
    for at in 1..words.len() {
        let word = &words[at];
        if lexicon::is_whole(&word.lower) && words[at - 1].is_filler() {
            taken[at] = true;
        }
        if let Some(from) = possessed(words, at).filter(|_| lexicon::is_whole(&word.lower)) {
            taken[from..=at].fill(true);
        }
    }
    explain(words, taken);
    leave(words, taken);
    let told = background(words);
    // What must or may not be is told as a demand.
    let demands = |w: &Word| {
        matches!(
            w.lower.as_str(),
            "must" | "mustn't" | "never" | "only" | "without" | "except" | "shall" | "unless" | "allowed" | "forbidden"
        )
    };
    if !words[..told].iter().any(demands) {
        for (i, word) in words[..told].iter().enumerate() {
            let says_more = word.form != Form::Plain || lexicon::is_foreign(&word.lower) || !types_of(word).is_empty();
            taken[i] |= !says_more || word.form == Form::Number;
        }
    }
    if let Some(from) = (1..words.len()).find(|&i| words[i].lower == "so") {
        let end = (from + 1..words.len()).find(|&i| words[i].after_break).unwrap_or(words.len());
        let said = |i: usize| words[..from].iter().any(|w| w.stem == words[i].stem);
        let plain =
            |i: usize| words[i].form == Form::Plain && !lexicon::is_foreign(&words[i].lower) && !words[i].limits();
        for i in from..end {
            // "the *billing* service" is who uses it.
            let whose = i + 1 < end
                && plain(i)
                && matches!(words[i - 1].lower.as_str(), "the" | "our" | "other" | "my")
                && lexicon::is_purpose(&words[i + 1].lower);
            taken[i] |= lexicon::is_purpose(&words[i].lower) || said(i) || whose;
        }
        // "so that we never lose one": what must not happen, in words that are understood.
        let denies = |i: usize| {
            matches!(
                words[i].lower.as_str(),
                "never" | "not" | "no" | "don't" | "dont" | "doesn't" | "can't" | "cannot"
            )
        };
        if (from..end).all(|i| taken[i] || words[i].is_filler() || denies(i)) {
            (from..end).filter(|&i| denies(i)).for_each(|i| taken[i] = true);
        }
    }
}

/// "for properties (real estate listings)": what stands in brackets behind a name only says what it means.
fn explain(words: &[Word], taken: &mut [bool]) {
    let plain = |w: &Word| {
        let said_of = ["ed", "ing", "ly"].iter().any(|end| w.lower.ends_with(end));
        let field = super::fields::is_type(&w.lower) || super::fields::is_detail(&w.lower);
        let says = lexicon::is_foreign(&w.lower) || w.limits() || lexicon::changes(&w.lower) || w.is_capitalised();
        w.form == Form::Plain && !said_of && !field && !says && types_of(w).is_empty() && !w.is_boundary()
    };
    for at in (1..words.len()).filter(|&at| words[at].before == "(") {
        let end = (at + 1..words.len()).find(|&i| words[i].before.contains(')')).unwrap_or(words.len());
        let many = words[end - 1].lower.ends_with('s');
        if taken[at - 1] && end - at <= LONGEST && end > at + 1 && many && words[at..end].iter().all(plain) {
            taken[at..end].fill(true);
        }
    }
}

/// Where the order begins that follows what is told: "Our greenhouses push their values over NATS, *give* me the consumer".
pub(super) fn background(words: &[Word]) -> usize {
    let lower = |at: usize| words.get(at).map_or("", |w| w.lower.as_str());
    let tells =
        matches!(lower(0), "we" | "our" | "my" | "i" | "whenever" | "when" | "every" | "there" | "the" | "each");
    let begins = |at: usize| {
        let so = usize::from(matches!(lower(at), "so" | "please" | "and" | "now"));
        words[at].after_break && asks(words, at + so)
    };
    // "We start an HR tool. SQLAlchemy model for employees"
    let names_kind = |words: &[Word]| words.iter().any(|w| w.form == Form::Plain && !types_of(w).is_empty());
    let sentence = |at: usize| words[at].before.contains(['.', '!', '?', '\n']);
    let mut told = false;
    for at in 1..words.len() {
        if sentence(at) {
            let from = (0..at).rev().find(|&i| i == 0 || sentence(i)).unwrap_or(0);
            // Something is told of somebody, and nothing is ordered.
            if asks(words, from) || !is_told(&words[from..at]) {
                return 0;
            }
            told = true;
            if asks(words, at) || (!is_told(&words[at..]) && names_kind(&words[at..])) {
                return at;
            }
        } else if at > 1 && begins(at) && (told || tells) {
            return at;
        }
    }
    0
}

/// "could you write", "can I get", "I'd need", "please write", "write": what follows is wanted.
fn asks(words: &[Word], at: usize) -> bool {
    let lower = |at: usize| words.get(at).map_or("", |w| w.lower.as_str());
    let somebody = |at: usize| matches!(lower(at), "i" | "we" | "you" | "someone" | "somebody" | "anyone");
    let wish = |at: usize| matches!(lower(at), "need" | "needs" | "want" | "wants" | "like");
    let orders = |at: usize| words.get(at).is_some_and(|w| w.orders() && w.lower != "start");
    // "For now I only need", "As a start I'd need"
    let opens = |at: &usize| {
        matches!(lower(*at), "hey" | "so" | "please" | "just" | "now" | "then" | "as" | "for" | "a" | "start" | "ok")
    };
    let at = at + (at..at + 3).take_while(opens).count();
    (matches!(lower(at), "could" | "can" | "would" | "will") && somebody(at + 1))
        || (somebody(at) && (at..at + 4).any(wish))
        || (matches!(lower(at), "i'd" | "we'd" | "i'm" | "we're")
            && (at..at + 4).any(|i| wish(i) || lower(i) == "looking"))
        || wish(at)
        || orders(at)
}

/// A sentence with a subject of its own, which tells what is: "Accounting exports a csv", "nobody has written a test".
fn is_told(words: &[Word]) -> bool {
    const TELLING: [&str; 44] = [
        "we",
        "we've",
        "we're",
        "we'd",
        "i",
        "i'm",
        "i've",
        "i'd",
        "my",
        "our",
        "they",
        "their",
        "us",
        "me",
        "nobody",
        "everybody",
        "people",
        "has",
        "have",
        "had",
        "is",
        "are",
        "was",
        "were",
        "wants",
        "want",
        "sends",
        "send",
        "gets",
        "get",
        "keeps",
        "keep",
        "sit",
        "sits",
        "drops",
        "drop",
        "runs",
        "it's",
        "it",
        "asks",
        "ask",
        "uses",
        "comes",
        "come",
    ];
    let begins =
        words.first().is_some_and(|w| w.orders() || matches!(w.lower.as_str(), "a" | "an") || w.form != Form::Plain);
    !begins && words.iter().any(|w| TELLING.contains(&w.lower.as_str()))
}

/// "the handling itself can be a TODO", "the redirect I'll add myself", "db comes later": what is left to who asks.
fn leave(words: &[Word], taken: &mut [bool]) {
    let mut from = 0;
    for at in 1..=words.len() {
        if at < words.len() && !words[at].after_break {
            continue;
        }
        let clause = &words[from..at];
        let says = |those: &[&str]| clause.iter().any(|w| those.contains(&w.lower.as_str()));
        let stub =
            says(&["todo", "todos", "stub", "stubs", "stubbed", "placeholder", "placeholders", "dummy", "empty"])
                && says(&[
                    "be", "is", "are", "stays", "stay", "can", "remain", "remains", "as", "leave", "leaves", "left",
                ]);
        let own = says(&["myself", "ourselves"])
            || (says(&["later"]) && says(&["comes", "come", "follows", "follow", "added", "add"]));
        if stub || own {
            for i in (from..at).filter(|&i| words[i].form == Form::Plain) {
                taken[i] = true;
            }
        }
        from = at;
    }
}

/// Where "for our mobile app" begins, if `at` ends such a phrase.
fn possessed(words: &[Word], at: usize) -> Option<usize> {
    let from = (at.saturating_sub(LONGEST)..at).rev().find(|&i| words[i].is_boundary() || words[i].limits())?;
    let owned = matches!(words[from].lower.as_str(), "the" | "our" | "my" | "your" | "their" | "a" | "an");
    let plain = |w: &Word| w.form == Form::Plain && !w.after_break && !lexicon::is_foreign(&w.lower);
    let relates =
        from > 0 && matches!(words[from - 1].lower.as_str(), "for" | "in" | "of" | "by" | "to" | "from" | "at");
    (owned && relates && words[from..=at].iter().all(plain)).then_some(from)
}

#[cfg(test)]
mod tests {
    use super::super::words::words;
    use super::*;

    #[test]
    fn a_task_begins_after_a_greeting_and_who_wishes_and_nowhere_else() {
        for (task, begins) in [
            ("Hi all, one more: a table for orders", "a"),
            ("Again: again: nats consumer", "nats"),
            ("I'm building a staffing app and need an endpoint", "need"),
            ("Our mobile frontend needs an endpoint", "needs"),
            ("My endpoint needs tests", "My"),
            ("Orders, invoices: tables", "Orders"),
            ("Without auth: an endpoint", "Without"),
            ("Again:", "Again"),
        ] {
            let words = words(task);
            assert_eq!(words[opening(&words)].text, begins, "{task}");
        }
    }
}
