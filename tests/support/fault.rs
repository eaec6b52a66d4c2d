//! The table of faults: each test adds its line, `scripts/test --faults` shows them all.

#![allow(dead_code, clippy::print_stdout, reason = "each test takes what it needs; the figures are for people")]

use std::fmt::Display;
use std::io::Write as _;

/// `small` by default, `full` where TANDEM_FAULTS=1 asks for the whole.
pub fn size<T>(small: T, full: T) -> T {
    if std::env::vars_os().any(|(name, value)| name == "TANDEM_FAULTS" && value == "1") { full } else { small }
}

/// Says what came out, and what it may be at most or at least.
pub fn report(fault: &str, figure: impl Display, limit: &str) {
    let line = format!("{fault} | {figure} | {limit}\n");
    print!("fault | {line}");
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/faults.txt");
    let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
    // In one piece: tests run beside each other.
    file.write_all(line.as_bytes()).unwrap();
}
