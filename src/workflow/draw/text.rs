//! Text from outside, made fit for a picture.

/// The longest text that is kept whole in a tooltip.
const LONGEST: usize = 400;

/// As content or as an attribute in XML. What XML can't hold at all, and what turns the direction of text, is left out.
pub(super) fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars().filter(|&c| is_shown(c)) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// On one line, cut to `width` units of about the width of a digit.
pub(super) fn fit(text: &str, width: f64) -> String {
    let line = one_line(text);
    if width_of(&line) <= width {
        return line;
    }
    let mut used = 1.0;
    let mut cut: String = line
        .chars()
        .take_while(|&c| {
            used += units(c);
            used <= width
        })
        .collect();
    cut.truncate(cut.trim_end().len());
    cut.push('…');
    cut
}

/// On two lines at most, broken between words where that goes.
pub(super) fn two_lines(text: &str, width: f64) -> Vec<String> {
    let line = one_line(text);
    if line.is_empty() {
        return vec![];
    }
    let words: Vec<&str> = line.split(' ').collect();
    // At least one word, and as many as fit.
    let fitting = (1..=words.len()).rev().find(|&count| width_of(&words[..count].join(" ")) <= width);
    match fitting {
        Some(count) if count < words.len() => vec![words[..count].join(" "), fit(&words[count..].join(" "), width)],
        _ => vec![fit(&line, width)],
    }
}

/// Without line breaks and double spaces, and not endless.
pub(super) fn one_line(text: &str) -> String {
    // Whitespace that is a control character still parts words.
    let shown: String = text.chars().filter(|&c| c.is_whitespace() || is_shown(c)).collect();
    let words: Vec<&str> = shown.split_whitespace().collect();
    let mut line: String = words.join(" ").chars().take(LONGEST + 1).collect();
    if line.chars().count() > LONGEST {
        line.pop();
        line.push('…');
    }
    line
}

pub(super) fn width_of(text: &str) -> f64 {
    text.chars().map(units).sum()
}

fn units(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '|' | '!' | '\'' | '(' | ')' | '[' | ']' | ' ' => 0.55,
        'f' | 'r' | 't' | '-' | '/' => 0.7,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 1.5,
        'A'..='Z' | '_' | '&' | '<' | '>' | '=' | '+' | '#' | '~' => 1.25,
        c if (c as u32) < 0x1100 => 1.0,
        _ => 1.85,
    }
}

fn is_shown(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}');
    !c.is_control() && !turns && !matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}
