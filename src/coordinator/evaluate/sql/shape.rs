//! Whether a statement has the shape of one, in whatever dialect.
//!
//! The grammar refuses half of what PostgreSQL and SQLite take (`RETURNING` after an upsert, `FOR UPDATE SKIP LOCKED`,
//! `DO`, triggers, policies), so that its word alone can't be what an answer fails by. What is checked here holds in
//! every dialect: a known verb and object, brackets in pairs, commas, operators and clauses that are not left
//! dangling, no more than two names in a row.

use super::tokens::{Kind, Token, statements, tokens};

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
        return blocks(statement);
    }
    neighbours(statement)?;
    cases(statement)
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
        "SQL" => statements(&found.tokens).into_iter().try_for_each(|inner| check_plain(inner)),
        "PLPGSQL" => {
            brackets(&found.tokens)?;
            if !found.tokens.iter().any(|token| token.is("BEGIN")) {
                return Err(Fault { at: within.start, what: "expected `BEGIN`".to_owned() });
            }
            blocks(&found.tokens)
        }
        _ => Ok(()),
    }
}

fn check_plain(statement: &[Token]) -> Result<(), Fault> {
    brackets(statement)?;
    head(statement)?;
    neighbours(statement)
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

const VERBS: &[&str] = &[
    "ABORT",
    "ALTER",
    "ANALYZE",
    "ATTACH",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "CLOSE",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DELIMITER",
    "DETACH",
    "DISCARD",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "GRANT",
    "IMPORT",
    "INSERT",
    "LISTEN",
    "LOCK",
    "MERGE",
    "NOTIFY",
    "PRAGMA",
    "PREPARE",
    "REASSIGN",
    "REFRESH",
    "REINDEX",
    "RELEASE",
    "REPLACE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SECURITY",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "TABLE",
    "TRUNCATE",
    "UNLISTEN",
    "UPDATE",
    "USE",
    "VACUUM",
    "VALUES",
    "WITH",
];

const OBJECTS: &[&str] = &[
    "ACCESS",
    "AGGREGATE",
    "CAST",
    "COLLATION",
    "CONVERSION",
    "DATABASE",
    "DEFAULT",
    "DOMAIN",
    "EVENT",
    "EXTENSION",
    "FOREIGN",
    "FUNCTION",
    "GROUP",
    "INDEX",
    "LANGUAGE",
    "LARGE",
    "MATERIALIZED",
    "OPERATOR",
    "OWNED",
    "POLICY",
    "PROCEDURE",
    "PUBLICATION",
    "ROLE",
    "ROUTINE",
    "RULE",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "SUBSCRIPTION",
    "SYSTEM",
    "TABLE",
    "TABLESPACE",
    "TEXT",
    "TRANSFORM",
    "TRIGGER",
    "TYPE",
    "USER",
    "VIEW",
];

const MODIFIERS: &[&str] = &[
    "OR",
    "REPLACE",
    "TEMP",
    "TEMPORARY",
    "GLOBAL",
    "LOCAL",
    "UNLOGGED",
    "UNIQUE",
    "VIRTUAL",
    "RECURSIVE",
    "CONSTRAINT",
    "TRUSTED",
    "PROCEDURAL",
    "CLUSTERED",
    "NONCLUSTERED",
    "FULLTEXT",
];

/// The verb, and what it acts on.
fn head(statement: &[Token]) -> Result<(), Fault> {
    let Some(first) = statement.first() else { return Ok(()) };
    if first.kind == Kind::Open {
        return Ok(());
    }
    let verb = first.word.as_str();
    if !VERBS.contains(&verb) {
        return Err(fault(first, "unknown statement"));
    }
    let rest = &statement[1..];
    let next = rest.first();
    let wanted: &[&str] = match verb {
        "CREATE" | "DROP" | "ALTER" => {
            let object = rest.iter().find(|token| !MODIFIERS.contains(&token.word.as_str()));
            let Some(object) = object.filter(|token| OBJECTS.contains(&token.word.as_str())) else {
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
        _ => return Ok(()),
    };
    match next {
        Some(token) if wanted.contains(&token.word.as_str()) => Ok(()),
        other => Err(fault(other.unwrap_or(first), format!("expected `{}` after `{verb}`", wanted[0]))),
    }
}

/// Words that ask for something after them, and can't be what a comma, an operator or one another asks for.
const CLAUSES: &[&str] = &[
    "FROM",
    "WHERE",
    "GROUP",
    "ORDER",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "VALUES",
    "JOIN",
    "AND",
    "OR",
    "THEN",
    "ELSE",
    "WHEN",
    "AS",
    "BY",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "RETURNING",
    "INTO",
    "SET",
    "USING",
    "LIKE",
    "ILIKE",
    "BETWEEN",
    "IN",
    "REFERENCES",
];

/// Further words that are no names: types of several words, constraints, modifiers, verbs.
const OTHERS: &[&str] = &[
    "ACCESS",
    "ACTION",
    "ADD",
    "AFTER",
    "ALL",
    "ALTER",
    "ALWAYS",
    "ANALYZE",
    "ANY",
    "ARRAY",
    "ASC",
    "AT",
    "ATOMIC",
    "AUTHORIZATION",
    "AUTOINCREMENT",
    "AUTO_INCREMENT",
    "BEFORE",
    "BEGIN",
    "BUFFERS",
    "CASCADE",
    "CASE",
    "CHECK",
    "COLLATE",
    "COLUMN",
    "COMMENT",
    "COMMIT",
    "COMMITTED",
    "CONCURRENTLY",
    "CONFLICT",
    "CONSTRAINT",
    "CREATE",
    "CROSS",
    "CURRENT",
    "CYCLE",
    "DATA",
    "DATE",
    "DEFAULT",
    "DEFERRABLE",
    "DEFERRED",
    "DEFINER",
    "DELETE",
    "DESC",
    "DISABLE",
    "DISTINCT",
    "DO",
    "DOUBLE",
    "DROP",
    "EACH",
    "ENABLE",
    "END",
    "ENUM",
    "ESCAPE",
    "EXCLUDE",
    "EXCLUSIVE",
    "EXECUTE",
    "EXISTS",
    "FALSE",
    "FETCH",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FOR",
    "FORCE",
    "FOREIGN",
    "FULL",
    "FUNCTION",
    "GENERATED",
    "GROUPING",
    "IDENTITY",
    "IF",
    "IGNORE",
    "IMMEDIATE",
    "IMMUTABLE",
    "INCLUDE",
    "INCREMENT",
    "INHERITS",
    "INITIALLY",
    "INNER",
    "INSERT",
    "INSTEAD",
    "INTERVAL",
    "INVOKER",
    "IS",
    "ISNULL",
    "ISOLATION",
    "KEY",
    "LANGUAGE",
    "LAST",
    "LATERAL",
    "LEFT",
    "LEVEL",
    "LOCKED",
    "LOGIN",
    "MATCHED",
    "MATERIALIZED",
    "MAXVALUE",
    "MINVALUE",
    "MODE",
    "NATURAL",
    "NO",
    "NOT",
    "NOTHING",
    "NOTNULL",
    "NOWAIT",
    "NULL",
    "NULLS",
    "OF",
    "OFF",
    "ON",
    "ONLY",
    "OUTER",
    "OVER",
    "OVERLAPS",
    "OVERRIDING",
    "OWNER",
    "PARALLEL",
    "PARTITION",
    "PASSWORD",
    "PRECEDING",
    "PRECISION",
    "PRIMARY",
    "PRIVILEGES",
    "PROCEDURE",
    "PUBLIC",
    "RANGE",
    "READ",
    "RECURSIVE",
    "RENAME",
    "REPEATABLE",
    "REPLACE",
    "RESTART",
    "RESTRICT",
    "RETURN",
    "RETURNS",
    "RIGHT",
    "ROLLUP",
    "ROW",
    "ROWS",
    "SAFE",
    "SCHEMA",
    "SECURITY",
    "SELECT",
    "SEQUENCE",
    "SERIALIZABLE",
    "SETS",
    "SHARE",
    "SIMILAR",
    "SKIP",
    "SOME",
    "STABLE",
    "START",
    "STORED",
    "STRICT",
    "TABLE",
    "TABLES",
    "TABLESAMPLE",
    "TEMP",
    "TEMPORARY",
    "TIES",
    "TIME",
    "TIMESTAMP",
    "TO",
    "TRANSACTION",
    "TRIGGER",
    "TRUE",
    "TYPE",
    "UNBOUNDED",
    "UNIQUE",
    "UNLOGGED",
    "UNSIGNED",
    "UPDATE",
    "VALID",
    "VALIDATE",
    "VARYING",
    "VIEW",
    "VIRTUAL",
    "VOLATILE",
    "WINDOW",
    "WITH",
    "WITHIN",
    "WITHOUT",
    "WRITE",
    "ZONE",
];

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

pub(super) fn is_keyword(word: &str) -> bool {
    CLAUSES.contains(&word) || OTHERS.contains(&word)
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
        let clause = CLAUSES.contains(&word) && !is_exception(word, previous, next);
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
            Kind::Word if clause => Before::Needs,
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
        "VALUES" => after(&["DEFAULT", "FOR"]) || next.is_some_and(|n| n.kind == Kind::Open),
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
