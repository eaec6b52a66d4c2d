//! The table template × tool.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Write as _;

use crate::Rendered;

/// What the tools of one language said.
#[derive(Default)]
pub struct Table {
    cells: BTreeMap<(String, String), Cell>,
    expected: BTreeMap<String, usize>,
}

enum Cell {
    /// How many renderings the tool looked at, and what it said against some of them, by set.
    Checked {
        renderings: usize,
        complaints: Vec<String>,
    },
    NotChecked(String),
}

impl Table {
    /// The tool has looked at this rendering and has nothing against it, unless `complain` says so too.
    pub fn checked(&mut self, tool: &str, rendered: &Rendered) {
        if let Cell::Checked { renderings, .. } = self.cell(tool, &rendered.template) {
            *renderings += 1;
        }
    }

    /// The same for many.
    pub fn checked_all<'a>(&mut self, tool: &str, rendered: impl IntoIterator<Item = &'a Rendered>) {
        rendered.into_iter().for_each(|one| self.checked(tool, one));
    }

    /// What the tool has against a rendering: its own words, with the line.
    pub fn complain(&mut self, tool: &str, rendered: &Rendered, complaint: &str) {
        if let Cell::Checked { complaints, .. } = self.cell(tool, &rendered.template) {
            complaints.push(format!("{} ({}): {}", rendered.set, rendered.language.as_str(), complaint.trim_end()));
        }
    }

    /// The tool can't look at this template; `why` is read by people.
    pub fn not_checked(&mut self, tool: &str, template: &str, why: &str) {
        let place = self.cells.entry((template.to_owned(), tool.to_owned()));
        if let Entry::Vacant(free) = place {
            free.insert(Cell::NotChecked(why.to_owned()));
        }
    }

    /// Some tool must have looked at it.
    pub fn expect(&mut self, rendered: &Rendered) {
        *self.expected.entry(rendered.template.clone()).or_default() += 1;
    }

    /// Shows the table, and keeps it where `scripts/test` finds it.
    pub fn print(&self, keep: bool) {
        let mut text = String::new();
        for ((template, tool), cell) in &self.cells {
            let said = match cell {
                Cell::Checked { renderings, complaints } if complaints.is_empty() => format!("ok ({renderings})"),
                Cell::Checked { renderings, complaints } => {
                    format!("**error** ({} in {renderings})", complaints.len())
                }
                Cell::NotChecked(why) => format!("not checked: {why}"),
            };
            text.push_str(&format!("{template} | {tool} | {said}\n"));
        }
        print!("{text}");
        if keep {
            let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/languages.txt");
            let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
            // In one piece: the languages run beside each other.
            file.write_all(text.as_bytes()).unwrap();
        }
    }

    /// Panics with every complaint, and with every template whose renderings no tool has seen all of.
    pub fn assert(&self) {
        let mut wrong = vec![];
        for ((template, tool), cell) in &self.cells {
            if let Cell::Checked { complaints, .. } = cell {
                wrong.extend(complaints.iter().map(|complaint| format!("{template}, {tool}, {complaint}")));
            }
        }
        for (template, wanted) in &self.expected {
            let seen = self.cells.iter().filter(|((of, _), _)| of == template).filter_map(|(_, cell)| match cell {
                Cell::Checked { renderings, .. } => Some(*renderings),
                Cell::NotChecked(_) => None,
            });
            let seen = seen.max().unwrap_or_default();
            if seen < *wanted {
                wrong.push(format!("{template}: no tool looked at more than {seen} of its {wanted} renderings"));
            }
        }
        assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
    }

    fn cell(&mut self, tool: &str, template: &str) -> &mut Cell {
        let cell = self
            .cells
            .entry((template.to_owned(), tool.to_owned()))
            .or_insert(Cell::Checked { renderings: 0, complaints: vec![] });
        assert!(matches!(cell, Cell::Checked { .. }), "{tool} both looked and did not look at {template}");
        cell
    }
}
