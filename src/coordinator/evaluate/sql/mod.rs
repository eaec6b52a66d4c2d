//! Reading SQL by its words, with the grammar as the judge of what it knows well.

mod shape;
mod tokens;
mod words;

use tree_sitter::Point;

use self::shape::{Fault, starts};
use self::tokens::{Kind, Token, Tokens, statements, tokens};
use super::code::Counts;
use super::grammar::{self, Grammar};
use super::rules::{Body, is_placeholder};

/// Counts, and the first thing wrong.
pub(super) fn read(text: &str) -> (Counts, Option<(Point, String)>) {
    let found = tokens(text, 0..text.len());
    let parts = statements(&found.tokens);
    let counts = count(text, &found, &parts);
    let unclosed = found.unclosed.map(|at| Fault { at, what: "unclosed quote or comment".to_owned() });
    let fault = unclosed
        .or_else(|| parts.iter().find_map(|statement| shape::check(statement, text).err()))
        .map(|fault| (point(text, fault.at), fault.what))
        .or_else(|| grammar_fault(text, &parts));
    (counts, fault)
}

/// Words of queries and changes that the grammar takes in every combination that databases take.
const CORE: &[&str] = &[
    "ALL", "AND", "AS", "ASC", "BETWEEN", "BY", "CASE", "DELETE", "DESC", "DISTINCT", "ELSE", "END", "EXISTS", "FALSE",
    "FROM", "GROUP", "HAVING", "IN", "INNER", "INSERT", "INTO", "IS", "JOIN", "LEFT", "LIKE", "LIMIT", "NOT", "NULL",
    "OFFSET", "ON", "OR", "ORDER", "OUTER", "SELECT", "SET", "THEN", "TRUE", "UNION", "UPDATE", "VALUES", "WHEN",
    "WHERE",
];

/// Parses the statements that hold nothing but core SQL; the rest is blanked, so that positions stay. Dollar quotes
/// never reach the grammar: its scanner loses memory at each token within them.
fn grammar_fault(text: &str, parts: &[&[Token]]) -> Option<(Point, String)> {
    let mut kept = vec![b' '; text.len()];
    for (at, byte) in text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n') {
        kept[at] = byte;
    }
    let mut any = false;
    for statement in parts.iter().filter(|statement| is_core(statement, text)) {
        let (Some(first), Some(last)) = (statement.first(), statement.last()) else { continue };
        any = true;
        kept[first.at.start..last.at.end].copy_from_slice(&text.as_bytes()[first.at.start..last.at.end]);
        if let Some(end) = kept.get_mut(last.at.end) {
            *end = b';';
        }
    }
    let kept = String::from_utf8(kept).ok().filter(|_| any)?;
    grammar::first_error(&Grammar::Sql.parse(&kept)?)
}

fn is_core(statement: &[Token], text: &str) -> bool {
    let query = statement.first().is_some_and(|t| matches!(t.word.as_str(), "SELECT" | "INSERT" | "UPDATE" | "DELETE"));
    query
        && statement.iter().all(|token| match token.kind {
            Kind::Word => !is_reserved_elsewhere(&token.word),
            Kind::Operand => !text[token.at.clone()].starts_with(['$', ':', '@', '?', '`', 'E', 'e', 'B', 'X', 'N']),
            Kind::Operator => {
                matches!(&text[token.at.clone()], "=" | "<" | ">" | "<=" | ">=" | "<>" | "*" | "+" | "-" | "/")
            }
            Kind::Dollar => false,
            Kind::Open => &text[token.at.clone()] == "(",
            _ => true,
        })
}

fn is_reserved_elsewhere(word: &str) -> bool {
    !CORE.contains(&word) && words::is_keyword(word)
}

fn point(text: &str, at: usize) -> Point {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Point { row: before.matches('\n').count(), column: before.len() - start }
}

fn count(text: &str, found: &Tokens, parts: &[&[Token]]) -> Counts {
    let mut counts = Counts { lines: lines(text, &found.tokens), ..Counts::default() };
    for comment in &found.comments {
        if is_placeholder(text.get(comment.clone()).unwrap_or_default()) {
            counts.hollow += 0.5;
        }
    }
    let (mut begun, mut ended) = (0_usize, 0_usize);
    for statement in parts {
        let verb = statement.first().map_or("", |t| t.word.as_str());
        let next = statement.get(1).map_or("", |t| t.word.as_str());
        words(statement, text, &mut counts);
        match (verb, next) {
            ("BEGIN", _) | ("START", "TRANSACTION") => begun += 1,
            ("COMMIT" | "END" | "ROLLBACK" | "ABORT", next) if next != "TO" => ended += 1,
            ("SELECT" | "WITH" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "CREATE" | "DO" | "REPLACE", _) => {
                counts.function(worth(statement, text), 1.0);
                counts.longest = counts.longest.max(lines(text, statement));
            }
            ("ALTER" | "DROP" | "GRANT" | "REVOKE" | "COMMENT" | "CALL" | "REFRESH" | "TRUNCATE", _) => {
                counts.types += 1.0
            }
            _ => counts.statements += 1,
        }
        if let Some(body) = shape::body(statement) {
            let inner = tokens(text, shape::inside(body, text));
            words(&inner.tokens, text, &mut counts);
            for comment in inner.comments {
                if is_placeholder(text.get(comment).unwrap_or_default()) {
                    counts.hollow += 0.5;
                }
            }
        }
    }
    counts.handled += begun.min(ended) as f64;
    counts.swallowed += begun.saturating_sub(ended) as f64;
    counts
}

/// Lines that the tokens stand on.
fn lines(text: &str, tokens: &[Token]) -> usize {
    let mut count = 0;
    let mut end = 0;
    let mut started = false;
    for token in tokens {
        let gap = text.get(end..token.at.start).unwrap_or_default();
        count += usize::from(!started || gap.contains('\n'));
        count += text.get(token.at.clone()).unwrap_or_default().matches('\n').count();
        started = true;
        end = token.at.end;
    }
    count
}

/// What SQL has against wrong data and failures: constraints, upserts, guards, exceptions.
fn words(tokens: &[Token], text: &str, counts: &mut Counts) {
    for (i, token) in tokens.iter().enumerate() {
        let next = tokens.get(i + 1).map_or("", |t| t.word.as_str());
        let previous = i.checked_sub(1).and_then(|i| tokens.get(i));
        match (token.word.as_str(), next) {
            ("RAISE", _) if raises_placeholder(&tokens[i..], text) => counts.hollow += 0.5,
            ("NOT", "NULL") if !previous.is_some_and(|p| p.is("IS")) => counts.handled += 0.25,
            ("PRIMARY", "KEY") | ("REFERENCES" | "CHECK" | "UNIQUE", _) | ("IF", "EXISTS") => counts.handled += 0.5,
            ("COALESCE" | "NULLIF", _) => counts.handled += 0.25,
            ("ON", "CONFLICT" | "DUPLICATE") | ("EXCEPTION" | "RAISE" | "ROLLBACK" | "SAVEPOINT", _) => {
                counts.handled += 1.0
            }
            _ => {}
        }
        if token.is("IF") && next == "NOT" && !starts(previous) {
            counts.handled += 0.5;
        }
        match token.word.as_str() {
            "WHEN" | "ELSIF" | "ELSEIF" => counts.decisions += 1,
            "IF" if starts(previous) => counts.decisions += 1,
            "LOOP" if !previous.is_some_and(|p| p.is("END")) => counts.decisions += 1,
            _ => {}
        }
        // `EXCEPTION WHEN others THEN NULL`.
        if token.is("OTHERS") && next == "THEN" && tokens.get(i + 2).is_some_and(|t| t.is("NULL")) {
            counts.swallowed += 1.0;
        }
    }
}

/// Whether a statement does anything: a table has columns, a routine a body.
fn worth(statement: &[Token], text: &str) -> Body {
    if let Some(body) = shape::body(statement) {
        let inner = tokens(text, shape::inside(body, text));
        return done(&inner.tokens, text);
    }
    let routine = statement.iter().take(6).any(|t| matches!(t.word.as_str(), "TRIGGER" | "FUNCTION" | "PROCEDURE"));
    if let Some(begin) = statement.iter().position(|t| t.is("BEGIN")).filter(|_| routine) {
        return done(&statement[begin..], text);
    }
    let empty = statement.windows(2).any(|pair| pair[0].kind == Kind::Open && pair[1].kind == Kind::Close);
    let table = statement.first().is_some_and(|t| t.is("CREATE")) && statement.iter().take(4).any(|t| t.is("TABLE"));
    if table && empty && statement.iter().filter(|t| t.kind == Kind::Open).count() == 1 {
        return Body::Hollow;
    }
    if statement.len() <= 2 { Body::Trivial } else { Body::Solid }
}

/// `RAISE EXCEPTION 'not implemented'`: the tokens begin with the `RAISE`.
fn raises_placeholder(tokens: &[Token], text: &str) -> bool {
    let step = tokens.iter().take_while(|token| token.kind != Kind::End);
    step.filter(|token| token.kind == Kind::Operand).any(|t| is_placeholder(text.get(t.at.clone()).unwrap_or_default()))
}

/// A body without its frame: `BEGIN NULL; END;` does nothing.
fn done(body: &[Token], text: &str) -> Body {
    let begin = body.iter().position(|t| t.is("BEGIN")).map_or(0, |at| at + 1);
    if body.get(begin).is_some_and(|t| t.is("RAISE")) && raises_placeholder(&body[begin..], text) {
        return Body::Hollow;
    }
    let mut acts =
        body[begin..].iter().filter(|t| t.kind == Kind::Word && !matches!(t.word.as_str(), "END" | "NULL" | "SELECT"));
    match (acts.next(), acts.next()) {
        (None, _) => Body::Hollow,
        (Some(only), None) if only.is("RETURN") => Body::Trivial,
        _ => Body::Solid,
    }
}
