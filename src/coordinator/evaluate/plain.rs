//! Code in a language without a grammar: what its lines alone tell.

use serde::de::IgnoredAny;
use tree_sitter::Point;

use crate::domain::Language;

/// Half by the source's base, up to 0.2 for a reasonable length, up to 0.2 for brackets in pairs and lines that nest.
/// Error handling is not looked for: nobody can say what it is in a language unknown.
pub(super) fn quality(text: &str) -> f64 {
    let lines: Vec<&str> = text.lines().filter(|line| is_code(line)).collect();
    if lines.is_empty() {
        return 0.0;
    }
    let counts = super::code::Counts { lines: lines.len(), ..Default::default() };
    let nested = lines.iter().filter(|line| line.starts_with([' ', '\t'])).count() as f64 / lines.len() as f64;
    let structure = if balanced(text) { 0.5 + (2.0 * nested).min(1.0) / 2.0 } else { 0.0 };
    0.5 + 0.2 * structure * counts.length() + 0.2 * counts.length()
}

/// Where JSON or TOML goes wrong and how; of anything else no error is known.
pub(super) fn first_error(text: &str, language: &Language) -> Option<(Point, String)> {
    match language.as_str() {
        "json" => {
            let error = serde_json::from_str::<IgnoredAny>(text).err()?;
            let point = Point { row: error.line().saturating_sub(1), column: error.column().saturating_sub(1) };
            // Its place is told beside it.
            let what = error.to_string();
            Some((point, what.split(" at line ").next().unwrap_or(&what).to_owned()))
        }
        "toml" => {
            let error = text.parse::<toml::Table>().err()?;
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.rfind('\n').map_or(0, |newline| newline + 1);
            let point = Point { row: before.matches('\n').count(), column: before.len() - line };
            Some((point, error.message().to_owned()))
        }
        _ => None,
    }
}

/// A whole object or list, not a word or number, which would be JSON too.
pub(super) fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !["//", "#", "--", "/*", "*", ";;", "%%"].iter().any(|comment| line.starts_with(comment))
}

/// Whether brackets come in pairs, those on a line with quotes left out: they may be text.
fn balanced(text: &str) -> bool {
    let mut open = [0_i64; 3];
    for line in text.lines().filter(|line| is_code(line) && !line.contains(['"', '\'', '`'])) {
        for byte in line.bytes() {
            match byte {
                b'(' => open[0] += 1,
                b')' => open[0] -= 1,
                b'[' => open[1] += 1,
                b']' => open[1] -= 1,
                b'{' => open[2] += 1,
                b'}' => open[2] -= 1,
                _ => {}
            }
        }
    }
    open == [0; 3]
}
