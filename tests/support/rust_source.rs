//! Rust source as far as imports need it: tokens without comments, texts and test code; paths with `use` lists spread.

/// One path that a file names, from the crate's root: `["bus", "Door"]`.
pub struct Import {
    pub line: usize,
    pub path: Vec<String>,
}

pub struct Source {
    tokens: Vec<Token>,
    /// Names of `#[cfg(test)] mod name;`.
    pub test_modules: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Token {
    line: usize,
    /// A word, `::`, or a single other character.
    text: String,
}

impl Source {
    pub fn read(text: &str) -> Self {
        let (tokens, test_modules) = without_tests(tokens(text));
        Self { tokens, test_modules }
    }

    /// What is named by way of `crate`, `$crate`, `tandem` and `super`, by a file that is the module `of`.
    pub fn imports(&self, of: &[String]) -> Vec<Import> {
        let mut found = vec![];
        let mut module = of.to_vec();
        // For each open brace, whether it opened a module.
        let mut braces: Vec<bool> = vec![];
        for (at, token) in self.tokens.iter().enumerate() {
            match token.text.as_str() {
                "{" => {
                    let named = at >= 2 && self.text(at - 2) == "mod";
                    if named {
                        module.push(self.text(at - 1).to_owned());
                    }
                    braces.push(named);
                }
                "}" if braces.pop() == Some(true) => _ = module.pop(),
                "crate" | "tandem" if self.begins_path(at) => {
                    for path in self.paths(at) {
                        found.push(Import { line: path.line, path: path.words[1..].to_vec() });
                    }
                }
                "super" if self.begins_path(at) => {
                    for path in self.paths(at) {
                        let up = path.words.iter().take_while(|word| *word == "super").count();
                        let mut whole = module[..module.len().saturating_sub(up)].to_vec();
                        whole.extend(path.words[up..].iter().cloned());
                        found.push(Import { line: path.line, path: whole });
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Where a path begins with `wanted` and with none of `exempt`: `std::env` is in `std::env::var` and in
    /// `use std::{env::var, fs}`.
    pub fn lines_naming(&self, wanted: &str, exempt: &[&str]) -> Vec<usize> {
        let first = wanted.split("::").next().unwrap_or(wanted);
        let starts = (0..self.tokens.len()).filter(|&at| self.text(at) == first && self.begins_path(at));
        let paths = starts.flat_map(|at| self.paths(at));
        let named = |path: &Path| path.begins_with(wanted) && !exempt.iter().any(|exempt| path.begins_with(exempt));
        paths.filter(named).map(|path| path.line).collect()
    }

    /// Where these tokens stand in a row: `.unwrap(`, `panic!`.
    pub fn lines_with(&self, row: &str) -> Vec<usize> {
        let row: Vec<String> = tokens(row).into_iter().map(|t| t.text).collect();
        let here = |window: &&[Token]| window.iter().zip(&row).all(|(token, text)| token.text == *text);
        self.tokens.windows(row.len()).filter(here).map(|window| window[0].line).collect()
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    /// Not the middle of another path, and a path at all: `pub(crate)` is none.
    fn begins_path(&self, at: usize) -> bool {
        let before = if at == 0 { "" } else { self.text(at - 1) };
        // `::sqlx::query` begins a path, `a::sqlx` does not.
        let inside = before == "::" && at >= 2 && is_word(self.text(at - 2)) && self.text(at - 2) != "use";
        !inside
            && before != "."
            && (self.text(at + 1) == "::" || matches!(before, "use" | "{" | ",") || self.text(at + 1) == "as")
    }

    /// The paths that begin here; a list in braces makes several.
    fn paths(&self, mut at: usize) -> Vec<Path> {
        let mut words = vec![];
        let line = self.tokens[at].line;
        loop {
            match self.text(at) {
                "{" => return self.spread(at, &words),
                word if is_word(word) || word == "*" => words.push(word.to_owned()),
                _ => break,
            }
            match self.text(at + 1) {
                "::" => at += 2,
                "as" => {
                    words.push("as".to_owned());
                    break;
                }
                _ => break,
            }
        }
        vec![Path { line, words }]
    }

    fn spread(&self, open: usize, before: &[String]) -> Vec<Path> {
        let mut found = vec![];
        let (mut at, mut depth, mut begins) = (open, 0, false);
        loop {
            match self.text(at) {
                "{" if depth == 0 => (depth, begins) = (1, true),
                "{" => depth += 1,
                "}" if depth == 1 => return found,
                "}" => depth -= 1,
                "," if depth == 1 => begins = true,
                "" => return found,
                _ => {
                    if begins && depth == 1 {
                        for path in self.paths(at) {
                            let words = before.iter().cloned().chain(path.words).collect();
                            found.push(Path { line: path.line, words });
                        }
                        begins = false;
                    }
                }
            }
            at += 1;
        }
    }
}

struct Path {
    line: usize,
    words: Vec<String>,
}

impl Path {
    fn begins_with(&self, path: &str) -> bool {
        let mut words = self.words.iter();
        path.split("::").all(|word| words.next().is_some_and(|own| own == word))
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Leaves out every item under `#[cfg(test)]`.
fn without_tests(tokens: Vec<Token>) -> (Vec<Token>, Vec<String>) {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut modules, mut at) = (vec![], vec![], 0);
    while at < tokens.len() {
        let marked = tokens[at..].len() >= MARK.len() && tokens[at..].iter().zip(MARK).all(|(t, m)| t.text == m);
        if !marked {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += MARK.len();
        // The item ends at its semicolon or with its braces. Other brackets are passed over: `[u8; 3]` ends nothing.
        let (mut braces, mut brackets) = (0, 0);
        let begins = at;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token.text.as_str() {
                "{" => braces += 1,
                "}" => braces -= 1,
                "(" | "[" => brackets += 1,
                ")" | "]" => brackets -= 1,
                _ => {}
            }
            let ended = match token.text.as_str() {
                ";" => braces == 0 && brackets == 0,
                // `use a::{b};` goes on to its semicolon.
                "}" => braces == 0 && tokens.get(at).is_none_or(|next| next.text != ";"),
                _ => false,
            };
            if ended {
                break;
            }
        }
        if let [first, name, end] = &tokens[begins..at]
            && first.text == "mod"
            && end.text == ";"
        {
            modules.push(name.text.clone());
        }
    }
    (kept, modules)
}

fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut found, mut at, mut line) = (vec![], 0, 1);
    let get = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        let begins = at;
        let c = chars[at];
        if c == '/' && get(at + 1) == '/' {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if c == '/' && get(at + 1) == '*' {
            at = after_block_comment(&chars, at);
        } else if let Some(end) = after_text(&chars, at) {
            at = end;
        } else if c == '_' || c.is_alphabetic() {
            while at < chars.len() && (chars[at] == '_' || chars[at].is_alphanumeric()) {
                at += 1;
            }
            found.push(Token { line, text: chars[begins..at].iter().collect() });
        } else if c == ':' && get(at + 1) == ':' {
            found.push(Token { line, text: "::".to_owned() });
            at += 2;
        } else {
            // `$crate` is `crate`: the dollar says nothing here.
            if !c.is_whitespace() && c != '$' {
                found.push(Token { line, text: c.to_string() });
            }
            at += 1;
        }
        line += chars[begins..at].iter().filter(|c| **c == '\n').count();
    }
    found
}

fn after_block_comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(chars.len())
}

/// The end of the text or character that begins here, if one does.
fn after_text(chars: &[char], at: usize) -> Option<usize> {
    let get = |at: usize| chars.get(at).copied().unwrap_or('\0');
    // Letters before the quote: b, c, r, br, cr.
    let mut quote = at;
    while quote < at + 2 && matches!(get(quote), 'b' | 'c' | 'r') {
        quote += 1;
    }
    let raw = quote > at && get(quote - 1) == 'r';
    if raw {
        let hashes = chars[quote..].iter().take_while(|c| **c == '#').count();
        let open = quote + hashes;
        if get(open) != '"' {
            return None;
        }
        let end = (open + 1..chars.len()).find(|&i| {
            chars[i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').take(hashes).count() == hashes
        });
        return Some(end.map_or(chars.len(), |i| i + 1 + hashes));
    }
    match get(quote) {
        '"' => {
            let mut i = quote + 1;
            while i < chars.len() && chars[i] != '"' {
                i += if chars[i] == '\\' { 2 } else { 1 };
            }
            Some((i + 1).min(chars.len()))
        }
        // A character ends with a quote; a lifetime does not.
        '\'' if get(quote + 1) == '\\' => {
            let end = (quote + 3..chars.len()).find(|&i| chars[i] == '\'');
            Some(end.map_or(chars.len(), |i| i + 1))
        }
        '\'' if get(quote + 2) == '\'' => Some(quote + 3),
        _ => None,
    }
}
