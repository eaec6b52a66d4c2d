//! Fenced blocks in a text.

/// One fenced block of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block<'a> {
    /// First word behind the opening fence, empty if there is none.
    pub(super) label: &'a str,
    /// The lines between the fences.
    pub(super) code: &'a str,
    /// Columns that the fence stands in, as in a list: the lines of the code begin there too.
    pub(super) indent: usize,
    pub(super) closed: bool,
    /// From the opening fence to behind the closing one.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The blocks of a text, in order. A fence that nothing closes reaches to the end, as in CommonMark. Other than there,
/// a closing fence stands no deeper than its opening one: code whose own documentation holds fences stays whole.
pub(super) fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found: Vec<Block<'_>> = Vec::new();
    let mut open: Option<(Fence<'_>, usize, usize)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let next = at + line.len();
        match (open, fence(line)) {
            (None, Some(fence)) => open = Some((fence, at, next)),
            (Some((opened, start, code)), Some(fence)) if fence.closes(opened) => {
                found.push(block(text, opened, start, code, at, next, true));
                open = None;
            }
            _ => {}
        }
        at = next;
    }
    if let Some((opened, start, code)) = open {
        found.push(block(text, opened, start, code, text.len(), text.len(), false));
    }
    found
}

/// A block that excerpts: something is left out, or it is a session in a shell. It need not parse.
pub(super) fn is_excerpt(code: &str) -> bool {
    code.lines().any(|line| {
        let line = line.trim();
        let bare = line.trim_matches(|c: char| matches!(c, '/' | '#' | '*' | '-' | '{' | '}' | '<' | '>' | '!' | ' '));
        matches!(bare, "..." | "…")
            || [">>> ", "iex>", "iex(", "$ ", "> "].iter().any(|prompt| line.starts_with(prompt))
    })
}

#[derive(Clone, Copy)]
struct Fence<'a> {
    mark: u8,
    length: usize,
    indent: usize,
    info: &'a str,
}

impl Fence<'_> {
    fn closes(self, opened: Fence<'_>) -> bool {
        self.mark == opened.mark && self.length >= opened.length && self.info.is_empty() && self.indent <= opened.indent
    }
}

fn fence(line: &str) -> Option<Fence<'_>> {
    let rest = line.trim_start_matches([' ', '\t']);
    let mark = *rest.as_bytes().first().filter(|mark| matches!(mark, b'`' | b'~'))?;
    let length = rest.bytes().take_while(|byte| *byte == mark).count();
    let info = rest[length..].trim();
    (length >= 3 && !info.contains('`')).then_some(Fence { mark, length, indent: line.len() - rest.len(), info })
}

fn block<'a>(
    text: &'a str,
    fence: Fence<'a>,
    start: usize,
    code: usize,
    code_end: usize,
    end: usize,
    closed: bool,
) -> Block<'a> {
    let label = fence.info.split([' ', ',', '{', ':']).next().unwrap_or_default();
    Block { label, code: &text[code..code_end], indent: fence.indent, closed, start, end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_their_labels_and_an_unclosed_one_reaches_to_the_end() {
        let text = "A\n```rust,ignore\nfn a() {}\n```\nB\n  ~~~~\n  ```\n  x\n  ~~~~\n```py\nx = 1";
        let seen: Vec<_> = blocks(text).into_iter().map(|b| (b.label, b.code, b.indent, b.closed)).collect();
        let expected = [("rust", "fn a() {}\n", 0, true), ("", "  ```\n  x\n", 2, true), ("py", "x = 1", 0, false)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_fence_within_documentation_does_not_end_the_block() {
        let text = "```elixir\ndefmodule A do\n  @moduledoc \"\"\"\n  ```\n  A.b()\n  ```\n  \"\"\"\nend\n```\n";
        let found = blocks(text);
        assert_eq!(found.len(), 1);
        assert!(found[0].code.ends_with("end\n"));
    }

    #[test]
    fn what_leaves_out_or_shows_a_session_is_an_excerpt() {
        assert!(is_excerpt("fn a() {\n    // ...\n}\n"));
        assert!(is_excerpt(">>> a(1)\n2\n"));
        assert!(!is_excerpt("let [first, ...rest] = list;\n"));
    }
}
