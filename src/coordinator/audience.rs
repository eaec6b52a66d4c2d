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
        matches!(
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
    let told = background(words);
    let says_more = |w: &Word| lexicon::is_foreign(&w.lower) || w.limits() || !types_of(w).is_empty();
    if !words[..told].iter().any(|w| lexicon::is_foreign(&w.lower) || w.limits()) {
        for i in (0..told).filter(|&i| words[i].form == Form::Plain && !says_more(&words[i])) {
            taken[i] = true;
        }
    }
    if let Some(from) = words.iter().position(|w| w.lower == "so") {
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

/// Where the order begins that follows what is told: "Our greenhouses push their values over NATS, *give* me the consumer".
pub(super) fn background(words: &[Word]) -> usize {
    let first = words.first().map_or("", |w| w.lower.as_str());
    if !matches!(first, "we" | "our" | "my" | "i" | "whenever" | "when" | "every" | "there" | "the" | "each") {
        return 0;
    }
    let begins = |at: usize| {
        let next = |n: usize| words.get(at + n).map_or("", |w| w.lower.as_str());
        let wishes = matches!(next(0), "i" | "we") && matches!(next(1), "need" | "want");
        let so = usize::from(matches!(next(0), "so" | "please"));
        words[at].after_break && (wishes || words.get(at + so).is_some_and(Word::orders))
    };
    (2..words.len()).find(|&at| begins(at)).unwrap_or(0)
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
