//! What a request says, taken apart so that two can be compared.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::LazyLock;

use rust_stemmers::{Algorithm, Stemmer};

use super::frames::{self, Want};
use super::lexicon::{self, Known};
use super::words::{
    ASKERS, ASKING, FILLERS, FORMS, LINKS, MAKE, NAMING, NEGATIONS, NUMBER_WORDS, OPENERS, OWNING_LINKS, PHRASES,
    QUESTIONS, SOURCES, SYNONYMS, TARGETS, TECHNOLOGIES, UNITS, UNSTEMMED,
};
use crate::domain::Language;

/// What kind of thing a token is. Each kind has its guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Word,
    Number,
    Identifier,
    Path,
    Quote,
    Technology,
    Question,
}

/// The part that a token plays by the preposition right before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Source,
    Target,
}

/// How a token hangs on what stands before it. Paraphrases change the word ("that finds", "to find", "for finding"),
/// not the kind: "tests for the service" are no "service with tests" and no "test service".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Join {
    /// Nothing.
    None,
    /// A relative pronoun, or a goal.
    Plain,
    Of,
    With,
}

impl Join {
    /// Whether the one can say what the other does.
    pub(super) fn fits(self, other: Self) -> bool {
        (self == Self::With) == (other == Self::With)
            && !matches!((self, other), (Self::None, Self::Of) | (Self::Of, Self::None))
    }
}

/// How a word is written where that may say something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Case {
    Lower,
    Capital,
    Upper,
}

/// One thing that the text says.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// In the form in which it is compared: words by the stem of their first synonym.
    pub(super) text: String,
    /// As it was written, in lower case: for opposites and for people.
    pub(super) written: String,
    /// What its capitals are; `None` where they say nothing.
    pub(super) case: Option<Case>,
    pub(super) role: Option<Role>,
    /// The preposition or relative pronoun since the token before, if there was one; empty after the asking verb.
    pub(super) link: Option<&'static str>,
    /// An "and", "or" or the like stands before it.
    pub(super) joined: bool,
    /// What the tables of English know of it.
    pub(super) known: Option<Known>,
    pub(super) named: bool,
}

/// What a negation is about; empty where nothing follows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Negated {
    pub(super) text: String,
    pub(super) written: String,
}

/// A token as it stands in its sentence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) text: &'a str,
    pub(super) join: Join,
    pub(super) link: Option<&'static str>,
}

/// A link and what it leads to.
pub(super) type Phrase<'a> = (&'a str, Vec<&'a str>);

/// A text, read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) tokens: Vec<Token>,
    /// The thing that each negation is about.
    pub(super) negated: Vec<Negated>,
    /// It wants to know something; an order in the form of a question ("Can you write…?") does not.
    pub(super) asks: bool,
    /// It does not even begin like a question.
    pub(super) is_order: bool,
    /// What it wants to know, each once; empty for an order, and for a question that asks how to do something.
    pub(super) wants: Vec<Want>,
    /// Of each line after the first, where any is indented.
    pub(super) indentation: Vec<String>,
}

impl Token {
    pub(super) fn join(&self) -> Join {
        match self.link {
            None | Some("") => Join::None,
            Some("for") if self.written.ends_with("ing") => Join::Plain,
            Some("of" | "for" | "in" | "on" | "at" | "from") => Join::Of,
            Some("with" | "by" | "using" | "via") => Join::With,
            Some(_) => Join::Plain,
        }
    }
}

impl Reading {
    /// Reads `text`. Its own `language` says nothing that the scope does not say already, and is left out.
    pub(super) fn of(text: &str, language: Option<&Language>) -> Self {
        let shouted = !text.chars().any(char::is_lowercase);
        let own = language.map(Language::as_str).unwrap_or_default();
        let mut reader = Reader { shouted, capitals: !shouted && !is_title(text), own, ..Reader::default() };
        reader.reading.indentation = indentation(text);
        let mut rest = text;
        while let Some((raw, after, quoted)) = next(rest) {
            let begins = !reader.mid_sentence || (reader.after_comma && starts_with_word(rest, QUESTION_WORDS));
            if begins && let Some(beginning) = frames::beginning(rest.trim_start()) {
                reader.wanted(beginning);
                rest = beginning.rest;
                continue;
            }
            if let Some((words, after)) = phrase(rest.trim_start()) {
                reader.follows = after;
                words.split(' ').for_each(|word| reader.take(word));
                reader.mid_sentence = true;
                rest = after;
                continue;
            }
            reader.begins_line = rest[..rest.len() - rest.trim_start().len()].contains('\n');
            // What stands behind punctuation belongs to something else.
            reader.follows = if raw.ends_with([',', ';', ':', '.', ')', '!', '?']) { "" } else { after };
            if quoted {
                reader.push(Kind::Quote, raw.to_owned(), raw);
            } else {
                reader.take(raw);
                reader.end_of_clause(raw);
            }
            rest = after;
        }
        reader.finish(text)
    }

    /// What it takes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        // Beside each text what the allocator adds.
        let text = |text: &String| text.len() + 24;
        let tokens = self.tokens.iter().map(|token| size_of::<Token>() + text(&token.text) + text(&token.written));
        let negated = self.negated.iter().map(|n| size_of::<Negated>() + text(&n.text) + text(&n.written));
        let lines = self.indentation.iter().map(|line| size_of::<String>() + text(line));
        size_of::<Self>() + tokens.chain(negated).chain(lines).sum::<usize>()
    }

    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Token> {
        self.tokens.iter().filter(move |token| token.kind == kind)
    }

    /// All but question words, which only some requests have.
    pub(super) fn said(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().filter(|token| token.kind != Kind::Question)
    }

    /// The tokens cut where a link stands, each piece behind its link.
    pub(super) fn phrases<'a>(said: &[Said<'a>]) -> Vec<Phrase<'a>> {
        let mut phrases: Vec<Phrase<'_>> = vec![];
        for token in said {
            match (phrases.last_mut(), token.link) {
                (Some((_, phrase)), None) => phrase.push(token.text),
                (_, link) => phrases.push((link.unwrap_or_default(), vec![token.text])),
            }
        }
        phrases
    }

    /// The phrases with "X of Y" and "X for Y" turned into "Y X", and "jobs that failed" into "failed jobs".
    pub(super) fn compounded<'a>(said: &[Said<'a>]) -> Vec<Phrase<'a>> {
        let mut compounds: Vec<Phrase<'_>> = vec![];
        for (link, phrase) in Self::phrases(said) {
            let owned = OWNING_LINKS.contains(&link) || (matches!(link, "that" | "which") && phrase.len() == 1);
            match compounds.last_mut() {
                Some((_, before)) if owned => {
                    let head = before.len().saturating_sub(1);
                    before.splice(head..head, phrase);
                }
                _ => compounds.push((link, phrase)),
            }
        }
        compounds
    }
}

/// The next piece of `text` between white space, or the content of the next quotation; and what comes after it.
fn next(text: &str) -> Option<(&str, &str, bool)> {
    let text = text.trim_start();
    let first = text.chars().next()?;
    let lead = text.find(|c: char| !matches!(c, '(' | '[' | '{' | '=' | ':' | ',')).unwrap_or(0);
    let quote = text[lead..].chars().next().filter(|c| matches!(c, '"' | '\'' | '`' | '“' | '‘'));
    if let Some(open) = quote {
        let close = match open {
            '“' => '”',
            '‘' => '’',
            other => other,
        };
        let inside = &text[lead + open.len_utf8()..];
        let ends = inside.match_indices(close).find(|(at, mark)| {
            // An apostrophe within a word ends no quotation.
            !inside[at + mark.len()..].starts_with(char::is_alphanumeric)
        });
        if let Some((end, mark)) = ends {
            return Some((&inside[..end], &inside[end + mark.len()..], true));
        }
    }
    let end = text.find(char::is_whitespace).unwrap_or(text.len()).max(first.len_utf8());
    Some((&text[..end], &text[end..], false))
}

#[derive(Default)]
struct Reader<'a> {
    reading: Reading,
    own: &'a str,
    /// The text has no lower case: its capitals say nothing.
    shouted: bool,
    /// Case says something, but at the beginning of a sentence or line.
    capitals: bool,
    begins_line: bool,
    /// Of the word that is being read.
    case: Option<Case>,
    follows: &'a str,
    link: Option<&'static str>,
    role: Option<Role>,
    joined: bool,
    negations: usize,
    /// The last word was "named" or "called".
    naming: bool,
    whether: bool,
    /// The verb that asks was seen and only a form ("code to…") may still be dropped.
    asked: bool,
    /// What is asked for has begun to be told.
    begun: bool,
    after_comma: bool,
    /// Some sentence began with what it wants.
    framed: bool,
    mid_sentence: bool,
    opens_with_link: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, raw: &'a str) {
        let bare = raw.trim_matches(|c: char| {
            matches!(c, ',' | ';' | ':' | '!' | '?' | '"' | '(' | ')' | '[' | ']' | '{' | '}' | '`' | '“' | '”')
        });
        let bare = bare.trim_end_matches(['.', ',', ':', ';', '\'']);
        if bare.is_empty() {
            return;
        }
        let factorial = raw.trim_end_matches([',', '.', ')']).strip_suffix('!').is_some_and(is_operand);
        if factorial {
            self.push(Kind::Word, "!".to_owned(), "!");
        }
        let lower = bare.to_lowercase();
        if let Some(technology) =
            LEXICON.technologies.get(lower.as_str()).copied().or_else(|| self.as_cased_language(bare))
        {
            return self.technology(technology, &lower);
        }
        if is_path(bare) {
            return self.push(Kind::Path, bare.to_owned(), bare);
        }
        if let Some((number, unit)) = number(bare) {
            return self.number(number, unit, &lower);
        }
        if is_identifier(bare) {
            return self.push(Kind::Identifier, bare.to_owned(), bare);
        }
        if !bare.contains(char::is_alphanumeric) {
            // An operator or an emoji: it stands for itself.
            return self.push(Kind::Word, bare.to_owned(), bare);
        }
        // "key-value", "and/or", "f(n/2)": words and what stands between them.
        let mut at = 0;
        for (start, part) in parts(bare) {
            let between = &bare[at..start];
            if between
                .chars()
                .any(|c| matches!(c, '+' | '*' | '<' | '>' | '=' | '%' | '^' | '&' | '|' | '$' | '#' | '@'))
            {
                self.push(Kind::Word, between.to_owned(), between);
            }
            at = start + part.len();
            self.part(part, bare[at..].starts_with('-'));
        }
    }

    /// A new sentence may ask anew, and so may what follows "In Rust, …".
    fn end_of_clause(&mut self, raw: &str) {
        let word = raw.to_lowercase();
        // A bullet begins nothing yet.
        let says = raw.contains(char::is_alphanumeric);
        if !std::mem::replace(&mut self.mid_sentence, says) {
            self.opens_with_link = LINKS.contains(&word.as_str());
        }
        self.after_comma = raw.ends_with(',');
        if raw.ends_with(['.', '!', '?']) {
            (self.begun, self.mid_sentence) = (false, false);
        } else if raw.ends_with(':') {
            self.mid_sentence = false;
        } else if raw.ends_with(',') && self.opens_with_link {
            self.begun = false;
        }
    }

    fn part(&mut self, part: &'a str, hyphen_follows: bool) {
        let lower = part.to_lowercase();
        self.case = if self.capitals && self.mid_sentence && !self.begins_line { case(part) } else { None };
        if let Some((number, unit)) = number(part) {
            return self.number(number, unit, &lower);
        }
        if let Some(technology) = LEXICON.technologies.get(lower.as_str()).copied() {
            return self.technology(technology, &lower);
        }
        if is_identifier(part) {
            return self.push(Kind::Identifier, part.to_owned(), part);
        }
        if std::mem::take(&mut self.naming) && !FILLERS.contains(&lower.as_str()) {
            return self.push(Kind::Identifier, part.to_owned(), part);
        }
        if hyphen_follows && lower == "re" {
            return;
        }
        // "Convert A to B", "from a to z": a name, not an article.
        let named = part == "A" && self.mid_sentence && self.capitals;
        if matches!(lower.as_str(), "a" | "i") && (named || !self.article_follows()) {
            return self.push(Kind::Word, lower.clone(), &lower);
        }
        self.word(&lower);
    }

    /// Whether what follows can be what "a" or "I" belongs to.
    fn article_follows(&self) -> bool {
        let ends = ["and", "or", "is", "are", "than", "times"];
        !self.follows.trim().is_empty()
            && !starts_with_word(self.follows, LINKS)
            && !starts_with_word(self.follows, &ends)
    }

    fn word(&mut self, written: &str) {
        let word = written.strip_suffix("'s").or_else(|| written.strip_suffix("’s")).unwrap_or(written);
        if word.ends_with("n't") || word.ends_with("n’t") || NEGATIONS.contains(&word) {
            // "whether … or not" asks the same as "whether …".
            if word == "not" && self.whether && self.reading.tokens.last().is_some_and(|t| t.written == "or") {
                self.reading.tokens.pop();
            } else {
                self.negations += 1;
            }
            return;
        }
        self.joined |= matches!(word, "and" | "or" | "vs" | "versus" | "between");
        self.whether |= matches!(word, "whether" | "if" | "check" | "verify" | "determine");
        if !self.begun && MAKE.contains(&word) {
            // "Write to a file" is no request to write something: what is asked for has an article or is a noun.
            if word != "write" || !starts_with_word(self.follows, &["to", "into", "data", "back"]) {
                (self.begun, self.asked) = (true, true);
                (self.link, self.role) = (Some(""), None);
                return;
            }
        }
        // "Turn it on": with nothing behind it, a preposition is what the sentence is about.
        let particle = self.follows.trim().is_empty() && (LINKS.contains(&word) || SOURCES.contains(&word));
        // "The price of a used car": only an order is done by using something.
        let says_use = self.framed && matches!(word, "use" | "uses" | "used");
        if FILLERS.contains(&word) && !particle && !says_use {
            // "Name it orders", "call it orders".
            self.naming = word == "it"
                && self.reading.tokens.last().is_some_and(|t| matches!(t.written.as_str(), "name" | "call"));
            if let Some(link) = LINKS.iter().find(|link| **link == word) {
                self.link = Some(link);
            } else if matches!(word, "use" | "uses" | "used") {
                self.link = Some("using");
            }
            self.role = match word {
                _ if SOURCES.contains(&word) => Some(Role::Source),
                _ if TARGETS.contains(&word) => Some(Role::Target),
                "a" | "an" | "the" | "given" | "some" | "its" | "this" | "that" => self.role,
                _ => None,
            };
            return;
        }
        if std::mem::take(&mut self.asked)
            && FORMS.contains(&word)
            && starts_with_word(self.follows, &["to", "that", "for", "which"])
        {
            return;
        }
        self.begun = true;
        let next = self.follows.split_whitespace().next().unwrap_or_default().to_lowercase();
        if word == "one" && is_unit(next.trim_end_matches(|c: char| !c.is_alphanumeric())) {
            return self.number("1".to_owned(), None, word);
        }
        if QUESTIONS.contains(&word) {
            self.begun = false;
            return self.push(Kind::Question, word.to_owned(), word);
        }
        if let Some(value) = NUMBER_WORDS.iter().position(|n| *n == word).filter(|n| *n != 1) {
            return self.number(value.to_string(), None, word);
        }
        let stem = LEXICON.stem(word);
        self.push(Kind::Word, stem, word);
        self.naming = NAMING.contains(&word);
    }

    fn number(&mut self, number: String, unit: Option<&str>, written: &str) {
        let next = self.follows.split_whitespace().next().unwrap_or_default();
        let next = next.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '%').to_lowercase();
        let unit = unit.map(str::to_lowercase).unwrap_or(next);
        let text = match LEXICON.units.get(unit.as_str()) {
            Some(unit) => format!("{number} {unit}"),
            None => number,
        };
        self.push(Kind::Number, text, written);
    }

    fn technology(&mut self, technology: &'static str, written: &str) {
        if technology == self.own || (technology, self.own) == ("golang", "go") {
            (self.link, self.role) = (None, None);
        } else {
            self.push(Kind::Technology, technology.to_owned(), written);
        }
    }

    /// Languages that are words too: "Go", "C", "R", by their case.
    fn as_cased_language(&self, bare: &str) -> Option<&'static str> {
        match bare {
            _ if self.shouted => None,
            "Go" if self.begun || self.asked => Some("golang"),
            "C" => Some("c"),
            "R" => Some("r"),
            "go" if self.link == Some("in") && self.reading.tokens.last().is_some() => Some("golang"),
            _ => None,
        }
    }

    fn push(&mut self, kind: Kind, text: String, written: &str) {
        // A unit was told with its number.
        if kind == Kind::Word
            && let Some(unit) = LEXICON.units.get(written)
            && self
                .reading
                .tokens
                .last()
                .is_some_and(|t| t.kind == Kind::Number && t.text.ends_with(&format!(" {unit}")))
            && self.link.is_none()
        {
            return;
        }
        for _ in 0..std::mem::take(&mut self.negations) {
            self.reading.negated.push(Negated { text: text.clone(), written: written.to_lowercase() });
        }
        self.naming = false;
        self.begun |= kind != Kind::Question;
        let (role, link, case) = (self.role.take(), self.link.take(), self.case.take());
        let (joined, written) = (std::mem::take(&mut self.joined), written.to_lowercase());
        let word = kind == Kind::Word;
        let (known, named) = (word.then(|| lexicon::known(&written)).flatten(), word && lexicon::is_name(&written));
        self.reading.tokens.push(Token { kind, text, written, case, role, link, joined, known, named });
    }

    /// The beginning of a sentence was read.
    fn wanted(&mut self, beginning: frames::Beginning<'a>) {
        self.framed = true;
        self.after_comma = false;
        // After one that only says that something is asked, another may follow.
        let Some(want) = beginning.want else { return };
        if let Some(word) = beginning.says {
            self.push(Kind::Word, LEXICON.stem(word), word);
        }
        self.mid_sentence = true;
        if want != Want::Way {
            self.begun = true;
            self.reading.wants.push(want);
        }
    }

    fn finish(mut self, text: &str) -> Reading {
        for _ in 0..self.negations {
            self.reading.negated.push(Negated::default());
        }
        self.reading.negated.sort();
        let reading = &mut self.reading;
        for want in &mut reading.wants {
            // What is wanted may also stand at the end: "What does it cost?", "How do they differ?"
            for (before, word, after) in ENDS {
                let found = || reading.tokens.iter().position(|t| t.kind == Kind::Word && t.text == *word);
                if before == want
                    && let Some(at) = found()
                {
                    reading.tokens.remove(at);
                    *want = *after;
                }
            }
        }
        let offered = reading.tokens.iter().any(|t| t.kind == Kind::Word && t.written == "or");
        if let ([want @ (Want::Truth | Want::Thing | Want::Advice)], true) = (reading.wants.as_mut_slice(), offered) {
            *want = Want::Choice;
        }
        reading.wants.sort_unstable();
        reading.wants.dedup();
        if reading.wants.is_empty() && !self.framed && asks(text) {
            let whether = starts_with_word(text, &["do"]);
            reading.wants.push(if whether { Want::Truth } else { Want::Unsaid });
        }
        reading.asks = !reading.wants.is_empty();
        reading.is_order = !reading.asks && !self.framed;
        if !reading.is_order {
            reading.tokens.iter_mut().for_each(as_brand);
        }
        self.reading
    }
}

/// "YouTube" is no name in code where somebody asks for a way, but one that is written in many ways.
fn as_brand(token: &mut Token) {
    if token.kind == Kind::Identifier && token.text.chars().all(char::is_alphabetic) {
        (token.kind, token.case) = (Kind::Word, Some(Case::Capital));
        token.text = LEXICON.stem(&token.written);
    }
}

/// A want, the stem of a word that changes it, and what it then is.
const ENDS: &[(Want, &str, Want)] = &[
    (Want::Thing, "mean", Want::Meaning),
    (Want::Thing, "cost", Want::Amount),
    (Want::Amount, "cost", Want::Amount),
    (Want::Manner, "differ", Want::Difference),
    (Want::Thing, "differ", Want::Difference),
    (Want::Difference, "differ", Want::Difference),
];

/// A question may begin with these after a comma: "I lost my key, how do I…".
const QUESTION_WORDS: &[&str] = &["how", "what", "what's", "why", "when", "where", "who", "which"];

/// Several words that stand for another, if `text` begins with such; and what comes after them.
fn phrase(text: &str) -> Option<(&'static str, &str)> {
    let first = text.split_whitespace().next()?;
    let first = if first.chars().any(char::is_uppercase) { first.to_lowercase().into() } else { Cow::Borrowed(first) };
    let rows = LEXICON.phrases.get(first.as_ref())?;
    let fits = |(words, instead): &(Vec<&'static str>, &'static str)| {
        let mut rest = text;
        for (i, word) in words.iter().enumerate() {
            rest = rest.trim_start();
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            // Punctuation may follow the last one only.
            let piece = rest[..end].to_lowercase();
            let bare =
                if i + 1 == words.len() { piece.trim_end_matches(['.', ',', '?', '!', ';', ':', ')']) } else { &piece };
            if bare != *word {
                return None;
            }
            let plain = rest[..end].trim_end_matches(['.', ',', '?', '!', ';', ':', ')']).len();
            rest = if i + 1 == words.len() { &rest[plain..] } else { &rest[end..] };
        }
        Some((*instead, rest))
    };
    rows.iter().find_map(fits)
}

/// What a `!` behind it makes a factorial of: `n`, `5`, `(n+1)`.
fn is_operand(text: &str) -> bool {
    let single = text.chars().count() == 1 && text.contains(char::is_alphanumeric);
    single || text.ends_with(')') || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
}

fn case(word: &str) -> Option<Case> {
    let mut letters = word.chars().filter(|c| c.is_alphabetic());
    let first = letters.next()?;
    let others = |upper: fn(char) -> bool| word.chars().filter(|c| c.is_alphabetic()).skip(1).any(upper);
    match (first.is_uppercase(), others(char::is_uppercase)) {
        (false, false) if first.is_lowercase() => Some(Case::Lower),
        (true, true) => Some(Case::Upper),
        (true, false) => Some(Case::Capital),
        _ => None,
    }
}

/// Every word of some length has a capital: "Create a Table With Users".
fn is_title(text: &str) -> bool {
    let mut long = text.split_whitespace().filter(|w| w.chars().count() > 3 && w.chars().all(char::is_alphabetic));
    let count = long.clone().count();
    count >= 3 && long.all(|word| word.starts_with(char::is_uppercase))
}

/// Whether any sentence wants to know something.
fn asks(text: &str) -> bool {
    let mut sentence: Vec<String> = vec![];
    // The mark of "Can you write…? Or a …?" belongs to the order.
    let mut orders = false;
    for word in text.split_whitespace() {
        let plain = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        if !plain.is_empty() {
            sentence.push(plain);
        }
        let marked = word.len() > 1 && word.trim_end_matches(['"', ')', '!', '”']).ends_with('?');
        if marked || word.ends_with(['.', '!']) {
            let Form { polite, asks } = form(&sentence);
            if !polite && (asks || (marked && !orders)) {
                return true;
            }
            orders |= polite;
            sentence.clear();
        }
    }
    form(&sentence).asks
}

/// What the beginning of a sentence says of it.
struct Form {
    /// An order in the form of a question.
    polite: bool,
    asks: bool,
}

fn form(sentence: &[String]) -> Form {
    let mut words = sentence.iter().map(String::as_str).skip_while(|w| OPENERS.contains(w));
    let [first, second, third] = std::array::from_fn(|_| words.next().unwrap_or_default());
    let polite = match first {
        "can" | "could" | "would" | "will" | "may" | "might" => ASKERS.contains(&second),
        "do" => second == "you",
        "is" => (second, third) == ("it", "possible"),
        "how" => second == "to" || (matches!(second, "do" | "can" | "could" | "would") && ASKERS.contains(&third)),
        _ => false,
    };
    Form { polite, asks: !polite && ASKING.contains(&first) }
}

fn indentation(text: &str) -> Vec<String> {
    let indented = |line: &str| line[..line.len() - line.trim_start().len()].to_owned();
    let lines: Vec<String> = text.trim().lines().skip(1).filter(|line| !line.trim().is_empty()).map(indented).collect();
    if lines.iter().all(String::is_empty) { vec![] } else { lines }
}

fn starts_with_word(text: &str, words: &[&str]) -> bool {
    text.split_whitespace().next().is_some_and(|first| words.contains(&first.to_lowercase().as_str()))
}

/// The runs of letters and digits, apostrophes within them included, each with its place.
fn parts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '’' | '_')).filter_map(move |part| {
        let start = at;
        at += part.len();
        at += text[at..].chars().next().map_or(0, char::len_utf8);
        let left = part.len() - part.trim_start_matches(['\'', '’']).len();
        let part = part.trim_matches(['\'', '’']);
        (!part.is_empty()).then_some((start + left, part))
    })
}

/// `/api/orders`, `lib/a.ex`, `~/x`, `https://…`; not "and/or" or "client/server".
fn is_path(text: &str) -> bool {
    if !text.contains('/') || !text.contains(char::is_alphanumeric) {
        return false;
    }
    let last = text.rsplit('/').next().unwrap_or_default();
    ["/", "./", "../", "~/"].iter().any(|start| text.starts_with(start))
        || text.contains("://")
        || (last.contains('.') && !last.ends_with('.') && !text.contains('('))
        || text.matches('/').count() >= 2 && !text.contains('(')
}

/// A number in one spelling ("1,000" and "1_000.0" are "1000"), and the unit that is written onto it.
fn number(text: &str) -> Option<(String, Option<&str>)> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('$').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let end = digits.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ',' | '_')).unwrap_or(digits.len());
    let (value, unit) = digits.split_at(end);
    if !unit.is_empty() && !LEXICON.units.contains_key(unit.to_lowercase().as_str()) {
        return None;
    }
    let value = value.replace([',', '_'], "");
    if value.matches('.').count() > 1 {
        return None;
    }
    let value = if value.contains('.') { value.trim_end_matches('0').trim_end_matches('.') } else { &value };
    Some((format!("{sign}{value}"), (!unit.is_empty()).then_some(unit)))
}

/// `snake_case`, `camelCase`, `orders.created`, `std::fmt`, `utf8`, `v2`; not "APIs", "iOS's" or "e.g".
fn is_identifier(text: &str) -> bool {
    let allowed = text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '*' | '>' | '-'));
    if !allowed || !text.contains(char::is_alphanumeric) {
        return false;
    }
    let inner_dot = text
        .trim_matches('.')
        .split('.')
        .filter(|part| part.chars().count() > 1 || *part == "*" || *part == ">")
        .count()
        > 1;
    let humps = text.chars().zip(text.chars().skip(1)).filter(|(a, b)| a.is_lowercase() && b.is_uppercase()).count();
    let has_digit = text.contains(|c: char| c.is_ascii_digit()) && text.contains(char::is_alphabetic);
    text.contains('_') || text.contains("::") || inner_dot || humps > 0 || (has_digit && !text.contains('-'))
}

/// A unit of measure, in any spelling.
pub(super) fn is_unit(word: &str) -> bool {
    LEXICON.units.contains_key(word)
}

struct Lexicon {
    technologies: HashMap<&'static str, &'static str>,
    units: HashMap<&'static str, &'static str>,
    synonyms: HashMap<String, String>,
    /// By their first word, the longest first.
    phrases: HashMap<&'static str, Vec<(Vec<&'static str>, &'static str)>>,
    stemmer: Stemmer,
}

static LEXICON: LazyLock<Lexicon> = LazyLock::new(|| {
    let first = |rows: &[&'static [&'static str]]| {
        rows.iter().flat_map(|row| row.iter().map(|word| (*word, row[0]))).collect::<HashMap<_, _>>()
    };
    let mut lexicon = Lexicon {
        technologies: first(TECHNOLOGIES),
        units: first(UNITS),
        synonyms: HashMap::new(),
        phrases: HashMap::new(),
        stemmer: Stemmer::create(Algorithm::English),
    };
    let rows = SYNONYMS.iter().flat_map(|row| row.iter().map(|word| (lexicon.stem(word), lexicon.stem(row[0]))));
    lexicon.synonyms = rows.collect();
    for (phrase, instead) in PHRASES {
        let words: Vec<&str> = phrase.split(' ').collect();
        lexicon.phrases.entry(words[0]).or_default().push((words, *instead));
    }
    lexicon.phrases.values_mut().for_each(|rows| rows.sort_by_key(|(words, _)| Reverse(words.len())));
    lexicon
});

impl Lexicon {
    fn stem(&self, word: &str) -> String {
        // Stemming is for English words of a sensible length; everything else is compared as it is.
        if UNSTEMMED.contains(&word) || word.len() > 40 || !word.is_ascii() {
            return word.strip_suffix('s').filter(|one| UNSTEMMED.contains(one)).unwrap_or(word).to_owned();
        }
        let stem = self.stemmer.stem(word).into_owned();
        self.synonyms.get(&stem).cloned().unwrap_or(stem)
    }
}
