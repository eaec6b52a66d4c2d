//! Reading prose: its grade, and whether a text is prose at all.

use super::code::Counts;
use super::markdown::Block;

/// Quality of a text in words: base 0.5; 0.2 for structure, 0.2 for length, 0.1 where it ends like a finished text.
pub(super) fn quality(text: &str, blocks: &[Block<'_>]) -> f64 {
    let outside = outside(text, blocks);
    let words =
        outside.iter().flat_map(|part| part.split_whitespace()).filter(|w| w.contains(char::is_alphanumeric)).count();
    if words == 0 && blocks.is_empty() {
        return 0.0;
    }
    0.5 + 0.2 * structure(&outside, words, !blocks.is_empty()) + 0.2 * length(words) + 0.1 * finished(text, blocks)
}

/// Share of the lines that read like sentences or parts of them: words with spaces between, little else.
pub(super) fn share(text: &str) -> f64 {
    let (mut lines, mut prose) = (0_usize, 0_usize);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        lines += 1;
        prose += usize::from(is_prose(line));
    }
    if lines == 0 { 0.0 } else { prose as f64 / lines as f64 }
}

fn is_prose(line: &str) -> bool {
    let listed = line
        .trim_start_matches(['-', '*', '>', '#', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '.', ')', '|', ' ']);
    let (mut words, mut other) = (0_usize, 0_usize);
    for word in listed.split_whitespace() {
        // What is in backticks is code quoted in prose.
        let quoted = word.contains('`');
        let bare =
            word.trim_matches(|c: char| matches!(c, '.' | ',' | ':' | '?' | '!' | '"' | '\'' | '*' | '_' | '“' | '”'));
        let bare = bare.trim_start_matches('(').trim_end_matches(')');
        let plain = bare.chars().all(|c| c.is_alphabetic() || matches!(c, '\'' | '’' | '-' | '/' | '.'));
        if quoted || plain && !bare.is_empty() || bare.parse::<f64>().is_ok() {
            words += 1;
        } else {
            other += 1;
        }
    }
    let heading = line.starts_with("# ") || line.starts_with("## ") || line.starts_with("### ");
    let ends_like_code = line.ends_with([';', '{', '}', '[', '(']) || line.ends_with("->") || line.ends_with("=>");
    !ends_like_code && (words >= 4 && other * 4 <= words || heading && words >= 1)
}

/// Whether a text without fences is code: what it reads like, against what its syntax tree holds.
pub(super) fn is_code(text: &str, parsed: Option<(&Counts, bool)>, words_are_calls: bool) -> bool {
    let prose = share(text);
    match parsed {
        // It parses: prose only where it reads like it and the tree holds nothing that prose can't be.
        Some((counts, true)) => {
            let built = counts.solid + counts.hollow + counts.types > 0.0;
            // `if needed restart and wait` is a sentence, and branches in Elixir.
            let branches = counts.decisions > 0 && !words_are_calls;
            let marked = text.contains(|c: char| "()[]{}=;<>|&@$`\"'+*/%".contains(c));
            built || branches && prose < 0.9 || marked && prose < 0.5
        }
        Some((_, false)) | None => prose < 0.5 && marks(text) >= 0.3,
    }
}

/// Share of the lines that carry marks of code.
fn marks(text: &str) -> f64 {
    let (mut lines, mut marked) = (0_usize, 0_usize);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        lines += 1;
        let ends =
            line.ends_with([';', '{', '}', ')', ']', '(', ',']) || matches!(line, "end" | "else" | "pass" | "do");
        let ends = ends || line.ends_with(" do") || line.ends_with("):") || line.ends_with("->");
        let holds = [" = ", "==", "!=", " := ", "=>", "->", "|>", "()", "::", "&&", "||", "</"]
            .iter()
            .any(|m| line.contains(m));
        let begins = [
            "def ", "fn ", "func ", "class ", "import ", "from ", "return ", "let ", "const ", "var ", "val ",
            "SELECT ", "CREATE ", "INSERT ", "UPDATE ", "DELETE ", "@", "//", "/*",
        ]
        .iter()
        .any(|m| line.starts_with(m));
        marked += usize::from(ends && !is_prose(line) || holds || begins && !is_prose(line));
    }
    if lines == 0 { 0.0 } else { marked as f64 / lines as f64 }
}

fn outside<'a>(text: &'a str, blocks: &[Block<'_>]) -> Vec<&'a str> {
    let mut parts = Vec::with_capacity(blocks.len() + 1);
    let mut at = 0;
    for block in blocks {
        parts.push(&text[at..block.start]);
        at = block.end;
    }
    parts.push(&text[at..]);
    parts
}

/// Half for sentences, three tenths for paragraphs of readable size, two for headings, lists, tables or code.
fn structure(parts: &[&str], words: usize, has_code: bool) -> f64 {
    let lines = || parts.iter().flat_map(|part| part.lines()).map(str::trim);
    let sentences = parts
        .iter()
        .flat_map(|part| part.split_whitespace())
        .filter(|word| word.trim_end_matches([')', '"', '*', '_', '\'', '”']).ends_with(['.', '!', '?', '。']))
        .count();
    let shaped = lines().filter(|line| is_shaped(line)).count();
    let paragraphs = parts
        .iter()
        .flat_map(|part| part.split("\n\n"))
        .filter(|paragraph| paragraph.contains(char::is_alphanumeric))
        .count();
    // One sentence or list item for 40 words, one paragraph for 150.
    let told = ((sentences + shaped) as f64 / (words as f64 / 40.0).max(1.0)).min(1.0);
    let divided = (paragraphs as f64 / (words as f64 / 150.0).max(1.0)).min(1.0);
    // A short answer needs no headings.
    let ordered = if shaped > 0 || has_code { 1.0 } else { (1.0 - (words as f64 - 60.0) / 200.0).clamp(0.0, 1.0) };
    0.5 * told + 0.3 * divided + 0.2 * ordered
}

fn is_shaped(line: &str) -> bool {
    let numbered = line
        .split_once(". ")
        .is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    numbered || ["# ", "## ", "### ", "#### ", "- ", "* ", "+ ", "|"].iter().any(|mark| line.starts_with(mark))
}

/// 0 to 1 by words: nothing up to 4, nine tenths at 40, all from 120 to 1,500, nothing from 6,000 on.
fn length(words: usize) -> f64 {
    let count = words as f64;
    match words {
        0..=4 => 0.0,
        5..40 => 0.9 * (count - 4.0) / 36.0,
        40..120 => 0.9 + 0.1 * (count - 40.0) / 80.0,
        120..=1500 => 1.0,
        _ => (1.0 - (count - 1500.0) / 4500.0).max(0.0),
    }
}

/// 1 for a closing mark, a table's row or a closed fence; half for a list item without a full stop; 0 for a text that
/// breaks off, ends with a heading, announces something (`:`), or leaves a fence open.
fn finished(text: &str, blocks: &[Block<'_>]) -> f64 {
    if blocks.iter().any(|block| !block.closed) {
        return 0.0;
    }
    if blocks.last().is_some_and(|block| text[block.end..].trim().is_empty()) {
        return 1.0;
    }
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    if last.starts_with('#') {
        return 0.0;
    }
    let closed = last.ends_with(['.', '!', '?', ')', '"', '*', '_', '`', '|', '”', '»', '。', '…', ']', '>']);
    if closed && !last.ends_with("...") && !last.ends_with('…') {
        return 1.0;
    }
    if is_shaped(last) && last.split_whitespace().count() > 1 { 0.5 } else { 0.0 }
}
