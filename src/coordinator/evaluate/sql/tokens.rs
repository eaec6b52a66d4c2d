//! SQL cut into tokens and statements. Knows what every dialect shares: quotes, dollar quotes, comments, brackets.

use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word without quotes: keyword or name.
    Word,
    /// A number, string, quoted name or parameter.
    Operand,
    /// A string between dollar quotes.
    Dollar,
    Operator,
    Open,
    Close,
    Comma,
    Dot,
    End,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: Range<usize>,
    /// The word in capitals; `*` and `?` where they stand alone; else empty.
    pub(super) word: String,
}

impl Token {
    pub(super) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.word == word
    }
}

#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) tokens: Vec<Token>,
    pub(super) comments: Vec<Range<usize>>,
    /// Where a quote or comment opens that nothing closes.
    pub(super) unclosed: Option<usize>,
}

/// Cuts `text[within]` into tokens; positions are those in `text`.
pub(super) fn tokens(text: &str, within: Range<usize>) -> Tokens {
    let bytes = &text.as_bytes()[..within.end];
    let mut found = Tokens::default();
    let mut at = within.start;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (kind, length) = match rest[0] {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'-' if rest.starts_with(b"--") => {
                let end = at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                found.comments.push(at..end);
                at = end;
                continue;
            }
            // MySQL's comments; elsewhere `#` stands between operands.
            b'#' if rest.starts_with(b"# ") && (at == 0 || bytes[at - 1] == b'\n') => {
                let end = at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                found.comments.push(at..end);
                at = end;
                continue;
            }
            b'/' if rest.starts_with(b"/*") => {
                let end = find(rest, 2, b"*/").map(|end| at + end + 2);
                if end.is_none() {
                    found.unclosed.get_or_insert(at);
                }
                found.comments.push(at..end.unwrap_or(bytes.len()));
                at = end.unwrap_or(bytes.len());
                continue;
            }
            // A command of psql takes its line.
            b'\\' if at == 0 || bytes[at - 1] == b'\n' => {
                at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                continue;
            }
            quote @ (b'\'' | b'"' | b'`') => (Kind::Operand, quoted(rest, quote, false)),
            b'E' | b'e' if rest.get(1) == Some(&b'\'') => {
                (Kind::Operand, quoted(&rest[1..], b'\'', true).map(|n| n + 1))
            }
            b'B' | b'b' | b'X' | b'x' | b'N' | b'n' if rest.get(1) == Some(&b'\'') => {
                (Kind::Operand, quoted(&rest[1..], b'\'', false).map(|n| n + 1))
            }
            b'$' => match dollar_tag(rest) {
                Some(tag) => (Kind::Dollar, find(rest, tag, &rest[..tag]).map(|end| end + tag)),
                None => (Kind::Operand, Some(1 + word_length(&rest[1..]))),
            },
            b'0'..=b'9' => (Kind::Operand, Some(number_length(rest))),
            b'.' if rest.get(1).is_some_and(u8::is_ascii_digit) => (Kind::Operand, Some(number_length(rest))),
            b'.' => (Kind::Dot, Some(1)),
            b'(' | b'[' => (Kind::Open, Some(1)),
            b')' | b']' => (Kind::Close, Some(1)),
            b',' => (Kind::Comma, Some(1)),
            b';' => (Kind::End, Some(1)),
            b':' if rest.starts_with(b"::") => (Kind::Operator, Some(2)),
            b':' | b'@' | b'?' if rest.get(1).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_') => {
                (Kind::Operand, Some(1 + word_length(&rest[1..])))
            }
            b'?' if !rest.get(1).is_some_and(|b| is_operator(*b)) => (Kind::Operand, Some(1)),
            byte if is_operator(byte) => (Kind::Operator, Some(operator_length(rest))),
            byte if is_word(byte) => (Kind::Word, Some(word_length(rest))),
            _ => (Kind::Operator, Some(1)),
        };
        if length.is_none() {
            found.unclosed.get_or_insert(at);
        }
        let end = at + length.unwrap_or(rest.len());
        let named = kind == Kind::Word || matches!(&text[at..end], "*" | "?");
        let word = if named { text[at..end].to_ascii_uppercase() } else { String::new() };
        found.tokens.push(Token { kind, at: at..end, word });
        at = end;
    }
    found
}

/// Cuts tokens into statements at `;`, those within the body of a trigger or routine left alone.
pub(super) fn statements(tokens: &[Token]) -> Vec<&[Token]> {
    let mut found = Vec::new();
    let (mut start, mut blocks) = (0, 0_usize);
    for (i, token) in tokens.iter().enumerate() {
        let routine = tokens[start].is("CREATE")
            && tokens[start..].iter().take(6).any(|t| matches!(t.word.as_str(), "TRIGGER" | "FUNCTION" | "PROCEDURE"));
        match token.word.as_str() {
            "BEGIN" | "CASE" if routine => blocks += 1,
            "END" if routine => blocks = blocks.saturating_sub(1),
            _ => {}
        }
        if token.kind == Kind::End && blocks == 0 {
            if start < i {
                found.push(&tokens[start..i]);
            }
            start = i + 1;
        }
        if start >= tokens.len() {
            break;
        }
    }
    if start < tokens.len() {
        found.push(&tokens[start..]);
    }
    found
}

fn quoted(rest: &[u8], quote: u8, escapes: bool) -> Option<usize> {
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        if escapes && *byte == b'\\' {
            at += 2;
        } else if *byte != quote {
            at += 1;
        } else if rest.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return Some(at + 1);
        }
    }
    None
}

/// Length of `$tag$`, if one stands here.
fn dollar_tag(rest: &[u8]) -> Option<usize> {
    let name = rest[1..].iter().take(64).take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    let tag = rest.get(1 + name) == Some(&b'$') && !rest[1].is_ascii_digit();
    tag.then_some(name + 2)
}

fn find(rest: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    rest.get(from..)?.windows(what.len()).position(|window| window == what).map(|at| at + from)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || !byte.is_ascii()
}

fn word_length(rest: &[u8]) -> usize {
    rest.iter().take_while(|b| is_word(**b)).count()
}

fn number_length(rest: &[u8]) -> usize {
    rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'.').count()
}

fn is_operator(byte: u8) -> bool {
    b"+-*/<>=~!@#%^&|?:".contains(&byte)
}

/// `a=-1` is two operators; a comment begins none.
fn operator_length(rest: &[u8]) -> usize {
    let mut length = 1;
    while let Some(byte) = rest.get(length).copied().filter(|b| is_operator(*b)) {
        let comment = rest[length..].starts_with(b"--") || rest[length..].starts_with(b"/*");
        if comment || byte == b'-' && rest[0] != b'-' || byte == b'*' || rest[0] == b'*' || byte == b'?' || byte == b':'
        {
            break;
        }
        length += 1;
    }
    // The arrows of JSON: `->`, `->>`, `#>`, `#>>`.
    length
}
