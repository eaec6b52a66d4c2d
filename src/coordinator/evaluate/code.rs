//! Reading code: one walk over the syntax tree counts, the grades are made from the counts.

use tree_sitter::{Point, Tree};

use super::grammar::Grammar;
use super::rules::{self, Body, Role, Seen, is_placeholder};

/// What was counted in a program.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Lines that hold code: neither blank nor only comment or documentation.
    pub(super) lines: usize,
    /// Ways to branch, see [`Counts::cyclomatic`].
    pub(super) decisions: i64,
    /// Places where an error is met with what the language has for it, and where it is thrown away.
    pub(super) handled: f64,
    pub(super) swallowed: f64,
    /// Functions (tests, callbacks at half) with a body that does something, and what is there but undone.
    pub(super) solid: f64,
    pub(super) hollow: f64,
    pub(super) types: f64,
    /// Statements at the top of a script or configuration.
    pub(super) statements: usize,
    /// Lines of code of the longest function, those of functions within it left out.
    pub(super) longest: usize,
    /// Up to this byte a failure may end the program: it is a test.
    pub(super) lenient_until: usize,
    /// Bytes of the longest node whose text was searched, see `rules`.
    pub(super) widest: usize,
    /// The next item is one.
    pub(super) test_follows: bool,
    /// An error that the grammar is too lax to see.
    pub(super) fault: Option<(Point, &'static str)>,
}

impl Counts {
    pub(super) fn function(&mut self, body: Body, weight: f64) {
        match body {
            Body::Hollow => self.hollow += weight,
            Body::Trivial => {
                self.solid += weight / 2.0;
                self.hollow += weight / 2.0;
            }
            Body::Solid => self.solid += weight,
        }
    }

    pub(super) fn fault(&mut self, at: Point, what: &'static str) {
        self.fault.get_or_insert((at, what));
    }

    /// McCabe's number of the file as one program: 1 and the decisions. These are conditions, loops, `catch`, the
    /// arms of a `match`, `case` or `select` beyond its first, `&&`, `||`, `??`, the ternary, Rust's `?` and
    /// `let … else`, Python's clauses of comprehensions, Elixir's `with`, SQL's `WHEN`, `IF` and loops.
    pub(super) fn cyclomatic(&self) -> u32 {
        u32::try_from(self.decisions.max(0)).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// 0 to 1. Handling an error earns, throwing one away takes off. Two places are expected of a short program and
    /// one for each 25 lines of a longer one; each further expectation met closes nine tenths of what is missing.
    pub(super) fn error_handling(&self) -> f64 {
        if self.handled == 0.0 {
            return 0.0;
        }
        let kept = self.handled / (self.handled + self.swallowed);
        kept * approach(self.handled / self.expected())
    }

    /// 0 to 1: how much of what is begun is done, times how far the code is divided into named definitions (a type
    /// or module counts half, a loose statement a quarter), times whether its longest function can be read.
    pub(super) fn structure(&self) -> f64 {
        let functions = self.solid + self.hollow;
        let done = if self.solid > 0.0 { self.solid / functions } else { f64::from(self.hollow == 0.0) };
        // Loose statements do not add up to a structure.
        let loose = self.statements.min(8) as f64 / 4.0;
        let divided = approach((self.solid + self.types / 2.0 + loose) / self.expected());
        let readable = 1.0 - 0.5 * ((self.longest as f64 - 60.0) / 140.0).clamp(0.0, 1.0);
        done * divided * readable
    }

    /// 0 to 1 by lines of code: nothing for one, nine tenths at 10, all from 60 to 200, nothing from 600 on.
    pub(super) fn length(&self) -> f64 {
        let lines = self.lines as f64;
        match self.lines {
            0 => 0.0,
            1..10 => 0.1 * (lines - 1.0),
            10..60 => 0.9 + 0.1 * (lines - 10.0) / 50.0,
            60..=200 => 1.0,
            _ => (1.0 - (lines - 200.0) / 400.0).max(0.0),
        }
    }

    fn expected(&self) -> f64 {
        (self.lines as f64 / 25.0).max(2.0)
    }
}

/// 0 at 0, 0.9 at 1, 0.99 at 2: always rising, so that a little more is always a little better.
pub(super) fn approach(x: f64) -> f64 {
    1.0 - 0.1_f64.powf(x)
}

/// Counts what a parsed program holds. Iterative: a text of nothing but brackets is as deep as it is long.
pub(super) fn count(tree: &Tree, grammar: Grammar, source: &str) -> Counts {
    let (roles, rules) = (grammar.roles(), rules::of(grammar));
    let mut counts = Counts::default();
    // First row that was not counted yet.
    let mut fresh = 0;
    // Depth of each function that the cursor is in, lines of code before it, lines of functions within it.
    let mut functions: Vec<(usize, usize, usize)> = Vec::new();
    let mut parents = Vec::new();
    let mut cursor = tree.walk();
    loop {
        let node = cursor.node();
        let seen = match roles.get(usize::from(node.kind_id())).copied().unwrap_or(Role::Plain) {
            Role::Plain => Seen::Nothing,
            Role::Comment => {
                if is_placeholder(source.get(node.byte_range()).unwrap_or_default()) {
                    counts.hollow += 0.5;
                }
                Seen::Comment
            }
            Role::Decision => {
                counts.decisions += 1;
                Seen::Nothing
            }
            Role::Choice => {
                counts.decisions -= i64::from(node.named_child_count() > 0);
                Seen::Nothing
            }
            Role::Look => (rules.look)(node, &parents, source, &mut counts),
        };
        if seen == Seen::Function {
            functions.push((parents.len(), counts.lines, 0));
        }
        if seen != Seen::Comment {
            if cursor.goto_first_child() {
                parents.push(node);
                continue;
            }
            let (start, end) = (node.start_position(), node.end_position());
            // A token may hold the line break that ends it.
            let last = if end.column == 0 && end.row > start.row { end.row - 1 } else { end.row };
            let first = start.row.max(fresh);
            // Some grammars have a token for a line break, on blank lines too.
            let token = source.as_bytes().get(node.byte_range()).unwrap_or_default();
            if last >= first && token.iter().any(|byte| !byte.is_ascii_whitespace()) {
                counts.lines += last + 1 - first;
                fresh = last + 1;
            }
        }
        loop {
            if functions.last().is_some_and(|(at, ..)| *at == parents.len()) {
                close(&mut functions, &mut counts);
            }
            if cursor.goto_next_sibling() {
                break;
            }
            if !cursor.goto_parent() {
                return counts;
            }
            parents.pop();
        }
    }
}

fn close(functions: &mut Vec<(usize, usize, usize)>, counts: &mut Counts) {
    let Some((_, before, within)) = functions.pop() else { return };
    let lines = counts.lines - before;
    counts.longest = counts.longest.max(lines.saturating_sub(within));
    if let Some((.., outer)) = functions.last_mut() {
        *outer += lines;
    }
}
