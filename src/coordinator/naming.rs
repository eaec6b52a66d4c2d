//! The phrase of a task that says what the thing is called.

use std::ops::Range;

use super::audience;
use super::classify::types_of;
use super::fields;
use super::lexicon;
use super::words::{Form, Word};
use crate::domain::Language;

/// The longest phrase that a name may be. A longer one is a description, and the rest of it is not understood.
const LONGEST: usize = 3;

/// Written as code is: "ContactForm", "stock_levels".
fn is_coded(word: &Word) -> bool {
    let letters = || word.text.chars();
    let hump = letters().zip(letters().skip(1)).any(|(a, b)| a.is_lowercase() && b.is_uppercase());
    let snake = word.text.contains('_') && !letters().any(char::is_uppercase);
    word.form == Form::Plain && letters().next().is_some_and(char::is_alphabetic) && (hump || snake)
}

/// What a name stands right behind.
const KINDS: [&str; 16] = [
    "model",
    "models",
    "entity",
    "schema",
    "struct",
    "class",
    "module",
    "component",
    "table",
    "service",
    "context",
    "controller",
    "view",
    "role",
    "crate",
    "package",
];

/// A task, and what its words are to a template.
struct Task<'a> {
    words: &'a [Word],
    taken: &'a [bool],
    /// Accounted for by the template, and yet may be part of a name that has a word of its own.
    honoured: &'a [bool],
    triggers: &'a [bool],
}

/// A phrase, and the words that are understood with it.
struct Named {
    phrase: Range<usize>,
    with: Range<usize>,
}

/// The words of the name, and those that only relate it to the rest: the phrase that follows a preposition, else one that
/// stands beside what the template is ("an order events consumer"), else what the order is about ("import products").
pub(super) fn name(
    words: &[Word],
    taken: &[bool],
    honoured: &[bool],
    triggers: &[bool],
) -> Option<(Range<usize>, Range<usize>)> {
    let task = Task { words, taken, honoured, triggers };
    let told = audience::background(words);
    if told == 0 {
        return task.named();
    }
    // What the order itself names comes before what is told around it.
    let (mut closed, mut open) = (taken.to_vec(), honoured.to_vec());
    closed[..told].fill(true);
    open[..told].fill(false);
    Task { words, taken: &closed, honoured: &open, triggers }.named().or_else(|| task.named())
}

impl Task<'_> {
    fn named(&self) -> Option<(Range<usize>, Range<usize>)> {
        let alone = |phrase: Range<usize>| Named { with: phrase.clone(), phrase };
        let found = self
            .given()
            .or_else(|| self.quoted().map(alone))
            .or_else(|| self.after_preposition(&["called", "named"]))
            .or_else(|| self.that_needs())
            .or_else(|| self.that_someone_does())
            .or_else(|| {
                self.after_preposition(&["for", "of", "about", "to", "that", "which", "on", "over", "around", "into"])
            })
            .or_else(|| self.after_participle())
            .or_else(|| {
                let phrase = self
                    .beside_a_trigger()
                    .or_else(|| self.identifier())
                    .or_else(|| self.object())
                    .or_else(|| self.inside())
                    .or_else(|| self.known());
                phrase.map(alone)
            })
            .or_else(|| self.told().map(alone))?;
        Some(match self.in_code(found.phrase.end) {
            Some(at) => (at..at + 1, found.with.start..at + 1),
            None => (found.phrase, found.with),
        })
    }

    fn is(&self, at: usize, those: &[&str]) -> bool {
        self.words.get(at).is_some_and(|w| those.contains(&w.lower.as_str()))
    }

    fn follow<'b>(&'b self, those: &'static [&'static str]) -> impl Iterator<Item = usize> + 'b {
        (0..self.words.len()).filter(move |&at| self.is(at, those))
    }

    /// Nothing accounts for the word, and it may be part of a name.
    fn is_free(&self, at: usize) -> bool {
        let word = &self.words[at];
        !self.taken[at] && !word.is_boundary() && !lexicon::is_foreign(&word.lower)
    }

    fn is_usable(&self, at: usize) -> bool {
        self.is_free(at) || self.is_honoured(at)
    }

    fn is_honoured(&self, at: usize) -> bool {
        self.honoured[at] && !self.words[at].is_boundary()
    }

    /// The words from `from` that can be one name.
    fn phrase(&self, from: usize, usable: impl Fn(usize) -> bool) -> Range<usize> {
        let words = self.words;
        // A name may begin with "orders.created", but not go on with it.
        let dotted = words.get(from).is_some_and(|w| w.form == Form::Dotted);
        let mut end = from + usize::from(dotted);
        // "orders returning CSV", "users sorted by age": what is said of a plural is no part of its name.
        let says =
            |i: usize| words[i - 1].lower.ends_with('s') && ["ing", "ed"].iter().any(|e| words[i].lower.ends_with(e));
        let goes_on = |i: usize| words[i].form != Form::Dotted && (i == from || !(words[i].after_break || says(i)));
        while end < words.len() && end - from < LONGEST && usable(end) && goes_on(end) {
            end += 1;
        }
        from..end
    }

    /// Whether a phrase has a word of its own.
    fn is_named(&self, phrase: &Range<usize>) -> bool {
        let own =
            |i: usize| (self.is_free(i) && self.words[i].form != Form::Number) || self.words[i].form == Form::Dotted;
        phrase.clone().any(own)
    }

    /// "service skeleton `courier-assignments`", "the `orders` endpoint": quotes are there to set a name apart. Several
    /// quoted words are values.
    fn quoted(&self) -> Option<Range<usize>> {
        let mut quoted = (0..self.words.len()).filter(|&at| self.words[at].form == Form::Quoted);
        let at = quoted.next().filter(|&at| quoted.next().is_none() && !self.taken[at])?;
        let text = &self.words[at].text;
        let named = text.starts_with(char::is_alphabetic)
            && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '))
            && text.split([' ', '-', '_']).count() <= LONGEST + 1;
        // "with `axum`" names no thing that is made.
        let made_with = |i: usize| self.is(i, &["with", "using", "via", "from", "in", "as", "and", "or", "like"]);
        let kind = |i: usize| self.triggers[i] || self.is(i, &KINDS) || lexicon::is_whole(&self.words[i].lower);
        let before = (0..at).rev().find(|&i| !self.words[i].is_filler() || made_with(i));
        let beside = before.is_some_and(|i| kind(i) && !made_with(i)) || (at + 1 < self.words.len() && kind(at + 1));
        (named && beside).then_some(at..at + 1)
    }

    /// "; name *alerts*", "name=alerts", "name is *geo-fence*".
    fn given(&self) -> Option<Named> {
        self.follow(&["name", "table", "entity", "resource", "model", "service"]).find_map(|at| {
            let next = self.words.get(at + 1)?;
            let named = self.is(at, &["name"]);
            let is = usize::from(named && self.is(at + 1, &["is"]));
            let from = at + 1 + is;
            let next = self.words.get(from).filter(|w| is == 0 || !w.after_break).unwrap_or(next);
            let said = named && (is > 0 || self.words[at].after_break) && !next.after_break
                || next.before.contains(['=', ':']) && (named || next.before == "=");
            // "name string" is a field.
            let typed = fields::is_type(&next.lower);
            let end = (from + 1..self.words.len()).find(|&i| self.words[i].before != "-").unwrap_or(self.words.len());
            (said && !typed && self.is_free(from) && next.form == Form::Plain && self.ends(end))
                .then_some(Named { with: at..end, phrase: from..end })
        })
    }

    /// Nothing, or a new phrase, follows.
    fn ends(&self, at: usize) -> bool {
        self.words.get(at).is_none_or(|w| w.after_break || w.is_boundary())
    }

    /// "*Treatments* need a table", "*harvest events* come through JetStream".
    fn that_needs(&self) -> Option<Named> {
        let begins = |at: usize| at == 0 || self.words[at].after_break || self.words[at - 1].is_filler();
        (0..self.words.len()).filter(|&at| begins(at)).find_map(|at| {
            let mut phrase = self.phrase(at, |i| self.is_usable(i));
            let needs = self.is(phrase.end, &["need", "needs", "come", "comes", "arrive", "arrives"])
                && !self.words[phrase.end].after_break;
            while phrase.len() > 1 && self.triggers[phrase.end - 1] {
                phrase.end -= 1;
            }
            let many = self.words[phrase.clone()].last().is_some_and(|w| w.lower.ends_with('s'));
            (needs && many && self.is_named(&phrase)).then_some(Named { with: phrase.clone(), phrase })
        })
    }

    /// "where customers can post *feedback*", "let dispatchers create *pickups*": who does it is no part of the name.
    fn that_someone_does(&self) -> Option<Named> {
        let acts = |i: usize| {
            self.words.get(i).is_some_and(|w| {
                w.orders()
                    || w.lower == "manage"
                    || (self.taken[i] && (lexicon::takes(&w.lower) || lexicon::relates(&w.lower)))
            })
        };
        (0..self.words.len()).find_map(|at| {
            let (begin, verb) = match self.words[at].lower.as_str() {
                "can" | "may" | "could" => {
                    let who = (0..at)
                        .rev()
                        .take(3)
                        .take_while(|&i| self.is_free(i) && !self.words[i + 1].after_break)
                        .last()?;
                    (who, at + 1)
                }
                "let" | "lets" | "allow" | "allows" | "letting" | "allowing" => {
                    let who = (at + 1..self.words.len()).find(|&i| !self.is(i, &["our", "the", "my", "us"]))?;
                    let verb = (who..self.words.len().min(who + 3)).take_while(|&i| self.is_free(i)).last()? + 1;
                    (who, verb + usize::from(self.is(verb, &["to"])))
                }
                _ => return None,
            };
            let from = (verb..self.words.len())
                .find(|&i| !(acts(i) || self.is(i, &["and", "or", "a", "an", "the", "their", "new"])))?;
            if from == verb || self.words[from].after_break {
                return None;
            }
            let mut phrase = self.phrase(from, |i| self.is_usable(i));
            while phrase.len() > 1 && self.triggers[phrase.end - 1] {
                phrase.end -= 1;
            }
            self.is_named(&phrase).then_some(Named { with: begin..phrase.end, phrase })
        })
    }

    /// "a page listing *tickets*", "and processes *sensor readings*".
    fn after_participle(&self) -> Option<Named> {
        (1..self.words.len()).find_map(|at| {
            let verb = &self.words[at].lower;
            let known = self.taken[at] || lexicon::relates(verb);
            let acts = lexicon::relates(verb) || (lexicon::takes(verb) && verb.ends_with("ing")) || verb == "exposing";
            let after = self.taken[at - 1] || self.words[at - 1].is_filler();
            if !(known && acts && after) || self.words[at].after_break && !self.words[at].before.contains(',') {
                return None;
            }
            let from = (at + 1..self.words.len()).find(|&i| !self.words[i].is_filler())?;
            let mut phrase = self.phrase(from, |i| self.is_usable(i));
            while phrase.len() > 1 && self.triggers[phrase.end - 1] {
                phrase.end -= 1;
            }
            let joined = self.words[at + 1..=from].iter().all(|w| !w.after_break);
            let many = self.words[phrase.clone()].last().is_some_and(|w| w.lower.ends_with('s'));
            let each = self.is(from - 1, &["each", "every", "the", "all", "our", "a", "an"]);
            (joined && (many || each) && self.is_named(&phrase)).then_some(Named { with: at..phrase.end, phrase })
        })
    }

    /// "for processing *user events*", "that keeps *sessions*", "called *billing*".
    fn after_preposition(&self, those: &'static [&'static str]) -> Option<Named> {
        self.follow(those).find_map(|at| {
            // "based on distroless", "runs on arm" name no thing that is made.
            let said = at > 0
                && !self.is(at - 1, &["run", "runs", "running"])
                && (self.taken[at - 1] || self.words[at - 1].is_filler());
            if self.is(at, &["to", "on", "over", "around", "into"]) && !said {
                return None;
            }
            // "for a *Go* billing package"
            let only_relates = |i: usize| {
                let word = &self.words[i];
                let language = self.taken[i] && Language::named(&word.lower).is_some();
                (word.is_filler() || language || lexicon::relates(&word.lower)) && !word.after_break
            };
            let related = (at + 1..self.words.len()).find(|&i| !only_relates(i))?;
            let from = if self.is(at, &["that", "which", "to"]) { self.after_verbs(at, related)? } else { related };
            let mut phrase = self.phrase(from, |i| self.is_usable(i));
            // "the orders endpoint" is called orders, where an endpoint is what it is.
            while phrase.len() > 1 && self.triggers[phrase.end - 1] {
                phrase.end -= 1;
            }
            let acts = self.is(at, &["to"]) && self.words.get(from).is_some_and(|w| lexicon::changes(&w.lower));
            // What only relates the name to the rest is understood with it.
            let begin = if from == related { at + 1 } else { from };
            (self.is_named(&phrase) && !acts).then_some(Named { with: begin..phrase.end, phrase })
        })
    }

    /// "to list and create *vehicles*", "that returns *users*": verbs come first, which the template honours or which say
    /// nothing of their own. `None` where another verb follows.
    fn after_verbs(&self, at: usize, related: usize) -> Option<usize> {
        let word = |i: usize| &self.words[i];
        let known = |i: usize| {
            (self.honoured[i] && lexicon::takes(&word(i).lower))
                || word(i).is_filler()
                || lexicon::relates(&word(i).lower)
        };
        // "to create, list and delete *seats*"
        let listed = |i: usize| word(i).before == "," && self.honoured[i] && lexicon::takes(&word(i).lower);
        let mut from = related;
        while from + 1 < self.words.len()
            && known(from)
            && (!word(from + 1).after_break || listed(from + 1))
            && !self.is_named(&self.phrase(from, |i| self.is_free(i)))
        {
            from += 1;
        }
        let acts = |i: usize| lexicon::relates(&word(i).lower) || lexicon::takes(&word(i).lower);
        let acted = related < from || (at + 1..from).any(acts);
        let heard = at > 0 && ["subscri", "listen", "react"].iter().any(|verb| word(at - 1).lower.starts_with(verb));
        // "an index to the orders table" names a thing, "a tool to resize images" does not.
        let the = matches!(word(at).text.as_str(), "zum" | "zur") || self.is(at + 1, &["the", "our", "my"]);
        let thing = self.is(at, &["to"]) && the;
        // "adds a column to orders": one word in the plural.
        let added = self.is(at, &["to"])
            && at > 0
            && (self.triggers[at - 1] || self.taken[at - 1])
            && word(from).lower.ends_with('s')
            && self.phrase(from, |i| self.is_usable(i)).len() == 1;
        (acted || heard || thing || added).then_some(from)
    }

    /// "an *order events* consumer", "table *orders*".
    fn beside_a_trigger(&self) -> Option<Range<usize>> {
        let trigger = |i: usize| self.triggers.get(i).is_some_and(|t| *t);
        // "a view refreshed at night": what is said of the thing is not its name.
        let says =
            |i: usize| i > 0 && trigger(i - 1) && self.words[i].lower.len() > 4 && self.words[i].lower.ends_with("ed");
        // "email-sender" is one name.
        let hyphened = |i: usize| self.words.get(i + 1).is_some_and(|w| w.before == "-");
        // "API key authentication": what is wanted is another kind.
        let other_kind =
            |phrase: &Range<usize>| phrase.clone().any(|i| self.is_free(i) && !types_of(&self.words[i]).is_empty());
        // "model Invoice", "module Money"
        let of_kind = |phrase: &Range<usize>| {
            phrase.start > 0 && self.is(phrase.start - 1, &KINDS) && !self.words[phrase.start].after_break
        };
        let beside = |phrase: &Range<usize>| {
            trigger(phrase.end)
                || (phrase.start > 0 && (trigger(phrase.start - 1) || of_kind(phrase)) && !other_kind(phrase))
        };
        (0..self.words.len())
            .filter(|&i| self.is_free(i) && (hyphened(i) || !lexicon::changes(&self.words[i].lower)) && !says(i))
            .map(|from| {
                let mut phrase = self.phrase(from, |i| self.is_usable(i));
                // "server side rendering" is said of a thing.
                let is_kind = |i: usize| self.triggers[i] && !self.words[i].lower.ends_with("ing");
                while phrase.len() > 1 && is_kind(phrase.end - 1) {
                    phrase.end -= 1;
                }
                phrase
            })
            .find(|phrase| self.is_named(phrase) && beside(phrase))
    }

    /// "The aquarium sends *fish tank alarms* over JetStream. Write a consumer for them": what was told of before.
    fn told(&self) -> Option<Range<usize>> {
        let begin = audience::background(self.words);
        let them = |w: &Word| matches!(w.lower.as_str(), "them" | "they" | "those" | "these" | "it");
        if !self.words[begin..].iter().any(them) {
            return None;
        }
        (1..begin).find_map(|end| {
            let ends = self.is(end, &["over", "in", "on", "to", "through", "via", "from", "as"]);
            let many = self.words[end - 1].lower.ends_with('s') && !self.words[end].after_break;
            if !(ends && many && self.is_free(end - 1)) {
                return None;
            }
            let part =
                |i: &usize| self.is_free(*i) && !self.words[*i].lower.ends_with('s') && !self.words[*i].after_break;
            let from = (0..end - 1).rev().take(LONGEST - 1).take_while(part).last().unwrap_or(end - 1);
            Some(from..end)
        })
    }

    /// "Chormitglieder (*choir_members*)": what the name is in code.
    fn in_code(&self, at: usize) -> Option<usize> {
        let word = self.words.get(at).filter(|w| w.before == "(" && is_coded(w))?;
        let closed = self.words.get(at + 1).is_none_or(|w| w.before.contains(')'));
        (self.is_free(at) && closed && !word.text.chars().any(char::is_uppercase)).then_some(at)
    }

    /// "*ContactForm* in React", "upsert into *stock_levels*": written as code, so it is a name.
    fn identifier(&self) -> Option<Range<usize>> {
        let at = (0..self.words.len()).find(|&i| self.is_free(i) && is_coded(&self.words[i]))?;
        Some(at..at + 1)
    }

    /// "import *products*", "benchmark the *parser*".
    fn object(&self) -> Option<Range<usize>> {
        let first = self.words.iter().position(|w| !w.is_filler() && Language::named(&w.lower).is_none())?;
        let verb = &self.words[first].lower;
        let takes = self.taken[first] && (lexicon::takes(verb) || lexicon::relates(verb));
        // "stream and parse log entries": the last of the verbs takes it.
        let passed = |i: usize| {
            self.is(i, &["a", "an", "the", "our", "my", "and"])
                || (self.taken[i] && lexicon::takes(&self.words[i].lower))
        };
        let from = (first + 1..self.words.len()).find(|&i| !passed(i))?;
        let phrase = self.phrase(from, |i| self.is_usable(i));
        (takes && self.is_named(&phrase)).then_some(phrase)
    }

    /// "a bug in *orders*", "in the *checkout*".
    fn inside(&self) -> Option<Range<usize>> {
        self.follow(&["in"]).find_map(|at| {
            let the = self.is(at + 1, &["the", "our"]);
            let phrase = self.phrase(at + 1 + usize::from(the), |i| self.is_usable(i));
            (self.is_named(&phrase) && (the || self.words[phrase.end - 1].lower.ends_with('s'))).then_some(phrase)
        })
    }

    /// "for *validators*", "for the *validator*", though the template knows the word for something else.
    fn known(&self) -> Option<Range<usize>> {
        self.follow(&["for"]).find_map(|at| {
            let the = self.is(at + 1, &["the", "our"]);
            let phrase = self.phrase(at + 1 + usize::from(the), |i| self.is_honoured(i));
            let last = phrase.clone().next_back().filter(|_| phrase.len() <= 2)?;
            (the || self.words[last].lower.ends_with('s')).then_some(phrase)
        })
    }
}
