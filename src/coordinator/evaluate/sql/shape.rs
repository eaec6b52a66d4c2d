//! Whether a statement has the shape of one, in whatever dialect.
//!
//! The grammar refuses half of what PostgreSQL and SQLite take (`RETURNING` after an upsert, `FOR UPDATE SKIP LOCKED`,
//! `DO`, triggers, policies), so that its word alone can't be what an answer fails by. What is checked here holds in
//! every dialect: a known verb and object, brackets in pairs, commas, operators and clauses that are not left
//! dangling, no more than two names in a row.

use super::tokens::{Kind, Token, statements, tokens};
use super::words::{CLAUSES, MODIFIERS, OBJECTS, VERBS, is_keyword};

pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) what: String,
}

fn fault(token: &Token, what: impl Into<String>) -> Fault {
    Fault { at: token.at.start, what: what.into() }
}

/// The first thing wrong with a statement.
pub(super) fn check(statement: &[Token], text: &str) -> Result<(), Fault> {
    brackets(statement)?;
    head(statement)?;
    if let Some(body) = body(statement) {
        return routine(body, text, &language(statement));
    }
    if statement.iter().any(|token| token.is("BEGIN")) && statement[0].is("CREATE") {
        return blocks(statement).and_then(|()| steps(statement));
    }
    if is_free(statement) { Ok(()) } else { neighbours(statement).and_then(|()| cases(statement)) }
}

/// Definitions that are lists of options, each with words of its own.
fn is_free(statement: &[Token]) -> bool {
    let verb = statement.first().is_some_and(|t| matches!(t.word.as_str(), "CREATE" | "ALTER" | "DROP"));
    let object = statement.iter().skip(1).find(|t| !MODIFIERS.contains(t.word.as_str()));
    const PLAIN: &[&str] =
        &["TABLE", "VIEW", "MATERIALIZED", "INDEX", "TYPE", "DOMAIN", "SCHEMA", "SEQUENCE", "POLICY", "TRIGGER"];
    verb && object.is_some_and(|t| !PLAIN.contains(&t.word.as_str()))
}

/// The text of a routine: between dollar quotes.
pub(super) fn body(statement: &[Token]) -> Option<&Token> {
    let routine = matches!(statement.first().map(|t| t.word.as_str()), Some("CREATE" | "DO"));
    statement.iter().find(|token| routine && token.kind == Kind::Dollar)
}

/// Where the code in a dollar-quoted body stands.
pub(super) fn inside(body: &Token, text: &str) -> std::ops::Range<usize> {
    let quoted = text.get(body.at.clone()).unwrap_or_default();
    let tag = quoted.get(1..).and_then(|rest| rest.find('$')).map_or(0, |end| end + 2);
    let end = body.at.end.saturating_sub(tag).max(body.at.start + tag);
    if end <= text.len() && tag > 0 { body.at.start + tag..end } else { body.at.end..body.at.end }
}

fn language(statement: &[Token]) -> String {
    let name = statement.iter().position(|token| token.is("LANGUAGE")).and_then(|at| statement.get(at + 1));
    name.map_or_else(|| "PLPGSQL".to_owned(), |token| token.word.clone())
}

fn routine(body: &Token, text: &str, language: &str) -> Result<(), Fault> {
    let within = inside(body, text);
    let found = tokens(text, within.clone());
    if let Some(at) = found.unclosed {
        return Err(Fault { at, what: "unclosed quote or comment".to_owned() });
    }
    match language {
        "SQL" => statements(&found.tokens).into_iter().try_for_each(check_plain),
        "PLPGSQL" => {
            brackets(&found.tokens)?;
            if !found.tokens.iter().any(|token| token.is("BEGIN")) {
                return Err(Fault { at: within.start, what: "expected `BEGIN`".to_owned() });
            }
            blocks(&found.tokens)?;
            steps(&found.tokens)
        }
        _ => Ok(()),
    }
}

fn check_plain(statement: &[Token]) -> Result<(), Fault> {
    brackets(statement)?;
    head(statement)?;
    if is_free(statement) { Ok(()) } else { neighbours(statement) }
}

fn brackets(statement: &[Token]) -> Result<(), Fault> {
    let mut open: Vec<&Token> = Vec::new();
    for token in statement {
        match token.kind {
            Kind::Open => open.push(token),
            Kind::Close if open.pop().is_none() => return Err(fault(token, "unexpected `)`")),
            Kind::End if !open.is_empty() => break,
            _ => {}
        }
    }
    open.last().map_or(Ok(()), |token| Err(fault(token, "unclosed `(`")))
}

/// The verb, and what it acts on.
fn head(statement: &[Token]) -> Result<(), Fault> {
    let Some(first) = statement.first() else { return Ok(()) };
    if first.kind == Kind::Open {
        return Ok(());
    }
    let verb = first.word.as_str();
    if !VERBS.contains(verb) {
        return Err(fault(first, "unknown statement"));
    }
    let rest = &statement[1..];
    let next = rest.first();
    let wanted: &[&str] = match verb {
        "CREATE" | "DROP" | "ALTER" => {
            let object = rest.iter().find(|token| !MODIFIERS.contains(token.word.as_str()));
            let Some(object) = object.filter(|token| OBJECTS.contains(token.word.as_str())) else {
                return Err(fault(object.unwrap_or(first), format!("unknown object of `{verb}`")));
            };
            let named = rest.iter().any(|token| token.at.start > object.at.start);
            return if named { Ok(()) } else { Err(fault(object, "unfinished")) };
        }
        "INSERT" => &["INTO", "OR", "IGNORE", "OVERWRITE"],
        "DELETE" => &["FROM"],
        "MERGE" | "REPLACE" => &["INTO"],
        "TRUNCATE" | "LOCK" | "CALL" | "PRAGMA" | "UPDATE" | "GRANT" | "REVOKE" | "COPY" | "SET" | "VALUES"
        | "WITH" | "DO" | "SAVEPOINT" | "EXPLAIN" | "SELECT"
            if next.is_none() =>
        {
            return Err(fault(first, "unfinished"));
        }
        "WITH" => return with(rest, first),
        _ => return Ok(()),
    };
    match next {
        Some(token) if wanted.contains(&token.word.as_str()) => Ok(()),
        other => Err(fault(other.unwrap_or(first), format!("expected `{}` after `{verb}`", wanted[0]))),
    }
}

/// What a query is made of.
const QUERIES: &[&str] = &["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "WITH", "TABLE"];

fn is_query(token: Option<&Token>) -> bool {
    token.is_some_and(|t| t.kind == Kind::Open || t.kind == Kind::Word && QUERIES.contains(&t.word.as_str()))
}

/// `name (columns) AS MATERIALIZED (query), …` and then a query.
fn with(rest: &[Token], first: &Token) -> Result<(), Fault> {
    let mut at = usize::from(rest.first().is_some_and(|t| t.is("RECURSIVE")));
    loop {
        let Some(open) =
            (at..rest.len()).find(|i| rest[*i].kind == Kind::Open && rest[at..*i].iter().any(|t| t.is("AS")))
        else {
            return Err(fault(rest.get(at).unwrap_or(first), "expected `AS (`"));
        };
        if !is_query(rest.get(open + 1)) {
            return Err(fault(rest.get(open + 1).unwrap_or(&rest[open]), "expected a query"));
        }
        let mut depth = 0_i64;
        let close = (open..rest.len()).find(|i| {
            depth += i64::from(rest[*i].kind == Kind::Open) - i64::from(rest[*i].kind == Kind::Close);
            depth == 0
        });
        // What searches and cycles add is not looked at.
        let Some(close) = close else { return Ok(()) };
        match rest.get(close + 1) {
            Some(token) if token.kind == Kind::Comma => at = close + 2,
            Some(token) if token.is("SEARCH") || token.is("CYCLE") => return Ok(()),
            next if is_query(next) => return Ok(()),
            next => return Err(fault(next.unwrap_or(&rest[close]), "expected a query")),
        }
    }
}

/// What a step of a routine begins with, beside the verbs.
const STEPS: &[&str] = &[
    "ASSERT",
    "ATOMIC",
    "CASE",
    "CATCH",
    "CONTINUE",
    "DECLARE",
    "ELSE",
    "ELSEIF",
    "ELSIF",
    "EXCEPTION",
    "EXEC",
    "EXIT",
    "FOR",
    "FOREACH",
    "GET",
    "IF",
    "ITERATE",
    "LEAVE",
    "LOOP",
    "MOVE",
    "NULL",
    "OPEN",
    "PERFORM",
    "PRINT",
    "RAISE",
    "REPEAT",
    "RESIGNAL",
    "RETURN",
    "SIGNAL",
    "THROW",
    "TRAN",
    "TRY",
    "WHEN",
    "WHILE",
];

/// The steps within `BEGIN … END`: each begins with a verb, a word of the procedural language or an assignment, and
/// what is a query has the shape of one.
fn steps(body: &[Token]) -> Result<(), Fault> {
    let Some(begin) = body.iter().position(|token| token.is("BEGIN")) else { return Ok(()) };
    let mut declaring = false;
    for at in begin + 1..body.len() {
        let (previous, token) = (&body[at - 1], &body[at]);
        declaring = token.is("DECLARE") || declaring && !token.is("BEGIN");
        if declaring || !(previous.kind == Kind::End || previous.is("BEGIN") || previous.is("LOOP") && !token.is("IF"))
        {
            continue;
        }
        if token.kind != Kind::Word || at >= 2 && body[at - 2].is("END") && previous.is("LOOP") {
            continue;
        }
        let word = token.word.as_str();
        let assigned = body.get(at + 1).is_some_and(|next| !matches!(next.kind, Kind::Word | Kind::Operand));
        if !VERBS.contains(word) && !STEPS.contains(&word) && !assigned {
            return Err(fault(token, "unknown statement"));
        }
        if matches!(word, "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "WITH" | "PERFORM") {
            let end = body[at..].iter().position(|t| t.kind == Kind::End).map_or(body.len(), |length| at + length);
            let statement = &body[at..end];
            neighbours(statement).and_then(|()| if word == "PERFORM" { Ok(()) } else { head(statement) })?;
        }
    }
    Ok(())
}

/// Which word must come after one of these.
fn followed_by(word: &str) -> &'static [&'static str] {
    match word {
        "GROUP" | "ORDER" => &["BY"],
        "PRIMARY" => &["KEY"],
        "OUTER" => &["JOIN", "APPLY"],
        "INNER" => &["JOIN"],
        "CROSS" => &["JOIN", "APPLY"],
        _ => &[],
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Before {
    /// An operand may follow and is not needed.
    Free,
    /// Something is needed.
    Needs,
    /// So many operands in a row.
    Operands(u8),
}

fn neighbours(statement: &[Token]) -> Result<(), Fault> {
    let mut before = Before::Free;
    // What stood before each open bracket: after a name a group is its arguments.
    let mut groups: Vec<Before> = Vec::new();
    for (i, token) in statement.iter().enumerate() {
        let (previous, next) = (i.checked_sub(1).and_then(|i| statement.get(i)), statement.get(i + 1));
        let name = previous.is_some_and(|p| p.kind == Kind::Dot);
        let word = if name { "" } else { token.word.as_str() };
        let clause = CLAUSES.contains(word) && !is_exception(word, previous, next);
        if before == Before::Needs && (clause || matches!(token.kind, Kind::Close | Kind::Comma | Kind::End)) {
            return Err(fault(token, "unexpected"));
        }
        let wanted = followed_by(word);
        if !wanted.is_empty()
            && !previous.is_some_and(|p| p.is("WITHIN") || p.is("ON") || p.is("TO"))
            && !next.is_some_and(|n| wanted.contains(&n.word.as_str()))
        {
            return Err(fault(token, format!("expected `{}` after `{word}`", wanted[0])));
        }
        before = match token.kind {
            Kind::Comma | Kind::Dot => Before::Needs,
            Kind::End => Before::Free,
            // `*` is all columns, or times; `?` a parameter, or JSON's question; `EXCLUDE (a WITH =)` names an operator.
            Kind::Operator if token.word == "*" && !matches!(before, Before::Operands(_)) => Before::Operands(1),
            Kind::Operator if previous.is_some_and(|p| p.is("WITH")) => Before::Operands(1),
            Kind::Operator => Before::Needs,
            Kind::Operand if token.word == "?" && matches!(before, Before::Operands(_)) => Before::Needs,
            Kind::Open => {
                groups.push(before);
                Before::Free
            }
            Kind::Close => match groups.pop() {
                Some(Before::Operands(count)) => Before::Operands(count),
                _ => Before::Operands(1),
            },
            Kind::Word if clause && wanted.is_empty() => Before::Needs,
            Kind::Word if !name && is_keyword(word) => Before::Free,
            Kind::Word | Kind::Operand | Kind::Dollar => match before {
                Before::Operands(2) => return Err(fault(token, "unexpected")),
                Before::Operands(count) if !name => Before::Operands(count + 1),
                _ => Before::Operands(1),
            },
        };
    }
    match (before, statement.last()) {
        (Before::Needs, Some(last)) => Err(fault(last, "unfinished")),
        _ => Ok(()),
    }
}

/// Where a word of a clause asks for nothing: `DEFAULT VALUES`, `FOR VALUES FROM`, `SELECT FROM`.
fn is_exception(word: &str, previous: Option<&Token>, next: Option<&Token>) -> bool {
    let after = |words: &[&str]| previous.is_some_and(|p| words.contains(&p.word.as_str()));
    match word {
        "VALUES" => after(&["DEFAULT", "FOR"]) || next.is_some_and(|n| matches!(n.kind, Kind::Open | Kind::Close)),
        "FROM" => after(&["VALUES", "SELECT"]),
        "GROUP" => after(&["WITHIN"]),
        _ => false,
    }
}

/// Each `CASE` has its `END`.
fn cases(statement: &[Token]) -> Result<(), Fault> {
    let mut open: Vec<&Token> = Vec::new();
    for token in statement {
        match token.word.as_str() {
            "CASE" => open.push(token),
            "END" => drop(open.pop()),
            _ => {}
        }
    }
    open.last().map_or(Ok(()), |token| Err(fault(token, "`CASE` without `END`")))
}

/// Blocks of procedural SQL: `BEGIN … END`, `IF … END IF`, `LOOP … END LOOP`, `CASE … END`.
fn blocks(body: &[Token]) -> Result<(), Fault> {
    let mut open: Vec<&Token> = Vec::new();
    for (i, token) in body.iter().enumerate() {
        let previous = i.checked_sub(1).and_then(|i| body.get(i));
        let after_end = previous.is_some_and(|p| p.is("END"));
        match token.word.as_str() {
            "BEGIN" | "LOOP" | "CASE" if !after_end => open.push(token),
            "IF" if starts(previous) => open.push(token),
            "END" if open.pop().is_none() => return Err(fault(token, "unexpected `END`")),
            _ => {}
        }
    }
    open.last().map_or(Ok(()), |token| Err(fault(token, format!("`{}` without `END`", token.word))))
}

/// An `IF` at the start of a statement is a branch; one after `TABLE` is not.
pub(super) fn starts(previous: Option<&Token>) -> bool {
    previous.is_some_and(|p| p.kind == Kind::End || matches!(p.word.as_str(), "BEGIN" | "THEN" | "ELSE" | "LOOP"))
}
